//! The server's records at rest: one `redb` table of names and sealed values.
//!
//! What it is for: every change is on disk, whole or not at all, before its caller is answered; every value is sealed
//! under the root secret and bound to its name, so a record that was altered or moved is noticed when the server
//! starts. What it deliberately does not do: notice that the whole file was put back to an older state.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use redb::{Database, ReadableDatabase, TableDefinition, backends::FileBackend};
use saker_keyring::{BlobKey, PlainKey};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use zeroize::Zeroizing;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records-v1");
const PURPOSE: &str = "saker key server: records v1";

/// Why records cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database failed.
    #[error("the record store failed: {0}")]
    Database(Box<redb::Error>),
    /// The file cannot be opened.
    #[error("cannot open the record store: {0}")]
    Open(#[from] std::io::Error),
    /// Another process has it open.
    #[error("{} is in use by another key server", path.display())]
    InUse {
        /// The record store.
        path: PathBuf,
    },
    /// A record was altered, or belongs to another root secret.
    #[error("record {name} is not authentic: it was altered, or the root secret is not the one it was made under")]
    NotAuthentic {
        /// Its name.
        name: String,
    },
    /// A record is authentic, but not of a form this version knows.
    #[error("record {name} is of an unknown form; was it written by a newer version")]
    UnknownForm {
        /// Its name.
        name: String,
    },
}

/// Open records. One process at a time: the database locks its file.
pub(super) struct Store {
    database: Mutex<Database>,
    key: BlobKey,
}

/// What to do with one record.
pub(super) enum Change {
    /// Write it.
    Put(String, Zeroizing<Vec<u8>>),
    /// Remove it.
    Remove(String),
}

impl Change {
    /// Writes `record` under `name`.
    pub(super) fn put(name: impl Into<String>, record: &impl Serialize) -> Self {
        // Plain data with text keys: writing it as JSON into memory has no way to fail; an empty record would be
        // refused when read.
        Self::Put(
            name.into(),
            Zeroizing::new(serde_json::to_vec(record).unwrap_or_default()),
        )
    }
}

impl Store {
    pub(super) fn open(path: &Path, root: &PlainKey) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let in_use = |error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
            error => error.into(),
        };
        let database = FileBackend::new(file)
            .and_then(|file| Database::builder().create_with_backend(file))
            .map_err(in_use)?;
        let write = database.begin_write()?;
        write.open_table(RECORDS)?;
        write.commit()?;
        Ok(Self {
            database: Mutex::new(database),
            key: BlobKey::new(root, PURPOSE),
        })
    }

    /// Every record whose name starts with `prefix`, with the rest of its name.
    pub(super) fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, T)>, StoreError> {
        let database = self.database.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let table = database.begin_read()?.open_table(RECORDS)?;
        let mut found = Vec::new();
        for entry in table.range(prefix..)? {
            let (name, sealed) = entry?;
            let name = name.value();
            let Some(rest) = name.strip_prefix(prefix) else { break };
            let plain = self
                .key
                .open(name.as_bytes(), sealed.value())
                .map_err(|_| StoreError::NotAuthentic { name: name.to_owned() })?;
            let record =
                serde_json::from_slice(&plain).map_err(|_| StoreError::UnknownForm { name: name.to_owned() })?;
            found.push((rest.to_owned(), record));
        }
        Ok(found)
    }

    /// Makes all changes or none; on disk when this returns.
    pub(super) fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let database = self.database.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let write = database.begin_write()?;
        {
            let mut table = write.open_table(RECORDS)?;
            for change in changes {
                match change {
                    Change::Put(name, plain) => {
                        let sealed = self.key.seal(name.as_bytes(), &plain);
                        table.insert(name.as_str(), sealed.as_slice())?;
                    }
                    Change::Remove(name) => {
                        table.remove(name.as_str())?;
                    }
                }
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Gives unused pages back, so that removed records do not stay in the file longer than needed.
    pub(super) fn compact(&self) -> Result<(), StoreError> {
        let mut database = self.database.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while database.compact()? {}
        Ok(())
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => { $(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )* };
}
from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::CompactionError
);

#[cfg(test)]
mod tests {
    use super::*;
    use redb::ReadableTable;
    use saker_keyring::random_key;

    #[test]
    fn records_survive_and_are_bound_to_name_and_root() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let root = random_key();
        {
            let store = Store::open(&path, &root).unwrap();
            store
                .commit(vec![Change::put("key/a", &"one"), Change::put("key/b", &"two")])
                .unwrap();
            store
                .commit(vec![Change::Remove("key/b".into()), Change::put("other/c", &"three")])
                .unwrap();
        }
        let store = Store::open(&path, &root).unwrap();
        assert_eq!(
            store.all::<String>("key/").unwrap(),
            vec![("a".to_owned(), "one".to_owned())]
        );
        store.compact().unwrap();
        assert_eq!(store.all::<String>("other/").unwrap().len(), 1);
        drop(store);
        let stranger = Store::open(&path, &random_key()).unwrap();
        assert!(matches!(
            stranger.all::<String>("key/"),
            Err(StoreError::NotAuthentic { .. })
        ));
        drop(stranger);
        // Swap two sealed values: each is authentic, but not under the other's name.
        let database = Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(RECORDS).unwrap();
            let value = table.get("other/c").unwrap().unwrap().value().to_vec();
            table.insert("key/a", value.as_slice()).unwrap();
        }
        write.commit().unwrap();
        drop(database);
        let store = Store::open(&path, &root).unwrap();
        assert!(matches!(
            store.all::<String>("key/"),
            Err(StoreError::NotAuthentic { .. })
        ));
    }
}
