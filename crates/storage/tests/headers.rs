//! The contract of replacing headers: objects and log segments move to a newer zone key with their bodies as they were.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use common::{object, overwrite};
use saker_keyring::{FileId, FileIdentity, FileKind, HEADER_BYTES, Lease, Zone, ZoneId, ZoneKeyVersion, random_key};
use saker_storage::{
    LocalLog, LocalObjects, Log, LogError, LogSequence, ObjectPath, ObjectStore, SealedHeader, StoreError, StreamId,
    Unverified,
};

const FILES: u8 = 20;

/// Two zones with a key each.
fn two_leases() -> (Lease, Lease) {
    let lease = || {
        let zone = Zone::locked(ZoneId::random());
        zone.unlock(vec![(ZoneKeyVersion::FIRST, random_key())]).unwrap();
        zone.lease().unwrap()
    };
    (lease(), lease())
}

fn identity(number: u8) -> FileIdentity {
    FileIdentity {
        file: FileId::from_bytes([number; 16]),
        kind: FileKind::Column,
    }
}

fn path(number: u8) -> ObjectPath {
    ObjectPath::new(format!("collection/7/{number}")).unwrap()
}

fn stream() -> StreamId {
    StreamId::new("collection-7").unwrap()
}

async fn rewrapped(store: &dyn ObjectStore, from: &Lease, to: &Lease, number: u8) -> SealedHeader {
    let header = store.get_range(&path(number), 0..HEADER_BYTES as u64).await.unwrap();
    to.rewrap_header(from, identity(number), &header).unwrap()
}

fn opens(lease: &Lease, number: u8, sealed: &Unverified) -> bool {
    lease
        .open_whole_file(identity(number), sealed)
        .is_ok_and(|plain| *plain == vec![number; 10_000])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_one_header_or_the_other_while_files_go_back_and_forth() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = two_leases();
    let store = Arc::new(LocalObjects::open(directory.path()).unwrap());
    for number in 0..FILES {
        let sealed = object(&one, identity(number).file, &vec![number; 10_000]);
        store.put(&path(number), sealed).await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let readers = (0..2).map(|_| {
        let (store, done, one, two) = (Arc::clone(&store), Arc::clone(&done), one.clone(), two.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                for number in 0..FILES {
                    let sealed = store.get(&path(number)).await.unwrap();
                    assert!(
                        opens(&one, number, &sealed) != opens(&two, number, &sealed),
                        "file {number}"
                    );
                }
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for round in 0..20 {
        let (from, to) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let mut batch = Vec::new();
        for number in 0..FILES {
            batch.push((path(number), rewrapped(&*store, from, to, number).await));
        }
        assert_eq!(store.replace_headers(batch).await.unwrap(), usize::from(FILES));
    }
    store
        .replace_header(&path(3), rewrapped(&*store, &one, &two, 3).await)
        .await
        .unwrap();
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    drop(store);
    let store = LocalObjects::open(directory.path()).unwrap();
    for number in 0..FILES {
        let lease = if number == 3 { &two } else { &one };
        assert!(opens(lease, number, &store.get(&path(number)).await.unwrap()));
    }
    assert_eq!(
        store.list("").await.unwrap().len(),
        usize::from(FILES),
        "the journal is no object"
    );
}

#[tokio::test]
async fn what_is_not_there_is_passed_over_and_another_files_header_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = two_leases();
    let store = LocalObjects::open(directory.path()).unwrap();
    for number in 0..2 {
        let sealed = object(&one, identity(number).file, &vec![number; 10_000]);
        store.put(&path(number), sealed).await.unwrap();
    }
    let header = rewrapped(&store, &one, &two, 0).await;
    let gone = path(9);
    let batch = vec![(gone.clone(), header.clone()), (path(0), header.clone())];
    assert_eq!(store.replace_headers(batch).await.unwrap(), 1);
    assert!(
        matches!(store.replace_header(&gone, header.clone()).await, Err(StoreError::NotFound { path }) if path == gone)
    );
    assert!(matches!(
        store.replace_header(&path(1), header).await,
        Err(StoreError::Io { .. })
    ));
    assert!(opens(&one, 1, &store.get(&path(1)).await.unwrap()));
    assert_eq!(store.replace_headers(Vec::new()).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_segments_open_and_closed_get_new_headers_and_records_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = two_leases();
    let log = LocalLog::open(directory.path()).unwrap();
    let mut appenders = Vec::new();
    for _ in 0..2 {
        let file = FileId::random();
        let (header, mut sealer) = one.log_sealer(file).unwrap();
        let appender = log.create_segment(&stream(), header, file).await.unwrap();
        appender.append(sealer.seal(b"before").unwrap()).await.unwrap();
        appenders.push((appender, sealer));
    }
    for sequence in [1, 2] {
        let (file, header) = log.read_header(&stream(), LogSequence(sequence)).await.unwrap();
        let identity = FileIdentity {
            file,
            kind: FileKind::Log,
        };
        let fresh = two.rewrap_header(&one, identity, &header).unwrap();
        log.replace_header(&stream(), LogSequence(sequence), fresh)
            .await
            .unwrap();
    }
    let (appender, mut sealer) = appenders.pop().unwrap();
    appender.append(sealer.seal(b"after").unwrap()).await.unwrap();
    drop((appender, log));
    let log = LocalLog::open(directory.path()).unwrap();
    assert_eq!(log.streams().await.unwrap(), [stream()], "the journal is no stream");
    for (sequence, expected) in [(1, &[&b"before"[..]][..]), (2, &[b"before", b"after"])] {
        let contents = log.read_segment(&stream(), LogSequence(sequence)).await.unwrap();
        assert!(
            one.open_log(contents.file, &contents.header).is_err(),
            "the old key opens it still"
        );
        let mut opener = two.open_log(contents.file, &contents.header).unwrap();
        for (record, expected) in contents.records.iter().zip(expected) {
            assert_eq!(*opener.open(record).unwrap().unwrap(), *expected);
        }
        assert_eq!(contents.records.len(), expected.len());
    }
    let (_, other) = log.read_header(&stream(), LogSequence(1)).await.unwrap();
    let (file, _) = log.read_header(&stream(), LogSequence(1)).await.unwrap();
    let back = one
        .rewrap_header(
            &two,
            FileIdentity {
                file,
                kind: FileKind::Log,
            },
            &other,
        )
        .unwrap();
    let refused = log.replace_header(&stream(), LogSequence(2), back.clone()).await;
    assert!(matches!(refused, Err(LogError::Io { .. })), "of another segment");
    let missing = log.replace_header(&stream(), LogSequence(3), back).await;
    assert!(matches!(missing, Err(LogError::NotFound { .. })));
}

#[tokio::test]
async fn a_segment_whose_header_is_damaged_is_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = two_leases();
    let log = LocalLog::open(directory.path()).unwrap();
    let file = FileId::random();
    let (header, _) = one.log_sealer(file).unwrap();
    let fresh = {
        let header = header.clone().into_unverified();
        two.rewrap_header(
            &one,
            FileIdentity {
                file,
                kind: FileKind::Log,
            },
            &header,
        )
        .unwrap()
    };
    log.create_segment(&stream(), header, file).await.unwrap();
    let path = directory.path().join(format!("collection-7/{:020}.log", 1));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    overwrite(&path, &bytes);
    let refused = log.replace_header(&stream(), LogSequence(1), fresh).await;
    assert!(matches!(refused, Err(LogError::Corrupt { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
