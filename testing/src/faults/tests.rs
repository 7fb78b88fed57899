//! Each fault, over the real embedded stores: what is told, and what is really there afterwards.

use std::time::Duration;

use saker_keyring::{
    FileId, FileIdentity, FileKind, FrameSize, Lease, LogSealer, OpenError, Zone, ZoneId, ZoneKeyVersion, random_key,
};
use saker_storage::{
    Expected, LogAppender, LogError, LogSequence, MetaBatch, MetaError, MetaKey, ObjectPath, StoreError, StreamId, Tail,
};
use tempfile::TempDir;

use super::*;

struct Fixture {
    plan: FaultPlan,
    faulty: EmbeddedStores,
    real: EmbeddedStores,
    lease: Lease,
    _directory: TempDir,
}

async fn fixture() -> Fixture {
    let directory = TempDir::new().unwrap();
    let stores = EmbeddedStores::open(directory.path()).await.unwrap();
    let real = EmbeddedStores {
        objects: Arc::clone(&stores.objects),
        meta: Arc::clone(&stores.meta),
        log: Arc::clone(&stores.log),
        lock: Arc::clone(&stores.lock),
    };
    let plan = FaultPlan::new(7);
    let zone = Zone::locked(ZoneId::random());
    zone.unlock(vec![(ZoneKeyVersion::FIRST, random_key())]).unwrap();
    let lease = zone.lease().unwrap();
    Fixture {
        faulty: faulty_stores(stores, &plan),
        real,
        plan,
        lease,
        _directory: directory,
    }
}

impl Fixture {
    fn identity() -> FileIdentity {
        FileIdentity {
            file: FileId::from_bytes([1; 16]),
            kind: FileKind::Column,
        }
    }

    async fn put(&self, path: &str) -> Result<(), StoreError> {
        let FileIdentity { file, kind } = Self::identity();
        let mut sealer = self.lease.file_sealer(file, kind, FrameSize::Random).unwrap();
        sealer.write(&[5; 10_000]).unwrap();
        self.faulty
            .objects
            .put(&ObjectPath::new(path).unwrap(), sealer.finish().unwrap())
            .await
    }

    async fn is_there(&self, path: &str) -> bool {
        self.real.objects.size(&ObjectPath::new(path).unwrap()).await.is_ok()
    }

    async fn commit(&self, key: &str) -> Result<(), MetaError> {
        let mut batch = MetaBatch::new();
        batch.put(
            MetaKey::new(key).unwrap(),
            self.lease.seal_value(key, b"value").unwrap(),
        );
        self.faulty.meta.commit(batch).await
    }

    async fn has_value(&self, key: &str) -> bool {
        self.real.meta.get(&MetaKey::new(key).unwrap()).await.unwrap().is_some()
    }

    async fn segment(&self) -> (Box<dyn LogAppender>, LogSealer) {
        let (header, sealer) = self.lease.log_sealer(FileId::random()).unwrap();
        (
            self.faulty
                .log
                .create_segment(&stream(), header, sealer.file())
                .await
                .unwrap(),
            sealer,
        )
    }

    async fn records(&self, sequence: LogSequence) -> usize {
        self.real
            .log
            .read_segment(&stream(), sequence)
            .await
            .unwrap()
            .records
            .len()
    }
}

fn stream() -> StreamId {
    StreamId::new("stream").unwrap()
}

#[tokio::test]
async fn without_faults_nothing_is_different() {
    let fixture = fixture().await;
    fixture.put("a/b").await.unwrap();
    let path = ObjectPath::new("a/b").unwrap();
    let bytes = fixture.faulty.objects.get(&path).await.unwrap();
    assert_eq!(
        fixture.lease.open_whole_file(Fixture::identity(), &bytes).unwrap()[..],
        [5; 10_000]
    );
    assert_eq!(fixture.faulty.objects.size(&path).await.unwrap(), bytes.len() as u64);
    assert_eq!(fixture.faulty.objects.list("a").await.unwrap().len(), 1);
    fixture.faulty.objects.shred(&path).await.unwrap();
    assert!(!fixture.is_there("a/b").await);
    fixture.commit("k").await.unwrap();
    assert_eq!(fixture.faulty.meta.scan("").await.unwrap().len(), 1);
    let (appender, mut sealer) = fixture.segment().await;
    appender.append(sealer.seal(b"one").unwrap()).await.unwrap();
    assert_eq!(fixture.records(appender.sequence()).await, 1);
    assert_eq!(fixture.faulty.log.streams().await.unwrap(), [stream()]);
    assert_eq!(fixture.plan.count(Operation::ObjectPut), 1);
    // Put, shred, commit, create, append.
    assert_eq!(fixture.plan.writes(), 5);
}

