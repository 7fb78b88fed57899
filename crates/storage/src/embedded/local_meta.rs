//! Metadata in one `redb` file: one table from key to sealed bytes, every commit synced before it is answered.
//!
//! After a failed write `redb` refuses further work until it is opened again, which is right: what the file holds is
//! known only after its repair. So after a failed commit the file is opened again here, and readers wait for that. That is
//! how reads go on while a disk is full, and writes once it has space.
//!
//! A commit that removes something moves what is left to a new file and overwrites the old one ([`meta_rewrite`]): that
//! is what makes a dropped database's wrapped keys unreadable. If that fails (a full disk), the removal still holds, and
//! the next one makes up for it.

use std::{
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use async_trait::async_trait;
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use saker_keyring::Unverified;
use tokio::sync::Semaphore;

use crate::{
    Expected, MetaBatch, MetaError, MetaKey, MetaOperation, MetaStore,
    directory::{is_full, private_file},
    embedded::meta_rewrite,
    path::check_prefix,
};

/// Metadata values in a `redb` file.
pub struct LocalMeta {
    shared: Arc<Shared>,
    /// One commit at a time waits here instead of on a thread of the blocking pool.
    commits: Semaphore,
}

struct Shared {
    path: PathBuf,
    /// Held for reading by every call, for writing while the database is opened again.
    state: RwLock<State>,
}

struct State {
    /// `None` after it could not be opened again, until the next call tries.
    database: Option<Database>,
    /// How often it was opened again.
    generation: u64,
}

pub(super) const VALUES: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("values");
/// Memory for pages, in bytes: metadata is small and the engine keeps its own catalog in memory.
const CACHE_BYTES: usize = 8 << 20;
/// How often a call tries again because other calls' failures made the database unusable.
const RETRIES_MAX: usize = 8;

impl LocalMeta {
    /// Opens the file, or begins one where there is none. The whole file is checked first.
    ///
    /// # Errors
    /// [`MetaError::Corrupt`], [`MetaError::Full`], [`MetaError::Io`].
    pub fn open(path: &Path) -> Result<Self, MetaError> {
        meta_rewrite::remove(&meta_rewrite::unfinished(path)).map_err(|error| translate("open", error.into()))?;
        let database = open_database(path)?;
        let state = RwLock::new(State {
            database: Some(database),
            generation: 0,
        });
        let shared = Shared {
            path: path.to_owned(),
            state,
        };
        Ok(Self {
            shared: Arc::new(shared),
            commits: Semaphore::new(1),
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Shared) -> Result<T, MetaError> + Send + 'static,
    ) -> Result<T, MetaError> {
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(&shared)));
            done.unwrap_or_else(|_| {
                // What the library holds in memory is not to be trusted any more.
                let generation = shared.read_state().generation;
                shared.reopen(generation)?;
                Err(MetaError::Io {
                    action,
                    reason: "the metadata library failed".to_owned(),
                })
            })
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| {
            Err(MetaError::Io {
                action,
                reason: error.to_string(),
            })
        })
    }
}

impl std::fmt::Debug for LocalMeta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalMeta")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl MetaStore for LocalMeta {
    async fn get(&self, key: &MetaKey) -> Result<Option<Unverified>, MetaError> {
        let key = key.clone();
        self.run("read", move |shared| {
            shared.read(|table| Ok(value_of(table, &key)?.map(Unverified::new)))
        })
        .await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(MetaKey, Unverified)>, MetaError> {
        check_prefix("metadata prefix", prefix)?;
        let prefix = prefix.to_owned();
        self.run("scan", move |shared| {
            shared.read(|table| {
                let mut found = Vec::new();
                for entry in table.range(prefix.as_str()..).map_err(redb::Error::from)? {
                    let (key, value) = entry.map_err(redb::Error::from)?;
                    if !key.value().starts_with(&prefix) {
                        break;
                    }
                    // A key of another form was not written by us; it cannot be asked for either.
                    if let Ok(key) = MetaKey::new(key.value()) {
                        found.push((key, Unverified::new(Bytes::copy_from_slice(value.value()))));
                    }
                }
                Ok(found)
            })
        })
        .await
    }

    async fn commit(&self, batch: MetaBatch) -> Result<(), MetaError> {
        batch.check()?;
        let _turn = self.commits.acquire().await;
        let removes = batch
            .operations()
            .iter()
            .any(|operation| matches!(operation, MetaOperation::Delete(_)));
        self.run("commit", move |shared| {
            shared.commit(&batch)?;
            if removes {
                shared.rewrite();
            }
            Ok(())
        })
        .await
    }
}

