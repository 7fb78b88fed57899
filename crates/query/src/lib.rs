//! What a request asks of rows: filter expressions, which fields come back, and how hits of many segments become one list.
//!
//! What it is for: [`parse`] reads Milvus's boolean expression language, [`bind`] checks it against a schema, and
//! [`evaluate`] answers it for rows held by column, as a [`saker_model::Bitmap`]. [`merge`] joins hits, and
//! [`OutputFields`] resolves what a request wants to see. [`IndexTarget`] makes the indexes that [`evaluate`] looks
//! conditions up in.
//!
//! What it deliberately does not do: no input or output, no threads, no vectors' distances, no knowledge of segments.
//! Nothing here prints a literal of a filter: errors name fields and positions, `Debug` is redacted.
//!
//! Start reading at [`parse`], then `bind`, then `evaluate`. `docs/filters.md` describes the language.
#![forbid(unsafe_code)]

mod ast;
mod bind;
mod error;
mod evaluate;
mod index;
mod json;
mod lexer;
mod literal;
mod mixed_set;
mod number;
mod output;
mod parser;
mod pattern;
mod plan;
#[cfg(test)]
mod sample;
mod source;
#[cfg(test)]
mod tests;
mod top_k;

pub use ast::Expr;
pub use bind::bind;
pub use error::FilterError;
pub use evaluate::evaluate;
pub use index::{IndexBuildError, IndexTarget, JsonCast};
pub use literal::{Literal, Templates};
pub use output::{DynamicKeys, OutputError, OutputFields};
pub use parser::parse;
pub use plan::Bound;
pub use saker_scalar::{Place, Step};
pub use source::ColumnSource;
pub use top_k::{MergeOptions, RangeError, RankedHit, ScoreRange, SegmentHit, merge};
