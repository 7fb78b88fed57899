//! Bytes of a graph that is read in pieces, version 1. All numbers are little-endian.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4 | `SKDG` |
//! | 4 | 4 | version, 1 |
//! | 8 | 4 | metric: 0 L2, 1 inner product, 2 cosine |
//! | 12 | 4 | dimension, D |
//! | 16 | 4 | rows, R |
//! | 20 | 4 | degree, G: most neighbours of a row, 2 to 256 |
//! | 24 | 4 | row that a walk starts at; 0 if there are no rows |
//! | 28 | 4 | bits of a code, 4 |
//! | 32 | 4 D | center of the codes, `f32` |
//! | 32+4 D | 4 D | step of the codes, `f32` |
//! | 32+8 D | 4 R | what each row's code squares to, `f32` |
//! | 32+8 D+4 R | S R | codes, S = 32 for every 64 places begun |
//! | to the next multiple of 4,096 of the file's plaintext | | zeros |
//! | from there | | neighbour lists, 4,096 bytes at a time |
//!
//! 4,096 bytes have as many whole lists as fit, G `u32` each with all ones after a row's last neighbour, then zeros; so no
//! list lies in two frames of a sealed file. The last of them ends with its last list.

use std::{ops::Range, sync::Mutex};

use super::{
    DiskGraph,
    codes::{NibbleCodes, NibbleEncoder, stride_of},
};
use crate::{GraphIndex, GraphParams, IndexError, Metric};

/// What the first bytes say; enough to know where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskGraphLayout {
    metric: Metric,
    dim: usize,
    rows: usize,
    degree: usize,
    start: u32,
    /// Bytes of the file before the graph.
    before: u64,
}

impl DiskGraphLayout {
    /// Bytes that [`Self::read`] takes.
    pub const BYTES: usize = 32;

    /// Reads the first bytes of a graph that stands `before` bytes after the start of a file.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for bytes that are no graph over vectors of this metric, dimension and number,
    /// [`IndexError::Version`] for those of another format version.
    pub fn read(
        bytes: &[u8; Self::BYTES],
        before: u64,
        metric: Metric,
        dim: usize,
        rows: usize,
    ) -> Result<Self, IndexError> {
        let corrupt = |reason| IndexError::Corrupt { reason };
        let (magic, numbers) = bytes.split_first_chunk::<4>().ok_or(corrupt("it is too short"))?;
        let numbers = numbers.as_chunks::<4>().0;
        let number = |index: usize| numbers.get(index).map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if magic != MAGIC {
            return Err(corrupt("it does not start as a graph on disk"));
        }
        if number(0) != VERSION {
            return Err(IndexError::Version {
                found: number(0),
                known: VERSION,
            });
        }
        if number(1) != metric_code(metric) {
            return Err(corrupt("it was built for another metric"));
        }
        if number(2) as usize != dim || number(3) as usize != rows || dim == 0 {
            return Err(corrupt("it was built over other vectors"));
        }
        let degree = number(4) as usize;
        if !(DEGREE_MIN..=GraphParams::DEGREE_MAX).contains(&degree) {
            return Err(corrupt("its degree is out of range"));
        }
        if number(5) as usize >= rows.max(1) {
            return Err(corrupt("its start row does not exist"));
        }
        if number(6) != BITS {
            return Err(corrupt("its codes are not known here"));
        }
        Ok(Self {
            metric,
            dim,
            rows,
            degree,
            start: number(5),
            before,
        })
    }

    /// Where in the file stand center, steps and squares, then the codes: what [`DiskGraph::open`] takes.
    #[must_use]
    pub fn resident(&self) -> (Range<u64>, Range<u64>) {
        let numbers = self.before + Self::BYTES as u64;
        let codes = numbers + 4 * (2 * self.dim + self.rows) as u64;
        let end = codes + (stride_of(self.dim) * self.rows) as u64;
        (numbers..codes, codes..end)
    }

    /// How long the file is.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let block = lists_per_block(self.degree) as u64;
        let rows = self.rows as u64;
        let list_bytes = 4 * self.degree as u64;
        self.lists_at() + rows / block * BLOCK_BYTES as u64 + rows % block * list_bytes
            - if rows > 0 && rows.is_multiple_of(block) {
                BLOCK_BYTES as u64 - block * list_bytes
            } else {
                0
            }
    }

    fn lists_at(&self) -> u64 {
        self.resident().1.end.next_multiple_of(BLOCK_BYTES as u64)
    }
}

