//! `analyzer_params` as Milvus's users write them.
//!
//! Either a built-in analyzer, `{"type": "english", "stop_words": [...]}`, or a chain, `{"tokenizer": "standard", "filter":
//! ["lowercase", {"type": "stop", "stop_words": ["of", "_english_"]}]}`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::{
    Analyzer,
    filter::{Filter, Language},
    stop_words,
    tokenizer::Tokenizer,
};

/// Why there is no such analyzer. Messages carry names from the parameters, never words of a text.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AnalyzerError {
    /// Not the JSON that is expected.
    #[error("invalid analyzer params: {0}")]
    Malformed(String),
    /// Something that Milvus has and this does not, or that nobody has.
    #[error("invalid analyzer params: {what} {name} is not supported; use one of: {known}")]
    Unknown {
        /// Analyzer, tokenizer, filter, language or list of stop words.
        what: &'static str,
        /// The name given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Over a limit.
    #[error("invalid analyzer params: {what} {given} exceeds the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        given: usize,
        /// The limit.
        limit: usize,
    },
}

/// Limits on analyzer parameters: each filter costs a pass over every word, each stop word memory.
#[derive(Clone, Copy, Debug)]
pub struct AnalyzerLimits;

impl AnalyzerLimits {
    /// Longest parameters, in bytes.
    pub const PARAMS_BYTES_MAX: usize = 256 << 10;
    /// Most filters of an analyzer.
    pub const FILTERS_MAX: usize = 32;
    /// Most stop words of a filter.
    pub const STOP_WORDS_MAX: usize = 10_000;
}

/// Reads parameters.
pub(crate) fn read(text: &str) -> Result<Analyzer, AnalyzerError> {
    limit("length", text.len(), AnalyzerLimits::PARAMS_BYTES_MAX)?;
    let Ok(Value::Object(params)) = serde_json::from_str::<Value>(text) else {
        return malformed("they should be a JSON object");
    };
    match (params.get("type"), params.get("tokenizer")) {
        (None, None) if params.is_empty() => Ok(Analyzer::standard()),
        (Some(_), Some(_)) => malformed("give either type or tokenizer"),
        (Some(Value::String(name)), None) => built_in(name, &params),
        (Some(_), None) => malformed("type should be a string"),
        (None, Some(tokenizer)) => chain(tokenizer, &params),
        (None, None) => malformed("type or tokenizer is missing"),
    }
}

fn built_in(name: &str, params: &Map<String, Value>) -> Result<Analyzer, AnalyzerError> {
    known_keys(params, &["type", "stop_words"])?;
    let mut filters = match name {
        "standard" => vec![Filter::Lowercase],
        "english" => vec![
            Filter::Lowercase,
            Filter::Stem(english()?),
            Filter::Stop(stop_words::ENGLISH.iter().map(|&word| word.to_owned()).collect()),
        ],
        _ => return unknown("analyzer", name, "standard, english"),
    };
    if let Some(words) = params.get("stop_words") {
        filters.push(Filter::Stop(stop_list(words)?));
    }
    Ok(Analyzer::new(Tokenizer::Standard, filters))
}

fn chain(tokenizer: &Value, params: &Map<String, Value>) -> Result<Analyzer, AnalyzerError> {
    known_keys(params, &["tokenizer", "filter"])?;
    let name = match tokenizer {
        Value::String(name) => name,
        Value::Object(inner) => {
            known_keys(inner, &["type"])?;
            text(inner, "type", "tokenizer")?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            return malformed("tokenizer should be a string or an object");
        }
    };
    let Some(tokenizer) = Tokenizer::named(name) else {
        return unknown("tokenizer", name, "standard, whitespace, simple");
    };
    let filters = match params.get("filter") {
        None => Vec::new(),
        Some(Value::Array(given)) => {
            limit("number of filters", given.len(), AnalyzerLimits::FILTERS_MAX)?;
            given.iter().map(filter).collect::<Result<_, _>>()?
        }
        Some(_) => return malformed("filter should be an array"),
    };
    Ok(Analyzer::new(tokenizer, filters))
}

