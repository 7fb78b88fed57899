//! Key services that do everything but what they should, and customers who revoke in every way there is.
//!
//! The walk draws what a key service answers from a seed and compares what is served with what the promise says:
//! nothing beyond the probe's interval after a no, nothing beyond the grace period after the last yes, everything again
//! after the next yes, and never an error for anybody else. `SAKER_TEST_SEED` replays one walk, `SAKER_TEST_ROUNDS` takes
//! more of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use saker_engine::{Engine, Error, ErrorKind, Event, LockStatus};
use saker_keyring::{Denial, KeyPurpose, Outage, RootKeyId};
use saker_testing::{KmsAnswer, Random};

use crate::{
    common::{Cluster, brute_force, ids, insert, ints, query_request, rows, search_request, spec, vector},
    virtual_time::{VirtualClock, at_once, cluster, pass, patiently},
};

const DENIALS: [Denial; 5] = [
    Denial::Disabled,
    Denial::PendingDeletion,
    Denial::NotFound,
    Denial::AccessDenied,
    Denial::InvalidState,
];
const OUTAGES: [Outage; 5] = [
    Outage::Timeout,
    Outage::Unreachable,
    Outage::Throttled,
    Outage::Failed,
    Outage::BadAnswer,
];

async fn database(engine: &Arc<Engine>, name: &str, root: &RootKeyId) {
    let properties = [("cipher.enabled", "true"), ("cipher.key", root.as_str())];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    engine.create_database(name, properties).await.unwrap();
}

/// A database with a loaded collection `c`: rows 0 to 20 in files, 20 to 25 in the log.
async fn filled(engine: &Arc<Engine>, name: &str, root: Option<&RootKeyId>) {
    match root {
        Some(root) => database(engine, name, root).await,
        None => assert_eq!(name, "default"),
    }
    engine.create_collection(name, spec("c")).await.unwrap();
    let params = [("index_type", "FLAT"), ("metric_type", "L2")];
    let request = saker_engine::IndexRequest {
        field: "vector".into(),
        name: None,
        params: params.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    };
    engine.create_index(name, "c", request).await.unwrap();
    engine.load_collection(name, "c").await.unwrap();
    patiently("the collection is loaded", || async { serves(engine, name).await }).await;
    at_once(async {
        insert(engine, name, "c", 0..20).await;
        engine.flush(name, &["c".into()]).await.unwrap();
        insert(engine, name, "c", 20..25).await;
    })
    .await;
}

async fn rows_of(engine: &Arc<Engine>, name: &str) -> BTreeSet<i64> {
    at_once(ids(engine, name, "c")).await.into_iter().collect()
}

/// A database whose key service comes and goes: refused, or loading again.
fn is_away(error: &Error) -> bool {
    is_locked(error) || error.kind == ErrorKind::CollectionNotLoaded
}

async fn look(engine: &Arc<Engine>, name: &str) -> Result<Vec<i64>, Error> {
    let found = at_once(engine.search(search_request(name, "c", 3, 3))).await?;
    Ok(ints(&found.ids))
}

async fn serves(engine: &Arc<Engine>, name: &str) -> bool {
    match look(engine, name).await {
        Ok(_) => true,
        Err(error) => {
            assert!(is_away(&error), "{error:?}");
            false
        }
    }
}

fn is_locked(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::ZoneLocked { .. })
}

/// Why a database is refused.
fn reason(error: &Error) -> &str {
    let ErrorKind::ZoneLocked { reason, .. } = &error.kind else {
        panic!("{error:?}")
    };
    reason
}

async fn zone_of(engine: &Arc<Engine>, name: &str) -> String {
    engine.describe_database(name).await.unwrap().properties["cipher.ezID"].clone()
}

// ---- single answers ----

