//! The contract of the object store, on local files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use common::{holds, object, overwrite, unlocked};
use saker_keyring::{FileId, FileIdentity, FileKind, HEADER_BYTES};
use saker_storage::{LocalObjects, ObjectPath, ObjectStore, StoreError};

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

#[tokio::test]
async fn an_object_is_there_after_reopening_and_opens() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let (file, plain) = (FileId::random(), vec![7u8; 100_000]);
    let sealed = object(&lease, file, &plain);
    let bytes = sealed.len();
    {
        let store = LocalObjects::open(directory.path()).unwrap();
        store.put(&path("zone/segment/column"), sealed).await.unwrap();
    }
    let store = LocalObjects::open(directory.path()).unwrap();
    assert_eq!(store.size(&path("zone/segment/column")).await.unwrap(), bytes);
    let read = store.get(&path("zone/segment/column")).await.unwrap();
    let identity = FileIdentity {
        file,
        kind: FileKind::Column,
    };
    assert_eq!(*lease.open_whole_file(identity, &read).unwrap(), plain);
}

#[tokio::test]
async fn objects_are_written_once() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let store = LocalObjects::open(directory.path()).unwrap();
    let first = object(&lease, FileId::random(), b"first");
    let expected = first.to_unverified();
    store.put(&path("a/b"), first).await.unwrap();
    let again = store
        .put(&path("a/b"), object(&lease, FileId::random(), b"second"))
        .await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { path }) if path.as_str() == "a/b"));
    assert_eq!(store.get(&path("a/b")).await.unwrap(), expected);
    // The refused write left nothing behind.
    let left: Vec<_> = std::fs::read_dir(directory.path().join("a")).unwrap().collect();
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn of_many_writers_exactly_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let store = LocalObjects::open(directory.path()).unwrap();
    let puts = (0..8u8).map(|writer| {
        let sealed = object(&lease, FileId::random(), &[writer; 5_000]);
        let store = &store;
        async move { store.put(&path("contested"), sealed).await }
    });
    let done = futures::future::join_all(puts).await;
    assert_eq!(done.iter().filter(|put| put.is_ok()).count(), 1);
    assert_eq!(
        done.iter()
            .filter(|put| matches!(put, Err(StoreError::AlreadyExists { .. })))
            .count(),
        7
    );
}

#[tokio::test]
async fn ranges_are_exact() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let store = LocalObjects::open(directory.path()).unwrap();
    let sealed = object(&lease, FileId::random(), &[1; 10_000]);
    let whole = sealed.to_unverified();
    let end = sealed.len();
    store.put(&path("a"), sealed).await.unwrap();
    for range in [0..1, 0..end, 5..300, end - 1..end, 0..0, end..end] {
        let read = store.get_range(&path("a"), range.clone()).await.unwrap();
        let (start, stop) = (
            usize::try_from(range.start).unwrap(),
            usize::try_from(range.end).unwrap(),
        );
        assert_eq!(read.as_bytes(), &whole.as_bytes()[start..stop]);
    }
    #[expect(clippy::reversed_empty_ranges, reason = "a caller's mistake")]
    for range in [0..end + 1, end..end + 1, end + 5..end + 9, end + 5..end + 5, 9..3] {
        let read = store.get_range(&path("a"), range.clone()).await;
        assert!(
            matches!(read, Err(StoreError::OutOfRange { .. })),
            "{range:?}: {read:?}"
        );
    }
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = LocalObjects::open(directory.path()).unwrap();
    assert!(matches!(
        store.get(&path("a/b")).await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        store.get_range(&path("a"), 0..4).await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        store.get_range(&path("a"), 0..0).await,
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(store.size(&path("a")).await, Err(StoreError::NotFound { .. })));
    store.delete(&path("a/b")).await.unwrap();
    store.shred(&path("a/b")).await.unwrap();
    assert!(store.list("nowhere").await.unwrap().is_empty());
    assert!(matches!(store.list("../..").await, Err(StoreError::Path(_))));
}

#[tokio::test]
async fn lists_by_whole_parts_and_not_what_is_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let store = LocalObjects::open(directory.path()).unwrap();
    for name in ["a/2/x", "a/1/y", "a/10/z", "ab/1/x", "b"] {
        store
            .put(&path(name), object(&lease, FileId::random(), name.as_bytes()))
            .await
            .unwrap();
    }
    overwrite(&directory.path().join("a/1/y#1"), b"a write that was interrupted");
    let list = async |prefix: &str| -> Vec<String> {
        store
            .list(prefix)
            .await
            .unwrap()
            .into_iter()
            .map(|info| info.path.to_string())
            .collect()
    };
    assert_eq!(list("a").await, ["a/1/y", "a/10/z", "a/2/x"]);
    assert_eq!(list("a/").await, ["a/1/y", "a/10/z", "a/2/x"]);
    assert_eq!(list("a/1").await, ["a/1/y"]);
    assert_eq!(list("").await.len(), 5);
    // The next start clears the leftover away.
    LocalObjects::open(directory.path()).unwrap();
    assert!(!directory.path().join("a/1/y#1").exists());
    assert!(directory.path().join("a/1/y").exists());
}

#[tokio::test]
async fn shredding_leaves_no_wrapped_key() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let store = LocalObjects::open(directory.path()).unwrap();
    let sealed = object(&lease, FileId::random(), &[3; 9_000]);
    let before = sealed.to_unverified();
    store.put(&path("a/b"), sealed).await.unwrap();
    // A second name for the same blocks: what a disk still holds after the first is gone.
    let kept = directory.path().join("kept");
    std::fs::hard_link(directory.path().join("a/b"), &kept).unwrap();
    store.shred(&path("a/b")).await.unwrap();
    assert!(matches!(
        store.get(&path("a/b")).await,
        Err(StoreError::NotFound { .. })
    ));
    let after = std::fs::read(&kept).unwrap();
    assert!(after[..HEADER_BYTES].iter().all(|byte| *byte == 0));
    let header = &before.as_bytes()[..HEADER_BYTES];
    assert!(
        !holds(&after, &header[HEADER_BYTES - 48..]),
        "the wrapped key is still there"
    );
}

#[tokio::test]
async fn deleting_removes() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let store = LocalObjects::open(directory.path()).unwrap();
    store
        .put(&path("a/b"), object(&lease, FileId::random(), b"x"))
        .await
        .unwrap();
    store.delete(&path("a/b")).await.unwrap();
    assert!(store.list("").await.unwrap().is_empty());
    // The path is free again.
    store
        .put(&path("a/b"), object(&lease, FileId::random(), b"y"))
        .await
        .unwrap();
}
