//! Decoding a column.

use saker_model::{ArrayValue, Bitmap, Column, ColumnData, DataType, FieldId, FieldSchema, SegmentId, SparseVector};
use zeroize::{Zeroize, Zeroizing};

use super::{
    HEADER_BYTES, NO_TYPE, Reader, VERSION,
    column_write::{FLAG_VALIDITY, MAGIC},
    type_code,
};
use crate::{
    WipedColumn,
    file::{DecodeError, Opened},
};

/// What a column file must hold, by manifest and schema.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) field: FieldId,
    pub(super) segment: SegmentId,
    pub(super) rows: usize,
    pub(super) data_type: DataType,
    pub(super) element_type: Option<DataType>,
    pub(super) dim: usize,
    pub(super) nullable: bool,
}

impl Expected {
    pub(crate) fn of(segment: SegmentId, rows: usize, field: &FieldSchema) -> Self {
        Self {
            field: field.id,
            segment,
            rows,
            data_type: field.data_type,
            element_type: field.element_type.filter(|_| field.data_type == DataType::Array),
            dim: if field.data_type.is_vector() { field.dim } else { 0 },
            nullable: field.nullable,
        }
    }
    pub(crate) fn timestamps(segment: SegmentId, rows: usize) -> Self {
        let (field, data_type) = (FieldId::TIMESTAMP, DataType::Int64);
        Self {
            field,
            segment,
            rows,
            data_type,
            element_type: None,
            dim: 0,
            nullable: false,
        }
    }
    pub(crate) fn segment(&self) -> SegmentId {
        self.segment
    }
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }
    pub(crate) fn data_type(&self) -> DataType {
        self.data_type
    }
    /// Whether a column file may have so many bytes before its values.
    pub(crate) fn is_head_length(&self, bytes: usize) -> bool {
        bytes == HEADER_BYTES
            || self
                .validity_bytes()
                .is_ok_and(|validity| bytes == HEADER_BYTES + validity)
    }
    fn validity_bytes(&self) -> Result<usize, &'static str> {
        Ok(self.rows.div_ceil(64) * 8)
    }
}

/// Decodes a column file.
pub(crate) fn decode_column(opened: &Opened<'_>, expected: &Expected) -> Result<Column, DecodeError> {
    if expected.data_type.is_vector() && expected.data_type != DataType::SparseFloatVector {
        let mut decoder = VectorDecoder::new(expected, opened.plain_bytes())?;
        opened.frames(|bytes| decoder.push(bytes))?;
        return Ok(decoder.finish()?);
    }
    Ok(decode_bytes(&opened.whole()?, expected)?)
}

/// Decodes the plaintext of a column file, in pieces of `piece` bytes if its type is decoded so.
#[cfg(feature = "fuzzing")]
pub(crate) fn decode_column_bytes(bytes: &[u8], expected: &Expected, piece: usize) -> Result<Column, &'static str> {
    if expected.data_type.is_vector() && expected.data_type != DataType::SparseFloatVector {
        let mut decoder = VectorDecoder::new(expected, bytes.len() as u64)?;
        bytes.chunks(piece.max(1)).try_for_each(|bytes| decoder.push(bytes))?;
        return decoder.finish();
    }
    decode_bytes(bytes, expected)
}

/// The timestamps of a column that was decoded as such.
pub(crate) fn into_timestamps(column: Column) -> Vec<u64> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the type was checked while decoding")]
    match column.data {
        ColumnData::Int64(values) => values.into_iter().map(i64::cast_unsigned).collect(),
        _ => Vec::new(),
    }
}

/// Decodes the plaintext of a file of scalars.
pub(super) fn decode_bytes(bytes: &[u8], expected: &Expected) -> Result<Column, &'static str> {
    let mut reader = Reader(bytes);
    let has_validity = read_header(&mut reader, expected)?;
    let validity = if has_validity {
        Some(read_validity(&mut reader, expected)?)
    } else {
        None
    };
    // Wiped if the rest turns out to be malformed.
    let column = WipedColumn::new(Column {
        field: expected.field,
        data: read_data(&mut reader, expected)?,
        validity,
    });
    reader.end()?;
    Ok(column.into_inner())
}

