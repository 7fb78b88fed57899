//! Tokens to the numbers that an index knows.

use saker_model::SparseVector;
use zeroize::Zeroizing;

use crate::Analyzer;

impl Analyzer {
    /// How often each term stands in `text`: the indices are [`term_hash`]es, the values whole numbers from 1 on. Empty for a
    /// text without tokens.
    #[must_use]
    pub fn term_frequencies(&self, text: &str) -> SparseVector {
        let mut hashes = Zeroizing::new(Vec::with_capacity(text.len() / BYTES_A_TOKEN + 1));
        self.analyze(text, |token| hashes.push(term_hash(token.text)));
        hashes.sort_unstable();
        let runs = hashes.chunk_by(|a, b| a == b);
        let pairs = runs.map(|run| {
            #[expect(clippy::cast_precision_loss, reason = "far fewer tokens than 2^24: a text is short")]
            let frequency = run.len() as f32;
            (run[0], frequency)
        });
        // Ascending, without doubles and finite by construction.
        SparseVector::new(pairs.collect()).unwrap_or_default()
    }
}

/// The number of a term in a sparse vector: FNV-1a over 64 bits, mixed as MurmurHash3 ends, its lower half; the one
/// number that is no index becomes 0. It stands in files, so it never changes. Two terms of a million share a number
/// with another one in about a hundred cases: they count as the same term.
#[must_use]
pub fn term_hash(term: &str) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in term.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    let low = hash as u32;
    if low > SparseVector::INDEX_MAX { 0 } else { low }
}

/// First guess of a token's length with what is around it.
const BYTES_A_TOKEN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_count_terms() {
        let counted = Analyzer::standard().term_frequencies("Red fish, blue fish: RED red");
        let mut expected = vec![
            (term_hash("red"), 3.0),
            (term_hash("fish"), 2.0),
            (term_hash("blue"), 1.0),
        ];
        expected.sort_by_key(|pair| pair.0);
        assert_eq!(counted.pairs(), expected);
        assert!(Analyzer::standard().term_frequencies(" ... ").pairs().is_empty());
    }

    #[test]
    fn hashes_are_those_of_files_that_exist() {
        assert_eq!(
            [term_hash(""), term_hash("a"), term_hash("falcon"), term_hash("日本")],
            GOLDEN
        );
    }

    const GOLDEN: [u32; 4] = [3130599718, 2847854171, 4224941102, 2315144771];
}
