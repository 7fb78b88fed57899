//! Stores that write down every data key and every nonce that anything was sealed with.
//!
//! A nonce that is used twice under one key gives both plaintexts away, and a data key is for one file. So [`Ledger`]
//! looks at every sealed thing on its way to the stores, also at what a crash keeps from getting there, over as many
//! openings of the engine as a test makes. The commitment in a header tells which data key it is; where header, nonces
//! and frames lie is in `docs/formats.md`, and is written here a second time on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use saker_storage::{
    EmbeddedStores, FileId, Log, LogAppend, LogAppender, LogError, LogReady, LogSegmentContents, LogSegmentInfo,
    LogSequence, MetaBatch, MetaError, MetaKey, MetaOperation, MetaStore, ObjectInfo, ObjectPath, ObjectStore,
    SealedHeader, SealedLogHeader, SealedObject, SealedRecord, StoreError, StreamId, Unverified,
};

/// What was sealed so far. Cheap to clone; all clones are one ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    /// What each data key sealed, by its commitment.
    keys: BTreeMap<Vec<u8>, Sealed>,
    /// What was sealed with each nonce: frames, records, values and wrapped data keys.
    nonces: BTreeMap<Vec<u8>, Vec<u8>>,
    violations: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Sealed {
    file: Vec<u8>,
    /// All but the header; a log segment's is empty, as its records come one by one.
    body: Vec<u8>,
}

const HEADER_BYTES: usize = 192;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const FRAME_LOG2: usize = 15;
const FILE: Range<usize> = 16..32;
const COMMITMENT: Range<usize> = 48..80;
const WRAPPED: Range<usize> = 132..192;

