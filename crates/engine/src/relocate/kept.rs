//! New headers that the catalog keeps from a move's commit until they are written over the old ones.
//!
//! `move/COLLECTION` says what is going on, `move/COLLECTION/N` holds the headers. They are sealed under the platform
//! zone; what is in them is no secret (it stands in the files afterwards), but nobody else may put headers there.

use std::time::Duration;

use saker_keyring::SealedHeader;
use saker_model::CollectionId;
use saker_storage::{Expected, LogError, LogSequence, MetaBatch, MetaKey, ObjectPath};
use serde::{Deserialize, Serialize};

use super::{Route, headers::Wrapped};
use crate::{
    collection::Collection,
    error::{Error, ErrorKind, Result},
    events::Event,
    opened::stream_of,
    records::{self, meta_key, seal},
    shared::Shared,
};

/// Headers in one value: some megabytes.
const PART_HEADERS: usize = 8_192;
/// Headers that are handed to the store at once.
const WRITE_HEADERS: usize = 1_024;
/// Pause before writing is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// `move/COLLECTION`: a move whose headers may not all be written yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MoveRecord {
    collection: CollectionId,
    from_database: String,
    from_collection: String,
    database: String,
    name: String,
    headers: u64,
    parts: u32,
}

/// `move/COLLECTION/N`: headers in hexadecimal, of objects by path and of log segments by number.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MovePart {
    pub(crate) objects: Vec<(String, String)>,
    pub(crate) log: Vec<(u64, String)>,
}

/// A move after its commit.
pub(crate) struct KeptMove {
    record: MoveRecord,
    wrapped: Wrapped,
}

impl KeptMove {
    pub(super) fn new(collection: &Collection, route: &Route, wrapped: Wrapped) -> Self {
        let headers = wrapped.objects.len() + wrapped.log.len();
        let parts = wrapped.objects.len().div_ceil(PART_HEADERS) + wrapped.log.len().div_ceil(PART_HEADERS);
        let record = MoveRecord {
            collection: collection.id,
            from_database: route.from.name().to_owned(),
            from_collection: route.from_name.clone(),
            database: route.to.name().to_owned(),
            name: route.name.clone(),
            headers: headers as u64,
            parts: u32::try_from(parts).unwrap_or(u32::MAX),
        };
        Self { record, wrapped }
    }
    pub(super) fn headers(&self) -> u64 {
        self.record.headers
    }
    pub(super) fn collection(&self) -> CollectionId {
        self.record.collection
    }
    pub(super) fn event(&self) -> Event {
        Event::CollectionMoved {
            from_database: self.record.from_database.clone(),
            from_collection: self.record.from_collection.clone(),
            database: self.record.database.clone(),
            collection: self.record.name.clone(),
            headers: self.record.headers,
        }
    }

    /// What the commit stores of it.
    pub(super) fn batch(&self, shared: &Shared) -> Result<MetaBatch> {
        let lease = shared.platform_lease()?;
        let explain = |error| shared.platform.explain(error);
        let key = record_key(self.record.collection)?;
        let mut batch = MetaBatch::new();
        batch.expect(key.clone(), Expected::Absent);
        batch.put(key.clone(), seal(&lease, &key, &self.record).map_err(explain)?);
        let objects = self.wrapped.objects.chunks(PART_HEADERS).map(|part| MovePart {
            objects: part
                .iter()
                .map(|(path, header)| (path.to_string(), hex(header)))
                .collect(),
            log: Vec::new(),
        });
        let log = self.wrapped.log.chunks(PART_HEADERS).map(|part| MovePart {
            objects: Vec::new(),
            log: part
                .iter()
                .map(|(sequence, header)| (sequence.0, hex(header)))
                .collect(),
        });
        for (number, part) in objects.chain(log).enumerate() {
            let key = part_key(self.record.collection, number)?;
            batch.put(key.clone(), seal(&lease, &key, &part).map_err(explain)?);
        }
        Ok(batch)
    }

    /// Every move that was committed and not finished.
    pub(super) async fn all(shared: &Shared) -> Result<Vec<Self>> {
        let lease = shared.platform_lease()?;
        let mut moves = Vec::new();
        for (key, value) in shared.meta.scan("move/").await? {
            if key.as_str().split('/').count() != 2 {
                continue;
            }
            let record: MoveRecord = records::open(&lease, &key, &value)?;
            let mut wrapped = Wrapped {
                objects: Vec::new(),
                log: Vec::new(),
            };
            for number in 0..record.parts {
                let key = part_key(record.collection, number as usize)?;
                let broken = || Error::new(ErrorKind::Corrupt, format!("{key} is missing or makes no sense"));
                let value = shared.meta.get(&key).await?.ok_or_else(broken)?;
                let part: MovePart = records::open(&lease, &key, &value)?;
                for (path, header) in part.objects {
                    wrapped
                        .objects
                        .push((ObjectPath::new(path)?, unhex(&header).ok_or_else(broken)?));
                }
                for (sequence, header) in part.log {
                    wrapped
                        .log
                        .push((LogSequence(sequence), unhex(&header).ok_or_else(broken)?));
                }
            }
            moves.push(Self { record, wrapped });
        }
        Ok(moves)
    }

    /// Writes the headers and forgets the move; tries until that is done or the engine stops, after which the next start
    /// does it. Calls `failed` whenever it was not done.
    pub(super) async fn finish(&self, shared: &Shared, mut failed: impl FnMut()) {
        loop {
            let done = match self.write_headers(shared).await {
                Ok(()) => self.forget(shared).await,
                Err(error) => Err(error),
            };
            let Err(error) = done else { return };
            failed();
            tracing::error!(collection = %self.record.collection, "headers of a moved collection not written, trying again: {error}");
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN_AFTER) => {}
            }
        }
    }

    /// Writes all headers over the old ones; again does no harm.
    pub(super) async fn write_headers(&self, shared: &Shared) -> Result<()> {
        for part in self.wrapped.objects.chunks(WRITE_HEADERS) {
            shared.objects.replace_headers(part.to_vec()).await?;
        }
        let stream = stream_of(self.record.collection)?;
        for (sequence, header) in &self.wrapped.log {
            match shared.log.replace_header(&stream, *sequence, header.clone()).await {
                Ok(()) | Err(LogError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    pub(super) async fn forget(&self, shared: &Shared) -> Result<()> {
        let mut batch = MetaBatch::new();
        batch.delete(record_key(self.record.collection)?);
        for number in 0..self.record.parts {
            batch.delete(part_key(self.record.collection, number as usize)?);
        }
        Ok(shared.meta.commit(batch).await?)
    }
}

fn record_key(collection: CollectionId) -> Result<MetaKey> {
    meta_key("move", collection)
}

fn part_key(collection: CollectionId, number: usize) -> Result<MetaKey> {
    meta_key("move", format!("{collection}/{number}"))
}

fn hex(header: &SealedHeader) -> String {
    header.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<SealedHeader> {
    let digits = text.as_bytes().chunks_exact(2);
    if !digits.remainder().is_empty() {
        return None;
    }
    let bytes: Option<Vec<u8>> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    SealedHeader::kept(&bytes?)
}