impl Shared {
    fn read<T>(
        &self,
        work: impl Fn(&redb::ReadOnlyTable<&'static str, &'static [u8]>) -> Result<T, redb::Error>,
    ) -> Result<T, MetaError> {
        let read = |database: &Database| work(&database.begin_read()?.open_table(VALUES)?);
        self.with("read", read).map_err(|failure| failure.error)
    }

    fn commit(&self, batch: &MetaBatch) -> Result<(), MetaError> {
        match self.with("commit", |database| apply(database, batch)) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(key)) => Err(MetaError::Conflict { key }),
            // A commit that failed may still have reached the disk. What the file holds since it was opened again
            // settles it.
            Err(Failure { error, reopened: true }) => match self.read(|table| is_applied(table, batch)) {
                Ok(true) => Ok(()),
                Ok(false) | Err(_) => Err(error),
            },
            Err(Failure { error, reopened: false }) => Err(error),
        }
    }

    /// Does something with the database. If another call's failure has made it unusable, it is opened again and the
    /// work tried again; if this one's failure does, it is opened again for those who come later.
    fn with<T>(&self, action: &'static str, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, Failure> {
        let mut retries = 0;
        loop {
            let (error, generation) = {
                let state = self.read_state();
                match state.database.as_ref().map(&work) {
                    Some(Ok(done)) => return Ok(done),
                    Some(Err(error)) => (Some(error), state.generation),
                    None => (None, state.generation),
                }
            };
            let others = matches!(
                error,
                None | Some(redb::Error::PreviousIo | redb::Error::DatabaseClosed)
            );
            if others && retries < RETRIES_MAX {
                retries += 1;
                self.reopen(generation)
                    .map_err(|error| Failure { error, reopened: false })?;
                continue;
            }
            let reason = "other calls keep failing; check the disk".to_owned();
            let error = error.map_or(MetaError::Io { action, reason }, |error| translate(action, error));
            let unusable = matches!(error, MetaError::Full | MetaError::Io { .. });
            let reopened = unusable && self.reopen(generation).is_ok();
            return Err(Failure { error, reopened });
        }
    }

    /// Opens the file again, unless that was done since `generation`. Waits for those who use the database now.
    fn reopen(&self, generation: u64) -> Result<(), MetaError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.generation == generation || state.database.is_none() {
            // Before it is opened again: the library locks the file.
            state.database = None;
            state.generation += 1;
            state.database = Some(open_database(&self.path)?);
        }
        Ok(())
    }

    /// Leaves nothing in the file but the live values. Readers wait, there is no other writer.
    fn rewrite(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Without a database the next call opens it again; the next removal rewrites it.
        let Some(database) = &state.database else { return };
        let outcome = meta_rewrite::copy_live(database, &self.path).and_then(|copy| {
            // Before the file is replaced: the library locks it.
            state.database = None;
            state.generation += 1;
            meta_rewrite::replace(&self.path, &copy).map_err(redb::Error::from)
        });
        if let Err(error) = outcome {
            tracing::warn!("removed metadata is not overwritten before the next removal: {error}");
            let _ = meta_rewrite::remove(&meta_rewrite::unfinished(&self.path));
        }
        if state.database.is_none() {
            // If this fails, the next call tries again, and says why.
            state.database = open_database(&self.path).ok();
        }
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why work on the database failed.
struct Failure {
    error: MetaError,
    /// Whether the file was opened again since.
    reopened: bool,
}

/// `Ok(Err(key))` if the precondition on `key` does not hold.
fn apply(database: &Database, batch: &MetaBatch) -> Result<Result<(), MetaKey>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut table = transaction.open_table(VALUES)?;
        for (key, expected) in batch.expected() {
            let found = table.get(key.as_str())?;
            let holds = match (&found, expected) {
                (None, Expected::Absent) => true,
                (Some(found), Expected::Value(value)) => found.value() == value.as_bytes(),
                (None, Expected::Value(_)) | (Some(_), Expected::Absent) => false,
            };
            if !holds {
                // Dropping the transaction undoes it.
                return Ok(Err(key.clone()));
            }
        }
        for operation in batch.operations() {
            match operation {
                MetaOperation::Put(key, value) => table.insert(key.as_str(), value.as_bytes())?,
                MetaOperation::Delete(key) => table.remove(key.as_str())?,
            };
        }
    }
    transaction.commit()?;
    Ok(Ok(()))
}

