//! Encryption zones: their keys in memory, how to get them again, and who has to know when they go and come.
//!
//! A zone is locked and unlocked by the watchers of its root keys alone ([`watcher`]). It has one root key, or two while
//! it moves from one to the other: then a no from either locks it, and only a yes from both unlocks it. Requests never
//! ask a key service: they take a lease from the zone ([`Access::lease`]).

mod budget;
mod watcher;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use arc_swap::ArcSwap;
use saker_keyring::{
    CallReason, KeyService, KeyServiceError, Lease, PlainKey, RootKeyId, Zone, ZoneKeyVersion, ZoneRecord,
};

pub(crate) use budget::KeyCalls;
pub(crate) use watcher::{Permit, Watcher};

use crate::{
    error::{Error, Result},
    events::{Event, EventSink},
    receipts::zone_keys,
    types::{KeyVersion, KeyZone, LockStatus},
};

/// What a zone encrypts, by name: a database, or one collection with a key of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) database: String,
    pub(crate) collection: Option<String>,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.database)?;
        self.collection.as_ref().map_or(Ok(()), |name| write!(f, "/{name}"))
    }
}

/// One zone.
#[derive(Debug)]
pub(crate) struct Access {
    /// What refusals say. Changes when the collection gets another name or database.
    scope: ArcSwap<Scope>,
    pub(crate) zone: Arc<Zone>,
    keyed: RwLock<Keyed>,
    events: Arc<dyn EventSink>,
    /// Why this zone alone stays locked although its root key may be used.
    refused: Mutex<Option<String>>,
    owner: Mutex<Option<Weak<dyn ZoneOwner>>>,
    /// The unlock that runs, if one does.
    unlocking: Mutex<Weak<watcher::Unlocking>>,
    /// Held by the job that changes the zone's keys: one at a time.
    pub(crate) rekeying: tokio::sync::Mutex<()>,
    /// Held for reading from when a sealed value is fetched until it was opened, so that the key which it is sealed under
    /// is not dropped in between.
    pub(crate) opening: tokio::sync::RwLock<()>,
}

/// The wrapped keys of a zone and who watches them.
#[derive(Clone, Debug)]
pub(crate) struct Keyed {
    /// The root key and versions that new files are sealed under.
    pub(crate) record: ZoneRecord,
    /// While the zone moves to another root key: the one it had, with the versions that it wraps.
    pub(crate) retiring: Option<ZoneRecord>,
    /// One for each root key, in order of the root keys' names.
    watchers: Vec<Arc<Watcher>>,
}

impl Keyed {
    /// All versions of the zone's key, under either root key.
    pub(crate) fn versions(&self) -> Vec<ZoneKeyVersion> {
        let mut versions: Vec<_> = self
            .records()
            .flat_map(|record| record.versions.iter().map(|(version, _)| *version))
            .collect();
        versions.sort_unstable();
        versions
    }
    fn records(&self) -> impl Iterator<Item = &ZoneRecord> {
        std::iter::once(&self.record).chain(&self.retiring)
    }
}

/// Who uses a zone's keys.
pub(crate) trait ZoneOwner: Send + Sync + std::fmt::Debug {
    /// The keys are gone: drop every decoded byte. Must not block.
    fn went_dark(&self);
    /// The keys are back: load again what was loaded.
    fn came_back(self: Arc<Self>);
}