fn filter(given: &Value) -> Result<Filter, AnalyzerError> {
    let empty = Map::new();
    let (name, params) = match given {
        Value::String(name) => (name.as_str(), &empty),
        Value::Object(inner) => (text(inner, "type", "filter")?, inner),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            return malformed("a filter should be a string or an object");
        }
    };
    let plain = |filter| known_keys(params, &["type"]).map(|()| filter);
    match name {
        "lowercase" => plain(Filter::Lowercase),
        "asciifolding" => plain(Filter::AsciiFolding),
        "alphanumonly" => plain(Filter::AlphanumOnly),
        "removepunct" => plain(Filter::RemovePunct),
        "length" => {
            known_keys(params, &["type", "min", "max"])?;
            let (min, max) = (number(params, "min")?, number(params, "max")?);
            if min.is_none() && max.is_none() {
                return malformed("filter length needs max");
            }
            Ok(Filter::Length {
                min: min.unwrap_or(0),
                max: max.unwrap_or(usize::MAX),
            })
        }
        "stop" => {
            known_keys(params, &["type", "stop_words"])?;
            match params.get("stop_words") {
                Some(words) => Ok(Filter::Stop(stop_list(words)?)),
                None => malformed("filter stop needs stop_words"),
            }
        }
        "stemmer" => {
            known_keys(params, &["type", "language"])?;
            let name = text(params, "language", "filter stemmer")?;
            match Language::named(name) {
                Some(language) => Ok(Filter::Stem(language)),
                None => unknown("language", name, &Language::names()),
            }
        }
        _ => unknown(
            "filter",
            name,
            "lowercase, asciifolding, alphanumonly, removepunct, length, stop, stemmer",
        ),
    }
}

/// Stop words: an array, or one word; `_english_` stands for the built-in list.
fn stop_list(given: &Value) -> Result<BTreeSet<String>, AnalyzerError> {
    let one = std::slice::from_ref(given);
    let words = match given {
        Value::Array(words) => words.as_slice(),
        Value::String(_) => one,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return malformed("stop_words should be an array of strings");
        }
    };
    limit("number of stop words", words.len(), AnalyzerLimits::STOP_WORDS_MAX)?;
    let mut list = BTreeSet::new();
    for word in words {
        let Value::String(word) = word else {
            return malformed("stop_words should be an array of strings");
        };
        if word == stop_words::ENGLISH_NAME {
            list.extend(stop_words::ENGLISH.iter().map(|&word| word.to_owned()));
        } else if word.len() > 2 && word.starts_with('_') && word.ends_with('_') {
            return unknown("list of stop words", word, stop_words::ENGLISH_NAME);
        } else {
            list.insert(word.clone());
        }
    }
    Ok(list)
}

fn english() -> Result<Language, AnalyzerError> {
    Language::named("english").map_or_else(|| unknown("language", "english", ""), Ok)
}

fn text<'a>(params: &'a Map<String, Value>, key: &str, of: &str) -> Result<&'a str, AnalyzerError> {
    match params.get(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => malformed(&format!("{key} of {of} should be a string")),
        None => malformed(&format!("{of} needs {key}")),
    }
}

fn number(params: &Map<String, Value>, key: &str) -> Result<Option<usize>, AnalyzerError> {
    let Some(value) = params.get(key) else { return Ok(None) };
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.map_or_else(
        || malformed(&format!("{key} should be a whole number from 0 on")),
        |number| Ok(Some(number)),
    )
}

/// A key that is not read would be a wish that is not met.
fn known_keys(params: &Map<String, Value>, known: &[&str]) -> Result<(), AnalyzerError> {
    match params.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => unknown("parameter", key, &known.join(", ")),
        None => Ok(()),
    }
}

fn limit(what: &'static str, given: usize, limit: usize) -> Result<(), AnalyzerError> {
    if given > limit {
        return Err(AnalyzerError::Limit { what, given, limit });
    }
    Ok(())
}

fn malformed<T>(reason: &str) -> Result<T, AnalyzerError> {
    Err(AnalyzerError::Malformed(reason.to_owned()))
}

fn unknown<T>(what: &'static str, name: &str, known: &str) -> Result<T, AnalyzerError> {
    Err(AnalyzerError::Unknown {
        what,
        name: name.chars().take(NAME_CHARACTERS_MAX).collect(),
        known: known.to_owned(),
    })
}

