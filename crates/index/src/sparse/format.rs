//! Bytes of a saved sparse index, version 1. All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `SKSP` |
//! | 4 | version, 1 |
//! | 4 | 0 for the inner product, 1 for BM25 |
//! | 4 | 1 if small values were left out, else 0 |
//! | 8 | rows, R |
//! | 8 | terms, T |
//! | 8 | postings, P |
//! | 4 × T | terms, `u32`, ascending |
//! | 4 × T | postings of each term, `u32`, at least 1 |
//! | 4 × P | rows of the postings, `u32`, ascending within a term |
//! | 4 × P | their values, `f32`, finite and not 0; above 0 for BM25 |
//! | 4 × R | for BM25: length of each row, `f32` |
//!
//! The bounds of blocks are not saved: they follow from the values.

use super::{SparseIndex, SparseKind};
use crate::IndexError;

impl SparseIndex {
    /// The index as bytes for [`Self::from_bytes`]. They tell all values of all rows, so they are to be sealed like them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = 2 * self.terms.len() + 2 * self.values.len() + self.lengths.len();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * numbers);
        bytes.extend_from_slice(MAGIC);
        let kind = match self.kind {
            SparseKind::Ip => 0,
            SparseKind::Bm25 => 1,
        };
        for number in [VERSION, kind, u32::from(self.dropped)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.rows, self.terms.len(), self.values.len()] {
            bytes.extend_from_slice(&(number as u64).to_le_bytes());
        }
        bytes.extend(self.terms.iter().flat_map(|term| term.to_le_bytes()));
        let counts = self.starts.windows(2).map(|bounds| {
            #[expect(clippy::cast_possible_truncation, reason = "a term has at most one posting a row")]
            let count = (bounds[1] - bounds[0]) as u32;
            count
        });
        bytes.extend(counts.flat_map(u32::to_le_bytes));
        bytes.extend(self.posting_rows.iter().flat_map(|row| row.to_le_bytes()));
        bytes.extend(self.values.iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend(self.lengths.iter().flat_map(|length| length.to_le_bytes()));
        bytes
    }

    /// Opens what [`Self::to_bytes`] gave for `rows` rows. Any other bytes give an error or, where they happen to describe
    /// postings, an index that is safe to search.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for bytes that do not fit, [`IndexError::Version`] for bytes of another format version.
    pub fn from_bytes(bytes: &[u8], kind: SparseKind, rows: usize) -> Result<Self, IndexError> {
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(corrupt("it is too short"))?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if header[..4] != *MAGIC {
            return Err(corrupt("it does not start as a saved sparse index"));
        }
        if word(4) != VERSION {
            return Err(IndexError::Version {
                found: word(4),
                known: VERSION,
            });
        }
        let expected = match kind {
            SparseKind::Ip => 0,
            SparseKind::Bm25 => 1,
        };
        if word(8) != expected {
            return Err(corrupt("it was built for another metric"));
        }
        let dropped = match word(12) {
            0 => false,
            1 => true,
            _ => return Err(corrupt("it has flags that are not known here")),
        };
        if long(16) != rows as u64 || rows > IndexError::ROWS_MAX {
            return Err(corrupt("it was built over other rows"));
        }
        let (numbers, []) = rest.as_chunks::<4>() else {
            return Err(corrupt("its length is not a multiple of four"));
        };
        let length_count = if kind == SparseKind::Bm25 { rows } else { 0 };
        let parts = Parts::split(numbers, long(24), long(32), length_count)
            .ok_or(corrupt("its length does not fit its counts"))?;
        let terms: Vec<u32> = parts.terms.iter().map(|term| u32::from_le_bytes(*term)).collect();
        if !terms.is_sorted_by(|a, b| a < b) || terms.last() == Some(&u32::MAX) {
            return Err(corrupt("its terms do not ascend"));
        }
        let starts = starts(parts.counts, parts.rows.len())?;
        let posting_rows: Vec<u32> = parts.rows.iter().map(|row| u32::from_le_bytes(*row)).collect();
        let ascending = |bounds: &[usize]| {
            let list = &posting_rows[bounds[0]..bounds[1]];
            list.is_sorted_by(|a, b| a < b) && list.last().is_some_and(|&last| (last as usize) < rows)
        };
        if !starts.windows(2).all(ascending) {
            return Err(corrupt("the rows of a term do not ascend"));
        }
        let sound = |value: f32| {
            value.is_finite()
                && if kind == SparseKind::Bm25 {
                    value > 0.0
                } else {
                    value != 0.0
                }
        };
        let values: Vec<f32> = parts.values.iter().map(|value| f32::from_le_bytes(*value)).collect();
        if !values.iter().copied().all(sound) {
            return Err(corrupt("a value is out of range"));
        }
        let lengths: Vec<f32> = parts.lengths.iter().map(|length| f32::from_le_bytes(*length)).collect();
        if !lengths.iter().all(|length| length.is_finite() && *length >= 0.0) {
            return Err(corrupt("a length is out of range"));
        }
        Ok(Self::with_parts(
            kind,
            rows,
            terms,
            starts,
            posting_rows,
            values,
            lengths,
            dropped,
        ))
    }
}

/// The numbers behind the header.
struct Parts<'a> {
    terms: &'a [[u8; 4]],
    counts: &'a [[u8; 4]],
    rows: &'a [[u8; 4]],
    values: &'a [[u8; 4]],
    lengths: &'a [[u8; 4]],
}

impl<'a> Parts<'a> {
    /// `None` if the counts do not fill exactly what is there.
    fn split(numbers: &'a [[u8; 4]], terms: u64, postings: u64, lengths: usize) -> Option<Self> {
        let (term_count, postings) = (usize::try_from(terms).ok()?, usize::try_from(postings).ok()?);
        let (terms, rest) = numbers.split_at_checked(term_count)?;
        let (counts, rest) = rest.split_at_checked(term_count)?;
        let (rows, rest) = rest.split_at_checked(postings)?;
        let (values, rest) = rest.split_at_checked(postings)?;
        (rest.len() == lengths).then_some(Self {
            terms,
            counts,
            rows,
            values,
            lengths: rest,
        })
    }
}

/// Where each list starts, and where the last one ends.
fn starts(counts: &[[u8; 4]], postings: usize) -> Result<Vec<usize>, IndexError> {
    let mut starts = Vec::with_capacity(counts.len() + 1);
    let mut next = 0usize;
    for count in counts {
        starts.push(next);
        let count = u32::from_le_bytes(*count) as usize;
        next = next
            .checked_add(count)
            .filter(|_| count > 0)
            .ok_or(corrupt("a term has no postings"))?;
    }
    if next != postings {
        return Err(corrupt("its terms do not have all postings"));
    }
    starts.push(next);
    Ok(starts)
}

fn corrupt(reason: &'static str) -> IndexError {
    IndexError::Corrupt { reason }
}

const MAGIC: &[u8; 4] = b"SKSP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 40;
