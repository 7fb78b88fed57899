//! The contract of the metadata store, on a local file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use common::{holds, overwrite, unlocked};
use saker_keyring::{Lease, SealedValue};
use saker_storage::{Expected, LocalMeta, MetaBatch, MetaError, MetaKey, MetaStore};

fn key(text: &str) -> MetaKey {
    MetaKey::new(text).unwrap()
}

fn sealed(lease: &Lease, key: &str, plain: &str) -> SealedValue {
    lease.seal_value(key, plain.as_bytes()).unwrap()
}

async fn put(meta: &LocalMeta, lease: &Lease, name: &str, plain: &str) {
    let mut batch = MetaBatch::new();
    batch.put(key(name), sealed(lease, name, plain));
    meta.commit(batch).await.unwrap();
}

async fn opened(meta: &LocalMeta, lease: &Lease, name: &str) -> Option<String> {
    let value = meta.get(&key(name)).await.unwrap()?;
    Some(String::from_utf8(lease.open_value(name, &value).unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn committed_values_are_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let (_zone, lease) = unlocked();
    {
        let meta = LocalMeta::open(&path).unwrap();
        for number in 0..20 {
            put(&meta, &lease, &format!("cluster/{number}"), &format!("value {number}")).await;
        }
    }
    let meta = LocalMeta::open(&path).unwrap();
    for number in 0..20 {
        assert_eq!(
            opened(&meta, &lease, &format!("cluster/{number}")).await,
            Some(format!("value {number}"))
        );
    }
    assert_eq!(opened(&meta, &lease, "cluster/20").await, None);
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let meta = LocalMeta::open(&directory.path().join("meta.redb")).unwrap();
    put(&meta, &lease, "a", "old").await;
    let seen = meta.get(&key("a")).await.unwrap().unwrap();

    let conflicting = |expected: Vec<(&str, Expected)>| {
        let mut batch = MetaBatch::new();
        batch
            .put(key("a"), sealed(&lease, "a", "new"))
            .put(key("b"), sealed(&lease, "b", "new"))
            .delete(key("c"));
        for (name, value) in expected {
            batch.expect(key(name), value);
        }
        batch
    };
    let stale = sealed(&lease, "a", "old").into_unverified();
    for (expected, conflict) in [
        (vec![("a", Expected::Absent)], "a"),
        (vec![("b", Expected::Value(seen.clone()))], "b"),
        // The same plaintext, but another seal: not what was read.
        (vec![("a", Expected::Value(stale))], "a"),
        (
            vec![
                ("a", Expected::Value(seen.clone())),
                ("b", Expected::Value(seen.clone())),
            ],
            "b",
        ),
    ] {
        match meta.commit(conflicting(expected)).await {
            Err(MetaError::Conflict { key }) => assert_eq!(key.as_str(), conflict),
            other => panic!("{other:?}"),
        }
        assert_eq!(opened(&meta, &lease, "a").await.as_deref(), Some("old"));
        assert_eq!(opened(&meta, &lease, "b").await, None);
    }
    let holding = vec![("a", Expected::Value(seen)), ("b", Expected::Absent)];
    meta.commit(conflicting(holding)).await.unwrap();
    assert_eq!(opened(&meta, &lease, "a").await.as_deref(), Some("new"));
    assert_eq!(opened(&meta, &lease, "b").await.as_deref(), Some("new"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_expect_the_same_value_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let meta = LocalMeta::open(&directory.path().join("meta.redb")).unwrap();
    let commits = (0..10).map(|number| {
        let mut batch = MetaBatch::new();
        batch
            .put(key("a"), sealed(&lease, "a", &number.to_string()))
            .expect(key("a"), Expected::Absent);
        meta.commit(batch)
    });
    let done = futures::future::join_all(commits).await;
    assert_eq!(done.iter().filter(|commit| commit.is_ok()).count(), 1);
    assert_eq!(
        done.iter()
            .filter(|commit| matches!(commit, Err(MetaError::Conflict { .. })))
            .count(),
        9
    );
}

#[tokio::test]
async fn scans_by_prefix_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let meta = LocalMeta::open(&directory.path().join("meta.redb")).unwrap();
    for name in ["z/1", "db/10/x", "db/2/x", "db/1/x", "db2/1", "a"] {
        put(&meta, &lease, name, name).await;
    }
    let scan = async |prefix: &str| -> Vec<String> {
        meta.scan(prefix)
            .await
            .unwrap()
            .into_iter()
            .map(|(key, _)| key.to_string())
            .collect()
    };
    assert_eq!(scan("db/").await, ["db/1/x", "db/10/x", "db/2/x"]);
    assert_eq!(scan("db").await, ["db/1/x", "db/10/x", "db/2/x", "db2/1"]);
    assert_eq!(scan("").await.len(), 6);
    assert!(scan("q").await.is_empty());
    assert!(matches!(meta.scan("/a").await, Err(MetaError::Path(_))));
    let (found, value) = meta.scan("z/").await.unwrap().remove(0);
    assert_eq!(*lease.open_value(found.as_str(), &value).unwrap(), b"z/1");
}

#[tokio::test]
async fn operations_apply_in_order_and_deleting_nothing_is_fine() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let meta = LocalMeta::open(&directory.path().join("meta.redb")).unwrap();
    let mut batch = MetaBatch::new();
    batch
        .delete(key("a"))
        .put(key("a"), sealed(&lease, "a", "1"))
        .put(key("a"), sealed(&lease, "a", "2"));
    batch.put(key("b"), sealed(&lease, "b", "1")).delete(key("b"));
    meta.commit(batch).await.unwrap();
    assert_eq!(opened(&meta, &lease, "a").await.as_deref(), Some("2"));
    assert_eq!(opened(&meta, &lease, "b").await, None);
    meta.commit(MetaBatch::new()).await.unwrap();
}

#[tokio::test]
async fn the_number_of_operations_is_limited() {
    let directory = tempfile::tempdir().unwrap();
    let meta = LocalMeta::open(&directory.path().join("meta.redb")).unwrap();
    let batch = |operations: usize| {
        let mut batch = MetaBatch::new();
        for number in 0..operations {
            batch.delete(key(&number.to_string()));
        }
        batch
    };
    meta.commit(batch(MetaBatch::OPERATIONS_MAX - 1)).await.unwrap();
    meta.commit(batch(MetaBatch::OPERATIONS_MAX)).await.unwrap();
    let refused = meta.commit(batch(MetaBatch::OPERATIONS_MAX + 1)).await;
    assert!(
        matches!(refused, Err(MetaError::TooLarge { operations, .. }) if operations == MetaBatch::OPERATIONS_MAX + 1)
    );
}

#[tokio::test]
async fn a_damaged_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let (_zone, lease) = unlocked();
    {
        let meta = LocalMeta::open(&path).unwrap();
        for number in 0..200 {
            put(&meta, &lease, &format!("cluster/{number}"), &"x".repeat(300)).await;
        }
    }
    let whole = std::fs::read(&path).unwrap();
    let copy = directory.path().join("copy.redb");
    overwrite(&copy, b"something else entirely");
    assert!(LocalMeta::open(&copy).is_err());
    let mut refused = 0;
    for position in (0..whole.len()).step_by(whole.len() / 23) {
        let mut bytes = whole.clone();
        let end = bytes.len().min(position + 4_096);
        bytes[position..end].fill(0xA5);
        overwrite(&copy, &bytes);
        // Either the damage is found on opening, or it hit bytes that are not in use and all values are there.
        match LocalMeta::open(&copy) {
            Err(_) => refused += 1,
            Ok(meta) => {
                for number in 0..200 {
                    let name = format!("cluster/{number}");
                    assert_eq!(
                        opened(&meta, &lease, &name).await,
                        Some("x".repeat(300)),
                        "damage at {position}"
                    );
                }
            }
        }
    }
    assert!(refused > 0);
}

/// Shredding is worth nothing if the library keeps the old page.
#[tokio::test]
async fn a_removed_value_is_not_left_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.redb");
    let (_zone, lease) = unlocked();
    let meta = LocalMeta::open(&path).unwrap();
    put(&meta, &lease, "database/1", "kept").await;
    // Written twice: the first value is in a page that was given up, too.
    put(&meta, &lease, "database/2", "dropped").await;
    let first = meta.get(&key("database/2")).await.unwrap().unwrap();
    put(&meta, &lease, "database/2", "dropped, changed").await;
    let second = meta.get(&key("database/2")).await.unwrap().unwrap();
    assert!(holds(&std::fs::read(&path).unwrap(), second.as_bytes()));
    let old = directory.path().join("link");
    std::fs::hard_link(&path, &old).unwrap();

    let mut batch = MetaBatch::new();
    batch.delete(key("database/2"));
    meta.commit(batch).await.unwrap();
    for file in [&path, &old] {
        let bytes = std::fs::read(file).unwrap();
        for value in [&first, &second] {
            assert!(
                !holds(&bytes, &value.as_bytes()[..64]),
                "a removed value is in {}",
                file.display()
            );
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);

    // It goes on, and is all there when it is opened again.
    put(&meta, &lease, "database/3", "later").await;
    assert_eq!(opened(&meta, &lease, "database/1").await, Some("kept".to_owned()));
    drop(meta);
    overwrite(&directory.path().join("meta.redb.new"), b"left by a crash");
    let meta = LocalMeta::open(&path).unwrap();
    assert_eq!(opened(&meta, &lease, "database/1").await, Some("kept".to_owned()));
    assert_eq!(opened(&meta, &lease, "database/2").await, None);
    assert_eq!(opened(&meta, &lease, "database/3").await, Some("later".to_owned()));
    assert!(!directory.path().join("meta.redb.new").exists());
}
