//! One task per root key that asks the key service, at an interval and on demand, whether the key may be used: a real
//! decryption of a wrapped zone key. Watchers alone lock and unlock zones.
//!
//! A probe is single-flight. It never waits for an unlock, and unlocks run a few at a time for each root key: one key
//! that is slow, or a thousand zones under it, delays neither the probes nor another key's zones.
//!
//! Zones take turns at being asked about, because a key's policy may tell them apart by their encryption context: a no
//! that may be for one zone alone is followed by one question about another, and if that is allowed, only the one is
//! locked. A zone that is refused by itself is left out of the turns, and one such zone is tried again with each probe:
//! however many are refused, for however long, a root key costs one call at each probe, two while it is in trouble.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use saker_keyring::{
    CallReason, Denial, KeyService, KeyServiceError, LeaseMachine, LeasePolicy, LeaseState, LockReason, Question,
    RootKeyId, Transition,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{Access, Scope, Unlock, decrypt_all, lock, reason_of};
use crate::{
    clock::Clock,
    events::{Event, EventSink},
    types::LockStatus,
};

/// Watches one root key.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) root: RootKeyId,
    keys: Arc<dyn KeyService>,
    clock: Arc<dyn Clock>,
    events: Arc<dyn EventSink>,
    /// Held while zones are locked or unlocked on its word.
    machine: Mutex<LeaseMachine>,
    zones: Mutex<Vec<Arc<Access>>>,
    checks: mpsc::UnboundedSender<oneshot::Sender<()>>,
    /// Unix time in milliseconds; 0 before the first probe.
    probed_at_ms: AtomicU64,
    /// The same, of the next probe.
    next_probe_ms: AtomicU64,
    unlocks: Semaphore,
    /// Whose turn it is to be asked about, and to be tried again.
    turn: AtomicUsize,
    /// A zone that was refused by itself is allowed again: others may be, too.
    try_all: AtomicBool,
}

/// Requests for a watcher's task.
#[derive(Debug)]
pub(crate) struct Checks(mpsc::UnboundedReceiver<oneshot::Sender<()>>);

/// Zones of one root key that are unlocked at the same time: enough to hide the way to the key service, few enough that
/// other root keys get their turns of the budget.
const UNLOCKS_AT_ONCE: usize = 8;
/// A probe that takes longer than this is given up for one that somebody asked for.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// How often an unlock begins again because the zone's keys changed under it.
const UNLOCK_AGAIN_MAX: usize = 4;

/// A root key was allowed when this was given; [`Self::hold`] says whether nothing said no since.
#[derive(Debug)]
pub(crate) struct Permit {
    watcher: Arc<Watcher>,
    locks: u64,
}

impl Permit {
    /// Keeps the root key from being locked, if it was not since.
    pub(super) fn hold(&self) -> Option<MutexGuard<'_, LeaseMachine>> {
        let machine = lock(&self.watcher.machine);
        (machine.may_serve() && machine.locks() == self.locks).then_some(machine)
    }
}

/// An unlock that runs. Whoever asked for a check waits for it.
#[derive(Debug, Default)]
pub(super) struct Unlocking(Mutex<Vec<Arc<Answered>>>);

/// Answers checks when the last holder is done.
#[derive(Debug)]
struct Answered(Vec<oneshot::Sender<()>>);

impl Drop for Answered {
    fn drop(&mut self) {
        for check in self.0.drain(..) {
            // Whoever asked may have gone away.
            let _gone = check.send(());
        }
    }
}

