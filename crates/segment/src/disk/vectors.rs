//! A column of dense vectors that stays on disk.

use std::sync::Arc;

use saker_index::{Element, Elements, Hit, Metric, RowMask, Vectors, exact_search};
use saker_keyring::Lease;
use saker_model::{Bitmap, ColumnData, DataType};
use saker_storage::ObjectStore;
use zeroize::Zeroizing;

use super::{FrameCache, file::DiskFile};
use crate::{
    FileEntry, SegmentError,
    encoding::{self, Expected},
};

/// The dense vectors of one field of one segment, on disk.
#[derive(Debug)]
pub struct DiskVectors {
    file: Arc<DiskFile>,
    element: Element,
    dim: usize,
    rows: usize,
    /// Where row 0 stands in the file.
    values_at: u64,
}

impl DiskVectors {
    /// The element type of a field whose vectors may stay on disk.
    pub(crate) fn element_of(data_type: DataType) -> Option<Element> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other type has dense vectors")]
        match data_type {
            DataType::FloatVector => Some(Element::F32),
            DataType::Float16Vector => Some(Element::F16),
            DataType::BFloat16Vector => Some(Element::Bf16),
            DataType::Int8Vector => Some(Element::I8),
            _ => None,
        }
    }

    /// Opens the column that a manifest names, whose values stay where they are; and which vectors are present, `None` for
    /// all.
    ///
    /// # Errors
    /// As of [`crate::SealedSegment::open`].
    pub(crate) async fn open(
        lease: &Lease,
        store: &dyn ObjectStore,
        prefix: &str,
        entry: &FileEntry,
        expected: &Expected,
        cache: &Arc<FrameCache>,
    ) -> Result<(Self, Option<Bitmap>), SegmentError> {
        let file = DiskFile::kept_open(lease, store, prefix, expected.segment(), entry, cache).await?;
        let (dim, rows) = (expected.dim(), expected.rows());
        let element = Self::element_of(expected.data_type()).ok_or(SegmentError::NotAVector {
            field: expected.field,
            data_type: expected.data_type(),
        })?;
        let (head_file, head_expected) = (Arc::clone(&file), expected.clone());
        let head = move || {
            let value_bytes = (rows as u64).checked_mul((dim * element_bytes(element)) as u64);
            let head_bytes = value_bytes.and_then(|bytes| head_file.plain_bytes().checked_sub(bytes));
            let head_bytes = head_bytes.and_then(|bytes| usize::try_from(bytes).ok());
            let head_bytes = head_bytes.filter(|bytes| head_expected.is_head_length(*bytes));
            let head_bytes = head_bytes.ok_or_else(|| head_file.malformed("its length does not fit its rows"))?;
            let mut head = Zeroizing::new(vec![0; head_bytes]);
            head_file.scan(0, &mut head)?;
            let validity = encoding::decode_vector_head(&head, &head_expected);
            Ok((
                head_bytes as u64,
                validity.map_err(|reason| head_file.malformed(reason))?,
            ))
        };
        let head: Result<_, SegmentError> = tokio::task::spawn_blocking(head)
            .await
            .map_err(|_| SegmentError::Stopped)?;
        let (values_at, validity) = head?;
        let vectors = Self {
            file,
            element,
            dim,
            rows,
            values_at,
        };
        Ok((vectors, validity))
    }

    /// Values in one row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Type of the elements.
    #[must_use]
    pub fn element(&self) -> Element {
        self.element
    }
    /// Puts them under another lease, after a move to another zone.
    pub(crate) fn rebind(&self, lease: &Lease) {
        self.file.rebind(lease);
    }
    /// Whether they may be read now.
    pub(crate) fn check(&self) -> Result<(), SegmentError> {
        self.file.check()
    }

    /// Fills `values`, one row long, with row `row` as `f32`, which is exact. Through the cache.
    pub(crate) fn row(&self, row: usize, values: &mut [f32]) -> Result<(), SegmentError> {
        let bytes = self.row_bytes();
        self.file.with(self.at(row), bytes, |start, part| {
            // Rows and frames begin at multiples of an element's size, so no element lies in two parts.
            let first = start / element_bytes(self.element);
            let Some(values) = values.get_mut(first..) else { return };
            match self.element {
                Element::F32 => {
                    for (value, bytes) in values.iter_mut().zip(part.as_chunks::<4>().0) {
                        *value = f32::from_le_bytes(*bytes);
                    }
                }
                Element::F16 | Element::Bf16 => {
                    let halves = Zeroizing::new(halves(part).collect::<Vec<u16>>());
                    let elements = if self.element == Element::F16 {
                        Elements::F16(&halves)
                    } else {
                        Elements::Bf16(&halves)
                    };
                    let mut wide = Zeroizing::new(Vec::with_capacity(halves.len()));
                    elements.widen_onto(&mut wide);
                    values
                        .iter_mut()
                        .zip(wide.iter())
                        .for_each(|(value, wide)| *value = *wide);
                }
                Element::I8 => {
                    for (value, byte) in values.iter_mut().zip(part) {
                        *value = f32::from(byte.cast_signed());
                    }
                }
            }
        })
    }

    /// Says that this row will be read soon.
    pub(crate) fn row_soon(&self, row: usize) {
        self.file.will_read(self.at(row), self.row_bytes());
    }

    /// Copies rows out, in this order, in the field's own type. The caller has checked the numbers.
    pub(crate) fn take(&self, rows: &[usize]) -> Result<ColumnData, SegmentError> {
        let dim = self.dim;
        rows.iter().for_each(|&row| self.row_soon(row));
        macro_rules! taken {
            ($column:ident, $values:expr) => {{
                let mut data = Zeroizing::new(Vec::with_capacity(rows.len() * dim));
                for &row in rows {
                    self.file.with(self.at(row), self.row_bytes(), |_, part| {
                        data.extend($values(part))
                    })?;
                }
                ColumnData::$column {
                    dim,
                    data: std::mem::take(&mut *data),
                }
            }};
        }
        Ok(match self.element {
            Element::F32 => taken!(FloatVector, floats),
            Element::F16 => taken!(Float16Vector, halves),
            Element::Bf16 => taken!(BFloat16Vector, halves),
            Element::I8 => taken!(Int8Vector, signed),
        })
    }

    /// A run of rows in memory. Past the cache, and on several threads if they are many: for what looks at every row.
    ///
    /// # Errors
    /// [`SegmentError::Refused`], [`SegmentError::Locked`], [`SegmentError::Store`].
    pub fn read(&self, rows: std::ops::Range<usize>) -> Result<Vectors, SegmentError> {
        let rows = rows.start.min(self.rows)..rows.end.min(self.rows);
        macro_rules! read {
            ($make:path, $zero:expr, $from:expr) => {{
                // Zeros come from the system as untouched pages: nothing is written twice.
                let mut data = Zeroizing::new(vec![$zero; rows.len() * self.dim]);
                let convert = |bytes: &[u8], out: &mut [_]| {
                    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                        *value = $from(*bytes);
                    }
                };
                let value_bytes = element_bytes(self.element);
                self.file
                    .fill(self.at(rows.start), value_bytes, &mut data, convert)?;
                $make(self.dim, std::mem::take(&mut *data))
            }};
        }
        Ok(match self.element {
            Element::F32 => read!(Vectors::new, 0.0_f32, f32::from_le_bytes),
            Element::F16 => read!(Vectors::of_f16, 0_u16, u16::from_le_bytes),
            Element::Bf16 => read!(Vectors::of_bf16, 0_u16, u16::from_le_bytes),
            Element::I8 => read!(Vectors::of_i8, 0_i8, i8::from_le_bytes),
        }?)
    }

    /// The rows nearest to `query` by comparing with every row in `mask`, best first, ties by lower row.
    pub(crate) fn search(
        &self,
        metric: Metric,
        query: &[f32],
        k: usize,
        mask: Option<RowMask<'_>>,
    ) -> Result<Vec<Hit>, SegmentError> {
        let mut hits: Vec<Hit> = Vec::new();
        for first in (0..self.rows).step_by(BLOCK_ROWS) {
            let rows = first..self.rows.min(first + BLOCK_ROWS);
            let words = mask.map(|mask| mask.words.get(first / 64..).unwrap_or_default());
            let mask = words.map(|words| RowMask {
                words,
                rows: rows.len(),
            });
            let wanted = mask.map_or(rows.len(), |mask| mask.count());
            if wanted == 0 {
                continue;
            }
            let start = u32::try_from(first).unwrap_or(u32::MAX);
            if wanted <= rows.len() / SPARSE {
                let rows: Vec<usize> = mask.iter().flat_map(RowMask::iter).map(|row| first + row).collect();
                let found = exact_search(metric, &self.gathered(&rows)?, query, k, None);
                hits.extend(found.into_iter().filter_map(|hit| {
                    let row = rows.get(hit.row as usize)?;
                    Some(Hit {
                        row: u32::try_from(*row).ok()?,
                        ..hit
                    })
                }));
            } else {
                let found = exact_search(metric, &self.read(rows)?, query, k, mask);
                hits.extend(found.into_iter().map(|hit| Hit {
                    row: start + hit.row,
                    ..hit
                }));
            }
            if hits.len() >= HITS_MAX.max(2 * k) {
                keep_best(&mut hits, metric, k);
            }
        }
        keep_best(&mut hits, metric, k);
        Ok(hits)
    }

    /// Some rows in memory, in this order. Through the cache.
    fn gathered(&self, rows: &[usize]) -> Result<Vectors, SegmentError> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is taken from here")]
        Ok(match self.take(rows)? {
            ColumnData::FloatVector { dim, data } => Vectors::new(dim, data),
            ColumnData::Float16Vector { dim, data } => Vectors::of_f16(dim, data),
            ColumnData::BFloat16Vector { dim, data } => Vectors::of_bf16(dim, data),
            ColumnData::Int8Vector { dim, data } => Vectors::of_i8(dim, data),
            _ => Vectors::new(self.dim, Vec::new()),
        }?)
    }

    fn row_bytes(&self) -> usize {
        self.dim * element_bytes(self.element)
    }

    fn at(&self, row: usize) -> u64 {
        self.values_at + row as u64 * self.row_bytes() as u64
    }
}

