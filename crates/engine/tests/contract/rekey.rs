//! Keys change while everything is in use: no request fails, every row is there afterwards, no older key is left; and a
//! power failure at any write leaves a job that the next start brings to its end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use saker_engine::{
    Engine, ErrorKind, Event, FindingClass, JobInfo, JobKind, JobState, LockStatus, WalkObserver, verify,
};
use saker_keyring::{Denial, KeyService, Outage, RootKeyId};
use saker_storage::{EmbeddedStores, ReadOnlyStores};
use saker_testing::{Fault, FaultPlan, KmsAnswer, Operation, faulty_stores};

use crate::common::{Cluster, collection, eventually, ids, insert, loaded, rows, search, search_request};

#[derive(Debug)]
struct Nobody;

impl WalkObserver for Nobody {
    fn on_progress(&self, _seen: u64, _total: u64) {}
    fn on_platform_record(&self, _stream: &str, _sequence: u64, _record: u64, _plain: &[u8]) {}
}

/// Waits for a job's end.
async fn done(engine: &Arc<Engine>, job: i64) -> JobInfo {
    eventually("the job is done", || async {
        info(engine, job).state == JobState::Done
    })
    .await;
    info(engine, job)
}

fn info(engine: &Arc<Engine>, job: i64) -> JobInfo {
    engine.jobs().into_iter().find(|info| info.id == job).unwrap()
}

/// Versions of zone keys that anything in the directory is sealed under, by database name.
async fn versions_in_use(cluster: &Cluster, name: &str) -> BTreeSet<u32> {
    let stores = Arc::new(ReadOnlyStores::open(&cluster.dir).unwrap());
    let keys = Arc::clone(&cluster.kms) as Arc<dyn KeyService>;
    let report = verify(stores, &*keys, Arc::new(Nobody)).await;
    // What a build leaves that a stop interrupted is tidied up at the next start.
    let mut findings = report.findings.clone();
    findings.retain(|finding| finding.class != FindingClass::Leftover);
    assert!(findings.is_empty(), "{findings:?}");
    let database = report
        .databases
        .iter()
        .find(|database| database.name == name)
        .unwrap()
        .id;
    let collections: Vec<_> = report
        .collections
        .iter()
        .filter(|c| c.database == database)
        .map(|c| c.id)
        .collect();
    let items = report
        .items
        .iter()
        .filter(|item| item.collection.is_some_and(|id| collections.contains(&id)));
    items.filter_map(|item| item.version).collect()
}

/// Inserts and searches until it is told to stop; what was acknowledged.
struct Busy {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    acked: Arc<AtomicI64>,
    searches: Arc<AtomicU64>,
}

impl Busy {
    fn begin(engine: &Arc<Engine>, database: &'static str, first: i64) -> Self {
        let (stop, acked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(first)));
        let searches = Arc::new(AtomicU64::new(0));
        let writer = {
            let (engine, stop, acked) = (Arc::clone(engine), Arc::clone(&stop), Arc::clone(&acked));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let next = acked.load(Ordering::SeqCst);
                    engine.insert(database, "c", None, rows(next..next + 3)).await.unwrap();
                    acked.store(next + 3, Ordering::SeqCst);
                    if next % 60 == 0 {
                        engine.flush(database, &["c".into()]).await.unwrap();
                    }
                }
            })
        };
        let searcher = {
            let (engine, stop, searches) = (Arc::clone(engine), Arc::clone(&stop), Arc::clone(&searches));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let found = engine.search(search_request(database, "c", 7, 1)).await.unwrap();
                    assert_eq!(crate::common::ints(&found.ids), [7]);
                    let info = engine.describe_collection(database, "c").await.unwrap();
                    assert_eq!(info.name, "c");
                    searches.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        Self {
            stop,
            tasks: vec![writer, searcher],
            acked,
            searches,
        }
    }
    /// Waits until both did something since, so that work goes on beside what happens now.
    async fn go_on(&self) {
        let (acked, searches) = (self.acked.load(Ordering::SeqCst), self.searches.load(Ordering::SeqCst));
        eventually("writes and searches go on", || async {
            self.acked.load(Ordering::SeqCst) > acked && self.searches.load(Ordering::SeqCst) > searches
        })
        .await;
    }
    /// All ids from 0 that were acknowledged. Fails if any request did.
    async fn end(self) -> Vec<i64> {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        (0..self.acked.load(Ordering::SeqCst)).collect()
    }
}

