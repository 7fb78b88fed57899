//! An offline walk of everything an engine keeps: every metadata value, log segment and object is opened under its own
//! zone's key and checked against what the catalog says it is.
//!
//! It asks the key services to decrypt only, changes nothing, and goes on after a finding. Data of a database whose key
//! may not be used now is looked at from outside: sealed, and under that database's zone.
//!
//! Start reading at [`verify`].

use std::collections::BTreeMap;

use saker_keyring::{
    CallReason, FileId, FileIdentity, FileKind, HEADER_BYTES, KeyService, Lease, RootKeyId, Unverified, Zone, ZoneId,
    ZoneRecord,
};
use saker_model::{CollectionId, DatabaseId};
use saker_storage::{LogSequence, MetaKey, ObjectInfo, StreamId};

use crate::{
    codec,
    engine::Stores,
    error::{Error, ErrorKind, Result},
    opened::{prefix_of, stream_of},
    records::{
        self, ClockRecord, ClusterRecord, CollectionBody, CollectionRecord, DatabaseRecord, Manifest, UserRecord,
        meta_key,
    },
    zones::decrypt_all,
};

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Metadata values that opened.
    pub values: u64,
    /// Log segments whose records all opened.
    pub log_segments: u64,
    /// Records in them.
    pub log_records: u64,
    /// Objects of which every frame opened.
    pub objects: u64,
    /// Sealed bytes of all of the above.
    pub bytes: u64,
    /// Values, log segments and objects of which only the header was looked at, because their database is locked.
    pub header_only: u64,
    /// Databases whose key may not be used now: name, key and what the key service said.
    pub locked: Vec<(String, RootKeyId, String)>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which value, log segment or object.
    pub what: String,
    /// What is wrong with it.
    pub problem: String,
}

/// How far a walk is: sealed bytes looked at, of all.
pub type OnProgress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Bytes of an object that are read at a time.
const READ_BYTES: u64 = 8 << 20;
/// First bytes of everything sealed (`docs/formats.md`, header).
const MAGIC: [u8; 8] = *b"\x93SAKER\r\n";

/// Walks the stores. Nobody else may use them meanwhile.
///
/// # Errors
/// [`ErrorKind::InvalidParameter`] if there is nothing to walk; [`ErrorKind::KeyUnusable`] if the platform key may not be
/// used, since the catalog cannot be read then; errors of the stores themselves.
pub async fn verify(stores: &Stores, keys: &dyn KeyService, progress: OnProgress<'_>) -> Result<Verification> {
    let bootstrap = meta_key("cluster", "platform")?;
    let Some(stored) = stores.meta.get(&bootstrap).await? else {
        return Err(Error::invalid("there is no cluster in this data directory"));
    };
    let record = ZoneRecord::from_bootstrap_value(&stored)
        .map_err(|error| Error::new(ErrorKind::Corrupt, format!("{bootstrap}: {error}")))?;
    let root = record.root.clone();
    let platform = unlocked(keys, &record).await.map_err(|reason| {
        Error::new(
            ErrorKind::KeyUnusable { root: root.clone() },
            format!("platform key {root}: {reason}"),
        )
    })?;
    let mut walk = Walk {
        stores,
        platform,
        databases: BTreeMap::new(),
        collections: BTreeMap::new(),
        cluster: record.context.cluster.clone(),
        report: Verification::default(),
        seen: 0,
        total: 0,
        progress,
    };
    walk.opened_value(&stored);
    walk.measure().await?;
    walk.catalog(keys).await?;
    let collections: Vec<_> = walk.collections.iter().map(|(id, database)| (*id, *database)).collect();
    for (collection, database) in collections {
        walk.collection(collection, database).await?;
    }
    walk.strangers().await?;
    walk.report.findings.sort_by(|a, b| a.what.cmp(&b.what));
    Ok(walk.report)
}

/// A database's zone, and its key if it may be used.
struct DatabaseZone {
    zone: ZoneId,
    lease: Option<Lease>,
}

struct Walk<'a> {
    stores: &'a Stores,
    platform: Lease,
    databases: BTreeMap<DatabaseId, DatabaseZone>,
    collections: BTreeMap<CollectionId, DatabaseId>,
    cluster: String,
    report: Verification,
    seen: u64,
    total: u64,
    progress: OnProgress<'a>,
}

