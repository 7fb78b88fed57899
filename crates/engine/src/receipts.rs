//! Receipts of drops: which keys were destroyed, and when.
//!
//! Dropping is crypto-shredding: wrapped keys are destroyed, and what they sealed is noise. A receipt names what was
//! dropped, counts what was sealed under it, and holds a SHA-256 of every wrapped key that was destroyed, so that whoever
//! kept a copy of one can prove that it is among them. It is kept in the catalog and handed to the audit log.
//!
//! It is written twice: once with everything that is about to be destroyed, in the same commit that destroys the first
//! of it, and once more when the last is gone. So a crash in between loses nothing of it.
//!
//! What it deliberately does not do: it proves nothing about copies of the data directory that somebody took before, but
//! that is what it is for: with the root key's own log it shows that such copies had to be opened before the drop, with
//! the root key, or never.

use saker_keyring::{HEADER_BYTES, HEADER_FIXED_BYTES, RootKeyId, Unverified, ZoneRecord};
use saker_model::CollectionId;
use saker_storage::{MetaBatch, ObjectInfo, StoreError};
use serde::{Deserialize, Serialize};

use crate::{
    database::Database,
    engine::Engine,
    error::{Error, Result},
    events::Event,
    opened::{prefix_of, stream_of},
    records::{self, meta_key, seal},
    shared::Shared,
};

/// What a receipt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptKind {
    /// A database was dropped: its zone keys are destroyed.
    Database,
    /// A collection was dropped: its data keys are destroyed, and its zone keys if it had a key of its own.
    Collection,
}

/// A wrapped zone key that was destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DestroyedKey {
    /// Id of its zone.
    pub zone: String,
    /// Its version in that zone.
    pub version: u32,
    /// The root key that it was wrapped under.
    pub root: RootKeyId,
    /// SHA-256 of the wrapped key as the key service gave it, in hexadecimal.
    pub wrapped_sha256: String,
}

/// Proof of a drop. Its JSON is what customers get and keep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Its id.
    pub id: String,
    /// What was dropped.
    pub kind: ReceiptKind,
    /// The database, or the one that the collection was in.
    pub database: String,
    /// That database's id.
    pub database_id: i64,
    /// The collection.
    pub collection: Option<String>,
    /// The collection's id.
    pub collection_id: Option<i64>,
    /// Id of the zone whose keys wrapped what was destroyed.
    pub zone: String,
    /// The root key of that zone.
    pub root: RootKeyId,
    /// When the drop began: Unix time in milliseconds.
    pub begun_ms: u64,
    /// When the last key was gone; `None` while the drop is under way (a crash; the next start finishes it).
    pub finished_ms: Option<u64>,
    /// Sealed files that were shredded.
    pub files: u64,
    /// Log segments that were shredded.
    pub log_segments: u64,
    /// Metadata values that were shredded.
    pub values: u64,
    /// Sealed bytes of all of these.
    pub bytes: u64,
    /// Wrapped zone keys that were destroyed; none for a collection under its database's key.
    pub zone_keys: Vec<DestroyedKey>,
    /// Wrapped data keys that were destroyed: one in the header of each file, log segment and value.
    pub data_keys: u64,
    /// SHA-256, in hexadecimal, over the SHA-256 of each of their key slots (bytes 112 to 191 of a header), which are
    /// sorted by their bytes first. Empty if there are none.
    pub data_keys_sha256: String,
    /// Files that were cut so short that they had no whole header, and so no key.
    pub without_header: u64,
    /// Where the audit log has this receipt (without this field); `None` if its record was not durable in time.
    #[serde(default)]
    pub audit: Option<AuditPlace>,
}

/// A place in the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPlace {
    /// Number of the record.
    pub sequence: u64,
    /// SHA-256 of the record, in hexadecimal.
    pub sha256: String,
}

/// Most receipts that the catalog keeps; the oldest make room. The audit log has them all.
pub(crate) const RECEIPTS_MAX: usize = 1_000;
/// Headers that are read at the same time.
const READS_AT_ONCE: usize = 16;

impl Receipt {
    /// A receipt of a drop that begins now, with nothing destroyed yet.
    pub(crate) fn begun(shared: &Shared, kind: ReceiptKind, database: &Database) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            kind,
            database: database.name().to_owned(),
            database_id: database.id.0,
            collection: None,
            collection_id: None,
            zone: database.access.zone.id().to_string(),
            root: database.access.root(),
            begun_ms: shared.config.clock.wall_ms(),
            finished_ms: None,
            files: 0,
            log_segments: 0,
            values: 0,
            bytes: 0,
            zone_keys: Vec::new(),
            data_keys: 0,
            data_keys_sha256: String::new(),
            without_header: 0,
            audit: None,
        }
    }

    /// Everything is destroyed now.
    pub(crate) fn finish(&mut self, shared: &Shared) {
        self.finished_ms = Some(shared.config.clock.wall_ms().max(self.begun_ms));
    }

    /// Puts the receipt on record, durably if the audit log answers in time.
    pub(crate) async fn keep_on_record(&mut self, shared: &Shared) {
        let receipt = Box::new(self.clone());
        let place = shared.config.events.on_record(&Event::Shredded { receipt }).await;
        self.audit = place.map(|place| AuditPlace {
            sequence: place.sequence,
            sha256: place.sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        });
    }

    /// Counts everything that is sealed for a collection, and hashes its wrapped keys. Nobody may write there meanwhile.
    ///
    /// # Errors
    /// A failed store.
    pub(crate) async fn count(&mut self, shared: &Shared, collection: CollectionId) -> Result<()> {
        use futures::{StreamExt as _, TryStreamExt as _};
        let mut slots = Vec::new();
        for key in [meta_key("body", collection)?, meta_key("manifest", collection)?] {
            if let Some(value) = shared.meta.get(&key).await? {
                self.values += 1;
                self.bytes += value.len() as u64;
                slots.push(slot_hash(&value));
            }
        }
        let stream = stream_of(collection)?;
        for segment in shared.log.segments(&stream).await? {
            let (_, header) = shared.log.read_header(&stream, segment.sequence).await?;
            self.log_segments += 1;
            self.bytes += segment.bytes;
            slots.push(slot_hash(&header));
        }
        let objects = shared.objects.list(&prefix_of(collection)).await?;
        self.files += objects.len() as u64;
        self.bytes += objects.iter().map(|object| object.bytes).sum::<u64>();
        let reads = objects.into_iter().map(|object| read_slot(shared, object));
        let read: Vec<_> = futures::stream::iter(reads)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        slots.extend(read);

        let mut hashes: Vec<[u8; 32]> = slots.iter().flatten().copied().collect();
        self.without_header += (slots.len() - hashes.len()) as u64;
        self.data_keys += hashes.len() as u64;
        self.data_keys_sha256 = combined(&mut hashes);
        Ok(())
    }
}

