//! Changing keys while everything is in use: a zone gets a newer key, or another root key, or all its files again.
//!
//! Each is a job: a value in the catalog that says what is to be done and how far it is, so that a crash or a stop only
//! interrupts it. A job does nothing twice that matters: what has the newest key already is passed over. One job at a
//! time changes a zone; a job whose key is locked waits until it is back; one that fails says why and can be tried again.
//!
//! **Rotation** ([`Engine::rotate_key`]): the key service makes a new zone key; one commit adds it to the zone's record
//! and notes that in the job. From then on new files are sealed under it. Every data key under an older one is wrapped
//! anew, which takes time by the number of files and not by their size. When a last pass finds none left, a second
//! commit removes the older wrapped zone keys, and the metadata file is rewritten, so that no page of it keeps them.
//!
//! **Change of root key** ([`Engine::change_key`]): the same, with a new zone key under the new root key. In between, the
//! zone has keys under both, and either root key's owner can lock it.
//!
//! **Re-encryption** ([`Engine::reencrypt`]): all rows are written again under fresh data keys.
//!
//! What it deliberately does not do: it asks a key service for nothing but `GenerateDataKey` and `Decrypt`. Data keys are
//! unwrapped and wrapped here, in memory.
//!
//! Start reading at [`Engine::rotate_key`], then `run` for a job's life and `wrap` for the pass over a collection.

mod fence;
mod job;
mod owner;
mod platform;
mod renew;
mod run;
mod wrap;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use saker_keyring::{RootKeyId, Unverified};
use saker_storage::{MetaBatch, MetaKey};
use tokio::sync::Semaphore;

pub(crate) use fence::Fence;
pub use job::{JobInfo, JobKind, JobState};

use crate::{
    engine::Engine,
    error::{Error, ErrorKind, Result},
    records,
    shared::Shared,
};
use job::{Job, JobRecord, Step};
use owner::Owner;

/// All jobs.
#[derive(Debug)]
pub(crate) struct Rekey {
    jobs: Mutex<BTreeMap<i64, Arc<Job>>>,
    /// Jobs that work at the same time; those that wait for a key do not count.
    turns: Semaphore,
}

/// Jobs that work at the same time: they share disk and processors with the users' requests.
const JOBS_AT_ONCE: usize = 4;
/// Most finished jobs that are kept to be looked at; the oldest make room.
const FINISHED_MAX: usize = 2_000;
/// Job values in one commit.
const BATCH_JOBS: usize = 500;

impl Default for Rekey {
    fn default() -> Self {
        Self {
            jobs: Mutex::default(),
            turns: Semaphore::new(JOBS_AT_ONCE),
        }
    }
}

impl Rekey {
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<i64, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// The job that is under way in a zone, if there is one.
    fn active(&self, zone: &str) -> Option<Arc<Job>> {
        self.jobs()
            .values()
            .find(|job| {
                let record = job.record();
                record.zone == zone && record.is_active()
            })
            .cloned()
    }
}

impl Engine {
    /// Begins to rotate the zone key of a database, or of a collection with a key of its own. Returns once that is noted;
    /// [`Self::jobs`] tells the rest.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`], [`ErrorKind::CollectionNotFound`]; [`ErrorKind::RateLimit`] while another job
    /// changes this zone.
    pub async fn rotate_key(self: &Arc<Self>, database: &str, collection: Option<&str>) -> Result<JobInfo> {
        let owner = self.owner(database, collection)?;
        let record = JobRecord::new(&self.shared, JobKind::Rotate, &owner, owner.access().root());
        self.begin_job(owner, record).await
    }

    /// Begins to rotate the key of the cluster's own zone, which the catalog and the audit log are sealed under.
    ///
    /// # Errors
    /// As [`Self::rotate_key`].
    pub async fn rotate_platform_key(self: &Arc<Self>) -> Result<JobInfo> {
        let owner = Owner::Platform(Arc::clone(&self.shared));
        let record = JobRecord::new(&self.shared, JobKind::Rotate, &owner, owner.access().root());
        self.begin_job(owner, record).await
    }

