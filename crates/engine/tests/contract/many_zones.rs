//! A thousand databases under twenty keys, on a paused clock: what one key's trouble costs the others, and how often a
//! key service is asked.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use saker_engine::{Engine, ErrorKind, LockStatus};
use saker_keyring::{CallObserver, CallReason, Denial, KeyCall, KeyService, RootKeyId};
use saker_testing::KmsAnswer;
use tokio::time::Instant;

use crate::{
    common::{Cluster, brute_force, insert, ints, search_request, spec, vector},
    virtual_time::{at_once, cluster, pass, patiently},
};

const KEYS: usize = 20;
const DATABASES: usize = 1_000;
/// Every database whose number is a multiple of this has a collection with rows.
const FILLED_EVERY: usize = 25;

/// When which key was asked for, and why.
#[derive(Debug)]
struct Calls {
    begin: Instant,
    seen: Mutex<Vec<(u64, RootKeyId, CallReason)>>,
}

impl Calls {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            seen: Mutex::default(),
        })
    }
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap()
    }
    /// Calls since then, by key.
    fn since(&self, from_ms: u64) -> BTreeMap<RootKeyId, usize> {
        let mut counts = BTreeMap::new();
        for (at, root, _) in &*self.seen.lock().unwrap() {
            if *at >= from_ms {
                *counts.entry(root.clone()).or_default() += 1;
            }
        }
        counts
    }
    /// Calls since then for this reason, in the second that had most of them and altogether.
    fn crowd(&self, from_ms: u64, reason: CallReason) -> (usize, usize) {
        let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
        for (at, _, why) in &*self.seen.lock().unwrap() {
            if *at >= from_ms && *why == reason {
                *seconds.entry(at / 1_000).or_default() += 1;
            }
        }
        (seconds.values().copied().max().unwrap_or(0), seconds.values().sum())
    }
}

impl CallObserver for Calls {
    fn on_call(&self, call: &KeyCall) {
        let at = self.now_ms();
        self.seen.lock().unwrap().push((at, call.root.clone(), call.why));
    }
}

fn name_of(number: usize) -> String {
    format!("d{number:04}")
}

/// The databases of one key: their numbers.
fn of_key(key: usize) -> impl Iterator<Item = usize> {
    (0..DATABASES).filter(move |number| number % KEYS == key)
}

fn filled() -> impl Iterator<Item = usize> {
    (0..DATABASES).step_by(FILLED_EVERY)
}

async fn make_all(engine: &Arc<Engine>, keys: &[RootKeyId]) {
    for number in 0..DATABASES {
        let properties = [("cipher.key".to_owned(), keys[number % KEYS].to_string())].into();
        engine.create_database(&name_of(number), properties).await.unwrap();
    }
    for name in filled().map(name_of) {
        engine.create_collection(&name, spec("c")).await.unwrap();
        let request = saker_engine::IndexRequest {
            field: "vector".into(),
            ..saker_engine::IndexRequest::default()
        };
        engine.create_index(&name, "c", request).await.unwrap();
        engine.load_collection(&name, "c").await.unwrap();
        patiently("it is loaded", || async { look(engine, &name).await.is_ok() }).await;
        at_once(async {
            insert(engine, &name, "c", 0..10).await;
            engine.flush(&name, &["c".into()]).await.unwrap();
            insert(engine, &name, "c", 10..12).await;
        })
        .await;
    }
}

async fn look(engine: &Arc<Engine>, name: &str) -> Result<Vec<i64>, saker_engine::Error> {
    let found = at_once(engine.search(search_request(name, "c", 3, 3))).await?;
    Ok(ints(&found.ids))
}

async fn locked(engine: &Arc<Engine>) -> Vec<String> {
    let databases = engine.list_databases().await.unwrap();
    let locked = databases
        .into_iter()
        .filter(|database| matches!(database.lock, LockStatus::Locked { .. }));
    locked.map(|database| database.name).collect()
}

fn thousand() -> (Cluster, Vec<RootKeyId>, Arc<Calls>) {
    let (cluster, _clock) = cluster();
    let keys = (0..KEYS).map(|_| cluster.kms.add_root()).collect();
    let calls = Calls::new();
    cluster.kms.observe(Arc::clone(&calls) as Arc<dyn CallObserver>);
    (cluster, keys, calls)
}

