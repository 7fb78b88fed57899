//! Bytes of a saved graph, version 2. All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `SKGR` |
//! | 4 | version, 2 |
//! | 4 | metric: 0 L2, 1 inner product, 2 cosine |
//! | 4 | 1 if a value is added to each vector, else 0; 1 only under cosine |
//! | 4 | dimension |
//! | 4 | rows |
//! | 4 | degree |
//! | 4 | start row; 0 if there are no rows |
//! | 4 | bits of a code, 7 or 4 |
//! | 4 × (dimension + added) | scale, `f32` |
//! | 4 × (dimension + added) | center, `f32` |
//! | 4 × rows × degree | neighbours, `u32`; all ones after a row's last |
//!
//! Neither vectors nor codes are saved: vectors live in their own column, and codes follow from them.
//!
//! Version 1 is read too. It has the largest norm in place of the bits and one scale, that of codes of 8 bits; under inner
//! product a value is added, with a center of its own, that is not used any more.

use std::sync::Mutex;

use super::codes::{CodeBits, Encoder};
use super::links::{Links, NONE};
use super::{DEGREE_MIN, GraphIndex, GraphParams};
use crate::{IndexError, Metric, Vectors, kernel};

impl GraphIndex {
    /// The graph as bytes for [`Self::from_bytes`], without vectors and codes. They tell which rows are near each other
    /// and the middle of all rows, so they are to be sealed like the vectors.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let encoder = &self.encoder;
        let entries = self.links.entries();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * (2 * encoder.center.len() + entries.len()));
        bytes.extend_from_slice(MAGIC);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "all three have limits below 2^32, checked on building"
        )]
        let (dim, rows, degree) = (
            self.vectors.dim() as u32,
            self.vectors.rows() as u32,
            self.links.width() as u32,
        );
        let metric = match encoder.metric {
            Metric::L2 => 0,
            Metric::Ip => 1,
            Metric::Cosine => 2,
        };
        for number in [VERSION, metric, u32::from(encoder.extra), dim, rows, degree, self.start] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let bits: u32 = match encoder.bits {
            CodeBits::Seven => 7,
            CodeBits::Four => 4,
        };
        bytes.extend_from_slice(&bits.to_le_bytes());
        for number in encoder.scale.iter().chain(&encoder.center) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in entries {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Opens what [`Self::to_bytes`] gave, over the same vectors and metric. Any other bytes give an error or, where they
    /// happen to describe a graph, an index whose hits still have exact scores.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for bytes that do not fit `vectors` and `metric`, [`IndexError::Version`] for bytes of
    /// another format version.
    pub fn from_bytes(bytes: &[u8], vectors: Vectors, metric: Metric) -> Result<Self, IndexError> {
        let corrupt = |reason| IndexError::Corrupt { reason };
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(corrupt("it is too short"))?;
        if magic != MAGIC {
            return Err(corrupt("it does not start as a saved graph"));
        }
        let (numbers, []) = rest.as_chunks::<4>() else {
            return Err(corrupt("its length is not a multiple of four"));
        };
        let (header, numbers) = numbers.split_first_chunk::<8>().ok_or(corrupt("it is too short"))?;
        let [version, kind, extra, dim, rows, degree, start, bits] = header.map(u32::from_le_bytes);
        let bits = match (version, bits) {
            (VERSION_EIGHT_BITS, _) | (VERSION, 7) => CodeBits::Seven,
            (VERSION, 4) => CodeBits::Four,
            (VERSION, _) => return Err(corrupt("its codes have another size")),
            (found, _) => return Err(IndexError::Version { found, known: VERSION }),
        };
        let expected = match metric {
            Metric::L2 => 0,
            Metric::Ip => 1,
            Metric::Cosine => 2,
        };
        if kind != expected {
            return Err(corrupt("it was built for another metric"));
        }
        let (extra, unused) = match (metric, extra, version) {
            (Metric::L2 | Metric::Cosine, 0, _) | (Metric::Ip, 0, VERSION) => (false, 0),
            (Metric::Ip, 1, VERSION_EIGHT_BITS) => (false, 1),
            (Metric::Cosine, 1, _) => (true, 0),
            _ => return Err(corrupt("its added value does not fit its metric")),
        };
        let (dim, rows, degree) = (dim as usize, rows as usize, degree as usize);
        if dim != vectors.dim() || rows != vectors.rows() {
            return Err(corrupt("it was built over other vectors"));
        }
        if !(DEGREE_MIN..=GraphParams::DEGREE_MAX).contains(&degree) {
            return Err(corrupt("its degree is out of range"));
        }
        if start as usize >= rows.max(1) {
            return Err(corrupt("its start row does not exist"));
        }
        let places = dim + usize::from(extra);
        let scales = if version == VERSION { places } else { 1 };
        if rows
            .checked_mul(degree)
            .and_then(|entries| entries.checked_add(scales + places + unused))
            != Some(numbers.len())
        {
            return Err(corrupt("its length does not fit its counts"));
        }
        let (scale, rest) = numbers.split_at(scales);
        let (center, rest) = rest.split_at(places);
        let entries = &rest[unused..];
        let floats = |numbers: &[[u8; 4]]| numbers.iter().map(|&number| f32::from_le_bytes(number)).collect();
        let center = floats(center);
        let scale: Vec<f32> = match scale {
            [scale] if version == VERSION_EIGHT_BITS => {
                vec![f32::from_le_bytes(*scale) * (f32::from(kernel::CODE_MAX) / 255.0); places]
            }
            scales => floats(scales),
        };
        let encoder = Encoder {
            metric,
            bits,
            extra,
            scale,
            center,
        };
        if !encoder.is_sound() {
            return Err(corrupt("its code parameters are not usable"));
        }
        let links = Links::new(degree, entries.iter().map(|&number| u32::from_le_bytes(number)));
        for list in links.entries().chunks_exact(degree) {
            let count = list.iter().position(|&entry| entry == NONE).unwrap_or(degree);
            let (neighbours, free) = list.split_at(count);
            if neighbours.iter().any(|&neighbour| neighbour as usize >= rows) || free.iter().any(|&entry| entry != NONE)
            {
                return Err(corrupt("a neighbour does not exist"));
            }
        }
        let mut codes = encoder.encode_all(&vectors);
        codes.keep_squares_if_needed(metric);
        Ok(Self {
            vectors,
            encoder,
            codes,
            links,
            start,
            scratches: Mutex::default(),
        })
    }
}

const MAGIC: &[u8; 4] = b"SKGR";
const VERSION: u32 = 2;
/// The version before.
const VERSION_EIGHT_BITS: u32 = 1;
/// Everything before the scales.
const HEADER_BYTES: usize = 36;
