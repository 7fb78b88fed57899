//! Types of sparse vector indexes by the names that Milvus's users give, and the settings of their searches.
//!
//! One inverted index serves all names and all algorithms; every search of it is exact unless a setting says that small
//! values may be passed over.

use saker_model::{CollectionSchema, FieldSchema, IndexKind, IndexSpec, MetricType};

use crate::{
    error::{Error, Result},
    index_types::{Given, cut, refused},
    types::Properties,
};

/// How a sparse field is searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SparseSettings {
    /// Share of the query's smallest values that finding candidates passes over.
    pub(crate) drop_ratio: f32,
    /// Whether what cannot be a hit is passed over; all algorithms but the naive one do.
    pub(crate) prune: bool,
    /// BM25's.
    pub(crate) k1: f32,
    /// BM25's.
    pub(crate) b: f32,
}

/// What an index of a sparse field is to be: kind, name of the type, metric.
///
/// # Errors
/// An unknown type, one for other vectors, a metric for other vectors, a parameter outside its range.
pub(crate) fn sparse_index(
    schema: &CollectionSchema,
    field: &FieldSchema,
    params: &Properties,
) -> Result<(IndexKind, String, MetricType)> {
    let given = Given::new(params)?;
    let asked = given.text("index_type").unwrap_or_default();
    let name = if asked.is_empty() { AUTOINDEX.to_owned() } else { asked };
    if !NAMES.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
        return Err(refused(&format!(
            "data type SparseFloatVector can't build with this index {}",
            cut(&name)
        )));
    }
    let made = schema.is_function_output(field);
    let metric = match given.text("metric_type").filter(|name| !name.is_empty()) {
        None => default_metric(schema, field),
        Some(name) => match MetricType::from_name(&name) {
            Some(metric @ (MetricType::Ip | MetricType::Bm25)) => metric,
            Some(_) | None => return Err(refused("only IP&BM25 is the supported metric type for sparse index")),
        },
    };
    if made && metric != MetricType::Bm25 {
        let actual = metric.name();
        return Err(refused(&format!(
            "index metric type of BM25 function output field must be BM25, got {actual}"
        )));
    }
    if !made && metric == MetricType::Bm25 {
        return Err(refused("only BM25 Function output field support BM25 metric type"));
    }
    ratio(&given, "drop_ratio_build")?;
    read(&given, &Given::new(&Properties::new())?)?;
    Ok((IndexKind::Sparse, name, metric))
}

/// The metric of a sparse field without an index.
pub(crate) fn default_metric(schema: &CollectionSchema, field: &FieldSchema) -> MetricType {
    if schema.is_function_output(field) {
        MetricType::Bm25
    } else {
        MetricType::Ip
    }
}

/// The settings of a search: those of the request, else those of the index.
///
/// # Errors
/// A setting outside its range.
pub(crate) fn settings(spec: Option<&IndexSpec>, named: &Properties) -> Result<SparseSettings> {
    let none = Properties::new();
    let built = Given::new(spec.map_or(&none, |spec| &spec.params))?;
    read(&Given::new(named)?, &built)
}

/// Share of the smallest values that an index leaves out.
pub(crate) fn drop_ratio_build(spec: &IndexSpec) -> f32 {
    let given = Given::new(&spec.params).ok();
    given
        .and_then(|given| ratio(&given, "drop_ratio_build").ok().flatten())
        .unwrap_or(0.0)
}

fn read(given: &Given<'_>, built: &Given<'_>) -> Result<SparseSettings> {
    let either = |name: &str, max: f64| match number(given, name, max)? {
        Some(value) => Ok(Some(value)),
        None => number(built, name, max),
    };
    let algorithm = given.text(ALGORITHM).or_else(|| built.text(ALGORITHM));
    if let Some(name) = &algorithm
        && !ALGORITHMS.contains(&name.as_str())
    {
        return Err(refused(&format!(
            "sparse inverted index algo {} not found or not supported, supported: [{}]",
            cut(name),
            ALGORITHMS.join(" ")
        )));
    }
    let (k1, b) = (either("bm25_k1", K1_MAX)?, either("bm25_b", 1.0)?);
    Ok(SparseSettings {
        drop_ratio: ratio(given, "drop_ratio_search")?.unwrap_or(0.0),
        prune: algorithm.as_deref() != Some(NAIVE),
        k1: k1.unwrap_or(K1_DEFAULT),
        b: b.unwrap_or(B_DEFAULT),
    })
}

/// A share: from 0 to below 1.
fn ratio(given: &Given<'_>, name: &str) -> Result<Option<f32>> {
    match number(given, name, 1.0)? {
        Some(value) if value >= 1.0 => Err(outside(name, "1", "[0, 1)")),
        value => Ok(value),
    }
}