/// Most characters of a name that a message repeats.
const NAME_CHARACTERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_refused() {
        let refused = |params: &str, part: &str| {
            let reason = read(params).unwrap_err().to_string();
            assert!(
                reason.starts_with("invalid analyzer params: ") && reason.contains(part),
                "{reason} lacks {part}"
            );
        };
        refused("[]", "JSON object");
        refused("{", "JSON object");
        refused(r#"{"type": 3}"#, "type should be a string");
        refused(r#"{"filter": []}"#, "type or tokenizer is missing");
        refused(
            r#"{"type": "standard", "tokenizer": "standard"}"#,
            "either type or tokenizer",
        );
        refused(
            r#"{"type": "chinese"}"#,
            "analyzer chinese is not supported; use one of: standard, english",
        );
        refused(
            r#"{"type": "standard", "filter": []}"#,
            "parameter filter is not supported",
        );
        refused(r#"{"tokenizer": "jieba"}"#, "tokenizer jieba is not supported");
        refused(r#"{"tokenizer": {"type": "jieba"}}"#, "tokenizer jieba");
        refused(r#"{"tokenizer": {}}"#, "tokenizer needs type");
        refused(r#"{"tokenizer": 1}"#, "tokenizer should be");
        refused(
            r#"{"tokenizer": "standard", "filter": "lowercase"}"#,
            "filter should be an array",
        );
        refused(
            r#"{"tokenizer": "standard", "filter": ["decompounder"]}"#,
            "filter decompounder",
        );
        refused(r#"{"tokenizer": "standard", "filter": [1]}"#, "a filter should be");
        refused(
            r#"{"tokenizer": "standard", "filter": [{"type": "length"}]}"#,
            "needs max",
        );
        refused(
            r#"{"tokenizer": "standard", "filter": [{"type": "length", "max": -1}]}"#,
            "max should be a whole number",
        );
        refused(
            r#"{"tokenizer": "standard", "filter": [{"type": "stop"}]}"#,
            "needs stop_words",
        );
        refused(
            r#"{"tokenizer": "standard", "filter": [{"type": "stop", "stop_words": [1]}]}"#,
            "array of strings",
        );
        refused(
            r#"{"tokenizer": "standard", "filter": [{"type": "stop", "stop_words": ["_german_"]}]}"#,
            "_german_",
        );
        refused(
            r#"{"tokenizer": "standard", "filter": [{"type": "stemmer"}]}"#,
            "needs language",
        );
        refused(
            r#"{"tokenizer": "standard", "filter": [{"type": "stemmer", "language": "klingon"}]}"#,
            "english",
        );
        refused(
            r#"{"tokenizer": "standard", "filter": [{"type": "lowercase", "min": 1}]}"#,
            "parameter min",
        );
    }

    #[test]
    fn limits_are_kept() {
        let filters = |count: usize| {
            format!(
                r#"{{"tokenizer": "simple", "filter": [{}]}}"#,
                vec![r#""lowercase""#; count].join(",")
            )
        };
        assert!(read(&filters(AnalyzerLimits::FILTERS_MAX)).is_ok());
        assert!(matches!(
            read(&filters(AnalyzerLimits::FILTERS_MAX + 1)),
            Err(AnalyzerError::Limit { given: 33, .. })
        ));
        let words = |count: usize| {
            format!(
                r#"{{"type": "standard", "stop_words": [{}]}}"#,
                vec![r#""a""#; count].join(",")
            )
        };
        assert!(read(&words(AnalyzerLimits::STOP_WORDS_MAX)).is_ok());
        assert!(matches!(
            read(&words(AnalyzerLimits::STOP_WORDS_MAX + 1)),
            Err(AnalyzerError::Limit { .. })
        ));
        let long = |bytes: usize| format!("{{{}}}", " ".repeat(bytes - 2));
        assert!(read(&long(AnalyzerLimits::PARAMS_BYTES_MAX)).is_ok());
        assert!(matches!(
            read(&long(AnalyzerLimits::PARAMS_BYTES_MAX + 1)),
            Err(AnalyzerError::Limit { .. })
        ));
    }
}