#[tokio::test]
async fn a_write_is_lost_before_or_after_its_commit() {
    let fixture = fixture().await;
    fixture.plan.next(
        Operation::ObjectPut,
        [
            Some(Fault::LoseBefore),
            Some(Fault::Tear),
            Some(Fault::Full),
            Some(Fault::LoseAfter),
            None,
        ],
    );
    assert!(matches!(fixture.put("a").await, Err(StoreError::Io { .. })));
    assert!(matches!(fixture.put("a").await, Err(StoreError::Io { .. })));
    assert!(matches!(fixture.put("a").await, Err(StoreError::Full { .. })));
    assert!(!fixture.is_there("a").await);
    assert!(matches!(fixture.put("a").await, Err(StoreError::Io { .. })));
    assert!(fixture.is_there("a").await);
    assert!(matches!(fixture.put("a").await, Err(StoreError::AlreadyExists { .. })));

    fixture.plan.next(
        Operation::MetaCommit,
        [Some(Fault::LoseBefore), Some(Fault::Full), Some(Fault::LoseAfter)],
    );
    assert!(matches!(fixture.commit("k").await, Err(MetaError::Io { .. })));
    assert!(matches!(fixture.commit("k").await, Err(MetaError::Full)));
    assert!(!fixture.has_value("k").await);
    assert!(matches!(fixture.commit("k").await, Err(MetaError::Io { .. })));
    assert!(fixture.has_value("k").await);
}

#[tokio::test]
async fn an_error_of_the_store_itself_is_told_as_it_is() {
    let fixture = fixture().await;
    fixture.commit("k").await.unwrap();
    fixture.plan.next(Operation::MetaCommit, [Some(Fault::LoseAfter)]);
    let mut batch = MetaBatch::new();
    batch.expect(MetaKey::new("k").unwrap(), Expected::Absent);
    assert!(matches!(
        fixture.faulty.meta.commit(batch).await,
        Err(MetaError::Conflict { .. })
    ));
}

#[tokio::test]
async fn torn_and_flipped_reads_are_refused_by_the_seal() {
    let fixture = fixture().await;
    fixture.put("a").await.unwrap();
    fixture.commit("k").await.unwrap();
    let path = ObjectPath::new("a").unwrap();
    for fault in [Fault::Tear, Fault::Flip] {
        for _ in 0..50 {
            fixture.plan.next(Operation::ObjectGet, [Some(fault)]);
            let bytes = fixture.faulty.objects.get(&path).await.unwrap();
            let opened = fixture.lease.open_whole_file(Fixture::identity(), &bytes);
            assert_eq!(opened.unwrap_err(), OpenError::Refused);
            fixture.plan.next(Operation::MetaGet, [Some(fault)]);
            let value = fixture
                .faulty
                .meta
                .get(&MetaKey::new("k").unwrap())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(fixture.lease.open_value("k", &value).unwrap_err(), OpenError::Refused);
            fixture.plan.next(Operation::MetaScan, [Some(fault)]);
            let values = fixture.faulty.meta.scan("").await.unwrap();
            assert_eq!(
                fixture.lease.open_value("k", &values[0].1).unwrap_err(),
                OpenError::Refused
            );
        }
    }
    fixture.plan.next(Operation::ObjectGet, [Some(Fault::LoseBefore)]);
    assert!(fixture.faulty.objects.get(&path).await.is_err());
    assert!(fixture.faulty.objects.get(&path).await.is_ok());
}