impl Watcher {
    /// A watcher and the requests for its task ([`Self::run`]).
    pub(crate) fn new(
        root: RootKeyId,
        policy: LeasePolicy,
        keys: Arc<dyn KeyService>,
        clock: Arc<dyn Clock>,
        events: Arc<dyn EventSink>,
    ) -> (Arc<Self>, Checks) {
        let (send, receive) = mpsc::unbounded_channel();
        let watcher = Self {
            root,
            keys,
            clock,
            events,
            machine: Mutex::new(LeaseMachine::new(policy)),
            zones: Mutex::new(Vec::new()),
            checks: send,
            probed_at_ms: AtomicU64::new(0),
            next_probe_ms: AtomicU64::new(0),
            unlocks: Semaphore::new(UNLOCKS_AT_ONCE),
            turn: AtomicUsize::new(0),
            try_all: AtomicBool::new(false),
        };
        (Arc::new(watcher), Checks(receive))
    }
    pub(crate) fn add(&self, access: &Arc<Access>) {
        lock(&self.zones).push(Arc::clone(access));
    }
    pub(crate) fn remove(&self, access: &Arc<Access>) {
        lock(&self.zones).retain(|other| !Arc::ptr_eq(other, access));
    }
    pub(crate) fn zones(&self) -> Vec<Arc<Access>> {
        lock(&self.zones).clone()
    }
    pub(super) fn events(&self) -> Arc<dyn EventSink> {
        Arc::clone(&self.events)
    }
    /// Call this before the key is used other than for a probe, and [`Self::confirmed`] with the answer.
    pub(crate) fn ask(&self) -> Question {
        lock(&self.machine).ask()
    }
    /// The key service answered a use of the key that was not a probe. Zones that this unlocks are unlocked by the next
    /// probe. A yes alone counts: what a single use is refused for need not be the key's state.
    pub(crate) fn confirmed(&self, question: Question) {
        let now = self.clock.monotonic_ms();
        let _next_probe_unlocks = lock(&self.machine).on_answer_to(question, now, Ok(()));
    }
    /// As [`Self::confirmed`]. A watcher that did not exist when the question was asked takes the answer for its first, if
    /// it had none since.
    pub(crate) fn confirmed_or_new(&self, question: Option<Question>) {
        match question {
            Some(question) => self.confirmed(question),
            None => {
                let now = self.clock.monotonic_ms();
                let mut machine = lock(&self.machine);
                let why = LockReason::NotYetOpened;
                if machine.state() == (LeaseState::Locked { why }) {
                    let _next_probe_unlocks = machine.on_answer(now, Ok(()));
                }
            }
        }
    }
    fn may_serve(&self) -> bool {
        lock(&self.machine).may_serve()
    }
    /// Whether the root key may be used now, as something to look at again later.
    fn permit(self: &Arc<Self>) -> Option<Permit> {
        let machine = lock(&self.machine);
        machine.may_serve().then(|| Permit {
            watcher: Arc::clone(self),
            locks: machine.locks(),
        })
    }
    pub(crate) fn status(&self) -> LockStatus {
        match lock(&self.machine).state() {
            LeaseState::Active => LockStatus::Active,
            LeaseState::Suspect { .. } => LockStatus::Suspect,
            LeaseState::Locked { why } => LockStatus::Locked { reason: describe(why) },
        }
    }
    pub(crate) fn probed_at_ms(&self) -> Option<u64> {
        Some(self.probed_at_ms.load(Ordering::Relaxed)).filter(|&at| at != 0)
    }
    /// When the next probe is due, if nobody asks for one before: Unix time in milliseconds.
    pub(crate) fn next_probe_ms(&self) -> Option<u64> {
        Some(self.next_probe_ms.load(Ordering::Relaxed)).filter(|&at| at != 0)
    }
    /// Asks the key service now; returns after the answer was acted on.
    pub(crate) async fn check_now(&self) {
        let (send, receive) = oneshot::channel();
        if self.checks.send(send).is_ok() {
            // An error means that the watcher ended: the engine is shutting down.
            let _ended = receive.await;
        }
    }

