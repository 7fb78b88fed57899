//! A job: what is stored of it, what is known of it in memory, what others see of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use saker_keyring::RootKeyId;
use saker_model::{CollectionId, DatabaseId};
use saker_storage::MetaBatch;
use serde::{Deserialize, Serialize};

use super::owner::Owner;
use crate::{
    error::Result,
    receipts::DestroyedKey,
    records::{meta_key, seal},
    shared::Shared,
};

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// A new zone key.
    Rotate,
    /// The same, because the root key has new material.
    Rewrap,
    /// A new zone key under another root key.
    ChangeKey,
    /// All rows written again under fresh data keys.
    Reencrypt,
}

impl JobKind {
    /// Its name in the command line and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Rewrap => "rewrap",
            Self::ChangeKey => "change-key",
            Self::Reencrypt => "reencrypt",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a job is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It works, or waits for its turn.
    Running,
    /// It cannot go on now and will by itself.
    Waiting {
        /// What it waits for.
        reason: String,
    },
    /// It stopped, and goes on when it is tried again.
    Failed {
        /// Why.
        reason: String,
    },
    /// It is done.
    Done,
}

/// A job as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// Its id.
    pub id: i64,
    /// What it is for.
    pub kind: JobKind,
    /// The database.
    pub database: String,
    /// The collection, if it is about one with a key of its own.
    pub collection: Option<String>,
    /// Id of the zone.
    pub zone: String,
    /// The root key of the zone when the job is done.
    pub root: RootKeyId,
    /// The root key that it had, if that changes.
    pub from: Option<RootKeyId>,
    /// The version of the new zone key, once there is one.
    pub key_version: Option<u32>,
    /// How it is doing.
    pub state: JobState,
    /// Files, log segments and values that are done, and that there are; for a re-encryption bytes of segments. Both are
    /// 0 before they were counted.
    pub done: u64,
    /// See `done`.
    pub total: u64,
    /// When it began: Unix time in milliseconds.
    pub begun_ms: u64,
    /// When it was done.
    pub finished_ms: Option<u64>,
    /// Wrapped zone keys that it destroyed.
    pub destroyed: Vec<DestroyedKey>,
}

impl JobInfo {
    /// How much of it is done, in percent.
    #[must_use]
    pub fn percent(&self) -> u8 {
        if self.state == JobState::Done {
            return 100;
        }
        let percent = self.done.saturating_mul(100).checked_div(self.total).unwrap_or(0);
        u8::try_from(percent.min(99)).unwrap_or(99)
    }
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// There is no new zone key yet.
    Begun,
    /// There is, and data keys are being wrapped under it.
    Wrapping,
    /// Rows are being written again.
    Writing,
    Done,
}

/// A job as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub(super) id: i64,
    pub(super) kind: JobKind,
    pub(super) database: DatabaseId,
    pub(super) collection: Option<CollectionId>,
    /// Names as of the beginning, for jobs whose owner is gone.
    pub(super) database_name: String,
    pub(super) collection_name: Option<String>,
    pub(super) zone: String,
    pub(super) root: RootKeyId,
    pub(super) from: Option<RootKeyId>,
    pub(super) step: Step,
    /// The version that all data keys are to be wrapped under.
    pub(super) target: Option<u32>,
    /// Segments with smaller ids are to be written again.
    pub(super) before: i64,
    pub(super) begun_ms: u64,
    pub(super) finished_ms: Option<u64>,
    /// As of its end.
    pub(super) total: u64,
    pub(super) failure: Option<String>,
    pub(super) destroyed: Vec<DestroyedKey>,
}

impl JobRecord {
    pub(super) fn new(shared: &Shared, kind: JobKind, owner: &Owner, root: RootKeyId) -> Self {
        let scope = owner.access().scope();
        Self {
            id: shared.oracle.id(),
            kind,
            database: owner.database_id(),
            collection: owner.collection_id(),
            database_name: scope.database.clone(),
            collection_name: scope.collection.clone(),
            zone: owner.access().zone.id().to_string(),
            root,
            from: None,
            step: Step::Begun,
            target: None,
            before: 0,
            begun_ms: shared.config.clock.wall_ms(),
            finished_ms: None,
            total: 0,
            failure: None,
            destroyed: Vec::new(),
        }
    }
    /// Whether it is under way.
    pub(super) fn is_active(&self) -> bool {
        self.step != Step::Done && self.failure.is_none()
    }
}

/// A job in the running engine.
#[derive(Debug)]
pub(crate) struct Job {
    record: Mutex<JobRecord>,
    pub(super) done: AtomicU64,
    pub(super) total: AtomicU64,
    waiting: Mutex<Option<String>>,
}

impl Job {
    pub(super) fn new(record: JobRecord) -> Arc<Self> {
        Arc::new(Self {
            done: AtomicU64::new(record.total),
            total: AtomicU64::new(record.total),
            record: Mutex::new(record),
            waiting: Mutex::new(None),
        })
    }
    pub(super) fn record(&self) -> JobRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(super) fn id(&self) -> i64 {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).id
    }
    pub(super) fn wait_for(&self, reason: Option<String>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
    /// Begins to count anew.
    pub(super) fn count_from(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }
    pub(super) fn advance(&self, by: u64) {
        self.done.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn info(&self) -> JobInfo {
        let record = self.record();
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = match (record.step, record.failure, waiting) {
            (Step::Done, _, _) => JobState::Done,
            (_, Some(reason), _) => JobState::Failed { reason },
            (_, None, Some(reason)) => JobState::Waiting { reason },
            (_, None, None) => JobState::Running,
        };
        let total = self.total.load(Ordering::Relaxed);
        JobInfo {
            id: record.id,
            kind: record.kind,
            database: record.database_name,
            collection: record.collection_name,
            zone: record.zone,
            root: record.root,
            from: record.from,
            key_version: record.target,
            state,
            done: self.done.load(Ordering::Relaxed).min(total),
            total,
            begun_ms: record.begun_ms,
            finished_ms: record.finished_ms,
            destroyed: record.destroyed,
        }
    }

    /// Adds the job as it is to a batch.
    pub(super) fn put(&self, shared: &Shared, batch: &mut MetaBatch) -> Result<()> {
        put(shared, batch, &self.record())
    }
    /// Changes the job in memory, after that was stored.
    pub(super) fn set(&self, record: JobRecord) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }
    /// Changes the job, durably, together with what is in `batch`.
    ///
    /// # Errors
    /// A locked catalog, a failed store.
    pub(super) async fn change(
        &self,
        shared: &Shared,
        mut batch: MetaBatch,
        change: impl FnOnce(&mut JobRecord),
    ) -> Result<()> {
        let mut record = self.record();
        change(&mut record);
        put(shared, &mut batch, &record)?;
        shared.meta.commit(batch).await?;
        self.set(record);
        Ok(())
    }
    /// Removes what is stored of it.
    ///
    /// # Errors
    /// A failed store.
    pub(super) async fn forget(&self, shared: &Shared) -> Result<()> {
        let mut batch = MetaBatch::new();
        batch.delete(meta_key("job", self.id())?);
        Ok(shared.meta.commit(batch).await?)
    }
}

/// Adds a job to a batch.
pub(super) fn put(shared: &Shared, batch: &mut MetaBatch, record: &JobRecord) -> Result<()> {
    let key = meta_key("job", record.id)?;
    let value = seal(&shared.platform_lease()?, &key, record).map_err(|error| shared.platform.explain(error))?;
    batch.put(key, value);
    Ok(())
}
