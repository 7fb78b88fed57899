//! Encoding a column.

use saker_index::Elements;
use saker_keyring::SealError;
use saker_model::{ArrayValue, Column, ColumnData, DataType, FieldId, FieldSchema, SegmentId};
use zeroize::Zeroizing;

use super::{NO_TYPE, Sink, VERSION, type_code};
use crate::{SegmentError, chunk::VectorRows, write::ChunkRows};

/// What the header of a column file says.
#[derive(Clone, Debug)]
pub(crate) struct ColumnHeader {
    pub(crate) field: FieldId,
    segment: SegmentId,
    rows: usize,
    data_type: DataType,
    element_type: Option<DataType>,
    dim: usize,
}

pub(super) const MAGIC: &[u8; 4] = b"SKCL";
/// The file has a bitmap of the rows that have a value.
pub(super) const FLAG_VALIDITY: u8 = 1;
/// Values are gathered up to this many bytes before they are sealed.
const BUFFER_BYTES: usize = 64 << 10;
/// Rows that are read from disk at once while they are written again.
const DISK_RUN_ROWS: usize = 512;

impl ColumnHeader {
    pub(crate) fn of(segment: SegmentId, rows: usize, field: &FieldSchema) -> Self {
        Self {
            field: field.id,
            segment,
            rows,
            data_type: field.data_type,
            element_type: field.element_type.filter(|_| field.data_type == DataType::Array),
            dim: if field.data_type.is_vector() { field.dim } else { 0 },
        }
    }
    pub(crate) fn timestamps(segment: SegmentId, rows: usize) -> Self {
        Self {
            field: FieldId::TIMESTAMP,
            segment,
            rows,
            data_type: DataType::Int64,
            element_type: None,
            dim: 0,
        }
    }
    pub(crate) fn to_bytes(&self, flags: u8) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(super::HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(type_code(self.data_type));
        bytes.push(self.element_type.map_or(NO_TYPE, type_code));
        bytes.extend_from_slice(&self.field.0.to_le_bytes());
        bytes.extend_from_slice(&self.segment.0.to_le_bytes());
        bytes.extend_from_slice(&(self.rows as u64).to_le_bytes());
        // A schema's dimension is far below 2^32.
        bytes.extend_from_slice(&u32::try_from(self.dim).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&[flags, 0, 0, 0]);
        bytes
    }
}

/// Writes the column of the header's field, all parts one after another. The parts fit the schema.
pub(crate) fn encode_column(
    header: &ColumnHeader,
    source: &[ChunkRows],
    sink: &mut impl Sink,
) -> Result<(), SegmentError> {
    let mut out = Buffered {
        sink,
        buffer: Zeroizing::new(Vec::with_capacity(BUFFER_BYTES)),
    };
    let has_nulls = source
        .iter()
        .any(|part| (0..part.len()).any(|index| !is_valid(header, part, index)));
    out.put(&header.to_bytes(if has_nulls { FLAG_VALIDITY } else { 0 }))?;
    if has_nulls {
        let bits = source
            .iter()
            .flat_map(|part| (0..part.len()).map(|index| is_valid(header, part, index)));
        let (mut word, mut count) = (0u64, 0);
        for bit in bits {
            word |= u64::from(bit) << (count % 64);
            count += 1;
            if count % 64 == 0 {
                out.put(&std::mem::take(&mut word).to_le_bytes())?;
            }
        }
        if count % 64 != 0 {
            out.put(&word.to_le_bytes())?;
        }
    }
    if header.field == FieldId::TIMESTAMP {
        for at in source.iter().flat_map(ChunkRows::timestamps) {
            out.put(&at.to_le_bytes())?;
        }
        return Ok(out.finish()?);
    }
    if header.data_type.is_vector() {
        encode_vectors(header.field, source, &mut out)?;
        return Ok(out.finish()?);
    }
    let columns: Vec<(&ChunkRows, &Column)> = source
        .iter()
        .filter_map(|part| part.chunk.column(header.field).map(|column| (part, column)))
        .collect();
    encode_scalars(header.data_type, &columns, &mut out)?;
    Ok(out.finish()?)
}