/// An external key store that cannot be reached, throttling, errors and silence are outages; they are served through for
/// the grace period and not a moment longer, and a no is acted on at the next probe whatever came before it.
#[tokio::test(start_paused = true)]
async fn outages_are_served_through_and_a_no_behind_them_is_not() {
    for outage in OUTAGES {
        let (cluster, clock) = cluster();
        let engine = cluster.open().await;
        filled(&engine, "one", Some(&cluster.customer)).await;
        filled(&engine, "default", None).await;
        cluster.kms.set(&cluster.customer, KmsAnswer::Fail(outage));
        let began = now(&clock);
        while now(&clock) < began + 45_000 {
            look(&engine, "one").await.unwrap();
            pass(3).await;
        }
        assert_eq!(engine.describe_database("one").await.unwrap().lock, LockStatus::Suspect);
        cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
        pass(24).await;
        let error = look(&engine, "one").await.unwrap_err();
        assert!(reason(&error).contains("disabled"), "{outage}: {error}");
        // An outage does not take the denial back, however long.
        cluster.kms.set(&cluster.customer, KmsAnswer::Fail(outage));
        pass(600).await;
        assert!(is_locked(&look(&engine, "one").await.unwrap_err()));
        look(&engine, "default").await.unwrap();
        cluster.kms.set(&cluster.customer, KmsAnswer::Right);
        patiently("it is back", || serves(&engine, "one")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_service_that_hangs_neither_serves_for_ever_nor_stops_the_probes() {
    let (cluster, clock) = cluster();
    let engine = cluster.open().await;
    filled(&engine, "one", Some(&cluster.customer)).await;
    filled(&engine, "default", None).await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Hang);
    let began = now(&clock);
    // The last yes was at most one interval ago.
    let end = began + cluster.config.lease.silence_max_ms() + cluster.config.lease.grace_ms;
    let mut refused_at = None;
    while refused_at.is_none() {
        let at = now(&clock);
        assert!(at < end + 2_000, "served {} ms into a silence", at - began);
        look(&engine, "default").await.unwrap();
        refused_at = look(&engine, "one").await.is_err().then_some(at);
        pass(1).await;
    }
    assert!(
        refused_at.unwrap() >= began + cluster.config.lease.grace_ms,
        "refused too early"
    );
    // A check that somebody asks for ends, too.
    tokio::time::timeout(Duration::from_secs(120), engine.check_keys_now())
        .await
        .unwrap()
        .unwrap();
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    pass(60).await;
    patiently("it is back", || serves(&engine, "one")).await;
    look(&engine, "default").await.unwrap();
}

/// A yes that was on its way when the key was disabled must not bring the zone back or keep it.
#[tokio::test(start_paused = true)]
async fn a_yes_from_before_the_no_counts_for_nothing() {
    let (cluster, _clock) = cluster();
    let engine = cluster.open().await;
    filled(&engine, "one", Some(&cluster.customer)).await;
    cluster
        .kms
        .set(&cluster.customer, KmsAnswer::Slow(Duration::from_secs(4)));
    pass(6).await;
    // This probe is under way now; it will say yes in up to 4 s.
    cluster
        .kms
        .set(&cluster.customer, KmsAnswer::Deny(Denial::AccessDenied));
    pass(12).await;
    for _ in 0..20 {
        assert!(is_locked(&look(&engine, "one").await.unwrap_err()));
        pass(1).await;
    }
    // The same with somebody who makes databases under the key all the time.
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    patiently("it is back", || serves(&engine, "one")).await;
    cluster
        .kms
        .set(&cluster.customer, KmsAnswer::Slow(Duration::from_secs(9)));
    let making = {
        let (engine, root) = (engine.clone(), cluster.customer.clone());
        tokio::spawn(async move {
            let properties = [("cipher.key".to_owned(), root.to_string())].into();
            engine.create_database("late", properties).await
        })
    };
    pass(1).await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    assert!(
        making.await.unwrap().is_err(),
        "made under a key that was disabled meanwhile"
    );
    pass(12).await;
    assert!(is_locked(&look(&engine, "one").await.unwrap_err()));
    assert!(engine.describe_database("late").await.is_err());
}

/// Hosts of a key service hear of a change one after another.
#[tokio::test(start_paused = true)]
async fn stale_answers_after_a_change_delay_it_by_as_many_probes_and_no_more() {
    let (cluster, _clock) = cluster();
    let engine = cluster.open().await;
    filled(&engine, "one", Some(&cluster.customer)).await;
    for stale in [1, 2, 3] {
        cluster
            .kms
            .set_after(&cluster.customer, stale, KmsAnswer::Deny(Denial::Disabled));
        pass(6 * (stale as u64 + 1)).await;
        assert!(
            is_locked(&look(&engine, "one").await.unwrap_err()),
            "{stale} stale answers"
        );
        cluster.kms.set_after(&cluster.customer, stale, KmsAnswer::Right);
        pass(6 * (stale as u64 + 1)).await;
        patiently("it is back", || serves(&engine, "one")).await;
    }
    // A host that is behind says yes now and then. The database comes and goes with it, never with a wrong answer, and
    // one no is enough to take it away again.
    cluster.kms.flap(
        &cluster.customer,
        [
            KmsAnswer::Deny(Denial::Disabled),
            KmsAnswer::Deny(Denial::Disabled),
            KmsAnswer::Right,
        ],
    );
    for _ in 0..60 {
        match look(&engine, "one").await {
            Ok(found) => assert_eq!(found, brute_force(0..25, &vector(3), 3)),
            Err(error) => assert!(is_away(&error), "{error:?}"),
        }
        pass(2).await;
    }
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    pass(6).await;
    assert!(is_locked(&look(&engine, "one").await.unwrap_err()));
}

// ---- a key, but the wrong one ----

/// The key service unwraps to another key than it made: nothing is ever opened, written or served with it.
#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_never_used() {
    let (cluster, _clock) = cluster();
    let engine = cluster.open().await;
    filled(&engine, "one", Some(&cluster.customer)).await;
    // While the right key is in memory it is an outage: the grace period, then a lock that says why.
    cluster.kms.set(&cluster.customer, KmsAnswer::WrongKey);
    pass(30).await;
    assert_eq!(look(&engine, "one").await.unwrap(), brute_force(0..25, &vector(3), 3));
    at_once(insert(&engine, "one", "c", 25..26)).await;
    pass(60).await;
    let error = look(&engine, "one").await.unwrap_err();
    assert!(reason(&error).contains("another key"), "{error}");
    wrong_keys_are_refused(&cluster, &engine).await;
    // From a start it does not get in either.
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    wrong_keys_are_refused(&cluster, &engine).await;
    cluster.kms.set(&cluster.customer, KmsAnswer::Right);
    pass(100).await;
    patiently("it is back", || serves(&engine, "one")).await;
    assert_eq!(rows_of(&engine, "one").await, (0..26).collect());
    at_once(async {
        insert(&engine, "one", "c", 30..31).await;
        engine.flush("one", &["c".into()]).await.unwrap();
    })
    .await;
    let events = cluster.events.0.lock().unwrap();
    let failed = events
        .iter()
        .find(|event| matches!(event, Event::VerificationFailed { .. }));
    assert_eq!(failed, None, "something was opened with the wrong key");
}

/// With the zone locked: nothing is served or written, whether the probe gets the wrong key or only the unlock does.
async fn wrong_keys_are_refused(cluster: &Cluster, engine: &Arc<Engine>) {
    for _ in 0..10 {
        pass(10).await;
        let error = look(engine, "one").await.unwrap_err();
        assert!(is_locked(&error), "{error:?}");
        let error = at_once(engine.insert("one", "c", None, rows(900..901)))
            .await
            .unwrap_err();
        assert!(is_locked(&error), "{error:?}");
    }
    cluster
        .kms
        .script(&cluster.customer, [KmsAnswer::Right, KmsAnswer::WrongKey]);
    engine.check_keys_now().await.unwrap();
    let error = look(engine, "one").await.unwrap_err();
    assert!(reason(&error).contains("another key"), "{error}");
    pass(100).await;
    assert!(is_locked(&look(engine, "one").await.unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_platform_key_does_not_start() {
    let (cluster, _clock) = cluster();
    cluster.open().await.shutdown().await;
    cluster.kms.set(&cluster.platform, KmsAnswer::WrongKey);
    let error = cluster.try_open(&cluster.dir).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::KeyUnusable { .. }), "{error:?}");
    assert!(error.message.contains("another key"), "{error}");
    cluster.kms.set(&cluster.platform, KmsAnswer::Right);
    cluster.open().await.shutdown().await;
}

// ---- one database among others ----

/// A policy may name the encryption context, so the KMS may refuse one database's key and go on with the others under
/// the same root key. Whichever it is, that one goes dark and the others do not.
#[tokio::test(start_paused = true)]
async fn a_no_for_one_database_is_for_that_one_alone() {
    let (cluster, _clock) = cluster();
    let engine = cluster.open().await;
    let names = ["one", "two", "three"];
    for name in names {
        filled(&engine, name, Some(&cluster.customer)).await;
    }
    for denied in names {
        let zone = zone_of(&engine, denied).await;
        let no = KmsAnswer::Deny(Denial::AccessDenied);
        cluster.kms.set_zone(&cluster.customer, &zone, Some(no));
        // Each probe asks about one of the three.
        for _ in 0..10 {
            pass(2).await;
            for name in names.into_iter().filter(|name| *name != denied) {
                look(&engine, name).await.unwrap();
            }
        }
        let error = look(&engine, denied).await.unwrap_err();
        assert!(reason(&error).contains("denied"), "{denied}: {error}");
        let lock = engine.describe_database(denied).await.unwrap().lock;
        assert!(matches!(lock, LockStatus::Locked { .. }), "{lock:?}");
        cluster.kms.set_zone(&cluster.customer, &zone, None);
        pass(70).await;
        patiently("it is back", || serves(&engine, denied)).await;
    }
}

/// A root key that all its databases are refused under costs a few calls, not one for each database at each probe.
#[tokio::test(start_paused = true)]
async fn keys_that_are_refused_for_good_are_asked_for_within_bounds() {
    let (cluster, _clock) = cluster();
    let engine = cluster.open().await;
    for number in 0..12 {
        database(&engine, &format!("d{number}"), &cluster.customer).await;
    }
    pass(60).await;
    let denials = DENIALS.into_iter().chain([Denial::InvalidCiphertext]);
    let answers = denials
        .map(KmsAnswer::Deny)
        .chain(OUTAGES.map(KmsAnswer::Fail))
        .chain([KmsAnswer::WrongKey]);
    for answer in answers {
        cluster.kms.set(&cluster.customer, answer);
        // What the change itself causes may cost a call for each database.
        pass(120).await;
        let before = cluster.kms.calls(&cluster.customer).total();
        pass(600).await;
        let calls = cluster.kms.calls(&cluster.customer).total() - before;
        // 600 s are at most 134 intervals of at least 4.5 s.
        assert!(calls <= 140, "{answer:?}: {calls} calls in ten minutes");
        assert!(
            calls >= 15,
            "{answer:?}: {calls} calls in ten minutes: its return would go unnoticed"
        );
        cluster.kms.set(&cluster.customer, KmsAnswer::Right);
        pass(120).await;
        let states = engine.list_databases().await.unwrap();
        let locked: Vec<_> = states
            .iter()
            .filter(|database| database.lock != LockStatus::Active)
            .collect();
        assert!(locked.is_empty(), "{answer:?}: {locked:?}");
    }
    // With nothing amiss it is one call an interval, however many databases there are.
    let before = cluster.kms.calls_for(&cluster.customer, KeyPurpose::ZoneKey).total();
    pass(550).await;
    let calls = cluster.kms.calls_for(&cluster.customer, KeyPurpose::ZoneKey).total() - before;
    assert!((100..=123).contains(&calls), "{calls} calls in 110 intervals");
}

// ---- the walk ----

#[tokio::test(start_paused = true)]
async fn no_walk_through_a_key_services_answers_breaks_the_promise() {
    walk(0x005a_4be7, 4, 60).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "minutes long; make soak runs it, with other seeds each time"]
async fn soak_walks_through_a_key_services_answers() {
    let first = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "seed");
    walk(first, 100, 200).await;
}

async fn walk(first: u64, rounds: u64, steps: usize) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, rounds) = match number("SAKER_TEST_SEED") {
        Some(seed) => (seed, 1),
        None => (first, number("SAKER_TEST_ROUNDS").unwrap_or(rounds)),
    };
    for seed in (0..rounds).map(|round| first.wrapping_add(round)) {
        #[expect(clippy::print_stderr, reason = "to replay a walk that failed")]
        {
            eprintln!("SAKER_TEST_SEED={seed}");
        }
        Walk::begin(seed).await.go(steps).await;
    }
}

