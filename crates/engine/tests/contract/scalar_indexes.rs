//! Indexes on scalar fields and JSON paths: built over sealed segments, kept over restarts, and never another answer than
//! without them.

use std::sync::Arc;

use saker_engine::{Engine, ErrorKind, IndexRequest};

use crate::common::{Cluster, collection, eventually, filter, insert, ints, loaded, query_request, search_request};
use saker_model::ColumnData;

const FILTERS: [&str; 7] = [
    "id in [3, 5, 1999, 5000]",
    "10 <= id < 300",
    "name like 'canary-name-0001%'",
    "name == 'canary-name-000042' or canary_key == 7",
    "canary_key > 1990",
    "not (canary_key < 1995) and id % 2 == 1",
    "canary_key in [1, 2.0, 3] and name != 'canary-name-000002'",
];

async fn index(
    engine: &Arc<Engine>,
    field: &str,
    name: &str,
    pairs: &[(&str, &str)],
) -> Result<(), saker_engine::Error> {
    let params = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let request = IndexRequest {
        field: field.into(),
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        params: params.collect(),
    };
    engine.create_index("default", "c", request).await
}

async fn selected(engine: &Arc<Engine>) -> Vec<Vec<i64>> {
    let mut all = Vec::new();
    for text in FILTERS {
        let result = engine
            .query(query_request("default", "c", text, &["id"]))
            .await
            .unwrap();
        let ColumnData::Int64(ids) = &result.columns[0].column.data else {
            panic!("ids")
        };
        let mut request = search_request("default", "c", 100_000, 10);
        request.filter = filter(text);
        let found = ints(&engine.search(request).await.unwrap().ids);
        assert_eq!(found.len(), ids.len().min(10), "{text}");
        assert!(found.iter().all(|id| ids.contains(id)), "{text}");
        all.push(ids.clone());
    }
    all
}

async fn built(engine: &Arc<Engine>, count: usize) {
    eventually("the indexes are built", || async {
        let infos = engine.describe_index("default", "c", "").await.unwrap();
        assert_eq!(infos.len(), count);
        infos
            .iter()
            .all(|info| info.failure.is_none() && info.indexed_rows == info.total_rows && info.total_rows == 2_000)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_the_same_with_and_without_indexes() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "HNSW").await;
    insert(&engine, "default", "c", 0..2_000).await;
    let growing = selected(&engine).await;
    assert_eq!(growing[0], [3, 5, 1999]);
    assert_eq!(growing[2].len(), 100);
    engine.flush("default", &["c".into()]).await.unwrap();
    built(&engine, 1).await;
    assert_eq!(selected(&engine).await, growing);

    index(&engine, "id", "", &[("index_type", "STL_SORT")]).await.unwrap();
    index(&engine, "name", "by_name", &[("index_type", "TRIE")])
        .await
        .unwrap();
    let path = [
        ("index_type", "INVERTED"),
        ("json_cast_type", "DOUBLE"),
        ("json_path", "canary_key"),
    ];
    index(&engine, "canary_key", "", &path).await.unwrap();
    built(&engine, 4).await;
    assert_eq!(selected(&engine).await, growing);
    let files = engine.segments("default", "c").await.unwrap()[0].indexes.len();
    assert_eq!(files, 4);
    // Again is fine, another one in the same place is not, one on another path is.
    index(&engine, "canary_key", "", &path).await.unwrap();
    let other = [
        ("index_type", "STL_SORT"),
        ("json_cast_type", "DOUBLE"),
        ("json_path", "canary_key"),
    ];
    let refused = index(&engine, "canary_key", "second", &other).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::IndexAlreadyExists);
    let other = [
        ("index_type", "INVERTED"),
        ("json_cast_type", "VARCHAR"),
        ("json_path", "$meta['other']"),
    ];
    index(&engine, "$meta", "other", &other).await.unwrap();
    let found = engine.describe_index("default", "c", "canary_key").await.unwrap();
    assert_eq!(found[0].spec.name, "$meta/canary_key");

    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, "default", "c").await;
    built(&engine, 5).await;
    assert_eq!(selected(&engine).await, growing);

    let refused = engine.drop_index("default", "c", "$meta").await.unwrap_err();
    assert!(refused.to_string().contains("multiple indexes"), "{refused}");
    for name in ["by_name", "id", "canary_key", "other"] {
        engine.drop_index("default", "c", name).await.unwrap();
    }
    built(&engine, 1).await;
    assert_eq!(engine.segments("default", "c").await.unwrap()[0].indexes, ["vector"]);
    assert_eq!(selected(&engine).await, growing);
}
