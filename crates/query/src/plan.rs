//! A filter bound to a schema: field ids, checked types, folded constants.
#![expect(clippy::wildcard_enum_match_arm, reason = "only two forms are a list of keys")]

use std::fmt;

use saker_model::{DataType, FieldId, PrimaryKey};

use crate::Literal;
use crate::ast::{Arithmetic, Comparison, Step};
use crate::mixed_set::MixedSet;
use crate::pattern::Pattern;

/// A filter ready to be evaluated on rows of the schema that it was bound to. `Debug` is redacted.
#[derive(Clone, Debug)]
pub struct Bound {
    pub(crate) predicate: Predicate,
    /// The primary key field, for [`Bound::primary_keys`].
    pub(crate) primary: Option<FieldId>,
}

/// Something that is true, false or unknown for a row.
#[derive(Clone, Debug)]
pub(crate) enum Predicate {
    Always(bool),
    And(Vec<Predicate>),
    Or(Vec<Predicate>),
    Not(Box<Predicate>),
    /// Never [`Comparison::NotEqual`], which is bound as `Not` of `Equal`.
    Compare {
        operator: Comparison,
        left: Operand,
        right: Operand,
    },
    In {
        value: Operand,
        set: Set,
    },
    Matches {
        value: Operand,
        pattern: Pattern,
    },
    /// Whether a field's whole value is null.
    IsNull(FieldId),
    /// Whether a JSON path leads to something that is not null.
    Exists(JsonPath),
    /// Whether a list holds all, or any, of these.
    Contains {
        list: ListOperand,
        items: Box<MixedSet>,
        all: bool,
    },
    /// A boolean value taken as a condition.
    Truth(Operand),
}

/// A value of a row.
#[derive(Clone, Debug)]
pub(crate) enum Operand {
    Constant(Literal),
    Column(FieldId, DataType),
    Json(JsonPath),
    /// One element of an array field; null past its end.
    Element {
        field: FieldId,
        element: DataType,
        index: usize,
    },
    Length(ListOperand),
    Arithmetic {
        operator: Arithmetic,
        number: Number,
        left: Box<Operand>,
        right: Box<Operand>,
    },
}

/// Where a list of values comes from.
#[derive(Clone, Debug)]
pub(crate) enum ListOperand {
    Array(FieldId),
    Json(JsonPath),
}

/// A place in the documents of a JSON field; no steps mean the whole document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonPath {
    pub(crate) field: FieldId,
    pub(crate) steps: Vec<Step>,
}

/// What arithmetic computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    Int,
    Double,
    /// Known per row only, as JSON numbers are.
    Json,
}

/// The values of an `in` list. `Debug` is redacted.
#[derive(Clone)]
pub(crate) enum Set {
    /// Sorted, no value twice.
    Ints(Vec<i64>),
    /// Sorted, no value twice.
    Texts(Vec<String>),
    /// Of 32-bit floats, as [`f32::to_bits`], zero without sign; sorted, no value twice.
    Floats(Vec<u32>),
    Mixed(Box<MixedSet>),
}

impl Bound {
    /// The primary keys that this filter selects, if it is nothing but `pk == x` or `pk in [...]`: sorted, each once.
    #[must_use]
    pub fn primary_keys(&self) -> Option<Vec<PrimaryKey>> {
        let is_primary =
            |operand: &Operand| matches!(operand, Operand::Column(field, _) if Some(*field) == self.primary);
        match &self.predicate {
            Predicate::Compare {
                operator: Comparison::Equal,
                left,
                right: Operand::Constant(value),
            } if is_primary(left) => match value {
                Literal::Int(value) => Some(vec![PrimaryKey::Int(*value)]),
                Literal::Text(value) => Some(vec![PrimaryKey::Text(value.clone())]),
                Literal::Bool(_) | Literal::Double(_) | Literal::Ints(_) | Literal::List(_) => None,
            },
            Predicate::In { value, set } if is_primary(value) => match set {
                Set::Ints(values) => Some(values.iter().map(|value| PrimaryKey::Int(*value)).collect()),
                Set::Texts(values) => Some(values.iter().map(|value| PrimaryKey::Text(value.clone())).collect()),
                Set::Floats(_) | Set::Mixed(_) => None,
            },
            _ => None,
        }
    }

    /// Whether every row is selected, whatever it holds.
    #[must_use]
    pub fn selects_everything(&self) -> bool {
        matches!(self.predicate, Predicate::Always(true))
    }

    /// Whether no row is selected, whatever it holds.
    #[must_use]
    pub fn selects_nothing(&self) -> bool {
        match &self.predicate {
            Predicate::Always(value) => !value,
            Predicate::In {
                set: Set::Ints(values), ..
            } => values.is_empty(),
            Predicate::In {
                set: Set::Texts(values),
                ..
            } => values.is_empty(),
            _ => false,
        }
    }

    /// The fields whose columns evaluation reads, ascending, each once.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldId> {
        let mut fields = Vec::new();
        self.predicate.collect_fields(&mut fields);
        fields.sort_unstable();
        fields.dedup();
        fields
    }
}

impl Predicate {
    fn collect_fields(&self, out: &mut Vec<FieldId>) {
        match self {
            Self::Always(_) => {}
            Self::And(items) | Self::Or(items) => items.iter().for_each(|item| item.collect_fields(out)),
            Self::Not(inner) => inner.collect_fields(out),
            Self::Compare { left, right, .. } => {
                left.collect_fields(out);
                right.collect_fields(out);
            }
            Self::In { value, .. } | Self::Matches { value, .. } | Self::Truth(value) => value.collect_fields(out),
            Self::IsNull(field) => out.push(*field),
            Self::Exists(path) => out.push(path.field),
            Self::Contains { list, .. } => out.push(list.field()),
        }
    }
}

impl Operand {
    fn collect_fields(&self, out: &mut Vec<FieldId>) {
        match self {
            Self::Constant(_) => {}
            Self::Column(field, _) | Self::Element { field, .. } => out.push(*field),
            Self::Json(path) => out.push(path.field),
            Self::Length(list) => out.push(list.field()),
            Self::Arithmetic { left, right, .. } => {
                left.collect_fields(out);
                right.collect_fields(out);
            }
        }
    }
}

impl ListOperand {
    pub(crate) const fn field(&self) -> FieldId {
        match self {
            Self::Array(field) => *field,
            Self::Json(path) => path.field,
        }
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = match self {
            Self::Ints(values) => values.len(),
            Self::Texts(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Mixed(values) => values.len(),
        };
        write!(f, "Set({values} values, [redacted])")
    }
}

impl Set {
    /// Sorts, and keeps each value once.
    pub(crate) fn ints(mut values: Vec<i64>) -> Self {
        values.sort_unstable();
        values.dedup();
        Self::Ints(values)
    }
    /// Sorts, and keeps each value once.
    pub(crate) fn texts(mut values: Vec<String>) -> Self {
        values.sort_unstable();
        values.dedup();
        Self::Texts(values)
    }
    /// Sorts, and keeps each value once. Minus zero becomes zero, as they are equal.
    pub(crate) fn floats(values: impl Iterator<Item = f32>) -> Self {
        let mut bits: Vec<u32> = values.map(|value| (value + 0.0).to_bits()).collect();
        bits.sort_unstable();
        bits.dedup();
        Self::Floats(bits)
    }
}