/// What the model knows of a root key's answers.
#[derive(Clone, Copy, Debug)]
struct Truth {
    /// Since when every answer is a no; `None`: not every one is.
    no_since: Option<u64>,
    /// Since when no answer is a yes.
    no_yes_since: Option<u64>,
    /// How long after a change a probe that hangs, or a pause after outages, may keep it from being seen; and until when
    /// that is so for the last one.
    blind_ms: u64,
    blind_until: u64,
}

struct Walk {
    cluster: Cluster,
    clock: Arc<VirtualClock>,
    engine: Arc<Engine>,
    random: Random,
    roots: [RootKeyId; 2],
    truths: [Truth; 2],
    /// Rows that were acknowledged, by database.
    acknowledged: Vec<BTreeSet<i64>>,
    next_row: i64,
}

/// Databases and which of the two roots they are under; the last is under the platform key.
const DATABASES: [(&str, Option<usize>); 4] = [
    ("one", Some(0)),
    ("two", Some(0)),
    ("three", Some(1)),
    ("default", None),
];
/// A probe comes at the latest after an interval and its jitter; the answer to it takes no longer than this.
const NOTICED_MS: u64 = 5_500 + 500;
/// After outages the pause before the next probe is up to four intervals; and a call that hangs is given up after 30 s.
const PAUSE_MS: u64 = 22_000;
const HANG_MS: u64 = 30_000;

