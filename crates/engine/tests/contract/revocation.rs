//! The kill switch: what a key service says decides what is answered.

use std::sync::Arc;

use crate::common::{
    Cluster, brute_force, collection, count, eventually, filter, ids, insert, ints, loaded, query_request, rows,
    search, search_request, spec, vector,
};
use saker_engine::{Engine, Error, ErrorKind, Event, LockStatus};
use saker_keyring::{Denial, Outage};
use saker_testing::KmsAnswer;

const DB: &str = "zone";
/// Searches that one task tries before it gives up waiting for a refusal: minutes.
const SEARCHES_MAX: usize = 2_000_000;

fn assert_locked(error: &Error, cluster: &Cluster, reason: &str) {
    let ErrorKind::ZoneLocked {
        database,
        root,
        reason: said,
        ..
    } = &error.kind
    else {
        panic!("{error:?}")
    };
    assert_eq!((database.as_str(), root), (DB, &cluster.customer));
    assert!(said.contains(reason), "{said}");
    let wording = "access has been disabled by the administrator: kms key revoked or disabled";
    for part in [wording, DB, cluster.customer.as_str(), "enable the key"] {
        assert!(error.message.contains(part), "{error}");
    }
}

async fn refused_everywhere(engine: &Arc<Engine>, cluster: &Cluster, reason: &str) {
    let search = engine.search(search_request(DB, "c", 1, 3)).await.unwrap_err();
    let query = engine
        .query(query_request(DB, "c", "id == 1", &["*"]))
        .await
        .unwrap_err();
    let insert = engine.insert(DB, "c", None, rows(900..901)).await.unwrap_err();
    let delete = engine.delete(DB, "c", None, filter("id == 1")).await.unwrap_err();
    let flush = engine.flush(DB, &["c".into()]).await.unwrap_err();
    let describe = engine.describe_collection(DB, "c").await.unwrap_err();
    let create = engine.create_collection(DB, spec("new")).await.unwrap_err();
    for error in [search, query, insert, delete, flush, describe, create] {
        assert_locked(&error, cluster, reason);
    }
}

