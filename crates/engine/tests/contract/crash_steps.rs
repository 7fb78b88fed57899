//! Every operation that touches keys, interrupted at every write that it makes: by a power failure there, or by a write
//! that was done although the caller is told that it failed.
//!
//! After the next start the operation is done or undone, every row is there once, the offline walk of the whole directory
//! finds nothing, and over both lives no data key sealed two files and no nonce was used twice, also in what the crash
//! kept from reaching the disk.
#![expect(clippy::wildcard_enum_match_arm, reason = "most steps share one expectation")]

use std::{path::Path, sync::Arc, time::Duration};

use saker_engine::{Engine, FindingClass, JobState, MoveRequest, WalkObserver, verify};
use saker_keyring::{KeyService, RootKeyId};
use saker_storage::{EmbeddedStores, ReadOnlyStores};
use saker_testing::{Fault, FaultPlan, Ledger, faulty_stores, recorded_stores};

use crate::common::{Cluster, collection, filter, ids, index_and_load, insert, loaded, rows, spec};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    CreateDatabase,
    CreateCollection,
    CreateWithOwnKey,
    Write,
    Flush,
    Compact,
    Rotate,
    Rewrap,
    Change,
    Reencrypt,
    Move,
    DropCollection,
    DropDatabase,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Interruption {
    /// That write and everything after it is lost, until the next start.
    PowerOff,
    /// That write is done, and reported as failed; everything else goes on.
    DoneButFailed,
}

/// More than any of the operations makes.
const WRITES_MAX: u64 = 150;

struct World {
    cluster: Cluster,
    second: RootKeyId,
}

impl World {
    /// `a/c`: 20 rows in files with one deleted, 5 in the log; `b` under another root key; `empty`.
    async fn new() -> Self {
        Self::with_segments(1).await
    }

    /// The same with the 20 rows in so many segments.
    async fn with_segments(segments: i64) -> Self {
        let cluster = Cluster::new();
        let second = cluster.kms.add_root();
        let engine = cluster.open().await;
        cluster.database(&engine, "a").await;
        cluster.database(&engine, "empty").await;
        engine
            .create_database("b", [("cipher.key".to_owned(), second.to_string())].into())
            .await
            .unwrap();
        collection(&engine, "a", "c", "FLAT").await;
        for segment in 0..segments {
            let rows = 20 * segment / segments..20 * (segment + 1) / segments;
            insert(&engine, "a", "c", rows).await;
            engine.flush("a", &["c".into()]).await.unwrap();
        }
        engine.delete("a", "c", None, filter("id == 7")).await.unwrap();
        insert(&engine, "a", "c", 20..25).await;
        collection(&engine, "b", "beside", "FLAT").await;
        insert(&engine, "b", "beside", 0..3).await;
        engine.shutdown().await;
        Self { cluster, second }
    }

