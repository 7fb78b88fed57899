//! Parameters of searches and queries, as clients send them in string pairs.

use std::collections::{BTreeMap, HashMap};

use saker_engine::{Filter, Literal, SearchParams, Templates};
use saker_model::Limits;
use saker_proto::{
    common::KeyValuePair,
    schema::{TemplateArrayValue, TemplateValue, template_array_value::Data as Items, template_value::Val},
};
use serde_json::{Map, Value};

use super::{Failure, pairs};

/// What a search's parameters say.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchSettings {
    /// Vector field; empty where the schema has one only.
    pub field: String,
    /// Metric that the caller named.
    pub metric: Option<String>,
    /// Hits wanted after the offset.
    pub limit: usize,
    /// Hits left out at the front.
    pub offset: usize,
    /// Digits that scores are rounded to.
    pub round_decimal: Option<i32>,
    /// Index-specific and range settings.
    pub params: SearchParams,
    /// Set if the search is a step of a search iterator (second protocol).
    pub iterator: Option<IteratorStep>,
}

/// One step of a search iterator.
#[derive(Clone, Debug, PartialEq)]
pub struct IteratorStep {
    /// The token that the first step gave out; absent in the first step.
    pub token: Option<String>,
    /// Score of the last hit that the caller has.
    pub last_bound: Option<f32>,
}

/// What a query's parameters say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuerySettings {
    /// Most rows to return.
    pub limit: Option<usize>,
    /// Rows left out at the front.
    pub offset: usize,
}

/// Reads a search's parameters.
///
/// # Errors
/// [`Failure`] that names the parameter that is wrong or not supported.
pub fn search_settings(given: Vec<KeyValuePair>) -> Result<SearchSettings, Failure> {
    let given = pairs::to_map(given)?;
    let inner = pairs::object("search params", text_of(&given, "params").unwrap_or_default())?;
    refuse_grouping(&given, &inner)?;
    let most = top_k_max();
    let top_k = text_of(&given, "topk").or_else(|| text_of(&given, "limit"));
    let Some(top_k) = top_k else {
        return Err(Failure::invalid("topk is not given in the search params"));
    };
    let iterator = iterator_step(&given)?;
    let limit = match (&iterator, text_of(&given, "search_iter_batch_size")) {
        (Some(_), Some(text)) => pairs::integer("batch size", text, 1..=most)?,
        _ => pairs::integer("topk", top_k, 1..=most)?,
    };
    let offset = match text_of(&given, "offset") {
        Some(text) => pairs::integer("offset", text, 0..=most)?,
        None => 0,
    };
    check_window(offset, limit)?;
    let metric = text_of(&given, "metric_type")
        .or_else(|| inner.get("metric_type").and_then(Value::as_str))
        .filter(|name| !name.is_empty());
    let round_decimal = match text_of(&given, "round_decimal") {
        Some(text) => Some(pairs::integer("round_decimal", text, -1..=6)?),
        None => None,
    };
    Ok(SearchSettings {
        field: text_of(&given, "anns_field").unwrap_or_default().to_owned(),
        metric: metric.map(str::to_owned),
        limit: to_usize(limit),
        offset: to_usize(offset),
        round_decimal: round_decimal
            .and_then(|digits| i32::try_from(digits).ok())
            .filter(|digits| *digits >= 0),
        params: search_params(&inner)?,
        iterator,
    })
}

/// Reads a query's parameters.
///
/// # Errors
/// [`Failure`] that names the parameter that is wrong or not supported.
pub fn query_settings(given: Vec<KeyValuePair>) -> Result<QuerySettings, Failure> {
    let given = pairs::to_map(given)?;
    for key in ["order_by_fields", "group_by_fields"] {
        if text_of(&given, key).is_some() {
            return Err(Failure::unsupported(format_args!("{key} in a query")));
        }
    }
    let most = top_k_max();
    // Clients write an absent limit as -1.
    let limit = match text_of(&given, "limit").filter(|text| text.trim() != "-1") {
        Some(text) => Some(pairs::integer("limit", text, 1..=most)?),
        None => None,
    };
    let offset = match text_of(&given, "offset") {
        Some(text) => pairs::integer("offset", text, 0..=most)?,
        None => 0,
    };
    if let Some(limit) = limit {
        check_window(offset, limit)?;
    }
    Ok(QuerySettings {
        limit: limit.map(to_usize),
        offset: to_usize(offset),
    })
}

/// A filter with the values of its placeholders.
///
/// # Errors
/// [`Failure`] for a text that is too long or a value that cannot stand in a filter. The text itself is never repeated.
pub fn filter_in(text: String, templates: HashMap<String, TemplateValue>) -> Result<Filter, Failure> {
    if text.len() > Limits::FILTER_BYTES_MAX {
        return Err(Failure::invalid(format_args!(
            "the length of the filter expression ({} bytes) exceeds {} bytes",
            text.len(),
            Limits::FILTER_BYTES_MAX
        )));
    }
    let mut values = Templates::new();
    for (name, value) in templates {
        let converted = template_in(value, &name)?;
        values.insert(name, converted);
    }
    Ok(Filter {
        text,
        templates: values,
    })
}