    /// Begins to rotate the zone keys of everything under a root key (of all root keys if `None`): after the key service
    /// gave it new material, nothing depends on the old material any more. Zones that a job works on already get theirs
    /// after it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] if nothing is under this root key.
    pub async fn rewrap_keys(self: &Arc<Self>, root: Option<&RootKeyId>) -> Result<Vec<JobInfo>> {
        let (this, root) = (Arc::clone(self), root.cloned());
        self.to_its_end(async move { this.begin_rewrap(root.as_ref()).await })
            .await
    }

    async fn begin_rewrap(self: &Arc<Self>, root: Option<&RootKeyId>) -> Result<Vec<JobInfo>> {
        let _turn = self.changes.lock().await;
        let mut owners = self.owners();
        owners.push(Owner::Platform(Arc::clone(&self.shared)));
        owners.retain(|owner| root.is_none_or(|root| owner.access().root() == *root));
        if owners.is_empty() {
            let name = root.map_or_else(String::new, ToString::to_string);
            return Err(Error::invalid(format!(
                "nothing is encrypted under {name}; look at the list of keys"
            )));
        }
        let jobs: Vec<_> = owners
            .into_iter()
            .map(|owner| {
                let record = JobRecord::new(&self.shared, JobKind::Rewrap, &owner, owner.access().root());
                (owner, Job::new(record))
            })
            .collect();
        for part in jobs.chunks(BATCH_JOBS) {
            let mut batch = MetaBatch::new();
            for (_, job) in part {
                job.put(&self.shared, &mut batch)?;
            }
            self.shared.meta.commit(batch).await?;
            for (owner, job) in part {
                self.spawn_job(owner.clone(), Arc::clone(job));
            }
        }
        Ok(jobs.iter().map(|(_, job)| job.info()).collect())
    }

    /// Begins to put a database, or a collection with a key of its own, under another root key of the customer. The new
    /// key is tried first (`GenerateDataKey`, `Decrypt`); when this returns, the zone has a key under it.
    ///
    /// # Errors
    /// As [`Self::rotate_key`]; [`ErrorKind::InvalidParameter`] for the platform key or the key that it has;
    /// [`ErrorKind::KeyUnusable`]; a locked zone.
    pub async fn change_key(
        self: &Arc<Self>,
        database: &str,
        collection: Option<&str>,
        to: &RootKeyId,
    ) -> Result<JobInfo> {
        let owner = self.owner(database, collection)?;
        let access = owner.access();
        if *to == self.shared.platform.root() || *to == RootKeyId::platform_file() {
            return Err(Error::invalid(
                "data that is under a customer's key does not go under the platform key; give a customer's key",
            ));
        }
        let before = access.keyed();
        if before.record.root == *to {
            return Err(Error::invalid(format!(
                "{} is under {to} already; to get a newer zone key rotate it",
                access.scope()
            )));
        }
        let mut record = JobRecord::new(&self.shared, JobKind::ChangeKey, &owner, to.clone());
        record.from = Some(before.record.root.clone());
        if before.retiring.is_some() {
            return Err(Error::new(
                ErrorKind::RateLimit,
                format!(
                    "{} is on its way to {} already; finish that job first",
                    access.scope(),
                    before.record.root
                ),
            ));
        }
        let this = Arc::clone(self);
        self.to_its_end(async move { this.begin_change(owner, record).await })
            .await
    }

    async fn begin_change(self: &Arc<Self>, owner: Owner, record: JobRecord) -> Result<JobInfo> {
        let access = owner.access();
        let _changes = self.changes.lock().await;
        self.refuse_second(&record)?;
        let busy = || {
            Error::new(
                ErrorKind::RateLimit,
                format!("the keys of {} are being changed", access.scope()),
            )
        };
        let turn = access.rekeying.try_lock().map_err(|_| busy())?;
        let job = Job::new(record);
        run::begin(self, &owner, &job)
            .await
            .map_err(|trouble| trouble.into_error(&access))?;
        drop(turn);
        self.spawn_job(owner, Arc::clone(&job));
        Ok(job.info())
    }

    /// Begins to write all rows of a database, or of a collection with a key of its own, again under fresh data keys.
    ///
    /// # Errors
    /// As [`Self::rotate_key`].
    pub async fn reencrypt(self: &Arc<Self>, database: &str, collection: Option<&str>) -> Result<JobInfo> {
        let owner = self.owner(database, collection)?;
        let mut record = JobRecord::new(&self.shared, JobKind::Reencrypt, &owner, owner.access().root());
        // Segments get ascending ids: those with smaller ones are to be written again.
        record.before = self.shared.oracle.id();
        record.step = Step::Writing;
        self.begin_job(owner, record).await
    }

