//! Moving collections between databases by rewrapping.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::common::{
    Cluster, brute_force, collection, count, filter, ids, index_and_load, insert, ints, loaded, rows, search,
    search_request, spec, vector,
};
use saker_engine::{Engine, Error, ErrorKind, Event, FindingClass, LoadState, MoveRequest, WalkObserver, verify};
use saker_keyring::{Denial, RootKeyId};
use saker_storage::{EmbeddedStores, ReadOnlyStores};
use saker_testing::{Fault, FaultPlan, KmsAnswer, Operation, faulty_stores};

fn request(from: &str, name: &str, to: &str) -> MoveRequest {
    MoveRequest {
        database: from.into(),
        collection: name.into(),
        to: to.into(),
        name: None,
    }
}

/// Databases `a` and `b` under keys of their own, and in `a` a collection with files, deletes, a graph and growing rows.
async fn two_databases(cluster: &Cluster) -> (Arc<Engine>, RootKeyId) {
    let engine = cluster.open().await;
    let other = cluster.kms.add_root();
    cluster.database(&engine, "a").await;
    let properties = [("cipher.key".to_owned(), other.to_string())].into();
    engine.create_database("b", properties).await.unwrap();
    collection(&engine, "a", "c", "HNSW").await;
    insert(&engine, "a", "c", 0..600).await;
    engine.flush("a", &["c".into()]).await.unwrap();
    engine.delete("a", "c", None, filter("id in [3, 4]")).await.unwrap();
    insert(&engine, "a", "c", 600..650).await;
    (engine, other)
}

fn expected() -> Vec<i64> {
    (0..650).filter(|id| ![3, 4].contains(id)).collect()
}

async fn whole_in(engine: &Arc<Engine>, database: &str, other: &str, name: &str) {
    loaded(engine, database, name).await;
    assert_eq!(ids(engine, database, name).await, expected());
    assert!(!engine.has_collection(other, name).await.unwrap());
    let found = search(engine, database, name, 9, 5).await;
    assert_eq!(ints(&found.ids), brute_force(expected(), &vector(9), 5));
}

async fn clean(cluster: &Cluster) {
    let keys = Arc::clone(&cluster.kms) as Arc<dyn saker_keyring::KeyService>;
    let stores = Arc::new(ReadOnlyStores::open(&cluster.dir).unwrap());
    let report = verify(stores, &*keys, Arc::new(Nobody)).await;
    // What a build leaves that a stop interrupted is tidied up at the next start.
    let mut findings = report.findings;
    findings.retain(|finding| finding.class != FindingClass::Leftover);
    assert!(findings.is_empty(), "{findings:?}");
}

/// Nobody watches the walk.
struct Nobody;

