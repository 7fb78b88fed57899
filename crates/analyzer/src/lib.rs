//! Text to terms, for full text search: a tokenizer cuts a text into tokens, filters change or drop them.
//!
//! What it is for: an [`Analyzer`] is made from a field's `analyzer_params` in Milvus's JSON and gives the same tokens for
//! a row's text and for a query's. [`Analyzer::term_frequencies`] is what the function BM25 puts into its output field.
//!
//! What it deliberately does not do: no scoring (that is `index`), no dictionaries and no language models, so no segmentation
//! of Chinese or Japanese into words (each ideograph is a token), no synonyms, no files.
//!
//! Tokens are customer plaintext: the buffers that they are made in are overwritten with zeros.
//!
//! Start reading at [`Analyzer`], then `params` for what users may write.
#![forbid(unsafe_code)]

mod analyzer;
mod filter;
mod folding;
mod params;
mod stop_words;
mod terms;
mod tokenizer;

pub use analyzer::{Analyzer, Token};
pub use params::{AnalyzerError, AnalyzerLimits};
pub use terms::term_hash;