/// Whether the file has a validity bitmap.
fn read_header(reader: &mut Reader<'_>, expected: &Expected) -> Result<bool, &'static str> {
    if reader.array()? != *MAGIC {
        return Err("it is no column");
    }
    if reader.u16()? != VERSION {
        return Err("its version is not known here; use a newer version of Saker");
    }
    if reader.u8()? != type_code(expected.data_type) || reader.u8()? != expected.element_type.map_or(NO_TYPE, type_code)
    {
        return Err("its values have another type than the field");
    }
    if reader.i64()? != expected.field.0 {
        return Err("it is the column of another field");
    }
    if reader.i64()? != expected.segment.0 {
        return Err("it belongs to another segment");
    }
    if reader.u64()? != expected.rows as u64 {
        return Err("it has another number of rows than the manifest says");
    }
    if reader.u32()? as usize != expected.dim {
        return Err("its vectors have another dimension than the field");
    }
    match reader.array()? {
        [0, 0, 0, 0] => Ok(false),
        [FLAG_VALIDITY, 0, 0, 0] if expected.nullable => Ok(true),
        [FLAG_VALIDITY, 0, 0, 0] => Err("it has nulls, but the field is not nullable"),
        _ => Err("it has flags that are not known here"),
    }
}

fn read_validity(reader: &mut Reader<'_>, expected: &Expected) -> Result<Bitmap, &'static str> {
    let words = reader.numbers::<8>(expected.validity_bytes()? / 8)?;
    let used = expected.rows % 64;
    if used != 0 && words.last().is_some_and(|last| u64::from_le_bytes(*last) >> used != 0) {
        return Err("its validity bitmap has bits past the last row");
    }
    let bit = |row: usize| u64::from_le_bytes(words[row / 64]) >> (row % 64) & 1 == 1;
    Ok(Bitmap::from_bools((0..expected.rows).map(bit)))
}

macro_rules! numbers {
    ($reader:expr, $rows:expr, $variant:ident, $number:ty) => {
        ColumnData::$variant(
            $reader
                .numbers($rows)?
                .iter()
                .map(|bytes| <$number>::from_le_bytes(*bytes))
                .collect(),
        )
    };
}

fn read_data(reader: &mut Reader<'_>, expected: &Expected) -> Result<ColumnData, &'static str> {
    let rows = expected.rows;
    Ok(match expected.data_type {
        DataType::Bool => ColumnData::Bool(bools(reader.bytes(rows)?)?),
        DataType::Int8 => numbers!(reader, rows, Int8, i8),
        DataType::Int16 => numbers!(reader, rows, Int16, i16),
        DataType::Int32 => numbers!(reader, rows, Int32, i32),
        DataType::Int64 => numbers!(reader, rows, Int64, i64),
        DataType::Float => numbers!(reader, rows, Float, f32),
        DataType::Double => numbers!(reader, rows, Double, f64),
        DataType::VarChar => {
            let lengths = reader.numbers(rows)?;
            check_lengths(lengths, reader.0.len())?;
            ColumnData::VarChar(texts(reader, lengths)?)
        }
        DataType::Json => {
            let lengths = reader.numbers(rows)?;
            check_lengths(lengths, reader.0.len())?;
            let values = lengths
                .iter()
                .map(|length| reader.bytes(number(length)).map(<[u8]>::to_vec));
            ColumnData::Json(values.collect::<Result<_, _>>()?)
        }
        DataType::Array => ColumnData::Array(arrays(reader, expected)?),
        DataType::FloatVector
        | DataType::Float16Vector
        | DataType::BFloat16Vector
        | DataType::Int8Vector
        | DataType::BinaryVector => {
            return Err("vectors are decoded elsewhere");
        }
        DataType::SparseFloatVector => ColumnData::SparseFloatVector {
            data: sparse_vectors(reader, rows)?,
        },
    })
}

fn number(bytes: &[u8; 4]) -> usize {
    u32::from_le_bytes(*bytes) as usize
}

/// Whether values of these lengths fill exactly what is left; then no reading of them can allocate more.
fn check_lengths(lengths: &[[u8; 4]], left: usize) -> Result<(), &'static str> {
    let total: u64 = lengths.iter().map(|length| number(length) as u64).sum();
    if total == left as u64 {
        Ok(())
    } else {
        Err("its values do not fill it")
    }
}

/// The number of elements of each row, then all elements.
fn sparse_vectors(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<SparseVector>, &'static str> {
    let counts = reader.numbers::<4>(rows)?;
    let total: u64 = counts.iter().map(|count| number(count) as u64).sum();
    let total = usize::try_from(total).map_err(|_| "it claims more than memory holds")?;
    let mut pairs = reader.numbers::<8>(total)?;
    let take = |count: &[u8; 4]| {
        let (taken, rest) = pairs.split_at_checked(number(count)).ok_or("it ends too early")?;
        pairs = rest;
        let pair = |[a, b, c, d, e, f, g, h]: &[u8; 8]| {
            (
                u32::from_le_bytes([*a, *b, *c, *d]),
                f32::from_le_bytes([*e, *f, *g, *h]),
            )
        };
        SparseVector::new(taken.iter().map(pair).collect()).map_err(|_| "a sparse vector is malformed")
    };
    counts.iter().map(take).collect()
}

fn bools(bytes: &[u8]) -> Result<Vec<bool>, &'static str> {
    let value = |byte: &u8| match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err("a boolean is neither 0 nor 1"),
    };
    bytes.iter().map(value).collect()
}

