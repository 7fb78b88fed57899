//! One collection of a database: what is known of it without a key, and the way to its rows.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use saker_keyring::Unverified;
use saker_model::{CollectionId, PartitionId};
use saker_storage::{Expected, MetaBatch, MetaError, MetaKey};
use tokio::sync::RwLockReadGuard;
use tokio_util::task::TaskTracker;

use crate::{
    error::{Error, ErrorKind, Result},
    opened::{Opened, Pinned},
    records::{CollectionRecord, meta_key, seal},
    recovery,
    shared::Shared,
    types::LoadState,
    zones::{Access, Scope, ZoneOwner},
};

/// A collection. Its rows are behind [`Collection::open`].
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) shared: Arc<Shared>,
    /// Its database's zone, or its own. Changes when it moves to another database.
    access: ArcSwap<Access>,
    /// Whether its zone is its own.
    pub(crate) own_key: bool,
    pub(crate) id: CollectionId,
    /// Held for reading by whatever writes under its zone, for writing while it is moved or dropped: then they wait.
    pub(crate) gate: tokio::sync::RwLock<()>,
    record: RwLock<CollectionRecord>,
    /// The record as it is stored; held while the record is changed.
    stored: tokio::sync::Mutex<Unverified>,
    opened: ArcSwapOption<Opened>,
    /// Held while opening. Tasks of the one before, which must be at their end before the next one begins.
    pub(crate) opening: tokio::sync::Mutex<Option<TaskTracker>>,
    load: Mutex<Load>,
    dropped: AtomicBool,
    /// Whether it is not known what is stored of it.
    unsettled: AtomicBool,
}

/// Held while a collection's record is changed: the record as it is stored.
#[derive(Debug)]
pub(crate) struct RecordLock<'a>(tokio::sync::MutexGuard<'a, Unverified>);

#[derive(Debug, Default)]
struct Load {
    running: bool,
    percent: Arc<AtomicUsize>,
    failure: Option<Error>,
}

/// Pause before a load that met a lock and an unlock begins again.
const LOAD_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Pause before a store that failed is asked again what it holds.
const SETTLE_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How often it is asked.
const SETTLE_TRIES: usize = 20;

