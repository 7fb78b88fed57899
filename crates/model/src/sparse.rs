//! Sparse vectors: the few elements that are not zero.

use thiserror::Error;

/// A sparse vector: ascending indices without doubles, and the finite value at each. May be empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseVector {
    pairs: Vec<(u32, f32)>,
}

/// Why pairs make no sparse vector.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SparseError {
    /// Indices do not ascend, or one stands twice.
    #[error("unsorted or same indices in sparse float vector")]
    Order,
    /// A value is NaN or infinite.
    #[error("NaN or infinite value in sparse float vector")]
    NotFinite,
    /// An index beyond [`SparseVector::INDEX_MAX`].
    #[error("invalid index in sparse float vector: must be less than 2^32-1")]
    Index,
}

impl SparseVector {
    /// Largest index: Milvus keeps 2^32 - 1 for itself.
    pub const INDEX_MAX: u32 = u32::MAX - 1;

    /// Checks pairs of index and value.
    ///
    /// # Errors
    /// [`SparseError`] for the first fault.
    pub fn new(pairs: Vec<(u32, f32)>) -> Result<Self, SparseError> {
        if pairs.windows(2).any(|two| two[0].0 >= two[1].0) {
            return Err(SparseError::Order);
        }
        if pairs.last().is_some_and(|(index, _)| *index > Self::INDEX_MAX) {
            return Err(SparseError::Index);
        }
        if pairs.iter().any(|(_, value)| !value.is_finite()) {
            return Err(SparseError::NotFinite);
        }
        Ok(Self { pairs })
    }
    /// Its elements, by ascending index.
    #[must_use]
    pub fn pairs(&self) -> &[(u32, f32)] {
        &self.pairs
    }
    /// Its elements, to be wiped by whoever owns them.
    pub fn pairs_mut(&mut self) -> &mut Vec<(u32, f32)> {
        &mut self.pairs
    }
    /// One more than the largest index: the dimension that Milvus reports; 0 for an empty vector.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.pairs.last().map_or(0, |(index, _)| *index as usize + 1)
    }
    /// Bytes that it takes in memory, without itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(self.pairs.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ascending_finite_pairs_are_vectors() {
        assert_eq!(SparseVector::new(vec![]).unwrap().dim(), 0);
        assert_eq!(SparseVector::new(vec![(3, 1.0), (9, -2.0)]).unwrap().dim(), 10);
        assert_eq!(SparseVector::new(vec![(3, 1.0), (3, 2.0)]), Err(SparseError::Order));
        assert_eq!(SparseVector::new(vec![(4, 1.0), (3, 2.0)]), Err(SparseError::Order));
        assert_eq!(SparseVector::new(vec![(4, f32::NAN)]), Err(SparseError::NotFinite));
        assert_eq!(SparseVector::new(vec![(u32::MAX, 1.0)]), Err(SparseError::Index));
    }
}
