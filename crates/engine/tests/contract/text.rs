//! Sparse vectors, functions of a schema, and searches by text.

use std::collections::HashMap;

use crate::common::{Cluster, count, eventually, field, filter, ints, loaded, query_request, spec_of};
use saker_engine::{
    AnalyzeRequest, CollectionSpec, Engine, Error, ErrorKind, FieldName, IndexRequest, Queries, SearchRequest,
};
use saker_model::{
    Bitmap, Column, ColumnData, DataType, FieldId, FieldSchema, FunctionKind, FunctionSchema, RowBatch, SparseVector,
};

const DB: &str = "zone";

fn text_spec(name: &str) -> CollectionSpec {
    let mut id = field("id", DataType::Int64);
    id.is_primary = true;
    let mut body = field("body", DataType::VarChar);
    body.max_length = 1_000;
    body.nullable = true;
    body.type_params = [
        (FieldSchema::ENABLE_ANALYZER, "true"),
        (FieldSchema::ANALYZER_PARAMS, r#"{"type": "english"}"#),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let mut terms = field("terms", DataType::SparseFloatVector);
    terms.dim = 0;
    let mut spec = spec_of(name, vec![id, body, terms], false);
    spec.schema.functions.push(FunctionSchema {
        id: 0,
        name: "bm25".into(),
        description: String::new(),
        kind: FunctionKind::Bm25,
        inputs: vec!["body".into()],
        outputs: vec!["terms".into()],
    });
    spec
}

async fn index(engine: &Engine, name: &str, field: &str, pairs: &[(&str, &str)]) -> Result<(), Error> {
    let params = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let request = IndexRequest {
        field: field.into(),
        name: None,
        params: params.collect(),
    };
    engine.create_index(DB, name, request).await
}

fn texts(first: i64, texts: &[&str]) -> RowBatch {
    let keys = (first..).take(texts.len()).collect();
    let present = Bitmap::from_bools(texts.iter().map(|text| !text.is_empty()));
    RowBatch::new(vec![
        Column::full(FieldId(100), ColumnData::Int64(keys)),
        Column {
            field: FieldId(101),
            data: ColumnData::VarChar(texts.iter().map(|text| (*text).to_owned()).collect()),
            validity: Some(present),
        },
    ])
    .unwrap()
}

fn by_text(name: &str, words: &str, limit: usize) -> SearchRequest {
    SearchRequest {
        database: DB.into(),
        collection: name.into(),
        field: "terms".into(),
        queries: Queries::Text(vec![words.into()]),
        queries_count: 1,
        limit,
        ..SearchRequest::default()
    }
}

async fn found(engine: &Engine, words: &str) -> Vec<(i64, f32)> {
    let found = engine.search(by_text("books", words, 10)).await.unwrap();
    ints(&found.ids).into_iter().zip(found.scores).collect()
}

/// BM25 by the book, over terms that are cut by hand.
fn bm25(rows: &[(i64, Vec<&str>)], query: &[&str], k1: f64, b: f64) -> Vec<(i64, f64)> {
    let count = rows.len() as f64;
    let average = rows.iter().map(|(_, terms)| terms.len() as f64).sum::<f64>() / count;
    let mut scores: HashMap<i64, f64> = HashMap::new();
    for term in query {
        let with = rows.iter().filter(|(_, terms)| terms.contains(term)).count() as f64;
        let rarity = (1.0 + (count - with + 0.5) / (with + 0.5)).ln();
        for (id, terms) in rows {
            let frequency = terms.iter().filter(|found| *found == term).count() as f64;
            if frequency > 0.0 {
                let length = terms.len() as f64;
                let part = frequency * (k1 + 1.0) / (frequency + k1 * (1.0 - b + b * length / average));
                *scores.entry(*id).or_default() += rarity * part;
            }
        }
    }
    let mut ranked: Vec<(i64, f64)> = scores.into_iter().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked
}

fn close(found: &[(i64, f32)], expected: &[(i64, f64)]) {
    let ids = |list: Vec<i64>| list;
    assert_eq!(
        ids(found.iter().map(|hit| hit.0).collect()),
        ids(expected.iter().map(|hit| hit.0).collect())
    );
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(found.1) - expected.1).abs() < 1e-5, "{found:?} {expected:?}");
    }
}