/// Leaves the `k` best, best first, ties by lower row; scores that are no number last.
fn keep_best(hits: &mut Vec<Hit>, metric: Metric, k: usize) {
    hits.sort_unstable_by(|a, b| {
        let order = match (a.score.is_nan(), b.score.is_nan()) {
            (false, false) => {
                // `+ 0.0` turns -0.0 into 0.0, so that equal scores tie.
                let order = (a.score + 0.0).total_cmp(&(b.score + 0.0));
                if metric.larger_is_better() {
                    order.reverse()
                } else {
                    order
                }
            }
            (mine, theirs) => mine.cmp(&theirs),
        };
        order.then(a.row.cmp(&b.row))
    });
    hits.truncate(k);
}

fn element_bytes(element: Element) -> usize {
    match element {
        Element::F32 => 4,
        Element::F16 | Element::Bf16 => 2,
        Element::I8 => 1,
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
}

fn signed(bytes: &[u8]) -> impl Iterator<Item = i8> + '_ {
    bytes.iter().map(|byte| byte.cast_signed())
}

/// Rows that an exact search has in memory at once. A multiple of 64, so that a mask is cut between words.
const BLOCK_ROWS: usize = 1_024;
/// Where not more than one row in so many of a block is wanted, each is read alone.
const SPARSE: usize = 8;
/// Hits that are gathered before the best are sorted out.
const HITS_MAX: usize = 4_096;
