//! The writer over files that fail on command.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use saker_keyring::{FileId, LogSealer, Zone, ZoneId, ZoneKeyVersion, random_key};
use tokio::runtime::Handle;

use super::*;

/// Ends a test that waits in vain.
const PATIENCE: Duration = Duration::from_secs(120);

/// A file in memory whose calls fail, or wait, as told.
#[derive(Default)]
struct Faulty {
    content: Mutex<Vec<u8>>,
    syncs: AtomicUsize,
    write_error: Mutex<Option<io::ErrorKind>>,
    sync_error: Mutex<Option<io::ErrorKind>>,
    cut_fails: AtomicBool,
    /// Bytes that the last sync made durable.
    synced: AtomicU64,
    /// Syncs wait while this is set.
    held: (Mutex<bool>, Condvar),
    /// Lets one sync through all the same.
    one_may_pass: AtomicBool,
}

impl Faulty {
    fn hold(&self, held: bool) {
        *self.held.0.lock().unwrap() = held;
        self.held.1.notify_all();
    }
    fn release_one(&self) {
        let _held = self.held.0.lock().unwrap();
        self.one_may_pass.store(true, Ordering::SeqCst);
        self.held.1.notify_all();
    }
    fn len(&self) -> usize {
        self.content.lock().unwrap().len()
    }
}

impl Faulty {
    /// What a power loss may leave: everything up to the last sync, and of what was written since, any sectors.
    fn after_power_loss(&self, random: &mut impl RngExt) -> Vec<u8> {
        const SECTOR: usize = 512;
        let synced = usize::try_from(self.synced.load(Ordering::SeqCst)).unwrap();
        let mut left = self.content.lock().unwrap().clone();
        if random.random_range(0..4) == 0 {
            return left;
        }
        let keep = random.random_range(0..=100);
        let mut start = synced;
        while start < left.len() {
            let end = left.len().min((start / SECTOR + 1) * SECTOR);
            if random.random_range(0..100) >= keep {
                left[start..end].fill(0);
            }
            start = end;
        }
        left.truncate(random.random_range(synced..=left.len()));
        left
    }
}

impl SegmentFile for Arc<Faulty> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.content.lock().unwrap();
        let end = usize::try_from(offset).unwrap() + bytes.len();
        if let Some(kind) = *self.write_error.lock().unwrap() {
            // A disk takes what fits before it says that it is full.
            content.resize(end - bytes.len() / 2, 0xEE);
            return Err(kind.into());
        }
        content.resize(end, 0);
        content[end - bytes.len()..].copy_from_slice(bytes);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        let mut held = self.held.0.lock().unwrap();
        while *held && !self.one_may_pass.swap(false, Ordering::SeqCst) {
            // A test that failed lets nobody through any more, and the runtime waits for this thread.
            let (again, waited) = self.held.1.wait_timeout(held, PATIENCE).unwrap();
            if waited.timed_out() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            held = again;
        }
        drop(held);
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.sync_error
            .lock()
            .unwrap()
            .map_or(Ok(()), |kind| Err(io::Error::from(kind)))?;
        self.synced.store(self.len() as u64, Ordering::SeqCst);
        Ok(())
    }
    fn cut(&self, bytes: u64) -> io::Result<()> {
        if self.cut_fails.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Other.into());
        }
        self.content.lock().unwrap().truncate(usize::try_from(bytes).unwrap());
        Ok(())
    }
}

const SMALL: WriterLimits = WriterLimits {
    record_bytes_max: 1_000,
    segment_bytes_max: 100_000,
    queue_records_max: 8,
    queue_bytes_max: 4_000,
    group_records_max: 16,
    group_bytes: 1 << 20,
};

fn sealer() -> LogSealer {
    let zone = Zone::locked(ZoneId::random());
    zone.unlock(vec![(ZoneKeyVersion::FIRST, random_key())]).unwrap();
    zone.lease().unwrap().log_sealer(FileId::random()).unwrap().1
}

fn writer(limits: WriterLimits) -> (Arc<Faulty>, Arc<Writer>) {
    let file = Arc::new(Faulty::default());
    let stream = StreamId::new("s").unwrap();
    let writer = Writer::new(
        stream,
        LogSequence(1),
        Box::new(Arc::clone(&file)),
        0,
        limits,
        Handle::current(),
    );
    (file, Arc::new(writer))
}

/// Waits until the writer has taken its first group and sits in the sync.
async fn until_writing(file: &Faulty) {
    until(|| file.len() > 0).await;
}

/// Waits for what the writer's thread does.
async fn until(holds: impl Fn() -> bool) {
    let look = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("in vain");
}

#[tokio::test]
async fn appends_that_wait_share_one_sync() {
    let (file, writer) = writer(WriterLimits::STANDARD);
    let mut sealer = sealer();
    file.hold(true);
    let first = writer.append(sealer.seal(b"first").unwrap());
    until_writing(&file).await;
    let others: Vec<_> = (0..500u32)
        .map(|n| writer.append(sealer.seal(&n.to_le_bytes()).unwrap()))
        .collect();
    file.hold(false);
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(file.syncs.load(Ordering::SeqCst), 2);
    assert_eq!(writer.commits(), 2);
    assert_eq!(writer.durable(), file.len() as u64);
    assert_eq!(writer.bytes(), file.len() as u64);
}

