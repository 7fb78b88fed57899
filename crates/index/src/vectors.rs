//! The rows that indexes look at: one shared, immutable, row-major buffer that is wiped when its last user drops it.
//!
//! Dense rows keep the type that the client gave them ([`Element`]): scores are computed from that, element by element
//! widened to `f32` inside the kernels, so a row of 16-bit floats takes half the memory and half the bandwidth.
//! Rows of bits are in `binary`.

use std::sync::Arc;

use zeroize::Zeroize;

use crate::{
    IndexError, Metric, kernel,
    packed::{PackedRow, PackedRows},
};

/// Type of the elements of dense rows. Every value of every type is exactly a value of `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit IEEE 754.
    F32,
    /// 16-bit IEEE 754, kept as bits.
    F16,
    /// The upper half of a 32-bit IEEE 754 value, kept as bits.
    Bf16,
    /// 8-bit signed integer.
    I8,
}

/// Some elements, of whichever type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elements<'a> {
    /// See [`Element::F32`].
    F32(&'a [f32]),
    /// See [`Element::F16`].
    F16(&'a [u16]),
    /// See [`Element::Bf16`].
    Bf16(&'a [u16]),
    /// See [`Element::I8`].
    I8(&'a [i8]),
    /// A row of [`Element::F32`], packed.
    Packed(PackedRow<'a>),
}

/// Row-major dense vectors, immutable and cheap to clone. They are customer plaintext: the buffer is overwritten with
/// zeros when the last clone drops.
#[derive(Clone)]
pub struct Vectors {
    dim: usize,
    rows: usize,
    data: Arc<Wiped>,
}

impl Vectors {
    /// Takes over `data`, `rows * dim` values, without copying.
    ///
    /// # Errors
    /// [`IndexError::Dimension`], [`IndexError::PartialRow`] or [`IndexError::TooManyRows`]; `data` is wiped then too.
    pub fn new(dim: usize, data: Vec<f32>) -> Result<Self, IndexError> {
        Self::of(dim, Wiped::F32(data))
    }

    /// Like [`Self::new`], of 16-bit IEEE 754 values as bits.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_f16(dim: usize, data: Vec<u16>) -> Result<Self, IndexError> {
        Self::of(dim, Wiped::F16(data))
    }

    /// Like [`Self::new`], of the upper halves of `f32` values as bits.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_bf16(dim: usize, data: Vec<u16>) -> Result<Self, IndexError> {
        Self::of(dim, Wiped::Bf16(data))
    }

    /// Like [`Self::new`], of 8-bit integers.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_i8(dim: usize, data: Vec<i8>) -> Result<Self, IndexError> {
        Self::of(dim, Wiped::I8(data))
    }

    fn of(dim: usize, data: Wiped) -> Result<Self, IndexError> {
        if dim == 0 || dim > IndexError::DIMENSION_MAX {
            return Err(IndexError::Dimension { dim });
        }
        let len = data.len();
        if !len.is_multiple_of(dim) {
            return Err(IndexError::PartialRow { dim, len });
        }
        let rows = len / dim;
        if rows > IndexError::ROWS_MAX {
            return Err(IndexError::TooManyRows { rows });
        }
        Ok(Self {
            dim,
            rows,
            data: Arc::new(data),
        })
    }

    /// The rows of all `parts` one after another, in a buffer of exactly their size.
    ///
    /// # Errors
    /// [`IndexError::Unlike`] if there is no part, or parts differ in dimension or element type; else as [`Self::new`].
    pub fn concat(parts: &[&Self]) -> Result<Self, IndexError> {
        let len = parts.iter().map(|part| part.rows * part.dim).sum();
        macro_rules! joined {
            ($variant:ident) => {{
                let mut all = zeroize::Zeroizing::new(kernel::room_for_random_access(len));
                for part in parts {
                    match &*part.data {
                        Wiped::$variant(values) => all.extend_from_slice(values),
                        _ => return Err(IndexError::Unlike),
                    }
                }
                Wiped::$variant(std::mem::take(&mut *all))
            }};
        }
        let first = parts.first().ok_or(IndexError::Unlike)?;
        if parts.iter().any(|part| part.dim != first.dim) {
            return Err(IndexError::Unlike);
        }
        let data = match first.element() {
            Element::F32 => {
                let mut all = zeroize::Zeroizing::new(kernel::room_for_random_access(len));
                for part in parts {
                    match &*part.data {
                        Wiped::F32(values) => all.extend_from_slice(values),
                        Wiped::Packed(rows) => (0..rows.rows()).for_each(|row| rows.row(row).widen_onto(&mut all)),
                        Wiped::F16(_) | Wiped::Bf16(_) | Wiped::I8(_) => return Err(IndexError::Unlike),
                    }
                }
                Wiped::F32(std::mem::take(&mut *all))
            }
            Element::F16 => joined!(F16),
            Element::Bf16 => joined!(Bf16),
            Element::I8 => joined!(I8),
        };
        Self::of(first.dim, data)
    }

    /// The same rows in less memory, bit by bit as they were, if they are 32-bit floats that lend themselves to it. A row
    /// takes a little longer to be read.
    #[must_use]
    pub fn packed(&self) -> Option<Self> {
        let Wiped::F32(values) = &*self.data else {
            return None;
        };
        let packed = PackedRows::pack(self.dim, values)?;
        Some(Self {
            dim: self.dim,
            rows: self.rows,
            data: Arc::new(Wiped::Packed(packed)),
        })
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
        match &*self.data {
            Wiped::F32(_) | Wiped::Packed(_) => Element::F32,
            Wiped::F16(_) => Element::F16,
            Wiped::Bf16(_) => Element::Bf16,
            Wiped::I8(_) => Element::I8,
        }
    }

    /// Row `i` in its own type.
    ///
    /// # Panics
    /// If `i` is not below [`Self::rows`].
    #[inline]
    #[must_use]
    pub fn row_elements(&self, i: usize) -> Elements<'_> {
        let range = i * self.dim..(i + 1) * self.dim;
        match &*self.data {
            Wiped::F32(values) => Elements::F32(&values[range]),
            Wiped::F16(values) => Elements::F16(&values[range]),
            Wiped::Bf16(values) => Elements::Bf16(&values[range]),
            Wiped::I8(values) => Elements::I8(&values[range]),
            Wiped::Packed(rows) => Elements::Packed(rows.row(i)),
        }
    }

    /// Row `i` as `f32`, exactly: the row itself if it is of that type, else widened into `buffer`, which the caller
    /// wipes in the end.
    ///
    /// # Panics
    /// If `i` is not below [`Self::rows`].
    #[inline]
    #[must_use]
    pub fn row_f32<'a>(&'a self, i: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let row = self.row_elements(i);
        if let Elements::F32(values) = row {
            return values;
        }
        buffer.clear();
        row.widen_onto(buffer);
        buffer
    }

    /// Row `i` of 32-bit rows. Elsewhere than in tests there are other types too.
    #[cfg(test)]
    pub(crate) fn row(&self, i: usize) -> &[f32] {
        let Elements::F32(row) = self.row_elements(i) else {
            panic!("{:?} where a test wants f32", self.element());
        };
        row
    }

    /// All rows of 32-bit elements.
    #[cfg(test)]
    pub(crate) fn as_slice(&self) -> &[f32] {
        let Wiped::F32(values) = &*self.data else {
            panic!("{:?} where a test wants f32", self.element());
        };
        values
    }

    /// Bytes of all rows.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &*self.data {
            Wiped::F32(values) => size_of_val(values.as_slice()),
            Wiped::F16(values) | Wiped::Bf16(values) => size_of_val(values.as_slice()),
            Wiped::I8(values) => values.len(),
            Wiped::Packed(rows) => rows.bytes(),
        }
    }
}

