//! A directory is looked at without a change to it, whatever is wrong with it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use saker_keyring::{FileKind, FrameSize, Lease, Zone, ZoneKeyVersion};

use super::*;
use crate::{EmbeddedStores, LogSequence, MetaBatch, MetaKey, ObjectPath, StreamId};

fn lease() -> Lease {
    let zone = Zone::locked(saker_keyring::ZoneId::random());
    zone.unlock(vec![(ZoneKeyVersion::FIRST, saker_keyring::random_key())])
        .unwrap();
    zone.lease().unwrap()
}

/// A directory with an object, a value and two log segments.
async fn filled() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("data");
    let (stores, lease) = (EmbeddedStores::open(&directory).await.unwrap(), lease());
    let mut sealer = lease
        .file_sealer(FileId::random(), FileKind::Column, FrameSize::Sequential)
        .unwrap();
    sealer.write(&[7; 1_000]).unwrap();
    let path = ObjectPath::new("collection/1/2/x").unwrap();
    stores.objects.put(&path, sealer.finish().unwrap()).await.unwrap();
    for key in ["a/1", "b/2"] {
        let mut batch = MetaBatch::new();
        batch.put(MetaKey::new(key).unwrap(), lease.seal_value(key, b"value").unwrap());
        stores.meta.commit(batch).await.unwrap();
    }
    let stream = StreamId::new("s").unwrap();
    for _ in 0..2 {
        let file = FileId::random();
        let (header, mut sealer) = lease.log_sealer(file).unwrap();
        let appender = stores.log.create_segment(&stream, header, file).await.unwrap();
        for _ in 0..3 {
            appender.append(sealer.seal(b"record").unwrap()).await.unwrap();
        }
    }
    (temp, directory)
}

/// Every path with its content, mode and time of change.
fn snapshot(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, i64)> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let content = if found.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if found.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.insert(path, (content, found.mode(), found.mtime_nsec()));
    }
    all
}

fn put(path: &Path, content: &[u8]) {
    use std::io::Write as _;
    let mut file = directory::private_file()
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    file.write_all(content).unwrap();
}

fn entry(stores: &ReadOnlyStores, path: &str) -> StoredEntry {
    let found = stores.entries().into_iter().find(|entry| entry.path == path);
    found.unwrap_or_else(|| panic!("{path} is not listed"))
}

#[tokio::test]
async fn everything_is_shown_and_nothing_changes() {
    let (_temp, directory) = filled().await;
    put(&directory.join("objects/collection/1/2/y#3"), b"half");
    put(&directory.join("log/s/00000000000000000003.log.new"), b"half");
    put(&directory.join("meta.redb.new"), b"half");
    put(&directory.join("rows.csv"), b"plain");
    std::os::unix::fs::symlink("/etc/passwd", directory.join("objects/link")).unwrap();
    let last = directory.join("log/s/00000000000000000002.log");
    let whole = fs::read(&last).unwrap();
    put(&last, &[&whole[..], b"torn"].concat());
    let before = snapshot(&directory);

    let stores = ReadOnlyStores::open(&directory).unwrap();
    assert!(stores.store_id().is_ok() && stores.metadata_problems().is_empty());
    let entries = stores.entries();
    let foreign: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.place == Place::Foreign)
        .map(|entry| entry.path.as_str())
        .collect();
    assert_eq!(foreign, ["rows.csv", "objects/link"]);
    let unfinished = entries
        .iter()
        .filter(|entry| matches!(entry.place, Place::Unfinished(_)));
    assert_eq!(unfinished.count(), 3);
    assert_eq!(entries[0].path, ".");
    for entry in entries.iter().filter(|entry| entry.kind != EntryKind::Other) {
        assert_eq!(entry.mode & 0o077, 0, "{}", entry.path);
    }
    assert_eq!(entry(&stores, "objects/link").kind, EntryKind::Other);

    let object = stores.file(&entry(&stores, "objects/collection/1/2/x")).unwrap();
    assert_eq!(object.read(0..object.bytes()).unwrap().len() as u64, object.bytes());
    assert!(object.read(0..object.bytes() + 1).is_err());
    assert!(stores.file(&entry(&stores, "objects/link")).is_err());
    assert_eq!(stores.metadata_keys(), (vec!["a/1".to_owned(), "b/2".to_owned()], None));
    assert!(stores.metadata_value("a/1").unwrap().is_some());
    assert!(stores.metadata_value("c").unwrap().is_none());
    let segment = stores
        .log_segment(&entry(&stores, "log/s/00000000000000000002.log"))
        .unwrap();
    let broken = segment.broken.unwrap();
    assert_eq!((segment.records.len(), broken.bytes, broken.followed), (3, 4, false));

    // Nobody begins to write meanwhile; two may look.
    assert!(matches!(
        EmbeddedStores::open(&directory).await,
        Err(DirectoryError::InUse { .. })
    ));
    ReadOnlyStores::open(&directory).unwrap();
    drop(stores);
    assert_eq!(snapshot(&directory), before);
}

