//! The contract of the log, on local files: durable, in order, torn tails cut, damage reported.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use common::{holds, overwrite, unlocked};
use saker_keyring::{FileId, HEADER_BYTES, Lease, LogSealer};
use saker_storage::{LocalLog, Log, LogAppender, LogError, LogSequence, StreamId, Tail};

fn stream() -> StreamId {
    StreamId::new("collection-7").unwrap()
}

async fn begin(log: &LocalLog, lease: &Lease) -> (Box<dyn LogAppender>, LogSealer) {
    let file = FileId::random();
    let (header, sealer) = lease.log_sealer(file).unwrap();
    (log.create_segment(&stream(), header, file).await.unwrap(), sealer)
}

/// Opens all records of a segment, in order.
async fn read(log: &LocalLog, lease: &Lease, sequence: u64) -> (Vec<Vec<u8>>, Tail) {
    let contents = log.read_segment(&stream(), LogSequence(sequence)).await.unwrap();
    let mut opener = lease.open_log(contents.file, &contents.header).unwrap();
    let records = contents
        .records
        .iter()
        .map(|record| opener.open(record).unwrap().unwrap().to_vec())
        .collect();
    (records, contents.tail)
}

fn segment_path(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("collection-7/{sequence:020}.log"))
}

/// A segment of four records, each its own group; returns its bytes and where each group starts.
async fn four_records(directory: &Path, lease: &Lease) -> (Vec<u8>, Vec<usize>) {
    let log = LocalLog::open(directory).unwrap();
    let (appender, mut sealer) = begin(&log, lease).await;
    let mut starts = Vec::new();
    for text in ["one", "two, which is longer", "three", "four"] {
        starts.push(usize::try_from(appender.bytes()).unwrap());
        appender.append(sealer.seal(text.as_bytes()).unwrap()).await.unwrap();
    }
    assert_eq!(appender.commits(), 4);
    (std::fs::read(segment_path(directory, 1)).unwrap(), starts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_are_there_in_order_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    {
        let log = LocalLog::open(directory.path()).unwrap();
        let (appender, sealer) = begin(&log, &lease).await;
        let (appender, sealer) = (Arc::new(appender), Arc::new(Mutex::new((sealer, 0u32))));
        let writers = (0..8).map(|_| {
            let (appender, sealer) = (Arc::clone(&appender), Arc::clone(&sealer));
            tokio::spawn(async move {
                for _ in 0..50 {
                    appender.ready().await;
                    let append = {
                        let mut guard = sealer.lock().unwrap();
                        let (sealer, next) = &mut *guard;
                        *next += 1;
                        appender.append(sealer.seal(&next.to_le_bytes()).unwrap())
                    };
                    append.await.unwrap();
                }
            })
        });
        for writer in futures::future::join_all(writers).await {
            writer.unwrap();
        }
    }
    let log = LocalLog::open(directory.path()).unwrap();
    let (records, tail) = read(&log, &lease, 1).await;
    assert_eq!(tail, Tail::Clean);
    let expected: Vec<Vec<u8>> = (1..=400u32).map(|number| number.to_le_bytes().to_vec()).collect();
    assert_eq!(records, expected);
    assert_eq!(log.streams().await.unwrap(), [stream()]);
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let (whole, starts) = four_records(directory.path(), &lease).await;
    let (path, last) = (segment_path(directory.path(), 1), starts[3]);
    for length in last..whole.len() {
        overwrite(&path, &whole[..length]);
        let log = LocalLog::open(directory.path()).unwrap();
        let (records, tail) = read(&log, &lease, 1).await;
        assert_eq!(records.len(), 3, "cut to {length} bytes");
        let bytes_cut = (length - last) as u64;
        assert_eq!(
            tail,
            if bytes_cut == 0 {
                Tail::Clean
            } else {
                Tail::Torn { bytes_cut }
            }
        );
        assert_eq!(std::fs::metadata(&path).unwrap().len(), last as u64);
    }
    overwrite(&path, &whole);
    let (records, tail) = read(&LocalLog::open(directory.path()).unwrap(), &lease, 1).await;
    assert_eq!((records.len(), tail), (4, Tail::Clean));
}

/// After a power loss a file can have its new length but not its new bytes.
#[tokio::test]
async fn a_tail_of_zeros_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let (whole, starts) = four_records(directory.path(), &lease).await;
    for from in starts[3]..whole.len() {
        let mut bytes = whole.clone();
        bytes[from..].fill(0);
        bytes.resize(whole.len() + 4_096, 0);
        overwrite(&segment_path(directory.path(), 1), &bytes);
        let log = LocalLog::open(directory.path()).unwrap();
        let (records, tail) = read(&log, &lease, 1).await;
        assert_eq!(records.len(), 3);
        assert_eq!(
            tail,
            Tail::Torn {
                bytes_cut: (bytes.len() - starts[3]) as u64
            }
        );
    }
}

