//! Dropping leaves a receipt of every wrapped key that was destroyed.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use crate::common::{Cluster, collection, filter, insert, loaded, rows, spec};
use saker_engine::{Engine, Event, Receipt, ReceiptKind};
use saker_storage::EmbeddedStores;
use saker_testing::{FaultPlan, faulty_stores};

const DB: &str = "zone";

async fn filled(cluster: &Cluster) -> Arc<Engine> {
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "FLAT").await;
    insert(&engine, DB, "c", 0..30).await;
    engine.flush(DB, &["c".into()]).await.unwrap();
    engine.delete(DB, "c", None, filter("id == 1")).await.unwrap();
    engine.flush(DB, &["c".into()]).await.unwrap();
    insert(&engine, DB, "c", 30..40).await;
    engine
}

/// Files under a directory.
fn files(root: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.file_name().unwrap().to_string_lossy().starts_with('.') {
            found.push(std::fs::read(path).unwrap());
        }
    }
    found
}

fn receipts_heard(cluster: &Cluster) -> Vec<Receipt> {
    let events = cluster.events.0.lock().unwrap();
    let mut heard = Vec::new();
    for event in events.iter() {
        if let Event::Shredded { receipt } = event {
            heard.push((**receipt).clone());
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_counts_and_hashes_what_was_destroyed() {
    let cluster = Cluster::new();
    let engine = filled(&cluster).await;
    let (objects, segments) = (files(&cluster.dir.join("objects")), files(&cluster.dir.join("log")));
    assert!(objects.len() > 4 && !segments.is_empty());
    let receipt = engine.drop_collection(DB, "c").await.unwrap().unwrap();
    assert_eq!(
        (receipt.kind, receipt.collection.as_deref()),
        (ReceiptKind::Collection, Some("c"))
    );
    assert_eq!((receipt.database.as_str(), &receipt.root), (DB, &cluster.customer));
    assert_eq!(
        (receipt.files, receipt.log_segments),
        (objects.len() as u64, segments.len() as u64)
    );
    assert_eq!(receipt.values, 2);
    assert_eq!(receipt.data_keys, receipt.files + receipt.log_segments + receipt.values);
    assert!(receipt.zone_keys.is_empty(), "the database's key goes on");
    assert!(receipt.finished_ms.is_some_and(|finished| finished >= receipt.begun_ms));
    assert_eq!(receipt.data_keys_sha256.len(), 64);
    assert_eq!(receipts_heard(&cluster), std::slice::from_ref(&receipt));
    assert!(
        engine.drop_collection(DB, "c").await.unwrap().is_none(),
        "nothing there, nothing destroyed"
    );

    let database = engine.drop_database(DB).await.unwrap();
    assert_eq!((database.kind, database.zone_keys.len()), (ReceiptKind::Database, 1));
    assert_eq!(database.zone_keys[0].zone, receipt.zone);
    assert_eq!(database.zone_keys[0].wrapped_sha256.len(), 64);
    let known = engine.receipts().await.unwrap();
    assert_eq!(known.len(), 2);
    assert_eq!(engine.receipt(&receipt.id).await.unwrap(), receipt);
    assert!(engine.receipt("none").await.is_err());
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    assert_eq!(engine.receipts().await.unwrap(), known);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_its_own_is_on_the_collections_receipt() {
    let cluster = Cluster::new();
    let engine = filled(&cluster).await;
    let own = cluster.kms.add_root();
    let mut own_spec = spec("own");
    own_spec.properties = [("cipher.key".to_owned(), own.to_string())].into();
    engine.create_collection(DB, own_spec).await.unwrap();
    let zone = engine.describe_collection(DB, "own").await.unwrap().properties["cipher.ezID"].clone();
    let receipt = engine.drop_collection(DB, "own").await.unwrap().unwrap();
    assert_eq!(
        (&receipt.zone, &receipt.root, receipt.zone_keys.len()),
        (&zone, &own, 1)
    );
    assert_eq!((&receipt.zone_keys[0].zone, receipt.zone_keys[0].version), (&zone, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn power_failures_at_every_write_of_a_drop() {
    let mut outcomes = BTreeSet::new();
    for writes in 0.. {
        let cluster = Cluster::new();
        let engine = filled(&cluster).await;
        engine.shutdown().await;
        drop(engine);
        let (objects, segments) = (files(&cluster.dir.join("objects")), files(&cluster.dir.join("log")));

        let plan = FaultPlan::new(writes);
        let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
        let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
        loaded(&engine, DB, "c").await;
        plan.power_off_after(writes);
        let answer = engine.drop_collection(DB, "c").await;
        let off = plan.is_off();
        engine.shutdown().await;
        drop(engine);
        let engine = cluster.open().await;
        let dropped = !engine.has_collection(DB, "c").await.unwrap();
        let receipts = engine.receipts().await.unwrap();
        outcomes.insert(dropped);
        if dropped {
            assert_eq!(receipts.len(), 1, "after {writes} writes");
            let receipt = &receipts[0];
            assert!(receipt.finished_ms.is_some());
            assert_eq!(receipt.files, objects.len() as u64, "after {writes} writes");
            assert!(receipt.log_segments >= segments.len() as u64, "after {writes} writes");
            assert_eq!(receipt.data_keys, receipt.files + receipt.log_segments + 2);
            assert!(files(&cluster.dir.join("objects")).is_empty() && files(&cluster.dir.join("log")).is_empty());
            // On record before the last commit, and once more if that was lost.
            let heard = receipts_heard(&cluster);
            assert!((1..=2).contains(&heard.len()), "after {writes} writes: {heard:?}");
            assert!(
                heard
                    .iter()
                    .all(|heard| heard.id == receipt.id && heard.data_keys_sha256 == receipt.data_keys_sha256)
            );
        } else {
            assert!(answer.is_err() && receipts.is_empty(), "after {writes} writes");
            loaded(&engine, DB, "c").await;
            insert(&engine, DB, "c", 50..51).await;
        }
        engine.shutdown().await;
        if !off {
            answer.unwrap();
            assert!(writes > 3, "{writes}");
            break;
        }
    }
    assert_eq!(outcomes.len(), 2, "power failed before and after the first commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_cannot_begin_leaves_the_collection_in_use() {
    let cluster = Cluster::new();
    let plan = FaultPlan::new(1);
    let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
    let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
    collection(&engine, "default", "c", "FLAT").await;
    insert(&engine, "default", "c", 0..5).await;
    plan.chance(saker_testing::Operation::MetaCommit, 1.0, &[saker_testing::Fault::Full]);
    engine.drop_collection("default", "c").await.unwrap_err();
    plan.clear();
    loaded(&engine, "default", "c").await;
    engine.insert("default", "c", None, rows(5..6)).await.unwrap();
    assert_eq!(
        crate::common::ids(&engine, "default", "c").await,
        (0..6).collect::<Vec<_>>()
    );
    assert!(engine.receipts().await.unwrap().is_empty());
    engine.drop_collection("default", "c").await.unwrap().unwrap();
}