fn number(given: &Given<'_>, name: &str, max: f64) -> Result<Option<f32>> {
    let Some(text) = given.text(name) else { return Ok(None) };
    let value: f64 = text
        .trim()
        .parse()
        .map_err(|_| refused(&format!("invalid float value, key: '{name}', value: '{}'", cut(&text))))?;
    if !(0.0..=max).contains(&value) {
        return Err(outside(name, &cut(&text), &format!("[0, {max}]")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "a setting between 0 and 3")]
    let value = value as f32;
    Ok(Some(value))
}

fn outside(name: &str, shown: &str, range: &str) -> Error {
    refused(&format!(
        "Out of range in json: param '{name}' ({shown}) should be in range {range}"
    ))
}

const AUTOINDEX: &str = "AUTOINDEX";
const NAMES: [&str; 3] = [AUTOINDEX, "SPARSE_INVERTED_INDEX", "SPARSE_WAND"];
const ALGORITHM: &str = "inverted_index_algo";
const ALGORITHMS: [&str; 3] = [NAIVE, "DAAT_WAND", "DAAT_MAXSCORE"];
const NAIVE: &str = "TAAT_NAIVE";
/// Milvus's own.
const K1_MAX: f64 = 3.0;
const K1_DEFAULT: f32 = 1.2;
const B_DEFAULT: f32 = 0.75;

#[cfg(test)]
mod tests {
    use saker_model::{DataType, FieldId, FunctionKind, FunctionSchema};

    use super::*;

    fn schema(function: bool) -> CollectionSchema {
        let field = FieldSchema {
            id: FieldId(101),
            name: "terms".into(),
            description: String::new(),
            data_type: DataType::SparseFloatVector,
            element_type: None,
            is_primary: false,
            auto_id: false,
            is_partition_key: false,
            is_dynamic: false,
            nullable: false,
            default_value: None,
            dim: 0,
            max_length: 0,
            max_capacity: 0,
            type_params: Properties::new(),
        };
        let bm25 = FunctionSchema {
            id: 100,
            name: "bm25".into(),
            description: String::new(),
            kind: FunctionKind::Bm25,
            inputs: vec!["body".into()],
            outputs: vec!["terms".into()],
        };
        CollectionSchema {
            name: "books".into(),
            description: String::new(),
            fields: vec![field],
            enable_dynamic_field: false,
            functions: if function { vec![bm25] } else { Vec::new() },
        }
    }

    fn made(function: bool, pairs: &[(&str, &str)]) -> Result<(IndexKind, String, MetricType)> {
        let schema = schema(function);
        let params = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        sparse_index(&schema, &schema.fields[0], &params)
    }

    #[test]
    fn names_and_metrics_are_milvus_s() {
        assert_eq!(
            made(false, &[]).unwrap(),
            (IndexKind::Sparse, "AUTOINDEX".into(), MetricType::Ip)
        );
        assert_eq!(made(true, &[]).unwrap().2, MetricType::Bm25);
        for name in ["SPARSE_INVERTED_INDEX", "SPARSE_WAND", "AUTOINDEX", "sparse_wand"] {
            assert!(made(false, &[("index_type", name), ("metric_type", "IP")]).is_ok());
            assert!(made(true, &[("index_type", name), ("metric_type", "BM25")]).is_ok());
        }
        let refused = |function, pairs: &[(&str, &str)], part: &str| {
            let message = made(function, pairs).unwrap_err().message;
            assert!(message.contains(part), "{message} lacks {part}");
        };
        refused(
            false,
            &[("index_type", "HNSW")],
            "data type SparseFloatVector can't build with this index HNSW",
        );
        refused(
            false,
            &[("metric_type", "L2")],
            "only IP&BM25 is the supported metric type for sparse index",
        );
        refused(
            false,
            &[("metric_type", "BM25")],
            "only BM25 Function output field support BM25",
        );
        refused(true, &[("metric_type", "IP")], "must be BM25, got IP");
        refused(
            false,
            &[("drop_ratio_build", "1")],
            "param 'drop_ratio_build' (1) should be in range [0, 1)",
        );
        refused(
            false,
            &[("params", r#"{"drop_ratio_build": -0.1}"#)],
            "drop_ratio_build",
        );
        refused(
            true,
            &[("bm25_k1", "3.5")],
            "param 'bm25_k1' (3.5) should be in range [0, 3]",
        );
        refused(true, &[("bm25_b", "x")], "invalid float value, key: 'bm25_b'");
        refused(
            false,
            &[("inverted_index_algo", "FASTEST")],
            "supported: [TAAT_NAIVE DAAT_WAND DAAT_MAXSCORE]",
        );
    }

    #[test]
    fn a_search_s_settings_come_before_the_index_s() {
        let properties = |pairs: &[(&str, &str)]| -> Properties {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let spec = IndexSpec {
            name: "terms".into(),
            field: FieldId(101),
            kind: IndexKind::Sparse,
            type_name: "SPARSE_INVERTED_INDEX".into(),
            metric: Some(MetricType::Bm25),
            params: properties(&[(
                "params",
                r#"{"bm25_k1": 1.5, "inverted_index_algo": "TAAT_NAIVE", "drop_ratio_build": 0.2}"#,
            )]),
        };
        let found = settings(
            Some(&spec),
            &properties(&[("bm25_b", "0.5"), ("drop_ratio_search", "0.3")]),
        )
        .unwrap();
        assert_eq!(
            found,
            SparseSettings {
                drop_ratio: 0.3,
                prune: false,
                k1: 1.5,
                b: 0.5
            }
        );
        let found = settings(None, &Properties::new()).unwrap();
        assert_eq!(
            found,
            SparseSettings {
                drop_ratio: 0.0,
                prune: true,
                k1: 1.2,
                b: 0.75
            }
        );
        assert!((drop_ratio_build(&spec) - 0.2).abs() < 1e-6);
        assert!(settings(None, &properties(&[("drop_ratio_search", "1.0")])).is_err());
    }
}
