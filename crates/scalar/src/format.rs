//! Bytes of a saved index, version 1; `docs/formats.md`, "Saved scalar index". Integers are little endian.

use saker_model::{Bitmap, FieldId};
use zeroize::Zeroizing;

use crate::index::Section;
use crate::keys::{Keys, Texts};
use crate::postings::Postings;
use crate::{Classes, Place, ScalarError, ScalarIndex, Step};

impl ScalarIndex {
    /// The index as bytes for [`Self::from_bytes`]. They hold values, so they are to be sealed like the column.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(self.saved_bytes()));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(self.covers.bits());
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        out.push(flag(self.of_elements, OF_ELEMENTS) | flag(self.valid.is_some(), HAS_VALIDITY));
        out.extend_from_slice(&length16(self.place.steps.len()).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.rows as u64).to_le_bytes());
        out.extend_from_slice(&self.place.field.0.to_le_bytes());
        for step in &self.place.steps {
            match step {
                Step::Key(key) => {
                    out.push(STEP_KEY);
                    out.extend_from_slice(&(key.len() as u64).to_le_bytes());
                    out.extend_from_slice(key.as_bytes());
                }
                Step::Index(index) => {
                    out.push(STEP_INDEX);
                    out.extend_from_slice(&(*index as u64).to_le_bytes());
                }
            }
        }
        for word in self.valid.iter().flat_map(Bitmap::words) {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for kind in [KIND_BOOLS, KIND_INTS, KIND_DOUBLES, KIND_TEXTS] {
            match self.sections.iter().find(|section| section.kind() == kind) {
                None => out.extend_from_slice(&[0; 8]),
                Some(section) => section.write(&mut out),
            }
        }
        out
    }

    /// Opens what [`Self::to_bytes`] gave, of a field and number of rows that the caller knows. Any other bytes give an
    /// error or, where they happen to be well formed, an index that answers without panicking.
    ///
    /// # Errors
    /// [`ScalarError::Corrupt`], [`ScalarError::Version`].
    pub fn from_bytes(bytes: &[u8], field: FieldId, rows: usize) -> Result<Self, ScalarError> {
        let mut reader = Reader(bytes);
        if reader.array()? != *MAGIC {
            return corrupt("it does not start as a saved scalar index");
        }
        let version = u32::from_le_bytes(reader.array()?);
        if version != VERSION {
            return Err(ScalarError::Version {
                found: version,
                known: VERSION,
            });
        }
        let [covers, flags] = reader.array()?;
        let step_count = u16::from_le_bytes(reader.array()?);
        let covers = Classes::from_bits(covers).ok_or(ScalarError::Corrupt {
            reason: "its kinds of values are not known",
        })?;
        if flags & !(OF_ELEMENTS | HAS_VALIDITY) != 0 || reader.array()? != [0; 4] {
            return corrupt("its flags are not known");
        }
        if u64::from_le_bytes(reader.array()?) != rows as u64 || i64::from_le_bytes(reader.array()?) != field.0 {
            return corrupt("it is of other rows or of another field");
        }
        let steps = (0..step_count).map(|_| reader.step()).collect::<Result<_, _>>()?;
        let valid = if flags & HAS_VALIDITY != 0 {
            let words = reader.numbers::<8>(rows.div_ceil(64))?;
            let words: Vec<u64> = words.iter().map(|&word| u64::from_le_bytes(word)).collect();
            let last = words.last().copied().unwrap_or(0);
            if !rows.is_multiple_of(64) && last >> (rows % 64) != 0 {
                return corrupt("its validity is longer than its rows");
            }
            Some(Bitmap::from_words(words, rows))
        } else {
            None
        };
        let of_elements = flags & OF_ELEMENTS != 0;
        let mut sections = Vec::new();
        for kind in [KIND_BOOLS, KIND_INTS, KIND_DOUBLES, KIND_TEXTS] {
            if let Some(section) = reader.section(kind, rows, of_elements)? {
                if !covers.contains(section.keys.class()) {
                    return corrupt("it holds values of a kind that it does not cover");
                }
                sections.push(section);
            }
        }
        if !reader.0.is_empty() {
            return corrupt("it goes on after its end");
        }
        Ok(Self {
            place: Place { field, steps },
            rows,
            of_elements,
            covers,
            valid,
            sections,
        })
    }

    /// Exactly how long it is when saved.
    fn saved_bytes(&self) -> usize {
        let step = |step: &Step| match step {
            Step::Key(key) => 9 + key.len(),
            Step::Index(_) => 9,
        };
        let steps: usize = self.place.steps.iter().map(step).sum();
        let sections: usize = self.sections.iter().map(Section::saved_bytes).sum();
        HEADER_BYTES + steps + self.valid.as_ref().map_or(0, |valid| size_of_val(valid.words())) + 4 * 8 + sections
    }
}

