//! The distinct values of an index, ascending. They are customer plaintext and are overwritten when they are dropped.

use std::cmp::Ordering;
use std::ops::Range;

use zeroize::Zeroize;

use crate::{Class, Probe, compare_int_double};

/// Values of one type, ascending, each once.
pub(crate) enum Keys {
    Bools(Vec<bool>),
    Ints(Vec<i64>),
    /// None of them is NaN, and zero has no sign.
    Doubles(Vec<f64>),
    Texts(Texts),
}

/// Texts in one buffer, so that looking through them follows no pointers.
#[derive(Default)]
pub(crate) struct Texts {
    /// Where each ends in `text`.
    ends: Vec<usize>,
    text: String,
}

impl Texts {
    /// Room for exactly this: a buffer that grows would leave copies behind.
    pub(crate) fn with_capacity(count: usize, bytes: usize) -> Self {
        Self {
            ends: Vec::with_capacity(count),
            text: String::with_capacity(bytes),
        }
    }
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.ends.push(self.text.len());
    }
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
    pub(crate) fn at(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[index]]
    }
    pub(crate) fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl Keys {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bools(keys) => keys.len(),
            Self::Ints(keys) => keys.len(),
            Self::Doubles(keys) => keys.len(),
            Self::Texts(keys) => keys.len(),
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::Bools(keys) => keys.capacity(),
            Self::Ints(keys) => keys.capacity() * size_of::<i64>(),
            Self::Doubles(keys) => keys.capacity() * size_of::<f64>(),
            Self::Texts(keys) => keys.ends.capacity() * size_of::<usize>() + keys.text.capacity(),
        }
    }

    pub(crate) const fn class(&self) -> Class {
        match self {
            Self::Bools(_) => Class::Bool,
            Self::Ints(_) | Self::Doubles(_) => Class::Number,
            Self::Texts(_) => Class::Text,
        }
    }

    /// The keys equal to `probe`: none or one, and then an empty range where it would stand. `from` is where a search
    /// among ascending probes stopped last; 0 is always right.
    pub(crate) fn find(&self, probe: Probe<'_>, from: usize) -> Range<usize> {
        match (self, probe) {
            (Self::Bools(keys), Probe::Bool(wanted)) => search(keys.len(), from, |at| keys[at].cmp(&wanted)),
            (Self::Ints(keys), Probe::Int(wanted)) => search(keys.len(), from, |at| keys[at].cmp(&wanted)),
            (Self::Ints(keys), Probe::Double(wanted)) => search(keys.len(), from, |at| {
                compare_int_double(keys[at], wanted).unwrap_or(Ordering::Less)
            }),
            (Self::Doubles(keys), Probe::Int(wanted)) => search(keys.len(), from, |at| {
                compare_int_double(wanted, keys[at]).map_or(Ordering::Less, Ordering::reverse)
            }),
            (Self::Doubles(keys), Probe::Double(wanted)) => search(keys.len(), from, |at| {
                keys[at].partial_cmp(&wanted).unwrap_or(Ordering::Less)
            }),
            (Self::Texts(keys), Probe::Text(wanted)) => search(keys.len(), from, |at| keys.at(at).cmp(wanted)),
            (Self::Bools(_) | Self::Ints(_) | Self::Doubles(_) | Self::Texts(_), _) => 0..0,
        }
    }

    /// The texts that start so.
    pub(crate) fn starting_with(&self, prefix: &str) -> Range<usize> {
        let Self::Texts(keys) = self else { return 0..0 };
        let start = search(keys.len(), 0, |at| keys.at(at).cmp(prefix)).start;
        // Texts that start so follow each other.
        let end = search(keys.len(), start, |at| {
            if keys.at(at).starts_with(prefix) {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        });
        start..end.start
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        match self {
            Self::Bools(keys) => keys.zeroize(),
            Self::Ints(keys) => keys.zeroize(),
            Self::Doubles(keys) => keys.zeroize(),
            Self::Texts(keys) => {
                keys.ends.zeroize();
                keys.text.zeroize();
            }
        }
    }
}

/// Where the one item with `Equal` stands among `len` ascending ones, or would. Steps that double from `from` on come
/// first, so that ascending probes together cost no more than one pass.
fn search(len: usize, from: usize, order: impl Fn(usize) -> Ordering) -> Range<usize> {
    let start = from.min(len);
    let (mut low, mut high, mut step) = (start, start, 1);
    while high < len && order(high) == Ordering::Less {
        low = high + 1;
        high = low + step;
        step *= 2;
    }
    let mut high = high.min(len);
    while low < high {
        let middle = low + (high - low) / 2;
        if order(middle) == Ordering::Less {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low < len && order(low) == Ordering::Equal {
        low..low + 1
    } else {
        low..low
    }
}
