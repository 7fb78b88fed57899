//! Graphs: built in the background, kept over restarts, right enough.

use crate::common::{
    Cluster, brute_force, collection, eventually, ids, index_and_load, insert, ints, loaded, search, spec, vector,
};
use saker_engine::{ErrorKind, IndexRequest};

async fn built(engine: &std::sync::Arc<saker_engine::Engine>, rows: u64) {
    eventually("the index is built", || async {
        let info = engine.describe_index("default", "c", "").await.unwrap().remove(0);
        assert_eq!(info.failure, None);
        (info.indexed_rows, info.total_rows) == (rows, rows)
    })
    .await;
}

async fn recall(engine: &std::sync::Arc<saker_engine::Engine>, rows: i64) -> f64 {
    let (mut right, mut total) = (0, 0);
    for query in (0..20).map(|n| 100_000 + n) {
        let truth = brute_force(0..rows, &vector(query), 10);
        let found = ints(&search(engine, "default", "c", query, 10).await.ids);
        right += truth.iter().filter(|id| found.contains(id)).count();
        total += truth.len();
    }
    f64::from(u32::try_from(right).unwrap()) / f64::from(u32::try_from(total).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_is_built_kept_and_found_again() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "HNSW").await;
    insert(&engine, "default", "c", 0..2_000).await;
    assert!(
        recall(&engine, 2_000).await > 0.999,
        "growing rows are searched exactly"
    );
    engine.flush("default", &["c".into()]).await.unwrap();
    built(&engine, 2_000).await;
    assert!(engine.segments("default", "c").await.unwrap()[0].indexes == ["vector"]);
    assert!(recall(&engine, 2_000).await > 0.95);
    // Deletes show through the graph.
    engine
        .delete("default", "c", None, crate::common::filter("id in [7, 8]"))
        .await
        .unwrap();
    assert!(!ints(&search(&engine, "default", "c", 7, 5).await.ids).contains(&7));
    insert(&engine, "default", "c", 7..9).await;
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, "default", "c").await;
    built(&engine, 2_000).await;
    assert!(recall(&engine, 2_000).await > 0.95);
    assert_eq!(ids(&engine, "default", "c").await, (0..2_000).collect::<Vec<_>>());

    let refused = engine.drop_index("default", "c", "vector").await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidParameter);
    engine.release_collection("default", "c").await.unwrap();
    engine.drop_index("default", "c", "vector").await.unwrap();
    assert_eq!(
        engine.describe_index("default", "c", "").await.unwrap_err().kind,
        ErrorKind::IndexNotFound
    );
    assert_eq!(
        engine.load_collection("default", "c").await.unwrap_err().kind,
        ErrorKind::IndexNotFound
    );
    assert!(engine.segments("default", "c").await.unwrap()[0].indexes.is_empty());
    index_and_load(&engine, "default", "c", "FLAT").await;
    assert!(recall(&engine, 2_000).await > 0.999);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_built_on_rows_that_are_not_loaded() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    engine.create_collection("default", spec("c")).await.unwrap();
    insert(&engine, "default", "c", 0..1_500).await;
    engine.flush("default", &["c".into()]).await.unwrap();
    let params = [
        ("index_type", "HNSW"),
        ("metric_type", "L2"),
        ("params", "{\"M\": 16, \"efConstruction\": 100}"),
    ];
    let request = IndexRequest {
        field: "vector".into(),
        name: Some("graph".into()),
        params: params.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    };
    engine.create_index("default", "c", request.clone()).await.unwrap();
    built(&engine, 1_500).await;
    engine.create_index("default", "c", request.clone()).await.unwrap();
    let other = IndexRequest {
        name: Some("other".into()),
        ..request.clone()
    };
    assert_eq!(
        engine.create_index("default", "c", other).await.unwrap_err().kind,
        ErrorKind::IndexAlreadyExists
    );
    let missing = IndexRequest {
        field: "nope".into(),
        ..request
    };
    assert_eq!(
        engine.create_index("default", "c", missing).await.unwrap_err().kind,
        ErrorKind::FieldNotFound
    );
    engine.load_collection("default", "c").await.unwrap();
    loaded(&engine, "default", "c").await;
    assert!(recall(&engine, 1_500).await > 0.95);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_the_limit_are_sealed_without_being_asked() {
    let mut cluster = Cluster::new();
    cluster.config.segment_bytes_max = 64 << 10;
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "FLAT").await;
    for batch in 0..30 {
        insert(&engine, "default", "c", batch * 100..batch * 100 + 100).await;
    }
    eventually("rows are sealed", || async {
        engine
            .segments("default", "c")
            .await
            .unwrap()
            .iter()
            .any(|segment| segment.sealed)
    })
    .await;
    assert_eq!(ids(&engine, "default", "c").await, (0..3_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_segments_become_one() {
    for load in [true, false] {
        let cluster = Cluster::new();
        let engine = cluster.open().await;
        collection(&engine, "default", "c", "FLAT").await;
        if !load {
            engine.release_collection("default", "c").await.unwrap();
        }
        for batch in 0..10 {
            insert(&engine, "default", "c", batch * 10..batch * 10 + 10).await;
            let gone = crate::common::filter(&format!("id in [{}, {}]", batch * 10, batch * 10 - 5));
            engine.delete("default", "c", None, gone).await.unwrap();
            engine.flush("default", &["c".into()]).await.unwrap();
        }
        eventually("the segments are merged", || async {
            engine.segments("default", "c").await.unwrap().len() < 4
        })
        .await;
        let expected: Vec<i64> = (0..100)
            .filter(|id| id % 10 != 0 && (id % 10 != 5 || *id > 90))
            .collect();
        if !load {
            engine.load_collection("default", "c").await.unwrap();
        }
        loaded(&engine, "default", "c").await;
        assert_eq!(ids(&engine, "default", "c").await, expected);
        engine.shutdown().await;
        drop(engine);
        let engine = cluster.open().await;
        loaded(&engine, "default", "c").await;
        assert_eq!(ids(&engine, "default", "c").await, expected);
        let mut files = Vec::new();
        crate::sealed::walk(&cluster.dir.join("objects"), &mut files);
        let segments = engine.segments("default", "c").await.unwrap().len();
        assert!(
            files.len() <= segments * 5 + 10,
            "{} files of {segments} segments: merged ones were left",
            files.len()
        );
    }
}