impl Access {
    pub(crate) fn new(
        database: &str,
        collection: Option<&str>,
        zone: Arc<Zone>,
        record: ZoneRecord,
        watcher: &Arc<Watcher>,
    ) -> Arc<Self> {
        Arc::new(Self {
            scope: ArcSwap::from_pointee(Scope {
                database: database.to_owned(),
                collection: collection.map(str::to_owned),
            }),
            zone,
            keyed: RwLock::new(Keyed {
                record,
                retiring: None,
                watchers: vec![Arc::clone(watcher)],
            }),
            events: watcher.events(),
            refused: Mutex::new(None),
            owner: Mutex::new(None),
            unlocking: Mutex::default(),
            rekeying: tokio::sync::Mutex::new(()),
            opening: tokio::sync::RwLock::new(()),
        })
    }
    pub(crate) fn scope(&self) -> Arc<Scope> {
        self.scope.load_full()
    }
    /// The database's name.
    pub(crate) fn database(&self) -> String {
        self.scope.load().database.clone()
    }
    /// A collection with a key of its own has another name or database from now on.
    pub(crate) fn set_scope(&self, scope: Scope) {
        self.scope.store(Arc::new(scope));
    }
    /// Registers who has to know.
    pub(crate) fn own(&self, owner: Weak<dyn ZoneOwner>) {
        *lock(&self.owner) = Some(owner);
    }
    /// The root key that new files are sealed under.
    pub(crate) fn root(&self) -> RootKeyId {
        self.read().record.root.clone()
    }
    /// The wrapped keys.
    pub(crate) fn keyed(&self) -> Keyed {
        self.read().clone()
    }
    /// The zone and its keys' versions, for people to see.
    pub(crate) fn describe(&self) -> KeyZone {
        let (scope, keyed) = (self.scope(), self.read());
        let mut keys: Vec<KeyVersion> = keyed.records().flat_map(key_versions).collect();
        keys.sort_by_key(|key| key.version);
        KeyZone {
            zone: self.zone.id().to_string(),
            database: scope.database.clone(),
            collection: scope.collection.clone(),
            keys,
        }
    }
    pub(crate) fn watchers(&self) -> Vec<Arc<Watcher>> {
        self.read().watchers.clone()
    }
    /// The right to use the zone, or the refusal that says what to do.
    pub(crate) fn lease(&self) -> Result<Lease> {
        self.zone.lease().map_err(|_| self.refusal())
    }
    /// The refusal while the zone is locked.
    pub(crate) fn refusal(&self) -> Error {
        let Scope { database, collection } = (*self.scope()).clone();
        self.events.on_event(&Event::Refused { database, collection });
        self.why_locked()
    }
    /// What a refusal says, for somebody who only looks.
    pub(crate) fn why_locked(&self) -> Error {
        let reason = match self.status() {
            LockStatus::Locked { reason } => reason,
            LockStatus::Active | LockStatus::Suspect => "the key was not usable a moment ago".to_owned(),
        };
        Error::zone_locked(&self.scope(), &self.locked_root(), &reason)
    }
    /// Names database and key in a refusal that came from below; reports failed verification.
    pub(crate) fn explain(&self, error: Error) -> Error {
        if error.is_unnamed_lock() {
            return self.refusal();
        }
        if error.kind == crate::ErrorKind::Corrupt {
            let event = Event::VerificationFailed {
                database: Some(self.database()),
                object: error.message.clone(),
            };
            self.events.on_event(&event);
        }
        error
    }
    /// What the most unwilling of its root keys allows.
    fn worst(&self) -> LockStatus {
        let states: Vec<_> = self.watchers().iter().map(|watcher| watcher.status()).collect();
        let locked = states.iter().find(|state| matches!(state, LockStatus::Locked { .. }));
        let suspect = states.iter().find(|state| matches!(state, LockStatus::Suspect));
        locked.or(suspect).cloned().unwrap_or(LockStatus::Active)
    }
    pub(crate) fn status(&self) -> LockStatus {
        let states: Vec<_> = self.watchers().iter().map(|watcher| watcher.status()).collect();
        if self.zone.is_unlocked() {
            let suspect = states.contains(&LockStatus::Suspect);
            return if suspect {
                LockStatus::Suspect
            } else {
                LockStatus::Active
            };
        }
        let locked = states
            .into_iter()
            .find(|state| matches!(state, LockStatus::Locked { .. }));
        let refused = || lock(&self.refused).clone().map(|reason| LockStatus::Locked { reason });
        locked.or_else(refused).unwrap_or_else(|| LockStatus::Locked {
            reason: "the zone is being unlocked".to_owned(),
        })
    }

    /// The root key that keeps the zone locked, else the current one.
    fn locked_root(&self) -> RootKeyId {
        let locked = |watcher: &Arc<Watcher>| matches!(watcher.status(), LockStatus::Locked { .. });
        let watchers = self.watchers();
        watchers
            .iter()
            .find(|watcher| locked(watcher))
            .map_or_else(|| self.root(), |watcher| watcher.root.clone())
    }

    /// The stored record has other wrapped keys from now on, and `fresh` is one of them in the clear: it goes into the
    /// zone if that was never locked since `lease` was given. A zone that was locked gets its keys from the new record at
    /// the next unlock.
    pub(crate) fn rekey(
        self: &Arc<Self>,
        lease: &Lease,
        record: ZoneRecord,
        retiring: Option<ZoneRecord>,
        watchers: Vec<Arc<Watcher>>,
        fresh: Option<(ZoneKeyVersion, PlainKey)>,
    ) {
        let before = {
            let mut keyed = self.keyed.write().unwrap_or_else(PoisonError::into_inner);
            if let Some((version, key)) = fresh {
                // A dead lease: the unlock that follows finds the record below.
                let _locked = lease.add_key(version, key);
            }
            let before = std::mem::take(&mut keyed.watchers);
            *keyed = Keyed::new(record, retiring, watchers);
            before
        };
        self.register(&before);
    }

    /// Tells the watchers that came and went.
    fn register(self: &Arc<Self>, before: &[Arc<Watcher>]) {
        let now = self.watchers();
        let added = now
            .iter()
            .filter(|watcher| !before.iter().any(|other| Arc::ptr_eq(other, watcher)));
        added.for_each(|watcher| watcher.add(self));
        let gone = before
            .iter()
            .filter(|watcher| !now.iter().any(|other| Arc::ptr_eq(other, watcher)));
        gone.for_each(|watcher| watcher.remove(self));
        // A root key that was denied before its watcher knew of this zone.
        if self.zone.is_unlocked()
            && let LockStatus::Locked { reason } = self.worst()
        {
            self.zone.lock();
            self.go_dark(&reason);
        }
    }