/// Some files, deletes, and rows that are in no file.
async fn filled(engine: &Arc<Engine>, database: &str) {
    collection(engine, database, "c", "HNSW").await;
    for part in 0..5 {
        insert(engine, database, "c", part * 20..part * 20 + 20).await;
        engine.flush(database, &["c".into()]).await.unwrap();
    }
    insert(engine, database, "c", 100..110).await;
}

async fn check(cluster: &Cluster, engine: Arc<Engine>, database: &str, expected: &[i64], versions: &[u32]) {
    assert_eq!(ids(&engine, database, "c").await, expected);
    engine.shutdown().await;
    drop(engine);
    let found = versions_in_use(cluster, database).await;
    assert_eq!(found, versions.iter().copied().collect(), "versions in use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zone_key_rotates_while_rows_are_written_and_searched() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, "d").await;
    filled(&engine, "d").await;
    let before = engine.describe_database("d").await.unwrap();
    assert_eq!(before.key_versions.len(), 1);
    let busy = Busy::begin(&engine, "d", 110);
    for version in 2..5 {
        busy.go_on().await;
        let job = engine.rotate_key("d", None).await.unwrap();
        let job = done(&engine, job.id).await;
        assert_eq!((job.kind, job.key_version), (JobKind::Rotate, Some(version)));
        assert_eq!(job.percent(), 100);
        assert_eq!(job.destroyed.len(), 1);
        let now = engine.describe_database("d").await.unwrap();
        assert_eq!(
            now.key_versions.iter().map(|key| key.version).collect::<Vec<_>>(),
            [version]
        );
    }
    let expected = busy.end().await;
    let events = cluster.events.0.lock().unwrap().clone();
    let destroyed = events.iter().filter_map(|event| {
        if let Event::KeyVersionDestroyed { wrapped_sha256, .. } = event {
            return Some(wrapped_sha256.clone());
        }
        None
    });
    assert_eq!(destroyed.collect::<Vec<_>>()[0], before.key_versions[0].wrapped_sha256);
    check(&cluster, engine, "d", &expected, &[4]).await;
    let engine = cluster.open().await;
    loaded(&engine, "d", "c").await;
    assert_eq!(ids(&engine, "d", "c").await, expected);
    assert_eq!(engine.jobs().len(), 3, "finished jobs are shown after a start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_goes_from_the_platform_key_under_a_customers_and_on_to_another() {
    let cluster = Cluster::new();
    let (first, second) = (cluster.customer.clone(), cluster.kms.add_root());
    let engine = cluster.open().await;
    filled(&engine, "default").await;
    let busy = Busy::begin(&engine, "default", 110);
    for (from, to) in [(&cluster.platform, &first), (&first, &second)] {
        busy.go_on().await;
        let job = engine.change_key("default", None, to).await.unwrap();
        assert_eq!((job.from.as_ref(), &job.root), (Some(from), to));
        let info = engine.describe_database("default").await.unwrap();
        assert_eq!(
            info.properties["cipher.key"],
            to.as_str(),
            "the new key is shown at once"
        );
        done(&engine, job.id).await;
        busy.go_on().await;
    }
    let expected = busy.end().await;
    // The keys that it had do not matter any more; the one that it has does.
    cluster.kms.set(&first, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    assert_eq!(ids(&engine, "default", "c").await, expected);
    let known: Vec<RootKeyId> = engine
        .key_states()
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.root)
        .collect();
    assert!(!known.contains(&first), "nothing uses it, so nobody asks for it");
    cluster.kms.set(&second, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    let error = engine.search(search_request("default", "c", 7, 1)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::ZoneLocked { root, .. } if root == second));
    cluster.kms.set(&second, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    loaded(&engine, "default", "c").await;
    check(&cluster, engine, "default", &expected, &[3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_root_key_is_refused_before_anything_changes() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, "d").await;
    let denied = cluster.kms.add_root();
    cluster.kms.set(&denied, KmsAnswer::Deny(Denial::AccessDenied));
    let lying = cluster.kms.add_root();
    cluster.kms.set(&lying, KmsAnswer::WrongKey);
    let unknown: RootKeyId = "arn:aws:kms:us-east-1:000000000000:key/unknown".parse().unwrap();
    for (to, unusable) in [
        (&denied, true),
        (&lying, true),
        (&unknown, true),
        (&cluster.platform, false),
        (&cluster.customer, false),
    ] {
        let error = engine.change_key("d", None, to).await.unwrap_err();
        let expected = if unusable {
            ErrorKind::KeyUnusable { root: to.clone() }
        } else {
            ErrorKind::InvalidParameter
        };
        assert_eq!(error.kind, expected, "{error}");
    }
    assert!(engine.jobs().is_empty());
    assert_eq!(engine.describe_database("d").await.unwrap().root, cluster.customer);
    assert_eq!(
        engine.rotate_key("nowhere", None).await.unwrap_err().kind,
        ErrorKind::DatabaseNotFound
    );
    let unused = cluster.kms.add_root();
    assert_eq!(
        engine.rewrap_keys(Some(&unused)).await.unwrap_err().kind,
        ErrorKind::InvalidParameter
    );
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_two_root_keys_either_may_lock() {
    let cluster = Cluster::new();
    let second = cluster.kms.add_root();
    let plan = FaultPlan::new(1);
    let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
    let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
    cluster.database(&engine, "d").await;
    filled(&engine, "d").await;
    // The job cannot get on.
    plan.chance(Operation::ObjectReplaceHeaders, 1.0, &[Fault::LoseBefore]);
    let job = engine.change_key("d", None, &second).await.unwrap();
    for key in [&cluster.customer, &second] {
        cluster.kms.set(key, KmsAnswer::Deny(Denial::Disabled));
        engine.check_keys_now().await.unwrap();
        let error = engine.search(search_request("d", "c", 7, 1)).await.unwrap_err();
        assert!(
            matches!(&error.kind, ErrorKind::ZoneLocked { root, .. } if root == key),
            "{error}"
        );
        // The other one's yes is not enough.
        engine.check_keys_now().await.unwrap();
        assert!(engine.search(search_request("d", "c", 7, 1)).await.is_err());
        cluster.kms.set(key, KmsAnswer::Right);
        engine.check_keys_now().await.unwrap();
        loaded(&engine, "d", "c").await;
        assert_eq!(crate::common::ints(&search(&engine, "d", "c", 7, 1).await.ids), [7]);
    }
    plan.clear();
    if matches!(info(&engine, job.id).state, JobState::Failed { .. }) {
        engine.retry_job(job.id).await.unwrap();
    }
    done(&engine, job.id).await;
    check(&cluster, engine, "d", &(0..110).collect::<Vec<_>>(), &[2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_waits_for_a_locked_key_and_goes_on_by_itself() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, "d").await;
    filled(&engine, "d").await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    let job = engine.rotate_key("d", None).await.unwrap();
    eventually("it waits", || async {
        matches!(info(&engine, job.id).state, JobState::Waiting { reason } if reason.contains("disabled"))
    })
    .await;
    let second = engine.rotate_key("d", None).await.unwrap_err();
    assert_eq!(second.kind, ErrorKind::RateLimit, "one job at a time: {second}");
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    eventually("it waits after a start too", || async {
        matches!(info(&engine, job.id).state, JobState::Waiting { .. })
    })
    .await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    done(&engine, job.id).await;
    loaded(&engine, "d", "c").await;
    check(&cluster, engine, "d", &(0..110).collect::<Vec<_>>(), &[2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_job_says_why_destroys_nothing_and_can_be_tried_again() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, "d").await;
    filled(&engine, "d").await;
    // The key may be used, but not to make keys: the probes go on to say yes.
    cluster
        .kms
        .script(&cluster.customer, [KmsAnswer::Deny(Denial::AccessDenied)]);
    let job = engine.rotate_key("d", None).await.unwrap();
    eventually("it fails", || async {
        matches!(info(&engine, job.id).state, JobState::Failed { .. })
    })
    .await;
    let JobState::Failed { reason } = info(&engine, job.id).state else {
        panic!()
    };
    assert!(
        reason.contains("GenerateDataKey") && reason.contains(cluster.customer.as_str()),
        "{reason}"
    );
    assert_eq!(engine.describe_database("d").await.unwrap().key_versions.len(), 1);
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    assert!(
        matches!(info(&engine, job.id).state, JobState::Failed { .. }),
        "kept over a start"
    );
    engine.retry_job(job.id).await.unwrap();
    done(&engine, job.id).await;
    assert_eq!(
        engine.retry_job(job.id).await.unwrap_err().kind,
        ErrorKind::InvalidParameter
    );

    // A file that does not verify: nothing is destroyed.
    loaded(&engine, "d", "c").await;
    let file = first_object(&cluster);
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[150] ^= 1;
    write(&file, &bad);
    let job = engine.rotate_key("d", None).await.unwrap();
    eventually("it fails", || async {
        matches!(info(&engine, job.id).state, JobState::Failed { .. })
    })
    .await;
    assert_eq!(engine.describe_database("d").await.unwrap().key_versions.len(), 2);
    write(&file, &good);
    engine.retry_job(job.id).await.unwrap();
    done(&engine, job.id).await;
    check(&cluster, engine, "d", &(0..110).collect::<Vec<_>>(), &[3]).await;
}

fn first_object(cluster: &Cluster) -> std::path::PathBuf {
    let mut pending = vec![cluster.dir.join("objects/collection")];
    while let Some(path) = pending.pop() {
        if path.is_file() {
            return path;
        }
        let mut inside: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inside.sort();
        pending.extend(inside);
    }
    panic!("no object");
}

#[expect(clippy::disallowed_methods, reason = "the test damages and repairs a file")]
fn write(path: &std::path::Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_database_under_a_root_key_is_rewrapped_the_eleventh_too() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    for number in 0..14 {
        cluster.database(&engine, &format!("d{number}")).await;
    }
    filled(&engine, "d10").await;
    let busy = Busy::begin(&engine, "d10", 110);
    // The key service has its moods: throttled, unreachable, slow.
    let moods = [
        KmsAnswer::Right,
        KmsAnswer::Fail(Outage::Throttled),
        KmsAnswer::Right,
        KmsAnswer::Right,
        KmsAnswer::Fail(Outage::Timeout),
        KmsAnswer::Slow(Duration::from_millis(5)),
    ];
    cluster.kms.flap(&cluster.customer, moods);
    let jobs = engine.rewrap_keys(Some(&cluster.customer)).await.unwrap();
    assert_eq!(jobs.len(), 14);
    for job in &jobs {
        let job = done(&engine, job.id).await;
        assert_eq!((job.kind, job.key_version), (JobKind::Rewrap, Some(2)));
    }
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    let expected = busy.end().await;
    for database in engine.list_databases().await.unwrap() {
        let versions: Vec<u32> = database.key_versions.iter().map(|key| key.version).collect();
        assert_eq!(
            versions,
            [if database.name == "default" { 1 } else { 2 }],
            "{}",
            database.name
        );
        assert_eq!(database.lock, LockStatus::Active);
    }
    check(&cluster, engine, "d10", &expected, &[2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_rows_are_written_again_under_fresh_keys() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, "d").await;
    filled(&engine, "d").await;
    let before = object_names(&cluster);
    let busy = Busy::begin(&engine, "d", 110);
    busy.go_on().await;
    let job = engine.reencrypt("d", None).await.unwrap();
    let job = done(&engine, job.id).await;
    assert_eq!(job.kind, JobKind::Reencrypt);
    busy.go_on().await;
    let expected = busy.end().await;
    let after = object_names(&cluster);
    assert!(before.is_disjoint(&after), "a file from before is there still");
    check(&cluster, engine, "d", &expected, &[1]).await;
}

fn object_names(cluster: &Cluster) -> BTreeSet<std::path::PathBuf> {
    let (mut pending, mut found) = (vec![cluster.dir.join("objects/collection")], BTreeSet::new());
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            found.insert(path);
        }
    }
    found
}

/// What is begun in the power-failure test.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Work {
    Rotate,
    Change,
    Reencrypt,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_failure_at_any_write_leaves_a_job_that_ends_after_the_next_start() {
    for work in [Work::Rotate, Work::Change, Work::Reencrypt] {
        let mut writes = 0;
        loop {
            let ended = power_failure(work, writes).await;
            if ended {
                break;
            }
            writes += 1;
            assert!(writes < 200, "{work:?} never ends");
        }
        assert!(writes > 3, "{work:?} had {writes} writes");
    }
}

/// Whether the work was done before the power failed.
async fn power_failure(work: Work, writes: u64) -> bool {
    let cluster = Cluster::new();
    let second = cluster.kms.add_root();
    let engine = cluster.open().await;
    cluster.database(&engine, "d").await;
    collection(&engine, "d", "c", "FLAT").await;
    insert(&engine, "d", "c", 0..20).await;
    engine.flush("d", &["c".into()]).await.unwrap();
    insert(&engine, "d", "c", 20..30).await;
    engine.shutdown().await;
    drop(engine);

    let plan = FaultPlan::new(writes);
    let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
    let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
    loaded(&engine, "d", "c").await;
    plan.power_off_after(writes);
    let begun = match work {
        Work::Rotate => engine.rotate_key("d", None).await,
        Work::Change => engine.change_key("d", None, &second).await,
        Work::Reencrypt => engine.reencrypt("d", None).await,
    };
    let mut finished = false;
    if let Ok(job) = &begun {
        eventually("the job ends or the power fails", || async {
            plan.is_off() || info(&engine, job.id).state == JobState::Done
        })
        .await;
        finished = !plan.is_off();
    }
    engine.shutdown().await;
    drop(engine);

    let engine = cluster.open().await;
    for job in engine.jobs() {
        done(&engine, job.id).await;
    }
    loaded(&engine, "d", "c").await;
    assert_eq!(
        ids(&engine, "d", "c").await,
        (0..30).collect::<Vec<_>>(),
        "{work:?} {writes}"
    );
    insert(&engine, "d", "c", 30..35).await;
    let info = engine.describe_database("d").await.unwrap();
    let versions: Vec<u32> = info.key_versions.iter().map(|key| key.version).collect();
    let undone = engine.jobs().is_empty();
    let expected = if undone || work == Work::Reencrypt { 1 } else { 2 };
    assert_eq!(versions, [expected], "{work:?} {writes}");
    let root = if work == Work::Change && !undone {
        &second
    } else {
        &cluster.customer
    };
    assert_eq!(info.root, *root, "{work:?} {writes}");
    check(&cluster, engine, "d", &(0..35).collect::<Vec<_>>(), &[expected]).await;
    finished
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clusters_own_zone_rotates_too() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, "d").await;
    filled(&engine, "d").await;
    engine.create_credential("someone", "hash").await.unwrap();
    let stores = engine.audit_stores();
    let busy = Busy::begin(&engine, "d", 110);
    let job = engine.rotate_platform_key().await.unwrap();
    let mut made = 0;
    // The catalog changes meanwhile.
    while info(&engine, job.id).state != JobState::Done {
        let name = format!("new{made}");
        engine.create_database(&name, Default::default()).await.unwrap();
        engine.create_collection(&name, crate::common::spec("c")).await.unwrap();
        made += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(made < 3_000, "in vain");
    }
    let expected = busy.end().await;
    drop(stores);
    let platform = |engine: &Arc<Engine>| {
        let engine = Arc::clone(engine);
        async move {
            let keys = engine.key_states().await.unwrap();
            let zones = keys.into_iter().find(|key| key.platform).unwrap().zones;
            let zone = zones.into_iter().find(|zone| zone.database == "(catalog)").unwrap();
            zone.keys.iter().map(|key| key.version).collect::<Vec<_>>()
        }
    };
    assert_eq!(platform(&engine).await, [2]);
    // What was cached as it was stored can be changed on.
    engine
        .alter_database("d", [("k".to_owned(), "v".to_owned())].into(), vec![])
        .await
        .unwrap();
    engine.rename_collection("d", "c", "", "e").await.unwrap();
    engine.rename_collection("d", "e", "", "c").await.unwrap();
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    assert_eq!(platform(&engine).await, [2]);
    assert_eq!(engine.list_databases().await.unwrap().len(), made + 2);
    loaded(&engine, "d", "c").await;
    check(&cluster, engine, "d", &expected, &[1]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_failure_in_a_rotation_of_the_catalog_loses_none_of_it() {
    let mut writes = 0;
    loop {
        let cluster = Cluster::new();
        let engine = cluster.open().await;
        cluster.database(&engine, "d").await;
        collection(&engine, "d", "c", "FLAT").await;
        insert(&engine, "d", "c", 0..10).await;
        engine.create_credential("someone", "hash").await.unwrap();
        engine.shutdown().await;
        drop(engine);
        let plan = FaultPlan::new(writes);
        let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
        let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
        plan.power_off_after(writes);
        if let Ok(job) = engine.rotate_platform_key().await {
            eventually("the job ends or the power fails", || async {
                plan.is_off() || info(&engine, job.id).state == JobState::Done
            })
            .await;
        }
        let ended = !plan.is_off();
        engine.shutdown().await;
        drop(engine);
        let engine = cluster.open().await;
        for job in engine.jobs() {
            done(&engine, job.id).await;
        }
        loaded(&engine, "d", "c").await;
        assert!(engine.credential("someone").is_some());
        check(&cluster, engine, "d", &(0..10).collect::<Vec<_>>(), &[1]).await;
        if ended {
            break;
        }
        writes += 1;
        assert!(writes < 100, "it never ends");
    }
    assert!(writes > 5, "{writes} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_with_a_key_of_its_own_has_its_own_jobs() {
    let cluster = Cluster::new();
    let (own, next) = (cluster.kms.add_root(), cluster.kms.add_root());
    let engine = cluster.open().await;
    cluster.database(&engine, "d").await;
    filled(&engine, "d").await;
    let mut spec = crate::common::spec("mine");
    spec.properties = [("cipher.key".to_owned(), own.to_string())].into();
    engine.create_collection("d", spec).await.unwrap();
    crate::common::index_and_load(&engine, "d", "mine", "FLAT").await;
    insert(&engine, "d", "mine", 0..40).await;
    engine.flush("d", &["mine".into()]).await.unwrap();
    let error = engine.rotate_key("d", Some("c")).await.unwrap_err();
    assert_eq!(
        error.kind,
        ErrorKind::InvalidParameter,
        "it has no key of its own: {error}"
    );
    let job = engine.rotate_key("d", Some("mine")).await.unwrap();
    assert_eq!(job.collection.as_deref(), Some("mine"));
    done(&engine, job.id).await;
    let job = engine.change_key("d", Some("mine"), &next).await.unwrap();
    done(&engine, job.id).await;
    done(&engine, engine.reencrypt("d", Some("mine")).await.unwrap().id).await;
    let shown = engine.describe_collection("d", "mine").await.unwrap();
    assert_eq!(shown.properties["cipher.key"], next.as_str());
    assert_eq!(
        engine.describe_database("d").await.unwrap().key_versions[0].version,
        1,
        "the database keeps its key"
    );
    cluster.kms.set(&own, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    assert_eq!(ids(&engine, "d", "mine").await, (0..40).collect::<Vec<_>>());
    cluster.kms.set(&next, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    assert!(engine.search(search_request("d", "mine", 1, 1)).await.is_err());
    assert_eq!(
        ids(&engine, "d", "c").await,
        (0..110).collect::<Vec<_>>(),
        "the database goes on"
    );
    cluster.kms.set(&next, KmsAnswer::Right);
    check(&cluster, engine, "d", &(0..110).collect::<Vec<_>>(), &[1, 3]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_while_its_job_runs_takes_the_job_along() {
    let cluster = Cluster::new();
    let plan = FaultPlan::new(1);
    let stores = EmbeddedStores::open(&cluster.dir).await.unwrap();
    let engine = cluster.open_stores(faulty_stores(stores, &plan)).await.unwrap();
    cluster.database(&engine, "d").await;
    filled(&engine, "d").await;
    plan.chance(Operation::ObjectReplaceHeaders, 1.0, &[Fault::LoseBefore]);
    let job = engine.rotate_key("d", None).await.unwrap();
    eventually("it tries", || async { plan.count(Operation::ObjectReplaceHeaders) > 0 }).await;
    engine.drop_collection("d", "c").await.unwrap();
    engine.drop_database("d").await.unwrap();
    plan.clear();
    eventually("it is gone or done", || async {
        engine
            .jobs()
            .iter()
            .all(|info| info.id != job.id || info.state == JobState::Done)
    })
    .await;
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    assert!(engine.jobs().iter().all(|job| job.state == JobState::Done));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_key_that_hangs_delays_no_other_ones_zones() {
    let cluster = Cluster::new();
    let slow = cluster.kms.add_root();
    let engine = cluster.open().await;
    for number in 0..30 {
        let root = if number % 2 == 0 { &slow } else { &cluster.customer };
        let properties = [("cipher.key".to_owned(), root.to_string())].into();
        engine.create_database(&format!("d{number}"), properties).await.unwrap();
    }
    for root in [&slow, &cluster.customer] {
        cluster.kms.set(root, KmsAnswer::Deny(Denial::Disabled));
    }
    engine.check_keys_now().await.unwrap();
    let locked = |engine: Arc<Engine>| async move {
        let databases = engine.list_databases().await.unwrap();
        let locked = databases
            .iter()
            .filter(|database| matches!(database.lock, LockStatus::Locked { .. }));
        locked.map(|database| database.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(locked(Arc::clone(&engine)).await.len(), 30);
    // One answers the probe and then nothing more; the other is well again.
    cluster.kms.set(&slow, KmsAnswer::Hang);
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    let asked = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.check_keys_now().await })
    };
    eventually("the other one's zones are back", || async {
        locked(Arc::clone(&engine)).await.len() == 15
    })
    .await;
    // And a probe that somebody asks for does not wait for the one that hangs.
    cluster.kms.set(&slow, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    assert!(locked(Arc::clone(&engine)).await.is_empty());
    asked.await.unwrap().unwrap();
    engine.shutdown().await;
}
