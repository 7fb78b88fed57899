//! Encryption zones and the watchers of their root keys.
//!
//! One [`Watcher`] task per root key asks the key service, at an interval and on demand, whether the key may be used: a
//! real decryption of a wrapped zone key. It alone locks and unlocks zones, so both happen in one order. Requests never
//! ask the key service: they take a lease from the zone ([`Access::lease`]).

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use saker_keyring::{
    CallReason, Denial, KeyFuture, KeyService, KeyServiceError, Lease, LeaseMachine, LeasePolicy, LeaseState,
    LockReason, Outage, PlainKey, RootKeyId, Transition, Zone, ZoneRecord,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    error::{Error, Result},
    events::{Event, EventSink},
    types::LockStatus,
};

/// One zone: its keys in memory, how to get them again, and who has to know when they go and come.
#[derive(Debug)]
pub(crate) struct Access {
    /// The database's name; what refusals say.
    pub(crate) name: String,
    pub(crate) zone: Arc<Zone>,
    pub(crate) record: RwLock<ZoneRecord>,
    pub(crate) root: RootKeyId,
    watcher: Arc<Watcher>,
    /// Why this zone alone stays locked although its root key may be used.
    refused: Mutex<Option<String>>,
    owner: Mutex<Option<Weak<dyn ZoneOwner>>>,
}

/// Who uses a zone's keys.
pub(crate) trait ZoneOwner: Send + Sync + std::fmt::Debug {
    /// The keys are gone: drop every decoded byte. Must not block.
    fn went_dark(&self);
    /// The keys are back: load again what was loaded.
    fn came_back(self: Arc<Self>);
}

impl Access {
    pub(crate) fn new(name: &str, zone: Arc<Zone>, record: ZoneRecord, watcher: &Arc<Watcher>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            zone,
            root: record.root.clone(),
            record: RwLock::new(record),
            watcher: Arc::clone(watcher),
            refused: Mutex::new(None),
            owner: Mutex::new(None),
        })
    }
    /// Registers who has to know.
    pub(crate) fn own(&self, owner: Weak<dyn ZoneOwner>) {
        *lock(&self.owner) = Some(owner);
    }
    /// The right to use the zone, or the refusal that says what to do.
    pub(crate) fn lease(&self) -> Result<Lease> {
        self.zone.lease().map_err(|_| self.refusal())
    }
    /// The refusal while the zone is locked.
    pub(crate) fn refusal(&self) -> Error {
        self.watcher.events.on_event(&Event::Refused {
            database: self.name.clone(),
        });
        let reason = match self.status() {
            LockStatus::Locked { reason } => reason,
            LockStatus::Active | LockStatus::Suspect => "the key was not usable a moment ago".to_owned(),
        };
        Error::zone_locked(&self.name, &self.root, &reason)
    }
    /// Names database and key in a refusal that came from below; reports failed verification.
    pub(crate) fn explain(&self, error: Error) -> Error {
        if error.is_unnamed_lock() {
            return self.refusal();
        }
        if error.kind == crate::ErrorKind::Corrupt {
            let event = Event::VerificationFailed {
                database: Some(self.name.clone()),
                object: error.message.clone(),
            };
            self.watcher.events.on_event(&event);
        }
        error
    }
    pub(crate) fn status(&self) -> LockStatus {
        if self.zone.is_unlocked() {
            return match lock(&self.watcher.machine).state() {
                LeaseState::Suspect { .. } => LockStatus::Suspect,
                LeaseState::Active | LeaseState::Locked { .. } => LockStatus::Active,
            };
        }
        if let Some(reason) = lock(&self.refused).clone() {
            return LockStatus::Locked { reason };
        }
        match self.watcher.status() {
            LockStatus::Locked { reason } => LockStatus::Locked { reason },
            LockStatus::Active | LockStatus::Suspect => LockStatus::Locked {
                reason: "the zone is being unlocked".to_owned(),
            },
        }
    }
    pub(crate) fn watcher(&self) -> &Arc<Watcher> {
        &self.watcher
    }

    fn notify(&self, dark: bool) {
        let owner = lock(&self.owner).as_ref().and_then(Weak::upgrade);
        match owner {
            Some(owner) if dark => owner.went_dark(),
            Some(owner) => owner.came_back(),
            None => {}
        }
    }
    fn go_dark(&self, events: &dyn EventSink, reason: &str) {
        self.notify(true);
        let (database, root) = (self.name.clone(), self.root.clone());
        events.on_event(&Event::ZoneLocked {
            database,
            root,
            reason: reason.to_owned(),
        });
    }
}

