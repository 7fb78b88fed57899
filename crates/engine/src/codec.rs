//! How one write stands in the log: version 1 of the record's plaintext, little endian.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | 8 | collection id |
//! | 8 | number of the log segment that it was written to |
//! | 8 | timestamp |
//! | 8 + 8 | the log segment that was written before this one (0 for none), and how many records of it are known to be durable |
//! | 1 + 8 | whether the deletes are for one partition, and which |
//! | 1 + 4 | type of deleted keys (0 `Int64`, 1 `VarChar`), their number; then the keys |
//! | 4 | number of parts; each: partition id (8), columns (4), rows (4), then the columns |
//!
//! A column: field id (8), type (1), whether validity follows (1; then one byte a row), and its values: fixed-size ones
//! one after another (vectors after a 4-byte dimension), texts, documents and arrays each after their 4-byte length.
//!
//! Records are authentic when they get here (the log's seal binds segment and position), yet nothing in them is
//! believed: ids of collection and segment must match, and every length is checked against the bytes that are there.

use saker_keyring::{RECORD_OVERHEAD_BYTES, RECORD_ROOM_BYTES};
use saker_model::{
    ArrayValue, Bitmap, CollectionId, Column, ColumnData, FieldId, PartitionId, PrimaryKey, RowBatch, SparseVector,
    Timestamp,
};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// One write: deletes first, then rows, all at one timestamp.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Operation {
    pub(crate) timestamp: Timestamp,
    /// Keys whose older rows are hidden, all of one type.
    pub(crate) deletes: Vec<PrimaryKey>,
    /// The only partition that the deletes are for; `None` for all.
    pub(crate) delete_partition: Option<PartitionId>,
    /// New rows by partition.
    pub(crate) parts: Vec<(PartitionId, RowBatch)>,
}

/// What came before a log segment: so that one that was taken away or cut is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct LogLink {
    /// Number of the segment before; 0 for none.
    pub(crate) sequence: u64,
    /// Records that it has at least.
    pub(crate) records: u64,
}

/// An encoded write whose place in the log is not known yet, after room for what sealing puts before it.
pub(crate) struct Encoded(Zeroizing<Vec<u8>>);

impl Encoded {
    pub(crate) fn new(collection: CollectionId, operation: &Operation) -> Self {
        let bytes = RECORD_OVERHEAD_BYTES + size_hint(operation);
        let mut out = Writer(Zeroizing::new(Vec::with_capacity(bytes)));
        out.0.extend_from_slice(&[0; RECORD_ROOM_BYTES]);
        out.u8(VERSION);
        out.i64(collection.0);
        out.u64(0);
        out.u64(operation.timestamp.0);
        out.u64(0);
        out.u64(0);
        out.u8(u8::from(operation.delete_partition.is_some()));
        out.i64(operation.delete_partition.map_or(0, |partition| partition.0));
        out.keys(&operation.deletes);
        out.length(operation.parts.len());
        for (partition, rows) in &operation.parts {
            out.i64(partition.0);
            out.length(rows.columns().len());
            out.length(rows.rows());
            rows.columns().iter().for_each(|column| out.column(column));
        }
        Self(out.0)
    }
    /// Fills in what is known only when its turn has come.
    pub(crate) fn place(&mut self, sequence: u64, link: LogLink, timestamp: Timestamp) {
        let record = &mut self.0[RECORD_ROOM_BYTES..];
        record[LINK_AT..LINK_AT + 8].copy_from_slice(&link.sequence.to_le_bytes());
        record[LINK_AT + 8..LINK_AT + 16].copy_from_slice(&link.records.to_le_bytes());
        record[SEQUENCE_AT..SEQUENCE_AT + 8].copy_from_slice(&sequence.to_le_bytes());
        record[TIMESTAMP_AT..TIMESTAMP_AT + 8].copy_from_slice(&timestamp.0.to_le_bytes());
    }
    /// The record.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0[RECORD_ROOM_BYTES..]
    }
    /// The record after its room, to be sealed where it is.
    pub(crate) fn into_room(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

/// Reads a record of this collection and log segment.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for anything else.
pub(crate) fn decode(bytes: &[u8], collection: CollectionId, sequence: u64) -> Result<(LogLink, Operation)> {
    let fail = |reason: &str| {
        Error::new(
            ErrorKind::Corrupt,
            format!("a record of log segment {sequence} of collection {collection} makes no sense: {reason}"),
        )
    };
    read(bytes, collection, sequence).map_err(fail)
}

/// Encodes deletes by key for a file of deletes: version, number of groups, then timestamp, partition and keys of each.
pub(crate) fn encode_key_deletes(deletes: &[KeyDeletes]) -> Zeroizing<Vec<u8>> {
    let mut out = Writer(Zeroizing::new(Vec::new()));
    out.u8(VERSION);
    out.length(deletes.len());
    for group in deletes {
        out.u64(group.timestamp.0);
        out.u8(u8::from(group.partition.is_some()));
        out.i64(group.partition.map_or(0, |partition| partition.0));
        out.keys(&group.keys);
    }
    out.0
}

/// Reads what [`encode_key_deletes`] wrote.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for anything else.
pub(crate) fn decode_key_deletes(bytes: &[u8]) -> Result<Vec<KeyDeletes>> {
    let mut input = Reader(bytes);
    let mut read = || {
        if input.u8()? != VERSION {
            return Err("unknown version");
        }
        let groups = input.length(GROUP_BYTES_MIN)?;
        let mut deletes = Vec::with_capacity(groups);
        for _ in 0..groups {
            let timestamp = Timestamp(input.u64()?);
            let partition = input.optional_partition()?;
            deletes.push(KeyDeletes {
                timestamp,
                partition,
                keys: input.keys()?,
            });
        }
        input.end()?;
        Ok(deletes)
    };
    read().map_err(|reason| {
        Error::new(
            ErrorKind::Corrupt,
            format!("a file of deletes makes no sense: {reason}"),
        )
    })
}

/// Keys deleted at one timestamp.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KeyDeletes {
    pub(crate) timestamp: Timestamp,
    pub(crate) partition: Option<PartitionId>,
    pub(crate) keys: Vec<PrimaryKey>,
}