fn texts(reader: &mut Reader<'_>, lengths: &[[u8; 4]]) -> Result<Vec<String>, &'static str> {
    let mut values = Zeroizing::new(Vec::with_capacity(lengths.len()));
    for length in lengths {
        let text = std::str::from_utf8(reader.bytes(number(length))?).map_err(|_| "a text is not UTF-8")?;
        values.push(text.to_owned());
    }
    Ok(std::mem::take(&mut *values))
}

fn arrays(reader: &mut Reader<'_>, expected: &Expected) -> Result<Vec<ArrayValue>, &'static str> {
    let counts = reader.numbers::<4>(expected.rows)?;
    let total: u64 = counts.iter().map(|count| number(count) as u64).sum();
    let total = usize::try_from(total).map_err(|_| "it claims more than memory holds")?;
    macro_rules! elements {
        ($variant:ident, $number:ty) => {{
            let mut values = reader.numbers(total)?;
            let take = |count: &[u8; 4]| {
                let (taken, rest) = values.split_at_checked(number(count)).ok_or("it ends too early")?;
                values = rest;
                Ok(ArrayValue::$variant(
                    taken.iter().map(|bytes| <$number>::from_le_bytes(*bytes)).collect(),
                ))
            };
            counts.iter().map(take).collect::<Result<Vec<_>, &'static str>>()
        }};
    }
    match expected.element_type {
        Some(DataType::Bool) => {
            check_lengths(counts, reader.0.len())?;
            counts
                .iter()
                .map(|count| bools(reader.bytes(number(count))?).map(ArrayValue::Bool))
                .collect()
        }
        Some(DataType::Int8 | DataType::Int16 | DataType::Int32) => elements!(Int32, i32),
        Some(DataType::Int64) => elements!(Int64, i64),
        Some(DataType::Float) => elements!(Float, f32),
        Some(DataType::Double) => elements!(Double, f64),
        Some(DataType::VarChar) => {
            let mut lengths = reader.numbers(total)?;
            check_lengths(lengths, reader.0.len())?;
            let take = |count: &[u8; 4]| {
                let (taken, rest) = lengths.split_at_checked(number(count)).ok_or("it ends too early")?;
                lengths = rest;
                texts(reader, taken).map(ArrayValue::Text)
            };
            counts.iter().map(take).collect()
        }
        Some(
            DataType::Json
            | DataType::Array
            | DataType::FloatVector
            | DataType::Float16Vector
            | DataType::BFloat16Vector
            | DataType::Int8Vector
            | DataType::BinaryVector
            | DataType::SparseFloatVector,
        )
        | None => Err("arrays of this type are not known here"),
    }
}

/// Decodes what stands before the values of a file of vectors: which of them are present, `None` for all.
pub(crate) fn decode_vector_head(head: &[u8], expected: &Expected) -> Result<Option<Bitmap>, &'static str> {
    let mut reader = Reader(head);
    let validity = if read_header(&mut reader, expected)? {
        Some(read_validity(&mut reader, expected)?)
    } else {
        None
    };
    reader.end()?;
    Ok(validity)
}

/// Decodes a file of vectors piece by piece, straight into the buffer that searches read.
pub(super) struct VectorDecoder<'a> {
    expected: &'a Expected,
    /// Header and validity, until they are whole.
    head: Vec<u8>,
    head_bytes: usize,
    values: Values,
}

impl<'a> VectorDecoder<'a> {
    pub(super) fn new(expected: &'a Expected, plain_bytes: u64) -> Result<Self, &'static str> {
        const REASON: &str = "its length does not fit its rows";
        let row_bytes = expected.data_type.vector_row_bytes(expected.dim);
        let value_bytes = expected.rows.checked_mul(row_bytes).ok_or(REASON)?;
        let head_bytes = usize::try_from(plain_bytes)
            .ok()
            .and_then(|bytes| bytes.checked_sub(value_bytes));
        let head_bytes = head_bytes.ok_or(REASON)?;
        if head_bytes != HEADER_BYTES && head_bytes != HEADER_BYTES + expected.validity_bytes()? {
            return Err(REASON);
        }
        Ok(Self {
            expected,
            head: Vec::with_capacity(head_bytes),
            head_bytes,
            // Not longer than the file, which is in memory.
            values: Values::with_capacity(expected.data_type, value_bytes)?,
        })
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        let (head, body) = bytes.split_at((self.head_bytes - self.head.len()).min(bytes.len()));
        self.head.extend_from_slice(head);
        self.values.push(body)
    }

    pub(super) fn finish(self) -> Result<Column, &'static str> {
        let mut reader = Reader(&self.head);
        let has_validity = read_header(&mut reader, self.expected)?;
        let validity = if has_validity {
            Some(read_validity(&mut reader, self.expected)?)
        } else {
            None
        };
        reader.end()?;
        Ok(Column {
            field: self.expected.field,
            data: self.values.finish(self.expected.dim)?,
            validity,
        })
    }
}

