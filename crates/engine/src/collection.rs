//! One collection of a database: what is known of it without a key, and the way to its rows.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use saker_keyring::Unverified;
use saker_model::{CollectionId, PartitionId};
use saker_storage::{Expected, MetaBatch};
use tokio_util::task::TaskTracker;

use crate::{
    error::{Error, ErrorKind, Result},
    opened::{Opened, Pinned},
    records::{CollectionRecord, meta_key, seal},
    recovery,
    shared::Shared,
    types::LoadState,
    zones::Access,
};

/// A collection. Its rows are behind [`Collection::open`].
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) access: Arc<Access>,
    pub(crate) id: CollectionId,
    record: RwLock<CollectionRecord>,
    /// The record as it is stored; held while the record is changed.
    stored: tokio::sync::Mutex<Unverified>,
    opened: ArcSwapOption<Opened>,
    /// Held while opening. Tasks of the one before, which must be at their end before the next one begins.
    opening: tokio::sync::Mutex<Option<TaskTracker>>,
    load: Mutex<Load>,
    dropped: AtomicBool,
}

#[derive(Debug, Default)]
struct Load {
    running: bool,
    percent: Arc<AtomicUsize>,
    failure: Option<Error>,
}

/// Pause before a load that met a lock and an unlock begins again.
const LOAD_AGAIN_AFTER: Duration = Duration::from_millis(20);

impl Collection {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        access: &Arc<Access>,
        record: CollectionRecord,
        stored: Unverified,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            access: Arc::clone(access),
            id: record.id,
            record: RwLock::new(record),
            stored: tokio::sync::Mutex::new(stored),
            opened: ArcSwapOption::empty(),
            opening: tokio::sync::Mutex::new(None),
            load: Mutex::default(),
            dropped: AtomicBool::new(false),
        })
    }
    pub(crate) fn record(&self) -> CollectionRecord {
        self.record.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn name(&self) -> String {
        self.record.read().unwrap_or_else(PoisonError::into_inner).name.clone()
    }

    /// Changes the record, durably.
    ///
    /// # Errors
    /// If the catalog's zone is locked or the store fails.
    pub(crate) async fn change_record(&self, change: impl FnOnce(&mut CollectionRecord)) -> Result<()> {
        let mut stored = self.stored.lock().await;
        let mut next = self.record();
        change(&mut next);
        let key = meta_key("collection", self.id)?;
        let value = seal(&self.shared.platform_lease()?, &key, &next).map_err(|e| self.shared.platform.explain(e))?;
        let mut batch = MetaBatch::new();
        batch.expect(key.clone(), Expected::Value(stored.clone()));
        if next.dropping {
            // The wrapped keys of definition and manifest go with the same stroke.
            batch
                .delete(meta_key("body", self.id)?)
                .delete(meta_key("manifest", self.id)?);
        }
        batch.put(key, value.clone());
        self.shared.meta.commit(batch).await?;
        *stored = value.into_unverified();
        *self.record.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
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
        self.access.lease()?;
        let mut opening = self.opening.lock().await;
        if let Some(opened) = self.current() {
            return Ok(opened);
        }
        if self.dropped.load(Ordering::Acquire) {
            return Err(Error::collection_not_found(&self.access.name, &self.name()));
        }
        self.close();
        if let Some(before) = opening.as_ref() {
            before.close();
            before.wait().await;
        }
        let lease = self.access.lease()?;
        let opened = recovery::recover(&self.shared, &self.access, self.id, lease).await;
        let opened = opened.map_err(|error| self.access.explain(error))?;
        *opening = Some(opened.tasks.clone());
        self.opened.store(Some(Arc::clone(&opened)));
        if !opened.usable() || self.dropped.load(Ordering::Acquire) {
            self.close();
            return Err(self
                .access
                .lease()
                .err()
                .unwrap_or_else(|| crate::opened::interrupted(&opened)));
        }
        opened.kick_builds();
        Ok(opened)
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
        self.access.lease()?;
        match self.current() {
            Some(opened) => Ok(opened),
            None => Err(self.not_loaded()),
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
        if self.record().load_wanted && self.access.zone.is_unlocked() && !damaged {
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
        self.shared.tasks.spawn(async move {
            loop {
                let failure = this
                    .load_once(&percent)
                    .await
                    .err()
                    .map(|error| this.access.explain(error));
                if let Some(failure) = &failure {
                    tracing::warn!(collection = %this.id, "collection not loaded: {failure}");
                }
                let locked = matches!(&failure, Some(error) if matches!(error.kind, ErrorKind::ZoneLocked { .. }));
                {
                    let mut load = this.load.lock().unwrap_or_else(PoisonError::into_inner);
                    // Locked and unlocked again meanwhile: whoever unlocked it found this load running.
                    let again = locked && this.access.zone.is_unlocked() && !this.shared.stop.is_cancelled();
                    if !again {
                        load.running = false;
                        load.failure = failure;
                        return;
                    }
                }
                tokio::time::sleep(LOAD_AGAIN_AFTER).await;
            }
        });
    }

    async fn load_once(self: &Arc<Self>, percent: &AtomicUsize) -> Result<()> {
        let opened = self.open().await?;
        opened.load(percent).await?;
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
        let percent = {
            let load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
            match &load.failure {
                Some(failure) if failure.kind == ErrorKind::Corrupt => return Err(failure.clone()),
                Some(_) | None => load.percent.load(Ordering::Relaxed).min(99),
            }
        };
        if self.access.zone.is_unlocked() {
            // A load that failed (a full disk, say) is tried again by whoever looks.
            self.start_load();
        }
        Ok(LoadState::Loading {
            percent: u8::try_from(percent).unwrap_or(99),
        })
    }
}