impl Elements<'_> {
    /// Their type.
    #[must_use]
    pub fn element(self) -> Element {
        match self {
            Self::F32(_) | Self::Packed(_) => Element::F32,
            Self::F16(_) => Element::F16,
            Self::Bf16(_) => Element::Bf16,
            Self::I8(_) => Element::I8,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) | Self::Bf16(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::Packed(row) => row.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Bytes that they take.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32(values) => size_of_val(values),
            Self::F16(values) | Self::Bf16(values) => size_of_val(values),
            Self::I8(values) => size_of_val(values),
            Self::Packed(row) => row.bytes(),
        }
    }

    /// Appends their values as `f32`, which is exact. The caller wipes `out` in the end, and has made room if it must not
    /// grow.
    pub fn widen_onto(self, out: &mut Vec<f32>) {
        match self {
            Self::F32(values) => out.extend_from_slice(values),
            Self::F16(values) => out.extend(values.iter().map(|&bits| kernel::f16_to_f32(bits))),
            Self::Bf16(values) => out.extend(values.iter().map(|&bits| kernel::bf16_to_f32(bits))),
            Self::I8(values) => out.extend(values.iter().map(|&value| f32::from(value))),
            Self::Packed(row) => row.widen_onto(out),
        }
    }

    /// Asks the processor to load the first `bytes_max` bytes.
    #[inline]
    fn prefetch(self, bytes_max: usize) {
        const LINE_BYTES: usize = 64;
        fn lines<T>(values: &[T], bytes_max: usize) {
            let line = LINE_BYTES / size_of::<T>();
            values
                .chunks(line)
                .take(bytes_max / LINE_BYTES)
                .for_each(kernel::prefetch);
        }
        match self {
            Self::F32(values) => lines(values, bytes_max),
            Self::F16(values) | Self::Bf16(values) => lines(values, bytes_max),
            Self::I8(values) => lines(values, bytes_max),
            Self::Packed(row) => lines(&row.packed().0[..row.bytes()], bytes_max),
        }
    }
}

