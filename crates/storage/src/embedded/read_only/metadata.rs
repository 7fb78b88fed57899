//! The metadata file, read as the next start would read it, without a change to it.

use std::{fs::File, panic::AssertUnwindSafe, path::Path};

use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableHandle};
use saker_keyring::Unverified;

use super::overlay::Overlay;
use crate::embedded::local_meta::{VALUES, builder};

/// The values of a metadata file.
pub(super) struct Metadata {
    table: ReadOnlyTable<&'static str, &'static [u8]>,
    /// Tables that are not ours.
    pub(super) strangers: Vec<String>,
    /// Why its own checks failed, if they did; what can still be read is read.
    pub(super) damage: Option<String>,
    _database: Database,
}

impl Metadata {
    /// Opens the file. A file that fails the library's checks is opened without them, as far as that goes: its values
    /// have seals of their own.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        match guarded(|| Self::open_checked(path, true)) {
            Ok(opened) => Ok(opened),
            Err(damage) => {
                let opened = guarded(|| Self::open_checked(path, false)).map_err(|_| damage.clone())?;
                Ok(Self {
                    damage: Some(damage),
                    ..opened
                })
            }
        }
    }

    fn open_checked(path: &Path, check: bool) -> Result<Self, String> {
        let text = |error: redb::Error| error.to_string();
        let file = File::open(path).map_err(|error| error.to_string())?;
        if file.metadata().map_err(|error| error.to_string())?.len() == 0 {
            return Err("it is empty".to_owned());
        }
        let overlay = Overlay::new(file).map_err(|error| error.to_string())?;
        let mut builder = builder();
        builder.set_check_integrity_on_open(check);
        let database = builder
            .create_with_backend(overlay)
            .map_err(|error| text(error.into()))?;
        let read = database.begin_read().map_err(|error| text(error.into()))?;
        let table = read.open_table(VALUES).map_err(|error| text(error.into()))?;
        let tables = read.list_tables().map_err(|error| text(error.into()))?;
        let mut strangers: Vec<String> = tables
            .map(|table| table.name().to_owned())
            .filter(|name| name != "values")
            .collect();
        let multimaps = read.list_multimap_tables().map_err(|error| text(error.into()))?;
        strangers.extend(multimaps.map(|table| redb::MultimapTableHandle::name(&table).to_owned()));
        Ok(Self {
            table,
            strangers,
            damage: None,
            _database: database,
        })
    }

    /// The key of the first value after `after` (or of all), in order of key.
    pub(super) fn next_key(&self, after: Option<&str>) -> Result<Option<String>, String> {
        guarded(|| {
            use std::ops::Bound::{Excluded, Unbounded};
            let from = after.map_or(Unbounded, Excluded);
            let mut entries = self
                .table
                .range::<&str>((from, Unbounded))
                .map_err(|error| error.to_string())?;
            match entries.next() {
                None => Ok(None),
                Some(Ok((key, _))) => Ok(Some(key.value().to_owned())),
                Some(Err(error)) => Err(error.to_string()),
            }
        })
    }

    pub(super) fn value(&self, key: &str) -> Result<Option<Unverified>, String> {
        guarded(|| {
            let found = self.table.get(key).map_err(|error| error.to_string())?;
            Ok(found.map(|value| Unverified::new(Bytes::copy_from_slice(value.value()))))
        })
    }
}

/// The library says that it may panic on files that it did not write.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err("its structure makes no sense".to_owned()))
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata")
            .field("strangers", &self.strangers)
            .field("damage", &self.damage)
            .finish_non_exhaustive()
    }
}