    /// As [`Self::rekey`], of a zone that is locked.
    pub(crate) fn set_record(self: &Arc<Self>, record: ZoneRecord, watchers: Vec<Arc<Watcher>>) {
        let before = {
            let mut keyed = self.keyed.write().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::take(&mut keyed.watchers);
            *keyed = Keyed::new(record, None, watchers);
            before
        };
        self.register(&before);
    }

    /// As the catalog has it, before anybody uses the zone.
    pub(crate) fn set_retiring(&self, retiring: ZoneRecord, watcher: &Arc<Watcher>) {
        let mut keyed = self.keyed.write().unwrap_or_else(PoisonError::into_inner);
        let mut watchers = std::mem::take(&mut keyed.watchers);
        watchers.push(Arc::clone(watcher));
        *keyed = Keyed::new(keyed.record.clone(), Some(retiring), watchers);
    }

    /// Unlocks the zone with `keys`, which were unwrapped from `keyed`, if nothing said no since `permits` were given and
    /// the zone still has those keys.
    fn unlock(&self, keyed: &Keyed, permits: &[Permit], keys: Vec<(ZoneKeyVersion, PlainKey)>) -> Unlock {
        let now = self.read();
        let same = now.record == keyed.record && now.retiring == keyed.retiring;
        if !same {
            return Unlock::Changed;
        }
        // Whoever locks holds the machine of its root key meanwhile, so nothing can say no in between.
        let held: Option<Vec<_>> = permits.iter().map(Permit::hold).collect();
        if held.is_none() {
            return Unlock::Denied;
        }
        match self.zone.unlock(keys) {
            Ok(()) => Unlock::Done,
            Err(error) => Unlock::Impossible(error.to_string()),
        }
    }

    /// Whether this zone alone is refused.
    fn is_refused(&self) -> bool {
        lock(&self.refused).is_some()
    }
    fn refuse(&self, reason: String) {
        *lock(&self.refused) = Some(reason);
    }
    fn notify(&self, dark: bool) {
        let owner = lock(&self.owner).as_ref().and_then(Weak::upgrade);
        match owner {
            Some(owner) if dark => owner.went_dark(),
            Some(owner) => owner.came_back(),
            None => {}
        }
    }
    fn go_dark(&self, reason: &str) {
        self.notify(true);
        let (Scope { database, collection }, root) = ((*self.scope()).clone(), self.locked_root());
        self.events.on_event(&Event::ZoneLocked {
            database,
            collection,
            root,
            reason: reason.to_owned(),
        });
    }
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Keyed> {
        self.keyed.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of an unlock.
enum Unlock {
    Done,
    /// The zone has other wrapped keys now: ask for those.
    Changed,
    /// A root key was denied meanwhile.
    Denied,
    Impossible(String),
}

impl Keyed {
    fn new(record: ZoneRecord, retiring: Option<ZoneRecord>, mut watchers: Vec<Arc<Watcher>>) -> Self {
        // Machines are held in this order.
        watchers.sort_by(|a, b| a.root.cmp(&b.root));
        watchers.dedup_by(|a, b| Arc::ptr_eq(a, b));
        Self {
            record,
            retiring,
            watchers,
        }
    }
}

fn key_versions(record: &ZoneRecord) -> impl Iterator<Item = KeyVersion> {
    record
        .versions
        .iter()
        .zip(zone_keys(record))
        .map(|((version, wrapped), destroyed)| KeyVersion {
            version: version.number(),
            root: record.root.clone(),
            root_version: root_version(wrapped.as_bytes()),
            wrapped_sha256: destroyed.wrapped_sha256,
        })
}

/// Vault and OpenBao begin what they wrapped with `vault:v` and the version of their key.
fn root_version(wrapped: &[u8]) -> Option<u32> {
    let rest = std::str::from_utf8(wrapped).ok()?.strip_prefix("vault:v")?;
    rest.split_once(':')?.0.parse().ok()
}

/// Every key of a zone, unwrapped by its key service.
pub(crate) async fn decrypt_all(
    keys: &dyn KeyService,
    record: &ZoneRecord,
    why: CallReason,
) -> std::result::Result<Vec<(ZoneKeyVersion, PlainKey)>, KeyServiceError> {
    let mut plain = Vec::with_capacity(record.versions.len());
    for (version, wrapped) in &record.versions {
        let key = keys.decrypt(&record.root, wrapped, &record.context, why).await?;
        record.recognise(*version, &key)?;
        plain.push((*version, key));
    }
    Ok(plain)
}

/// What a key service said, without the key's name (which stands beside it).
pub(crate) fn reason_of(error: &KeyServiceError) -> String {
    match error {
        KeyServiceError::Denied { denial, .. } => denial.to_string(),
        KeyServiceError::Unavailable { outage, .. } => outage.to_string(),
        KeyServiceError::Unsupported { reason, .. } => format!("no key service is configured for it: {reason}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