#[tokio::test]
async fn a_flipped_byte_before_the_last_record_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let (whole, starts) = four_records(directory.path(), &lease).await;
    let path = segment_path(directory.path(), 1);
    for position in 0..starts[3] {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x40;
        overwrite(&path, &bytes);
        let log = LocalLog::open(directory.path()).unwrap();
        let found = log.read_segment(&stream(), LogSequence(1)).await;
        let begin = starts
            .iter()
            .rev()
            .find(|start| **start <= position)
            .copied()
            .unwrap_or(0) as u64;
        match found {
            Err(LogError::Corrupt {
                stream: found,
                sequence,
                offset,
                ..
            }) => {
                assert_eq!(
                    (found, sequence, offset),
                    (stream(), LogSequence(1), begin),
                    "byte {position}"
                );
            }
            other => panic!("byte {position}: {other:?}"),
        }
        // Nothing was cut, and no segment is begun behind the damage.
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        let file = FileId::random();
        let (header, _sealer) = lease.log_sealer(file).unwrap();
        assert!(matches!(
            log.create_segment(&stream(), header, file).await,
            Err(LogError::Corrupt { .. })
        ));
    }
}

#[tokio::test]
async fn a_segment_that_is_not_the_last_must_be_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let (whole, _) = four_records(directory.path(), &lease).await;
    {
        let log = LocalLog::open(directory.path()).unwrap();
        begin(&log, &lease).await;
    }
    overwrite(&segment_path(directory.path(), 1), &whole[..whole.len() - 1]);
    let log = LocalLog::open(directory.path()).unwrap();
    let found = log.read_segment(&stream(), LogSequence(1)).await;
    assert!(matches!(found, Err(LogError::Corrupt { .. })), "{found:?}");
}

#[tokio::test]
async fn beginning_a_segment_cuts_the_torn_tail_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let (whole, starts) = four_records(directory.path(), &lease).await;
    overwrite(&segment_path(directory.path(), 1), &whole[..whole.len() - 3]);
    let log = LocalLog::open(directory.path()).unwrap();
    let (appender, mut sealer) = begin(&log, &lease).await;
    assert_eq!(appender.sequence(), LogSequence(2));
    appender.append(sealer.seal(b"later").unwrap()).await.unwrap();
    assert_eq!(
        std::fs::metadata(segment_path(directory.path(), 1)).unwrap().len(),
        starts[3] as u64
    );
    assert_eq!(read(&log, &lease, 1).await.0.len(), 3);
    assert_eq!(read(&log, &lease, 2).await.0, [b"later"]);
}

#[tokio::test]
async fn an_open_segment_can_be_read_and_ends_when_the_next_begins() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let log = LocalLog::open(directory.path()).unwrap();
    let (first, mut sealer) = begin(&log, &lease).await;
    first.append(sealer.seal(b"a").unwrap()).await.unwrap();
    assert_eq!(read(&log, &lease, 1).await, (vec![b"a".to_vec()], Tail::Clean));
    // Not awaited: beginning the next segment waits for what was taken.
    let pending = first.append(sealer.seal(b"b").unwrap());
    let (second, _) = begin(&log, &lease).await;
    pending.await.unwrap();
    let refused = first.append(sealer.seal(b"c").unwrap()).await;
    assert!(
        matches!(
            refused,
            Err(LogError::Ended {
                sequence: LogSequence(1),
                ..
            })
        ),
        "{refused:?}"
    );
    assert!(first.ended().is_some() && second.ended().is_none());
    assert_eq!(read(&log, &lease, 1).await.0, [b"a", b"b"]);
    let listed: Vec<u64> = log
        .segments(&stream())
        .await
        .unwrap()
        .iter()
        .map(|info| info.sequence.0)
        .collect();
    assert_eq!(listed, [1, 2]);
}

#[tokio::test]
async fn numbers_are_never_used_twice() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    {
        let log = LocalLog::open(directory.path()).unwrap();
        for _ in 0..3 {
            begin(&log, &lease).await;
        }
        log.remove_segments_below(&stream(), LogSequence(3)).await.unwrap();
        let infos = log.segments(&stream()).await.unwrap();
        assert_eq!(infos.iter().map(|info| info.sequence.0).collect::<Vec<_>>(), [3]);
        log.remove_segments_below(&stream(), LogSequence(99)).await.unwrap();
        assert!(log.segments(&stream()).await.unwrap().is_empty());
    }
    let log = LocalLog::open(directory.path()).unwrap();
    let (appender, _) = begin(&log, &lease).await;
    assert_eq!(appender.sequence(), LogSequence(4));
    assert!(matches!(
        log.read_segment(&stream(), LogSequence(1)).await,
        Err(LogError::NotFound {
            sequence: LogSequence(1),
            ..
        })
    ));
}