impl std::fmt::Debug for Vectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vectors")
            .field("element", &self.element())
            .field("dim", &self.dim)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// Gives the exact scores of rows against one query.
pub(crate) struct Scorer<'a> {
    metric: Metric,
    query: &'a [f32],
    query_squared: f32,
}

impl<'a> Scorer<'a> {
    pub(crate) fn new(metric: Metric, query: &'a [f32]) -> Self {
        let query_squared = kernel::dot(query, query);
        Self {
            metric,
            query,
            query_squared,
        }
    }

    /// The score of a row in the user's metric.
    #[inline]
    pub(crate) fn score(&self, row: Elements<'_>) -> f32 {
        macro_rules! score {
            ($row:expr, $l2:path, $dot:path, $dot_and_square:path) => {
                match self.metric {
                    Metric::L2 => $l2(self.query, $row),
                    Metric::Ip => $dot(self.query, $row),
                    Metric::Cosine => {
                        let (dot, row_squared) = $dot_and_square(self.query, $row);
                        crate::flat::cosine(dot, self.query_squared, row_squared)
                    }
                }
            };
        }
        match row {
            Elements::F32(row) => score!(row, kernel::l2, kernel::dot, kernel::dot_and_square),
            Elements::F16(row) => score!(row, kernel::f16::l2, kernel::f16::dot, kernel::f16::dot_and_square),
            Elements::Bf16(row) => score!(row, kernel::bf16::l2, kernel::bf16::dot, kernel::bf16::dot_and_square),
            Elements::I8(row) => score!(row, kernel::int8::l2, kernel::int8::dot, kernel::int8::dot_and_square),
            Elements::Packed(row) if row.is_whole() => self.score_packed(row),
            Elements::Packed(row) => row.with_values(|values| self.score(Elements::F32(values))),
        }
    }

    fn score_packed(&self, row: PackedRow<'_>) -> f32 {
        let (bytes, highest) = row.packed();
        match self.metric {
            Metric::L2 => kernel::packed::l2(self.query, bytes, highest),
            Metric::Ip => kernel::packed::dot(self.query, bytes, highest),
            Metric::Cosine => {
                let (dot, row_squared) = kernel::packed::dot_and_square(self.query, bytes, highest);
                crate::flat::cosine(dot, self.query_squared, row_squared)
            }
        }
    }

