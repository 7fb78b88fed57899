//! The words that searches speak: how two vectors compare, which rows may be returned, what a hit is.

use crate::IndexError;

/// How two vectors are compared, with the meaning and the scores that Milvus gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Squared Euclidean distance; smaller is better.
    L2,
    /// Inner product; larger is better.
    Ip,
    /// Cosine similarity, -1 to 1; larger is better. A zero vector has similarity 0 to everything.
    Cosine,
}

impl Metric {
    /// Whether a larger score means a nearer vector.
    #[must_use]
    pub fn larger_is_better(self) -> bool {
        match self {
            Self::L2 => false,
            Self::Ip | Self::Cosine => true,
        }
    }

    /// Maps a score to a value that is smaller for a better match, and back (it is its own inverse).
    pub(crate) fn cost(self, score: f32) -> f32 {
        if self.larger_is_better() { -score } else { score }
    }
}

/// The rows that a search may return: row `i` may if bit `i % 64` of `words[i / 64]` is set.
#[derive(Clone, Copy, Debug)]
pub struct RowMask<'a> {
    /// Bits, least significant first. Bits at and beyond `rows` are ignored; missing words count as zero.
    pub words: &'a [u64],
    /// Number of valid bits.
    pub rows: usize,
}

impl RowMask<'_> {
    /// Whether `row` may be returned.
    #[inline]
    #[must_use]
    pub fn contains(&self, row: usize) -> bool {
        row < self.rows && self.words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Whether a mask, if there is one, was made for an index of `rows` rows.
    ///
    /// # Errors
    /// [`IndexError::MaskRows`].
    pub(crate) fn check(mask: Option<RowMask<'_>>, rows: usize) -> Result<(), IndexError> {
        match mask {
            Some(mask) if mask.rows != rows || mask.words.len() < rows.div_ceil(64) => Err(IndexError::MaskRows {
                mask: mask.rows.min(mask.words.len() * 64),
                index: rows,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// How many rows may be returned.
    #[must_use]
    pub fn count(&self) -> usize {
        self.valid_words().map(|word| word.count_ones() as usize).sum()
    }

    /// The rows that may be returned, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.valid_words().enumerate().flat_map(|(index, mut word)| {
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros() as usize;
                    word &= word - 1;
                    index * 64 + bit
                })
            })
        })
    }

    /// The words with every bit at and beyond `rows` cleared.
    pub(crate) fn valid_words(&self) -> impl Iterator<Item = u64> + '_ {
        let whole = self.rows / 64;
        let rest = self.rows % 64;
        self.words
            .iter()
            .take(self.rows.div_ceil(64))
            .enumerate()
            .map(move |(index, &word)| {
                if index < whole {
                    word
                } else {
                    word & ((1u64 << rest) - 1)
                }
            })
    }
}

/// One row found by a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Row number within the searched vectors.
    pub row: u32,
    /// Score in the user's metric: squared distance, inner product or cosine similarity.
    pub score: f32,
}