#[tokio::test]
async fn an_appender_that_failed_takes_no_more() {
    for (fault, kept) in [
        (Fault::LoseBefore, 1),
        (Fault::Tear, 1),
        (Fault::Full, 1),
        (Fault::LoseAfter, 2),
    ] {
        let fixture = fixture().await;
        fixture.plan.next(Operation::LogAppend, [None, Some(fault)]);
        let (appender, mut sealer) = fixture.segment().await;
        appender.append(sealer.seal(b"one").unwrap()).await.unwrap();
        assert!(appender.ended().is_none());
        assert!(appender.append(sealer.seal(b"two").unwrap()).await.is_err());
        assert!(appender.ended().is_some());
        let third = appender.append(sealer.seal(b"three").unwrap()).await;
        assert!(matches!(third, Err(LogError::Ended { .. })), "{third:?}");
        assert_eq!(fixture.records(appender.sequence()).await, kept, "{fault:?}");
        // A new segment goes on.
        let (appender, mut sealer) = fixture.segment().await;
        appender.append(sealer.seal(b"three").unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_segment_is_read_without_its_tail_or_altered() {
    let fixture = fixture().await;
    let (appender, mut sealer) = fixture.segment().await;
    for _ in 0..3 {
        appender.append(sealer.seal(b"record").unwrap()).await.unwrap();
    }
    let stream = stream();
    let read = || fixture.faulty.log.read_segment(&stream, appender.sequence());
    fixture
        .plan
        .next(Operation::LogReadSegment, [Some(Fault::Tear), Some(Fault::Flip), None]);
    let torn = read().await.unwrap();
    assert_eq!(torn.records.len(), 2);
    assert!(matches!(torn.tail, Tail::Torn { .. }));
    let flipped = read().await.unwrap();
    let whole = read().await.unwrap();
    assert_eq!(whole.tail, Tail::Clean);
    assert_ne!(flipped.records, whole.records);
    assert_eq!(flipped.records.len(), 3);
}

#[tokio::test]
async fn after_a_power_failure_nothing_works_until_it_is_back() {
    let fixture = fixture().await;
    let (appender, mut sealer) = fixture.segment().await;
    fixture.plan.power_off_after(2);
    appender.append(sealer.seal(b"one").unwrap()).await.unwrap();
    fixture.commit("one").await.unwrap();
    assert!(!fixture.plan.is_off());
    assert!(appender.append(sealer.seal(b"two").unwrap()).await.is_err());
    assert!(fixture.plan.is_off());
    assert!(fixture.commit("two").await.is_err());
    assert!(fixture.put("two").await.is_err());
    assert!(fixture.faulty.meta.get(&MetaKey::new("one").unwrap()).await.is_err());
    assert!(fixture.faulty.log.segments(&stream()).await.is_err());
    fixture.plan.clear();
    assert!(fixture.has_value("one").await && !fixture.has_value("two").await);
    assert_eq!(fixture.records(appender.sequence()).await, 1);
    fixture.commit("two").await.unwrap();
}

#[tokio::test]
async fn chance_replays_from_its_seed() {
    let outcomes = |seed: u64| {
        let plan = FaultPlan::new(seed);
        plan.chance(Operation::MetaCommit, 0.3, &[Fault::LoseBefore, Fault::LoseAfter]);
        (0..1_000)
            .map(|_| plan.decide(Operation::MetaCommit))
            .collect::<Vec<_>>()
    };
    let once = outcomes(1);
    assert_eq!(once, outcomes(1));
    assert_ne!(once, outcomes(2));
    let faults = once.iter().flatten().count();
    assert!((200..400).contains(&faults), "{faults} of 1,000");
    for fault in [Fault::LoseBefore, Fault::LoseAfter] {
        assert!(once.contains(&Some(fault)));
    }
    let never = FaultPlan::new(1);
    never.chance(Operation::MetaCommit, 0.0, &[Fault::LoseBefore]);
    assert!((0..100).all(|_| never.decide(Operation::MetaCommit).is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_only_a_delay() {
    let plan = FaultPlan::new(1);
    plan.next(Operation::ObjectSize, [Some(Fault::Delay(Duration::from_secs(60)))]);
    let fault = plan.decide(Operation::ObjectSize);
    let start = tokio::time::Instant::now();
    let done = plan::run(fault, false, async { Ok::<_, ()>(7) }, || (), || ()).await;
    assert_eq!(done, Ok(7));
    assert_eq!(start.elapsed(), Duration::from_secs(60));
}

#[tokio::test]
async fn headers_are_replaced_wholly_or_not_at_all() {
    let fixture = fixture().await;
    let path = ObjectPath::new("a/b").unwrap();
    fixture.put("a/b").await.unwrap();
    let before = fixture.real.objects.get(&path).await.unwrap();
    let fresh = || {
        let header = before.slice(0..saker_keyring::HEADER_BYTES).unwrap();
        fixture
            .lease
            .rewrap_header(&fixture.lease, Fixture::identity(), &header)
            .unwrap()
    };
    for (fault, replaced) in [
        (Fault::LoseBefore, false),
        (Fault::Full, false),
        (Fault::Tear, false),
        (Fault::LoseAfter, true),
    ] {
        fixture.plan.next(Operation::ObjectReplaceHeaders, [Some(fault)]);
        fixture.faulty.objects.replace_header(&path, fresh()).await.unwrap_err();
        let after = fixture.real.objects.get(&path).await.unwrap();
        assert_eq!(after != before, replaced, "{fault:?}");
        assert!(
            fixture.lease.open_whole_file(Fixture::identity(), &after).is_ok(),
            "{fault:?}"
        );
    }
    let (appender, _sealer) = fixture.segment().await;
    let (file, header) = fixture
        .faulty
        .log
        .read_header(&stream(), appender.sequence())
        .await
        .unwrap();
    let identity = FileIdentity {
        file,
        kind: FileKind::Log,
    };
    for (fault, replaced) in [(Fault::LoseBefore, false), (Fault::LoseAfter, true)] {
        let fresh = fixture.lease.rewrap_header(&fixture.lease, identity, &header).unwrap();
        fixture.plan.next(Operation::LogReplaceHeader, [Some(fault)]);
        fixture
            .faulty
            .log
            .replace_header(&stream(), appender.sequence(), fresh)
            .await
            .unwrap_err();
        let (_, after) = fixture
            .real
            .log
            .read_header(&stream(), appender.sequence())
            .await
            .unwrap();
        assert_eq!(after != header, replaced, "{fault:?}");
    }
    fixture.plan.power_off_after(0);
    fixture.faulty.objects.replace_header(&path, fresh()).await.unwrap_err();
    assert!(fixture.faulty.objects.get(&path).await.is_err(), "the power is off");
}
