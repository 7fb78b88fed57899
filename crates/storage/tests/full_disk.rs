//! A full disk: a clear error, nothing lost, and on it goes once there is space.
//!
//! Needs a small file system of its own, so it mounts one; where the machine does not allow that, the tests say so and
//! check nothing (the unit tests of the log's writer inject the same errors everywhere).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use common::{object, overwrite, unlocked};
use saker_keyring::FileId;
use saker_storage::{
    EmbeddedStores, LogError, LogSequence, MetaBatch, MetaError, MetaKey, ObjectPath, StoreError, StreamId,
};

/// A file system of 6 MiB in memory.
struct SmallDisk(tempfile::TempDir);

const SMALL_DISK_BYTES: usize = 6 << 20;

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SMALL_DISK_BYTES}"), "tmpfs"])
            .arg(directory.path())
            // Nothing may ask whoever runs the tests for anything.
            .stdin(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            skipped("this machine does not allow mounting a small file system");
            return None;
        }
        let disk = Self(directory);
        // Some sandboxes mount it and leave its size out of account: then there is no such thing as a full disk.
        if !disk.write_ballast(65_536) {
            skipped("this machine mounts a small file system but does not keep it small");
            return None;
        }
        disk.make_space();
        Some(disk)
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
    /// Takes all space that is left.
    fn fill(&self) {
        for block in [65_536, 4_096, 1] {
            assert!(self.write_ballast(block), "the disk took more than its size");
        }
    }
    /// Writes blocks of this size until there is no space for another; `false` if there still is after twice the size
    /// of the disk. Never goes on for ever.
    fn write_ballast(&self, block: usize) -> bool {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        let block = vec![0; block];
        (0..=2 * SMALL_DISK_BYTES / block.len()).any(|_| file.write_all(&block).is_err())
    }
    fn make_space(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
    fn ballast(&self) -> std::path::PathBuf {
        self.path().join("ballast")
    }
}

#[expect(clippy::print_stderr, reason = "tells whoever runs the tests")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn the_log_goes_on_after_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (_zone, lease) = unlocked();
    let stream = StreamId::new("s").unwrap();
    let data = disk.path().join("data");
    let stores = EmbeddedStores::open(&data).await.unwrap();
    let file = FileId::random();
    let (header, mut sealer) = lease.log_sealer(file).unwrap();
    let appender = stores.log.create_segment(&stream, header, file).await.unwrap();
    appender.append(sealer.seal(&[1; 10_000]).unwrap()).await.unwrap();
    let durable = appender.bytes();
    disk.fill();
    let refused = appender.append(sealer.seal(&[2; 200_000]).unwrap()).await;
    assert!(matches!(refused, Err(LogError::Full { .. })), "{refused:?}");
    let path = data.join("log/s").join(format!("{:020}.log", 1));
    assert_eq!(
        std::fs::metadata(&path).unwrap().len(),
        durable,
        "cut back to the last durable record"
    );
    // A record lost means that none may follow it here, whether there is space or not.
    disk.make_space();
    let refused = appender.append(sealer.seal(b"small").unwrap()).await;
    assert!(matches!(refused, Err(LogError::Full { .. })), "{refused:?}");
    disk.fill();
    let next = FileId::random();
    let (header, mut sealer) = lease.log_sealer(next).unwrap();
    let refused = stores.log.create_segment(&stream, header.clone(), next).await;
    assert!(matches!(refused, Err(LogError::Full { .. })), "{refused:?}");
    disk.make_space();
    let appender = stores.log.create_segment(&stream, header, next).await.unwrap();
    appender.append(sealer.seal(&[3; 200_000]).unwrap()).await.unwrap();
    drop((appender, stores));

    let stores = EmbeddedStores::open(&data).await.unwrap();
    let first = stores.log.read_segment(&stream, LogSequence(1)).await.unwrap();
    let second = stores.log.read_segment(&stream, LogSequence(2)).await.unwrap();
    let mut opener = lease.open_log(file, &first.header).unwrap();
    assert_eq!(*opener.open(&first.records[0]).unwrap().unwrap(), [1; 10_000]);
    let mut opener = lease.open_log(next, &second.header).unwrap();
    assert_eq!(*opener.open(&second.records[0]).unwrap().unwrap(), [3; 200_000]);
    assert_eq!((first.records.len(), second.records.len()), (1, 1));
}

