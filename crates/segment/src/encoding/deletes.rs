//! The file of deletes: rows in order, each with the timestamp of its delete.

use saker_model::SegmentId;
use zeroize::Zeroizing;

use super::{Reader, VERSION};
use crate::{
    DeletedRows,
    file::{DecodeError, Opened},
};

const MAGIC: &[u8; 4] = b"SKDL";

/// The plaintext of a file of deletes.
pub(crate) fn encode_deletes(segment: SegmentId, rows: u64, deletes: &DeletedRows) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(32 + 12 * deletes.len()));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&segment.0.to_le_bytes());
    bytes.extend_from_slice(&rows.to_le_bytes());
    bytes.extend_from_slice(&(deletes.len() as u64).to_le_bytes());
    deletes
        .iter()
        .for_each(|(row, _)| bytes.extend_from_slice(&row.to_le_bytes()));
    deletes
        .iter()
        .for_each(|(_, at)| bytes.extend_from_slice(&at.to_le_bytes()));
    bytes
}

/// Decodes a file of deletes of a segment of `rows` rows.
pub(crate) fn decode_deletes(opened: &Opened<'_>, segment: SegmentId, rows: usize) -> Result<DeletedRows, DecodeError> {
    Ok(decode_bytes(&opened.whole()?, segment, rows)?)
}

pub(crate) fn decode_bytes(bytes: &[u8], segment: SegmentId, rows: usize) -> Result<DeletedRows, &'static str> {
    let mut reader = Reader(bytes);
    if reader.array()? != *MAGIC {
        return Err("it holds no deletes");
    }
    if reader.u16()? != VERSION || reader.u16()? != 0 {
        return Err("its version is not known here; use a newer version of Saker");
    }
    if reader.i64()? != segment.0 {
        return Err("it belongs to another segment");
    }
    if reader.u64()? != rows as u64 {
        return Err("it has another number of rows than the manifest says");
    }
    let count = usize::try_from(reader.u64()?).map_err(|_| "it claims more than memory holds")?;
    let deleted = reader.numbers(count)?;
    let stamps = reader.numbers(count)?;
    reader.end()?;
    let mut found = DeletedRows::default();
    let mut next = 0;
    for (row, at) in deleted.iter().zip(stamps) {
        let row = u32::from_le_bytes(*row);
        if u64::from(row) < next || row as usize >= rows {
            return Err("its rows are not in order, or past the last");
        }
        next = u64::from(row) + 1;
        found.insert(row, u64::from_le_bytes(*at));
    }
    Ok(found)
}