    /// Tries a job that failed again, from where it was.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] if there is no such job or it did not fail.
    pub async fn retry_job(self: &Arc<Self>, id: i64) -> Result<JobInfo> {
        let job = self.rekey.jobs().get(&id).cloned();
        let job = job.ok_or_else(|| Error::invalid(format!("there is no job {id}")))?;
        let record = job.record();
        if record.failure.is_none() {
            return Err(Error::invalid(format!("job {id} did not fail")));
        }
        let owner = self
            .owner_of(&record)
            .ok_or_else(|| Error::invalid(format!("what job {id} was for is not there any more")))?;
        let this = Arc::clone(self);
        let begin = async move {
            job.change(&this.shared, MetaBatch::new(), |record| record.failure = None)
                .await?;
            this.spawn_job(owner, Arc::clone(&job));
            Ok(job.info())
        };
        self.to_its_end(begin).await
    }

    /// All jobs that are under way, that failed, and the latest that are done, oldest first.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobInfo> {
        self.rekey.jobs().values().map(|job| job.info()).collect()
    }

    async fn begin_job(self: &Arc<Self>, owner: Owner, record: JobRecord) -> Result<JobInfo> {
        self.shared.check_running()?;
        let this = Arc::clone(self);
        let begin = async move {
            let _turn = this.changes.lock().await;
            this.refuse_second(&record)?;
            let job = Job::new(record);
            job.change(&this.shared, MetaBatch::new(), |_| {}).await?;
            this.spawn_job(owner, Arc::clone(&job));
            Ok(job.info())
        };
        self.to_its_end(begin).await
    }

    /// On a task of its own: what is begun goes to its end, whoever waits.
    async fn to_its_end<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let task = self.shared.tasks.spawn(work);
        task.await
            .unwrap_or_else(|_| Err(Error::internal("the task was lost; see the server's log")))
    }

    fn refuse_second(&self, record: &JobRecord) -> Result<()> {
        match self.rekey.active(&record.zone) {
            None => Ok(()),
            Some(job) => {
                let other = job.record();
                Err(Error::new(
                    ErrorKind::RateLimit,
                    format!(
                        "job {} ({}) is under way in this zone; wait until it is done",
                        other.id, other.kind
                    ),
                ))
            }
        }
    }

    fn spawn_job(self: &Arc<Self>, owner: Owner, job: Arc<Job>) {
        self.rekey.jobs().insert(job.id(), Arc::clone(&job));
        let (engine, shared) = (Arc::downgrade(self), Arc::clone(&self.shared));
        let rekey = Arc::clone(&self.rekey);
        self.shared.tasks.spawn(run::run(engine, shared, rekey, owner, job));
    }

    /// Goes on with the jobs that a stop or a crash interrupted.
    ///
    /// # Errors
    /// A locked catalog, a failed store.
    pub(crate) async fn resume_jobs(self: &Arc<Self>) -> Result<()> {
        let lease = self.shared.platform_lease()?;
        for (key, value) in self.shared.meta.scan("job/").await? {
            let record: JobRecord = records::open(&lease, &key, &value)?;
            self.shared.oracle.observe_id(record.id);
            let owner = self.owner_of(&record);
            let (active, job) = (record.is_active(), Job::new(record));
            match owner {
                Some(owner) if active => self.spawn_job(owner, job),
                Some(_) => drop(self.rekey.jobs().insert(job.id(), job)),
                None if active => job.forget(&self.shared).await?,
                None => drop(self.rekey.jobs().insert(job.id(), job)),
            }
        }
        Ok(())
    }
}

/// Commits a batch that sets `key` to `value`, and finds out whether it was stored if the store does not say.
///
/// # Errors
/// As of the store; what is stored is not known only if it cannot be read either.
pub(crate) async fn commit_settled(shared: &Shared, batch: MetaBatch, key: &MetaKey, value: &Unverified) -> Result<()> {
    match shared.meta.commit(batch).await {
        Ok(()) => Ok(()),
        Err(error @ saker_storage::MetaError::Io { .. }) => match shared.meta.get(key).await {
            Ok(Some(stored)) if stored == *value => Ok(()),
            Ok(_) | Err(_) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}