#[tokio::test]
async fn removing_leaves_no_wrapped_key() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let log = LocalLog::open(directory.path()).unwrap();
    let mut kept = Vec::new();
    for number in 0..3u64 {
        let file = FileId::random();
        let (header, mut sealer) = lease.log_sealer(file).unwrap();
        let bytes = header.as_bytes().to_vec();
        let appender = log.create_segment(&stream(), header, file).await.unwrap();
        appender.append(sealer.seal(&[9; 600]).unwrap()).await.unwrap();
        // A second name for the same blocks: what a disk still holds after the first is gone.
        let link = directory.path().join(format!("kept-{number}"));
        std::fs::hard_link(segment_path(directory.path(), number + 1), &link).unwrap();
        kept.push((link, bytes));
    }
    let has_key = |(link, header): &(PathBuf, Vec<u8>)| {
        holds(&std::fs::read(link).unwrap(), &header[HEADER_BYTES - 48..HEADER_BYTES])
    };
    assert!(kept.iter().all(has_key));
    log.remove_segments_below(&stream(), LogSequence(2)).await.unwrap();
    assert!(!has_key(&kept[0]) && has_key(&kept[1]) && has_key(&kept[2]));
    // The last one, too, whose number is remembered.
    log.remove_segments_below(&stream(), LogSequence(4)).await.unwrap();
    assert!(!kept.iter().any(has_key));
    let (file, link) = (FileId::random(), directory.path().join("kept-3"));
    let (header, _sealer) = lease.log_sealer(file).unwrap();
    let bytes = header.as_bytes().to_vec();
    let appender = log.create_segment(&stream(), header, file).await.unwrap();
    assert_eq!(appender.sequence(), LogSequence(4));
    std::fs::hard_link(segment_path(directory.path(), 4), &link).unwrap();
    kept.push((link, bytes));
    assert!(has_key(&kept[3]));
    log.remove_stream(&stream()).await.unwrap();
    assert!(!kept.iter().any(has_key));
    assert!(log.streams().await.unwrap().is_empty());
    // Again is fine, and the name can be used anew.
    log.remove_stream(&stream()).await.unwrap();
    begin(&log, &lease).await;
}

#[tokio::test]
async fn removing_a_stream_ends_its_appender() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let log = LocalLog::open(directory.path()).unwrap();
    let (appender, mut sealer) = begin(&log, &lease).await;
    log.remove_stream(&stream()).await.unwrap();
    let refused = appender.append(sealer.seal(b"x").unwrap()).await;
    assert!(matches!(refused, Err(LogError::Ended { .. })), "{refused:?}");
}

#[tokio::test]
async fn leftovers_of_interrupted_calls_are_cleared_away() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let (whole, _) = four_records(directory.path(), &lease).await;
    let stream_directory = directory.path().join("collection-7");
    let floor = |number: u64| stream_directory.join(format!("{number:020}.floor"));
    let gone = stream_directory.join(format!("{:020}.log.gone", 1));
    let kept = directory.path().join("kept");
    std::fs::rename(segment_path(directory.path(), 1), &gone).unwrap();
    std::fs::hard_link(&gone, &kept).unwrap();
    overwrite(&stream_directory.join(format!("{:020}.log.new", 2)), b"half a header");
    // Removing was interrupted between taking a segment's place and shredding it.
    overwrite(&floor(1), b"");
    overwrite(&floor(2), &whole);
    let log = LocalLog::open(directory.path()).unwrap();
    assert!(log.segments(&stream()).await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(&stream_directory).unwrap().count(), 1);
    assert_eq!(std::fs::metadata(floor(2)).unwrap().len(), 0);
    assert!(
        !holds(&std::fs::read(&kept).unwrap(), &whole[40..40 + HEADER_BYTES]),
        "a header survived"
    );
}

#[tokio::test]
async fn streams_do_not_mix() {
    let directory = tempfile::tempdir().unwrap();
    let (_zone, lease) = unlocked();
    let log = LocalLog::open(directory.path()).unwrap();
    let other = StreamId::new("collection-8").unwrap();
    begin(&log, &lease).await;
    assert!(log.segments(&other).await.unwrap().is_empty());
    let file = FileId::random();
    let (header, mut sealer) = lease.log_sealer(file).unwrap();
    let appender = log.create_segment(&other, header, file).await.unwrap();
    appender.append(sealer.seal(b"x").unwrap()).await.unwrap();
    assert_eq!(appender.sequence(), LogSequence(1));
    assert_eq!(log.streams().await.unwrap(), [stream(), other.clone()]);
    log.remove_stream(&stream()).await.unwrap();
    let infos = log.segments(&other).await.unwrap();
    assert_eq!((infos.len(), infos[0].file), (1, file));
}
