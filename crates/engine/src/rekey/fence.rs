//! The stores of a running engine take nothing that is sealed under a zone key which is about to be destroyed.
//!
//! Whoever seals takes the zone's newest key, and the locks that a pass holds see to it that what was sealed before is
//! stored before. This is what makes a mistake in that a failed request instead of a lost file: the fence is raised before
//! the last pass, and waits for what is being stored at that moment.
//!
//! What it deliberately does not do: it opens nothing. It reads which key a header says that it is wrapped by.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use saker_keyring::{HEADER_BYTES, ZoneId, ZoneKeyVersion, wrapping_version};
use saker_storage::{
    FileId, Log, LogAppender, LogError, LogSegmentContents, LogSegmentInfo, LogSequence, MetaBatch, MetaError, MetaKey,
    MetaOperation, MetaStore, ObjectInfo, ObjectPath, ObjectReader, ObjectStore, SealedHeader, SealedLogHeader,
    SealedObject, StoreError, StreamId, Unverified,
};
use tokio::sync::RwLock;

use crate::engine::Stores;

/// The oldest version of each zone's key that is taken.
#[derive(Debug, Default)]
pub(crate) struct Fence(RwLock<BTreeMap<ZoneId, ZoneKeyVersion>>);

const REASON: &str = "it is sealed under a zone key that is being retired; try again";

impl Fence {
    /// Takes nothing that is sealed under older keys of this zone any more. What is being stored is stored when this
    /// returns.
    pub(super) async fn raise(&self, zone: ZoneId, oldest: ZoneKeyVersion) {
        let mut taken = self.0.write().await;
        let before = taken.entry(zone).or_insert(oldest);
        *before = (*before).max(oldest);
    }

    /// The stores behind the fence.
    pub(crate) fn around(self: &Arc<Self>, stores: Stores) -> Stores {
        Stores {
            objects: Arc::new(Objects(stores.objects, Arc::clone(self))),
            meta: Arc::new(Meta(stores.meta, Arc::clone(self))),
            log: Arc::new(Logs(stores.log, Arc::clone(self))),
            lock: stores.lock,
        }
    }
}

fn passes(taken: &BTreeMap<ZoneId, ZoneKeyVersion>, header: &[u8]) -> bool {
    let Some(header) = header.get(..HEADER_BYTES) else {
        return true;
    };
    // Only the bootstrap value has no header; it holds wrapped keys alone.
    let claimed = wrapping_version(&Unverified::new(Bytes::copy_from_slice(header)));
    claimed.is_none_or(|(zone, version)| taken.get(&zone).is_none_or(|oldest| version >= *oldest))
}

#[derive(Debug)]
struct Objects(Arc<dyn ObjectStore>, Arc<Fence>);

#[async_trait]
impl ObjectStore for Objects {
    async fn put(&self, path: &ObjectPath, object: SealedObject) -> Result<(), StoreError> {
        let taken = self.1.0.read().await;
        let header: Vec<u8> = object.chunks().iter().flatten().take(HEADER_BYTES).copied().collect();
        if !passes(&taken, &header) {
            return Err(refused("write", path));
        }
        self.0.put(path, object).await
    }
    async fn get(&self, path: &ObjectPath) -> Result<Unverified, StoreError> {
        self.0.get(path).await
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Unverified, StoreError> {
        self.0.get_range(path, range).await
    }
    async fn open(&self, path: &ObjectPath) -> Result<Arc<dyn ObjectReader>, StoreError> {
        self.0.open(path).await
    }
    async fn size(&self, path: &ObjectPath) -> Result<u64, StoreError> {
        self.0.size(path).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.0.list(prefix).await
    }
    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.0.delete(path).await
    }
    async fn shred(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.0.shred(path).await
    }
    async fn replace_headers(&self, headers: Vec<(ObjectPath, SealedHeader)>) -> Result<usize, StoreError> {
        let taken = self.1.0.read().await;
        if let Some((path, _)) = headers.iter().find(|(_, header)| !passes(&taken, header.as_bytes())) {
            return Err(refused("replace headers of", path));
        }
        self.0.replace_headers(headers).await
    }
}

fn refused(action: &'static str, path: &ObjectPath) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_string(),
        reason: REASON.to_owned(),
    }
}

#[derive(Debug)]
struct Meta(Arc<dyn MetaStore>, Arc<Fence>);

#[async_trait]
impl MetaStore for Meta {
    async fn get(&self, key: &MetaKey) -> Result<Option<Unverified>, MetaError> {
        self.0.get(key).await
    }
    async fn scan(&self, prefix: &str) -> Result<Vec<(MetaKey, Unverified)>, MetaError> {
        self.0.scan(prefix).await
    }
    async fn commit(&self, batch: MetaBatch) -> Result<(), MetaError> {
        let taken = self.1.0.read().await;
        let old = batch.operations().iter().find_map(|operation| match operation {
            MetaOperation::Put(key, value) => (!passes(&taken, value.as_bytes())).then_some(key),
            MetaOperation::Delete(_) => None,
        });
        if let Some(key) = old {
            return Err(MetaError::Io {
                action: "commit",
                reason: format!("{key} was not stored: {REASON}"),
            });
        }
        self.0.commit(batch).await
    }
}