/// Deepest nesting of lists in a template value.
const TEMPLATE_DEPTH_MAX: usize = 16;

fn template_in(value: TemplateValue, name: &str) -> Result<Literal, Failure> {
    let literal = match value.val {
        Some(Val::BoolVal(value)) => Some(Literal::Bool(value)),
        Some(Val::Int64Val(value)) => Some(Literal::Int(value)),
        Some(Val::FloatVal(value)) => Some(Literal::Double(value)).filter(|_| value.is_finite()),
        Some(Val::StringVal(value)) => Some(Literal::Text(value)),
        Some(Val::ArrayVal(items)) => template_items(items, 0),
        Some(Val::BytesVal(_)) | None => None,
    };
    literal.ok_or_else(|| {
        Failure::invalid(format_args!(
            "the value of the expression template variable {} is not supported",
            pairs::shorten(name)
        ))
    })
}

fn template_items(items: TemplateArrayValue, depth: usize) -> Option<Literal> {
    if depth >= TEMPLATE_DEPTH_MAX {
        return None;
    }
    Some(Literal::List(match items.data {
        None => Vec::new(),
        Some(Items::LongData(values)) => return Some(Literal::Ints(values.data)),
        Some(Items::BoolData(values)) => values.data.into_iter().map(Literal::Bool).collect(),
        Some(Items::StringData(values)) => values.data.into_iter().map(Literal::Text).collect(),
        Some(Items::DoubleData(values)) => {
            if values.data.iter().any(|value| !value.is_finite()) {
                return None;
            }
            values.data.into_iter().map(Literal::Double).collect()
        }
        Some(Items::ArrayData(values)) => values
            .data
            .into_iter()
            .map(|inner| template_items(inner, depth + 1))
            .collect::<Option<Vec<_>>>()?,
        Some(Items::JsonData(values)) => values
            .data
            .iter()
            .map(|text| json_literal(serde_json::from_slice(text).ok()?, depth))
            .collect::<Option<Vec<_>>>()?,
    }))
}

fn json_literal(value: Value, depth: usize) -> Option<Literal> {
    if depth >= TEMPLATE_DEPTH_MAX {
        return None;
    }
    match value {
        Value::Bool(value) => Some(Literal::Bool(value)),
        Value::Number(number) => number
            .as_i64()
            .map(Literal::Int)
            .or_else(|| number.as_f64().map(Literal::Double)),
        Value::String(text) => Some(Literal::Text(text)),
        Value::Array(items) => {
            let items: Option<Vec<_>> = items.into_iter().map(|item| json_literal(item, depth + 1)).collect();
            items.map(Literal::List)
        }
        Value::Null | Value::Object(_) => None,
    }
}

/// Python clients write an absent value as `None`.
fn text_of<'a>(given: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    given
        .get(key)
        .map(String::as_str)
        .filter(|text| !text.is_empty() && *text != "None")
}

fn top_k_max() -> i64 {
    i64::try_from(Limits::TOP_K_MAX).unwrap_or(i64::MAX)
}

fn to_usize(value: i64) -> usize {
    usize::try_from(value).unwrap_or_default()
}

fn check_window(offset: i64, limit: i64) -> Result<(), Failure> {
    let window = offset.saturating_add(limit);
    if window > top_k_max() {
        return Err(Failure::invalid(format_args!(
            "(offset+limit) [{window}] is invalid, it should be in range [1, {}]",
            Limits::TOP_K_MAX
        )));
    }
    Ok(())
}

fn refuse_grouping(given: &BTreeMap<String, String>, inner: &Map<String, Value>) -> Result<(), Failure> {
    for key in ["group_by_field", "group_by_fields", "order_by_fields"] {
        if text_of(given, key).is_some() || inner.contains_key(key) {
            return Err(Failure::unsupported(format_args!("{key} in a search")));
        }
    }
    Ok(())
}

fn iterator_step(given: &BTreeMap<String, String>) -> Result<Option<IteratorStep>, Failure> {
    let on = match text_of(given, "search_iter_v2") {
        Some(text) => pairs::boolean("search_iter_v2", text)?,
        None => false,
    };
    if !on {
        return Ok(None);
    }
    let last_bound = match text_of(given, "search_iter_last_bound") {
        Some(text) => {
            let bound: f32 = text
                .parse()
                .map_err(|_| Failure::invalid("search_iter_last_bound is not a number"))?;
            if bound.is_nan() {
                return Err(Failure::invalid("search_iter_last_bound is not a number"));
            }
            Some(bound)
        }
        None => None,
    };
    Ok(Some(IteratorStep {
        token: text_of(given, "search_iter_id").map(str::to_owned),
        last_bound,
    }))
}

