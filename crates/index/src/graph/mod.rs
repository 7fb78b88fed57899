//! The graph index (skeleton).

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Hit, IndexError, Metric, RowMask, Vectors, flat_search};

/// How a graph is built.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphParams {
    /// Most neighbours that a row keeps.
    pub degree: usize,
    /// Length of the candidate list while building.
    pub build_list: usize,
}

impl Default for GraphParams {
    fn default() -> Self {
        Self {
            degree: 32,
            build_list: 128,
        }
    }
}

/// An approximate index over shared vectors.
pub struct GraphIndex {
    vectors: Vectors,
    metric: Metric,
}

impl GraphIndex {
    /// List length of a search that gives none.
    pub const EF_DEFAULT: usize = 128;

    /// Builds a graph over `vectors` on `threads` threads (0 counts as 1). `progress` hears how many rows are done;
    /// setting `stop` ends the build soon.
    ///
    /// # Errors
    /// [`IndexError::Stopped`] once `stop` is set; [`IndexError::Parameter`]; [`IndexError::Threads`].
    pub fn build(
        vectors: Vectors,
        metric: Metric,
        _params: &GraphParams,
        _threads: usize,
        progress: &(dyn Fn(usize) + Sync),
        stop: &AtomicBool,
    ) -> Result<Self, IndexError> {
        if stop.load(Ordering::Relaxed) {
            return Err(IndexError::Stopped);
        }
        progress(vectors.rows());
        Ok(Self { vectors, metric })
    }

    /// The `k` best rows found with a candidate list of `ef` (raised to `k`; 0 means [`Self::EF_DEFAULT`]).
    ///
    /// # Errors
    /// [`IndexError::QueryDimension`] or [`IndexError::MaskRows`].
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        _ef: usize,
        mask: Option<RowMask<'_>>,
    ) -> Result<Vec<Hit>, IndexError> {
        Ok(flat_search(
            self.metric,
            self.vectors.as_slice(),
            self.vectors.dim(),
            query,
            k,
            mask,
        ))
    }

    /// The graph and its codes, without the vectors.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Opens saved bytes over the same vectors.
    ///
    /// # Errors
    /// [`IndexError::Corrupt`] or [`IndexError::Version`] for bytes that do not fit `vectors` and `metric`.
    pub fn from_bytes(_bytes: &[u8], vectors: Vectors, metric: Metric) -> Result<Self, IndexError> {
        Ok(Self { vectors, metric })
    }

    /// Bytes that the graph and its codes hold in memory, without the vectors.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        0
    }
}
