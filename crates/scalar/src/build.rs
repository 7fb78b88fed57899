//! Making an index of values that come row by row.

use std::borrow::Cow;
use std::collections::HashMap;

use saker_model::Bitmap;
use zeroize::{Zeroize, Zeroizing};

use crate::index::Section;
use crate::keys::{Keys, Texts};
use crate::postings::Postings;
use crate::{Class, Classes, Place, ScalarError, ScalarIndex};

/// Takes the values of a place, in any order. What it holds is overwritten when it is dropped.
pub struct Builder<'a> {
    place: Place,
    rows: usize,
    of_elements: bool,
    covers: Classes,
    valid: Option<Bitmap>,
    /// Most values of any one kind.
    entries_max: usize,
    bools: Vec<(bool, u32)>,
    ints: Vec<(i64, u32)>,
    doubles: Vec<(f64, u32)>,
    texts: Vec<(Cow<'a, str>, u32)>,
}

impl<'a> Builder<'a> {
    /// Most values of one kind, elements of lists counted one by one: their numbers are 32 bits.
    pub const ENTRIES_MAX: usize = u32::MAX as usize;

    /// An index of the values at `place` in `rows` rows. `valid` are the rows that are not null, `None` for all.
    /// `entries_max` is at least the number of values of any one kind: `rows` unless they are elements of lists.
    #[must_use]
    pub fn new(
        place: Place,
        rows: usize,
        of_elements: bool,
        covers: Classes,
        valid: Option<Bitmap>,
        entries_max: usize,
    ) -> Self {
        Self {
            place,
            rows,
            of_elements,
            covers,
            valid,
            entries_max,
            bools: Vec::new(),
            ints: Vec::new(),
            doubles: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// A boolean of a row. A value of a kind that the index does not cover is passed over, here and below.
    pub fn add_bool(&mut self, row: u32, value: bool) {
        if self.covers.contains(Class::Bool) {
            add(&mut self.bools, self.entries_max, value, row);
        }
    }
    /// An integer of a row.
    pub fn add_int(&mut self, row: u32, value: i64) {
        if self.covers.contains(Class::Number) {
            add(&mut self.ints, self.entries_max, value, row);
        }
    }
    /// A float of a row. NaN equals nothing and is left out.
    pub fn add_double(&mut self, row: u32, value: f64) {
        if self.covers.contains(Class::Number) && !value.is_nan() {
            // Zero without its sign: the two are equal.
            add(&mut self.doubles, self.entries_max, value + 0.0, row);
        }
    }
    /// A text of a row.
    pub fn add_text(&mut self, row: u32, value: Cow<'a, str>) {
        if self.covers.contains(Class::Text) {
            add(&mut self.texts, self.entries_max, value, row);
        }
    }

    /// Sorts, and makes the index.
    ///
    /// # Errors
    /// [`ScalarError::TooManyEntries`].
    pub fn finish(mut self) -> Result<ScalarIndex, ScalarError> {
        let entries = [self.bools.len(), self.ints.len(), self.doubles.len(), self.texts.len()];
        if let Some(&entries) = entries.iter().find(|&&entries| entries > Self::ENTRIES_MAX) {
            return Err(ScalarError::TooManyEntries {
                entries,
                limit: Self::ENTRIES_MAX,
            });
        }
        // Sorted in place: a stable sort would put values into a buffer that nobody wipes.
        self.bools.sort_unstable();
        self.ints.sort_unstable();
        self.doubles
            .sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.texts.sort_unstable();
        // A list may hold a value twice.
        self.bools.dedup();
        self.ints.dedup();
        self.doubles.dedup();
        self.texts.dedup();
        let sections = [
            self.section(&self.bools, |firsts| Keys::Bools(firsts.copied().collect())),
            self.section(&self.ints, |firsts| Keys::Ints(firsts.copied().collect())),
            self.section(&self.doubles, |firsts| Keys::Doubles(firsts.copied().collect())),
            self.section(&self.texts, |firsts| {
                let bytes = firsts.clone().map(|text| text.len()).sum();
                let mut texts = Texts::with_capacity(firsts.len(), bytes);
                firsts.for_each(|text| texts.push(text));
                Keys::Texts(texts)
            }),
        ];
        Ok(ScalarIndex {
            place: self.place.clone(),
            rows: self.rows,
            of_elements: self.of_elements,
            covers: self.covers,
            valid: self.valid.take(),
            sections: sections.into_iter().flatten().collect(),
        })
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the number of entries was checked against 2^32"
    )]
    fn section<T: PartialEq>(&self, sorted: &[(T, u32)], keys: impl FnOnce(Firsts<'_, T>) -> Keys) -> Option<Section> {
        if sorted.is_empty() {
            return None;
        }
        let is_first = |at: usize| at == 0 || sorted[at - 1].0 != sorted[at].0;
        let distinct = (0..sorted.len()).filter(|&at| is_first(at)).count();
        let mut starts = Vec::with_capacity(distinct + 1);
        starts.extend((0..sorted.len()).filter(|&at| is_first(at)).map(|at| at as u32));
        let keys = keys(Firsts {
            sorted,
            starts: starts.iter(),
        });
        starts.push(sorted.len() as u32);
        let rows = sorted.iter().map(|entry| entry.1).collect();
        Some(Section {
            keys,
            postings: Postings::new(starts, rows, self.rows, !self.of_elements),
        })
    }
}

impl ScalarIndex {
    /// An index of the words of texts, as of elements of lists: which rows have a word. `each` gives the words of every row
    /// with the row, ascending, words as often as they stand there; it is asked twice and has to say the same both times.
    /// `valid` are the rows that are not null, `None` for all.
    ///
    /// Only the different words are copied, not each that stands somewhere: texts have many.
    ///
    /// # Errors
    /// [`ScalarError::TooManyEntries`].
    pub fn of_words(
        place: Place,
        rows: usize,
        valid: Option<Bitmap>,
        each: impl Fn(&mut dyn FnMut(u32, &str)),
    ) -> Result<Self, ScalarError> {
        let mut words = WordCounts::default();
        each(&mut |row, word| words.count(row, word));
        let (keys, starts) = words.in_order()?;
        let entries = starts.last().copied().unwrap_or(0) as usize;
        let mut postings = Zeroizing::new(vec![0; entries]);
        each(&mut |row, word| {
            if let Some(place) = words.next_place(row, word)
                && let Some(entry) = postings.get_mut(place)
            {
                *entry = row;
            }
        });
        let section = Section {
            keys: Keys::Texts(keys),
            postings: Postings::new(starts, std::mem::take(&mut *postings), rows, false),
        };
        Ok(Self {
            place,
            rows,
            of_elements: true,
            covers: Classes::only(Class::Text),
            valid,
            sections: if entries > 0 { vec![section] } else { Vec::new() },
        })
    }
}

/// In how many rows each word stands. Words are overwritten when it is dropped.
#[derive(Default)]
struct WordCounts(HashMap<String, WordCount>);

struct WordCount {
    rows: u64,
    /// The row that it was met in last.
    last: Option<u32>,
    /// Where its next row goes.
    place: usize,
}

impl WordCounts {
    fn count(&mut self, row: u32, word: &str) {
        // Not `entry`, which takes a word of its own each time.
        if let Some(known) = self.0.get_mut(word) {
            known.rows += u64::from(known.last != Some(row));
            known.last = Some(row);
        } else {
            let (rows, last, place) = (1, Some(row), 0);
            self.0.insert(word.to_owned(), WordCount { rows, last, place });
        }
    }

    /// The words, and where the rows of each start; rows are met anew after that.
    fn in_order(&mut self) -> Result<(Texts, Vec<u32>), ScalarError> {
        let entries: u64 = self.0.values().map(|word| word.rows).sum();
        if entries > Builder::ENTRIES_MAX as u64 {
            return Err(ScalarError::TooManyEntries {
                entries: usize::try_from(entries).unwrap_or(usize::MAX),
                limit: Builder::ENTRIES_MAX,
            });
        }
        let bytes = self.0.keys().map(String::len).sum();
        let mut sorted: Vec<(&String, &mut WordCount)> = self.0.iter_mut().collect();
        sorted.sort_unstable_by_key(|(word, _)| *word);
        let mut texts = Texts::with_capacity(sorted.len(), bytes);
        let mut starts = Vec::with_capacity(sorted.len() + 1);
        let mut start = 0u64;
        for (word, count) in sorted {
            texts.push(word);
            #[expect(clippy::cast_possible_truncation, reason = "there are fewer entries, as checked")]
            starts.push(start as u32);
            count.place = usize::try_from(start).unwrap_or(usize::MAX);
            count.last = None;
            start += count.rows;
        }
        #[expect(clippy::cast_possible_truncation, reason = "there are fewer entries, as checked")]
        starts.push(start as u32);
        Ok((texts, starts))
    }

    /// Where a row that has a word goes; `None` if it is there already.
    fn next_place(&mut self, row: u32, word: &str) -> Option<usize> {
        let known = self.0.get_mut(word)?;
        if known.last == Some(row) {
            return None;
        }
        known.last = Some(row);
        known.place += 1;
        Some(known.place - 1)
    }
}

impl Drop for WordCounts {
    fn drop(&mut self) {
        self.0.drain().for_each(|(mut word, _)| word.zeroize());
    }
}

/// The first of each run of equal values.
struct Firsts<'s, T> {
    sorted: &'s [(T, u32)],
    starts: std::slice::Iter<'s, u32>,
}

impl<T> Clone for Firsts<'_, T> {
    fn clone(&self) -> Self {
        Self {
            sorted: self.sorted,
            starts: self.starts.clone(),
        }
    }
}

impl<'s, T> Iterator for Firsts<'s, T> {
    type Item = &'s T;
    fn next(&mut self) -> Option<&'s T> {
        self.starts.next().map(|&at| &self.sorted[at as usize].0)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.starts.size_hint()
    }
}

impl<T> ExactSizeIterator for Firsts<'_, T> {}

impl Drop for Builder<'_> {
    fn drop(&mut self) {
        self.bools.iter_mut().for_each(|entry| entry.0.zeroize());
        self.ints.iter_mut().for_each(|entry| entry.0.zeroize());
        self.doubles.iter_mut().for_each(|entry| entry.0.zeroize());
        for (text, _) in &mut self.texts {
            if let Cow::Owned(text) = text {
                text.zeroize();
            }
        }
    }
}

impl std::fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("field", &self.place.field)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// Room is made at once, for a buffer that grows would leave values behind.
fn add<T>(entries: &mut Vec<(T, u32)>, entries_max: usize, value: T, row: u32) {
    if entries.capacity() == 0 {
        entries.reserve_exact(entries_max);
    }
    entries.push((value, row));
}
