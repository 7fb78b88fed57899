//! The crate's contract over real stores and stores that fail: the chain goes on through crashes, full disks and a
//! locked zone, nothing is written in the clear, and what was lost is on record.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests, which print their seed and damage files"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use saker_audit::{
    AccessLog, AccessRecord, AuditLog, CLOSED, ChainCheck, ChainReport, Draft, GAP, Head, Journal, OPENED, Place,
    Record, RecordHash, WAITING_MAX, Walk, check_export, closing_line,
};
use saker_keyring::{
    CallObserver as _, CallReason, EncryptionContext, KeyCall, KeyOperation, KeyPurpose, Zone, ZoneId, ZoneKeyVersion,
    random_key,
};
use saker_storage::{EmbeddedStores, StreamId};
use saker_testing::{Fault, FaultPlan, Operation, faulty_stores};
use serde_json::json;
use tempfile::TempDir;

struct Bench {
    dir: TempDir,
    zone: Arc<Zone>,
    key: saker_keyring::PlainKey,
    now_ms: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        let key = random_key();
        let bench = Self {
            dir: TempDir::new().unwrap(),
            zone: Zone::locked(ZoneId::random()),
            key,
            now_ms: Arc::new(AtomicU64::new(1_768_000_000_000)),
        };
        bench.unlock();
        bench
    }
    fn unlock(&self) {
        let mut bytes = *self.key.expose_bytes();
        let key = saker_keyring::PlainKey::take(&mut bytes).unwrap();
        self.zone.unlock(vec![(ZoneKeyVersion::FIRST, key)]).unwrap();
    }
    async fn stores(&self) -> EmbeddedStores {
        EmbeddedStores::open(self.dir.path()).await.unwrap()
    }
    fn place(&self, stores: &EmbeddedStores) -> Place {
        let zone = Arc::clone(&self.zone);
        Place {
            log: Arc::clone(&stores.log),
            stream: StreamId::new("audit").unwrap(),
            lease: Arc::new(move || zone.lease().ok()),
        }
    }
    fn log(&self) -> AuditLog {
        let now_ms = Arc::clone(&self.now_ms);
        AuditLog::start(Arc::new(move || now_ms.fetch_add(1, Ordering::Relaxed)))
    }
    /// Everything that bytes on disk say, as text.
    fn on_disk(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut waiting = vec![self.dir.path().to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    all.extend(std::fs::read(path).unwrap());
                }
            }
        }
        all
    }
}

async fn started(log: &AuditLog, place: Place) -> tokio::task::JoinHandle<()> {
    let writer = log.attach(place, json!({ "cluster": "c" })).await.unwrap();
    tokio::spawn(writer.run())
}

async fn check(place: &Place) -> (Vec<Record>, ChainReport) {
    let mut walk = Walk::begin(place.clone()).await.unwrap();
    let mut check = ChainCheck::new(Head::NONE, Vec::new());
    let mut records = Vec::new();
    while let Some(lines) = walk.next_lines().await {
        for line in lines.unwrap() {
            records.extend(check.feed(&line));
        }
    }
    (records, check.finish())
}

fn events(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.event.as_str()).collect()
}

fn call(number: u64, why: CallReason) -> KeyCall {
    KeyCall {
        operation: KeyOperation::Decrypt,
        root: "arn:aws:kms:us-east-1:000000000000:key/a".parse().unwrap(),
        context: EncryptionContext {
            cluster: "c".into(),
            database: "d".into(),
            purpose: KeyPurpose::ZoneKey,
        },
        why,
        outcome: Ok(()),
        request_id: Some(format!("request-{number}")),
        sent_ms_ago: 0,
        took_ms: 0,
    }
}