const VERSION: u8 = 1;
const SEQUENCE_AT: usize = 9;
const TIMESTAMP_AT: usize = 17;
const LINK_AT: usize = 25;
/// Least bytes of a part, a column and a group of deletes: a count that claims more than fits is refused unread.
const PART_BYTES_MIN: usize = 16;
const COLUMN_BYTES_MIN: usize = 10;
const GROUP_BYTES_MIN: usize = 22;

/// Bytes of a batch, roughly and cheaply: texts count as if they were short.
pub(crate) fn batch_bytes(rows: &RowBatch) -> usize {
    #[expect(clippy::wildcard_enum_match_arm, reason = "an estimate only")]
    let vectors = rows.columns().iter().map(|column| match &column.data {
        ColumnData::FloatVector { data, .. } => size_of_val(data.as_slice()),
        ColumnData::Float16Vector { data, .. } | ColumnData::BFloat16Vector { data, .. } => {
            size_of_val(data.as_slice())
        }
        ColumnData::Int8Vector { data, .. } => data.len(),
        ColumnData::BinaryVector { data, .. } => data.len(),
        ColumnData::SparseFloatVector { data } => data.iter().map(|vector| vector.bytes() + 24).sum(),
        _ => column.rows() * 24,
    });
    vectors.sum()
}

impl Operation {
    /// Bytes of its rows and keys, roughly and cheaply.
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|(_, rows)| batch_bytes(rows)).sum::<usize>() + self.deletes.len() * 24
    }
}

fn size_hint(operation: &Operation) -> usize {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a hint only")]
    let column = |column: &Column| match &column.data {
        ColumnData::FloatVector { data, .. } => data.len() * 4,
        ColumnData::Float16Vector { data, .. } | ColumnData::BFloat16Vector { data, .. } => data.len() * 2,
        ColumnData::Int8Vector { data, .. } => data.len(),
        ColumnData::BinaryVector { data, .. } => data.len(),
        ColumnData::SparseFloatVector { data } => data.iter().map(|vector| vector.bytes() + 4).sum(),
        ColumnData::VarChar(values) => values.iter().map(|value| value.len() + 4).sum(),
        ColumnData::Json(values) => values.iter().map(|value| value.len() + 4).sum(),
        other => other.rows() * 8,
    };
    let rows: usize = operation
        .parts
        .iter()
        .flat_map(|(_, rows)| rows.columns())
        .map(column)
        .sum();
    64 + rows + operation.deletes.len() * 12
}

struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    fn length(&mut self, value: usize) {
        // Requests are limited to far below 4 GiB; the log refuses longer records anyway.
        self.0
            .extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }
    fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.0.extend_from_slice(value);
    }
    fn keys(&mut self, keys: &[PrimaryKey]) {
        self.u8(u8::from(matches!(keys.first(), Some(PrimaryKey::Text(_)))));
        self.length(keys.len());
        for key in keys {
            match key {
                PrimaryKey::Int(key) => self.i64(*key),
                PrimaryKey::Text(key) => self.bytes(key.as_bytes()),
            }
        }
    }
    fn column(&mut self, column: &Column) {
        self.i64(column.field.0);
        self.u8(type_code(&column.data));
        self.u8(u8::from(column.validity.is_some()));
        if let Some(validity) = &column.validity {
            (0..column.rows()).for_each(|row| self.u8(u8::from(validity.contains(row))));
        }
        match &column.data {
            ColumnData::Bool(values) => values.iter().for_each(|value| self.u8(u8::from(*value))),
            ColumnData::Int8(values) => values.iter().for_each(|value| self.u8(value.cast_unsigned())),
            ColumnData::Int16(values) => values
                .iter()
                .for_each(|value| self.0.extend_from_slice(&value.to_le_bytes())),
            ColumnData::Int32(values) => values
                .iter()
                .for_each(|value| self.0.extend_from_slice(&value.to_le_bytes())),
            ColumnData::Int64(values) => values.iter().for_each(|value| self.i64(*value)),
            ColumnData::Float(values) => self.floats(values),
            ColumnData::Double(values) => self.doubles(values),
            ColumnData::VarChar(values) => values.iter().for_each(|value| self.bytes(value.as_bytes())),
            ColumnData::Json(values) => values.iter().for_each(|value| self.bytes(value)),
            ColumnData::Array(values) => values.iter().for_each(|value| self.array(value)),
            ColumnData::FloatVector { dim, data } => {
                self.length(*dim);
                self.floats(data);
            }
            ColumnData::Float16Vector { dim, data } | ColumnData::BFloat16Vector { dim, data } => {
                self.length(*dim);
                data.iter()
                    .for_each(|value| self.0.extend_from_slice(&value.to_le_bytes()));
            }
            ColumnData::Int8Vector { dim, data } => {
                self.length(*dim);
                self.0.extend(data.iter().map(|value| value.cast_unsigned()));
            }
            ColumnData::BinaryVector { dim, data } => {
                self.length(*dim);
                self.0.extend_from_slice(data);
            }
            ColumnData::SparseFloatVector { data } => data.iter().for_each(|vector| {
                self.length(vector.pairs().len());
                for (index, value) in vector.pairs() {
                    self.0.extend_from_slice(&index.to_le_bytes());
                    self.0.extend_from_slice(&value.to_le_bytes());
                }
            }),
        }
    }
    /// In one piece: it is most of what is written.
    fn floats(&mut self, values: &[f32]) {
        let start = self.0.len();
        self.0.resize(start + size_of_val(values), 0);
        let places = self.0[start..].as_chunks_mut::<4>().0;
        for (place, value) in places.iter_mut().zip(values) {
            *place = value.to_le_bytes();
        }
    }
    fn doubles(&mut self, values: &[f64]) {
        values
            .iter()
            .for_each(|value| self.0.extend_from_slice(&value.to_le_bytes()));
    }
    fn array(&mut self, value: &ArrayValue) {
        let (code, length) = match value {
            ArrayValue::Bool(values) => (0, values.len()),
            ArrayValue::Int32(values) => (1, values.len()),
            ArrayValue::Int64(values) => (2, values.len()),
            ArrayValue::Float(values) => (3, values.len()),
            ArrayValue::Double(values) => (4, values.len()),
            ArrayValue::Text(values) => (5, values.len()),
        };
        self.u8(code);
        self.length(length);
        match value {
            ArrayValue::Bool(values) => values.iter().for_each(|value| self.u8(u8::from(*value))),
            ArrayValue::Int32(values) => values
                .iter()
                .for_each(|value| self.0.extend_from_slice(&value.to_le_bytes())),
            ArrayValue::Int64(values) => values.iter().for_each(|value| self.i64(*value)),
            ArrayValue::Float(values) => self.floats(values),
            ArrayValue::Double(values) => self.doubles(values),
            ArrayValue::Text(values) => values.iter().for_each(|value| self.bytes(value.as_bytes())),
        }
    }
}

