//! Collections whose vectors stay on disk: everything as in memory, within a budget, and dark with their key.

use std::{collections::BTreeSet, sync::Arc};

use crate::common::{
    Cluster, brute_force, collection, eventually, filter, ids, index_and_load, insert, ints, loaded, query_request,
    rows, search, search_request, spec, vector,
};
use saker_engine::{Engine, ErrorKind, IndexRequest, MoveRequest, Properties};
use saker_keyring::Denial;
use saker_model::ColumnData;
use saker_testing::KmsAnswer;

const DB: &str = "zone";

fn mmap(value: &str) -> Properties {
    [("mmap.enabled".to_owned(), value.to_owned())].into()
}

async fn built(engine: &Arc<Engine>, database: &str) {
    eventually("the index is built", || async {
        let info = engine.describe_index(database, "c", "").await.unwrap().remove(0);
        assert_eq!(info.failure, None);
        info.total_rows > 0 && info.indexed_rows == info.total_rows
    })
    .await;
}

async fn recall(engine: &Arc<Engine>, database: &str, rows: &BTreeSet<i64>) -> f64 {
    let (mut right, mut total) = (0_u32, 0_u32);
    for query in (0..20).map(|n| 100_000 + n) {
        let truth = brute_force(rows.iter().copied(), &vector(query), 10);
        let found = ints(&search(engine, database, "c", query, 10).await.ids);
        right += u32::try_from(truth.iter().filter(|id| found.contains(id)).count()).unwrap();
        total += u32::try_from(truth.len()).unwrap();
    }
    f64::from(right) / f64::from(total)
}