fn is_valid(header: &ColumnHeader, part: &ChunkRows, index: usize) -> bool {
    let chunk = &part.chunk;
    let validity = match chunk.column(header.field) {
        Some(column) => column.validity.as_ref(),
        None => chunk.vector_validity(header.field),
    };
    validity.is_none_or(|bits| bits.contains(part.row(index)))
}

fn encode_vectors<S: Sink>(
    field: FieldId,
    source: &[ChunkRows],
    out: &mut Buffered<'_, S>,
) -> Result<(), SegmentError> {
    // Rows of sparse vectors differ in length: all lengths come first.
    for part in source {
        if let Some(VectorRows::Sparse(vectors)) = part.chunk.vector_rows(field) {
            (0..part.len()).try_for_each(|index| out.length(vectors.row(part.row(index)).len()))?;
        }
    }
    for part in source {
        let rows = (0..part.len()).map(|index| part.row(index));
        match part.chunk.vector_rows(field) {
            Some(VectorRows::Dense(vectors)) => {
                for row in rows {
                    put_row(vectors.row_elements(row), out)?;
                }
            }
            Some(VectorRows::Disk(vectors)) => {
                // A run at a time is read; rows that are left out of it cost less than a read for each.
                let rows: Vec<usize> = rows.collect();
                for run in rows.chunk_by(|a, b| a / DISK_RUN_ROWS == b / DISK_RUN_ROWS && a < b) {
                    let (Some(&first), Some(&last)) = (run.first(), run.last()) else {
                        continue;
                    };
                    let read = vectors.read(first..last + 1)?;
                    for row in run {
                        put_row(read.row_elements(row - first), out)?;
                    }
                }
            }
            Some(VectorRows::Binary(vectors)) => {
                for row in rows {
                    out.put(vectors.row(row))?;
                }
            }
            Some(VectorRows::Sparse(vectors)) => {
                for row in rows {
                    for (index, value) in vectors.row(row) {
                        out.put(&index.to_le_bytes())?;
                        out.put(&value.to_le_bytes())?;
                    }
                }
            }
            None => {}
        }
    }
    Ok(())
}

fn put_row<S: Sink>(row: Elements<'_>, out: &mut Buffered<'_, S>) -> Result<(), SealError> {
    match row {
        Elements::F32(values) => out.put_all(values, f32::to_le_bytes),
        Elements::F16(values) | Elements::Bf16(values) => out.put_all(values, u16::to_le_bytes),
        Elements::I8(values) => out.put_all(values, i8::to_le_bytes),
        Elements::Packed(row) => {
            let mut values = Zeroizing::new(Vec::with_capacity(row.len()));
            row.widen_onto(&mut values);
            out.put_all(&values, f32::to_le_bytes)
        }
    }
}

/// The values of one type, in order of row.
macro_rules! each {
    ($columns:expr, $variant:ident, $visit:expr) => {
        for (part, column) in $columns {
            if let ColumnData::$variant(values) = &column.data {
                for index in 0..part.len() {
                    $visit(&values[part.row(index)])?;
                }
            }
        }
    };
}

