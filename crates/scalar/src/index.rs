//! The index itself.

use std::ops::Range;

use saker_model::Bitmap;

use crate::Place;
use crate::keys::Keys;
use crate::postings::Postings;

/// Which rows hold a value. Rows are numbered as in the column that it was made of.
///
/// Values of kinds that it does not [cover](Self::covers) are as good as absent in it: ask only for those that it does.
pub struct ScalarIndex {
    pub(crate) place: Place,
    pub(crate) rows: usize,
    pub(crate) of_elements: bool,
    pub(crate) covers: Classes,
    /// Rows that are not null; `None` if no row is.
    pub(crate) valid: Option<Bitmap>,
    /// At most one for each type of keys.
    pub(crate) sections: Vec<Section>,
}

/// The keys of one type and their rows.
pub(crate) struct Section {
    pub(crate) keys: Keys,
    pub(crate) postings: Postings,
}

/// Kinds of values that compare with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// True or false.
    Bool,
    /// Integers and floats.
    Number,
    /// Texts.
    Text,
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes(u8);

/// A value to look for.
#[derive(Clone, Copy, PartialEq)]
pub enum Probe<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number. NaN is never found.
    Double(f64),
    /// Text.
    Text(&'a str),
}

/// How a row's value relates to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is the same; numbers compare by value, whatever their type.
    Equal,
    /// It is smaller.
    Less,
    /// It is smaller or the same.
    LessOrEqual,
    /// It is larger.
    Greater,
    /// It is larger or the same.
    GreaterOrEqual,
}

impl Classes {
    /// All of them.
    pub const ALL: Self = Self(Class::Bool.bit() | Class::Number.bit() | Class::Text.bit());

    /// Just one.
    #[must_use]
    pub const fn only(class: Class) -> Self {
        Self(class.bit())
    }
    /// Whether it is among them.
    #[must_use]
    pub const fn contains(self, class: Class) -> bool {
        self.0 & class.bit() != 0
    }
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }
    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        if bits != 0 && bits & !Self::ALL.0 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }
}

impl Class {
    const fn bit(self) -> u8 {
        match self {
            Self::Bool => 1,
            Self::Number => 2,
            Self::Text => 4,
        }
    }
}

impl Probe<'_> {
    /// Its kind.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Bool(_) => Class::Bool,
            Self::Int(_) | Self::Double(_) => Class::Number,
            Self::Text(_) => Class::Text,
        }
    }
}

impl std::fmt::Debug for Probe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Probe({:?}, [redacted])", self.class())
    }
}

impl ScalarIndex {
    /// What it is of.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }
    /// Number of rows that it is over, those without a value included.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }
    /// Whether it holds the elements of lists instead of the values themselves.
    #[must_use]
    pub const fn of_elements(&self) -> bool {
        self.of_elements
    }
    /// Whether all values of this kind are in it.
    #[must_use]
    pub const fn covers(&self, class: Class) -> bool {
        self.covers.contains(class)
    }
    /// The rows that are not null; `None` if no row is.
    #[must_use]
    pub const fn valid(&self) -> Option<&Bitmap> {
        self.valid.as_ref()
    }
    /// Number of different values.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.sections.iter().map(|section| section.keys.len()).sum()
    }
    /// Bytes that it takes in memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let sections = self
            .sections
            .iter()
            .map(|section| section.keys.memory_bytes() + section.postings.memory_bytes());
        sections.sum::<usize>() + self.valid.as_ref().map_or(0, |valid| size_of_val(valid.words()))
    }

    /// The rows with a value, or an element, that relates so to `probe`.
    #[must_use]
    pub fn compare(&self, relation: Relation, probe: Probe<'_>) -> Bitmap {
        self.collect(|section, words| {
            if section.keys.class() != probe.class() || is_nan(probe) {
                return;
            }
            let (len, equal) = (section.keys.len(), section.keys.find(probe, 0));
            let keys = match relation {
                Relation::Equal => equal,
                Relation::Less => 0..equal.start,
                Relation::LessOrEqual => 0..equal.end,
                Relation::Greater => equal.end..len,
                Relation::GreaterOrEqual => equal.start..len,
            };
            section.postings.put(keys, words);
        })
    }

    /// The rows with a value, or an element, that equals one of these. Ascending ones are found fastest.
    #[must_use]
    pub fn any_of<'p>(&self, probes: &(impl Iterator<Item = Probe<'p>> + Clone)) -> Bitmap {
        self.collect(|section, words| {
            let mut from = 0;
            for probe in probes.clone() {
                if section.keys.class() != probe.class() || is_nan(probe) {
                    continue;
                }
                let mut found = section.keys.find(probe, from);
                if found.start == from && from > 0 && found.is_empty() {
                    // It may stand before the last one.
                    found = section.keys.find(probe, 0);
                }
                from = found.start;
                section.postings.put(found, words);
            }
        })
    }

    /// The rows with a text that starts with `prefix` and passes `test`, which is asked once for each different text.
    #[must_use]
    pub fn texts_that(&self, prefix: &str, test: impl Fn(&str) -> bool) -> Bitmap {
        self.collect(|section, words| {
            let mut run: Option<Range<usize>> = None;
            for key in section.keys.starting_with(prefix) {
                let Keys::Texts(texts) = &section.keys else { return };
                match (&mut run, test(texts.at(key))) {
                    (Some(run), true) => run.end = key + 1,
                    (None, true) => run = Some(key..key + 1),
                    (_, false) => section.postings.put(run.take().unwrap_or(0..0), words),
                }
            }
            section.postings.put(run.unwrap_or(0..0), words);
        })
    }

    /// The rows with a text that starts with `prefix`.
    #[must_use]
    pub fn starting_with(&self, prefix: &str) -> Bitmap {
        self.collect(|section, words| section.postings.put(section.keys.starting_with(prefix), words))
    }

    fn collect(&self, put: impl Fn(&Section, &mut [u64])) -> Bitmap {
        let mut words = vec![0; self.rows.div_ceil(64)];
        self.sections.iter().for_each(|section| put(section, &mut words));
        Bitmap::from_words(words, self.rows)
    }
}

impl std::fmt::Debug for ScalarIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScalarIndex")
            .field("field", &self.place.field)
            .field("rows", &self.rows)
            .field("distinct", &self.distinct())
            .finish_non_exhaustive()
    }
}

fn is_nan(probe: Probe<'_>) -> bool {
    matches!(probe, Probe::Double(value) if value.is_nan())
}