#[tokio::test]
async fn the_chain_goes_on_over_restarts_and_a_kill() {
    let bench = Bench::new();
    let mut heads = Vec::new();
    for run in 0..4 {
        let stores = bench.stores().await;
        let log = bench.log();
        let writer = started(&log, bench.place(&stores)).await;
        for number in 0..5 {
            log.record(log.draft("zone-unlocked", json!({ "database": format!("d{number}") })));
        }
        let head = log
            .record_durably(log.draft("zone-locked", json!({ "run": run })))
            .await
            .unwrap();
        heads.push(head);
        if run % 2 == 0 {
            log.close();
            writer.await.unwrap();
        } else {
            // As after a kill: what was durable stays, and nothing is closed.
            writer.abort();
            let _aborted = writer.await;
        }
    }
    let stores = bench.stores().await;
    let (records, report) = check(&bench.place(&stores)).await;
    assert!(report.is_whole(), "{:?}", report.faults);
    let count = |event: &str| records.iter().filter(|record| record.event == event).count();
    assert_eq!((count(OPENED), count(CLOSED), count(GAP)), (4, 2, 1));
    assert_eq!(count("zone-unlocked"), 20);
    for head in heads {
        assert!(records.iter().any(|record| record.head() == head));
    }
    let gap = records.iter().position(|record| record.event == GAP).unwrap();
    assert_eq!(
        records[gap - 1].event,
        "zone-locked",
        "the end without an end is on record"
    );
    assert_eq!(records[gap + 1].event, OPENED);
}

#[tokio::test]
async fn nothing_is_on_disk_in_the_clear() {
    let bench = Bench::new();
    let stores = bench.stores().await;
    let log = bench.log();
    let writer = started(&log, bench.place(&stores)).await;
    log.record(log.draft("database-created", json!({ "database": "canary-database" })));
    log.on_call(&call(0, CallReason::Unlock));
    log.flush().await.unwrap();
    log.close();
    writer.await.unwrap();
    let bytes = bench.on_disk();
    for canary in ["canary-database", "request-0", "database-created", "log-opened"] {
        let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
        assert!(!found, "{canary}");
    }
}

#[tokio::test]
async fn calls_are_on_record_each_by_its_name() {
    let bench = Bench::new();
    let stores = bench.stores().await;
    let log = bench.log();
    let writer = started(&log, bench.place(&stores)).await;
    for number in 0..2_500 {
        log.on_call(&call(
            number,
            if number % 2 == 0 {
                CallReason::Probe
            } else {
                CallReason::Unlock
            },
        ));
    }
    log.flush().await.unwrap();
    assert_eq!(
        log.calls_of(&"arn:aws:kms:us-east-1:000000000000:key/a".parse().unwrap()),
        2_500
    );
    let (records, report) = check(&bench.place(&stores)).await;
    assert!(report.is_whole());
    let mut ids: Vec<String> = records
        .iter()
        .filter_map(|record| record.details.get("calls")?.as_array())
        .flatten()
        .map(|call| call[0].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 2_500);
    assert!(records.len() < 20, "{} records for 2,500 calls", records.len());
    log.close();
    writer.await.unwrap();
}