#[tokio::test]
async fn nothing_is_acknowledged_before_its_sync() {
    let (file, writer) = writer(SMALL);
    let mut sealer = sealer();
    file.hold(true);
    let mut append = writer.append(sealer.seal(b"x").unwrap());
    until_writing(&file).await;
    assert!(futures::poll!(&mut append).is_pending());
    assert_eq!(writer.durable(), 0);
    file.hold(false);
    append.await.unwrap();
    assert_eq!(writer.durable(), file.len() as u64);
}

#[tokio::test]
async fn a_full_disk_cuts_back_and_lets_nothing_follow() {
    let (file, writer) = writer(SMALL);
    let mut sealer = sealer();
    writer.append(sealer.seal(b"kept").unwrap()).await.unwrap();
    let durable = file.len();
    *file.write_error.lock().unwrap() = Some(io::ErrorKind::StorageFull);
    file.hold(true);
    let lost = writer.append(sealer.seal(b"lost").unwrap());
    let behind = writer.append(sealer.seal(b"queued behind it").unwrap());
    file.hold(false);
    assert!(matches!(lost.await, Err(LogError::Full { .. })));
    *file.write_error.lock().unwrap() = None;
    assert!(
        matches!(behind.await, Err(LogError::Full { .. })),
        "a record after a lost one cannot be read"
    );
    let later = writer.append(sealer.seal(b"later").unwrap()).await;
    assert!(matches!(later, Err(LogError::Full { .. })), "{later:?}");
    assert_eq!(file.len(), durable);
    assert!(matches!(writer.ended(), Some(LogError::Full { .. })));
    writer.finish("test").unwrap();
}

#[tokio::test]
async fn a_failed_sync_is_never_tried_again() {
    let (file, writer) = writer(SMALL);
    let mut sealer = sealer();
    writer.append(sealer.seal(b"kept").unwrap()).await.unwrap();
    let durable = file.len();
    *file.sync_error.lock().unwrap() = Some(io::ErrorKind::Other);
    let lost = writer.append(sealer.seal(b"lost").unwrap()).await;
    assert!(matches!(lost, Err(LogError::Write { .. })), "{lost:?}");
    *file.sync_error.lock().unwrap() = None;
    let syncs = file.syncs.load(Ordering::SeqCst);
    let later = writer.append(sealer.seal(b"later").unwrap()).await;
    assert!(matches!(later, Err(LogError::Ended { .. })), "{later:?}");
    assert_eq!(file.syncs.load(Ordering::SeqCst), syncs);
    assert_eq!((file.len(), writer.durable()), (durable, durable as u64));
}

/// Even a sync that says that the disk is full has lost its pages.
#[tokio::test]
async fn a_sync_that_finds_the_disk_full_ends_the_segment() {
    let (file, writer) = writer(SMALL);
    *file.sync_error.lock().unwrap() = Some(io::ErrorKind::StorageFull);
    let lost = writer.append(sealer().seal(b"lost").unwrap()).await;
    assert!(matches!(lost, Err(LogError::Write { .. })), "{lost:?}");
}

#[tokio::test]
async fn a_tail_that_cannot_be_cut_keeps_the_next_segment_from_beginning() {
    let (file, writer) = writer(SMALL);
    file.cut_fails.store(true, Ordering::SeqCst);
    *file.write_error.lock().unwrap() = Some(io::ErrorKind::Other);
    assert!(writer.append(sealer().seal(b"lost").unwrap()).await.is_err());
    assert!(file.len() > 0);
    assert!(writer.finish("test").is_err());
    file.cut_fails.store(false, Ordering::SeqCst);
    writer.finish("test").unwrap();
    assert_eq!(file.len(), 0);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    for (records, bytes, fits) in [
        (8, 10, true),
        (9, 10, false),
        (7, 10, true),
        (4, 900, true),
        (5, 900, false),
    ] {
        let (file, writer) = writer(SMALL);
        let mut sealer = sealer();
        file.hold(true);
        let first = writer.append(sealer.seal(b"in the writer's hands").unwrap());
        until_writing(&file).await;
        let appends: Vec<_> = (0..records)
            .map(|_| writer.append(sealer.seal(&vec![0; bytes]).unwrap()))
            .collect();
        assert_eq!(writer.ended().is_none(), fits, "{records} records of {bytes} bytes");
        file.hold(false);
        first.await.unwrap();
        let mut done = Vec::new();
        for append in appends {
            done.push(append.await);
        }
        // What was taken before the limit is durable all the same.
        assert_eq!(
            done.iter().filter(|done| done.is_ok()).count(),
            if fits { records } else { records - 1 }
        );
        assert_eq!(matches!(done.last(), Some(Err(LogError::Overloaded { .. }))), !fits);
    }
}

