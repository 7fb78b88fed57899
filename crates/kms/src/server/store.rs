//! The server's records at rest, through the storage crate: sealed values by name, key material in sealed files.
//!
//! What it is for: every change is on disk, whole or not at all, before its caller is answered; every value is bound to
//! its name, so a record that was altered or moved is noticed when the server starts; and a key's material lies in a
//! file of its own, so that destroying a key overwrites what its material was wrapped in. What it deliberately does not
//! do: notice that the whole directory was put back to an older state.
//!
//! The server is one encryption zone whose only key is the root secret. All calls are blocking and must come from a
//! thread that may block (not from an async task's).

use std::{collections::BTreeSet, path::Path};

use aws_lc_rs::digest;
use saker_keyring::{
    FileId, FileIdentity, FileKind, FrameSize, Lease, OpenError, PlainKey, SealError, Zone, ZoneId, ZoneKeyVersion,
};
use saker_storage::{DirectoryError, EmbeddedStores, MetaBatch, MetaError, MetaKey, ObjectPath, PathError};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// The zone that everything here is sealed in; only the root secret tells one server from another.
const ZONE: ZoneId = ZoneId::from_bytes(*b"saker-key-server");
/// Folder of the material files in the object store.
const MATERIALS: &str = "materials";

/// Why records cannot be read or written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The directory cannot be used, or another process uses it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The metadata store failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The object store failed.
    #[error(transparent)]
    Object(#[from] saker_storage::StoreError),
    /// A name cannot be stored.
    #[error(transparent)]
    Name(#[from] PathError),
    /// A record cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
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

/// Open records. One process at a time: the directory is locked.
pub(super) struct Store {
    stores: EmbeddedStores,
    lease: Lease,
    runtime: Handle,
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

/// A record's name from a text that a caller chose: one fixed-length part, whatever the text.
pub(super) fn hashed(folder: &str, text: &str) -> String {
    format!(
        "{folder}/{}",
        hex::encode(digest::digest(&digest::SHA256, text.as_bytes()))
    )
}

impl Store {
    /// Opens the records in `directory`, or begins them.
    pub(super) async fn open(directory: &Path, root: PlainKey) -> Result<Self, RecordError> {
        let stores = EmbeddedStores::open(directory).await?;
        let zone = Zone::locked(ZONE);
        let never = |_| RecordError::NotAuthentic {
            name: "of the root secret".to_owned(),
        };
        zone.unlock(vec![(ZoneKeyVersion::FIRST, root)]).map_err(never)?;
        let lease = zone.lease().map_err(|locked| RecordError::Seal(locked.into()))?;
        Ok(Self {
            stores,
            lease,
            runtime: Handle::current(),
        })
    }

    /// Every record whose name starts with `prefix`.
    pub(super) fn all<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, RecordError> {
        let mut found = Vec::new();
        for (key, sealed) in self.runtime.block_on(self.stores.meta.scan(prefix))? {
            let name = key.as_str();
            let plain = self.lease.open_value(name, &sealed).map_err(|_| not_authentic(name))?;
            let unknown = |_| RecordError::UnknownForm { name: name.to_owned() };
            found.push(serde_json::from_slice(&plain).map_err(unknown)?);
        }
        Ok(found)
    }

    /// Makes all changes or none; on disk when this returns.
    pub(super) fn commit(&self, changes: Vec<Change>) -> Result<(), RecordError> {
        let mut batch = MetaBatch::new();
        for change in changes {
            match change {
                Change::Put(name, plain) => {
                    let sealed = self.lease.seal_value(&name, &plain)?;
                    batch.put(MetaKey::new(name)?, sealed);
                }
                Change::Remove(name) => {
                    batch.delete(MetaKey::new(name)?);
                }
            }
        }
        Ok(self.runtime.block_on(self.stores.meta.commit(batch))?)
    }

    /// Stores key material in a file of its own; on disk when this returns.
    pub(super) fn put_material(&self, material: &PlainKey) -> Result<FileId, RecordError> {
        let file = FileId::random();
        let mut sealer = self.lease.file_sealer(file, FileKind::KeyMaterial, FrameSize::Random)?;
        sealer.write(material.expose_bytes())?;
        let sealed = sealer.finish()?;
        self.runtime
            .block_on(self.stores.objects.put(&material_path(file)?, sealed))?;
        Ok(file)
    }

    /// The key material in a file.
    pub(super) fn material(&self, file: FileId) -> Result<PlainKey, RecordError> {
        let path = material_path(file)?;
        let sealed = self.runtime.block_on(self.stores.objects.get(&path))?;
        let identity = FileIdentity {
            file,
            kind: FileKind::KeyMaterial,
        };
        let opened: Result<_, OpenError> = self.lease.open_whole_file(identity, &sealed);
        let mut plain = opened.map_err(|_| not_authentic(path.as_str()))?;
        PlainKey::take(&mut plain).ok_or_else(|| not_authentic(path.as_str()))
    }

    /// Overwrites what the material was wrapped in, then removes the file.
    pub(super) fn shred_material(&self, file: FileId) -> Result<(), RecordError> {
        Ok(self
            .runtime
            .block_on(self.stores.objects.shred(&material_path(file)?))?)
    }

    /// Destroys material that no key has: left by a crash while a key was made or destroyed.
    pub(super) fn shred_all_but(&self, known: &BTreeSet<FileId>) -> Result<(), RecordError> {
        let known: BTreeSet<ObjectPath> = known
            .iter()
            .map(|file| material_path(*file))
            .collect::<Result<_, RecordError>>()?;
        for object in self.runtime.block_on(self.stores.objects.list(MATERIALS))? {
            if !known.contains(&object.path) {
                self.runtime.block_on(self.stores.objects.shred(&object.path))?;
            }
        }
        Ok(())
    }
}

fn material_path(file: FileId) -> Result<ObjectPath, RecordError> {
    Ok(ObjectPath::new(format!("{MATERIALS}/{file}"))?)
}

fn not_authentic(name: &str) -> RecordError {
    RecordError::NotAuthentic { name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use saker_keyring::random_key;

    fn copy(key: &PlainKey) -> PlainKey {
        PlainKey::take(&mut key.expose_bytes().clone()).unwrap()
    }

    #[test]
    fn records_survive_and_are_bound_to_the_root() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records");
        let root = random_key();
        let open = |root| runtime.block_on(Store::open(&path, root));
        let file = {
            let store = open(copy(&root)).unwrap();
            store
                .commit(vec![Change::put("key/a", &"one"), Change::put("key/b", &"two")])
                .unwrap();
            store
                .commit(vec![Change::Remove("key/b".into()), Change::put("other/c", &"three")])
                .unwrap();
            store.put_material(&root).unwrap()
        };
        let store = open(copy(&root)).unwrap();
        assert_eq!(store.all::<String>("key/").unwrap(), vec!["one".to_owned()]);
        assert_eq!(store.material(file).unwrap().expose_bytes(), root.expose_bytes());
        let orphan = store.put_material(&root).unwrap();
        store.shred_all_but(&BTreeSet::from([file])).unwrap();
        assert!(store.material(orphan).is_err() && store.material(file).is_ok());
        store.shred_material(file).unwrap();
        assert!(store.material(file).is_err());
        drop(store);
        let stranger = open(random_key()).unwrap();
        assert!(matches!(
            stranger.all::<String>("key/"),
            Err(RecordError::NotAuthentic { .. })
        ));
    }
}
