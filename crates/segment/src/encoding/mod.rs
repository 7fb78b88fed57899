//! What stands inside the sealed files of a segment, byte by byte (`docs/formats.md`, "Inside a sealed segment").
//!
//! Integers are little endian. Each file starts with a header that repeats what the manifest and the schema say, and a
//! reader compares: bytes that came out of a verified file are still not believed. Any bytes give values or an error,
//! never a panic, and nothing is allocated beyond a small multiple of the file's length.

mod column_read;
mod column_write;
mod deletes;
mod index;

#[cfg(feature = "fuzzing")]
pub(crate) use column_read::decode_column_bytes;
pub(crate) use column_read::{Expected, decode_column, decode_vector_head, into_timestamps};
pub(crate) use column_write::{ColumnHeader, encode_column};
#[cfg(feature = "fuzzing")]
pub(crate) use deletes::decode_bytes as decode_deletes_bytes;
pub(crate) use deletes::{decode_deletes, encode_deletes};
pub(crate) use index::{
    IndexHeader, IndexPart, decode_disk_index, decode_index, decode_scalar_index, scalar_index_header,
};

use saker_keyring::{FileSealer, SealError};
use saker_model::{DataType, MetricType};

/// Where encoded bytes go.
pub(crate) trait Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SealError>;
}

impl Sink for FileSealer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        Self::write(self, bytes)
    }
}

/// Length of the header of a column file and of an index file, in bytes.
pub(crate) const HEADER_BYTES: usize = 40;
const VERSION: u16 = 1;
/// Stands where a column has no element type.
const NO_TYPE: u8 = 0;

/// The code of a type in a file.
const fn type_code(data_type: DataType) -> u8 {
    match data_type {
        DataType::Bool => 1,
        DataType::Int8 => 2,
        DataType::Int16 => 3,
        DataType::Int32 => 4,
        DataType::Int64 => 5,
        DataType::Float => 6,
        DataType::Double => 7,
        DataType::VarChar => 8,
        DataType::Json => 9,
        DataType::Array => 10,
        DataType::FloatVector => 11,
        DataType::Float16Vector => 12,
        DataType::BFloat16Vector => 13,
        DataType::Int8Vector => 14,
        DataType::BinaryVector => 15,
        DataType::SparseFloatVector => 16,
    }
}

/// The code of a metric in a file.
const fn metric_code(metric: MetricType) -> u8 {
    match metric {
        MetricType::L2 => 1,
        MetricType::Ip => 2,
        MetricType::Cosine => 3,
        MetricType::Hamming => 4,
        MetricType::Jaccard => 5,
        MetricType::Bm25 => 6,
    }
}

/// Takes numbers from the front of bytes.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("it ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }
    fn u8(&mut self) -> Result<u8, &'static str> {
        Ok(u8::from_le_bytes(self.array()?))
    }
    fn u16(&mut self) -> Result<u16, &'static str> {
        Ok(u16::from_le_bytes(self.array()?))
    }
    fn u32(&mut self) -> Result<u32, &'static str> {
        Ok(u32::from_le_bytes(self.array()?))
    }
    fn u64(&mut self) -> Result<u64, &'static str> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    fn i64(&mut self) -> Result<i64, &'static str> {
        Ok(i64::from_le_bytes(self.array()?))
    }
    /// `count` numbers of `N` bytes each.
    fn numbers<const N: usize>(&mut self, count: usize) -> Result<&'a [[u8; N]], &'static str> {
        let bytes = self.bytes(count.checked_mul(N).ok_or("it claims more than memory holds")?)?;
        Ok(bytes.as_chunks().0)
    }
    fn end(self) -> Result<(), &'static str> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("it goes on after its end")
        }
    }
}

#[cfg(test)]
mod tests;
