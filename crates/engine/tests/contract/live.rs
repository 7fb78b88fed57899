//! Rows that come, change and go while they are searched, flushed, put together and indexed: nothing is lost, doubled or
//! seen half-way, and recall stays what it was.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use saker_engine::{Engine, Queries, SearchRequest};
use saker_keyring::Denial;
use saker_model::{Column, ColumnData, FieldId, RowBatch};
use saker_testing::KmsAnswer;

use crate::common::{
    Cluster, DIM, collection, count, eventually, filter, ids, insert, ints, loaded, query_request, vector,
};

const DB: &str = "zone";

/// The vector of a version of a row: another for each.
fn vector_of(id: i64, version: i64) -> Vec<f32> {
    vector(id + version * 1_000_000)
}

/// Rows in a version, whose number is their name.
fn versioned(ids: &[i64], version: i64) -> RowBatch {
    let data = ids.iter().flat_map(|id| vector_of(*id, version)).collect();
    RowBatch::new(vec![
        Column::full(FieldId(100), ColumnData::Int64(ids.to_vec())),
        Column::full(FieldId(101), ColumnData::FloatVector { dim: DIM, data }),
        Column::full(
            FieldId(102),
            ColumnData::VarChar(ids.iter().map(|_| version.to_string()).collect()),
        ),
        Column::full(
            FieldId(103),
            ColumnData::Json(ids.iter().map(|_| b"{}".to_vec()).collect()),
        ),
    ])
    .unwrap()
}

async fn upsert(engine: &Arc<Engine>, ids: &[i64], version: i64) {
    engine.upsert(DB, "c", None, versioned(ids, version)).await.unwrap();
}

async fn nearest(engine: &Arc<Engine>, query: Vec<f32>, limit: usize) -> Vec<i64> {
    let request = SearchRequest {
        database: DB.into(),
        collection: "c".into(),
        field: "vector".into(),
        queries: Queries::Dense(query),
        queries_count: 1,
        limit,
        ..SearchRequest::default()
    };
    ints(&engine.search(request).await.unwrap().ids)
}

/// The share of the true ten nearest that is found, over some queries.
async fn recall(engine: &Arc<Engine>, versions: &BTreeMap<i64, i64>) -> f64 {
    let (mut right, mut all) = (0_u32, 0_u32);
    for query in (0..30).map(|n| vector(77_000_000 + n)) {
        let cost = |(id, version): (&i64, &i64)| {
            let row = vector_of(*id, *version);
            let cost: f32 = row.iter().zip(&query).map(|(a, b)| (a - b) * (a - b)).sum();
            (cost, *id)
        };
        let mut truth: Vec<(f32, i64)> = versions.iter().map(cost).collect();
        truth.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        truth.truncate(10);
        let found = nearest(engine, query, 10).await;
        right += u32::try_from(truth.iter().filter(|(_, id)| found.contains(id)).count()).unwrap();
        all += u32::try_from(truth.len()).unwrap();
    }
    f64::from(right) / f64::from(all)
}

/// Every row once, in its latest version.
async fn check(engine: &Arc<Engine>, versions: &BTreeMap<i64, i64>) {
    assert_eq!(ids(engine, DB, "c").await, versions.keys().copied().collect::<Vec<_>>());
    assert_eq!(
        count(engine, DB, "c").await,
        versions.len() as u64,
        "a row is there twice"
    );
    let all = engine
        .query(query_request(DB, "c", "id >= 0", &["id", "name"]))
        .await
        .unwrap();
    let (ColumnData::Int64(ids), ColumnData::VarChar(names)) =
        (&all.columns[0].column.data, &all.columns[1].column.data)
    else {
        panic!("columns")
    };
    for (id, name) in ids.iter().zip(names) {
        assert_eq!(*name, versions[id].to_string(), "row {id}");
    }
}

