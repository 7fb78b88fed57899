//! The decoders of what stands inside sealed files, for fuzzers, who cannot seal. Nothing of the product reads this way:
//! there, every file is verified before it is decoded.

use saker_model::{Column, FieldId, FieldSchema, SegmentId};

use crate::encoding::{
    self, ColumnHeader, Expected, decode_column_bytes, decode_deletes_bytes, decode_disk_index, decode_scalar_index,
};

/// The segment that all of this is of.
const SEGMENT: SegmentId = SegmentId(9);

/// The header that the column file of a field starts with, so that a fuzzer need not find one.
#[must_use]
pub fn column_header(field: &FieldSchema, rows: usize, has_validity: bool) -> Vec<u8> {
    ColumnHeader::of(SEGMENT, rows, field).to_bytes(u8::from(has_validity))
}

/// Decodes a column file that comes in pieces of `piece` bytes, or at once where its type is decoded at once.
///
/// # Errors
/// Why it is malformed.
pub fn column(bytes: &[u8], field: &FieldSchema, rows: usize, piece: usize) -> Result<Column, &'static str> {
    decode_column_bytes(bytes, &Expected::of(SEGMENT, rows, field), piece)
}

/// Decodes a file of deletes, and counts them.
///
/// # Errors
/// Why it is malformed.
pub fn deletes(bytes: &[u8], rows: usize) -> Result<usize, &'static str> {
    let deletes = decode_deletes_bytes(bytes, SEGMENT, rows)?;
    assert!(
        encoding::encode_deletes(SEGMENT, rows as u64, &deletes).as_slice() == bytes,
        "deletes are encoded otherwise than they were decoded"
    );
    Ok(deletes.len())
}

/// Decodes the header of the file of a scalar index and of a graph on disk; how many bytes follow.
///
/// # Errors
/// Why it is neither.
pub fn index_header(bytes: &[u8], field: FieldId, rows: usize, dim: usize) -> Result<usize, &'static str> {
    match decode_scalar_index(bytes, SEGMENT, field, rows) {
        Ok(rest) => Ok(rest.len()),
        Err(_) => decode_disk_index(bytes, SEGMENT, field, rows, dim).map(|_| 0),
    }
}
