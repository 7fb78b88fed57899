//! Words that say nothing by themselves.

/// English stop words: the short list that full text search engines agree on (the one that Lucene made common).
pub(crate) const ENGLISH: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not", "of",
    "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
];
/// Stands for [`ENGLISH`] in a list of stop words.
pub(crate) const ENGLISH_NAME: &str = "_english_";
