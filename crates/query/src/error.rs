//! Why a filter is refused.

use saker_model::FieldId;
use thiserror::Error;

/// Why a filter cannot be answered. Messages name fields, types and byte positions, never a literal of the filter.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FilterError {
    /// The text is not an expression.
    #[error("cannot parse expression: {reason} at byte {position}")]
    Syntax {
        /// Where, in bytes from the start of the text.
        position: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The text is too long.
    #[error("cannot parse expression: the filter has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// Its length, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Too many operators, parentheses or lists inside each other.
    #[error("cannot parse expression: nested deeper than {limit} levels at byte {position}")]
    TooDeep {
        /// Where, in bytes from the start of the text.
        position: usize,
        /// The limit, in levels.
        limit: usize,
    },
    /// Too many literals.
    #[error("cannot parse expression: more than {limit} values")]
    TooManyValues {
        /// The limit, list items counted one by one.
        limit: usize,
    },
    /// Too many conditions joined by `and` and `or`.
    #[error("cannot parse expression: more than {limit} conditions")]
    TooManyTerms {
        /// The limit, in conditions.
        limit: usize,
    },
    /// A name that the schema does not have, where there is no dynamic field to look it up in.
    #[error("cannot parse expression: field {name} not exist")]
    FieldNotFound {
        /// The name, cut at the longest name that a field can have.
        name: String,
    },
    /// Part of Milvus's language that is not implemented.
    #[error("cannot parse expression: {what} is not supported, at byte {position}")]
    NotSupported {
        /// What was asked for.
        what: String,
        /// Where, in bytes from the start of the text.
        position: usize,
    },
    /// Operands that do not go together.
    #[error("cannot parse expression: {reason}, at byte {position}")]
    Type {
        /// Where, in bytes from the start of the text.
        position: usize,
        /// What does not fit.
        reason: String,
    },
    /// A `{name}` without a value.
    #[error("cannot parse expression: the value of expression template variable name {{{name}}} is not found")]
    TemplateNotFound {
        /// The name, cut at the longest name that a field can have.
        name: String,
    },
    /// A column handed to evaluation is of another type than the schema that the filter was bound to.
    #[error("column of field {field} does not have the type of the schema")]
    Column {
        /// The field.
        field: FieldId,
    },
}
