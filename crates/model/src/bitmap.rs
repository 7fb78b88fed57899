//! A fixed-length set of row numbers.

/// One bit per row, packed in 64-bit words, lowest bit first. Bits past `len` are always zero.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    /// `len` rows, none of them in the set.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        Self {
            words: vec![0; len.div_ceil(64)],
            len,
        }
    }
    /// `len` rows, all of them in the set.
    #[must_use]
    pub fn ones(len: usize) -> Self {
        let mut map = Self {
            words: vec![u64::MAX; len.div_ceil(64)],
            len,
        };
        map.clear_tail();
        map
    }
    /// `len` rows with these packed words, lowest bit first. Missing words count as zero, bits past `len` go out.
    #[must_use]
    pub fn from_words(mut words: Vec<u64>, len: usize) -> Self {
        words.resize(len.div_ceil(64), 0);
        let mut map = Self { words, len };
        map.clear_tail();
        map
    }
    /// One bit per item.
    #[must_use]
    pub fn from_bools(bits: impl IntoIterator<Item = bool>) -> Self {
        let mut map = Self::default();
        for bit in bits {
            map.push(bit);
        }
        map
    }
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are no rows at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Whether `row` is in the set; `false` past the end.
    #[must_use]
    pub fn contains(&self, row: usize) -> bool {
        row < self.len && self.words[row / 64] >> (row % 64) & 1 == 1
    }
    /// Puts `row` in or out; ignored past the end.
    pub fn set(&mut self, row: usize, value: bool) {
        if row < self.len {
            let bit = 1u64 << (row % 64);
            if value {
                self.words[row / 64] |= bit;
            } else {
                self.words[row / 64] &= !bit;
            }
        }
    }
    /// Appends one row.
    pub fn push(&mut self, value: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        self.len += 1;
        if value {
            self.set(self.len - 1, true);
        }
    }
    /// Appends `count` rows with the same value.
    pub fn extend(&mut self, count: usize, value: bool) {
        let old = self.len;
        self.len += count;
        if value && let Some(last) = self.words.last_mut() {
            let used = old % 64;
            if used != 0 {
                *last |= u64::MAX << used;
            }
        }
        self.words
            .resize(self.len.div_ceil(64), if value { u64::MAX } else { 0 });
        self.clear_tail();
    }
    /// Appends all rows of `other`.
    pub fn append(&mut self, other: &Self) {
        let used = self.len % 64;
        if used == 0 {
            self.words.extend_from_slice(&other.words);
        } else {
            for &word in &other.words {
                if let Some(last) = self.words.last_mut() {
                    *last |= word << used;
                }
                self.words.push(word >> (64 - used));
            }
        }
        self.len += other.len;
        self.words.truncate(self.len.div_ceil(64));
    }
    /// How many rows are in the set.
    #[must_use]
    pub fn count_ones(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }
    /// Keeps only rows that are in both. Rows past the shorter one go out.
    pub fn and(&mut self, other: &Self) {
        for (index, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(index).copied().unwrap_or(0);
        }
    }
    /// Adds the rows of `other` (within this length).
    pub fn or(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.clear_tail();
    }
    /// Takes out the rows of `other`.
    pub fn and_not(&mut self, other: &Self) {
        for (word, less) in self.words.iter_mut().zip(&other.words) {
            *word &= !less;
        }
    }
    /// Every row in becomes out, and the other way round.
    pub fn negate(&mut self) {
        for word in &mut self.words {
            *word = !*word;
        }
        self.clear_tail();
    }
    /// The packed words.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }
    /// The rows in the set, in order.
    pub fn iter_ones(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    index * 64 + bit
                })
            })
        })
    }

    fn clear_tail(&mut self) {
        let used = self.len % 64;
        if used != 0
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1u64 << used) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negation_leaves_no_bits_past_the_end() {
        for len in [0, 1, 63, 64, 65, 130] {
            let mut map = Bitmap::zeros(len);
            map.negate();
            assert_eq!(map, Bitmap::ones(len));
            assert_eq!(map.count_ones(), len);
        }
    }

    #[test]
    fn growing_by_many_equals_growing_by_one() {
        for (before, more) in [(0, 0), (0, 64), (3, 1), (63, 2), (64, 64), (65, 130), (10, 54)] {
            for value in [false, true] {
                let mut one = Bitmap::from_bools((0..before).map(|row| row % 3 == 0));
                let mut many = one.clone();
                for _ in 0..more {
                    one.push(value);
                }
                many.extend(more, value);
                assert_eq!(one, many);

                let tail = Bitmap::from_bools((0..more).map(|row| row % 5 == 1));
                let mut joined = Bitmap::from_bools((0..before).map(|row| row % 3 == 0));
                joined.append(&tail);
                let expected = (0..before)
                    .map(|row| row % 3 == 0)
                    .chain((0..more).map(|row| row % 5 == 1));
                assert_eq!(joined, Bitmap::from_bools(expected));
            }
        }
    }

    #[test]
    fn words_past_the_end_are_cut() {
        assert_eq!(Bitmap::from_words(vec![u64::MAX; 4], 70), Bitmap::ones(70));
        assert_eq!(Bitmap::from_words(Vec::new(), 70), Bitmap::zeros(70));
    }

    #[test]
    fn iterates_in_order() {
        let map = Bitmap::from_bools((0..200).map(|row| row % 67 == 0));
        assert_eq!(map.iter_ones().collect::<Vec<_>>(), [0, 67, 134]);
    }
}
