//! A job's life: its turn, its steps, and what it does when one of them cannot be done now.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use saker_keyring::{CallReason, KeyServiceError, Lease, ZoneKeyVersion, ZoneRecord};
use saker_storage::MetaBatch;

use super::{
    FINISHED_MAX, Rekey,
    job::{Job, JobKind, Step, put},
    owner::{Owner, Wrapped},
    platform, renew, wrap,
};
use crate::{
    engine::Engine,
    error::{Error, ErrorKind},
    events::Event,
    receipts::{DestroyedKey, zone_keys},
    records::meta_key,
    shared::Shared,
    zones::{Access, reason_of},
};

/// Why a step was not done.
#[derive(Debug)]
pub(super) enum Trouble {
    Engine(Error),
    KeyService(KeyServiceError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<KeyServiceError> for Trouble {
    fn from(error: KeyServiceError) -> Self {
        Self::KeyService(error)
    }
}

impl Trouble {
    pub(super) fn into_error(self, access: &Access) -> Error {
        match self {
            Self::Engine(error) => access.explain(error),
            Self::KeyService(error) => {
                let root = match &error {
                    KeyServiceError::Denied { root, .. }
                    | KeyServiceError::Unavailable { root, .. }
                    | KeyServiceError::Unsupported { root, .. } => root.clone(),
                };
                let message = format!(
                    "cannot use root key {root}: {}; check that the key exists, is enabled, and that its policy allows \
                     this server GenerateDataKey and Decrypt",
                    reason_of(&error)
                );
                Error::new(ErrorKind::KeyUnusable { root }, message)
            }
        }
    }
}

/// Shortest and longest pause before a key service or a store that failed is tried again.
const AGAIN_AFTER_MIN: Duration = Duration::from_millis(200);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);
/// How often a store that fails is tried before the job fails.
const STORE_FAILURES_MAX: u32 = 6;
/// How often a locked zone is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest from reading a value of the catalog until it was opened.
const READ_MAX: Duration = Duration::from_secs(5);
/// Passes over a zone before the job fails because there is always something left.
const PASSES_MAX: usize = 8;

/// A job's task: ends when it is done, failed or its owner is gone, and with the engine. Only its waiting is broken off by
/// a stop: what it stores, it stores to the end.
pub(super) async fn run(engine: Weak<Engine>, shared: Arc<Shared>, rekey: Arc<Rekey>, owner: Owner, job: Arc<Job>) {
    let access = owner.access();
    let Some(_alone) = unless_stopped(&shared, access.rekeying.lock()).await else {
        return;
    };
    let (mut pause, mut failures) = (AGAIN_AFTER_MIN, 0);
    loop {
        job.wait_for(None);
        let outcome = {
            // Not held while it waits for a key.
            let Some(Ok(_turn)) = unless_stopped(&shared, rekey.turns.acquire()).await else {
                return;
            };
            steps(&engine, &shared, &owner, &job).await
        };
        let Err(trouble) = outcome else {
            return trim(&shared, &rekey).await;
        };
        if engine.upgrade().is_some_and(|engine| !owner.is_there(&engine)) {
            return give_up(&shared, &rekey, &job).await;
        }
        failures += 1;
        let Some(next) = unless_stopped(&shared, what_next(&access, trouble, failures)).await else {
            return;
        };
        let waited = match next {
            Next::Unlocked(reason) => {
                failures = 0;
                job.wait_for(Some(reason));
                unless_stopped(&shared, unlocked(&shared, &access)).await
            }
            Next::Again(reason) => {
                tracing::warn!(job = job.id(), reason, "key job goes on in a moment");
                job.wait_for(Some(reason));
                let waited = unless_stopped(&shared, tokio::time::sleep(pause)).await;
                pause = (pause * 2).min(AGAIN_AFTER_MAX);
                waited
            }
            Next::Fail(reason) => return fail(&shared, &job, reason).await,
            Next::Stop => return,
        };
        if waited.is_none() {
            return;
        }
    }
}

/// What comes of `waiting`; `None` if the engine stops before.
async fn unless_stopped<T>(shared: &Shared, waiting: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = shared.stop.cancelled() => None,
        done = waiting => Some(done),
    }
}