    /// The watcher's task: ends with `stop`.
    pub(crate) async fn run(self: Arc<Self>, checks: Checks, stop: CancellationToken) {
        let mut checks = checks.0;
        let mut unlocks = JoinSet::new();
        let mut wait_ms = 0;
        loop {
            let Some(mut waiting) = self.wait(&mut checks, &stop, wait_ms).await else {
                return;
            };
            loop {
                // Requests that came meanwhile are answered by this probe: it starts after them.
                while let Ok(check) = checks.try_recv() {
                    waiting.push(check);
                }
                match self.probe(&mut checks, &stop).await {
                    Probe::Stop => return,
                    Probe::Asked(check) => waiting.push(check),
                    Probe::Answered { allowed, opened } => {
                        while unlocks.try_join_next().is_some() {}
                        let asked_for = !waiting.is_empty();
                        let answered = Arc::new(Answered(std::mem::take(&mut waiting)));
                        if allowed {
                            let refused_too = self.try_all.swap(false, Ordering::Relaxed) || opened || asked_for;
                            self.unlock_all(&mut unlocks, &answered, refused_too);
                        }
                        break;
                    }
                }
            }
            wait_ms = lock(&self.machine).next_probe_ms(rand::random::<f64>());
            let at = self.clock.wall_ms().saturating_add(wait_ms);
            self.next_probe_ms.store(at, Ordering::Relaxed);
        }
    }

    /// Waits until a probe is due or asked for, and locks if a grace period ends meanwhile. `None` to stop.
    async fn wait(
        &self,
        checks: &mut mpsc::UnboundedReceiver<oneshot::Sender<()>>,
        stop: &CancellationToken,
        wait_ms: u64,
    ) -> Option<Vec<oneshot::Sender<()>>> {
        let probe_at = self.clock.monotonic_ms().saturating_add(wait_ms);
        loop {
            let now = self.clock.monotonic_ms();
            if now >= probe_at {
                return Some(Vec::new());
            }
            let until = lock(&self.machine)
                .deadline_ms()
                .map_or(probe_at, |deadline| deadline.min(probe_at));
            let sleep_ms = until.saturating_sub(now).max(1);
            tokio::select! {
                () = stop.cancelled() => return None,
                check = checks.recv() => return check.map(|check| vec![check]),
                () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => self.on_time(),
            }
        }
    }

    fn on_time(&self) {
        let now = self.clock.monotonic_ms();
        let _locked_already = self.act(|machine| machine.on_time(now));
    }

    /// Asks once and acts on the answer.
    async fn probe(
        &self,
        checks: &mut mpsc::UnboundedReceiver<oneshot::Sender<()>>,
        stop: &CancellationToken,
    ) -> Probe {
        let zones = self.in_turn();
        if zones.is_empty() {
            return Probe::Answered {
                allowed: false,
                opened: false,
            };
        }
        let question = self.ask();
        let began = tokio::time::Instant::now();
        let mut answer = Ok(());
        let mut refused_alone = None;
        for access in &zones {
            let asked = self.decrypt_newest(access);
            let answered = match self.patient(asked, began, checks, stop).await {
                Ok(answered) => answered,
                Err(interrupted) => return interrupted,
            };
            match (refused_alone.take(), answered) {
                // The first answer is about this zone alone: the root key may be used.
                (Some((denied, error)), Ok(())) => {
                    answer = Ok(());
                    self.refuse(denied, &error);
                }
                // Two zones say that it may not, or nobody says that it may.
                (Some(_), Err(_)) => {}
                (None, Err(error)) if may_be_of_one_zone(&error) => {
                    refused_alone = Some((access, error.clone()));
                    answer = Err(error);
                    // A root key that is locked stays locked until a zone is allowed: those after it have their turns.
                    if self.may_serve() {
                        continue;
                    }
                }
                (None, answered) => answer = answered,
            }
            break;
        }
        self.probed_at_ms.store(self.clock.wall_ms(), Ordering::Relaxed);
        let denied = matches!(&answer, Err(KeyServiceError::Denied { .. }));
        let failure = answer.as_ref().err().map(ToString::to_string);
        self.events.on_event(&Event::KeyProbed {
            root: self.root.clone(),
            failure,
            denied,
        });
        let now = self.clock.monotonic_ms();
        let transition = self.act(|machine| machine.on_answer_to(question, now, answer.as_ref().map(|&()| ())));
        Probe::Answered {
            allowed: answer.is_ok(),
            opened: transition == Transition::Unlocked,
        }
    }

