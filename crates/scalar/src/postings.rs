//! Which rows have each value: row numbers in order of value, and unions of the rows up to some values, so that a wide
//! range costs a few passes over words and not a step per row.

use std::ops::Range;

use zeroize::Zeroize;

/// Rows by key. Wiped on drop, for the order of rows tells how their values compare.
#[derive(Default)]
pub(crate) struct Postings {
    /// Where the rows of each key start in `rows`, and where the last one's end.
    starts: Vec<u32>,
    rows: Vec<u32>,
    unions: Unions,
}

/// The rows of all entries before some boundaries between keys, as words of a bitmap each.
#[derive(Default)]
struct Unions {
    /// Entries before each boundary, ascending.
    at: Vec<u32>,
    /// `width` words for each.
    words: Vec<u64>,
    width: usize,
}

impl Postings {
    /// Takes rows grouped by key; `starts` has one item more than there are keys and ends with the number of rows in
    /// `rows`. All of them are below `row_count`; `each_row_once` says that no row stands under two keys.
    pub(crate) fn new(starts: Vec<u32>, rows: Vec<u32>, row_count: usize, each_row_once: bool) -> Self {
        let mut postings = Self {
            starts,
            rows,
            unions: Unions::default(),
        };
        if each_row_once && postings.rows.len() >= UNIONS_FROM_ROWS {
            postings.unions = postings.unite(row_count);
        }
        postings
    }

    pub(crate) fn starts(&self) -> &[u32] {
        &self.starts
    }

    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<u32>() * (self.starts.capacity() + self.rows.capacity() + self.unions.at.capacity())
            + size_of::<u64>() * self.unions.words.capacity()
    }

    /// Sets the bits of the rows of these keys.
    pub(crate) fn put(&self, keys: Range<usize>, words: &mut [u64]) {
        if keys.is_empty() {
            return;
        }
        let (first, last) = (self.starts[keys.start], self.starts[keys.end]);
        let unions = &self.unions;
        let low = unions.at.partition_point(|&at| at < first);
        let high = unions.at.partition_point(|&at| at <= last);
        // A union pays where it stands for more rows than it has words.
        if low + 1 < high && (unions.at[high - 1] - unions.at[low]) as usize > unions.width {
            let (below, all) = (unions.of(low), unions.of(high - 1));
            for ((word, below), all) in words.iter_mut().zip(below).zip(all) {
                *word |= all & !below;
            }
            self.set(first..unions.at[low], words);
            self.set(unions.at[high - 1]..last, words);
        } else {
            self.set(first..last, words);
        }
    }

    fn set(&self, entries: Range<u32>, words: &mut [u64]) {
        for &row in &self.rows[entries.start as usize..entries.end as usize] {
            words[row as usize / 64] |= 1 << (row % 64);
        }
    }

    /// Boundaries about every `1 / UNIONS` of the entries, and around every key that has as many rows by itself.
    fn unite(&self, row_count: usize) -> Unions {
        let gap = u32::try_from(self.rows.len() / UNIONS).unwrap_or(u32::MAX).max(1);
        let mut at = vec![0];
        for key in self.starts.windows(2) {
            let last = at.last().copied().unwrap_or(0);
            if key[1] - last >= gap {
                if key[1] - key[0] >= gap && key[0] > last {
                    at.push(key[0]);
                }
                at.push(key[1]);
            }
        }
        let end = self.starts.last().copied().unwrap_or(0);
        if at.last() != Some(&end) {
            at.push(end);
        }
        let width = row_count.div_ceil(64);
        let mut so_far = vec![0u64; width];
        let mut words = Vec::with_capacity(at.len() * width);
        let mut done = 0;
        for &boundary in &at {
            self.set(done..boundary, &mut so_far);
            words.extend_from_slice(&so_far);
            done = boundary;
        }
        so_far.zeroize();
        Unions { at, words, width }
    }
}

impl Unions {
    fn of(&self, index: usize) -> &[u64] {
        &self.words[index * self.width..][..self.width]
    }
}

impl Drop for Postings {
    fn drop(&mut self) {
        self.starts.zeroize();
        self.rows.zeroize();
        self.unions.words.zeroize();
        self.unions.at.zeroize();
    }
}

/// Boundaries that unions are kept for: 4 bytes a row, and at most a sixteenth of the rows are set one by one.
const UNIONS: usize = 32;
/// Below this many entries setting bits one by one is as fast.
const UNIONS_FROM_ROWS: usize = 2_048;
