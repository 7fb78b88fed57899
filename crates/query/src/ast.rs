//! What a filter says, before any schema is known.

pub(crate) use saker_scalar::Step;

use crate::Literal;

/// A parsed filter. `Debug` of its literals is redacted.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// Where it starts in the text, in bytes.
    pub(crate) position: usize,
    pub(crate) kind: ExprKind,
}

/// The forms of an expression. `and`, `or` and lists are flat, so that long chains do not nest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ExprKind {
    /// No filter: every row.
    Everything,
    Literal(Literal),
    /// `{name}`.
    Template(String),
    /// A list with something else than plain literals in it.
    List(Vec<Expr>),
    /// A field, a dynamic key, or a path into either.
    Path {
        name: String,
        steps: Vec<Step>,
    },
    Negate(Box<Expr>),
    Not(Box<Expr>),
    Arithmetic {
        operator: Arithmetic,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Compare {
        operator: Comparison,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `low < value <= high`, or the same with `>`: operators as written.
    Between {
        left: Box<Expr>,
        left_operator: Comparison,
        value: Box<Expr>,
        right_operator: Comparison,
        right: Box<Expr>,
    },
    In {
        value: Box<Expr>,
        list: Box<Expr>,
        negated: bool,
    },
    Like {
        value: Box<Expr>,
        pattern: Box<Expr>,
    },
    Regex {
        value: Box<Expr>,
        pattern: Box<Expr>,
        negated: bool,
    },
    IsNull {
        value: Box<Expr>,
        negated: bool,
    },
    Exists(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Call {
        function: Function,
        arguments: Vec<Expr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// The operator that says the same with the sides swapped.
    pub(crate) const fn swapped(self) -> Self {
        match self {
            Self::Equal => Self::Equal,
            Self::NotEqual => Self::NotEqual,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
    /// Whether this ordering of left and right satisfies it; `None` (a NaN) satisfies `!=` only.
    pub(crate) fn holds(self, order: Option<std::cmp::Ordering>) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match self {
            Self::Equal => order == Some(Equal),
            Self::NotEqual => order != Some(Equal),
            Self::Less => order == Some(Less),
            Self::LessOrEqual => matches!(order, Some(Less | Equal)),
            Self::Greater => order == Some(Greater),
            Self::GreaterOrEqual => matches!(order, Some(Greater | Equal)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Contains,
    ContainsAll,
    ContainsAny,
    ArrayLength,
    TextMatch,
}