    /// The two zones to ask about next, the second one only if the first is refused: those that are not refused by
    /// themselves, if there are any.
    fn in_turn(&self) -> Vec<Arc<Access>> {
        let mut zones = self.zones();
        if zones.iter().any(|access| !access.is_refused()) {
            zones.retain(|access| !access.is_refused());
        }
        if !zones.is_empty() {
            let first = self.turn.fetch_add(1, Ordering::Relaxed) % zones.len();
            zones.rotate_left(first);
            zones.truncate(2);
        }
        zones
    }

    /// The answer to a question, while time is kept and stop and checks are heard.
    async fn patient(
        &self,
        asked: impl Future<Output = Result<(), KeyServiceError>>,
        began: tokio::time::Instant,
        checks: &mut mpsc::UnboundedReceiver<oneshot::Sender<()>>,
        stop: &CancellationToken,
    ) -> Result<Result<(), KeyServiceError>, Probe> {
        tokio::pin!(asked);
        loop {
            let now = self.clock.monotonic_ms();
            let deadline = lock(&self.machine).deadline_ms();
            let sleep_ms = deadline.map_or(1_000, |at| at.saturating_sub(now).clamp(1, 1_000));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Probe::Stop),
                answered = &mut asked => return Ok(answered),
                // Whoever asks now wants an answer of now, not one to a question that hangs.
                Some(check) = async {
                    tokio::time::sleep_until(began + PROBE_PATIENCE).await;
                    checks.recv().await
                } => return Err(Probe::Asked(check)),
                () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => self.on_time(),
            }
        }
    }

    /// Locks one zone whose root key may be used: the key service refuses this zone's key alone.
    fn refuse(&self, access: &Arc<Access>, error: &KeyServiceError) {
        let reason = reason_of(error);
        tracing::warn!(root = %self.root, zone = %access.zone.id(), reason, "one zone's key is refused; others are not");
        access.refuse(reason.clone());
        if access.zone.is_unlocked() {
            access.zone.lock();
            access.go_dark(&reason);
        }
    }

    /// Changes the state, and locks the zones in the same moment if that is what follows.
    fn act(&self, change: impl FnOnce(&mut LeaseMachine) -> Transition) -> Transition {
        let (transition, dark) = {
            let mut machine = lock(&self.machine);
            let transition = change(&mut machine);
            let mut dark = Vec::new();
            if transition == Transition::Locked {
                dark = self.zones();
                dark.retain(|access| access.zone.is_unlocked());
                // All keys go before anything else is done.
                dark.iter().for_each(|access| access.zone.lock());
            }
            (transition, dark)
        };
        match transition {
            Transition::Locked => {
                let LockStatus::Locked { reason } = self.status() else {
                    return transition;
                };
                dark.iter().for_each(|access| access.go_dark(&reason));
                tracing::warn!(root = %self.root, zones = dark.len(), reason, "root key locked its zones");
            }
            Transition::BecameSuspect => {
                tracing::warn!(root = %self.root, "key service does not answer; serving until the grace period ends");
            }
            Transition::Recovered | Transition::Unlocked => tracing::info!(root = %self.root, "root key may be used"),
            Transition::Unchanged => {}
        }
        transition
    }

    /// Begins to unlock every zone that is locked and is not being unlocked. `answered` is held until they are. Of those
    /// that were refused by themselves only one, unless `refused_too`.
    fn unlock_all(self: &Arc<Self>, tasks: &mut JoinSet<()>, answered: &Arc<Answered>, refused_too: bool) {
        let mut locked = self.zones();
        locked.retain(|access| !access.zone.is_unlocked());
        if !refused_too {
            let refused: Vec<_> = locked.iter().filter(|access| access.is_refused()).cloned().collect();
            locked.retain(|access| !access.is_refused());
            let turn = self.turn.load(Ordering::Relaxed) % refused.len().max(1);
            locked.extend(refused.get(turn).cloned());
        }
        for access in locked {
            let mut slot = lock(&access.unlocking);
            if let Some(running) = slot.upgrade() {
                lock(&running.0).push(Arc::clone(answered));
                continue;
            }
            let running = Arc::new(Unlocking(Mutex::new(vec![Arc::clone(answered)])));
            *slot = Arc::downgrade(&running);
            drop(slot);
            let this = Arc::clone(self);
            tasks.spawn(async move {
                this.unlock(&access).await;
                // A new unlock may begin before those who waited for this one look.
                *lock(&access.unlocking) = Weak::new();
                drop(running);
            });
        }
    }

    /// Gets all keys of one zone and unlocks it, if all of its root keys may be used.
    async fn unlock(&self, access: &Arc<Access>) {
        let Ok(_turn) = self.unlocks.acquire().await else {
            return;
        };
        for _ in 0..UNLOCK_AGAIN_MAX {
            let keyed = access.keyed();
            // Nothing is asked about a zone whose other root key is denied.
            let permits: Option<Vec<_>> = keyed.watchers.iter().map(Watcher::permit).collect();
            let Some(permits) = permits else { return };
            let mut keys = Vec::new();
            for record in keyed.records() {
                let decrypted = decrypt_all(&*self.keys, record, CallReason::Unlock).await;
                self.events.on_event(&Event::KeyUsed {
                    root: record.root.clone(),
                    operation: "Decrypt",
                    ok: decrypted.is_ok(),
                });
                match decrypted {
                    Ok(more) => keys.extend(more),
                    Err(error) => return access.refuse(reason_of(&error)),
                }
            }
            match access.unlock(&keyed, &permits, keys) {
                Unlock::Done => {
                    if lock(&access.refused).take().is_some() {
                        self.try_all.store(true, Ordering::Relaxed);
                    }
                    let (Scope { database, collection }, root) = ((*access.scope()).clone(), access.root());
                    self.events.on_event(&Event::ZoneUnlocked {
                        database,
                        collection,
                        root,
                    });
                    access.notify(false);
                    return;
                }
                Unlock::Changed => {}
                Unlock::Denied => return,
                Unlock::Impossible(reason) => return access.refuse(reason),
            }
        }
    }

    async fn decrypt_newest(&self, access: &Access) -> Result<(), KeyServiceError> {
        let keyed = access.keyed();
        // The version that this root key wraps: a zone may be on its way from it or to it.
        let record = keyed.records().find(|record| record.root == self.root);
        let newest = record.and_then(|record| {
            let newest = record.versions.iter().max_by_key(|(version, _)| *version);
            newest.map(|(version, wrapped)| (record, *version, wrapped))
        });
        let Some((record, version, wrapped)) = newest else {
            return Ok(());
        };
        let asked = self
            .keys
            .decrypt(&self.root, wrapped, &record.context, CallReason::Probe);
        record.recognise(version, &asked.await?)
    }
}

/// What came of a probe.
enum Probe {
    Stop,
    /// Somebody asked for another one.
    Asked(oneshot::Sender<()>),
    /// Whether the key may be used, and whether that is news.
    Answered {
        allowed: bool,
        opened: bool,
    },
}

/// Whether a denial may be for the one zone that was asked about: its encryption context, or its wrapped key.
fn may_be_of_one_zone(error: &KeyServiceError) -> bool {
    let KeyServiceError::Denied { denial, .. } = error else {
        return false;
    };
    match denial {
        Denial::AccessDenied | Denial::InvalidCiphertext => true,
        Denial::Disabled | Denial::PendingDeletion | Denial::NotFound | Denial::InvalidState => false,
    }
}

fn describe(why: LockReason) -> String {
    match why {
        LockReason::Denied(denial) => denial.to_string(),
        LockReason::GraceExpired(outage) => format!("{outage}, for longer than the grace period"),
        LockReason::NotYetOpened => "the key service has not answered since the start".to_owned(),
    }
}