    /// Fetches the start of a row that is scored soon.
    #[inline]
    pub(crate) fn prefetch(row: Elements<'_>) {
        row.prefetch(PREFETCH_BYTES);
    }
}

/// Bytes of a row that are fetched ahead; the hardware's own prefetcher follows a longer row from there.
const PREFETCH_BYTES: usize = 2_048;

/// Owns the values so that dropping the last reference wipes them.
enum Wiped {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Bf16(Vec<u16>),
    I8(Vec<i8>),
    /// Wipes itself.
    Packed(PackedRows),
}

impl Wiped {
    /// Number of values.
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) | Self::Bf16(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::Packed(rows) => rows.dim() * rows.rows(),
        }
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        match self {
            Self::F32(values) => values.zeroize(),
            Self::F16(values) | Self::Bf16(values) => values.zeroize(),
            Self::I8(values) => values.zeroize(),
            Self::Packed(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked_for_every_element_type() {
        assert_eq!(Vectors::of_i8(0, vec![]).unwrap_err(), IndexError::Dimension { dim: 0 });
        assert_eq!(
            Vectors::of_f16(3, vec![0; 4]).unwrap_err(),
            IndexError::PartialRow { dim: 3, len: 4 }
        );
        let rows = Vectors::of_bf16(2, vec![0x3f80, 0xc000, 0, 0x3f00]).unwrap();
        assert_eq!(
            (rows.dim(), rows.rows(), rows.element(), rows.bytes()),
            (2, 2, Element::Bf16, 8)
        );
        let mut buffer = Vec::new();
        assert_eq!(rows.row_f32(0, &mut buffer), [1.0, -2.0]);
        assert_eq!(rows.row_f32(1, &mut buffer), [0.0, 0.5]);
        assert_eq!(rows.row_elements(1), Elements::Bf16(&[0, 0x3f00]));
    }

    #[test]
    fn packed_rows_are_the_same_in_less_memory_and_are_joined_as_such() {
        let values: Vec<f32> = (0..64 * 2_048).map(|value| (value % 1_000) as f32 / 7.0).collect();
        let rows = Vectors::new(64, values).unwrap();
        let packed = rows.packed().unwrap();
        assert_eq!(
            (packed.dim(), packed.rows(), packed.element()),
            (64, 2_048, Element::F32)
        );
        assert!(packed.bytes() < rows.bytes() * 9 / 10);
        let joined = Vectors::concat(&[&packed, &rows, &packed]).unwrap();
        let mut buffer = Vec::new();
        for row in [0, 1, 63, 2_047] {
            assert_eq!(packed.row_f32(row, &mut buffer), rows.row(row));
            assert_eq!(joined.row(row), rows.row(row));
            assert_eq!(joined.row(row + 2 * 2_048), rows.row(row));
        }
        assert!(packed.packed().is_none());
        assert!(Vectors::of_i8(64, vec![1; 64 * 2_048]).unwrap().packed().is_none());
    }

    #[test]
    fn parts_are_joined_in_order_if_they_are_alike() {
        let (a, b) = (
            Vectors::of_i8(2, vec![1, 2]).unwrap(),
            Vectors::of_i8(2, vec![3, 4, 5, 6]).unwrap(),
        );
        let joined = Vectors::concat(&[&a, &b]).unwrap();
        let rows: Vec<_> = (0..3).map(|row| joined.row_elements(row)).collect();
        assert_eq!(
            rows,
            [Elements::I8(&[1, 2]), Elements::I8(&[3, 4]), Elements::I8(&[5, 6])]
        );
        let (wide, long) = (
            Vectors::new(2, vec![1.0, 2.0]).unwrap(),
            Vectors::of_i8(1, vec![1]).unwrap(),
        );
        assert_eq!(Vectors::concat(&[&a, &wide]).unwrap_err(), IndexError::Unlike);
        assert_eq!(Vectors::concat(&[&a, &long]).unwrap_err(), IndexError::Unlike);
        assert_eq!(Vectors::concat(&[]).unwrap_err(), IndexError::Unlike);
    }
}