async fn unlocked(shared: &Shared, access: &Access) {
    while !access.zone.is_unlocked() || !shared.platform.zone.is_unlocked() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn give_up(shared: &Shared, rekey: &Rekey, job: &Job) {
    tracing::info!(job = job.id(), "what the job was for is gone");
    rekey.jobs().remove(&job.id());
    if let Err(error) = job.forget(shared).await {
        tracing::warn!(job = job.id(), "job not removed: {error}");
    }
}

enum Next {
    /// Goes on when the zone is unlocked.
    Unlocked(String),
    Again(String),
    Fail(String),
    /// The engine stops; the next start goes on.
    Stop,
}

async fn what_next(access: &Arc<Access>, trouble: Trouble, failures: u32) -> Next {
    let denied = matches!(&trouble, Trouble::KeyService(KeyServiceError::Denied { .. }));
    let outage = matches!(&trouble, Trouble::KeyService(KeyServiceError::Unavailable { .. }));
    let error = trouble.into_error(access);
    if error.kind == ErrorKind::ShuttingDown {
        return Next::Stop;
    }
    if denied {
        // Is the key itself denied, or this one use of it?
        let watchers = access.watchers();
        futures::future::join_all(watchers.iter().map(|watcher| watcher.check_now())).await;
    }
    if !access.zone.is_unlocked() {
        return Next::Unlocked(access.why_locked().message);
    }
    let locked = matches!(error.kind, ErrorKind::ZoneLocked { .. });
    let store = matches!(error.kind, ErrorKind::Storage | ErrorKind::Full);
    if outage || locked || (store && failures < STORE_FAILURES_MAX) {
        return Next::Again(error.message);
    }
    Next::Fail(error.message)
}

async fn fail(shared: &Shared, job: &Job, reason: String) {
    let record = job.record();
    tracing::error!(job = record.id, reason, "key job failed; it can be tried again");
    shared.emit(&Event::KeyJobFailed {
        job: record.id,
        database: record.database_name.clone(),
        collection: record.collection_name.clone(),
        reason: reason.clone(),
    });
    let mut failed = record;
    failed.failure = Some(reason);
    let stored = job.change(shared, MetaBatch::new(), |record| {
        record.failure.clone_from(&failed.failure)
    });
    if let Err(error) = stored.await {
        tracing::warn!(job = failed.id, "the job's failure is not stored: {error}");
        job.set(failed);
    }
}

/// Removes the oldest of too many finished jobs.
async fn trim(shared: &Shared, rekey: &Rekey) {
    let mut old: Vec<i64> = {
        let jobs = rekey.jobs();
        jobs.values()
            .map(|job| job.record())
            .filter(|record| record.step == Step::Done)
            .map(|record| record.id)
            .collect()
    };
    old.truncate(old.len().saturating_sub(FINISHED_MAX));
    let mut batch = MetaBatch::new();
    for id in &old {
        if let Ok(key) = meta_key("job", id) {
            batch.delete(key);
        }
    }
    if !old.is_empty() && shared.meta.commit(batch).await.is_ok() {
        let mut jobs = rekey.jobs();
        old.iter().for_each(|id| drop(jobs.remove(id)));
    }
}

/// What is left of the job's steps.
async fn steps(engine: &Weak<Engine>, shared: &Arc<Shared>, owner: &Owner, job: &Arc<Job>) -> Result<(), Trouble> {
    loop {
        let record = job.record();
        match record.step {
            Step::Begun => {
                let Some(engine) = engine.upgrade() else { return Ok(()) };
                begin(&engine, owner, job).await?;
            }
            Step::Wrapping => {
                let target = ZoneKeyVersion::new(record.target.unwrap_or(0));
                wrap_all(engine, shared, owner, job, target).await?;
                finish(engine, shared, owner, job, target).await?;
            }
            Step::Writing => {
                renew::renew(shared, owner, job, record.before).await?;
                let now = shared.config.clock.wall_ms();
                let total = job.total.load(std::sync::atomic::Ordering::Relaxed);
                job.change(shared, MetaBatch::new(), |record| {
                    record.step = Step::Done;
                    record.finished_ms = Some(now);
                    record.total = total;
                })
                .await?;
                shared.emit(&finished(job, owner));
            }
            Step::Done => return Ok(()),
        }
    }
}

/// Makes the new zone key and tries it; one commit adds it to the zone's record and notes that in the job.
pub(super) async fn begin(engine: &Arc<Engine>, owner: &Owner, job: &Arc<Job>) -> Result<(), Trouble> {
    let shared = &engine.shared;
    let (access, mut record) = (owner.access(), job.record());
    let lease = access.lease()?;
    let keyed = access.keyed();
    let root = record.root.clone();
    let newest = keyed.versions().last().copied().unwrap_or(ZoneKeyVersion::FIRST);
    let number = newest.number().checked_add(1);
    let target = ZoneKeyVersion::new(number.ok_or_else(|| Error::internal("the zone has no version left"))?);
    let why = if record.kind == JobKind::ChangeKey {
        CallReason::Validate
    } else {
        CallReason::Rotate
    };
    let context = keyed.record.context.clone();
    let asked = engine.known_watcher(&root).map(|watcher| watcher.ask());
    let stopped = || Error::new(ErrorKind::ShuttingDown, "the server is shutting down; try again later");
    let generated = shared.keys.generate_data_key(&root, &context, why);
    let generated = unless_stopped(shared, generated).await.ok_or_else(stopped)?;
    key_used(shared, &root, "GenerateDataKey", generated.is_ok());
    let generated = generated?;
    let mut fresh = ZoneRecord {
        zone: keyed.record.zone,
        root: root.clone(),
        context: context.clone(),
        versions: Vec::new(),
        checks: std::collections::BTreeMap::new(),
    };
    fresh.add(target, &generated);
    let again = shared.keys.decrypt(&root, &generated.wrapped, &context, why);
    let again = unless_stopped(shared, again).await.ok_or_else(stopped)?;
    key_used(shared, &root, "Decrypt", again.is_ok());
    fresh.recognise(target, &again?)?;

    let change = record.kind == JobKind::ChangeKey;
    record.step = Step::Wrapping;
    record.target = Some(target.number());
    let mut batch = MetaBatch::new();
    put(shared, &mut batch, &record)?;
    let stored = owner
        .store(shared, batch, false, |wrapped, customer_key| {
            if change {
                wrapped.retiring = Some(std::mem::replace(&mut wrapped.zone, fresh));
                *customer_key = true;
            } else {
                wrapped.zone.add(target, &generated);
            }
        })
        .await?;
    job.set(record.clone());
    let watchers = watchers_of(engine, &stored);
    if let Some(watcher) = watchers.iter().find(|watcher| watcher.root == root) {
        watcher.confirmed_or_new(asked);
    }
    let key = Some((target, generated.plain));
    access.rekey(&lease, stored.zone, stored.retiring, watchers, key);
    let scope = access.scope();
    shared.emit(&Event::RotationStarted {
        job: record.id,
        kind: record.kind.as_str(),
        database: scope.database.clone(),
        collection: scope.collection.clone(),
        root,
        from: record.from,
        key_version: target.number(),
    });
    Ok(())
}

fn watchers_of(engine: &Engine, wrapped: &Wrapped) -> Vec<Arc<crate::zones::Watcher>> {
    let records = std::iter::once(&wrapped.zone).chain(&wrapped.retiring);
    records.map(|record| engine.watcher(&record.root)).collect()
}

/// Wraps every data key under the target version, until a pass finds none that is not.
async fn wrap_all(
    engine: &Weak<Engine>,
    shared: &Arc<Shared>,
    owner: &Owner,
    job: &Arc<Job>,
    target: ZoneKeyVersion,
) -> Result<(), Trouble> {
    let access = owner.access();
    for _ in 0..PASSES_MAX {
        if let Owner::Platform(_) = owner {
            let gone = || Error::new(ErrorKind::ShuttingDown, "the server is shutting down");
            let engine = engine.upgrade().ok_or_else(gone)?;
            platform::wrap(&engine, target, job).await?;
        } else {
            let collections = owner.collections().await;
            let mut total = 0;
            for collection in &collections {
                total += wrap::count(shared, collection).await?;
            }
            job.count_from(total);
            for collection in &collections {
                wrap::wrap(shared, &access, collection, target, job).await?;
            }
        }
        // From here on nothing under an older key is stored any more: the look that follows is the last word.
        shared.fence.raise(access.zone.id(), target).await;
        let mut left = 0;
        if let Owner::Platform(_) = owner {
            left += platform::count_older(shared, target).await?;
        }
        for collection in owner.collections().await {
            left += wrap::count_older(shared, &access, &collection, target).await?;
        }
        if left == 0 {
            return Ok(());
        }
        tracing::info!(job = job.id(), left, "another pass wraps what came meanwhile");
    }
    Err(Error::internal("files under an older zone key come faster than they are wrapped anew; try again").into())
}

/// Destroys the older zone keys: the wrapped ones with one commit, then those in memory.
async fn finish(
    engine: &Weak<Engine>,
    shared: &Arc<Shared>,
    owner: &Owner,
    job: &Arc<Job>,
    target: ZoneKeyVersion,
) -> Result<(), Trouble> {
    let access = owner.access();
    let lease: Option<Lease> = access.zone.lease().ok();
    let keyed = access.keyed();
    let mut destroyed: Vec<DestroyedKey> = zone_keys(&keyed.record);
    destroyed.retain(|key| key.version < target.number());
    destroyed.extend(keyed.retiring.iter().flat_map(zone_keys));
    let mut record = job.record();
    record.step = Step::Done;
    record.finished_ms = Some(shared.config.clock.wall_ms());
    record.total = job.total.load(std::sync::atomic::Ordering::Relaxed);
    record.destroyed.clone_from(&destroyed);
    let mut batch = MetaBatch::new();
    put(shared, &mut batch, &record)?;
    let stored = owner
        .store(shared, batch, true, |wrapped, _| {
            wrapped.zone.versions.retain(|(version, _)| *version >= target);
            wrapped.zone.checks.retain(|version, _| *version >= target);
            wrapped.retiring = None;
        })
        .await?;
    job.set(record.clone());
    if let Some(engine) = engine.upgrade() {
        let watchers = watchers_of(&engine, &stored);
        let before = access.watchers();
        if let Some(lease) = &lease {
            access.rekey(lease, stored.zone, None, watchers, None);
        } else {
            access.set_record(stored.zone, watchers);
        }
        before.iter().for_each(|watcher| engine.end_if_unused(watcher));
    }
    for key in destroyed {
        shared.emit(&Event::KeyVersionDestroyed {
            database: record.database_name.clone(),
            collection: record.collection_name.clone(),
            zone: key.zone,
            key_version: key.version,
            root: key.root,
            wrapped_sha256: key.wrapped_sha256,
        });
    }
    shared.emit(&finished(job, owner));
    if let Some(from) = record.from.clone() {
        shared.emit(&Event::RootChanged {
            database: record.database_name.clone(),
            collection: record.collection_name.clone(),
            from,
            to: record.root.clone(),
        });
    }
    if let Some(lease) = lease {
        forget_older(shared, owner, &access, &lease, target).await;
    }
    Ok(())
}

/// Drops older keys from memory, when whoever read a header or value before it was wrapped anew has opened it.
async fn forget_older(
    shared: &Arc<Shared>,
    owner: &Owner,
    access: &Arc<Access>,
    lease: &Lease,
    target: ZoneKeyVersion,
) {
    for collection in owner.collections().await {
        if let Err(error) = wrap::pass_through(shared, access, &collection).await {
            // A collection that was shut reads everything anew.
            tracing::debug!(collection = %collection.id, "not waited for: {error}");
        }
    }
    if let Owner::Platform(_) = owner {
        // Values of the catalog are read in many places, each in a moment.
        let _stops = unless_stopped(shared, tokio::time::sleep(READ_MAX)).await;
    }
    let _nobody_opens = access.opening.write().await;
    // A dead lease: the keys are gone already, and come back without these.
    let _gone = lease.drop_keys_below(target);
}

fn finished(job: &Job, owner: &Owner) -> Event {
    let (record, scope) = (job.record(), owner.access().scope());
    Event::RotationFinished {
        job: record.id,
        kind: record.kind.as_str(),
        database: scope.database.clone(),
        collection: scope.collection.clone(),
        root: record.root,
        key_version: record.target,
        total: record.total,
    }
}

fn key_used(shared: &Shared, root: &saker_keyring::RootKeyId, operation: &'static str, ok: bool) {
    let root = root.clone();
    shared.emit(&Event::KeyUsed { root, operation, ok });
}