fn now(clock: &VirtualClock) -> u64 {
    saker_engine::Clock::monotonic_ms(clock)
}

impl Walk {
    async fn begin(seed: u64) -> Self {
        let (cluster, clock) = cluster();
        let engine = cluster.open().await;
        let roots = [cluster.customer.clone(), cluster.kms.add_root()];
        for (name, root) in DATABASES {
            filled(&engine, name, root.map(|root| &roots[root])).await;
        }
        let truth = Truth {
            no_since: None,
            no_yes_since: None,
            blind_ms: 0,
            blind_until: 0,
        };
        Self {
            cluster,
            clock,
            engine,
            random: Random::new(seed),
            roots,
            truths: [truth; 2],
            acknowledged: DATABASES.map(|_| (0..25).collect()).to_vec(),
            next_row: 1_000,
        }
    }

    async fn go(mut self, steps: usize) {
        let began = now(&self.clock);
        for step in 0..steps {
            match self.random.below(10) {
                0..4 => self.change(step),
                4..7 => {
                    let seconds = 1 + self.random.below(25);
                    pass(seconds).await;
                }
                7 => {
                    let check = tokio::time::timeout(Duration::from_secs(100), self.engine.check_keys_now());
                    check.await.unwrap().unwrap();
                }
                8 => self.write(step).await,
                _ => self.heal(step).await,
            }
            self.check(step).await;
        }
        self.heal(steps).await;
        for (index, (name, _)) in DATABASES.iter().enumerate() {
            let found = rows_of(&self.engine, name).await;
            let lost: Vec<_> = self.acknowledged[index].difference(&found).collect();
            assert!(lost.is_empty(), "{name} lost {lost:?}");
        }
        // Three databases at most are unlocked after each probe.
        let seconds = (now(&self.clock) - began) / 1_000;
        for root in &self.roots {
            let calls = self.cluster.kms.calls(root).total();
            assert!(calls < seconds, "{calls} calls in {seconds} s");
        }
        self.engine.shutdown().await;
    }

