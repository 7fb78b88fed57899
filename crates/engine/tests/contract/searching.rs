//! A search is the same wherever it runs: on the compute pool, on the caller's thread, spread or in one piece.

use std::sync::Arc;

use saker_engine::{Engine, ErrorKind, Event, Queries, SearchRequest, SearchResult};
use saker_keyring::Denial;
use saker_testing::KmsAnswer;

use crate::common::{
    Cluster, brute_force, collection, eventually, filter, insert, ints, loaded, search_request, vector,
};

const DB: &str = "zone";

async fn cluster_with_rows(cluster: &Cluster, index: &str) -> Arc<Engine> {
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", index).await;
    insert(&engine, DB, "c", 0..700).await;
    engine.flush(DB, &["c".into()]).await.unwrap();
    eventually("the index is built", || async {
        let indexes = engine.describe_index(DB, "c", "").await.unwrap();
        indexes.iter().all(|index| index.indexed_rows >= 700)
    })
    .await;
    // A second segment, growing, and deletes in both.
    insert(&engine, DB, "c", 700..760).await;
    engine.delete(DB, "c", None, filter("id in [3, 705]")).await.unwrap();
    engine
}

/// All ways to run it; they must agree.
async fn everywhere(engine: &Arc<Engine>, request: SearchRequest) -> SearchResult {
    let on_the_pool = engine.search(request.clone()).await.unwrap();
    assert_eq!(engine.search_here_if_short(request.clone()).await.unwrap(), on_the_pool);
    assert_eq!(engine.search_blocking(request).unwrap(), on_the_pool);
    on_the_pool
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_search_runs_its_answer_is_the_same() {
    let cluster = Cluster::new();
    for index in ["FLAT", "AUTOINDEX"] {
        let cluster = if index == "FLAT" { &cluster } else { &Cluster::new() };
        let engine = cluster_with_rows(cluster, index).await;
        let left = || (0..760).filter(|id| ![3, 705].contains(id));
        let plain = search_request(DB, "c", 9, 10);
        let found = everywhere(&engine, plain.clone()).await;
        assert_eq!(ints(&found.ids), brute_force(left(), &vector(9), 10), "{index}");
        let filtered = SearchRequest {
            filter: filter("id >= 600"),
            ..plain.clone()
        };
        let found = everywhere(&engine, filtered).await;
        let expected = brute_force(left().filter(|id| *id >= 600), &vector(9), 10);
        assert_eq!(ints(&found.ids), expected, "{index}");
        let keys_only = SearchRequest {
            output_fields: Vec::new(),
            ..plain.clone()
        };
        assert!(everywhere(&engine, keys_only).await.columns.is_empty());
        // Too many hits for the caller's thread; and more queries than there are processors.
        let long = SearchRequest {
            limit: 2_000,
            ..plain.clone()
        };
        assert_eq!(everywhere(&engine, long).await.scores.len(), 758);
        let many = SearchRequest {
            queries: Queries::Dense((0..40).flat_map(vector).collect()),
            queries_count: 40,
            ..plain
        };
        let found = everywhere(&engine, many).await;
        assert_eq!(found.hits_per_query, [10; 40]);
        let expected: Vec<i64> = (0..40).flat_map(|id| brute_force(left(), &vector(id), 10)).collect();
        assert_eq!(ints(&found.ids), expected, "{index}");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_search_would_run_it_is_refused_and_counted_alike() {
    let cluster = Cluster::new();
    let engine = cluster_with_rows(&cluster, "FLAT").await;
    let counted = |wanted: fn(&Event) -> bool| {
        let events = cluster.events.0.lock().unwrap();
        events.iter().filter(|event| wanted(event)).count()
    };
    let searched = || counted(|event| matches!(event, Event::Searched { queries: 1, .. }));
    let refused = || counted(|event| matches!(event, Event::Refused { .. }));
    let request = search_request(DB, "c", 9, 3);
    everywhere(&engine, request.clone()).await;
    assert_eq!((searched(), refused()), (3, 0));
    let schema = engine.collection_schema(DB, "c").await.unwrap();
    let described = engine.describe_collection(DB, "c").await.unwrap();
    assert_eq!(schema.fields, described.schema.fields);

    let wrong = SearchRequest {
        limit: 0,
        ..request.clone()
    };
    let errors = [
        engine.search(wrong.clone()).await.unwrap_err(),
        engine.search_here_if_short(wrong.clone()).await.unwrap_err(),
        engine.search_blocking(wrong).unwrap_err(),
    ];
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    assert_eq!((searched(), refused()), (3, 0));

    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    let errors = [
        engine.search(request.clone()).await.unwrap_err(),
        engine.search_here_if_short(request.clone()).await.unwrap_err(),
        engine.search_blocking(request.clone()).unwrap_err(),
        engine.collection_schema(DB, "c").await.unwrap_err(),
    ];
    for error in &errors {
        assert!(matches!(error.kind, ErrorKind::ZoneLocked { .. }), "{error:?}");
        assert_eq!(error, &errors[0]);
    }
    assert_eq!((searched(), refused()), (3, 4));

    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    loaded(&engine, DB, "c").await;
    everywhere(&engine, request).await;
    assert_eq!((searched(), refused()), (6, 4));
}

/// Searches on threads of their own, without a pause, from before a lock until after it: none is answered once the lock is
/// there, and the rows come back.
#[tokio::test(flavor = "multi_thread")]
async fn searches_on_threads_of_their_own_end_with_the_lock() {
    let cluster = Cluster::new();
    let engine = cluster_with_rows(&cluster, "AUTOINDEX").await;
    let searchers: Vec<_> = (0..3)
        .map(|number| {
            let engine = Arc::clone(&engine);
            let request = search_request(DB, "c", number, 5);
            let expected = engine.search_blocking(request.clone()).unwrap();
            std::thread::spawn(move || {
                loop {
                    match engine.search_blocking(request.clone()) {
                        Ok(found) => assert_eq!(found, expected),
                        Err(error) => return error,
                    }
                }
            })
        })
        .collect();
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    for searcher in searchers {
        let error = tokio::task::spawn_blocking(|| searcher.join()).await.unwrap().unwrap();
        assert!(matches!(error.kind, ErrorKind::ZoneLocked { .. }), "{error:?}");
    }
}