#[tokio::test]
async fn a_locked_zone_makes_records_wait_and_loses_none() {
    let bench = Bench::new();
    let stores = bench.stores().await;
    let log = bench.log();
    let writer = started(&log, bench.place(&stores)).await;
    log.record_durably(log.draft("one", json!({}))).await.unwrap();
    bench.zone.lock();
    for number in 0..100 {
        log.record_urgent(log.draft("zone-locked", json!({ "number": number })));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(log.head().sequence, 2, "opened and one");
    bench.unlock();
    log.record_durably(log.draft("two", json!({}))).await.unwrap();
    let (records, report) = check(&bench.place(&stores)).await;
    assert!(report.is_whole(), "{:?}", report.faults);
    let locked = records.iter().filter(|record| record.event == "zone-locked");
    let numbers: Vec<u64> = locked.filter_map(|record| record.details["number"].as_u64()).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<u64>>());
    log.close();
    writer.await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_lost_and_the_loss_is_on_record() {
    let bench = Bench::new();
    let log = bench.log();
    // Nothing is written before the log has its place. The record of its beginning comes on top.
    for number in 0..WAITING_MAX as u64 + 7 {
        log.record(log.draft("event", json!({ "number": number })));
    }
    assert_eq!((log.counts().waiting, log.counts().lost), (WAITING_MAX, 7));
    assert!(
        log.record_durably(log.draft("late", json!({}))).await.is_err(),
        "it was lost as well"
    );
    let stores = bench.stores().await;
    let writer = started(&log, bench.place(&stores)).await;
    log.flush().await.unwrap();
    let (records, report) = check(&bench.place(&stores)).await;
    assert!(report.is_whole());
    assert_eq!(records.len(), WAITING_MAX + 2);
    let gap = records.last().unwrap();
    assert_eq!((gap.event.as_str(), gap.details["lost"].as_u64()), (GAP, Some(8)));
    log.close();
    writer.await.unwrap();
}

#[tokio::test]
async fn failing_stores_neither_break_the_chain_nor_repeat_a_record() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    for round in 0..6 {
        let bench = Bench::new();
        let real = bench.stores().await;
        let place = bench.place(&real);
        let plan = FaultPlan::new(seed.wrapping_add(round));
        let faulty = faulty_stores(real, &plan);
        let mut journal = Journal::new(bench.place(&faulty), 4_096);
        let faults = [Fault::LoseBefore, Fault::LoseAfter, Fault::Full, Fault::Tear];
        plan.chance(Operation::LogAppend, 0.2, &faults);
        plan.chance(Operation::LogCreateSegment, 0.2, &faults);
        let mut head = Head::NONE;
        let mut failed = 0;
        for batch in 0..40_u64 {
            let mut lines = Vec::new();
            for number in 0..=batch % 4 {
                let (line, next) = Draft::new(batch, "event", json!({ "number": number })).chained(head);
                lines.push(line);
                head = next;
            }
            while let Err(error) = journal.append(&lines).await {
                failed += 1;
                assert!(failed < 1_000, "{error}");
            }
        }
        plan.clear();
        let (records, report) = check(&place).await;
        assert!(report.is_whole(), "round {round}: {:?}", report.faults);
        assert_eq!((report.head, records.len() as u64), (head, head.sequence));
        assert!(failed > 0, "nothing failed");
    }
}