/// Values of vectors in the type that the field has.
enum Values {
    Float(Filling<f32, 4>),
    Float16(Filling<u16, 2>),
    BFloat16(Filling<u16, 2>),
    Int8(Filling<i8, 1>),
    Binary(Filling<u8, 1>),
}

impl Values {
    fn with_capacity(data_type: DataType, bytes: usize) -> Result<Self, &'static str> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other types are no such vectors")]
        Ok(match data_type {
            DataType::FloatVector => Self::Float(Filling::new(bytes)),
            DataType::Float16Vector => Self::Float16(Filling::new(bytes)),
            DataType::BFloat16Vector => Self::BFloat16(Filling::new(bytes)),
            DataType::Int8Vector => Self::Int8(Filling::new(bytes)),
            DataType::BinaryVector => Self::Binary(Filling::new(bytes)),
            _ => return Err("such vectors are decoded elsewhere"),
        })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        match self {
            Self::Float(values) => values.push(bytes),
            Self::Float16(values) | Self::BFloat16(values) => values.push(bytes),
            Self::Int8(values) => values.push(bytes),
            Self::Binary(values) => values.push(bytes),
        }
    }

    fn finish(self, dim: usize) -> Result<ColumnData, &'static str> {
        Ok(match self {
            Self::Float(values) => ColumnData::FloatVector {
                dim,
                data: values.finish()?,
            },
            Self::Float16(values) => ColumnData::Float16Vector {
                dim,
                data: values.finish()?,
            },
            Self::BFloat16(values) => ColumnData::BFloat16Vector {
                dim,
                data: values.finish()?,
            },
            Self::Int8(values) => ColumnData::Int8Vector {
                dim,
                data: values.finish()?,
            },
            Self::Binary(values) => ColumnData::BinaryVector {
                dim,
                data: values.finish()?,
            },
        })
    }
}

/// A value of `N` bytes, the lowest first.
trait Value<const N: usize>: Zeroize {
    fn of(bytes: [u8; N]) -> Self;
}

macro_rules! value {
    ($type:ty, $bytes:literal) => {
        impl Value<$bytes> for $type {
            #[inline(always)]
            fn of(bytes: [u8; $bytes]) -> Self {
                Self::from_le_bytes(bytes)
            }
        }
    };
}
value!(f32, 4);
value!(u16, 2);
value!(i8, 1);
value!(u8, 1);

/// A buffer that values of `N` bytes are put into until it is full.
struct Filling<T: Value<N>, const N: usize> {
    values: Zeroizing<Vec<T>>,
    values_max: usize,
    /// The first bytes of a value that the next piece goes on with.
    part: Zeroizing<Vec<u8>>,
}

impl<T: Value<N>, const N: usize> Filling<T, N> {
    fn new(bytes: usize) -> Self {
        Self {
            values: Zeroizing::new(Vec::with_capacity(bytes / N)),
            values_max: bytes / N,
            part: Zeroizing::new(Vec::with_capacity(N)),
        }
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !self.part.is_empty() {
            let Some((&next, rest)) = bytes.split_first() else {
                return Ok(());
            };
            self.part.push(next);
            bytes = rest;
            if let Some(value) = self.part.first_chunk::<N>().copied() {
                self.add(&[value])?;
                self.part.clear();
            }
        }
        let (values, part) = bytes.as_chunks::<N>();
        self.add(values)?;
        self.part.extend_from_slice(part);
        Ok(())
    }

    fn add(&mut self, values: &[[u8; N]]) -> Result<(), &'static str> {
        if self.values.len() + values.len() > self.values_max {
            return Err("it goes on after its end");
        }
        self.values.extend(values.iter().map(|bytes| T::of(*bytes)));
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<T>, &'static str> {
        if self.values.len() != self.values_max || !self.part.is_empty() {
            return Err("it ends too early");
        }
        Ok(std::mem::take(&mut *self.values))
    }
}