async fn settled(engine: &Arc<Engine>) {
    eventually("all rows are in segments with a graph", || async {
        let info = engine.describe_index(DB, "c", "").await.unwrap().remove(0);
        assert_eq!(info.failure, None);
        info.indexed_rows == info.total_rows
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recall_stays_when_half_of_the_rows_are_replaced() {
    let mut cluster = Cluster::new();
    cluster.config.index_rows_min = 256;
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "HNSW").await;
    let mut versions: BTreeMap<i64, i64> = (0..6_000).map(|id| (id, 0)).collect();
    upsert(&engine, &(0..6_000).collect::<Vec<_>>(), 0).await;
    assert!(recall(&engine, &versions).await > 0.9, "growing rows");
    engine.flush(DB, &["c".into()]).await.unwrap();
    settled(&engine).await;
    let before = recall(&engine, &versions).await;
    assert!(before > 0.95, "{before}");

    // Whatever stands in for what at each moment, every search answers well.
    for batch in 0..10_i64 {
        let replaced: Vec<i64> = (0..300).map(|n| (batch * 300 + n) * 2).collect();
        upsert(&engine, &replaced, 1).await;
        versions.extend(replaced.iter().map(|id| (*id, 1)));
        let during = recall(&engine, &versions).await;
        assert!(during > 0.9, "batch {batch}: {during}");
        if batch % 4 == 3 {
            engine.flush(DB, &["c".into()]).await.unwrap();
        }
    }
    engine.flush(DB, &["c".into()]).await.unwrap();
    eventually("rows that were replaced are gone from the files", || async {
        let segments = engine.segments(DB, "c").await.unwrap();
        let rows: u64 = segments.iter().map(|segment| segment.rows).sum();
        let during = recall(&engine, &versions).await;
        assert!(during > 0.9, "{during}");
        rows < 8_000
    })
    .await;
    settled(&engine).await;
    let after = recall(&engine, &versions).await;
    assert!(after > 0.95 && after > before - 0.03, "{before} before, {after} after");
    check(&engine, &versions).await;

    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, DB, "c").await;
    check(&engine, &versions).await;
    assert!(recall(&engine, &versions).await > before - 0.03);
}

/// What a row may be: readers look before and after.
#[derive(Default)]
struct Book {
    /// The last version that was acknowledged; `None` once its delete was.
    acked: BTreeMap<i64, Option<i64>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_every_write_whole_and_at_once() {
    let mut cluster = Cluster::new();
    cluster.config.index_rows_min = 128;
    cluster.config.log_segment_bytes_max = 64 << 10;
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "HNSW").await;
    let (book, stop) = (Arc::new(Mutex::new(Book::default())), Arc::new(AtomicBool::new(false)));

    let flusher = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move {
            while !stop.load(Ordering::SeqCst) {
                engine.flush(DB, &["c".into()]).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    });
    let reader = tokio::spawn({
        let (engine, stop, book) = (engine.clone(), stop.clone(), book.clone());
        async move {
            let mut round = 0;
            while !stop.load(Ordering::SeqCst) {
                round += 1;
                let known: Vec<(i64, Option<i64>)> = {
                    let book = book.lock().unwrap();
                    book.acked.iter().map(|(id, version)| (*id, *version)).collect()
                };
                let Some(&(id, version)) = known.get((round * 7_919) % known.len().max(1)) else {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                    continue;
                };
                let found = engine
                    .query(query_request(DB, "c", &format!("id == {id}"), &["id", "name"]))
                    .await
                    .unwrap();
                let ColumnData::VarChar(names) = &found.columns[1].column.data else {
                    panic!("names")
                };
                match version {
                    // Rows are deleted once and for all.
                    None => assert!(names.is_empty(), "row {id} was deleted and is back"),
                    Some(version) => {
                        let gone = || book.lock().unwrap().acked[&id].is_none() || id % 10 == 0;
                        assert!(names.len() == 1 || gone(), "row {id} is there {} times", names.len());
                        for name in names {
                            assert!(name.parse::<i64>().unwrap() >= version, "row {id} is old");
                        }
                    }
                }
                let hits = nearest(&engine, vector_of(id, version.unwrap_or(0)), 20).await;
                let mut once = hits.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), hits.len(), "a row is found twice");
                if version.is_none() {
                    assert!(!hits.contains(&id), "row {id} was deleted and is found");
                }
            }
        }
    });
    for version in 0..12_i64 {
        for batch in 0..6_i64 {
            let ids: Vec<i64> = (batch * 400..batch * 400 + 400)
                .filter(|id| version == 0 || (id % 10 != 0 && id % 3 == version % 3))
                .collect();
            upsert(&engine, &ids, version).await;
            let mut book = book.lock().unwrap();
            ids.iter().for_each(|id| {
                book.acked.insert(*id, Some(version));
            });
        }
        // A tenth of the rows goes, a part at a time.
        let gone: Vec<i64> = (0..240).map(|n| n * 10).filter(|id| id / 10 % 12 == version).collect();
        let list = gone.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        engine
            .delete(DB, "c", None, filter(&format!("id in [{list}]")))
            .await
            .unwrap();
        let mut book = book.lock().unwrap();
        gone.iter().for_each(|id| {
            book.acked.insert(*id, None);
        });
    }
    stop.store(true, Ordering::SeqCst);
    flusher.await.unwrap();
    reader.await.unwrap();

    let versions: BTreeMap<i64, i64> = {
        let book = book.lock().unwrap();
        let live = book.acked.iter().filter_map(|(id, version)| Some((*id, (*version)?)));
        live.collect()
    };
    assert_eq!(versions.len(), 2_160);
    check(&engine, &versions).await;
    settled(&engine).await;
    assert!(recall(&engine, &versions).await > 0.95);
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, DB, "c").await;
    check(&engine, &versions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_meets_lists_and_merges_that_are_under_way() {
    let mut cluster = Cluster::new();
    cluster.config.index_rows_min = 256;
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "HNSW").await;
    let mut versions: BTreeMap<i64, i64> = BTreeMap::new();
    for round in 0..5_i64 {
        // Growing rows enough for lists; deletes enough for a merge; graphs in the making.
        let all: Vec<i64> = (0..4_000).filter(|id| round == 0 || id % 2 == round % 2).collect();
        upsert(&engine, &all, round).await;
        versions.extend(all.iter().map(|id| (*id, round)));
        if round % 2 == 0 {
            engine.flush(DB, &["c".into()]).await.unwrap();
        }
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
        engine.check_keys_now().await.unwrap();
        engine.segments(DB, "c").await.unwrap_err();
        cluster.kms.set(&cluster.customer, KmsAnswer::Right);
        engine.check_keys_now().await.unwrap();
        loaded(&engine, DB, "c").await;
        check(&engine, &versions).await;
    }
    settled(&engine).await;
    assert!(recall(&engine, &versions).await > 0.9);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_index_is_exact_again_after_a_graph() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "HNSW").await;
    // Enough growing rows for lists, which searches by graph may use and exact ones may not.
    insert(&engine, DB, "c", 0..5_000).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    engine.release_collection(DB, "c").await.unwrap();
    engine.drop_index(DB, "c", "vector").await.unwrap();
    crate::common::index_and_load(&engine, DB, "c", "FLAT").await;
    let versions: BTreeMap<i64, i64> = (0..5_000).map(|id| (id, 0)).collect();
    assert!(recall(&engine, &versions).await > 0.9999);
}