impl Engine {
    /// Receipts of drops, newest first.
    ///
    /// # Errors
    /// A failed store.
    pub async fn receipts(&self) -> Result<Vec<Receipt>> {
        let lease = self.shared.platform_lease()?;
        let mut receipts = Vec::new();
        for (key, value) in self.shared.meta.scan("receipt/").await? {
            let receipt: Receipt =
                records::open(&lease, &key, &value).map_err(|error| self.shared.platform.explain(error))?;
            receipts.push(receipt);
        }
        receipts.sort_by(|a, b| b.begun_ms.cmp(&a.begun_ms).then_with(|| a.id.cmp(&b.id)));
        Ok(receipts)
    }

    /// One receipt.
    ///
    /// # Errors
    /// If there is none with this id.
    pub async fn receipt(&self, id: &str) -> Result<Receipt> {
        let shown: String = id.chars().take(64).collect();
        let unknown = || Error::invalid(format!("there is no receipt {shown}; list them to see which there are"));
        let id: uuid::Uuid = id.parse().map_err(|_| unknown())?;
        let key = meta_key("receipt", id)?;
        let value = self.shared.meta.get(&key).await?.ok_or_else(unknown)?;
        let lease = self.shared.platform_lease()?;
        records::open(&lease, &key, &value).map_err(|error| self.shared.platform.explain(error))
    }

    /// Adds the receipt to a batch; the oldest of too many go with it.
    pub(crate) async fn put_receipt(&self, batch: &mut MetaBatch, receipt: &Receipt) -> Result<()> {
        let mut known = self.receipts().await?;
        known.retain(|other| other.id != receipt.id && other.finished_ms.is_some());
        for old in known.iter().skip(RECEIPTS_MAX - 1) {
            batch.delete(meta_key("receipt", &old.id)?);
        }
        let key = meta_key("receipt", &receipt.id)?;
        let lease = self.shared.platform_lease()?;
        let value = seal(&lease, &key, receipt).map_err(|error| self.shared.platform.explain(error))?;
        batch.put(key, value);
        Ok(())
    }
}

/// The wrapped keys of a zone.
pub(crate) fn zone_keys(zone: &ZoneRecord) -> Vec<DestroyedKey> {
    let destroyed = zone.versions.iter().map(|(version, wrapped)| DestroyedKey {
        zone: zone.zone.to_string(),
        version: version.number(),
        root: zone.root.clone(),
        wrapped_sha256: hex(sha256(wrapped.as_bytes()).as_ref()),
    });
    destroyed.collect()
}

async fn read_slot(shared: &Shared, object: ObjectInfo) -> Result<Option<[u8; 32]>> {
    match shared.objects.get_range(&object.path, 0..HEADER_BYTES as u64).await {
        Ok(header) => Ok(slot_hash(&header)),
        Err(StoreError::OutOfRange { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Hash of the key slot: which zone wraps the data key, and the wrapped key.
fn slot_hash(sealed: &Unverified) -> Option<[u8; 32]> {
    let slot = sealed.as_bytes().get(HEADER_FIXED_BYTES..HEADER_BYTES)?;
    sha256(slot).as_ref().try_into().ok()
}

fn combined(hashes: &mut [[u8; 32]]) -> String {
    if hashes.is_empty() {
        return String::new();
    }
    hashes.sort_unstable();
    hex(sha256(hashes.as_flattened()).as_ref())
}

fn sha256(bytes: &[u8]) -> aws_lc_rs::digest::Digest {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_all_data_keys_does_not_depend_on_their_order() {
        let (a, b) = ([1; 32], [2; 32]);
        assert_eq!(combined(&mut [a, b]), combined(&mut [b, a]));
        assert_ne!(combined(&mut [a, b]), combined(&mut [a]));
        assert_eq!(combined(&mut []), "");
        // SHA-256 of 32 bytes of 1 and 32 bytes of 2.
        assert_eq!(
            combined(&mut [a, b]),
            hex(sha256(&[[1; 32], [2; 32]].concat()).as_ref())
        );
    }

    #[test]
    fn what_is_too_short_for_a_header_has_no_key() {
        let bytes = |length: usize| Unverified::new(vec![7; length].into());
        assert_eq!(slot_hash(&bytes(HEADER_BYTES - 1)), None);
        assert!(slot_hash(&bytes(HEADER_BYTES)).is_some());
        // Only the key slot counts, not the body behind it.
        assert_eq!(slot_hash(&bytes(HEADER_BYTES)), slot_hash(&bytes(HEADER_BYTES + 100)));
    }
}