fn encode_scalars<S: Sink>(
    data_type: DataType,
    columns: &[(&ChunkRows, &Column)],
    out: &mut Buffered<'_, S>,
) -> Result<(), SealError> {
    match data_type {
        DataType::Bool => each!(columns, Bool, |value: &bool| out.put(&[u8::from(*value)])),
        DataType::Int8 => each!(columns, Int8, |value: &i8| out.put(&value.to_le_bytes())),
        DataType::Int16 => each!(columns, Int16, |value: &i16| out.put(&value.to_le_bytes())),
        DataType::Int32 => each!(columns, Int32, |value: &i32| out.put(&value.to_le_bytes())),
        DataType::Int64 => each!(columns, Int64, |value: &i64| out.put(&value.to_le_bytes())),
        DataType::Float => each!(columns, Float, |value: &f32| out.put(&value.to_le_bytes())),
        DataType::Double => each!(columns, Double, |value: &f64| out.put(&value.to_le_bytes())),
        DataType::VarChar => {
            each!(columns, VarChar, |value: &String| out.length(value.len()));
            each!(columns, VarChar, |value: &String| out.put(value.as_bytes()));
        }
        DataType::Json => {
            each!(columns, Json, |value: &Vec<u8>| out.length(value.len()));
            each!(columns, Json, |value: &Vec<u8>| out.put(value));
        }
        DataType::Array => {
            each!(columns, Array, |value: &ArrayValue| out.length(array_len(value)));
            each!(columns, Array, |value: &ArrayValue| text_lengths(value, out));
            each!(columns, Array, |value: &ArrayValue| elements(value, out));
        }
        DataType::FloatVector
        | DataType::Float16Vector
        | DataType::BFloat16Vector
        | DataType::Int8Vector
        | DataType::BinaryVector
        | DataType::SparseFloatVector => {}
    }
    Ok(())
}

fn array_len(value: &ArrayValue) -> usize {
    match value {
        ArrayValue::Bool(values) => values.len(),
        ArrayValue::Int32(values) => values.len(),
        ArrayValue::Int64(values) => values.len(),
        ArrayValue::Float(values) => values.len(),
        ArrayValue::Double(values) => values.len(),
        ArrayValue::Text(values) => values.len(),
    }
}

/// For arrays of text, the length of each element.
fn text_lengths<S: Sink>(value: &ArrayValue, out: &mut Buffered<'_, S>) -> Result<(), SealError> {
    if let ArrayValue::Text(values) = value {
        values.iter().try_for_each(|value| out.length(value.len()))?;
    }
    Ok(())
}

fn elements<S: Sink>(value: &ArrayValue, out: &mut Buffered<'_, S>) -> Result<(), SealError> {
    match value {
        ArrayValue::Bool(values) => values.iter().try_for_each(|value| out.put(&[u8::from(*value)])),
        ArrayValue::Int32(values) => values.iter().try_for_each(|value| out.put(&value.to_le_bytes())),
        ArrayValue::Int64(values) => values.iter().try_for_each(|value| out.put(&value.to_le_bytes())),
        ArrayValue::Float(values) => values.iter().try_for_each(|value| out.put(&value.to_le_bytes())),
        ArrayValue::Double(values) => values.iter().try_for_each(|value| out.put(&value.to_le_bytes())),
        ArrayValue::Text(values) => values.iter().try_for_each(|value| out.put(value.as_bytes())),
    }
}

/// Gathers small writes. Plaintext stands in the buffer: it is wiped on drop and never grows.
struct Buffered<'a, S> {
    sink: &'a mut S,
    buffer: Zeroizing<Vec<u8>>,
}

impl<S: Sink> Buffered<'_, S> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
            if bytes.len() > BUFFER_BYTES {
                return self.sink.write(bytes);
            }
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
    fn put_all<T: Copy, const N: usize>(
        &mut self,
        values: &[T],
        bytes: impl Fn(T) -> [u8; N],
    ) -> Result<(), SealError> {
        for values in values.chunks(BUFFER_BYTES / N) {
            if self.buffer.len() + values.len() * N > BUFFER_BYTES {
                self.flush()?;
            }
            self.buffer.extend(values.iter().flat_map(|value| bytes(*value)));
        }
        Ok(())
    }
    /// A length, as 32 bits: values are far shorter, by the limits on requests.
    fn length(&mut self, length: usize) -> Result<(), SealError> {
        let too_long = SealError::TooLong {
            bytes: length as u64,
            bytes_max: u64::from(u32::MAX),
        };
        self.put(&u32::try_from(length).map_err(|_| too_long)?.to_le_bytes())
    }
    fn flush(&mut self) -> Result<(), SealError> {
        self.sink.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
    fn finish(mut self) -> Result<(), SealError> {
        self.flush()
    }
}