impl Section {
    const fn kind(&self) -> u8 {
        match self.keys {
            Keys::Bools(_) => KIND_BOOLS,
            Keys::Ints(_) => KIND_INTS,
            Keys::Doubles(_) => KIND_DOUBLES,
            Keys::Texts(_) => KIND_TEXTS,
        }
    }

    /// Beyond its two counts.
    fn saved_bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Bools(keys) => keys.len(),
            Keys::Ints(keys) => 8 * keys.len(),
            Keys::Doubles(keys) => 8 * keys.len(),
            Keys::Texts(keys) => 4 * keys.len() + keys.bytes(),
        };
        keys + 4 * (self.keys.len() + self.postings.rows().len())
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&length32(self.keys.len()).to_le_bytes());
        out.extend_from_slice(&length32(self.postings.rows().len()).to_le_bytes());
        match &self.keys {
            Keys::Bools(keys) => out.extend(keys.iter().map(|key| u8::from(*key))),
            Keys::Ints(keys) => keys.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes())),
            Keys::Doubles(keys) => keys.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes())),
            Keys::Texts(keys) => {
                for index in 0..keys.len() {
                    out.extend_from_slice(&length32(keys.at(index).len()).to_le_bytes());
                }
                for index in 0..keys.len() {
                    out.extend_from_slice(keys.at(index).as_bytes());
                }
            }
        }
        for run in self.postings.starts().windows(2) {
            out.extend_from_slice(&(run[1] - run[0]).to_le_bytes());
        }
        for row in self.postings.rows() {
            out.extend_from_slice(&row.to_le_bytes());
        }
    }
}

