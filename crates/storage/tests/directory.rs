//! The data directory: one server at a time, and only directories that are ours.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use common::{object, overwrite, unlocked};
use saker_keyring::FileId;
use saker_storage::{DirectoryError, EmbeddedStores, MetaBatch, MetaKey, ObjectPath};

#[tokio::test]
async fn a_new_directory_is_made_and_keeps_its_id() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("deep/data");
    let stores = EmbeddedStores::open(&directory).await.unwrap();
    let id = stores.store_id();
    drop(stores);
    let stores = EmbeddedStores::open(&directory).await.unwrap();
    assert_eq!(stores.store_id(), id);
    let other = EmbeddedStores::open(parent.path().join("other")).await.unwrap();
    assert_ne!(other.store_id(), id);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for name in ["", "objects", "log"] {
            let mode = std::fs::metadata(directory.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "others may enter {name}");
        }
        let mode = std::fs::metadata(directory.join("meta.redb"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0);
    }
}

#[tokio::test]
async fn a_second_server_is_told_who_holds_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let stores = EmbeddedStores::open(directory.path()).await.unwrap();
    let error = EmbeddedStores::open(directory.path()).await.unwrap_err();
    let own = std::process::id().to_string();
    assert!(
        matches!(&error, DirectoryError::InUse { holder, .. } if *holder == own),
        "{error:?}"
    );
    assert!(error.to_string().contains(&std::process::id().to_string()));
    // The one that runs is not disturbed.
    let (_zone, lease) = unlocked();
    let path = ObjectPath::new("a").unwrap();
    stores
        .objects
        .put(&path, object(&lease, FileId::random(), b"x"))
        .await
        .unwrap();
    drop(stores);
    EmbeddedStores::open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn somebody_elses_directory_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    overwrite(&directory.path().join("letter.txt"), b"hello");
    let refused = EmbeddedStores::open(directory.path()).await;
    assert!(matches!(refused, Err(DirectoryError::Foreign { .. })), "{refused:?}");
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["letter.txt"]);

    let file = directory.path().join("letter.txt");
    let refused = EmbeddedStores::open(&file).await;
    assert!(
        matches!(refused, Err(DirectoryError::NotADirectory { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn markers_that_are_not_ours_or_newer_are_refused() {
    for (marker, newer) in [
        (
            &b"saker data directory\nformat 2\nstore 0190b6a2-5bd3-4dc0-93f0-1f4b7b1a6d55\n"[..],
            true,
        ),
        (b"saker data directory\nformat 4294967296\nstore x\n", false),
        (b"saker data directory\nformat 1\nstore not-an-id\n", false),
        (b"saker data directory\n", false),
        (b"", false),
        (b"\xff\xfe\x00binary", false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        overwrite(&directory.path().join("SAKER"), marker);
        match EmbeddedStores::open(directory.path()).await {
            Err(DirectoryError::Version { found: 2, known: 1, .. }) if newer => {}
            Err(DirectoryError::Foreign { .. }) if !newer => {}
            other => panic!("{marker:?}: {other:?}"),
        }
        assert_eq!(std::fs::read(directory.path().join("SAKER")).unwrap(), marker);
    }
}

#[tokio::test]
async fn a_first_start_that_was_interrupted_is_repeated() {
    let directory = tempfile::tempdir().unwrap();
    overwrite(&directory.path().join("LOCK"), b"");
    overwrite(&directory.path().join("SAKER.new"), b"saker da");
    EmbeddedStores::open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn all_three_stores_work_behind_their_traits() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let stores = EmbeddedStores::open(directory.path()).await.unwrap();
    let mut batch = MetaBatch::new();
    batch.put(MetaKey::new("k").unwrap(), lease.seal_value("k", b"v").unwrap());
    stores.meta.commit(batch).await.unwrap();
    assert!(stores.meta.get(&MetaKey::new("k").unwrap()).await.unwrap().is_some());
    assert!(stores.log.streams().await.unwrap().is_empty());
    assert!(stores.objects.list("").await.unwrap().is_empty());
}
