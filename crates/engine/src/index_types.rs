//! Types of vector indexes by the names that Milvus's users give: which vectors they take, which parameters they have,
//! and what serves them (`docs/index-types.md`).
//!
//! Two engines serve all names of dense and binary vectors: comparing with every row, and the graph. Parameters are
//! checked by the rules of the type that was named, in the words that clients of Milvus know, so that a mistake is told
//! here as it would be there. What a parameter says about recall is honoured: a search that would probe more clusters
//! gets a longer candidate list, and never less recall than those clusters give.
//!
//! What it deliberately does not do: types of sparse vectors and of scalars.

use saker_model::{DataType, FieldSchema, IndexKind, IndexSpec, MetricType};
use saker_segment::{GraphParams, SearchParams as SegmentParams};
use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    types::{Properties, SearchParams},
};

/// A type of vector index.
#[derive(Debug)]
struct IndexType {
    name: &'static str,
    kind: IndexKind,
    /// Which vectors it takes.
    vectors: Vectors,
    /// Parameters of creation.
    build: &'static [Rule],
    /// Parameters of a search.
    search: &'static [Rule],
}

/// Vectors that a type takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vectors {
    Dense,
    Binary,
    Both,
}

/// What a parameter may be. One that is left out has a default that is good for every collection.
#[derive(Debug)]
enum Rule {
    /// An integer in a range.
    Whole(&'static str, u64, u64),
    /// A number in a range.
    Real(&'static str, f64, f64),
    /// True or false.
    Flag(&'static str),
    /// One of some words; what is said of others.
    Word(&'static str, &'static [&'static str], &'static str),
    /// An integer by which the dimension can be divided.
    Divisor(&'static str, u64, u64),
}

/// Milvus's upper bound where it has none of its own.
const INT_MAX: u64 = i32::MAX as u64;
const NLIST: Rule = Rule::Whole("nlist", 1, 65_536);
const NPROBE: Rule = Rule::Whole("nprobe", 1, 65_536);
const HNSW_M: Rule = Rule::Whole("M", 2, 2_048);
const EF_CONSTRUCTION: Rule = Rule::Whole("efConstruction", 1, INT_MAX);
const EF: Rule = Rule::Whole("ef", 1, INT_MAX);
const REFINE: Rule = Rule::Flag("refine");
const REFINE_TYPE: Rule = Rule::Word(
    "refine_type",
    &["SQ6", "SQ8", "BF16", "FP16", "FP32", "FLAT"],
    "invalid refine type",
);
const REFINE_K: Rule = Rule::Real("refine_k", 1.0, f32::MAX as f64);
const PQ_M: Rule = Rule::Divisor("m", 1, 65_536);
const PQ_NBITS: Rule = Rule::Whole("nbits", 1, 24);
const SQ_TYPE: Rule = Rule::Word(
    "sq_type",
    &["SQ4U", "SQ6", "SQ8", "BF16", "FP16", "INT8"],
    "invalid scalar quantizer type",
);

const TYPES: &[IndexType] = &[
    dense("FLAT", IndexKind::Flat, &[], &[]),
    dense("HNSW", IndexKind::Graph, &[HNSW_M, EF_CONSTRUCTION], &[EF]),
    dense(
        "HNSW_SQ",
        IndexKind::Graph,
        &[HNSW_M, EF_CONSTRUCTION, SQ_TYPE, REFINE, REFINE_TYPE],
        &[EF, REFINE_K],
    ),
    dense(
        "HNSW_PQ",
        IndexKind::Graph,
        &[HNSW_M, EF_CONSTRUCTION, PQ_M, PQ_NBITS, REFINE, REFINE_TYPE],
        &[EF, REFINE_K],
    ),
    dense(
        "HNSW_PRQ",
        IndexKind::Graph,
        &[
            HNSW_M,
            EF_CONSTRUCTION,
            PQ_M,
            PQ_NBITS,
            Rule::Whole("nrq", 1, 16),
            REFINE,
            REFINE_TYPE,
        ],
        &[EF, REFINE_K],
    ),
    dense("IVF_FLAT", IndexKind::Graph, &[NLIST], &[NPROBE]),
    dense("IVF_SQ8", IndexKind::Graph, &[NLIST], &[NPROBE]),
    dense("IVF_PQ", IndexKind::Graph, &[NLIST, PQ_M, PQ_NBITS], &[NPROBE]),
    dense(
        "IVF_RABITQ",
        IndexKind::Graph,
        &[NLIST, REFINE, REFINE_TYPE],
        &[NPROBE, Rule::Whole("rbq_query_bits", 0, 8), REFINE_K],
    ),
    dense(
        "SCANN",
        IndexKind::Graph,
        &[NLIST, Rule::Flag("with_raw_data")],
        &[NPROBE, Rule::Whole("reorder_k", 1, INT_MAX)],
    ),
    dense(
        "DISKANN",
        IndexKind::Graph,
        &[
            Rule::Whole("max_degree", 1, 2_048),
            Rule::Whole("search_list_size", 1, INT_MAX),
        ],
        &[Rule::Whole("search_list", 1, INT_MAX)],
    ),
    binary("BIN_FLAT", &[], &[]),
    binary("BIN_IVF_FLAT", &[NLIST], &[NPROBE]),
];

/// What serves a field if no type is named, or `AUTOINDEX` is.
const AUTOMATIC: IndexType = IndexType {
    name: AUTOINDEX,
    kind: IndexKind::Graph,
    vectors: Vectors::Both,
    build: &[],
    search: &[Rule::Whole("level", 1, LEVEL_MAX), EF],
};
const AUTOINDEX: &str = "AUTOINDEX";
const LEVEL_MAX: u64 = 10;

const fn dense(name: &'static str, kind: IndexKind, build: &'static [Rule], search: &'static [Rule]) -> IndexType {
    IndexType {
        name,
        kind,
        vectors: Vectors::Dense,
        build,
        search,
    }
}

const fn binary(name: &'static str, build: &'static [Rule], search: &'static [Rule]) -> IndexType {
    IndexType {
        name,
        kind: IndexKind::Flat,
        vectors: Vectors::Binary,
        build,
        search,
    }
}

/// What an index of a dense or binary field is to be: kind, name of the type, metric.
///
/// # Errors
/// An unknown type, one for other vectors, a metric for other vectors, a parameter outside its range.
pub(crate) fn vector_index(field: &FieldSchema, params: &Properties) -> Result<(IndexKind, String, MetricType)> {
    let given = Given::new(params)?;
    let asked = given.text("index_type").unwrap_or_default();
    let found = index_type(&asked)?;
    let is_binary = field.data_type == DataType::BinaryVector;
    if found.vectors != Vectors::Both && (found.vectors == Vectors::Binary) != is_binary {
        let (data_type, shown) = (field.data_type.name(), found.name);
        return Err(refused(&format!(
            "data type {data_type} can't build with this index {shown}"
        )));
    }
    let metric = match given.text("metric_type").filter(|name| !name.is_empty()) {
        None => default_metric(field.data_type),
        Some(name) => {
            let known = MetricType::from_name(&name).filter(|metric| takes(field.data_type, *metric));
            known.ok_or_else(|| {
                let kind = if is_binary {
                    "binary"
                } else if field.data_type == DataType::Int8Vector {
                    "int"
                } else {
                    "float"
                };
                refused(&format!(
                    "{kind} vector index does not support metric type: {}",
                    cut(&name)
                ))
            })?
        }
    };
    for rule in found.build {
        rule.check(&given, field.dim)?;
    }
    let kind = if is_binary { IndexKind::Flat } else { found.kind };
    let name = if asked.is_empty() { AUTOINDEX.to_owned() } else { asked };
    Ok((kind, name, metric))
}

/// The metric of an index that names none.
pub(crate) const fn default_metric(data_type: DataType) -> MetricType {
    if matches!(data_type, DataType::BinaryVector) {
        MetricType::Hamming
    } else if matches!(data_type, DataType::SparseFloatVector) {
        MetricType::Ip
    } else {
        MetricType::Cosine
    }
}

/// Whether vectors of a type are compared by a metric.
pub(crate) const fn takes(data_type: DataType, metric: MetricType) -> bool {
    match metric {
        MetricType::L2 | MetricType::Cosine => data_type.is_dense_vector(),
        MetricType::Ip => data_type.is_dense_vector() || matches!(data_type, DataType::SparseFloatVector),
        MetricType::Hamming | MetricType::Jaccard => matches!(data_type, DataType::BinaryVector),
        MetricType::Bm25 => matches!(data_type, DataType::SparseFloatVector),
    }
}

/// Parameters of the graph of an index of dense vectors.
pub(crate) fn graph_params(spec: &IndexSpec) -> GraphParams {
    let mut params = GraphParams::default();
    let Ok(given) = Given::new(&spec.params) else {
        return params;
    };
    // HNSW links a row to M others a layer; its lowest layer, where the searching is done, has twice as many.
    let degree = given.whole("M").map(|links| links.saturating_mul(2));
    if let Some(degree) = degree.or_else(|| given.whole("max_degree")) {
        params.degree = degree.clamp(DEGREE_MIN, GraphParams::DEGREE_MAX);
    }
    if let Some(list) = given
        .whole("efConstruction")
        .or_else(|| given.whole("search_list_size"))
    {
        params.build_list = list.clamp(params.degree, GraphParams::BUILD_LIST_MAX);
    }
    params
}

/// How long the candidate list of a graph search has to be: 0 for the graph's default, [`EXACT`] to compare with every
/// row. The settings are checked by the rules of the index's type; `hits` is how many the caller asked for, where a list
/// below that is a mistake.
///
/// # Errors
/// A setting outside its range.
pub(crate) fn list_length(spec: Option<&IndexSpec>, params: &SearchParams, hits: Option<usize>) -> Result<usize> {
    let Some(spec) = spec else {
        return Ok(params.ef.unwrap_or(0));
    };
    let Ok(found) = index_type(&spec.type_name) else {
        return Ok(params.ef.unwrap_or(0));
    };
    let given = Given::new(&params.named)?;
    for rule in found.search {
        rule.check(&given, 0)?;
    }
    for (name, shown) in [
        ("ef", "ef"),
        ("search_list", "search_list_size"),
        ("reorder_k", "reorder_k"),
    ] {
        let has = found.search.iter().any(|rule| rule.name() == name);
        if let (true, Some(length), Some(hits)) = (has, given.whole(name), hits)
            && length < hits
        {
            return Err(Error::invalid(format!(
                "{shown}({length}) should be larger than k({hits})"
            )));
        }
    }
    let has = |name: &str| found.search.iter().any(|rule| rule.name() == name);
    if has("nprobe") {
        let built = Given::new(&spec.params)?;
        let clusters = built.whole("nlist").unwrap_or(NLIST_DEFAULT);
        return Ok(list_of_probes(
            given.whole("nprobe").unwrap_or(NPROBE_DEFAULT),
            clusters,
        ));
    }
    let list = ["ef", "search_list"]
        .iter()
        .filter(|name| has(name))
        .find_map(|name| given.whole(name))
        .or(params.ef);
    Ok(match (list, given.whole("level")) {
        (Some(list), _) => list,
        (None, Some(level)) if has("level") => list_of_level(level),
        (None, _) => 0,
    })
}

/// A candidate list that finds what is in the `probes` nearest of `clusters` clusters, and more.
///
/// Measured against clusters of real embeddings (`docs/index-types.md`): recall of the list is above that of the probes
/// for every share, and grows with it. From a large share on, every row is compared, for that is what is asked.
fn list_of_probes(probes: usize, clusters: usize) -> usize {
    let share = probes as f64 / clusters.max(1) as f64;
    if share >= EXACT_SHARE {
        return EXACT;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share is from 0 to 1, the product is small"
    )]
    let longer = (share * share * LIST_PER_SQUARED_SHARE) as usize;
    saker_segment::GraphIndex::EF_DEFAULT + longer
}

/// A candidate list for a level of `AUTOINDEX`: the default one for level 1, up to ten times that.
fn list_of_level(level: usize) -> usize {
    level * saker_segment::GraphIndex::EF_DEFAULT
}

/// Stands for a list of all rows.
const EXACT: usize = SegmentParams::EXACT;
/// Clusters that are probed, and clusters, where a user of an IVF type says nothing: as in Milvus.
const NPROBE_DEFAULT: usize = 8;
const NLIST_DEFAULT: usize = 128;
/// The share of all clusters from which on every row is compared: clusters miss less than one in a thousand there.
const EXACT_SHARE: f64 = 0.2;
/// How much longer the list is, times the square of the share.
const LIST_PER_SQUARED_SHARE: f64 = 250_000.0;
/// Smallest degree of a graph; less would leave rows that no walk reaches.
const DEGREE_MIN: usize = 8;

fn index_type(name: &str) -> Result<&'static IndexType> {
    if name.is_empty() || name.eq_ignore_ascii_case(AUTOINDEX) {
        return Ok(&AUTOMATIC);
    }
    if let Some(found) = TYPES.iter().find(|known| known.name.eq_ignore_ascii_case(name)) {
        return Ok(found);
    }
    let shown = cut(name);
    if name.len() > 4 && name.as_bytes()[..4].eq_ignore_ascii_case(b"GPU_") {
        return Err(refused(&format!(
            "invalid index type: {shown}. This server has no GPU; use HNSW, IVF_FLAT or AUTOINDEX"
        )));
    }
    Err(refused(&format!("invalid index type: {shown}")))
}

impl Rule {
    const fn name(&self) -> &'static str {
        match self {
            Self::Whole(name, ..)
            | Self::Real(name, ..)
            | Self::Flag(name)
            | Self::Word(name, ..)
            | Self::Divisor(name, ..) => name,
        }
    }

    /// Checks the parameter if it is given. `dim` is 0 where there is none to divide.
    fn check(&self, given: &Given<'_>, dim: usize) -> Result<()> {
        let name = self.name();
        let Some(text) = given.text(name) else {
            return Ok(());
        };
        let shown = cut(&text);
        let wrong = |kind: &str| {
            Err(refused(&format!(
                "invalid {kind} value, key: '{name}', value: '{shown}'"
            )))
        };
        let outside = |min: &dyn std::fmt::Display, max: &dyn std::fmt::Display| {
            Err(refused(&format!(
                "Out of range in json: param '{name}' ({shown}) should be in range [{min}, {max}]"
            )))
        };
        match self {
            Self::Whole(_, min, max) | Self::Divisor(_, min, max) => {
                // Wide enough for whatever a client may write; a negative one is an integer out of range.
                let Ok(value) = text.trim().parse::<i128>() else {
                    return wrong("integer");
                };
                if value < i128::from(*min) || value > i128::from(*max) {
                    return outside(min, max);
                }
                let divides = usize::try_from(value).is_ok_and(|value| dim.is_multiple_of(value));
                if matches!(self, Self::Divisor(..)) && !divides {
                    return Err(refused(&format!(
                        "The dimension of a vector (dim) should be a multiple of the number of subquantizers (m). Dimension:{dim}, m:{value}"
                    )));
                }
                Ok(())
            }
            Self::Real(_, min, max) => match text.trim().parse::<f64>() {
                Ok(value) if (*min..=*max).contains(&value) => Ok(()),
                Ok(_) => outside(min, max),
                Err(_) => wrong("float"),
            },
            Self::Flag(_) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "false" => Ok(()),
                _ => wrong("boolean"),
            },
            Self::Word(_, words, refusal) => {
                if words.iter().any(|word| word.eq_ignore_ascii_case(text.trim())) {
                    Ok(())
                } else {
                    Err(refused(&format!("{refusal}: {shown}")))
                }
            }
        }
    }
}

/// Parameters, beside `index_type` or in the JSON text under `params`.
pub(crate) struct Given<'a> {
    plain: &'a Properties,
    nested: Map<String, Value>,
}