/// Takes numbers from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], ScalarError> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return corrupt("it ends too early");
        };
        self.0 = rest;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ScalarError> {
        let Some((taken, rest)) = self.0.split_first_chunk() else {
            return corrupt("it ends too early");
        };
        self.0 = rest;
        Ok(*taken)
    }
    fn length(&mut self) -> Result<usize, ScalarError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }
    /// `count` numbers of `N` bytes each.
    fn numbers<const N: usize>(&mut self, count: usize) -> Result<&'a [[u8; N]], ScalarError> {
        let Some(bytes) = count.checked_mul(N) else {
            return corrupt("it claims more than memory holds");
        };
        Ok(self.bytes(bytes)?.as_chunks().0)
    }
    fn text(&mut self, count: usize) -> Result<&'a str, ScalarError> {
        std::str::from_utf8(self.bytes(count)?).or_else(|_| corrupt("a text is not UTF-8"))
    }
    fn step(&mut self) -> Result<Step, ScalarError> {
        let [kind] = self.array()?;
        let Ok(number) = usize::try_from(u64::from_le_bytes(self.array()?)) else {
            return corrupt("a step is out of range");
        };
        match kind {
            STEP_KEY => Ok(Step::Key(self.text(number)?.to_owned())),
            STEP_INDEX => Ok(Step::Index(number)),
            _ => corrupt("a step is of no known kind"),
        }
    }

    fn section(&mut self, kind: u8, row_count: usize, of_elements: bool) -> Result<Option<Section>, ScalarError> {
        let (distinct, entries) = (self.length()?, self.length()?);
        if distinct == 0 {
            return if entries == 0 {
                Ok(None)
            } else {
                corrupt("it has rows without values")
            };
        }
        let keys = self.keys(kind, distinct)?;
        let mut starts = Vec::with_capacity(distinct + 1);
        let mut start = 0u32;
        starts.push(start);
        for run in self.numbers::<4>(distinct)? {
            let run = u32::from_le_bytes(*run);
            let Some(end) = start.checked_add(run).filter(|_| run > 0) else {
                return corrupt("a value has no rows, or too many");
            };
            starts.push(end);
            start = end;
        }
        if start as usize != entries {
            return corrupt("its counts do not agree");
        }
        let rows: Vec<u32> = self
            .numbers::<4>(entries)?
            .iter()
            .map(|&row| u32::from_le_bytes(row))
            .collect();
        for run in starts.windows(2) {
            let run = &rows[run[0] as usize..run[1] as usize];
            let ascending = run.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascending || run.last().is_none_or(|&row| row as usize >= row_count) {
                return corrupt("the rows of a value are not in order, or no rows");
            }
        }
        if !of_elements && has_a_row_twice(&rows, row_count) {
            return corrupt("a row has two values");
        }
        Ok(Some(Section {
            keys,
            postings: Postings::new(starts, rows, row_count, !of_elements),
        }))
    }

    fn keys(&mut self, kind: u8, count: usize) -> Result<Keys, ScalarError> {
        let keys = match kind {
            KIND_BOOLS => {
                let bytes = self.bytes(count)?;
                if bytes.iter().any(|&byte| byte > 1) {
                    return corrupt("a boolean is neither true nor false");
                }
                Keys::Bools(bytes.iter().map(|&byte| byte == 1).collect())
            }
            KIND_INTS => Keys::Ints(
                self.numbers::<8>(count)?
                    .iter()
                    .map(|&key| i64::from_le_bytes(key))
                    .collect(),
            ),
            KIND_DOUBLES => Keys::Doubles(
                self.numbers::<8>(count)?
                    .iter()
                    .map(|&key| f64::from_le_bytes(key))
                    .collect(),
            ),
            _ => {
                let lengths = self.numbers::<4>(count)?;
                let lengths = lengths.iter().map(|&length| u32::from_le_bytes(length) as usize);
                let Some(total) = lengths.clone().try_fold(0usize, |sum, length| sum.checked_add(length)) else {
                    return corrupt("it claims more than memory holds");
                };
                if total > self.0.len() {
                    return corrupt("it ends too early");
                }
                let mut texts = Texts::with_capacity(count, total);
                for length in lengths {
                    texts.push(self.text(length)?);
                }
                Keys::Texts(texts)
            }
        };
        // A float that is no number is below nothing.
        let ascending = match &keys {
            Keys::Bools(keys) => keys.windows(2).all(|pair| !pair[0] & pair[1]),
            Keys::Ints(keys) => keys.windows(2).all(|pair| pair[0] < pair[1]),
            Keys::Doubles(keys) => !keys[0].is_nan() && keys.windows(2).all(|pair| pair[0] < pair[1]),
            Keys::Texts(keys) => (1..keys.len()).all(|index| keys.at(index - 1) < keys.at(index)),
        };
        if ascending {
            Ok(keys)
        } else {
            corrupt("its values are not in order")
        }
    }
}

/// Unions of rows are only right if each stands under one value.
fn has_a_row_twice(rows: &[u32], row_count: usize) -> bool {
    let mut seen = Bitmap::zeros(row_count);
    rows.iter().for_each(|&row| seen.set(row as usize, true));
    seen.count_ones() != rows.len()
}

fn corrupt<T>(reason: &'static str) -> Result<T, ScalarError> {
    Err(ScalarError::Corrupt { reason })
}

/// Counts of entries are checked when an index is built; texts and paths are far below the limit by theirs.
fn length32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn length16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

const MAGIC: &[u8; 4] = b"SKSC";
const VERSION: u32 = 1;
/// Everything before the steps.
const HEADER_BYTES: usize = 32;
const OF_ELEMENTS: u8 = 1;
const HAS_VALIDITY: u8 = 2;
const STEP_KEY: u8 = 0;
const STEP_INDEX: u8 = 1;
const KIND_BOOLS: u8 = 1;
const KIND_INTS: u8 = 2;
const KIND_DOUBLES: u8 = 3;
const KIND_TEXTS: u8 = 4;