#[tokio::test]
async fn objects_go_on_after_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (_zone, lease) = unlocked();
    let stores = EmbeddedStores::open(disk.path().join("data")).await.unwrap();
    let path = |name: &str| ObjectPath::new(name).unwrap();
    stores
        .objects
        .put(&path("a/kept"), object(&lease, FileId::random(), &[1; 50_000]))
        .await
        .unwrap();
    disk.fill();
    let large = object(&lease, FileId::random(), &vec![2; 500_000]);
    let refused = stores.objects.put(&path("a/large"), large.clone()).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    let listed = stores.objects.list("").await.unwrap();
    assert_eq!(
        listed.iter().map(|info| info.path.as_str()).collect::<Vec<_>>(),
        ["a/kept"]
    );
    assert_eq!(
        std::fs::read_dir(disk.path().join("data/objects/a")).unwrap().count(),
        1,
        "a part was left"
    );
    disk.make_space();
    stores.objects.put(&path("a/large"), large.clone()).await.unwrap();
    assert_eq!(
        stores.objects.get(&path("a/large")).await.unwrap(),
        large.to_unverified()
    );
}

#[tokio::test]
async fn a_full_disk_does_not_keep_the_log_from_being_removed() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (_zone, lease) = unlocked();
    let stream = StreamId::new("s").unwrap();
    let stores = EmbeddedStores::open(disk.path().join("data")).await.unwrap();
    for _ in 0..3 {
        let file = FileId::random();
        let (header, mut sealer) = lease.log_sealer(file).unwrap();
        let appender = stores.log.create_segment(&stream, header, file).await.unwrap();
        appender.append(sealer.seal(&[1; 100_000]).unwrap()).await.unwrap();
    }
    disk.fill();
    stores.log.remove_segments_below(&stream, LogSequence(4)).await.unwrap();
    assert!(stores.log.segments(&stream).await.unwrap().is_empty());
    // There is space now, and the numbers go on.
    let file = FileId::random();
    let (header, mut sealer) = lease.log_sealer(file).unwrap();
    let appender = stores.log.create_segment(&stream, header, file).await.unwrap();
    appender.append(sealer.seal(&[1; 100_000]).unwrap()).await.unwrap();
    assert_eq!(appender.sequence(), LogSequence(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_metadata_notice_no_failed_commits() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (_zone, lease) = unlocked();
    let stores = EmbeddedStores::open(disk.path().join("data")).await.unwrap();
    let key = MetaKey::new("k").unwrap();
    let large = |key: &MetaKey| {
        let mut batch = MetaBatch::new();
        batch.put(key.clone(), lease.seal_value(key.as_str(), &vec![7; 8 << 20]).unwrap());
        batch
    };
    let mut small = MetaBatch::new();
    small.put(key.clone(), lease.seal_value("k", b"small").unwrap());
    stores.meta.commit(small).await.unwrap();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (meta, key) = (std::sync::Arc::clone(&stores.meta), key.clone());
            tokio::spawn(async move {
                for _ in 0..200 {
                    assert_eq!(meta.scan("").await.unwrap().len(), 1);
                    assert!(meta.get(&key).await.unwrap().is_some());
                }
            })
        })
        .collect();
    for _ in 0..10 {
        let refused = stores.meta.commit(large(&key)).await;
        assert!(matches!(refused, Err(MetaError::Full)), "{refused:?}");
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let value = stores.meta.get(&key).await.unwrap().unwrap();
    assert_eq!(*lease.open_value("k", &value).unwrap(), b"small"[..]);
}

#[tokio::test]
async fn metadata_goes_on_after_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else { return };
    let (_zone, lease) = unlocked();
    let data = disk.path().join("data");
    let stores = EmbeddedStores::open(&data).await.unwrap();
    let key = |number: usize| MetaKey::new(format!("k/{number:04}")).unwrap();
    let batch = |number: usize| {
        let mut batch = MetaBatch::new();
        batch.put(
            key(number),
            lease.seal_value(key(number).as_str(), &[7; 60_000]).unwrap(),
        );
        batch
    };
    stores.meta.commit(batch(0)).await.unwrap();
    disk.fill();
    let mut committed = 1;
    let refused = loop {
        assert!(committed < 200, "the disk never filled");
        match stores.meta.commit(batch(committed)).await {
            Ok(()) => committed += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, MetaError::Full), "{refused:?}");
    // Still full: what is there can be read, what is not there is not, and another try says the same.
    assert!(stores.meta.get(&key(0)).await.unwrap().is_some());
    assert_eq!(stores.meta.scan("k/").await.unwrap().len(), committed);
    let again = stores.meta.commit(batch(committed)).await;
    assert!(matches!(again, Err(MetaError::Full)), "{again:?}");
    assert!(stores.meta.get(&key(committed)).await.unwrap().is_none());
    disk.make_space();
    stores.meta.commit(batch(committed)).await.unwrap();
    drop(stores);
    // Nothing of what was acknowledged is missing.
    let stores = EmbeddedStores::open(&data).await.unwrap();
    for number in 0..=committed {
        let value = stores.meta.get(&key(number)).await.unwrap().unwrap();
        assert_eq!(*lease.open_value(key(number).as_str(), &value).unwrap(), [7; 60_000]);
    }
    overwrite(&disk.ballast(), b"");
}