impl<'a> Given<'a> {
    pub(crate) fn new(plain: &'a Properties) -> Result<Self> {
        let nested = match plain.get("params").map(|text| text.trim()) {
            None | Some("") => Map::new(),
            Some(text) => serde_json::from_str(text)
                .map_err(|_| refused("params of an index should be the text of a JSON object"))?,
        };
        Ok(Self { plain, nested })
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        if let Some(text) = self.plain.get(name) {
            return Some(text.clone());
        }
        match self.nested.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => Some(value.to_string()),
        }
    }

    fn whole(&self, name: &str) -> Option<usize> {
        self.text(name)?.trim().parse().ok()
    }
}

pub(crate) fn refused(reason: &str) -> Error {
    Error::invalid(format!(
        "{reason}: invalid parameter[expected=valid index params][actual=invalid index params]"
    ))
}

pub(crate) fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use saker_model::FieldId;

    use super::*;

    fn field(data_type: DataType, dim: usize) -> FieldSchema {
        FieldSchema {
            id: FieldId(101),
            name: "vector".into(),
            description: String::new(),
            data_type,
            element_type: None,
            is_primary: false,
            auto_id: false,
            is_partition_key: false,
            is_dynamic: false,
            nullable: false,
            default_value: None,
            dim,
            max_length: 0,
            max_capacity: 0,
            type_params: BTreeMap::new(),
        }
    }

    fn params(pairs: &[(&str, &str)]) -> Properties {
        pairs
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect()
    }

    fn made(data_type: DataType, pairs: &[(&str, &str)]) -> Result<(IndexKind, String, MetricType)> {
        vector_index(&field(data_type, 128), &params(pairs))
    }

    fn spec(type_name: &str, pairs: &[(&str, &str)]) -> IndexSpec {
        IndexSpec {
            name: "vector".into(),
            field: FieldId(101),
            kind: IndexKind::Graph,
            type_name: type_name.into(),
            metric: Some(MetricType::L2),
            params: params(pairs),
        }
    }

    fn searched(type_name: &str, built: &[(&str, &str)], pairs: &[(&str, &str)], hits: usize) -> Result<usize> {
        let settings = SearchParams {
            named: params(pairs),
            ..SearchParams::default()
        };
        list_length(Some(&spec(type_name, built)), &settings, Some(hits))
    }

    const DENSE: [DataType; 4] = [
        DataType::FloatVector,
        DataType::Float16Vector,
        DataType::BFloat16Vector,
        DataType::Int8Vector,
    ];

    #[test]
    fn every_name_takes_its_vectors_and_no_others() {
        for known in TYPES {
            for data_type in DENSE {
                let outcome = made(data_type, &[("index_type", known.name)]);
                if known.vectors == Vectors::Dense {
                    assert_eq!(
                        outcome.unwrap(),
                        (known.kind, known.name.to_owned(), MetricType::Cosine)
                    );
                } else {
                    let said = format!(
                        "data type {} can't build with this index {}",
                        data_type.name(),
                        known.name
                    );
                    assert!(outcome.unwrap_err().message.contains(&said));
                }
            }
            let outcome = made(DataType::BinaryVector, &[("index_type", known.name)]);
            assert_eq!(outcome.is_ok(), known.vectors == Vectors::Binary, "{}", known.name);
        }
        for name in ["", "AUTOINDEX", "autoindex"] {
            assert_eq!(
                made(DataType::Int8Vector, &[("index_type", name)]).unwrap().0,
                IndexKind::Graph
            );
            assert_eq!(
                made(DataType::BinaryVector, &[("index_type", name)]).unwrap().0,
                IndexKind::Flat
            );
        }
        for (name, said) in [("GPU_CAGRA", "has no GPU"), ("HNSW2", "invalid index type: HNSW2")] {
            let error = made(DataType::FloatVector, &[("index_type", name)]).unwrap_err();
            assert!(error.message.contains(said), "{}", error.message);
        }
    }

    #[test]
    fn metrics_are_those_of_the_vectors() {
        for data_type in DENSE {
            for metric in ["L2", "IP", "COSINE", "cosine"] {
                assert!(made(data_type, &[("index_type", "HNSW"), ("metric_type", metric)]).is_ok());
            }
            for metric in ["HAMMING", "JACCARD", "BM25", "LP"] {
                let error = made(data_type, &[("index_type", "HNSW"), ("metric_type", metric)]).unwrap_err();
                let said = format!("vector index does not support metric type: {metric}");
                assert!(error.message.contains(&said), "{}", error.message);
            }
        }
        for (metric, fits) in [
            ("HAMMING", true),
            ("JACCARD", true),
            ("L2", false),
            ("IP", false),
            ("COSINE", false),
        ] {
            let outcome = made(
                DataType::BinaryVector,
                &[("index_type", "BIN_FLAT"), ("metric_type", metric)],
            );
            assert_eq!(outcome.is_ok(), fits, "{metric}");
        }
    }

    #[test]
    fn build_parameters_keep_to_their_ranges() {
        for (name, key, low, high) in [
            ("HNSW", "M", 2u64, 2_048),
            ("HNSW_SQ", "efConstruction", 1, INT_MAX),
            ("HNSW_PRQ", "nrq", 1, 16),
            ("IVF_FLAT", "nlist", 1, 65_536),
            ("IVF_RABITQ", "nlist", 1, 65_536),
            ("IVF_PQ", "nbits", 1, 24),
            ("DISKANN", "max_degree", 1, 2_048),
        ] {
            for (value, fits) in [(low - 1, false), (low, true), (high, true), (high + 1, false)] {
                let text = value.to_string();
                let nested = format!("{{\"{key}\": {value}}}");
                for pairs in [
                    [("index_type", name), (key, &text)],
                    [("index_type", name), ("params", &nested)],
                ] {
                    let outcome = made(DataType::FloatVector, &pairs);
                    assert_eq!(outcome.is_ok(), fits, "{name} {key} {value}");
                    if let Err(error) = outcome {
                        let said = format!("param '{key}' ({value}) should be in range [{low}, {high}]");
                        assert!(error.message.contains(&said), "{}", error.message);
                    }
                }
            }
        }
        let refusals = [
            (
                "IVF_PQ",
                "m",
                "7",
                "should be a multiple of the number of subquantizers (m). Dimension:128, m:7",
            ),
            ("HNSW", "M", "many", "invalid integer value, key: 'M', value: 'many'"),
            ("HNSW", "M", "-4", "should be in range [2, 2048]"),
            ("HNSW_SQ", "sq_type", "SQ5", "invalid scalar quantizer type"),
            ("HNSW_SQ", "refine", "perhaps", "invalid boolean value"),
            ("HNSW_PQ", "refine_type", "FP64", "invalid refine type"),
            ("SCANN", "with_raw_data", "2", "invalid boolean value"),
        ];
        for (name, key, value, said) in refusals {
            let error = made(DataType::FloatVector, &[("index_type", name), (key, value)]).unwrap_err();
            assert!(error.message.contains(said), "{}", error.message);
        }
        for (name, key, value) in [
            ("IVF_PQ", "m", "8"),
            ("HNSW_SQ", "sq_type", "SQ4U"),
            ("HNSW_SQ", "refine", "True"),
            ("SCANN", "with_raw_data", "False"),
            ("HNSW", "mmap.enabled", "true"),
        ] {
            assert!(made(DataType::FloatVector, &[("index_type", name), (key, value)]).is_ok());
        }
        assert!(made(DataType::FloatVector, &[("params", "[1]")]).is_err());
    }

    #[test]
    fn a_list_below_the_hits_wanted_is_refused_as_in_milvus() {
        let said = |outcome: Result<usize>| outcome.unwrap_err().message;
        assert_eq!(
            said(searched("HNSW", &[], &[("ef", "9")], 10)),
            "ef(9) should be larger than k(10)"
        );
        assert_eq!(searched("HNSW", &[], &[("ef", "10")], 10).unwrap(), 10);
        assert_eq!(
            said(searched("DISKANN", &[], &[("search_list", "5")], 6)),
            "search_list_size(5) should be larger than k(6)"
        );
        assert_eq!(
            said(searched("SCANN", &[], &[("reorder_k", "5")], 6)),
            "reorder_k(5) should be larger than k(6)"
        );
        // Settings of other types have no say.
        assert!(searched("IVF_FLAT", &[], &[("ef", "5")], 6).is_ok());
        for (name, key, low, high) in [
            ("HNSW", "ef", 1u64, INT_MAX),
            ("IVF_SQ8", "nprobe", 1, 65_536),
            ("AUTOINDEX", "level", 1, LEVEL_MAX),
            ("BIN_IVF_FLAT", "nprobe", 1, 65_536),
        ] {
            for (value, fits) in [(low - 1, false), (low, true), (high, true), (high + 1, false)] {
                let outcome = searched(name, &[], &[(key, &value.to_string())], 1);
                assert_eq!(outcome.is_ok(), fits, "{name} {key} {value}");
            }
        }
        assert!(said(searched("HNSW_SQ", &[], &[("refine_k", "0.5")], 1)).contains("'refine_k' (0.5)"));
    }

    #[test]
    fn more_probes_never_mean_a_shorter_list() {
        for clusters in [1usize, 2, 128, 1_024, 65_536] {
            let lists: Vec<usize> = (0..=16)
                .map(|step| (clusters * step / 16).max(1))
                .map(|probes| {
                    let (built, asked) = (clusters.to_string(), probes.to_string());
                    searched("IVF_FLAT", &[("nlist", &built)], &[("nprobe", &asked)], 10).unwrap()
                })
                .collect();
            assert!(lists.is_sorted(), "{lists:?}");
            assert_eq!(lists[16], EXACT);
        }
        assert!((1..=10).map(list_of_level).is_sorted());
        assert_eq!(searched("AUTOINDEX", &[], &[], 10).unwrap(), 0);
        assert_eq!(searched("AUTOINDEX", &[], &[("ef", "77")], 10).unwrap(), 77);
    }

    #[test]
    fn graphs_are_built_as_their_parameters_say() {
        let degree = |name, pairs: &[(&str, &str)]| graph_params(&spec(name, pairs)).degree;
        assert_eq!(degree("HNSW", &[("M", "16")]), 32);
        assert_eq!(degree("HNSW", &[("params", "{\"M\": \"24\"}")]), 48);
        assert_eq!(degree("HNSW", &[("M", "2048")]), GraphParams::DEGREE_MAX);
        assert_eq!(degree("HNSW", &[("M", "2")]), DEGREE_MIN);
        assert_eq!(degree("DISKANN", &[("max_degree", "56")]), 56);
        assert_eq!(
            graph_params(&spec("HNSW", &[("efConstruction", "300")])).build_list,
            300
        );
        assert_eq!(
            graph_params(&spec("IVF_FLAT", &[("nlist", "9")])),
            GraphParams::default()
        );
    }
}