#[tokio::test]
async fn it_is_not_looked_at_while_a_server_writes() {
    let (_temp, directory) = filled().await;
    let writing = EmbeddedStores::open(&directory).await.unwrap();
    assert!(matches!(
        ReadOnlyStores::open(&directory),
        Err(DirectoryError::InUse { .. })
    ));
    drop(writing);
    ReadOnlyStores::open(&directory).unwrap();
}

#[tokio::test]
async fn damage_to_one_thing_hides_no_other() {
    let (_temp, directory) = filled().await;
    put(&directory.join("SAKER"), b"not a marker");
    let first = directory.join("log/s/00000000000000000001.log");
    put(&first, b"short");
    let last = directory.join("log/s/00000000000000000002.log");
    let mut bytes = fs::read(&last).unwrap();
    let middle = bytes.len() - 80;
    bytes[middle] ^= 1;
    put(&last, &bytes);
    let stores = ReadOnlyStores::open(&directory).unwrap();
    assert!(stores.store_id().is_err());
    assert!(
        stores
            .log_segment(&entry(&stores, "log/s/00000000000000000001.log"))
            .is_err()
    );
    let segment = stores
        .log_segment(&entry(&stores, "log/s/00000000000000000002.log"))
        .unwrap();
    assert_eq!(segment.records.len(), 1);
    assert!(segment.broken.unwrap().followed);
    assert_eq!(stores.metadata_keys().0.len(), 2);
}

#[tokio::test]
async fn a_damaged_metadata_file_is_a_problem_and_no_end() {
    let (_temp, directory) = filled().await;
    let path = directory.join("meta.redb");
    let whole = fs::read(&path).unwrap();
    let mut noticed = 0;
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        put(&path, &bytes);
        let stores = ReadOnlyStores::open(&directory).unwrap();
        let (keys, ended) = stores.metadata_keys();
        for key in &keys {
            let _any_answer = stores.metadata_value(key);
        }
        noticed += usize::from(!stores.metadata_problems().is_empty() || ended.is_some() || keys.len() != 2);
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    assert!(noticed > 0);
    for content in [&b""[..], b"x", &whole[..whole.len() / 2]] {
        put(&path, content);
        let stores = ReadOnlyStores::open(&directory).unwrap();
        assert!(!stores.metadata_problems().is_empty());
    }
    fs::remove_file(&path).unwrap();
    assert!(!ReadOnlyStores::open(&directory).unwrap().metadata_problems().is_empty());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_copy_without_write_access_will_do() {
    let (_temp, directory) = filled().await;
    fs::remove_file(directory.join("LOCK")).unwrap();
    for path in snapshot(&directory).keys() {
        let mode = if path.is_dir() { 0o500 } else { 0o400 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let stores = ReadOnlyStores::open(&directory).unwrap();
    assert!(stores.metadata_problems().is_empty());
    assert_eq!(stores.metadata_keys().0.len(), 2);
    assert_eq!(
        entry(&stores, "log/s/00000000000000000001.log").place,
        Place::LogSegment {
            stream: StreamId::new("s").unwrap(),
            sequence: LogSequence(1),
        }
    );
    drop(stores);
    for (path, _) in snapshot(&directory).into_iter().rev() {
        let _may_be_a_file = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    }
}

#[tokio::test]
async fn other_clusters_are_looked_at_by_themselves() {
    let (_temp, directory) = filled().await;
    for name in ["one", "two"] {
        drop(
            EmbeddedStores::open(directory.join("clusters").join(name))
                .await
                .unwrap(),
        );
    }
    fs::create_dir(directory.join("clusters/none")).unwrap();
    put(&directory.join("clusters/rows"), b"plain");
    let stores = ReadOnlyStores::open(&directory).unwrap();
    let found = stores.clusters();
    assert_eq!(found, ["one", "two"].map(|name| directory.join("clusters").join(name)));
    let entries = stores.entries();
    assert!(!entries.iter().any(|entry| entry.path.starts_with("clusters/one/")));
    for name in ["clusters/none", "clusters/rows"] {
        assert_eq!(entry(&stores, name).place, Place::Foreign);
    }
    assert!(stores.file(&entry(&stores, "SAKER")).is_ok() && ReadOnlyStores::open(&found[0]).is_ok());
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    assert!(matches!(
        ReadOnlyStores::open(temp.path()),
        Err(DirectoryError::Foreign { .. })
    ));
    let nothing = temp.path().join("nothing");
    assert!(matches!(
        ReadOnlyStores::open(&nothing),
        Err(DirectoryError::NotADirectory { .. })
    ));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
}
