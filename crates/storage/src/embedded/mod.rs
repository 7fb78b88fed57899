//! The back ends on a local directory: what `saker dev` and a single server use.

mod erase;
mod frame;
mod header_journal;
mod local_log;
mod local_meta;
mod local_objects;
mod meta_rewrite;
mod read_only;
mod staged;
mod writer;

use std::{path::Path, sync::Arc};

pub use erase::erase_data_directory;
pub use local_log::LocalLog;
pub use local_meta::LocalMeta;
pub use local_objects::LocalObjects;
pub use read_only::{
    BrokenTail, EntryKind, Place, ReadError, ReadOnlyFile, ReadOnlySegment, ReadOnlyStores, StoredEntry,
};

use crate::{
    DirectoryError, DirectoryLock, Log, MetaStore, ObjectStore, StoreId,
    directory::{create_private, sync_directory},
};

/// Everything that a data directory keeps: `DIR/objects`, `DIR/meta.redb`, `DIR/log`, locked for this process.
#[derive(Debug)]
pub struct EmbeddedStores {
    /// Sealed objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Metadata values.
    pub meta: Arc<dyn MetaStore>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Given back when the last owner drops it; keep it for as long as any of the stores is used.
    pub lock: Arc<DirectoryLock>,
}

impl EmbeddedStores {
    /// Opens a data directory, or begins one where there is nothing yet.
    ///
    /// # Errors
    /// [`DirectoryError`]: in use, not ours, of another version, or the operating system refuses.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self, DirectoryError> {
        let directory = directory.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(&directory)).await;
        opened.unwrap_or_else(|error| {
            Err(DirectoryError::Store {
                store: "embedded",
                directory: Default::default(),
                reason: error.to_string(),
            })
        })
    }

    fn open_blocking(directory: &Path) -> Result<Self, DirectoryError> {
        let lock = DirectoryLock::acquire(directory)?;
        let failed = |store, reason: String| DirectoryError::Store {
            store,
            directory: directory.to_owned(),
            reason,
        };
        let (objects, log) = (directory.join("objects"), directory.join("log"));
        create_private(&objects)?;
        create_private(&log)?;
        let objects = LocalObjects::open(&objects).map_err(|error| failed("object", error.to_string()))?;
        let meta =
            LocalMeta::open(&directory.join("meta.redb")).map_err(|error| failed("metadata", error.to_string()))?;
        let log = LocalLog::open(&log).map_err(|error| failed("log", error.to_string()))?;
        sync_directory(directory).map_err(|error| failed("embedded", error.to_string()))?;
        Ok(Self {
            objects: Arc::new(objects),
            meta: Arc::new(meta),
            log: Arc::new(log),
            lock: Arc::new(lock),
        })
    }

    /// The id that the data directory got when it was made.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.lock.store()
    }
}