    fn change(&mut self, step: usize) {
        let (at, which) = (now(&self.clock), usize::try_from(self.random.below(2)).unwrap());
        let pick = |random: &mut Random, count: usize| usize::try_from(random.below(count as u64)).unwrap();
        let denial = KmsAnswer::Deny(DENIALS[pick(&mut self.random, DENIALS.len())]);
        let outage = KmsAnswer::Fail(OUTAGES[pick(&mut self.random, OUTAGES.len())]);
        let (kms, root) = (&self.cluster.kms, &self.roots[which]);
        let truth = &mut self.truths[which];
        let kind = self.random.below(9);
        // Whether every answer is a no, whether any is a yes, and for how long after the next change the answers from
        // before it keep the next probe away.
        let (no, yes, blind_ms) = match kind {
            0..3 => {
                kms.set(root, denial);
                (true, false, 0)
            }
            3 => {
                kms.set(root, outage);
                (false, false, PAUSE_MS)
            }
            4 => {
                kms.set(root, KmsAnswer::Hang);
                (false, false, PAUSE_MS + HANG_MS)
            }
            5 => {
                kms.set(root, KmsAnswer::WrongKey);
                (false, false, PAUSE_MS)
            }
            6 => {
                kms.flap(root, [KmsAnswer::Right, outage, KmsAnswer::Right]);
                (false, true, PAUSE_MS)
            }
            7 => {
                kms.flap(root, [KmsAnswer::Right, denial]);
                (false, true, 0)
            }
            _ => {
                kms.set(root, KmsAnswer::Slow(Duration::from_millis(self.random.below(400))));
                (false, true, 0)
            }
        };
        #[expect(clippy::print_stderr, reason = "to understand a walk that failed")]
        {
            eprintln!("step {step}, {at} ms: root {which} answers {kind}");
        }
        truth.no_since = no.then_some(at);
        truth.no_yes_since = (!yes).then(|| truth.no_yes_since.unwrap_or(at));
        truth.blind_until = truth.blind_until.max(at + truth.blind_ms);
        truth.blind_ms = blind_ms;
    }

