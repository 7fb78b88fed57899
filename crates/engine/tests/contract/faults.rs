//! Full disks and failing stores: a clear error, nothing lost, on again when the cause is gone.

use crate::common::{Cluster, collection, count, eventually, ids, insert, loaded, rows};
use saker_engine::ErrorKind;
use saker_storage::EmbeddedStores;
use saker_testing::{Fault, FaultPlan, Operation, faulty_stores};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_loses_nothing_and_passes() {
    let cluster = Cluster::new();
    let plan = FaultPlan::new(1);
    let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
    let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
    collection(&engine, "default", "c", "FLAT").await;
    insert(&engine, "default", "c", 0..10).await;
    let writes = [
        Operation::LogAppend,
        Operation::LogCreateSegment,
        Operation::ObjectPut,
        Operation::MetaCommit,
    ];
    for round in 0..3 {
        for operation in writes {
            plan.chance(operation, 1.0, &[Fault::Full]);
        }
        for _ in 0..3 {
            let error = engine.insert("default", "c", None, rows(500..510)).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Full, "{error}");
            if round < 2 {
                let error = engine.flush("default", &["c".into()]).await.unwrap_err();
                assert_eq!(error.kind, ErrorKind::Full, "{error}");
            }
        }
        // What is there is still answered.
        assert_eq!(count(&engine, "default", "c").await, 10 + round * 5);
        plan.clear();
        let from = 10 + i64::try_from(round).unwrap() * 5;
        insert(&engine, "default", "c", from..from + 5).await;
        if round == 1 {
            engine.flush("default", &["c".into()]).await.unwrap();
        }
    }
    assert_eq!(ids(&engine, "default", "c").await, (0..25).collect::<Vec<_>>());
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, "default", "c").await;
    assert_eq!(ids(&engine, "default", "c").await, (0..25).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn power_failures_at_every_write_of_a_busy_minute() {
    // Each round dies after one more write than the one before, then recovers from what was there.
    for writes in (0..40).step_by(2) {
        let cluster = Cluster::new();
        let engine = cluster.open().await;
        collection(&engine, "default", "c", "FLAT").await;
        insert(&engine, "default", "c", 0..5).await;
        engine.shutdown().await;
        drop(engine);

        let plan = FaultPlan::new(writes);
        let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
        let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
        loaded(&engine, "default", "c").await;
        plan.power_off_after(writes);
        let (mut acked, mut begun) = (5, 5);
        let mut deleted = false;
        for round in 0..6 {
            begun = acked + 5;
            if engine
                .insert("default", "c", None, rows(acked..acked + 5))
                .await
                .is_err()
            {
                break;
            }
            acked += 5;
            if round == 2 {
                deleted = true;
                if engine
                    .delete("default", "c", None, crate::common::filter("id == 0"))
                    .await
                    .is_err()
                {
                    break;
                }
            }
            if round % 2 == 1 && engine.flush("default", &["c".into()]).await.is_err() {
                break;
            }
        }
        engine.shutdown().await;
        drop(engine);
        let engine = cluster.open().await;
        loaded(&engine, "default", "c").await;
        let found = ids(&engine, "default", "c").await;
        assert_eq!(
            count(&engine, "default", "c").await,
            found.len() as u64,
            "after {writes} writes: a row twice"
        );
        let first = found[0];
        assert!(first == 0 || deleted, "after {writes} writes: row 0 is gone");
        let last = *found.last().unwrap() + 1;
        assert!(
            last >= acked && last <= begun,
            "after {writes} writes: {last} rows, {acked} acknowledged"
        );
        assert_eq!(found, (first..last).collect::<Vec<_>>(), "after {writes} writes");
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_fail_now_and_then() {
    let cluster = Cluster::new();
    let plan = FaultPlan::new(7);
    let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
    let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
    collection(&engine, "default", "c", "FLAT").await;
    for operation in [
        Operation::LogAppend,
        Operation::LogCreateSegment,
        Operation::ObjectPut,
        Operation::MetaCommit,
    ] {
        plan.chance(operation, 0.15, &[Fault::LoseBefore, Fault::LoseAfter, Fault::Full]);
    }
    let mut acked = Vec::new();
    for batch in 0..120 {
        if engine
            .insert("default", "c", None, rows(batch * 3..batch * 3 + 3))
            .await
            .is_ok()
        {
            acked.push(batch * 3);
        }
        if batch % 10 == 9 {
            // It may fail.
            let _outcome = engine.flush("default", &["c".into()]).await;
        }
    }
    assert!(acked.len() > 20, "{} of 120 acknowledged", acked.len());
    plan.clear();
    eventually("the collection is loaded again", || async {
        engine.load_state("default", "c").await.unwrap() == saker_engine::LoadState::Loaded
    })
    .await;
    let check = async |engine: &std::sync::Arc<saker_engine::Engine>| {
        let found = ids(engine, "default", "c").await;
        assert_eq!(
            count(engine, "default", "c").await,
            found.len() as u64,
            "a row is there twice"
        );
        for id in &acked {
            assert!(found.binary_search(id).is_ok(), "acknowledged row {id} is gone");
        }
        for batch in 0..120 {
            let there = (batch * 3..batch * 3 + 3)
                .filter(|id| found.binary_search(id).is_ok())
                .count();
            assert!(there == 0 || there == 3, "{there} of 3 rows of one insert");
        }
    };
    check(&engine).await;
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, "default", "c").await;
    check(&engine).await;
}