/// Vectors come back as they were written, whichever segment they are in.
async fn vectors_are(engine: &Arc<Engine>, database: &str, wanted: &[i64]) {
    let text = format!("id in {wanted:?}");
    let request = query_request(database, "c", &text, &["id", "vector"]);
    let found = engine.query(request).await.unwrap();
    let data = found.columns.iter().find(|column| column.name == "vector").unwrap();
    let ColumnData::FloatVector { data, .. } = &data.column.data else {
        panic!("no vectors")
    };
    assert_eq!(*data, wanted.iter().flat_map(|id| vector(*id)).collect::<Vec<f32>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_on_disk_is_searched_changed_put_together_and_started_again() {
    let mut cluster = Cluster::new();
    cluster.config.frame_cache_bytes_max = 64 << 10;
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "DISKANN").await;
    let mut live: BTreeSet<i64> = (0..3_000).collect();
    for part in 0..6 {
        insert(&engine, DB, "c", part * 500..(part + 1) * 500).await;
        engine.flush(DB, &["c".into()]).await.unwrap();
    }
    built(&engine, DB).await;
    assert!(recall(&engine, DB, &live).await >= 0.95);
    let calls = cluster.kms.calls_total();
    engine
        .delete(DB, "c", None, filter("id in [3, 4, 2999]"))
        .await
        .unwrap();
    live.retain(|id| ![3, 4, 2_999].contains(id));
    engine.upsert(DB, "c", None, rows([10, 20])).await.unwrap();
    assert!(recall(&engine, DB, &live).await >= 0.95);
    vectors_are(&engine, DB, &[0, 10, 700, 2_998]).await;
    // Filtered, down to one row.
    for text in ["id < 1500", "id in [17, 1800]", "id == 5"] {
        let mut request = search_request(DB, "c", 5, 3);
        request.filter = filter(text);
        let found = ints(&engine.search(request).await.unwrap().ids);
        let allowed = live.iter().copied().filter(|id| match text {
            "id < 1500" => *id < 1_500,
            "id == 5" => *id == 5,
            _ => [17, 1_800].contains(id),
        });
        assert_eq!(found, brute_force(allowed, &vector(5), 3), "{text}");
    }
    let status = engine.frame_cache();
    assert!(status.misses > 0 && status.bytes <= 64 << 10, "{status:?}");
    assert_eq!(cluster.kms.calls_total(), calls, "reading asks no key service");

    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, DB, "c").await;
    built(&engine, DB).await;
    assert_eq!(ids(&engine, DB, "c").await, live.iter().copied().collect::<Vec<_>>());
    assert!(recall(&engine, DB, &live).await >= 0.95);
    vectors_are(&engine, DB, &[0, 10, 700, 2_998]).await;
    engine.release_collection(DB, "c").await.unwrap();
    eventually("what was opened is gone", || async { engine.frame_cache().frames == 0 }).await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_ends_what_is_read_from_disk() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "DISKANN").await;
    insert(&engine, DB, "c", 0..1_500).await;
    engine.flush(DB, &["c".into()]).await.unwrap();
    built(&engine, DB).await;
    // An index is named in the manifest a moment before searches go through it.
    eventually("searches read from disk", || async {
        search(&engine, DB, "c", 7, 5).await;
        engine.frame_cache().frames > 0
    })
    .await;
    let truth = ints(&search(&engine, DB, "c", 7, 5).await.ids);
    assert!(engine.frame_cache().frames > 0);
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    let refused = engine.search(search_request(DB, "c", 7, 5)).await.unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::ZoneLocked { .. }), "{refused}");
    eventually("what was opened is gone", || async { engine.frame_cache().frames == 0 }).await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    loaded(&engine, DB, "c").await;
    assert_eq!(ints(&search(&engine, DB, "c", 7, 5).await.ids), truth);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_move_the_other_database_s_key_decides() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    let other = cluster.kms.add_root();
    cluster.database(&engine, "a").await;
    let properties = [("cipher.key".to_owned(), other.to_string())].into();
    engine.create_database("b", properties).await.unwrap();
    collection(&engine, "a", "c", "DISKANN").await;
    insert(&engine, "a", "c", 0..1_200).await;
    engine.flush("a", &["c".into()]).await.unwrap();
    built(&engine, "a").await;
    let request = MoveRequest {
        database: "a".into(),
        collection: "c".into(),
        to: "b".into(),
        name: None,
    };
    engine.move_collection(request).await.unwrap();
    loaded(&engine, "b", "c").await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    let live = (0..1_200).collect();
    assert!(
        recall(&engine, "b", &live).await >= 0.95,
        "the old database's key is out of it"
    );
    vectors_are(&engine, "b", &[0, 600]).await;
    cluster.kms.set(&other, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    let refused = engine.search(search_request("b", "c", 7, 5)).await.unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::ZoneLocked { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mmap_enabled_moves_vectors_to_disk_and_back() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "HNSW").await;
    insert(&engine, "default", "c", 0..1_500).await;
    engine.flush("default", &["c".into()]).await.unwrap();
    built(&engine, "default").await;
    let live: BTreeSet<i64> = (0..1_500).collect();
    // Not while it is loaded, and only true and false.
    let collection_refused = engine
        .alter_collection("default", "c", mmap("true"), Vec::new())
        .await
        .unwrap_err();
    let index_refused = engine
        .alter_index("default", "c", "vector", mmap("true"), Vec::new())
        .await
        .unwrap_err();
    let field_refused = engine
        .alter_collection_field("default", "c", "vector", mmap("true"), Vec::new())
        .await
        .unwrap_err();
    for refused in [collection_refused, index_refused, field_refused] {
        assert_eq!(refused.kind, ErrorKind::InvalidParameter);
        assert!(
            refused
                .message
                .contains("can not alter mmap properties if collection loaded"),
            "{refused}"
        );
    }
    engine.release_collection("default", "c").await.unwrap();
    let wrong = engine
        .alter_collection("default", "c", mmap("yes"), Vec::new())
        .await
        .unwrap_err();
    assert!(wrong.message.contains("expected: true, false"), "{wrong}");
    let other = [("M".to_owned(), "4".to_owned())].into();
    let wrong = engine
        .alter_index("default", "c", "vector", other, Vec::new())
        .await
        .unwrap_err();
    assert!(wrong.message.contains("mmap.enabled"), "{wrong}");
    let missing = engine
        .alter_index("default", "c", "nothing", mmap("true"), Vec::new())
        .await
        .unwrap_err();
    assert_eq!(missing.kind, ErrorKind::IndexNotFound);

    for (step, on_disk) in [(0, true), (1, false), (2, true), (3, false), (4, true), (5, false)] {
        match step {
            0 => engine
                .alter_collection("default", "c", mmap("true"), Vec::new())
                .await
                .unwrap(),
            1 => engine
                .alter_index("default", "c", "vector", mmap("False"), Vec::new())
                .await
                .unwrap(),
            2 => engine
                .alter_index("default", "c", "vector", Properties::new(), vec!["mmap.enabled".into()])
                .await
                .unwrap(),
            3 => engine
                .alter_collection_field("default", "c", "vector", mmap("false"), Vec::new())
                .await
                .unwrap(),
            4 => engine
                .alter_collection_field("default", "c", "vector", mmap("true"), Vec::new())
                .await
                .unwrap(),
            _ => {
                engine
                    .alter_collection_field("default", "c", "vector", Properties::new(), vec!["mmap.enabled".into()])
                    .await
                    .unwrap();
                engine
                    .alter_collection("default", "c", mmap("false"), Vec::new())
                    .await
                    .unwrap();
            }
        }
        engine.load_collection("default", "c").await.unwrap();
        loaded(&engine, "default", "c").await;
        built(&engine, "default").await;
        let before = engine.frame_cache();
        assert!(recall(&engine, "default", &live).await >= 0.95, "step {step}");
        vectors_are(&engine, "default", &[0, 1_499]).await;
        let after = engine.frame_cache();
        let read = after.hits + after.misses > before.hits + before.misses;
        assert_eq!(read, on_disk, "step {step}");
        engine.release_collection("default", "c").await.unwrap();
    }
    // The property shows where it was set.
    let info = engine.describe_collection("default", "c").await.unwrap();
    assert_eq!(info.properties.get("mmap.enabled").map(String::as_str), Some("false"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_may_ask_for_disk_when_it_is_made() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    engine.create_collection("default", spec("c")).await.unwrap();
    insert(&engine, "default", "c", 0..700).await;
    engine.flush("default", &["c".into()]).await.unwrap();
    let params = [("index_type", "HNSW"), ("metric_type", "L2"), ("mmap.enabled", "true")];
    let request = IndexRequest {
        field: "vector".into(),
        name: None,
        params: params.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    };
    engine.create_index("default", "c", request).await.unwrap();
    built(&engine, "default").await;
    engine.load_collection("default", "c").await.unwrap();
    loaded(&engine, "default", "c").await;
    assert!(recall(&engine, "default", &(0..700).collect()).await >= 0.95);
    assert!(
        engine.frame_cache().misses > 0,
        "written before, for memory, and read where it lies all the same"
    );
    // Exact search of a field on disk.
    engine.create_collection("default", spec("exact")).await.unwrap();
    engine
        .alter_collection("default", "exact", mmap("true"), Vec::new())
        .await
        .unwrap();
    insert(&engine, "default", "exact", 0..300).await;
    engine.flush("default", &["exact".into()]).await.unwrap();
    index_and_load(&engine, "default", "exact", "FLAT").await;
    let misses = engine.frame_cache();
    for query in [1, 7, 299] {
        let found = ints(&search(&engine, "default", "exact", query, 10).await.ids);
        assert_eq!(found, brute_force(0..300, &vector(query), 10));
    }
    assert_eq!(engine.frame_cache().misses, misses.misses, "a scan goes past the cache");
}