impl WalkObserver for Nobody {
    fn on_progress(&self, _seen: u64, _total: u64) {}
    fn on_platform_record(&self, _stream: &str, _sequence: u64, _record: u64, _plain: &[u8]) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_collection_is_under_the_other_key_alone() {
    let cluster = Cluster::new();
    let (engine, other) = two_databases(&cluster).await;
    let calls = cluster.kms.calls_total();
    let moved = engine.move_collection(request("a", "c", "b")).await.unwrap();
    assert_eq!(cluster.kms.calls_total(), calls, "a move asks no key service");
    assert!(moved.headers > 5 && !moved.own_key, "{moved:?}");
    // It did not have to be loaded again.
    assert_eq!(engine.load_state("b", "c").await.unwrap(), LoadState::Loaded);
    whole_in(&engine, "b", "a", "c").await;
    insert(&engine, "b", "c", 3..4).await;
    engine.delete("b", "c", None, filter("id == 3")).await.unwrap();
    engine.flush("b", &["c".into()]).await.unwrap();
    // The old database's key says nothing about it any more, not even after a restart.
    engine.shutdown().await;
    drop(engine);
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    let engine = cluster.open().await;
    whole_in(&engine, "b", "a", "c").await;
    cluster.kms.set(&other, KmsAnswer::Deny(Denial::Disabled));
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    let error = engine.search(search_request("b", "c", 1, 3)).await.unwrap_err();
    assert!(
        matches!(&error.kind, ErrorKind::ZoneLocked { root, .. } if *root == other),
        "{error}"
    );
    cluster.kms.set(&other, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    // There and back again, under another name.
    let back = MoveRequest {
        name: Some("d".into()),
        ..request("b", "c", "a")
    };
    engine.move_collection(back).await.unwrap();
    whole_in(&engine, "a", "b", "d").await;
    engine.drop_database("b").await.unwrap();
    engine.shutdown().await;
    drop(engine);
    clean(&cluster).await;
    let events = cluster.events.0.lock().unwrap();
    let moves = events
        .iter()
        .filter(|event| matches!(event, Event::CollectionMoved { .. }));
    assert_eq!(moves.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_go_on_and_writes_wait() {
    let cluster = Cluster::new();
    let (engine, _) = two_databases(&cluster).await;
    let stop = Arc::new(AtomicBool::new(false));
    let searcher = {
        let (engine, stop) = (engine.clone(), stop.clone());
        tokio::spawn(async move {
            let mut found = 0;
            while !stop.load(Ordering::Relaxed) {
                // A search that meets the switch of names asks once more: then it is in the one or in the other.
                let mut missing = 0;
                for database in ["a", "b", "a", "b"] {
                    match engine.search(search_request(database, "c", 9, 1)).await {
                        Ok(hits) => {
                            assert_eq!(ints(&hits.ids), [9]);
                            found += 1;
                        }
                        Err(error) if error.kind == ErrorKind::CollectionNotFound => missing += 1,
                        Err(error) => panic!("{error:?}"),
                    }
                }
                assert!(missing < 4, "in no database");
                tokio::task::yield_now().await;
            }
            found
        })
    };
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let (engine, stop) = (engine.clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                let mut next = 10_000 * (number + 1);
                while !stop.load(Ordering::Relaxed) {
                    let mut written = false;
                    for database in ["a", "b", "a", "b"] {
                        match engine.insert(database, "c", None, rows(next..next + 3)).await {
                            Ok(_) => {
                                written = true;
                                break;
                            }
                            Err(error) => assert_eq!(error.kind, ErrorKind::CollectionNotFound, "{error}"),
                        }
                    }
                    assert!(written, "in no database");
                    acknowledged.extend(next..next + 3);
                    next += 3;
                    tokio::task::yield_now().await;
                }
                acknowledged
            })
        })
        .collect();
    for round in 0..6 {
        let (from, to) = if round % 2 == 0 { ("a", "b") } else { ("b", "a") };
        engine.move_collection(request(from, "c", to)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    assert!(searcher.await.unwrap() > 0);
    let mut all: BTreeSet<i64> = expected().into_iter().collect();
    for writer in writers {
        all.extend(writer.await.unwrap());
    }
    let all: Vec<i64> = all.into_iter().collect();
    assert_eq!(ids(&engine, "a", "c").await, all);
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, "a", "c").await;
    assert_eq!(ids(&engine, "a", "c").await, all);
    assert_eq!(count(&engine, "a", "c").await, all.len() as u64);
    engine.shutdown().await;
    drop(engine);
    clean(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_failures_at_every_write_of_a_move() {
    let mut outcomes = BTreeSet::new();
    for writes in 0.. {
        let cluster = Cluster::new();
        let (engine, _) = two_databases(&cluster).await;
        engine.shutdown().await;
        drop(engine);

        let plan = FaultPlan::new(writes);
        let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
        let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
        loaded(&engine, "a", "c").await;
        plan.power_off_after(writes);
        let mover = tokio::spawn({
            let engine = engine.clone();
            async move { engine.move_collection(request("a", "c", "b")).await }
        });
        // A move that is committed tries on until the engine stops.
        while !mover.is_finished() && !plan.is_off() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let off = plan.is_off();
        engine.shutdown().await;
        drop(engine);
        let answer = mover.await.unwrap();
        if off {
            // Both keys are disabled in this moment: what was committed is finished without them.
            for root in cluster_roots(&cluster) {
                cluster.kms.set(&root, KmsAnswer::Deny(Denial::Disabled));
            }
            let engine = cluster.open().await;
            for root in cluster_roots(&cluster) {
                cluster.kms.set(&root, KmsAnswer::Right);
            }
            engine.check_keys_now().await.unwrap();
            let moved = engine.has_collection("b", "c").await.unwrap();
            let (here, there) = if moved { ("b", "a") } else { ("a", "b") };
            whole_in(&engine, here, there, "c").await;
            assert!(
                moved || answer.is_err(),
                "after {writes} writes: acknowledged and not there"
            );
            outcomes.insert(moved);
            engine.shutdown().await;
            drop(engine);
            clean(&cluster).await;
        } else {
            answer.unwrap();
            assert!(writes > 5, "{writes}");
            break;
        }
    }
    assert_eq!(outcomes.len(), 2, "power failed before and after the commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_after_the_commit_makes_nobody_wait_and_loses_nothing() {
    let cluster = Cluster::new();
    let (engine, other) = two_databases(&cluster).await;
    engine.shutdown().await;
    drop(engine);
    let plan = FaultPlan::new(1);
    let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
    let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
    loaded(&engine, "a", "c").await;
    engine.flush("a", &["c".into()]).await.unwrap();
    plan.chance(Operation::ObjectReplaceHeaders, 1.0, &[Fault::LoseBefore]);
    // The commit is done, but the store says that it failed.
    plan.next(Operation::MetaCommit, [Some(Fault::LoseAfter)]);
    engine.move_collection(request("a", "c", "b")).await.unwrap();
    let found = search(&engine, "b", "c", 9, 5).await;
    assert_eq!(ints(&found.ids), brute_force(expected(), &vector(9), 5));
    // Locked and unlocked before the headers are written: loading waits, and takes no old header for damage.
    cluster.kms.set(&other, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    let error = engine.search(search_request("b", "c", 1, 3)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::ZoneLocked { .. }), "{error}");
    cluster.kms.set(&other, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    assert_ne!(engine.load_state("b", "c").await.unwrap(), LoadState::Loaded);
    plan.clear();
    whole_in(&engine, "b", "a", "c").await;
    engine.shutdown().await;
    drop(engine);
    clean(&cluster).await;
}

fn cluster_roots(cluster: &Cluster) -> [RootKeyId; 2] {
    // The second key is the one that `two_databases` adds.
    let other = "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-4000-8000-000000000003";
    [cluster.customer.clone(), other.parse().unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_moved_stays_as_it_is() {
    let cluster = Cluster::new();
    let (engine, other) = two_databases(&cluster).await;
    let refused = async |request: MoveRequest, says: &str| {
        let error: Error = engine.move_collection(request).await.unwrap_err();
        assert!(error.message.contains(says), "{error}");
    };
    refused(request("a", "none", "b"), "collection not found").await;
    refused(request("a", "c", "none"), "database not found").await;
    refused(request("a", "c", "a"), "already").await;
    let named = MoveRequest {
        name: Some("b.c".into()),
        ..request("a", "c", "b")
    };
    refused(named, "name").await;
    engine.create_collection("b", spec("c")).await.unwrap();
    refused(request("a", "c", "b"), "duplicated").await;
    engine.create_alias("b", "c", "d").await.unwrap();
    let named = MoveRequest {
        name: Some("d".into()),
        ..request("a", "c", "b")
    };
    refused(named, "duplicated").await;
    engine.drop_alias("b", "d").await.unwrap();
    engine.drop_collection("b", "c").await.unwrap();
    engine.create_alias("a", "c", "alias").await.unwrap();
    refused(request("a", "c", "b"), "drop them first").await;
    refused(request("a", "alias", "b"), "use an alias").await;
    engine.drop_alias("a", "alias").await.unwrap();
    for root in [&cluster.customer, &other] {
        cluster.kms.set(root, KmsAnswer::Deny(Denial::Disabled));
        engine.check_keys_now().await.unwrap();
        let error = engine.move_collection(request("a", "c", "b")).await.unwrap_err();
        assert!(
            matches!(&error.kind, ErrorKind::ZoneLocked { root: named, .. } if named == root),
            "{error}"
        );
        cluster.kms.set(root, KmsAnswer::Right);
        engine.check_keys_now().await.unwrap();
    }
    // A plain rename says which command does it.
    let error = engine.rename_collection("a", "c", "b", "d").await.unwrap_err();
    assert!(
        error.message.contains("saker collection move a.c --to b --name d"),
        "{error}"
    );
    whole_in(&engine, "a", "b", "c").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_with_its_own_key_takes_it_along() {
    let cluster = Cluster::new();
    let (engine, _) = two_databases(&cluster).await;
    let own = cluster.kms.add_root();
    let mut own_spec = spec("own");
    own_spec.properties = [("cipher.key".to_owned(), own.to_string())].into();
    engine.create_collection("a", own_spec).await.unwrap();
    index_and_load(&engine, "a", "own", "FLAT").await;
    insert(&engine, "a", "own", 0..20).await;
    let zone = engine.describe_collection("a", "own").await.unwrap().properties["cipher.ezID"].clone();
    // No key is needed: only the catalog changes.
    for root in [&own, &cluster.customer] {
        cluster.kms.set(root, KmsAnswer::Deny(Denial::Disabled));
    }
    engine.check_keys_now().await.unwrap();
    let moved = engine.move_collection(request("a", "own", "b")).await.unwrap();
    assert!(moved.own_key && moved.headers == 0);
    let error = engine.search(search_request("b", "own", 1, 3)).await.unwrap_err();
    assert!(error.message.contains("[database=b][collection=own]"), "{error}");
    cluster.kms.set(&own, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    loaded(&engine, "b", "own").await;
    assert_eq!(ids(&engine, "b", "own").await, (0..20).collect::<Vec<_>>());
    let shown = engine.describe_collection("b", "own").await.unwrap();
    assert_eq!(
        (shown.database.as_str(), &shown.properties["cipher.ezID"]),
        ("b", &zone)
    );
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, "b", "own").await;
    assert_eq!(ids(&engine, "b", "own").await, (0..20).collect::<Vec<_>>());
}