#[derive(Debug)]
struct Logs(Arc<dyn Log>, Arc<Fence>);

impl Logs {
    fn refused(action: &'static str, stream: &StreamId) -> LogError {
        LogError::Io {
            action,
            stream: stream.to_string(),
            reason: REASON.to_owned(),
        }
    }
}

#[async_trait]
impl Log for Logs {
    async fn create_segment(
        &self,
        stream: &StreamId,
        header: SealedLogHeader,
        file: FileId,
    ) -> Result<Box<dyn LogAppender>, LogError> {
        let taken = self.1.0.read().await;
        if !passes(&taken, header.as_bytes()) {
            return Err(Self::refused("create a segment", stream));
        }
        self.0.create_segment(stream, header, file).await
    }
    async fn segments(&self, stream: &StreamId) -> Result<Vec<LogSegmentInfo>, LogError> {
        self.0.segments(stream).await
    }
    async fn read_segment(&self, stream: &StreamId, sequence: LogSequence) -> Result<LogSegmentContents, LogError> {
        self.0.read_segment(stream, sequence).await
    }
    async fn remove_segments_below(&self, stream: &StreamId, sequence: LogSequence) -> Result<(), LogError> {
        self.0.remove_segments_below(stream, sequence).await
    }
    async fn remove_stream(&self, stream: &StreamId) -> Result<(), LogError> {
        self.0.remove_stream(stream).await
    }
    async fn streams(&self) -> Result<Vec<StreamId>, LogError> {
        self.0.streams().await
    }
    async fn replace_header(
        &self,
        stream: &StreamId,
        sequence: LogSequence,
        header: SealedHeader,
    ) -> Result<(), LogError> {
        let taken = self.1.0.read().await;
        if !passes(&taken, header.as_bytes()) {
            return Err(Self::refused("replace a header", stream));
        }
        self.0.replace_header(stream, sequence, header).await
    }
    async fn read_header(&self, stream: &StreamId, sequence: LogSequence) -> Result<(FileId, Unverified), LogError> {
        self.0.read_header(stream, sequence).await
    }
}

#[cfg(test)]
mod tests {
    use saker_keyring::{FileKind, FrameSize, Zone, random_key};
    use saker_storage::{EmbeddedStores, LogSequence};

    use super::*;

    #[tokio::test]
    async fn what_is_sealed_under_a_retired_key_is_stored_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let fence = Arc::new(Fence::default());
        let stores = fence.around(
            EmbeddedStores::open(directory.path().join("data"))
                .await
                .unwrap()
                .into(),
        );
        let zone = Zone::locked(ZoneId::random());
        zone.unlock(vec![(ZoneKeyVersion::FIRST, random_key())]).unwrap();
        let lease = zone.lease().unwrap();
        let (path, key) = (ObjectPath::new("a/b").unwrap(), MetaKey::new("k").unwrap());
        let stream = StreamId::new("s").unwrap();
        let object = || {
            let file = FileId::random();
            lease
                .file_sealer(file, FileKind::Column, FrameSize::Random)
                .unwrap()
                .finish()
                .unwrap()
        };
        let batch = || {
            let mut batch = MetaBatch::new();
            batch.put(key.clone(), lease.seal_value("k", b"v").unwrap());
            batch
        };
        let old = (object(), batch(), lease.log_sealer(FileId::random()).unwrap());
        let second = ZoneKeyVersion::new(2);
        lease.add_key(second, random_key()).unwrap();
        fence.raise(zone.id(), second).await;
        // A lower one changes nothing.
        fence.raise(zone.id(), ZoneKeyVersion::FIRST).await;
        stores.objects.put(&path, old.0).await.unwrap_err();
        stores.meta.commit(old.1).await.unwrap_err();
        let (header, sealer) = old.2;
        stores
            .log
            .create_segment(&stream, header, sealer.file())
            .await
            .unwrap_err();
        assert_eq!(stores.meta.get(&key).await.unwrap(), None);
        assert!(stores.objects.list("").await.unwrap().is_empty());

        stores.objects.put(&path, object()).await.unwrap();
        stores.meta.commit(batch()).await.unwrap();
        let (header, sealer) = lease.log_sealer(FileId::random()).unwrap();
        let appender = stores.log.create_segment(&stream, header, sealer.file()).await.unwrap();
        assert_eq!(appender.sequence(), LogSequence(1));
    }
}