impl DiskGraph {
    /// Hands the bytes of `graph` to `put`, for a file that has `before` bytes before them. They tell which rows are near each
    /// other and, roughly, where they lie, so they are to be sealed like the vectors.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn write<E>(graph: &GraphIndex, before: usize, mut put: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let vectors = graph.vectors();
        let encoder = NibbleEncoder::fit(vectors, graph.metric());
        let codes = encoder.encode_all(vectors);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "all three have limits below 2^32, checked on building"
        )]
        let (dim, rows, degree) = (vectors.dim() as u32, vectors.rows() as u32, graph.degree() as u32);
        put(MAGIC)?;
        for number in [
            VERSION,
            metric_code(graph.metric()),
            dim,
            rows,
            degree,
            graph.start(),
            BITS,
        ] {
            put(&number.to_le_bytes())?;
        }
        for number in encoder.center.iter().chain(&encoder.step).chain(&codes.squares) {
            put(&number.to_le_bytes())?;
        }
        put(&codes.bytes)?;
        let done = before + DiskGraphLayout::BYTES + 4 * (2 * vectors.dim() + vectors.rows()) + codes.bytes.len();
        put(&vec![0; done.next_multiple_of(BLOCK_BYTES) - done])?;
        let block = lists_per_block(graph.degree());
        let unused = vec![0; BLOCK_BYTES - block * graph.degree() * 4];
        for row in 0..rows {
            if row > 0 && (row as usize).is_multiple_of(block) {
                put(&unused)?;
            }
            let mut entries = 0;
            for neighbour in graph.neighbours(row).take(graph.degree()) {
                put(&neighbour.to_le_bytes())?;
                entries += 1;
            }
            for _ in entries..graph.degree() {
                put(&NONE.to_le_bytes())?;
            }
        }
        Ok(())
    }

    /// Opens a graph: `numbers` and `codes` are what stands at [`DiskGraphLayout::resident`].
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for bytes that do not fit the layout.
    pub fn open(layout: &DiskGraphLayout, numbers: &[u8], codes: Vec<u8>) -> Result<Self, IndexError> {
        let corrupt = |reason| IndexError::Corrupt { reason };
        let stride = stride_of(layout.dim);
        // Taken over first: it is wiped with them whatever comes.
        let mut codes = NibbleCodes {
            stride,
            squares: Vec::new(),
            bytes: codes,
        };
        let (values, []) = numbers.as_chunks::<4>() else {
            return Err(corrupt("its length is not a multiple of four"));
        };
        if values.len() != 2 * layout.dim + layout.rows || codes.bytes.len() != stride * layout.rows {
            return Err(corrupt("its length does not fit its counts"));
        }
        let (encoding, squares) = values.split_at(2 * layout.dim);
        let (center, step) = encoding.split_at(layout.dim);
        let floats = |values: &[[u8; 4]]| {
            values
                .iter()
                .map(|value| f32::from_le_bytes(*value))
                .collect::<Vec<f32>>()
        };
        let encoder = NibbleEncoder {
            metric: layout.metric,
            center: floats(center),
            step: floats(step),
        };
        codes.squares = floats(squares);
        if !encoder.is_sound() {
            return Err(corrupt("its code parameters are not usable"));
        }
        Ok(Self {
            dim: layout.dim,
            degree: layout.degree,
            start: layout.start,
            lists_at: layout.lists_at(),
            encoder,
            codes,
            scratches: Mutex::default(),
        })
    }

    /// Where in the file the neighbours of `row` stand. Never across a multiple of 4,096.
    #[must_use]
    pub fn list_range(&self, row: u32) -> Range<u64> {
        let block = lists_per_block(self.degree);
        let row = row as usize;
        let at = self.lists_at + (row / block * BLOCK_BYTES + row % block * 4 * self.degree) as u64;
        at..at + 4 * self.degree as u64
    }

    /// Adds the neighbours in the bytes at [`Self::list_range`] to `list`.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] for a list with a gap or of another length.
    pub fn read_list(&self, bytes: &[u8], list: &mut Vec<u32>) -> Result<(), IndexError> {
        let corrupt = |reason| IndexError::Corrupt { reason };
        let (entries, []) = bytes.as_chunks::<4>() else {
            return Err(corrupt("a list is not a multiple of four long"));
        };
        if entries.len() != self.degree {
            return Err(corrupt("a list has another length than the degree"));
        }
        let mut entries = entries.iter().map(|entry| u32::from_le_bytes(*entry));
        list.extend(entries.by_ref().take_while(|&entry| entry != NONE));
        if entries.any(|entry| entry != NONE) {
            return Err(corrupt("a list goes on after its end"));
        }
        Ok(())
    }
}

fn metric_code(metric: Metric) -> u32 {
    match metric {
        Metric::L2 => 0,
        Metric::Ip => 1,
        Metric::Cosine => 2,
    }
}

fn lists_per_block(degree: usize) -> usize {
    BLOCK_BYTES / (4 * degree)
}

const MAGIC: &[u8; 4] = b"SKDG";
const VERSION: u32 = 1;
const BITS: u32 = 4;
/// Fills a list up to the degree.
const NONE: u32 = u32::MAX;
/// Lists do not cross a multiple of this: the plaintext of the smallest frame of a sealed file.
const BLOCK_BYTES: usize = 4_096;
/// Smallest degree of a graph.
const DEGREE_MIN: usize = 2;