fn search_params(inner: &Map<String, Value>) -> Result<SearchParams, Failure> {
    let radius = float_param(inner, "radius")?;
    let range_filter = float_param(inner, "range_filter")?;
    if range_filter.is_some() && radius.is_none() {
        return Err(Failure::invalid("range_filter should be used with radius"));
    }
    // What the others mean depends on the type of the index, which the engine knows.
    let named = inner.iter().filter_map(|(name, value)| match value {
        Value::String(text) => Some((name.clone(), text.clone())),
        Value::Bool(_) | Value::Number(_) => Some((name.clone(), value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    });
    Ok(SearchParams {
        named: named.collect(),
        radius,
        range_filter,
        ..SearchParams::default()
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "scores are 32-bit; a bound between two scores rounds to one of them"
)]
fn float_param(inner: &Map<String, Value>, key: &str) -> Result<Option<f32>, Failure> {
    let Some(value) = inner.get(key).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let number = value
        .as_f64()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
    match number {
        Some(number) if !number.is_nan() => Ok(Some(number as f32)),
        _ => Err(Failure::invalid(format_args!("{key} should be a number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn given(items: &[(&str, &str)]) -> Vec<KeyValuePair> {
        items
            .iter()
            .map(|(key, value)| KeyValuePair {
                key: (*key).into(),
                value: (*value).into(),
            })
            .collect()
    }

    #[test]
    fn parameters_of_a_python_client() {
        let settings = search_settings(given(&[
            ("topk", "10"),
            ("round_decimal", "-1"),
            ("ignore_growing", "False"),
            ("offset", "5"),
            ("metric_type", "COSINE"),
            ("anns_field", "vector"),
            (
                "params",
                r#"{"ef": 64, "radius": "0.5", "range_filter": 0.9, "metric_type": "COSINE"}"#,
            ),
        ]))
        .unwrap();
        assert_eq!((settings.limit, settings.offset, settings.round_decimal), (10, 5, None));
        assert_eq!(
            (settings.field.as_str(), settings.metric.as_deref()),
            ("vector", Some("COSINE"))
        );
        assert_eq!(
            settings.params,
            SearchParams {
                named: [
                    ("ef", "64"),
                    ("metric_type", "COSINE"),
                    ("radius", "0.5"),
                    ("range_filter", "0.9")
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
                radius: Some(0.5),
                range_filter: Some(0.9),
                ..SearchParams::default()
            }
        );
        assert_eq!(settings.iterator, None);
    }

    #[test]
    fn limits_are_kept() {
        assert!(search_settings(given(&[("topk", "0")])).is_err());
        assert!(search_settings(given(&[("topk", "1")])).is_ok());
        assert!(search_settings(given(&[("topk", "16384")])).is_ok());
        assert!(
            search_settings(given(&[("topk", "16385")]))
                .unwrap_err()
                .reason
                .contains("range [1, 16384]")
        );
        assert!(
            search_settings(given(&[("topk", "16384"), ("offset", "1")]))
                .unwrap_err()
                .reason
                .contains("offset")
        );
        assert!(search_settings(given(&[])).is_err());
        let grouped = search_settings(given(&[("topk", "1"), ("group_by_field", "doc")])).unwrap_err();
        assert!(grouped.reason.contains("group_by_field in a search is not supported"));
        assert!(search_settings(given(&[("topk", "1"), ("params", r#"{"range_filter": 1}"#)])).is_err());
        assert!(query_settings(given(&[("limit", "0")])).is_err());
        assert_eq!(
            query_settings(given(&[("limit", "-1")])),
            Ok(QuerySettings { limit: None, offset: 0 })
        );
    }

    #[test]
    fn steps_of_an_iterator() {
        let step = search_settings(given(&[
            ("topk", "100"),
            ("iterator", "True"),
            ("search_iter_v2", "True"),
            ("search_iter_batch_size", "7"),
            ("search_iter_last_bound", "0.25"),
            ("search_iter_id", "abc"),
        ]))
        .unwrap();
        assert_eq!(step.limit, 7);
        assert_eq!(
            step.iterator,
            Some(IteratorStep {
                token: Some("abc".into()),
                last_bound: Some(0.25)
            })
        );
    }

    proptest! {
        #[test]
        fn any_parameters_are_answered(items in prop::collection::vec(("[a-z_]{0,12}", ".{0,24}"), 0..8)) {
            let pairs: Vec<_> = items.into_iter().map(|(key, value)| KeyValuePair { key, value }).collect();
            let _ = search_settings(pairs.clone());
            let _ = query_settings(pairs);
        }
        #[test]
        fn any_inner_parameters_are_answered(text in ".{0,64}") {
            let _ = search_settings(given(&[("topk", "1"), ("params", &text)]));
        }
    }
}