fn type_code(data: &ColumnData) -> u8 {
    match data {
        ColumnData::Bool(_) => 0,
        ColumnData::Int8(_) => 1,
        ColumnData::Int16(_) => 2,
        ColumnData::Int32(_) => 3,
        ColumnData::Int64(_) => 4,
        ColumnData::Float(_) => 5,
        ColumnData::Double(_) => 6,
        ColumnData::VarChar(_) => 7,
        ColumnData::Json(_) => 8,
        ColumnData::Array(_) => 9,
        ColumnData::FloatVector { .. } => 10,
        ColumnData::Float16Vector { .. } => 11,
        ColumnData::BFloat16Vector { .. } => 12,
        ColumnData::Int8Vector { .. } => 13,
        ColumnData::BinaryVector { .. } => 14,
        ColumnData::SparseFloatVector { .. } => 15,
    }
}

type Read<T> = std::result::Result<T, &'static str>;

fn read(bytes: &[u8], collection: CollectionId, sequence: u64) -> Read<(LogLink, Operation)> {
    let mut input = Reader(bytes);
    if input.u8()? != VERSION {
        return Err("unknown version");
    }
    if input.i64()? != collection.0 {
        return Err("it belongs to another collection");
    }
    if input.u64()? != sequence {
        return Err("it belongs to another log segment");
    }
    let timestamp = Timestamp(input.u64()?);
    let link = LogLink {
        sequence: input.u64()?,
        records: input.u64()?,
    };
    let delete_partition = input.optional_partition()?;
    let deletes = input.keys()?;
    let count = input.length(PART_BYTES_MIN)?;
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        let partition = PartitionId(input.i64()?);
        let columns = input.length(COLUMN_BYTES_MIN)?;
        // Each column has at least a byte a row, but a part may have no column.
        let rows = input.length(0)?;
        let columns = (0..columns).map(|_| input.column(rows)).collect::<Read<Vec<_>>>()?;
        let batch = RowBatch::new(columns).map_err(|_| "its columns do not fit together")?;
        if batch.rows() != rows {
            return Err("it has another number of rows than it says");
        }
        parts.push((partition, batch));
    }
    input.end()?;
    let operation = Operation {
        timestamp,
        deletes,
        delete_partition,
        parts,
    };
    Ok((link, operation))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (part, rest) = self.0.split_at_checked(count).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(part)
    }
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk::<N>().ok_or("it is cut short")?;
        self.0 = rest;
        Ok(*part)
    }
    fn u8(&mut self) -> Read<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a flag is neither 0 nor 1"),
        }
    }
    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn i64(&mut self) -> Read<i64> {
        self.array().map(i64::from_le_bytes)
    }
    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }
    /// A count of things of at least `bytes_min` bytes each.
    fn length(&mut self, bytes_min: usize) -> Read<usize> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        if length.checked_mul(bytes_min).is_none_or(|bytes| bytes > self.0.len()) {
            return Err("a count is larger than what follows");
        }
        Ok(length)
    }
    fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.length(1)?;
        self.take(length)
    }
    fn text(&mut self) -> Read<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| "a text is not UTF-8")
    }
    fn optional_partition(&mut self) -> Read<Option<PartitionId>> {
        let given = self.flag()?;
        let partition = PartitionId(self.i64()?);
        Ok(given.then_some(partition))
    }
    fn keys(&mut self) -> Read<Vec<PrimaryKey>> {
        let texts = self.flag()?;
        let count = self.length(if texts { 4 } else { 8 })?;
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            keys.push(if texts {
                PrimaryKey::Text(self.text()?)
            } else {
                PrimaryKey::Int(self.i64()?)
            });
        }
        Ok(keys)
    }
    fn fixed<const N: usize, T>(&mut self, count: usize, read: impl Fn([u8; N]) -> T) -> Read<Vec<T>> {
        let bytes = self.take(count.checked_mul(N).ok_or("a count is too large")?)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect())
    }
    fn bools(&mut self, count: usize) -> Read<Vec<bool>> {
        let bytes = self.take(count)?;
        bytes
            .iter()
            .map(|byte| {
                if *byte < 2 {
                    Ok(*byte == 1)
                } else {
                    Err("a flag is neither 0 nor 1")
                }
            })
            .collect()
    }
    /// `count` values that each take at least `bytes_min` bytes.
    fn many<T>(&mut self, count: usize, bytes_min: usize, read: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        if count.checked_mul(bytes_min).is_none_or(|bytes| bytes > self.0.len()) {
            return Err("a count is larger than what follows");
        }
        (0..count).map(|_| read(self)).collect()
    }
    fn column(&mut self, rows: usize) -> Read<Column> {
        let field = FieldId(self.i64()?);
        let code = self.u8()?;
        let validity = if self.flag()? {
            Some(Bitmap::from_bools(self.bools(rows)?))
        } else {
            None
        };
        let data = match code {
            0 => ColumnData::Bool(self.bools(rows)?),
            1 => ColumnData::Int8(self.fixed(rows, i8::from_le_bytes)?),
            2 => ColumnData::Int16(self.fixed(rows, i16::from_le_bytes)?),
            3 => ColumnData::Int32(self.fixed(rows, i32::from_le_bytes)?),
            4 => ColumnData::Int64(self.fixed(rows, i64::from_le_bytes)?),
            5 => ColumnData::Float(self.fixed(rows, f32::from_le_bytes)?),
            6 => ColumnData::Double(self.fixed(rows, f64::from_le_bytes)?),
            7 => ColumnData::VarChar(self.many(rows, 4, Self::text)?),
            8 => ColumnData::Json(self.many(rows, 4, |input| input.bytes().map(<[u8]>::to_vec))?),
            9 => ColumnData::Array(self.many(rows, 5, Self::array_value)?),
            10 => {
                let (dim, count) = self.dimension(rows)?;
                let data = self.fixed(count, f32::from_le_bytes)?;
                ColumnData::FloatVector { dim, data }
            }
            11 => {
                let (dim, count) = self.dimension(rows)?;
                let data = self.fixed(count, u16::from_le_bytes)?;
                ColumnData::Float16Vector { dim, data }
            }
            12 => {
                let (dim, count) = self.dimension(rows)?;
                let data = self.fixed(count, u16::from_le_bytes)?;
                ColumnData::BFloat16Vector { dim, data }
            }
            13 => {
                let (dim, count) = self.dimension(rows)?;
                let data = self.fixed(count, i8::from_le_bytes)?;
                ColumnData::Int8Vector { dim, data }
            }
            14 => {
                let (dim, count) = self.dimension(rows)?;
                if !dim.is_multiple_of(8) {
                    return Err("a binary vector has no whole bytes");
                }
                let data = self.fixed(count / 8, u8::from_le_bytes)?;
                ColumnData::BinaryVector { dim, data }
            }
            15 => ColumnData::SparseFloatVector {
                data: self.many(rows, 4, Self::sparse)?,
            },
            _ => return Err("unknown type of column"),
        };
        Ok(Column { field, data, validity })
    }
    /// A dimension, and the elements of so many rows of it.
    fn dimension(&mut self, rows: usize) -> Read<(usize, usize)> {
        let dim = self.length(0)?;
        if dim == 0 {
            return Err("a vector has no dimension");
        }
        Ok((dim, rows.checked_mul(dim).ok_or("a count is too large")?))
    }
    fn sparse(&mut self) -> Read<SparseVector> {
        let length = self.length(8)?;
        let pair = |input: &mut Self| Ok((input.u32()?, f32::from_bits(input.u32()?)));
        SparseVector::new(self.many(length, 8, pair)?).map_err(|_| "a sparse vector is none")
    }
    fn array_value(&mut self) -> Read<ArrayValue> {
        let code = self.u8()?;
        let length = self.length(1)?;
        Ok(match code {
            0 => ArrayValue::Bool(self.bools(length)?),
            1 => ArrayValue::Int32(self.fixed(length, i32::from_le_bytes)?),
            2 => ArrayValue::Int64(self.fixed(length, i64::from_le_bytes)?),
            3 => ArrayValue::Float(self.fixed(length, f32::from_le_bytes)?),
            4 => ArrayValue::Double(self.fixed(length, f64::from_le_bytes)?),
            5 => ArrayValue::Text(self.many(length, 4, Self::text)?),
            _ => return Err("unknown type of array"),
        })
    }
    fn end(&self) -> Read<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("something follows its end")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LogLink = LogLink {
        sequence: 3,
        records: 9,
    };

    fn operation() -> Operation {
        let columns = vec![
            Column::full(FieldId(100), ColumnData::Int64(vec![1, -2])),
            Column {
                field: FieldId(101),
                data: ColumnData::VarChar(vec!["a".into(), String::new()]),
                validity: Some(Bitmap::from_bools([true, false])),
            },
            Column::full(
                FieldId(102),
                ColumnData::FloatVector {
                    dim: 3,
                    data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
                },
            ),
            Column::full(FieldId(103), ColumnData::Json(vec![b"{}".to_vec(), b"[1]".to_vec()])),
            Column::full(
                FieldId(104),
                ColumnData::Array(vec![ArrayValue::Text(vec!["x".into()]), ArrayValue::Text(vec![])]),
            ),
            Column::full(FieldId(105), ColumnData::Bool(vec![true, false])),
            Column::full(FieldId(106), ColumnData::Int8(vec![-1, 1])),
            Column::full(FieldId(107), ColumnData::Int16(vec![-1, 1])),
            Column::full(FieldId(108), ColumnData::Int32(vec![-1, 1])),
            Column::full(FieldId(109), ColumnData::Float(vec![-1.0, 1.0])),
            Column::full(FieldId(110), ColumnData::Double(vec![-1.0, 1.0])),
            Column::full(
                FieldId(111),
                ColumnData::Float16Vector {
                    dim: 2,
                    data: vec![1, 2, 3, 0x7BFF],
                },
            ),
            Column::full(
                FieldId(112),
                ColumnData::BFloat16Vector {
                    dim: 1,
                    data: vec![1, 0x3F80],
                },
            ),
            Column::full(
                FieldId(113),
                ColumnData::Int8Vector {
                    dim: 2,
                    data: vec![-128, 127, 0, 1],
                },
            ),
            Column::full(
                FieldId(114),
                ColumnData::BinaryVector {
                    dim: 16,
                    data: vec![1, 2, 3, 255],
                },
            ),
            Column::full(
                FieldId(115),
                ColumnData::SparseFloatVector {
                    data: vec![
                        SparseVector::new(vec![(1, 0.5), (70_000, -2.0)]).unwrap(),
                        SparseVector::default(),
                    ],
                },
            ),
        ];
        Operation {
            timestamp: Timestamp(77),
            deletes: vec![PrimaryKey::Text("gone".into()), PrimaryKey::Text(String::new())],
            delete_partition: Some(PartitionId(5)),
            parts: vec![(PartitionId(9), RowBatch::new(columns).unwrap())],
        }
    }

    #[test]
    fn a_write_comes_back_and_only_to_its_place() {
        let operation = operation();
        let mut encoded = Encoded::new(CollectionId(3), &operation);
        encoded.place(4, LINK, Timestamp(77));
        assert_eq!(
            decode(encoded.as_bytes(), CollectionId(3), 4).unwrap(),
            (LINK, operation)
        );
        assert!(decode(encoded.as_bytes(), CollectionId(4), 4).is_err());
        assert!(decode(encoded.as_bytes(), CollectionId(3), 5).is_err());
    }

    #[test]
    fn no_alteration_or_cut_panics() {
        let mut encoded = Encoded::new(CollectionId(3), &operation());
        encoded.place(4, LINK, Timestamp(77));
        let bytes = encoded.as_bytes();
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at], CollectionId(3), 4).is_err());
            for value in [0, 1, 0x7f, 0xff] {
                let mut altered = bytes.to_vec();
                altered[at] = value;
                let _may_differ = decode(&altered, CollectionId(3), 4);
            }
        }
    }

    #[test]
    fn deletes_come_back() {
        let deletes = vec![
            KeyDeletes {
                timestamp: Timestamp(1),
                partition: None,
                keys: vec![PrimaryKey::Int(7)],
            },
            KeyDeletes {
                timestamp: Timestamp(2),
                partition: Some(PartitionId(3)),
                keys: vec![],
            },
        ];
        let bytes = encode_key_deletes(&deletes);
        assert_eq!(decode_key_deletes(&bytes).unwrap(), deletes);
        for at in 0..bytes.len() {
            assert!(decode_key_deletes(&bytes[..at]).is_err());
        }
    }
}