impl Collection {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        access: &Arc<Access>,
        record: CollectionRecord,
        stored: Unverified,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            access: ArcSwap::from(Arc::clone(access)),
            own_key: record.zone.is_some(),
            id: record.id,
            gate: tokio::sync::RwLock::new(()),
            record: RwLock::new(record),
            stored: tokio::sync::Mutex::new(stored),
            opened: ArcSwapOption::empty(),
            opening: tokio::sync::Mutex::new(None),
            load: Mutex::default(),
            dropped: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
        })
    }
    /// Its zone.
    pub(crate) fn access(&self) -> Arc<Access> {
        self.access.load_full()
    }
    pub(crate) fn record(&self) -> CollectionRecord {
        self.record.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn name(&self) -> String {
        self.record.read().unwrap_or_else(PoisonError::into_inner).name.clone()
    }

    /// Says in refusals what it is called now.
    pub(crate) fn rescope(&self, database: &str) {
        if self.own_key {
            let collection = Some(self.name());
            self.access().set_scope(Scope {
                database: database.to_owned(),
                collection,
            });
        }
    }

    /// Changes the record, durably.
    ///
    /// # Errors
    /// If the catalog's zone is locked or the store fails.
    pub(crate) async fn change_record(&self, change: impl FnOnce(&mut CollectionRecord)) -> Result<()> {
        self.change_record_with(MetaBatch::new(), change).await
    }
    /// As [`Self::change_record`], together with what is in `batch` already.
    pub(crate) async fn change_record_with(
        &self,
        batch: MetaBatch,
        change: impl FnOnce(&mut CollectionRecord),
    ) -> Result<()> {
        self.replace_record(&mut self.lock_record().await, batch, change, false)
            .await
    }
    /// As [`Self::change_record_with`]; an error means that nothing was stored. Where the store's answer leaves that
    /// open, it is asked until it tells; if it never does, the collection is out of use until the next start.
    pub(crate) async fn change_record_for_good(
        &self,
        batch: MetaBatch,
        change: impl FnOnce(&mut CollectionRecord),
    ) -> Result<()> {
        self.replace_record(&mut self.lock_record().await, batch, change, true)
            .await
    }
    /// As [`Self::change_record_for_good`], for whoever looked at the record before, under the lock that this gives.
    pub(crate) async fn change_locked_record_for_good(
        &self,
        lock: &mut RecordLock<'_>,
        batch: MetaBatch,
        change: impl FnOnce(&mut CollectionRecord),
    ) -> Result<()> {
        self.replace_record(lock, batch, change, true).await
    }
    /// The record does not change while this lives.
    pub(crate) async fn lock_record(&self) -> RecordLock<'_> {
        RecordLock(self.stored.lock().await)
    }

    async fn replace_record(
        &self,
        lock: &mut RecordLock<'_>,
        mut batch: MetaBatch,
        change: impl FnOnce(&mut CollectionRecord),
        settle: bool,
    ) -> Result<()> {
        let stored = &mut *lock.0;
        let mut next = self.record();
        change(&mut next);
        let key = meta_key("collection", self.id)?;
        let value = seal(&self.shared.platform_lease()?, &key, &next).map_err(|e| self.shared.platform.explain(e))?;
        batch.expect(key.clone(), Expected::Value(stored.clone()));
        batch.put(key.clone(), value.clone());
        match self.shared.meta.commit(batch).await {
            Ok(()) => {}
            Err(error @ (MetaError::Conflict { .. } | MetaError::Full | MetaError::TooLarge { .. })) => {
                return Err(error.into());
            }
            Err(error) if !settle => return Err(error.into()),
            Err(error) => self.settle(&key, value.as_bytes(), error).await?,
        }
        *stored = value.into_unverified();
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Finds out whether a record was stored although the store failed.
    ///
    /// # Errors
    /// It was not. Or nobody can tell: then the collection is out of use until the next start, which reads what is there.
    async fn settle(&self, key: &MetaKey, record: &[u8], error: MetaError) -> Result<()> {
        for _ in 0..SETTLE_TRIES {
            match self.shared.meta.get(key).await {
                Ok(Some(there)) if there.as_bytes() == record => return Ok(()),
                Ok(_) => return Err(error.into()),
                Err(_) if self.shared.stop.is_cancelled() => break,
                Err(_) => tokio::time::sleep(SETTLE_AGAIN_AFTER).await,
            }
        }
        self.unsettled.store(true, Ordering::Release);
        self.close();
        tracing::error!(collection = %self.id, "out of use until the next start: the disk failed, and what it holds is not known: {error}");
        Err(error.into())
    }

    /// The collection in use, opened by recovery if it is not.
    ///
    /// # Errors
    /// A locked zone, a dropped collection, damage.
    pub(crate) async fn open(self: &Arc<Self>) -> Result<Arc<Opened>> {
        self.shared.check_running()?;
        if let Some(opened) = self.current() {
            return Ok(opened);
        }
        self.access().lease()?;
        let mut opening = self.opening.lock().await;
        if let Some(opened) = self.current() {
            return Ok(opened);
        }
        if self.dropped.load(Ordering::Acquire) {
            return Err(Error::collection_not_found(&self.access().database(), &self.name()));
        }
        if self.unsettled.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Storage,
                format!(
                    "collection {} is out of use until the server starts again: the disk failed, and what it holds is \
                     not known",
                    self.name()
                ),
            ));
        }
        self.close();
        if let Some(before) = opening.as_ref() {
            before.close();
            before.wait().await;
        }
        let access = self.access();
        let lease = access.lease()?;
        let opened = recovery::recover(&self.shared, &access, self.id, lease).await;
        let opened = opened.map_err(|error| access.explain(error))?;
        *opening = Some(opened.tasks.clone());
        self.opened.store(Some(Arc::clone(&opened)));
        if !opened.usable() || self.dropped.load(Ordering::Acquire) {
            self.close();
            return Err(access
                .lease()
                .err()
                .unwrap_or_else(|| crate::opened::interrupted(&opened)));
        }
        opened.kick_builds();
        Ok(opened)
    }

    /// As [`Self::open`], for whoever writes under its zone: while the guard lives it is neither moved nor dropped, and
    /// while it is, this waits.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_to_write(self: &Arc<Self>) -> Result<(RwLockReadGuard<'_, ()>, Arc<Opened>)> {
        let gate = self.gate.read().await;
        Ok((gate, self.open().await?))
    }

    /// The collection in use, if it is.
    pub(crate) fn current(&self) -> Option<Arc<Opened>> {
        self.opened.load_full().filter(|opened| opened.usable())
    }

    /// The collection in use and loaded, for readers.
    ///
    /// # Errors
    /// A locked zone; not loaded.
    pub(crate) fn reading(self: &Arc<Self>) -> Result<Arc<Opened>> {
        self.shared.check_running()?;
        self.access().lease()?;
        match self.current() {
            Some(opened) => Ok(opened),
            None => {
                // The zone may have been locked since it was looked at.
                self.access().lease()?;
                Err(self.not_loaded())
            }
        }
    }

    /// All rows as of now, of these partitions (all if `None`).
    ///
    /// # Errors
    /// A locked zone; not loaded.
    pub(crate) fn pin(self: &Arc<Self>, opened: &Opened, partitions: Option<&[PartitionId]>) -> Result<Vec<Pinned>> {
        opened.pin(partitions).ok_or_else(|| match opened.check() {
            Err(refusal) => refusal,
            Ok(()) => self.not_loaded(),
        })
    }

    /// Why it cannot be read. What should be loaded and is not (after a failed store, say) begins to load.
    pub(crate) fn not_loaded(self: &Arc<Self>) -> Error {
        let name = self.name();
        let mut error = Error::not_loaded(&name);
        let failure = self.load.lock().unwrap_or_else(PoisonError::into_inner).failure.clone();
        let damaged = failure
            .as_ref()
            .is_some_and(|failure| failure.kind == ErrorKind::Corrupt);
        if self.record().load_wanted && self.access().zone.is_unlocked() && !damaged {
            self.start_load();
        }
        if let Some(failure) = failure {
            return failure;
        }
        let load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        if load.running {
            let percent = load.percent.load(Ordering::Relaxed);
            error.message = format!("collection not fully loaded[collection={name}][progress={percent}%]");
        }
        error
    }

    /// Stops using it and drops what is decoded.
    pub(crate) fn close(&self) {
        if let Some(opened) = self.opened.swap(None) {
            opened.shut();
        }
    }
    /// As [`Self::close`], for good; returns when nothing of it runs any more.
    pub(crate) async fn close_for_drop(&self) {
        self.dropped.store(true, Ordering::Release);
        self.close();
        let opening = self.opening.lock().await;
        self.close();
        if let Some(tasks) = opening.as_ref() {
            tasks.close();
            tasks.wait().await;
        }
    }

    /// Goes on as `next`, in the zone that `next` is in. The one before stops its tasks; what it has decoded is shared
    /// with `next`, and its readers come to their end. The caller holds `opening`.
    pub(crate) fn hand_over(&self, next: &Arc<Opened>, opening: &mut Option<TaskTracker>) {
        *opening = Some(next.tasks.clone());
        self.access.store(Arc::clone(&next.access));
        let before = self.opened.swap(Some(Arc::clone(next)));
        if let Some(before) = before {
            before.retire();
        }
        if !next.usable() {
            // Locked meanwhile: whoever locked it may have found the one before.
            self.close();
        }
    }
    /// Loads what should be loaded, and builds what is missing.
    pub(crate) fn go_on(self: &Arc<Self>) {
        match self.current() {
            Some(opened) if opened.memory().loaded || !self.record().load_wanted => opened.kick_builds(),
            Some(_) | None => {
                if self.record().load_wanted && self.access().zone.is_unlocked() {
                    self.start_load();
                }
            }
        }
    }
    /// It is not dropped after all; it comes back as it was loaded.
    pub(crate) fn undo_drop(self: &Arc<Self>) {
        self.dropped.store(false, Ordering::Release);
        if self.record().load_wanted {
            self.start_load();
        }
    }

    /// Loads in the background what users want loaded.
    pub(crate) fn start_load(self: &Arc<Self>) {
        let percent = {
            let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut load.running, true) {
                return;
            }
            load.failure = None;
            load.percent.store(0, Ordering::Relaxed);
            Arc::clone(&load.percent)
        };
        let this = Arc::clone(self);
        let load = async move {
            loop {
                let failure = this
                    .load_once(&percent)
                    .await
                    .err()
                    .map(|error| this.access().explain(error));
                if let Some(failure) = &failure {
                    tracing::warn!(collection = %this.id, "collection not loaded: {failure}");
                }
                let locked = matches!(&failure, Some(error) if matches!(error.kind, ErrorKind::ZoneLocked { .. }));
                {
                    let mut load = this.load.lock().unwrap_or_else(PoisonError::into_inner);
                    // Locked and unlocked again meanwhile: whoever unlocked it found this load running.
                    let again = locked && this.access().zone.is_unlocked() && !this.shared.stop.is_cancelled();
                    if !again {
                        load.running = false;
                        load.failure = failure;
                        return;
                    }
                }
                tokio::time::sleep(LOAD_AGAIN_AFTER).await;
            }
        };
        self.shared.tasks.spawn_on(load, &self.shared.runtime);
    }

    async fn load_once(self: &Arc<Self>, percent: &AtomicUsize) -> Result<()> {
        let mut opened = self.open().await?;
        while let Err(error) = opened.load(percent).await {
            // Moved to another zone meanwhile.
            let next = self.current().filter(|next| !Arc::ptr_eq(next, &opened));
            opened = next.ok_or(error)?;
        }
        if !self.record().load_wanted {
            opened.release().await;
        }
        opened.kick_builds();
        Ok(())
    }

    /// How far loading is.
    ///
    /// # Errors
    /// Damage that keeps it from being loaded.
    pub(crate) fn load_state(self: &Arc<Self>) -> Result<LoadState> {
        if !self.record().load_wanted {
            return Ok(LoadState::NotLoaded);
        }
        if self.current().is_some_and(|opened| opened.memory().loaded) {
            return Ok(LoadState::Loaded);
        }
        let access = self.access();
        if !access.zone.is_unlocked() {
            let refusal = access.why_locked();
            return Ok(LoadState::Locked { refusal });
        }
        let percent = {
            let load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
            match &load.failure {
                Some(failure) if failure.kind == ErrorKind::Corrupt => return Err(failure.clone()),
                Some(_) | None => load.percent.load(Ordering::Relaxed).min(99),
            }
        };
        if self.access().zone.is_unlocked() {
            // A load that failed (a full disk, say) is tried again by whoever looks.
            self.start_load();
        }
        Ok(LoadState::Loading {
            percent: u8::try_from(percent).unwrap_or(99),
        })
    }
}

impl ZoneOwner for Collection {
    fn went_dark(&self) {
        self.close();
    }
    fn came_back(self: Arc<Self>) {
        if self.record().load_wanted {
            self.start_load();
        }
    }
}