impl Ledger {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was used twice, in words; nothing if all is well.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.entries().violations.iter().cloned().collect()
    }

    /// Data keys and nonces seen, so that a test can tell that it saw some.
    #[must_use]
    pub fn seen(&self) -> (usize, usize) {
        let entries = self.entries();
        (entries.keys.len(), entries.nonces.len())
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file of frames, or a value, which is one frame.
    fn sealed(&self, bytes: &[u8], in_frames: bool) {
        let mut entries = self.entries();
        let Some((header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
            // The platform zone's record is the one value that is not sealed.
            return;
        };
        if !header.starts_with(b"\x93SAKER\r\n") {
            return;
        }
        entries.key(header, body);
        let frame_bytes = if in_frames {
            (1_usize << header[FRAME_LOG2]) + NONCE_BYTES + TAG_BYTES
        } else {
            body.len().max(1)
        };
        body.chunks(frame_bytes).for_each(|frame| entries.nonce("frame", frame));
    }

    fn header(&self, header: &[u8]) {
        if let Some(wrapped) = header.get(WRAPPED) {
            self.entries().nonce("wrapped data key", wrapped);
        }
    }

    /// A new log segment: its key must not have sealed anything.
    fn segment(&self, header: &[u8]) {
        let mut entries = self.entries();
        let known = header.get(COMMITMENT).is_some_and(|key| entries.keys.contains_key(key));
        if known {
            entries
                .violations
                .insert("two log segments have one data key".to_owned());
        }
        entries.key(header, &[]);
    }

    fn record(&self, record: &[u8]) {
        if let Some(sealed) = record.get(1..) {
            self.entries().nonce("log record", sealed);
        }
    }
}

impl Entries {
    fn key(&mut self, header: &[u8], body: &[u8]) {
        let (Some(commitment), Some(file)) = (header.get(COMMITMENT), header.get(FILE)) else {
            return;
        };
        let sealed = Sealed {
            file: file.to_vec(),
            body: body.to_vec(),
        };
        let before = self.keys.entry(commitment.to_vec()).or_insert_with(|| Sealed {
            file: file.to_vec(),
            body: body.to_vec(),
        });
        if *before != sealed {
            self.violations.insert("one data key sealed two files".to_owned());
        }
        if let Some(wrapped) = header.get(WRAPPED) {
            self.nonce("wrapped data key", wrapped);
        }
    }

    /// The same bytes again are a copy, not a second use.
    fn nonce(&mut self, what: &str, sealed: &[u8]) {
        let Some((nonce, rest)) = sealed.split_at_checked(NONCE_BYTES) else {
            self.violations.insert(format!("a {what} is too short for its nonce"));
            return;
        };
        let before = self.nonces.entry(nonce.to_vec()).or_insert_with(|| rest.to_vec());
        if before != rest {
            self.violations.insert(format!("the nonce of a {what} was used before"));
        }
    }
}

/// `stores`, with everything that goes into them written down in `ledger`.
#[must_use]
pub fn recorded_stores(stores: EmbeddedStores, ledger: &Ledger) -> EmbeddedStores {
    EmbeddedStores {
        objects: Arc::new(RecordedObjects(stores.objects, ledger.clone())),
        meta: Arc::new(RecordedMeta(stores.meta, ledger.clone())),
        log: Arc::new(RecordedLog(stores.log, ledger.clone())),
        lock: stores.lock,
    }
}

#[derive(Debug)]
struct RecordedObjects(Arc<dyn ObjectStore>, Ledger);

#[async_trait]
impl ObjectStore for RecordedObjects {
    async fn put(&self, path: &ObjectPath, object: SealedObject) -> Result<(), StoreError> {
        self.1.sealed(object.to_unverified().as_bytes(), true);
        self.0.put(path, object).await
    }
    async fn get(&self, path: &ObjectPath) -> Result<Unverified, StoreError> {
        self.0.get(path).await
    }
    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Unverified, StoreError> {
        self.0.get_range(path, range).await
    }
    async fn open(&self, path: &ObjectPath) -> Result<Arc<dyn saker_storage::ObjectReader>, StoreError> {
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
        headers.iter().for_each(|(_, header)| self.1.header(header.as_bytes()));
        self.0.replace_headers(headers).await
    }
}

#[derive(Debug)]
struct RecordedMeta(Arc<dyn MetaStore>, Ledger);

#[async_trait]
impl MetaStore for RecordedMeta {
    async fn get(&self, key: &MetaKey) -> Result<Option<Unverified>, MetaError> {
        self.0.get(key).await
    }
    async fn scan(&self, prefix: &str) -> Result<Vec<(MetaKey, Unverified)>, MetaError> {
        self.0.scan(prefix).await
    }
    async fn commit(&self, batch: MetaBatch) -> Result<(), MetaError> {
        for operation in batch.operations() {
            if let MetaOperation::Put(_, value) = operation {
                self.1.sealed(value.as_bytes(), false);
            }
        }
        self.0.commit(batch).await
    }
}

#[derive(Debug)]
struct RecordedLog(Arc<dyn Log>, Ledger);

#[async_trait]
impl Log for RecordedLog {
    async fn create_segment(
        &self,
        stream: &StreamId,
        header: SealedLogHeader,
        file: FileId,
    ) -> Result<Box<dyn LogAppender>, LogError> {
        self.1.segment(header.as_bytes());
        let appender = self.0.create_segment(stream, header, file).await?;
        Ok(Box::new(RecordedAppender(appender, self.1.clone())))
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
        self.1.header(header.as_bytes());
        self.0.replace_header(stream, sequence, header).await
    }
    async fn read_header(&self, stream: &StreamId, sequence: LogSequence) -> Result<(FileId, Unverified), LogError> {
        self.0.read_header(stream, sequence).await
    }
}

#[derive(Debug)]
struct RecordedAppender(Box<dyn LogAppender>, Ledger);

impl LogAppender for RecordedAppender {
    fn append(&self, record: SealedRecord) -> LogAppend {
        self.1.record(record.as_bytes());
        self.0.append(record)
    }
    fn ready(&self) -> LogReady {
        self.0.ready()
    }
    fn sequence(&self) -> LogSequence {
        self.0.sequence()
    }
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
    fn ended(&self) -> Option<LogError> {
        self.0.ended()
    }
    fn commits(&self) -> u64 {
        self.0.commits()
    }
}

#[cfg(test)]
mod tests {
    use saker_keyring::{FileKind, FrameSize, Lease, Zone, ZoneId, ZoneKeyVersion, random_key};

    use super::*;

    fn lease() -> Lease {
        let zone = Zone::locked(ZoneId::random());
        zone.unlock(vec![(ZoneKeyVersion::FIRST, random_key())]).unwrap();
        zone.lease().unwrap()
    }

    #[tokio::test]
    async fn what_is_sealed_is_seen_and_twice_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::new();
        let stores = EmbeddedStores::open(directory.path().join("data")).await.unwrap();
        let stores = recorded_stores(stores, &ledger);
        let lease = lease();
        let mut sealer = lease
            .file_sealer(FileId::random(), FileKind::Column, FrameSize::Random)
            .unwrap();
        sealer.write(&[1; 9_000]).unwrap();
        let object = sealer.finish().unwrap();
        let path = ObjectPath::new("a/b").unwrap();
        stores.objects.put(&path, object.clone()).await.unwrap();
        // Its wrapped key and three frames of 4 KiB.
        assert_eq!(ledger.seen(), (1, 4));
        let key = MetaKey::new("k").unwrap();
        let mut batch = MetaBatch::new();
        batch.put(key.clone(), lease.seal_value("k", b"value").unwrap());
        stores.meta.commit(batch).await.unwrap();
        assert_eq!(ledger.seen(), (2, 6));
        let (header, mut log) = lease.log_sealer(FileId::random()).unwrap();
        let stream = StreamId::new("s").unwrap();
        let file = log.file();
        let appender = stores.log.create_segment(&stream, header.clone(), file).await.unwrap();
        appender.append(log.seal(b"record").unwrap()).await.unwrap();
        assert_eq!(ledger.seen(), (3, 8));
        // A copy of the same bytes is no second use.
        let copy = ObjectPath::new("a/c").unwrap();
        stores.objects.put(&copy, object.clone()).await.unwrap();
        assert_eq!(ledger.violations(), Vec::<String>::new());

        let again = stores.log.create_segment(&stream, header, file).await;
        drop(again);
        assert_eq!(ledger.violations(), ["two log segments have one data key"]);
        let mut altered = object.to_unverified().as_bytes().to_vec();
        altered[200] ^= 1;
        ledger.sealed(&altered, true);
        let mut reused = object.to_unverified().as_bytes()[..300].to_vec();
        reused[250] ^= 1;
        ledger.record(&reused[191..]);
        assert_eq!(ledger.violations().len(), 3, "{:?}", ledger.violations());
    }
}