    /// Writes a row into each database that takes it.
    async fn write(&mut self, step: usize) {
        for (index, (name, root)) in DATABASES.iter().enumerate() {
            let row = self.next_row;
            self.next_row += 1;
            match at_once(self.engine.insert(name, "c", None, rows(row..row + 1))).await {
                Ok(_) => {
                    self.acknowledged[index].insert(row);
                }
                Err(error) => assert!(root.is_some() && is_locked(&error), "step {step}, {name}: {error:?}"),
            }
        }
    }

    /// All keys are as they should be: everything comes back by itself.
    async fn heal(&mut self, step: usize) {
        for (root, truth) in self.roots.iter().zip(&mut self.truths) {
            self.cluster.kms.set(root, KmsAnswer::Right);
            *truth = Truth {
                no_since: None,
                no_yes_since: None,
                blind_ms: 0,
                blind_until: now(&self.clock) + PAUSE_MS + HANG_MS,
            };
        }
        pass((PAUSE_MS + HANG_MS + NOTICED_MS) / 1_000).await;
        for (name, _) in DATABASES {
            let engine = &self.engine;
            patiently(&format!("step {step}: {name} is back"), || serves(engine, name)).await;
        }
    }

    /// What is served is what may be served.
    async fn check(&self, step: usize) {
        let lease = &self.cluster.config.lease;
        for (index, (name, root)) in DATABASES.into_iter().enumerate() {
            let at = now(&self.clock);
            let answer = look(&self.engine, name).await;
            let Some(truth) = root.map(|root| self.truths[root]) else {
                assert!(answer.is_ok(), "step {step}: {name}: {answer:?}");
                continue;
            };
            if let Some(since) = truth.no_since {
                let noticed = at >= since + NOTICED_MS && at >= truth.blind_until + NOTICED_MS;
                assert!(
                    !noticed || answer.is_err(),
                    "step {step}, {at} ms: {name} answers after a no: {truth:?}"
                );
            }
            if let Some(since) = truth.no_yes_since {
                let over = at > since + lease.silence_max_ms() + lease.grace_ms + 1_000;
                assert!(
                    !over || answer.is_err(),
                    "step {step}, {at} ms: {name} answers without a yes: {truth:?}"
                );
            }
            match answer {
                Ok(found) => {
                    let right = brute_force(self.acknowledged[index].iter().copied(), &vector(3), 3);
                    assert_eq!(found, right, "step {step}: {name}");
                }
                Err(error) => assert!(is_away(&error), "step {step}: {name}: {error:?}"),
            }
        }
    }
}

/// A query, an insert and a description are refused with the search.
#[tokio::test(start_paused = true)]
async fn a_policy_without_decrypt_stops_every_kind_of_request() {
    let (cluster, _clock) = cluster();
    let engine = cluster.open().await;
    filled(&engine, "one", Some(&cluster.customer)).await;
    // Not disabled: the key's owner took Decrypt out of the policy, and left GenerateDataKey in it.
    cluster
        .kms
        .set(&cluster.customer, KmsAnswer::Deny(Denial::AccessDenied));
    pass(6).await;
    for round in 0..30 {
        assert!(is_locked(&look(&engine, "one").await.unwrap_err()), "round {round}");
        let query = at_once(engine.query(query_request("one", "c", "id == 1", &["*"]))).await;
        assert!(is_locked(&query.unwrap_err()));
        let insert = at_once(engine.insert("one", "c", None, rows(50..51))).await;
        assert!(is_locked(&insert.unwrap_err()));
        assert!(is_locked(&engine.describe_collection("one", "c").await.unwrap_err()));
        pass(2).await;
    }
    // Names can be listed, and other databases are made and used meanwhile.
    assert_eq!(engine.list_collections("one").await.unwrap()[0].name, "c");
    filled(&engine, "default", None).await;
}