/// Whether the table is as the batch leaves it. Every seal is different, so a value that is there was put there by it.
fn is_applied(table: &impl ReadableTable<&'static str, &'static [u8]>, batch: &MetaBatch) -> Result<bool, redb::Error> {
    let mut puts = false;
    for (index, operation) in batch.operations().iter().enumerate() {
        let (MetaOperation::Put(key, _) | MetaOperation::Delete(key)) = operation;
        let is_last = !batch.operations()[index + 1..]
            .iter()
            .any(|(MetaOperation::Put(later, _) | MetaOperation::Delete(later))| later == key);
        if !is_last {
            continue;
        }
        let found = table.get(key.as_str())?;
        let holds = match (operation, &found) {
            (MetaOperation::Put(_, value), Some(found)) => {
                puts = true;
                found.value() == value.as_bytes()
            }
            (MetaOperation::Delete(_), None) => true,
            (MetaOperation::Put(..), None) | (MetaOperation::Delete(_), Some(_)) => false,
        };
        if !holds {
            return Ok(false);
        }
    }
    // Deletes alone prove nothing (the keys may have been absent before), but then there is nothing left to do either,
    // unless a precondition was to be checked.
    Ok(puts || batch.expected().is_empty())
}

fn value_of(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &MetaKey,
) -> Result<Option<Bytes>, redb::Error> {
    Ok(table
        .get(key.as_str())?
        .map(|value| Bytes::copy_from_slice(value.value())))
}

/// How the file is opened and made.
pub(super) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // Without the check, a file that somebody altered may make the library panic later.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

fn open_database(path: &Path) -> Result<Database, MetaError> {
    let file = private_file().create(true).truncate(false).open(path);
    let open = || {
        let database = builder().create_with_backend(redb::backends::FileBackend::new(file?)?)?;
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.open_table(VALUES)?;
        transaction.commit()?;
        Ok(database)
    };
    // The library says that it may panic on files that it did not write; such a file must not end the server.
    let opened = std::panic::catch_unwind(AssertUnwindSafe(open));
    match opened {
        Ok(opened) => opened.map_err(|error: redb::Error| translate("open", error)),
        Err(_) => Err(MetaError::Corrupt {
            reason: "its structure makes no sense".to_owned(),
        }),
    }
}

fn translate(action: &'static str, error: redb::Error) -> MetaError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is open, and the rest is one case to a caller"
    )]
    match error {
        redb::Error::Io(error) if is_full(&error) => MetaError::Full,
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => MetaError::Corrupt {
            reason: error.to_string(),
        },
        redb::Error::Corrupted(reason) => MetaError::Corrupt { reason },
        error => MetaError::Io {
            action,
            reason: error.to_string(),
        },
    }
}