impl Walk<'_> {
    fn finding(&mut self, what: &dyn std::fmt::Display, problem: impl Into<String>) {
        self.report.findings.push(Finding {
            what: what.to_string(),
            problem: problem.into(),
        });
    }
    fn step(&mut self, bytes: u64) {
        self.seen += bytes;
        (self.progress)(self.seen.min(self.total), self.total);
    }
    fn opened_value(&mut self, value: &Unverified) {
        self.report.values += 1;
        self.report.bytes += value.len() as u64;
    }

    async fn measure(&mut self) -> Result<()> {
        for object in self.stores.objects.list("").await? {
            self.total += object.bytes;
        }
        for stream in self.stores.log.streams().await? {
            for segment in self.stores.log.segments(&stream).await? {
                self.total += segment.bytes;
            }
        }
        Ok(())
    }

    /// Every value under the platform zone; finds databases and collections.
    async fn catalog(&mut self, keys: &dyn KeyService) -> Result<()> {
        for (key, value) in self.stores.meta.scan("").await? {
            match key.as_str().split('/').next().unwrap_or_default() {
                "cluster" if key.as_str() == "cluster/platform" => {}
                "cluster" if key.as_str() == "cluster/record" => {
                    if let Some(record) = self.platform_value::<ClusterRecord>(&key, &value)
                        && record.cluster != self.cluster
                    {
                        self.finding(&key, "it belongs to another cluster than the platform zone");
                    }
                }
                "cluster" => {
                    self.platform_value::<ClockRecord>(&key, &value);
                }
                "user" => {
                    self.platform_value::<UserRecord>(&key, &value);
                }
                "database" => {
                    if let Some(record) = self.platform_value::<DatabaseRecord>(&key, &value) {
                        self.database(&key, record, keys).await;
                    }
                }
                "collection" => {
                    if let Some(record) = self.platform_value::<CollectionRecord>(&key, &value) {
                        self.collections.insert(record.id, record.database);
                    }
                }
                // Under the databases' zones; looked at with their collections.
                "body" | "manifest" => {}
                _ => self.finding(&key, "a kind of value that this version does not know"),
            }
        }
        Ok(())
    }

    fn platform_value<T: serde::de::DeserializeOwned>(&mut self, key: &MetaKey, value: &Unverified) -> Option<T> {
        let lease = self.platform.clone();
        self.value(&lease, key, value)
    }

    fn value<T: serde::de::DeserializeOwned>(&mut self, lease: &Lease, key: &MetaKey, value: &Unverified) -> Option<T> {
        match records::open(lease, key, value) {
            Ok(record) => {
                self.opened_value(value);
                Some(record)
            }
            Err(error) => {
                let problem = if is_sealed(value) {
                    error.message
                } else {
                    "it is not sealed".to_owned()
                };
                self.finding(&key, problem);
                None
            }
        }
    }

    async fn database(&mut self, key: &MetaKey, record: DatabaseRecord, keys: &dyn KeyService) {
        if record.zone.context.cluster != self.cluster {
            self.finding(&key, "its zone belongs to another cluster");
        }
        let lease = match unlocked(keys, &record.zone).await {
            Ok(lease) => Some(lease),
            Err(reason) => {
                self.report
                    .locked
                    .push((record.name.clone(), record.zone.root.clone(), reason));
                None
            }
        };
        self.databases.insert(
            record.id,
            DatabaseZone {
                zone: record.zone.zone,
                lease,
            },
        );
    }

    async fn collection(&mut self, collection: CollectionId, database: DatabaseId) -> Result<()> {
        let Some(zone) = self.databases.get(&database) else {
            self.finding(
                &format!("collection/{collection}"),
                format!("its database {database} is not there"),
            );
            return Ok(());
        };
        let (zone_id, lease) = (zone.zone, zone.lease.clone());
        let (body, manifest) = (meta_key("body", collection)?, meta_key("manifest", collection)?);
        let (body_value, manifest_value) = (
            self.stores.meta.get(&body).await?,
            self.stores.meta.get(&manifest).await?,
        );
        let objects = self.stores.objects.list(&prefix_of(collection)).await?;
        let stream = stream_of(collection)?;
        let Some(lease) = lease else {
            for (key, value) in [(body, body_value), (manifest, manifest_value)] {
                if let Some(value) = value {
                    self.header_only(&key, &value, zone_id);
                }
            }
            for object in objects {
                self.object_header_only(&object, zone_id).await;
            }
            return self.log_header_only(&stream, zone_id).await;
        };
        match body_value {
            Some(value) => {
                self.value::<CollectionBody>(&lease, &body, &value);
            }
            None => self.finding(&body, "it is missing"),
        }
        let manifest = match manifest_value {
            Some(value) => self.value::<Manifest>(&lease, &manifest, &value),
            None => {
                self.finding(&manifest, "it is missing");
                None
            }
        };
        let expected = manifest.map(|manifest| expected_files(collection, &manifest));
        self.objects(&lease, objects, expected).await;
        self.log(&lease, collection, &stream).await
    }

    /// Checks each object against the catalog. What no manifest names (a crash leaves such) is checked against itself.
    async fn objects(
        &mut self,
        lease: &Lease,
        objects: Vec<ObjectInfo>,
        expected: Option<BTreeMap<String, FileIdentity>>,
    ) {
        let mut expected = expected.unwrap_or_default();
        for object in objects {
            let known = expected.remove(object.path.as_str());
            match self.object(lease, &object, known).await {
                Ok(()) => {
                    self.report.objects += 1;
                    self.report.bytes += object.bytes;
                }
                Err(problem) => self.finding(&object.path, problem),
            }
        }
        for path in expected.into_keys() {
            self.finding(&path, "it is missing");
        }
    }

    async fn object(
        &mut self,
        lease: &Lease,
        object: &ObjectInfo,
        known: Option<FileIdentity>,
    ) -> std::result::Result<(), String> {
        let store = &self.stores.objects;
        let text = |error: saker_storage::StoreError| error.to_string();
        let header = store
            .get_range(&object.path, 0..HEADER_BYTES as u64)
            .await
            .map_err(text)?;
        if !is_sealed(&header) {
            return Err("it is not sealed".to_owned());
        }
        let refused = |_| "it failed verification; restore it from a backup".to_owned();
        let identity = known.or_else(|| claimed(&header)).ok_or("its header makes no sense")?;
        if !object.path.as_str().ends_with(&format!("/{}", identity.file)) {
            return Err(format!("it is a copy of file {} under another name", identity.file));
        }
        let file = lease.open_file(identity, &header, object.bytes).map_err(refused)?;
        let last = store
            .get_range(&object.path, file.last_frame_range())
            .await
            .map_err(text)?;
        let opener = file.verify_last(&last).map_err(refused)?;
        let per_read = (READ_BYTES / opener.frame_bytes().max(1)).max(1);
        let mut frame = 0;
        while frame < opener.frame_count() {
            let end = (frame + per_read).min(opener.frame_count());
            let range = opener.frame_range(frame).start..opener.frame_range(end - 1).end;
            let bytes = store.get_range(&object.path, range.clone()).await.map_err(text)?;
            for number in frame..end {
                let within = opener.frame_range(number);
                let slice = bytes.slice(offset(within.start, range.start)..offset(within.end, range.start));
                let sealed = slice.ok_or("it is shorter than its header says")?;
                opener.open_frame(number, &sealed).map_err(refused)?;
            }
            self.step(range.end - range.start);
            frame = end;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn log(&mut self, lease: &Lease, collection: CollectionId, stream: &StreamId) -> Result<()> {
        let mut records_in: BTreeMap<u64, u64> = BTreeMap::new();
        for segment in self.stores.log.segments(stream).await? {
            let what = format!("log/{stream}/{}", segment.sequence);
            match self
                .log_segment(lease, collection, stream, segment.sequence, &mut records_in)
                .await
            {
                Ok(records) => {
                    self.report.log_segments += 1;
                    self.report.log_records += records;
                    self.report.bytes += segment.bytes;
                }
                Err(problem) => self.finding(&what, problem),
            }
            self.step(segment.bytes);
        }
        Ok(())
    }

    async fn log_segment(
        &self,
        lease: &Lease,
        collection: CollectionId,
        stream: &StreamId,
        sequence: LogSequence,
        records_in: &mut BTreeMap<u64, u64>,
    ) -> std::result::Result<u64, String> {
        let contents = self
            .stores
            .log
            .read_segment(stream, sequence)
            .await
            .map_err(|error| error.to_string())?;
        if !is_sealed(&contents.header) {
            return Err("its header is not sealed".to_owned());
        }
        let refused = |what: String| move |_| format!("{what} failed verification; restore it from a backup");
        let mut opener = lease
            .open_log(contents.file, &contents.header)
            .map_err(refused("its header".to_owned()))?;
        let mut data_records = 0;
        for (index, record) in contents.records.iter().enumerate() {
            let opened = opener.open(record).map_err(refused(format!("record {index}")))?;
            let Some(plain) = opened else { continue };
            data_records += 1;
            let (link, _) = codec::decode(&plain, collection, sequence.0).map_err(|error| error.message)?;
            let before = records_in.get(&link.sequence).copied();
            if before.is_some_and(|records| records < link.records) {
                return Err(format!(
                    "log segment {} before it had at least {} records and was cut",
                    link.sequence, link.records
                ));
            }
        }
        records_in.insert(sequence.0, data_records);
        Ok(data_records)
    }

    fn header_only(&mut self, what: &dyn std::fmt::Display, header: &Unverified, zone: ZoneId) {
        if !is_sealed(header) {
            self.finding(&what, "it is not sealed");
        } else if zone_of(header) == Some(zone) {
            self.report.header_only += 1;
        } else {
            self.finding(&what, "it is sealed for another zone than its database's");
        }
    }

    async fn object_header_only(&mut self, object: &ObjectInfo, zone: ZoneId) {
        match self
            .stores
            .objects
            .get_range(&object.path, 0..HEADER_BYTES as u64)
            .await
        {
            Ok(header) => self.header_only(&object.path, &header, zone),
            Err(error) => self.finding(&object.path, error.to_string()),
        }
        self.step(object.bytes);
    }

    async fn log_header_only(&mut self, stream: &StreamId, zone: ZoneId) -> Result<()> {
        for segment in self.stores.log.segments(stream).await? {
            let what = format!("log/{stream}/{}", segment.sequence);
            match self.stores.log.read_segment(stream, segment.sequence).await {
                Ok(contents) => self.header_only(&what, &contents.header, zone),
                Err(error) => self.finding(&what, error.to_string()),
            }
            self.step(segment.bytes);
        }
        Ok(())
    }

    /// Objects, log streams and values of collections that the catalog does not know.
    async fn strangers(&mut self) -> Result<()> {
        let known: Vec<String> = self.collections.keys().map(|id| id.to_string()).collect();
        for object in self.stores.objects.list("").await? {
            let mut parts = object.path.as_str().split('/');
            let owned =
                parts.next() == Some("collection") && parts.next().is_some_and(|id| known.iter().any(|k| k == id));
            if !owned {
                self.finding(
                    &object.path,
                    "it belongs to no collection of the catalog; the next start removes it",
                );
            }
        }
        for stream in self.stores.log.streams().await? {
            let owned = stream
                .as_str()
                .strip_prefix("collection-")
                .is_some_and(|id| known.iter().any(|k| k == id));
            if !owned {
                self.finding(
                    &format!("log/{stream}"),
                    "it belongs to no collection of the catalog; the next start removes it",
                );
            }
        }
        for kind in ["body/", "manifest/"] {
            for (key, _) in self.stores.meta.scan(kind).await? {
                if !key
                    .as_str()
                    .strip_prefix(kind)
                    .is_some_and(|id| known.iter().any(|k| k == id))
                {
                    self.finding(
                        &key,
                        "it belongs to no collection of the catalog; the next start removes it",
                    );
                }
            }
        }
        Ok(())
    }
}

async fn unlocked(keys: &dyn KeyService, record: &ZoneRecord) -> std::result::Result<Lease, String> {
    let plain = decrypt_all(keys, record, CallReason::Verify)
        .await
        .map_err(|error| error.to_string())?;
    let zone = Zone::locked(record.zone);
    zone.unlock(plain).map_err(|error| error.to_string())?;
    zone.lease().map_err(|error| error.to_string())
}

fn expected_files(collection: CollectionId, manifest: &Manifest) -> BTreeMap<String, FileIdentity> {
    let prefix = prefix_of(collection);
    let segments = manifest.segments.iter().flat_map(|segment| {
        let prefix = &prefix;
        segment.files().map(move |entry| {
            (
                format!("{prefix}/{}/{}", segment.segment, entry.name),
                FileIdentity {
                    file: entry.file,
                    kind: entry.kind,
                },
            )
        })
    });
    let deletes = manifest.key_deletes.iter().map(|entry| {
        let identity = FileIdentity {
            file: entry.file,
            kind: FileKind::Deletes,
        };
        (crate::flush::key_deletes_path(collection, entry.file), identity)
    });
    segments.chain(deletes).collect()
}

fn offset(at: u64, start: u64) -> usize {
    usize::try_from(at - start).unwrap_or(usize::MAX)
}

fn is_sealed(bytes: &Unverified) -> bool {
    bytes.as_bytes().starts_with(&MAGIC) && bytes.len() >= HEADER_BYTES
}

/// The zone that the key slot names.
fn zone_of(header: &Unverified) -> Option<ZoneId> {
    header.as_bytes().get(112..128)?.try_into().ok().map(ZoneId::from_bytes)
}

/// What a file says of itself; the seal decides whether that is true.
fn claimed(header: &Unverified) -> Option<FileIdentity> {
    let bytes = header.as_bytes();
    let file = FileId::from_bytes(bytes.get(16..32)?.try_into().ok()?);
    let code = u16::from_le_bytes(bytes.get(12..14)?.try_into().ok()?);
    let kinds = [FileKind::Column, FileKind::Index, FileKind::Deletes, FileKind::Manifest];
    let kind = kinds.into_iter().find(|kind| *kind as u16 == code)?;
    Some(FileIdentity { file, kind })
}
