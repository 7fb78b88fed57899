//! Everything at once: writes, flushes, merges, index builds, and a key that comes and goes.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use crate::common::{Cluster, collection, count, filter, ids, insert, loaded, rows};
use saker_engine::{Engine, Error, ErrorKind};
use saker_keyring::Denial;
use saker_storage::EmbeddedStores;
use saker_testing::{Fault, FaultPlan, KmsAnswer, Operation, faulty_stores};

const DB: &str = "zone";

#[derive(Default)]
struct Book {
    acked: Vec<i64>,
    deleted: Vec<i64>,
}

/// Writes until told to stop; every error must be one of `expected`.
async fn write(
    engine: Arc<Engine>,
    from: i64,
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    expected: fn(&Error) -> bool,
) {
    let mut batch = from;
    while !stop.load(Ordering::SeqCst) {
        match engine.insert(DB, "c", None, rows(batch..batch + 5)).await {
            Ok(_) => book.lock().unwrap().acked.push(batch),
            Err(error) => {
                assert!(expected(&error), "{error:?}");
                // A refusal comes without a wait: let others run.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        if batch % 20 == 0 {
            match engine.delete(DB, "c", None, filter(&format!("id == {batch}"))).await {
                Ok(_) => book.lock().unwrap().deleted.push(batch),
                Err(error) => assert!(expected(&error), "{error:?}"),
            }
        }
        batch += 5;
    }
}

async fn flush(engine: Arc<Engine>, stop: Arc<AtomicBool>, expected: fn(&Error) -> bool) {
    while !stop.load(Ordering::SeqCst) {
        if let Err(error) = engine.flush(DB, &["c".into()]).await {
            assert!(expected(&error), "{error:?}");
        }
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
}

async fn check(engine: &Arc<Engine>, book: &Book) {
    let found = ids(engine, DB, "c").await;
    assert_eq!(count(engine, DB, "c").await, found.len() as u64, "a row is there twice");
    for id in &book.deleted {
        assert!(found.binary_search(id).is_err(), "row {id} was deleted and is back");
    }
    for batch in &book.acked {
        let there = (batch + 1..batch + 5)
            .filter(|id| found.binary_search(id).is_ok())
            .count();
        assert_eq!(there, 4, "acknowledged rows after {batch} are gone");
    }
}

fn stress_cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.config.index_rows_min = 64;
    cluster.config.segment_bytes_max = 1 << 20;
    cluster.config.log_segment_bytes_max = 16 << 10;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_and_goes_under_load() {
    fn expected(error: &Error) -> bool {
        matches!(error.kind, ErrorKind::ZoneLocked { .. })
    }
    let cluster = stress_cluster();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "HNSW").await;
    insert(&engine, DB, "c", -100..0).await;
    let (book, stop) = (Arc::new(Mutex::new(Book::default())), Arc::new(AtomicBool::new(false)));
    let mut tasks: Vec<_> = (0..4)
        .map(|writer| {
            let from = writer * 1_000_000;
            tokio::spawn(write(engine.clone(), from, book.clone(), stop.clone(), expected))
        })
        .collect();
    tasks.push(tokio::spawn(flush(engine.clone(), stop.clone(), expected)));
    for round in 0..12_u64 {
        tokio::time::sleep(std::time::Duration::from_millis(20 + 17 * (round % 5))).await;
        cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
        engine.check_keys_now().await.unwrap();
        if round % 3 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        cluster.kms.set(&cluster.customer, KmsAnswer::Right);
        engine.check_keys_now().await.unwrap();
        if round % 2 == 0 {
            loaded(&engine, DB, "c").await;
        }
    }
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    loaded(&engine, DB, "c").await;
    let book = std::mem::take(&mut *book.lock().unwrap());
    assert!(book.acked.len() > 50);
    check(&engine, &book).await;
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, DB, "c").await;
    check(&engine, &book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_stores_that_fail_under_load() {
    fn expected(error: &Error) -> bool {
        matches!(
            error.kind,
            ErrorKind::ZoneLocked { .. } | ErrorKind::Full | ErrorKind::Storage
        )
    }
    let cluster = stress_cluster();
    let plan = FaultPlan::new(11);
    let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
    let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "HNSW").await;
    for operation in [
        Operation::LogAppend,
        Operation::LogCreateSegment,
        Operation::ObjectPut,
        Operation::ObjectShred,
        Operation::MetaCommit,
        Operation::ObjectGet,
    ] {
        plan.chance(operation, 0.03, &[Fault::LoseBefore, Fault::LoseAfter, Fault::Full]);
    }
    let (book, stop) = (Arc::new(Mutex::new(Book::default())), Arc::new(AtomicBool::new(false)));
    let mut tasks: Vec<_> = (0..2)
        .map(|writer| {
            let from = writer * 1_000_000;
            tokio::spawn(write(engine.clone(), from, book.clone(), stop.clone(), expected))
        })
        .collect();
    tasks.push(tokio::spawn(flush(engine.clone(), stop.clone(), expected)));
    for _ in 0..5 {
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
        engine.check_keys_now().await.unwrap();
        cluster.kms.set(&cluster.customer, KmsAnswer::Right);
        engine.check_keys_now().await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    plan.clear();
    loaded(&engine, DB, "c").await;
    let book = std::mem::take(&mut *book.lock().unwrap());
    assert!(book.acked.len() > 20);
    check(&engine, &book).await;
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, DB, "c").await;
    check(&engine, &book).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_failures_while_collections_come_and_go() {
    for writes in 0..16 {
        let cluster = Cluster::new();
        let engine = cluster.open().await;
        cluster.database(&engine, DB).await;
        collection(&engine, DB, "kept", "FLAT").await;
        insert(&engine, DB, "kept", 0..5).await;
        collection(&engine, DB, "gone", "FLAT").await;
        insert(&engine, DB, "gone", 0..5).await;
        engine.flush(DB, &["gone".into()]).await.unwrap();
        engine.shutdown().await;
        drop(engine);
        let plan = FaultPlan::new(writes);
        let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
        let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
        plan.power_off_after(writes);
        let dropped = engine.drop_collection(DB, "gone").await;
        let begun = engine.create_collection(DB, crate::common::spec("made")).await;
        let removed = engine.drop_database("other").await;
        assert!(removed.is_err());
        let other = engine.create_database("other", Default::default()).await;
        let renamed = engine.rename_collection(DB, "kept", "", "renamed").await;
        engine.shutdown().await;
        drop(engine);

        let engine = cluster.open().await;
        let names: Vec<_> = engine
            .list_collections(DB)
            .await
            .unwrap()
            .into_iter()
            .map(|c| c.name)
            .collect();
        for name in &names {
            engine.describe_collection(DB, name).await.unwrap();
        }
        let there = |name: &str| names.iter().any(|known| known == name);
        assert!(dropped.is_err() || !there("gone"), "after {writes} writes");
        assert!(begun.is_err() || there("made"), "after {writes} writes");
        assert!(renamed.is_err() || there("renamed"), "after {writes} writes");
        assert!(there("kept") != there("renamed"), "after {writes} writes: {names:?}");
        assert!(
            other.is_err() || engine.describe_database("other").await.is_ok(),
            "after {writes} writes"
        );
        let kept = if there("kept") { "kept" } else { "renamed" };
        loaded(&engine, DB, kept).await;
        assert_eq!(ids(&engine, DB, kept).await, (0..5).collect::<Vec<_>>());
        if there("gone") {
            loaded(&engine, DB, "gone").await;
            assert_eq!(ids(&engine, DB, "gone").await, (0..5).collect::<Vec<_>>());
        }
        engine.shutdown().await;
    }
}
