//! A set of constants of several kinds, looked up by the values of rows.

use std::fmt;

use saker_scalar::{Class, Probe};

use crate::Literal;
use crate::json::Item;
use crate::number::whole;

/// Each list is sorted and holds no value twice. Numbers are equal by value, whatever their type. `Debug` is redacted.
#[derive(Clone, Default)]
pub(crate) struct MixedSet {
    ints: Vec<i64>,
    /// [`f64::to_bits`] of doubles that equal no 64-bit integer.
    doubles: Vec<u64>,
    texts: Vec<String>,
    bools: Vec<bool>,
    /// The keys of lists, so that a long list of lists is searched, not walked.
    lists: Vec<Vec<u8>>,
}

impl fmt::Debug for MixedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MixedSet({} values, [redacted])", self.len())
    }
}

impl MixedSet {
    pub(crate) fn new(items: Vec<Literal>) -> Self {
        let mut set = Self::default();
        for item in items {
            match item {
                Literal::Bool(value) => set.bools.push(value),
                Literal::Int(value) => set.ints.push(value),
                Literal::Double(value) => match whole(value) {
                    Some(value) => set.ints.push(value),
                    None => set.doubles.push(value.to_bits()),
                },
                Literal::Text(value) => set.texts.push(value),
                list @ (Literal::Ints(_) | Literal::List(_)) => set.lists.extend(key(&as_item(&list))),
            }
        }
        fn tidy<T: Ord>(values: &mut Vec<T>) {
            values.sort_unstable();
            values.dedup();
        }
        tidy(&mut set.bools);
        tidy(&mut set.ints);
        tidy(&mut set.doubles);
        tidy(&mut set.texts);
        tidy(&mut set.lists);
        set
    }

    /// Number of different values.
    pub(crate) fn len(&self) -> usize {
        self.bools.len() + self.ints.len() + self.doubles.len() + self.texts.len() + self.lists.len()
    }

    /// Whether some of its values are lists, which no index holds.
    pub(crate) fn has_lists(&self) -> bool {
        !self.lists.is_empty()
    }

    /// Whether all of its values are of these kinds.
    pub(crate) fn is_of(&self, covered: impl Fn(Class) -> bool) -> bool {
        (self.bools.is_empty() || covered(Class::Bool))
            && (self.ints.is_empty() && self.doubles.is_empty() || covered(Class::Number))
            && (self.texts.is_empty() || covered(Class::Text))
            && !self.has_lists()
    }

    /// Its values but lists, as an index is asked for them.
    pub(crate) fn probes(&self) -> impl Iterator<Item = Probe<'_>> + Clone {
        let bools = self.bools.iter().map(|value| Probe::Bool(*value));
        let ints = self.ints.iter().map(|value| Probe::Int(*value));
        let doubles = self.doubles.iter().map(|bits| Probe::Double(f64::from_bits(*bits)));
        let texts = self.texts.iter().map(|text| Probe::Text(text));
        bools.chain(ints).chain(doubles).chain(texts)
    }

    /// A number from 0 below [`Self::len`] that is this value's alone, if it is in the set.
    pub(crate) fn position(&self, item: &Item<'_>) -> Option<usize> {
        let ints = self.bools.len();
        let doubles = ints + self.ints.len();
        let texts = doubles + self.doubles.len();
        let lists = texts + self.texts.len();
        match item {
            Item::Null | Item::Absent => None,
            Item::Bool(value) => self.bools.binary_search(value).ok(),
            Item::Int(value) => Some(ints + self.ints.binary_search(value).ok()?),
            Item::Double(value) => match whole(*value) {
                Some(value) => Some(ints + self.ints.binary_search(&value).ok()?),
                None => Some(doubles + self.doubles.binary_search(&value.to_bits()).ok()?),
            },
            Item::Text(value) => Some(
                texts
                    + self
                        .texts
                        .binary_search_by(|text| text.as_str().cmp(value.as_ref()))
                        .ok()?,
            ),
            Item::List(_) if self.lists.is_empty() => None,
            Item::List(_) => Some(lists + self.lists.binary_search(&key(item)?).ok()?),
        }
    }
}

/// A constant as a row's value.
pub(crate) fn as_item(literal: &Literal) -> Item<'_> {
    match literal {
        Literal::Bool(value) => Item::Bool(*value),
        Literal::Int(value) => Item::Int(*value),
        Literal::Double(value) => Item::Double(*value),
        Literal::Text(value) => Item::Text(value.as_str().into()),
        Literal::Ints(values) => Item::List(values.iter().copied().map(Item::Int).collect()),
        Literal::List(items) => Item::List(items.iter().map(as_item).collect()),
    }
}

/// Bytes that two values share exactly if they are equal; `None` if a part of the value equals nothing.
pub(crate) fn key(item: &Item<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write_key(item, &mut out)?;
    Some(out)
}

fn write_key(item: &Item<'_>, out: &mut Vec<u8>) -> Option<()> {
    let mut put = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        out.extend_from_slice(bytes);
    };
    match item {
        Item::Null | Item::Absent => return None,
        Item::Bool(value) => put(0, &[u8::from(*value)]),
        Item::Int(value) => put(1, &value.to_le_bytes()),
        Item::Double(value) if value.is_nan() => return None,
        Item::Double(value) => match whole(*value) {
            Some(value) => put(1, &value.to_le_bytes()),
            None => put(2, &value.to_bits().to_le_bytes()),
        },
        Item::Text(value) => {
            put(3, &value.len().to_le_bytes());
            out.extend_from_slice(value.as_bytes());
        }
        Item::List(items) => {
            put(4, &items.len().to_le_bytes());
            for item in items {
                write_key(item, out)?;
            }
        }
    }
    Some(())
}