/// Watches one root key.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) root: RootKeyId,
    keys: Arc<dyn KeyService>,
    clock: Arc<dyn Clock>,
    events: Arc<dyn EventSink>,
    machine: Mutex<LeaseMachine>,
    zones: Mutex<Vec<Arc<Access>>>,
    checks: mpsc::UnboundedSender<oneshot::Sender<()>>,
    /// Unix time in milliseconds; 0 before the first probe.
    probed_at_ms: AtomicU64,
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
    /// The key service just said yes to a use of the key that was not a probe.
    pub(crate) fn confirmed(&self) {
        let now = self.clock.monotonic_ms();
        // Zones that this unlocks are unlocked by the next probe.
        let _next_probe_unlocks = lock(&self.machine).on_answer(now, Ok(()));
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
        let mut wait_ms = 0;
        loop {
            let Some(mut waiting) = self.wait(&mut checks, &stop, wait_ms).await else {
                return;
            };
            // Requests that came meanwhile are answered by this probe: it starts after them.
            while let Ok(check) = checks.try_recv() {
                waiting.push(check);
            }
            if !self.probe(&stop).await {
                return;
            }
            for check in waiting {
                // Whoever asked may have gone away.
                let _gone = check.send(());
            }
            wait_ms = lock(&self.machine).next_probe_ms(rand::random::<f64>());
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
        let transition = lock(&self.machine).on_time(self.clock.monotonic_ms());
        self.carry_out(transition);
    }

    /// Asks once and acts on the answer. `false` to stop.
    async fn probe(&self, stop: &CancellationToken) -> bool {
        let mut answer = Ok(());
        let zones = self.zones();
        if zones.is_empty() {
            return true;
        }
        for access in zones {
            let decrypted = {
                let asked = self.decrypt_newest(&access);
                tokio::pin!(asked);
                loop {
                    let now = self.clock.monotonic_ms();
                    let deadline = lock(&self.machine).deadline_ms();
                    let sleep_ms = deadline.map_or(1_000, |at| at.saturating_sub(now).clamp(1, 1_000));
                    tokio::select! {
                        () = stop.cancelled() => return false,
                        decrypted = &mut asked => break decrypted,
                        () = tokio::time::sleep(Duration::from_millis(sleep_ms)) => self.on_time(),
                    }
                }
            };
            answer = decrypted.map(drop);
            // A wrapped key that is damaged says nothing about the root key: the next zone's tells.
            if !matches!(
                &answer,
                Err(KeyServiceError::Denied {
                    denial: Denial::InvalidCiphertext,
                    ..
                })
            ) {
                break;
            }
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
        let transition = lock(&self.machine).on_answer(now, answer.as_ref().map(|&()| ()));
        self.carry_out(transition);
        if answer.is_ok() {
            for access in self.zones() {
                if !access.zone.is_unlocked() {
                    self.unlock(&access).await;
                }
            }
        }
        true
    }

    fn carry_out(&self, transition: Transition) {
        match transition {
            Transition::Locked => {
                let LockStatus::Locked { reason } = self.status() else {
                    return;
                };
                let mut zones = self.zones();
                zones.retain(|access| access.zone.is_unlocked());
                // All keys go before anything else is done.
                zones.iter().for_each(|access| access.zone.lock());
                zones.iter().for_each(|access| access.go_dark(&*self.events, &reason));
                tracing::warn!(root = %self.root, zones = zones.len(), reason, "root key locked its zones");
            }
            Transition::BecameSuspect => {
                tracing::warn!(root = %self.root, "key service does not answer; serving until the grace period ends");
            }
            Transition::Recovered | Transition::Unlocked => tracing::info!(root = %self.root, "root key may be used"),
            Transition::Unchanged => {}
        }
    }

    /// Gets all keys of one zone and unlocks it.
    async fn unlock(&self, access: &Arc<Access>) {
        let decrypted = decrypt_all(&*self.keys, &access.record(), CallReason::Unlock).await;
        self.events.on_event(&Event::KeyUsed {
            root: self.root.clone(),
            operation: "Decrypt",
            ok: decrypted.is_ok(),
        });
        match decrypted {
            Ok(keys) => {
                if let Err(error) = access.zone.unlock(keys) {
                    *lock(&access.refused) = Some(error.to_string());
                    return;
                }
                *lock(&access.refused) = None;
                let (database, root) = (access.name.clone(), self.root.clone());
                self.events.on_event(&Event::ZoneUnlocked { database, root });
                access.notify(false);
            }
            Err(error) => *lock(&access.refused) = Some(reason_of(&error)),
        }
    }

    async fn decrypt_newest(&self, access: &Access) -> std::result::Result<Option<PlainKey>, KeyServiceError> {
        let record = access.record();
        let Some((_, wrapped)) = record.versions.iter().max_by_key(|(version, _)| *version) else {
            return Ok(None);
        };
        self.keys
            .decrypt(&record.root, wrapped, &record.context, CallReason::Probe)
            .await
            .map(Some)
    }
}

impl Access {
    fn record(&self) -> ZoneRecord {
        self.record.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Requests for a watcher's task.
#[derive(Debug)]
pub(crate) struct Checks(mpsc::UnboundedReceiver<oneshot::Sender<()>>);

/// Every key of a zone, unwrapped by its key service.
pub(crate) async fn decrypt_all(
    keys: &dyn KeyService,
    record: &ZoneRecord,
    why: CallReason,
) -> std::result::Result<Vec<(saker_keyring::ZoneKeyVersion, PlainKey)>, KeyServiceError> {
    let mut plain = Vec::with_capacity(record.versions.len());
    for (version, wrapped) in &record.versions {
        let key = bounded(&record.root, keys.decrypt(&record.root, wrapped, &record.context, why)).await?;
        plain.push((*version, key));
    }
    Ok(plain)
}

/// A key service has its own time-out; this one holds if that fails, so that probes never stop for good.
pub(crate) async fn bounded<T>(root: &RootKeyId, call: KeyFuture<'_, T>) -> std::result::Result<T, KeyServiceError> {
    match tokio::time::timeout(CALL_MAX, call).await {
        Ok(answer) => answer,
        Err(_) => Err(KeyServiceError::Unavailable {
            root: root.clone(),
            outage: Outage::Timeout,
        }),
    }
}

/// Longest that a call of a key service may take.
const CALL_MAX: Duration = Duration::from_secs(30);

/// What a key service said, without the key's name (which stands beside it).
pub(crate) fn reason_of(error: &KeyServiceError) -> String {
    match error {
        KeyServiceError::Denied { denial, .. } => denial.to_string(),
        KeyServiceError::Unavailable { outage, .. } => outage.to_string(),
        KeyServiceError::Unsupported { reason, .. } => format!("no key service is configured for it: {reason}"),
    }
}

fn describe(why: LockReason) -> String {
    match why {
        LockReason::Denied(denial) => denial.to_string(),
        LockReason::GraceExpired(outage) => format!("{outage}, for longer than the grace period"),
        LockReason::NotYetOpened => "the key service has not answered since the start".to_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
