//! One value out of a JSON document, without building the rest.
//!
//! The document's other parts are checked for syntax and skipped. Nothing here fails: a document that is not JSON, or is
//! nested deeper than the parser's own limit of 128 levels, has no value at any path.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::ast::Step;

/// A value of one row.
#[derive(Clone, PartialEq)]
pub(crate) enum Item<'a> {
    /// Unknown: a null row, an array's end passed, a division by zero, an overflow.
    Null,
    /// A JSON path that leads nowhere, to null, or to a kind of value that cannot be compared.
    Absent,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Cow<'a, str>),
    List(Vec<Item<'a>>),
}

/// How much of the value at the path is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Scalars; a list or object is [`Item::Absent`].
    Scalar,
    /// Scalars and lists with all they hold.
    List,
    /// The number of items of a list, as [`Item::Int`]; anything else is [`Item::Absent`].
    Length,
    /// [`Item::Bool`] of true if there is a value that is not null.
    Presence,
}

/// The value at this path.
pub(crate) fn extract<'a>(document: &'a [u8], steps: &[Step], want: Want) -> Item<'a> {
    let mut reader = serde_json::Deserializer::from_slice(document);
    match (Seek { steps, want }).deserialize(&mut reader) {
        Ok(item) if reader.end().is_ok() => item,
        _ => Item::Absent,
    }
}

/// Walks the steps down from where it is put.
#[derive(Clone, Copy)]
struct Seek<'s> {
    steps: &'s [Step],
    want: Want,
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = Item<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seek<'_> {
    fn scalar<'de>(self, item: Item<'de>) -> Item<'de> {
        match (self.steps.is_empty(), self.want) {
            (false, _) | (true, Want::Length) => Item::Absent,
            (true, Want::Presence) => Item::Bool(true),
            (true, Want::Scalar | Want::List) => item,
        }
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = Item<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Item<'de>, E> {
        Ok(Item::Absent)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Item<'de>, E> {
        Ok(self.scalar(Item::Bool(value)))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Item<'de>, E> {
        Ok(self.scalar(Item::Int(value)))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Item<'de>, E> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "integers past 64 signed bits read as doubles, as documented"
        )]
        Ok(self.scalar(i64::try_from(value).map_or(Item::Double(value as f64), Item::Int)))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Item<'de>, E> {
        Ok(self.scalar(Item::Double(value)))
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Item<'de>, E> {
        Ok(self.scalar(Item::Text(Cow::Borrowed(value))))
    }
    fn visit_str<E>(self, value: &str) -> Result<Item<'de>, E> {
        Ok(self.scalar(Item::Text(Cow::Owned(value.to_owned()))))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item<'de>, A::Error> {
        let Some((step, steps)) = self.steps.split_first() else {
            return whole_list(self.want, list);
        };
        let mut found = Item::Absent;
        if let Step::Index(index) = step {
            let mut at = 0;
            while at < *index && list.next_element::<IgnoredAny>()?.is_some() {
                at += 1;
            }
            if let Some(item) = list.next_element_seed(Seek { steps, want: self.want })? {
                found = item;
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item<'de>, A::Error> {
        let mut found = match (self.steps.is_empty(), self.want) {
            (true, Want::Presence) => Item::Bool(true),
            _ => Item::Absent,
        };
        let wanted = match self.steps.first() {
            Some(Step::Key(key)) => Some(key.as_str()),
            Some(Step::Index(_)) | None => None,
        };
        while let Some(Key(key)) = map.next_key()? {
            if wanted == Some(key.as_ref()) {
                found = map.next_value_seed(Seek {
                    steps: &self.steps[1..],
                    want: self.want,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

fn whole_list<'de, A: SeqAccess<'de>>(want: Want, mut list: A) -> Result<Item<'de>, A::Error> {
    let mut items = Vec::new();
    let mut count: i64 = 0;
    if want == Want::List {
        while let Some(item) = list.next_element_seed(Seek { steps: &[], want })? {
            items.push(item);
        }
    } else {
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
    }
    Ok(match want {
        Want::List => Item::List(items),
        Want::Length => Item::Int(count),
        Want::Presence => Item::Bool(true),
        Want::Scalar => Item::Absent,
    })
}

/// An object's key, borrowed where it holds no escape.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}