/// The texts below, as the English analyzer cuts them.
fn library() -> (Vec<&'static str>, Vec<(i64, Vec<&'static str>)>) {
    let texts = vec![
        "The falcon hunts at dawn",
        "Falcons and hawks hunting",
        "A hawk, a hawk and a falcon",
        "",
        "Nothing of the kind: dawn",
        "the of and",
    ];
    let cut = vec![
        (0, vec!["falcon", "hunt", "dawn"]),
        (1, vec!["falcon", "hawk", "hunt"]),
        (2, vec!["hawk", "hawk", "falcon"]),
        (3, vec![]),
        (4, vec!["noth", "kind", "dawn"]),
        (5, vec![]),
    ];
    (texts, cut)
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_ranked_by_the_formula_over_all_segments() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    engine.create_collection(DB, text_spec("books")).await.unwrap();
    index(
        &engine,
        "books",
        "terms",
        &[("index_type", "SPARSE_INVERTED_INDEX"), ("metric_type", "BM25")],
    )
    .await
    .unwrap();
    engine.load_collection(DB, "books").await.unwrap();
    loaded(&engine, DB, "books").await;
    let (all, cut) = library();
    engine.insert(DB, "books", None, texts(0, &all[..3])).await.unwrap();
    engine.flush(DB, &["books".into()]).await.unwrap();
    // One part is sealed, one grows: the numbers are those of both.
    engine.insert(DB, "books", None, texts(3, &all[3..])).await.unwrap();
    for (words, query) in [
        ("hunting falcons", vec!["hunt", "falcon"]),
        ("HAWK", vec!["hawk"]),
        ("dawn dawn kind", vec!["dawn", "dawn", "kind"]),
        ("the unknown", vec![]),
    ] {
        close(&found(&engine, words).await, &bm25(&cut, &query, 1.2, 0.75));
    }
    let mut request = by_text("books", "falcon hawk", 10);
    request.params.named = [("bm25_k1", "2"), ("bm25_b", "0.25")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let other = engine.search(request).await.unwrap();
    let other: Vec<_> = ints(&other.ids).into_iter().zip(other.scores).collect();
    close(&other, &bm25(&cut, &["falcon", "hawk"], 2.0, 0.25));

    // Filters, several queries, output fields.
    let mut request = by_text("books", "falcon", 10);
    request.queries = Queries::Text(vec!["falcon".into(), "dawn".into()]);
    request.queries_count = 2;
    request.filter = filter("id > 0");
    request.output_fields = vec!["*".into()];
    let both = engine.search(request).await.unwrap();
    assert_eq!(both.hits_per_query, [2, 1]);
    assert_eq!(ints(&both.ids)[2], 4);
    let names: Vec<&str> = both.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "body"]);
    engine.shutdown().await;
    drop(engine);

    let engine = cluster.open().await;
    loaded(&engine, DB, "books").await;
    close(
        &found(&engine, "hunting falcons").await,
        &bm25(&cut, &["hunt", "falcon"], 1.2, 0.75),
    );
    assert_eq!(count(&engine, DB, "books").await, 6);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_in_a_file_gives_the_same_and_survives_a_restart() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    engine.create_collection(DB, text_spec("books")).await.unwrap();
    let many: Vec<String> = (0..700)
        .map(|row| format!("row{} shared{} filler", row % 50, row % 7))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    engine.insert(DB, "books", None, texts(0, &many)).await.unwrap();
    index(&engine, "books", "terms", &[("index_type", "AUTOINDEX")])
        .await
        .unwrap();
    engine.load_collection(DB, "books").await.unwrap();
    loaded(&engine, DB, "books").await;
    let before = found(&engine, "row17 shared3").await;
    assert_eq!(before.len(), 10);
    engine.flush(DB, &["books".into()]).await.unwrap();
    assert_eq!(found(&engine, "row17 shared3").await, before);
    index(&engine, "books", "terms", &[("index_type", "AUTOINDEX")])
        .await
        .unwrap();
    eventually("the index is built", || async {
        let segments = engine.segments(DB, "books").await.unwrap();
        segments.iter().all(|segment| !segment.indexes.is_empty())
    })
    .await;
    assert_eq!(found(&engine, "row17 shared3").await, before);
    let described = engine.describe_index(DB, "books", "terms").await.unwrap();
    assert_eq!((described[0].indexed_rows, described[0].total_rows), (700, 700));
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, DB, "books").await;
    assert_eq!(found(&engine, "row17 shared3").await, before);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_functions_make_is_neither_given_nor_taken() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    engine.create_collection(DB, text_spec("books")).await.unwrap();
    index(&engine, "books", "terms", &[]).await.unwrap();
    engine.load_collection(DB, "books").await.unwrap();
    loaded(&engine, DB, "books").await;
    let mut columns = texts(0, &["a falcon"]).into_columns();
    columns.push(Column::full(
        FieldId(102),
        ColumnData::SparseFloatVector {
            data: vec![SparseVector::default()],
        },
    ));
    let given = engine
        .insert(DB, "books", None, RowBatch::new(columns).unwrap())
        .await
        .unwrap_err();
    assert!(
        given.kind == ErrorKind::SchemaMismatch && given.message.contains("output of a function"),
        "{given:?}"
    );
    engine
        .upsert(DB, "books", None, texts(0, &["a falcon", "a hawk"]))
        .await
        .unwrap();
    engine
        .upsert(DB, "books", None, texts(1, &["another falcon"]))
        .await
        .unwrap();
    assert_eq!(found(&engine, "falcon").await.len(), 2);
    assert_eq!(found(&engine, "hawk").await, []);
    let taken = engine
        .query(query_request(DB, "books", "id >= 0", &["terms"]))
        .await
        .unwrap_err();
    assert!(
        taken
            .message
            .contains("not allowed to retrieve raw data of field terms"),
        "{taken:?}"
    );
    let mut request = by_text("books", "x", 3);
    request.queries = Queries::Sparse(vec![SparseVector::default()]);
    let wrong = engine.search(request).await.unwrap_err();
    assert!(
        wrong
            .message
            .contains("please provide varchar/text for BM25 Function based search"),
        "{wrong:?}"
    );
    let mut request = by_text("books", "x", 3);
    request.metric = Some("IP".into());
    assert!(engine.search(request).await.is_err());
    let mut request = by_text("books", &"x".repeat(65_536), 3);
    assert!(
        engine
            .search(request.clone())
            .await
            .unwrap_err()
            .message
            .contains("65535")
    );
    request.queries = Queries::Text(vec!["x".repeat(65_535)]);
    assert!(engine.search(request).await.is_ok());
    for (pairs, part) in [
        (vec![("metric_type", "IP")], "must be BM25, got IP"),
        (vec![("index_type", "HNSW")], "can't build with this index HNSW"),
    ] {
        let refused = index(&engine, "books", "terms", &pairs).await.unwrap_err();
        assert!(refused.message.contains(part), "{refused:?}");
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn analyzers_are_checked_when_a_collection_is_made() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    let refused = |key: &str, value: &str| {
        let mut spec = text_spec("books");
        spec.schema.fields[1]
            .type_params
            .insert(key.to_owned(), value.to_owned());
        let engine = std::sync::Arc::clone(&engine);
        async move { engine.create_collection(DB, spec).await.unwrap_err().message }
    };
    let message = refused(FieldSchema::ANALYZER_PARAMS, r#"{"type": "klingon"}"#).await;
    assert!(
        message.contains("klingon") && message.contains("field body"),
        "{message}"
    );
    let message = refused("multi_analyzer_params", "{}").await;
    assert!(message.contains("multi_analyzer_params"), "{message}");
    let message = refused(FieldSchema::ENABLE_ANALYZER, "false").await;
    assert!(message.contains("must set enable_analyzer to true"), "{message}");

    engine.create_collection(DB, text_spec("books")).await.unwrap();
    let of = |field: &str| AnalyzeRequest {
        params: None,
        field: Some(FieldName {
            database: DB.into(),
            collection: "books".into(),
            field: field.into(),
        }),
        texts: vec!["Hunting the hawks".into(), String::new()],
    };
    let tokens = engine.analyze(of("body")).await.unwrap();
    let words: Vec<&str> = tokens[0].iter().map(|token| token.text.as_str()).collect();
    assert_eq!((words, tokens[1].len()), (vec!["hunt", "hawk"], 0));
    assert_eq!(
        (tokens[0][1].start, tokens[0][1].end, tokens[0][1].position),
        (12, 17, 2)
    );
    assert!(engine.analyze(of("id")).await.is_err() && engine.analyze(of("nothing")).await.is_err());
    let long = AnalyzeRequest {
        texts: vec!["x".repeat((1 << 20) + 1)],
        ..AnalyzeRequest::default()
    };
    assert!(engine.analyze(long).await.unwrap_err().message.contains("1048576"));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_vectors_come_back_as_they_were_sent() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    let mut id = field("id", DataType::Int64);
    id.is_primary = true;
    let mut weights = field("weights", DataType::SparseFloatVector);
    weights.dim = 0;
    engine
        .create_collection(DB, spec_of("books", vec![id, weights], false))
        .await
        .unwrap();
    let wand = [("index_type", "SPARSE_WAND"), ("metric_type", "IP")];
    index(&engine, "books", "weights", &wand).await.unwrap();
    engine.load_collection(DB, "books").await.unwrap();
    loaded(&engine, DB, "books").await;
    let vectors: Vec<SparseVector> = [vec![], vec![(1, 0.5), (4_000_000_000, 2.0)], vec![(1, -1.0)]]
        .into_iter()
        .map(|pairs| SparseVector::new(pairs).unwrap())
        .collect();
    let rows = RowBatch::new(vec![
        Column::full(FieldId(100), ColumnData::Int64(vec![0, 1, 2])),
        Column::full(FieldId(101), ColumnData::SparseFloatVector { data: vectors.clone() }),
    ]);
    engine.insert(DB, "books", None, rows.unwrap()).await.unwrap();
    let by_vector = |pairs: Vec<(u32, f32)>| SearchRequest {
        database: DB.into(),
        collection: "books".into(),
        queries: Queries::Sparse(vec![SparseVector::new(pairs).unwrap()]),
        queries_count: 1,
        limit: 5,
        output_fields: vec!["weights".into()],
        ..SearchRequest::default()
    };
    for round in 0..2 {
        let found = engine.search(by_vector(vec![(1, 2.0)])).await.unwrap();
        assert_eq!(
            (ints(&found.ids), found.scores.clone()),
            (vec![1, 2], vec![1.0, -2.0]),
            "round {round}"
        );
        let expected = ColumnData::SparseFloatVector {
            data: vec![vectors[1].clone(), vectors[2].clone()],
        };
        assert_eq!(found.columns[0].column.data, expected);
        let found = engine.search(by_vector(vec![])).await.unwrap();
        assert_eq!(found.hits_per_query, [0]);
        if round == 0 {
            engine.flush(DB, &["books".into()]).await.unwrap();
        }
    }
    let by_words = by_text("books", "x", 3);
    let wrong = engine
        .search(SearchRequest {
            field: "weights".into(),
            ..by_words
        })
        .await
        .unwrap_err();
    assert!(wrong.message.contains("vector type must be the same"), "{wrong:?}");
    let refused = index(&engine, "books", "weights", &[("metric_type", "BM25")])
        .await
        .unwrap_err();
    assert!(
        refused.message.contains("only BM25 Function output field"),
        "{refused:?}"
    );
    engine.shutdown().await;
}