    /// The operation; `false` if it did not get to its end.
    async fn take(&self, engine: &Arc<Engine>, step: Step, plan: &FaultPlan) -> bool {
        let properties = |root: &RootKeyId| [("cipher.key".to_owned(), root.to_string())].into();
        let files = ["c".to_owned()];
        let job = match step {
            Step::CreateDatabase => return engine.create_database("new", properties(&self.second)).await.is_ok(),
            Step::CreateCollection => return engine.create_collection("a", spec("new")).await.is_ok(),
            Step::CreateWithOwnKey => {
                let mut own = spec("new");
                own.properties = properties(&self.second);
                return engine.create_collection("a", own).await.is_ok();
            }
            Step::Write => return engine.insert("a", "c", None, rows(25..28)).await.is_ok(),
            Step::Flush => return engine.flush("a", &files).await.is_ok(),
            Step::Compact => return compact(engine, &files, plan).await,
            Step::Move => {
                let request = MoveRequest {
                    database: "a".into(),
                    collection: "c".into(),
                    to: "b".into(),
                    name: None,
                };
                return engine.move_collection(request).await.is_ok();
            }
            Step::DropCollection => return engine.drop_collection("a", "c").await.is_ok(),
            Step::DropDatabase => return engine.drop_database("empty").await.is_ok(),
            Step::Rotate => engine.rotate_key("a", None).await.map(|job| job.id),
            Step::Change => engine.change_key("a", None, &self.second).await.map(|job| job.id),
            Step::Reencrypt => engine.reencrypt("a", None).await.map(|job| job.id),
            Step::Rewrap => {
                let jobs = engine.rewrap_keys(Some(&self.cluster.customer)).await;
                jobs.map(|jobs| jobs[0].id)
            }
        };
        let Ok(job) = job else { return false };
        for _ in 0..3_000 {
            let found = engine.jobs().into_iter().find(|info| info.id == job);
            match found.map(|info| info.state) {
                Some(JobState::Done) => return true,
                Some(JobState::Failed { .. }) => return false,
                _ if plan.is_off() => return false,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        panic!("{step:?}: the job neither ends nor fails");
    }

    /// Takes the step with an interruption at that write. `false` once the step makes fewer writes.
    async fn interrupt(&self, step: Step, how: Interruption, writes: u64) -> bool {
        let label = format!("{step:?}, {how:?} at write {writes}");
        let dir = self.cluster.crash_image(&format!("{step:?}-{how:?}-{writes}"));
        let (plan, ledger) = (FaultPlan::new(writes), Ledger::new());
        let stores = faulty_stores(EmbeddedStores::open(&dir).await.unwrap(), &plan);
        let engine = self
            .cluster
            .open_stores(recorded_stores(stores, &ledger))
            .await
            .unwrap();
        loaded(&engine, "a", "c").await;
        let before = plan.writes();
        match how {
            Interruption::PowerOff => plan.power_off_after(writes),
            Interruption::DoneButFailed => plan.fault_after(writes, Fault::LoseAfter),
        }
        let done = self.take(&engine, step, &plan).await;
        let reached = plan.writes() > before + writes;
        if how == Interruption::DoneButFailed {
            // It lives on, and what it answers now is as it is.
            plan.clear();
            self.check(&engine, step, done, &label).await;
        }
        engine.shutdown().await;
        drop(engine);

        let stores = EmbeddedStores::open(&dir).await.unwrap();
        let engine = self.cluster.open_stores(recorded_stores(stores, &ledger)).await;
        let engine = engine.unwrap_or_else(|error| panic!("{label}: {error}"));
        self.check(&engine, step, done, &label).await;
        quiet(&engine, &dir, &label).await;
        engine.shutdown().await;
        drop(engine);
        self.walk(&dir, &label).await;
        assert_eq!(ledger.violations(), Vec::<String>::new(), "{label}");
        let (keys, nonces) = ledger.seen();
        assert!(
            keys > 2 && nonces > keys,
            "{label}: {keys} keys and {nonces} nonces seen"
        );
        std::fs::remove_dir_all(&dir).unwrap();
        reached
    }

    /// Done or undone, and what was acknowledged is done.
    async fn check(&self, engine: &Arc<Engine>, step: Step, done: bool, label: &str) {
        for job in engine.jobs() {
            if let JobState::Failed { .. } = job.state {
                engine.retry_job(job.id).await.unwrap();
            }
            let ended = async || {
                let jobs = engine.jobs();
                jobs.iter()
                    .any(|info| info.id == job.id && info.state == JobState::Done)
            };
            patiently(&format!("{label}: the job ends"), ended).await;
        }
        let there = async |database: &str, name: &str| engine.has_collection(database, name).await.unwrap();
        let (in_a, in_b) = (there("a", "c").await, there("b", "c").await);
        match step {
            Step::DropCollection => assert!(!done || !in_a, "{label}: dropped and back"),
            Step::Move => {
                assert!(in_a != in_b, "{label}: in a: {in_a}, in b: {in_b}");
                assert!(!done || in_b, "{label}: moved and back");
            }
            _ => assert!(in_a && !in_b, "{label}"),
        }
        if in_a || in_b {
            let database = if in_a { "a" } else { "b" };
            let is_loaded = async || {
                let state = engine.load_state(database, "c").await;
                matches!(state, Ok(saker_engine::LoadState::Loaded))
            };
            patiently(&format!("{label}: {database}/c is loaded"), is_loaded).await;
            let mut expected: Vec<i64> = (0..25).filter(|id| *id != 7).collect();
            let mut found = ids(engine, database, "c").await;
            // What was written since, by the step or by an earlier check.
            let more = found.split_off(found.partition_point(|id| *id < 25));
            if step == Step::Write {
                assert!(more.len() == 3 || (more.is_empty() && !done), "{label}: {more:?}");
            } else {
                expected.extend(more.iter());
                found.extend(more.iter());
            }
            assert_eq!(found, expected, "{label}");
            if step != Step::Write {
                let next = more.last().map_or(100, |last| last + 1);
                insert(engine, database, "c", next..next + 2).await;
                engine.flush(database, &["c".into()]).await.unwrap();
            }
        }
        let names: Vec<_> = engine
            .list_databases()
            .await
            .unwrap()
            .into_iter()
            .map(|d| d.name)
            .collect();
        let known = |name: &str| names.iter().any(|known| known == name);
        match step {
            Step::DropDatabase => assert!(!done || !known("empty"), "{label}: dropped and back"),
            Step::CreateDatabase => {
                assert!(!done || known("new"), "{label}: acknowledged and not there");
                if known("new") && !there("new", "first").await {
                    collection(engine, "new", "first", "FLAT").await;
                    insert(engine, "new", "first", 0..2).await;
                }
            }
            Step::CreateCollection | Step::CreateWithOwnKey => {
                assert!(!done || there("a", "new").await, "{label}: acknowledged and not there");
                if there("a", "new").await && engine.describe_index("a", "new", "").await.is_err() {
                    index_and_load(engine, "a", "new", "FLAT").await;
                    insert(engine, "a", "new", 0..2).await;
                }
            }
            _ => {}
        }
        loaded(engine, "b", "beside").await;
        assert_eq!(ids(engine, "b", "beside").await, [0, 1, 2], "{label}");
    }

    /// The offline walk opens everything that is stored.
    async fn walk(&self, dir: &Path, label: &str) {
        let stores = Arc::new(ReadOnlyStores::open(dir).unwrap());
        let keys = Arc::clone(&self.cluster.kms) as Arc<dyn KeyService>;
        let report = verify(stores, &*keys, Arc::new(Nobody)).await;
        // The copies that these tests work on are not for their owner alone.
        let found: Vec<_> = report
            .findings
            .iter()
            .filter(|found| found.class != FindingClass::Mode)
            .collect();
        assert!(found.is_empty(), "{label}: {found:?}");
    }
}

/// Flushes, which makes small segments enough for a merge, and waits for that.
async fn compact(engine: &Arc<Engine>, files: &[String], plan: &FaultPlan) -> bool {
    for _ in 0..3_000 {
        // A merge that failed is tried again after the next flush.
        if engine.flush("a", files).await.is_ok()
            && let Ok(segments) = engine.segments("a", "c").await
            && segments.len() == 1
        {
            return true;
        }
        if plan.is_off() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the segments are never put together");
}

/// Waits until no merge of `c` is due or under way, for a stop would leave its files to the next start.
async fn quiet(engine: &Arc<Engine>, dir: &Path, label: &str) {
    let is_quiet = async || {
        for database in ["a", "b"] {
            if !engine.has_collection(database, "c").await.unwrap() {
                continue;
            }
            let Ok(segments) = engine.segments(database, "c").await else {
                return false;
            };
            let sealed = segments.iter().filter(|segment| segment.sealed).count();
            let Some(collection) = segments.first().map(|segment| segment.collection) else {
                continue;
            };
            let mut files = Vec::new();
            crate::sealed::walk(&dir.join(format!("objects/collection/{collection}")), &mut files);
            let folders: std::collections::BTreeSet<_> = files.iter().filter_map(|file| file.parent()).collect();
            let of_segments = folders.iter().filter(|folder| !folder.ends_with("deletes")).count();
            if sealed >= 4 || of_segments != sealed {
                return false;
            }
        }
        true
    };
    patiently(&format!("{label}: merges end"), is_quiet).await;
}

/// Nobody watches the walk.
struct Nobody;

impl WalkObserver for Nobody {
    fn on_progress(&self, _seen: u64, _total: u64) {}
    fn on_platform_record(&self, _stream: &str, _sequence: u64, _record: u64, _plain: &[u8]) {}
}

/// As `eventually`, with a name that tells which of many cases it was.
async fn patiently<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..3_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("in vain: {what}");
}

async fn at_every_write(steps: &[Step]) {
    at_every_write_in(World::new().await, steps).await;
}

async fn at_every_write_in(world: World, steps: &[Step]) {
    for step in steps {
        for how in [Interruption::PowerOff, Interruption::DoneButFailed] {
            let mut writes = 0;
            while world.interrupt(*step, how, writes).await {
                writes += 1;
                assert!(writes < WRITES_MAX, "{step:?} never ends");
            }
            #[expect(clippy::print_stderr, reason = "how much was tried")]
            {
                eprintln!("{step:?}, {how:?}: {writes} writes");
            }
            assert!(writes > 0, "{step:?} writes nothing");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn creating_at_every_write() {
    at_every_write(&[Step::CreateDatabase, Step::CreateCollection, Step::CreateWithOwnKey]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_and_flushing_at_every_write() {
    at_every_write(&[Step::Write, Step::Flush]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn putting_segments_together_at_every_write() {
    at_every_write_in(World::with_segments(3).await, &[Step::Compact]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotating_and_rewrapping_at_every_write() {
    at_every_write(&[Step::Rotate, Step::Rewrap]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_the_root_key_at_every_write() {
    at_every_write(&[Step::Change]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypting_again_at_every_write() {
    at_every_write(&[Step::Reencrypt]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_at_every_write() {
    at_every_write(&[Step::Move]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_at_every_write() {
    at_every_write(&[Step::DropCollection, Step::DropDatabase]).await;
}