async fn two_databases(cluster: &Cluster) -> Arc<Engine> {
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "FLAT").await;
    insert(&engine, DB, "c", 0..50).await;
    engine.flush(DB, &["c".into()]).await.unwrap();
    insert(&engine, DB, "c", 50..60).await;
    collection(&engine, "default", "c", "FLAT").await;
    insert(&engine, "default", "c", 0..20).await;
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_key_turns_its_database_dark_and_only_that_one() {
    let cluster = Cluster::new();
    let engine = two_databases(&cluster).await;
    let expected = brute_force(0..60, &vector(9), 10);
    for denial in [
        Denial::Disabled,
        Denial::PendingDeletion,
        Denial::AccessDenied,
        Denial::NotFound,
    ] {
        assert_eq!(ints(&search(&engine, DB, "c", 9, 10).await.ids), expected);
        cluster.kms.set(&cluster.customer, KmsAnswer::Deny(denial));
        engine.check_keys_now().await.unwrap();
        refused_everywhere(&engine, &cluster, &denial.to_string()).await;
        // Names can be listed, and the other database does not notice.
        assert_eq!(engine.list_collections(DB).await.unwrap()[0].name, "c");
        let LockStatus::Locked { .. } = engine.describe_database(DB).await.unwrap().lock else {
            panic!("not locked")
        };
        assert_eq!(
            ints(&search(&engine, "default", "c", 9, 5).await.ids),
            brute_force(0..20, &vector(9), 5)
        );
        insert(&engine, "default", "c", 20..21).await;
        engine.delete("default", "c", None, filter("id == 20")).await.unwrap();
        // With the key back, everything is back without a call.
        cluster.kms.set(&cluster.customer, KmsAnswer::Right);
        engine.check_keys_now().await.unwrap();
        loaded(&engine, DB, "c").await;
        assert_eq!(ids(&engine, DB, "c").await, (0..60).collect::<Vec<_>>());
    }
    let events = cluster.events.0.lock().unwrap();
    let locks = events
        .iter()
        .filter(|event| matches!(event, Event::ZoneLocked { database, .. } if database == DB));
    assert_eq!(locks.count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_served_through_until_the_grace_period_ends() {
    let cluster = Cluster::new();
    let engine = two_databases(&cluster).await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Fail(Outage::Timeout));
    engine.check_keys_now().await.unwrap();
    assert_eq!(engine.describe_database(DB).await.unwrap().lock, LockStatus::Suspect);
    cluster.clock.advance(cluster.config.lease.grace_ms - 1);
    engine.check_keys_now().await.unwrap();
    assert_eq!(count(&engine, DB, "c").await, 60);
    cluster.clock.advance(1);
    engine.check_keys_now().await.unwrap();
    refused_everywhere(&engine, &cluster, "grace period").await;
    // The platform's key service answered all along.
    assert_eq!(count(&engine, "default", "c").await, 20);
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    loaded(&engine, DB, "c").await;
    assert_eq!(count(&engine, DB, "c").await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_half_done_while_writes_meet_the_lock() {
    let cluster = Cluster::new();
    let engine = two_databases(&cluster).await;
    let mut from = 1_000;
    for _ in 0..5 {
        let writers: Vec<_> = (0..8)
            .map(|number| {
                let (engine, from) = (engine.clone(), from + number * 100);
                tokio::spawn(async move {
                    let mut acked = Vec::new();
                    for batch in 0..20 {
                        let batch = from + batch * 5;
                        match engine.insert(DB, "c", None, rows(batch..batch + 5)).await {
                            Ok(_) => acked.push(batch),
                            Err(error) => {
                                assert!(matches!(error.kind, ErrorKind::ZoneLocked { .. }), "{error:?}");
                                return acked;
                            }
                        }
                    }
                    acked
                })
            })
            .collect();
        cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
        engine.check_keys_now().await.unwrap();
        let mut acked = Vec::new();
        for writer in writers {
            acked.extend(writer.await.unwrap());
        }
        refused_everywhere(&engine, &cluster, "disabled").await;
        cluster.kms.set(&cluster.customer, KmsAnswer::Right);
        engine.check_keys_now().await.unwrap();
        loaded(&engine, DB, "c").await;
        let found = ids(&engine, DB, "c").await;
        assert_eq!(count(&engine, DB, "c").await, found.len() as u64);
        for batch in acked {
            assert!(found.binary_search(&batch).is_ok(), "acknowledged row {batch} is gone");
        }
        for batch in (from..from + 800).step_by(5) {
            let there = (batch..batch + 5).filter(|id| found.binary_search(id).is_ok()).count();
            assert!(there == 0 || there == 5, "{there} of 5 rows of one insert");
        }
        from += 1_000;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_that_run_into_the_lock_are_refused() {
    let cluster = Cluster::new();
    let engine = two_databases(&cluster).await;
    let expected = brute_force(0..60, &vector(3), 5);
    let searchers: Vec<_> = (0..4)
        .map(|_| {
            let (engine, expected) = (engine.clone(), expected.clone());
            tokio::spawn(async move {
                for _ in 0..SEARCHES_MAX {
                    match engine.search(search_request(DB, "c", 3, 5)).await {
                        Ok(found) => assert_eq!(ints(&found.ids), expected),
                        Err(error) => return error,
                    }
                    // On a machine with few threads others get a turn, whatever a search does.
                    tokio::task::yield_now().await;
                }
                panic!("never refused");
            })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    for searcher in searchers {
        assert_locked(&searcher.await.unwrap(), &cluster, "disabled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_at_the_start_leaves_the_others_working() {
    for answer in [KmsAnswer::Deny(Denial::Disabled), KmsAnswer::Fail(Outage::Unreachable)] {
        let cluster = Cluster::new();
        let engine = two_databases(&cluster).await;
        engine.shutdown().await;
        drop(engine);
        cluster.kms.set(&cluster.customer, answer);
        let engine = cluster.open().await;
        loaded(&engine, "default", "c").await;
        assert_eq!(count(&engine, "default", "c").await, 20);
        refused_everywhere(&engine, &cluster, "").await;
        cluster.kms.set(&cluster.customer, KmsAnswer::Right);
        engine.check_keys_now().await.unwrap();
        loaded(&engine, DB, "c").await;
        assert_eq!(count(&engine, DB, "c").await, 60);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hot_path_never_asks_the_key_service() {
    let cluster = Cluster::new();
    let engine = two_databases(&cluster).await;
    let before = cluster.kms.calls_total();
    for id in 0..1_000 {
        search(&engine, DB, "c", id, 3).await;
    }
    insert(&engine, DB, "c", 100..110).await;
    engine.flush(DB, &["c".into()]).await.unwrap();
    engine.release_collection(DB, "c").await.unwrap();
    engine.load_collection(DB, "c").await.unwrap();
    loaded(&engine, DB, "c").await;
    assert_eq!(cluster.kms.calls_total(), before);
    engine.check_keys_now().await.unwrap();
    // One probe for each of the two root keys.
    assert_eq!(cluster.kms.calls_total(), before + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_notices_by_itself() {
    let mut cluster = Cluster::new();
    cluster.config.lease.probe_interval_ms = 1_000;
    let engine = two_databases(&cluster).await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    let clock = Arc::clone(&cluster.clock);
    eventually("the lock", || async {
        clock.advance(1_000);
        engine.search(search_request(DB, "c", 1, 1)).await.is_err()
    })
    .await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    eventually("the unlock", || async {
        clock.advance(1_000);
        engine.search(search_request(DB, "c", 1, 1)).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_database_can_be_dropped_and_a_locked_platform_locks_its_own() {
    let cluster = Cluster::new();
    let engine = two_databases(&cluster).await;
    cluster.kms.set(&cluster.platform, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    let error = engine.search(search_request("default", "c", 1, 1)).await.unwrap_err();
    assert!(
        matches!(&error.kind, ErrorKind::ZoneLocked { database, .. } if database == "default"),
        "{error:?}"
    );
    assert_eq!(count(&engine, DB, "c").await, 60);
    insert(&engine, DB, "c", 60..61).await;
    cluster.kms.set(&cluster.platform, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    loaded(&engine, "default", "c").await;
    assert_eq!(count(&engine, "default", "c").await, 20);

    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    engine.release_collection(DB, "c").await.unwrap();
    engine.drop_collection(DB, "c").await.unwrap();
    engine.drop_database(DB).await.unwrap();
    assert_eq!(engine.key_states().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_tried_before_anything_is_stored() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    let create = async |name: &str, properties: &[(&str, &str)]| {
        let properties = properties
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        engine.create_database(name, properties).await
    };
    let arn = cluster.customer.as_str();
    let unknown = "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-4000-8000-999999999999";
    for (properties, said) in [
        (vec![("cipher.enabled", "maybe")], "must be"),
        (vec![("cipher.enabled", "true")], "no default key"),
        (vec![("cipher.enabled", "false"), ("cipher.key", arn)], "cipher.enabled"),
        (
            vec![("cipher.enabled", "true"), ("cipher.key", "arn:nonsense")],
            "malformed",
        ),
        (
            vec![
                ("cipher.enabled", "true"),
                ("cipher.key", "arn:aws:kms:us-east-1:000000000000:alias/a"),
            ],
            "alias",
        ),
        (vec![("cipher.ezID", "1")], "set by the server"),
    ] {
        let error = create("d", &properties).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidParameter, "{error}");
        assert!(error.message.contains(said), "{error}");
    }
    let error = create("d", &[("cipher.key", unknown)]).await.unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::KeyUnusable { .. }) && error.message.contains(unknown),
        "{error}"
    );
    for answer in [
        KmsAnswer::Deny(Denial::Disabled),
        KmsAnswer::Fail(Outage::Timeout),
        KmsAnswer::WrongKey,
    ] {
        cluster.kms.set(&cluster.customer, answer);
        let error = create("d", &[("cipher.enabled", "true"), ("cipher.key", arn)])
            .await
            .unwrap_err();
        assert!(
            matches!(error.kind, ErrorKind::KeyUnusable { .. }) && error.message.contains(arn),
            "{error}"
        );
    }
    assert_eq!(engine.list_databases().await.unwrap().len(), 1);
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    let info = create("d", &[("cipher.enabled", "true"), ("cipher.key", arn), ("note", "x")])
        .await
        .unwrap();
    assert_eq!(info.properties["cipher.key"], arn);
    assert_eq!(info.properties["cipher.enabled"], "true");
    assert_eq!(info.properties["note"], "x");
    assert!(!info.properties["cipher.ezID"].is_empty());
    let refused = engine
        .alter_database("d", [("cipher.key".to_owned(), arn.to_owned())].into(), vec![])
        .await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::InvalidParameter);
    assert!(
        engine
            .alter_database("d", Default::default(), vec!["cipher.enabled".into()])
            .await
            .is_err()
    );
    engine
        .alter_database("d", [("note".to_owned(), "y".to_owned())].into(), vec![])
        .await
        .unwrap();
    assert_eq!(engine.describe_database("d").await.unwrap().properties["note"], "y");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_key_encrypts_every_new_database_unless_it_says_false() {
    let mut cluster = Cluster::new();
    cluster.config.default_key = Some(cluster.customer.clone());
    let engine = cluster.open().await;
    let enabled = |text: &str| [("cipher.enabled".to_owned(), text.to_owned())].into();
    assert!(
        engine
            .create_database("plain", Default::default())
            .await
            .unwrap()
            .customer_key
    );
    assert!(
        engine
            .create_database("asked", enabled("true"))
            .await
            .unwrap()
            .customer_key
    );
    let refused = engine.create_database("off", enabled("false")).await.unwrap();
    assert_eq!((refused.customer_key, refused.root), (false, cluster.platform.clone()));
    assert!(!refused.properties.contains_key("cipher.key"));
    // Each database has a zone of its own.
    let zones: std::collections::BTreeSet<_> = engine
        .list_databases()
        .await
        .unwrap()
        .into_iter()
        .map(|d| d.id)
        .collect();
    assert_eq!(zones.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_platform_key_there_is_no_start_and_a_clear_reason() {
    let cluster = Cluster::new();
    two_databases(&cluster).await.shutdown().await;
    cluster.kms.set(&cluster.platform, KmsAnswer::Deny(Denial::Disabled));
    let error = cluster.try_open(&cluster.dir).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::KeyUnusable { .. }), "{error:?}");
    assert!(
        error.message.contains(cluster.platform.as_str()) && error.message.contains("disabled"),
        "{error}"
    );
    cluster.kms.set(&cluster.platform, KmsAnswer::Right);
    let engine = cluster.open().await;
    loaded(&engine, DB, "c").await;
    engine.shutdown().await;
    let late = engine.search(search_request(DB, "c", 1, 1)).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::ShuttingDown);
}
