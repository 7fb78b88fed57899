//! The rows that indexes look at: one shared, immutable, row-major buffer that is wiped when its last user drops it.

use std::sync::Arc;

use zeroize::Zeroize;

use crate::IndexError;

/// Row-major `f32` vectors, immutable and cheap to clone. They are customer plaintext: the buffer is overwritten with
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
        let data = Wiped(data);
        if dim == 0 || dim > IndexError::DIMENSION_MAX {
            return Err(IndexError::Dimension { dim });
        }
        let len = data.0.len();
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

    /// Row `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Self::rows`].
    #[inline]
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data.0[i * self.dim..][..self.dim]
    }

    /// All rows, one after another.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.data.0
    }
}

impl std::fmt::Debug for Vectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vectors")
            .field("dim", &self.dim)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// Owns the values so that dropping the last reference wipes them.
struct Wiped(Vec<f32>);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