#[tokio::test]
async fn waiting_for_room_keeps_the_queue_short() {
    let (file, writer) = writer(SMALL);
    let mut sealer = sealer();
    file.hold(true);
    let mut appends = vec![writer.append(sealer.seal(b"in the writer's hands").unwrap())];
    until_writing(&file).await;
    for _ in 0..2 {
        assert!(writer.has_room());
        appends.push(writer.append(sealer.seal(b"queued").unwrap()));
    }
    assert!(!writer.has_room());
    let mut ready = Box::pin(writer.ready());
    assert!(futures::poll!(&mut ready).is_pending());
    file.hold(false);
    ready.await;
    for append in appends {
        append.await.unwrap();
    }
}

#[tokio::test]
async fn records_and_segments_have_a_longest_length() {
    let overhead = saker_keyring::RECORD_OVERHEAD_BYTES;
    for (bytes, fits) in [(999, true), (1_000, true), (1_001, false)] {
        let (_file, writer) = writer(SMALL);
        let done = writer.append(sealer().seal(&vec![0; bytes - overhead]).unwrap()).await;
        assert_eq!(done.is_ok(), fits);
        assert_eq!(matches!(done, Err(LogError::TooLarge { what: "record", .. })), !fits);
    }
    let one = (frame::GROUP_HEAD_BYTES + frame::RECORD_HEAD_BYTES + 500) as u64;
    for (segment_bytes_max, fits) in [(2 * one - 1, false), (2 * one, true), (2 * one + 1, true)] {
        let (_file, writer) = writer(WriterLimits {
            segment_bytes_max,
            ..SMALL
        });
        let mut sealer = sealer();
        writer
            .append(sealer.seal(&vec![0; 500 - overhead]).unwrap())
            .await
            .unwrap();
        let done = writer.append(sealer.seal(&vec![0; 500 - overhead]).unwrap()).await;
        assert_eq!(done.is_ok(), fits);
        assert_eq!(matches!(done, Err(LogError::TooLarge { what: "segment", .. })), !fits);
        assert_eq!(writer.ended().is_none(), fits);
    }
}

#[tokio::test]
async fn finishing_waits_for_what_was_taken() {
    let (file, writer) = writer(SMALL);
    let mut sealer = sealer();
    let appends: Vec<_> = (0..5).map(|_| writer.append(sealer.seal(b"x").unwrap())).collect();
    let finisher = Arc::clone(&writer);
    tokio::task::spawn_blocking(move || finisher.finish("test"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(writer.durable(), file.len() as u64);
    for append in appends {
        append.await.unwrap();
    }
    let later = writer.append(sealer.seal(b"x").unwrap()).await;
    assert!(matches!(later, Err(LogError::Ended { .. })));
}

/// Whatever a power loss leaves of the group in flight: acknowledged records are there, and nothing looks like damage.
#[tokio::test]
async fn a_power_loss_costs_no_acknowledged_record() {
    let mut random = rand::rngs::StdRng::seed_from_u64(2_026);
    let (mut torn, mut whole) = (0, 0);
    for round in 0..300 {
        let (file, writer) = writer(WriterLimits::STANDARD);
        let mut sealer = sealer();
        let mut written = Vec::new();
        let mut append = |random: &mut rand::rngs::StdRng| {
            let record = sealer.seal(&vec![1; random.random_range(0..3_000)]).unwrap();
            written.push(record.as_bytes().to_vec());
            writer.append(record)
        };
        let mut acknowledged = random.random_range(0..4);
        for _ in 0..acknowledged {
            append(&mut random).await.unwrap();
        }
        // Held in its sync: one record, or (in every other round) the group of records that queued up behind it.
        file.hold(true);
        let first = append(&mut random);
        until_unsynced(&file).await;
        let others: Vec<_> = (0..random.random_range(1..6)).map(|_| append(&mut random)).collect();
        if round % 2 == 0 {
            file.release_one();
            first.await.unwrap();
            acknowledged += 1;
            until_unsynced(&file).await;
        }
        let left = bytes::Bytes::from(file.after_power_loss(&mut random));
        file.hold(false);
        futures::future::join_all(others).await;

        let scan = frame::scan(&left, 0);
        assert!(
            scan.broken.is_none_or(|broken| !broken.followed),
            "round {round}: a torn tail looks like damage"
        );
        assert!(
            scan.records.len() >= acknowledged,
            "round {round}: an acknowledged record is lost"
        );
        assert!(
            scan.records
                .iter()
                .zip(&written)
                .all(|(found, written)| found == written)
        );
        torn += usize::from(scan.broken.is_some());
        whole += usize::from(scan.records.len() > acknowledged);
    }
    assert!(
        torn > 30 && whole > 30,
        "{torn} torn tails and {whole} whole ones do not try much"
    );
}

/// Waits until a group was written and sits in its sync.
async fn until_unsynced(file: &Faulty) {
    until(|| file.len() as u64 != file.synced.load(Ordering::SeqCst)).await;
}