#[tokio::test(start_paused = true)]
async fn one_denied_key_among_twenty_takes_its_fifty_databases_and_no_other() {
    let (cluster, keys, calls) = thousand();
    let engine = cluster.open().await;
    make_all(&engine, &keys).await;

    // Nothing amiss: one call for each key and interval.
    pass(20).await;
    let from = calls.now_ms();
    pass(500).await;
    let counts = calls.since(from);
    assert_eq!(counts.len(), KEYS + 1, "the keys and the platform's");
    for (root, count) in counts {
        // 100 intervals, each up to a tenth longer or shorter.
        assert!((90..=112).contains(&count), "{root}: {count} calls in 100 intervals");
    }

    let denied = 5;
    let dark: Vec<String> = of_key(denied).map(name_of).collect();
    assert_eq!(dark.len(), 50);
    assert!(
        filled().any(|number| dark.contains(&name_of(number))),
        "none of them has rows"
    );
    for denial in [Denial::Disabled, Denial::AccessDenied] {
        let from = calls.now_ms();
        cluster.kms.set(&keys[denied], KmsAnswer::Deny(denial));
        // The promise is ten seconds. Meanwhile the others answer.
        while calls.now_ms() < from + 10_000 {
            for name in filled().map(name_of).filter(|name| !dark.contains(name)) {
                look(&engine, &name).await.unwrap();
            }
            pass(1).await;
        }
        assert_eq!(locked(&engine).await, dark);
        for name in filled().map(name_of).filter(|name| dark.contains(name)) {
            let error = look(&engine, &name).await.unwrap_err();
            assert!(matches!(error.kind, ErrorKind::ZoneLocked { .. }), "{error:?}");
        }
        let counts = calls.since(from);
        for root in &keys {
            assert!(counts[root] <= 5, "{denial:?}: {counts:?}");
        }

        let from = calls.now_ms();
        cluster.kms.set(&keys[denied], KmsAnswer::Right);
        pass(10).await;
        assert_eq!(locked(&engine).await, Vec::<String>::new());
        // A probe or two, and each database's key once.
        let count = calls.since(from)[&keys[denied]];
        assert!((51..=53).contains(&count), "{count} calls to bring back 50 databases");
        for name in filled().map(name_of) {
            patiently("it is back", || async { look(&engine, &name).await.is_ok() }).await;
            assert_eq!(look(&engine, &name).await.unwrap(), brute_force(0..12, &vector(3), 3));
        }
    }
}

/// A start with a thousand zones keeps to the budget, and who is unlocked is served before the last one is.
#[tokio::test(start_paused = true)]
async fn a_start_keeps_to_the_budget_and_serves_who_is_there() {
    let (mut cluster, keys, calls) = thousand();
    let engine = cluster.open().await;
    make_all(&engine, &keys).await;
    engine.shutdown().await;
    drop(engine);

    // Less than the probes alone make, and a queue in which a turn takes longer to come than a call may take.
    let per_second = 4;
    cluster.config.kms_calls_per_second = per_second;
    // One key is disabled, one hangs: neither costs the others anything.
    cluster.kms.set(&keys[1], KmsAnswer::Deny(Denial::Disabled));
    cluster.kms.set(&keys[2], KmsAnswer::Hang);
    let from = calls.now_ms();
    let engine = cluster.open().await;
    let opened_ms = calls.now_ms() - from;
    assert!(opened_ms <= 25_000, "it opened after {opened_ms} ms");
    let first = locked(&engine).await.len();
    assert!(
        (100..1_000).contains(&first),
        "{first} of 1,000 are locked when it opens"
    );
    let served = |name: String| {
        let engine = &engine;
        async move {
            let is_unlocked = engine.describe_database(&name).await.unwrap().lock == LockStatus::Active;
            is_unlocked && filled().any(|number| name_of(number) == name) && look(engine, &name).await.is_ok()
        }
    };
    let some = || async {
        for name in filled().map(name_of) {
            if served(name).await {
                return true;
            }
        }
        false
    };
    patiently("one that is unlocked answers", some).await;
    assert!(
        locked(&engine).await.len() > 100,
        "the first answer came after the last unlock"
    );

    let unlocked_all = async {
        while locked(&engine).await.len() > 100 {
            pass(1).await;
        }
    };
    let limit = std::time::Duration::from_secs(900);
    let all = tokio::time::timeout(limit, unlocked_all).await;
    assert!(all.is_ok(), "still locked after 900 s: {}", locked(&engine).await.len());
    let (most, sum) = calls.crowd(from, CallReason::Unlock);
    // One call each for 900 databases, the default one and the catalog; and a second's burst on top.
    assert!((901..=902).contains(&sum), "{sum} calls to unlock");
    assert!(most <= 2 * per_second as usize, "{most} calls in one second");
    let dark: Vec<String> = (0..DATABASES)
        .filter(|number| [1, 2].contains(&(number % KEYS)))
        .map(name_of)
        .collect();
    assert_eq!(locked(&engine).await, dark);
    cluster.kms.set(&keys[1], KmsAnswer::Right);
    cluster.kms.set(&keys[2], KmsAnswer::Right);
    pass(100).await;
    assert_eq!(locked(&engine).await, Vec::<String>::new());
}
