//! Values written in a filter or bound to its `{names}`.

use std::collections::BTreeMap;
use std::fmt;

/// A value. `Debug` shows its kind only, as filters must not get into logs.
#[derive(Clone, PartialEq)]
pub enum Literal {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Double(f64),
    /// Text.
    Text(String),
    /// A list of whole numbers, the common long one (ids).
    Ints(Vec<i64>),
    /// A list of any values.
    List(Vec<Literal>),
}

/// Values for the `{names}` in a filter.
pub type Templates = BTreeMap<String, Literal>;

impl Literal {
    /// What users call it, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Double(_) => "a float",
            Self::Text(_) => "a string",
            Self::Ints(_) | Self::List(_) => "a list",
        }
    }
    /// The items, if it is a list.
    pub(crate) fn into_items(self) -> Option<Vec<Self>> {
        match self {
            Self::Ints(items) => Some(items.into_iter().map(Self::Int).collect()),
            Self::List(items) => Some(items),
            Self::Bool(_) | Self::Int(_) | Self::Double(_) | Self::Text(_) => None,
        }
    }
    /// Levels of lists inside each other; 0 if it is none.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Double(_) | Self::Text(_) => 0,
            Self::Ints(_) => 1,
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
        }
    }
}

impl fmt::Debug for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool(_) => "Bool([redacted])",
            Self::Int(_) => "Int([redacted])",
            Self::Double(_) => "Double([redacted])",
            Self::Text(_) => "Text([redacted])",
            Self::Ints(_) => "Ints([redacted])",
            Self::List(_) => "List([redacted])",
        })
    }
}