#[tokio::test]
async fn after_a_power_failure_everything_acknowledged_is_there() {
    for writes in 1..30 {
        let bench = Bench::new();
        let real = bench.stores().await;
        let plan = FaultPlan::new(1);
        let faulty = faulty_stores(real, &plan);
        let mut journal = Journal::new(bench.place(&faulty), 1_024);
        plan.power_off_after(writes);
        let (mut head, mut durable) = (Head::NONE, Head::NONE);
        for number in 0..40 {
            let (line, next) = Draft::new(number, "event", json!({ "number": number })).chained(head);
            head = next;
            if journal.append(&[line]).await.is_err() {
                break;
            }
            durable = head;
        }
        assert_ne!(durable, head, "the power did not fail");
        drop((journal, faulty));
        let stores = bench.stores().await;
        let place = bench.place(&stores);
        let (records, report) = check(&place).await;
        assert!(report.is_whole(), "after {writes}: {:?}", report.faults);
        assert!(report.head.sequence >= durable.sequence && report.head.sequence <= durable.sequence + 1);
        assert!(durable == Head::NONE || records.iter().any(|record| record.head() == durable));
        // And it goes on from there.
        let log = bench.log();
        let writer = started(&log, place.clone()).await;
        log.flush().await.unwrap();
        let (records, report) = check(&place).await;
        assert!(report.is_whole());
        assert!(events(&records).contains(&OPENED));
        log.close();
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_or_missing_segment_is_found() {
    let bench = Bench::new();
    {
        let stores = bench.stores().await;
        let mut journal = Journal::new(bench.place(&stores), 600);
        let mut head = Head::NONE;
        for number in 0..12 {
            let (line, next) = Draft::new(number, "event", json!({ "number": number })).chained(head);
            journal.append(&[line]).await.unwrap();
            head = next;
        }
        journal.close().await;
    }
    let folder = bench.dir.path().join("log/audit");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .collect();
    files.sort();
    assert!(files.len() > 4, "{files:?}");
    // A segment in the middle is gone: the chain says so.
    std::fs::rename(&files[2], bench.dir.path().join("aside")).unwrap();
    {
        let stores = bench.stores().await;
        let (_, report) = check(&bench.place(&stores)).await;
        assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    }
    std::fs::rename(bench.dir.path().join("aside"), &files[2]).unwrap();
    // One that is damaged is named, and the newest record before it is known.
    let newest = files.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, &bytes).unwrap();
    let stores = bench.stores().await;
    let place = bench.place(&stores);
    let (line, damaged) = place.newest().await.unwrap();
    assert!(damaged);
    assert!(Record::parse(&line.unwrap()).unwrap().sequence < 12);
    let mut walk = Walk::begin(place).await.unwrap();
    let mut refused = 0;
    while let Some(lines) = walk.next_lines().await {
        if let Err(error) = lines {
            refused += 1;
            assert!(error.to_string().contains("damaged"), "{error}");
        }
    }
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn an_export_of_what_is_stored_is_whole() {
    let bench = Bench::new();
    let stores = bench.stores().await;
    let log = bench.log();
    let writer = started(&log, bench.place(&stores)).await;
    for number in 0..300 {
        log.record(log.draft("event", json!({ "number": number })));
    }
    let head = log.flush().await.unwrap();
    assert_eq!(head, log.head());
    let mut bytes = Vec::new();
    let mut walk = Walk::begin(bench.place(&stores)).await.unwrap();
    while let Some(lines) = walk.next_lines().await {
        for line in lines.unwrap() {
            bytes.extend_from_slice(&line);
            bytes.push(b'\n');
        }
    }
    bytes.extend_from_slice(closing_line(head).as_bytes());
    bytes.push(b'\n');
    assert!(check_export(&bytes, Head::NONE, vec![head]).is_whole());
    let newest = bench.place(&stores).newest_lines(3).await.unwrap();
    assert_eq!(RecordHash::of(newest.last().unwrap()), head.hash);
    assert_eq!(newest.len(), 3);
    log.close();
    writer.await.unwrap();
}

#[tokio::test]
async fn the_log_of_requests_is_bounded_and_sealed() {
    let bench = Bench::new();
    let stores = bench.stores().await;
    let place = bench.place(&stores);
    let (access, writer) = AccessLog::start(place.clone(), 1 << 20);
    let writer = tokio::spawn(writer.run());
    let record = |number: u64| AccessRecord {
        date: AccessRecord::date_of(number),
        action: "Search".into(),
        cluster_id: "c".into(),
        database: "canary-database".into(),
        interface: "Grpc",
        log_type: "AUDIT",
        params: json!({ "collection": "x".repeat(200) }).as_object().unwrap().clone(),
        result: 0,
        status: "Success",
        time: number,
        trace_id: format!("{number}"),
        user: String::new(),
    };
    for number in 0..12_000 {
        access.record(&record(number));
        if number % 500 == 0 {
            access.flush().await;
        }
    }
    access.flush().await;
    assert_eq!(access.counts(), (12_000, 0));
    access.close();
    writer.await.unwrap();
    let segments = place.segments().await.unwrap();
    let total: u64 = segments.iter().map(|(_, bytes)| bytes).sum();
    assert!(total <= (1 << 20) + (1 << 18), "{total} bytes");
    assert!(segments[0].0.0 > 1, "nothing was removed");
    let newest = place.newest_lines(1).await.unwrap();
    let last: serde_json::Value = serde_json::from_slice(&newest[0]).unwrap();
    assert_eq!(last["trace_id"], "11999");
    let order: Vec<usize> = [
        "\"date\"",
        "\"action\"",
        "\"cluster_id\"",
        "\"database\"",
        "\"interface\"",
        "\"log_type\"",
        "\"params\"",
        "\"result\"",
        "\"status\"",
        "\"time\"",
        "\"trace_id\"",
        "\"user\"",
    ]
    .iter()
    .map(|name| std::str::from_utf8(&newest[0]).unwrap().find(name).unwrap())
    .collect();
    assert!(order.is_sorted());
    let bytes = bench.on_disk();
    assert!(!bytes.windows(15).any(|window| window == b"canary-database"));
}
