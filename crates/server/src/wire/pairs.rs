//! Milvus's string pairs: search parameters, index parameters, properties.

use std::collections::BTreeMap;

use saker_proto::common::KeyValuePair;
use serde_json::Value;

use super::Failure;

/// Most pairs in one request; real clients send fewer than twenty.
pub const PAIRS_MAX: usize = 256;

/// The pairs as a map; a key that stands twice is refused.
///
/// # Errors
/// [`Failure`] if there are too many pairs or a key stands twice.
pub fn to_map(pairs: Vec<KeyValuePair>) -> Result<BTreeMap<String, String>, Failure> {
    if pairs.len() > PAIRS_MAX {
        return Err(Failure::mismatch(
            format_args!("at most {PAIRS_MAX}"),
            pairs.len(),
            "number of parameters",
        ));
    }
    let mut map = BTreeMap::new();
    for pair in pairs {
        if map.contains_key(&pair.key) {
            return Err(Failure::invalid(format_args!(
                "duplicated parameter key {}",
                shorten(&pair.key)
            )));
        }
        map.insert(pair.key, pair.value);
    }
    Ok(map)
}

/// The map as pairs.
#[must_use]
pub fn from_map(map: &BTreeMap<String, String>) -> Vec<KeyValuePair> {
    map.iter()
        .map(|(key, value)| KeyValuePair {
            key: key.clone(),
            value: value.clone(),
        })
        .collect()
}

/// A boolean as Go, Python and JSON clients write it.
///
/// # Errors
/// [`Failure`] if it is neither true nor false.
pub fn boolean(key: &str, text: &str) -> Result<bool, Failure> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err(Failure::invalid(format_args!("{key} should be true or false"))),
    }
}

/// An integer in a range.
///
/// # Errors
/// [`Failure`] if it is no integer or outside the range.
pub fn integer(key: &str, text: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, Failure> {
    let value: i64 = text
        .trim()
        .parse()
        .map_err(|_| Failure::invalid(format_args!("{key} [{}] is not an integer", shorten(text))))?;
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(Failure::invalid(format_args!(
            "{key} [{value}] is invalid, it should be in range [{}, {}]",
            range.start(),
            range.end()
        )))
    }
}

/// A JSON object in a parameter; empty text is an empty object.
///
/// # Errors
/// [`Failure`] if it is not a JSON object.
pub fn object(key: &str, text: &str) -> Result<serde_json::Map<String, Value>, Failure> {
    if text.trim().is_empty() {
        return Ok(serde_json::Map::new());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(Failure::invalid(format_args!("{key} should be a JSON object"))),
    }
}

/// The beginning of a name that a client gave, short enough for a message.
#[must_use]
pub fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> KeyValuePair {
        KeyValuePair {
            key: key.into(),
            value: value.into(),
        }
    }

    #[test]
    fn duplicates_and_floods_are_refused() {
        assert!(to_map(vec![pair("a", "1"), pair("a", "2")]).is_err());
        let flood = |count: usize| (0..count).map(|index| pair(&index.to_string(), "")).collect::<Vec<_>>();
        assert!(to_map(flood(PAIRS_MAX - 1)).is_ok());
        assert!(to_map(flood(PAIRS_MAX)).is_ok());
        assert!(to_map(flood(PAIRS_MAX + 1)).is_err());
    }

    #[test]
    fn booleans_of_all_clients() {
        assert_eq!(boolean("k", "True"), Ok(true));
        assert_eq!(boolean("k", "false"), Ok(false));
        assert!(boolean("k", "maybe").is_err());
    }

    #[test]
    fn integers_keep_to_their_range() {
        assert_eq!(integer("k", "1", 1..=2), Ok(1));
        assert_eq!(integer("k", "2", 1..=2), Ok(2));
        assert!(integer("k", "3", 1..=2).is_err());
        assert!(integer("k", "0", 1..=2).is_err());
        assert!(integer("k", "1.5", 1..=2).is_err());
    }
}
