//! Indexes over scalar values: which rows hold a value, one of several, a range, or a text with some prefix.
//!
//! What it is for: a [`ScalarIndex`] is made once of the values of one field, of one path into JSON documents, or of the
//! elements of lists, and answers with a [`saker_model::Bitmap`] in time that grows with the answer, not with the rows.
//! It holds the distinct values in ascending order and, for each, the rows that have it. One form serves every name that
//! users give to such an index, for it answers what each of them is meant for.
//!
//! What it deliberately does not do: no filter language and no JSON (that is `query`, which also feeds the [`Builder`]),
//! no files (that is `segment`). It holds copies of customers' values and overwrites them when it is dropped. Saved bytes
//! come in already authenticated, yet the reader believes none of them.
//!
//! Start reading at [`ScalarIndex`], then `keys` and `postings`. `format` saves and opens it.
#![forbid(unsafe_code)]

mod build;
mod error;
mod format;
mod index;
mod keys;
mod number;
mod place;
mod postings;
#[cfg(test)]
mod tests;

pub use build::Builder;
pub use error::ScalarError;
pub use index::{Class, Classes, Probe, Relation, ScalarIndex};
pub use number::compare_int_double;
pub use place::{Place, Step};
