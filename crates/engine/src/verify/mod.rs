//! An offline walk of everything a data directory keeps: every metadata value, log segment and object is opened under its
//! own zone's key and checked against what the catalog says it is; every other file is reported.
//!
//! It asks the key services to decrypt only, changes nothing, and goes on after a finding: there is no damage that ends it
//! early. What lies under a key that may not be used now is dark: its headers are checked for their form and their zone.
//!
//! What it deliberately does not do: it repairs nothing, and it cannot tell an older copy of the whole directory from the
//! newest one, since that is consistent in itself.
//!
//! Start reading at [`verify`]; `catalog` finds zones and collections, `objects` and `log` look at the files.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a walk sorts out a few kinds of places and passes the others on"
)]

mod catalog;
mod form;
mod keys;
mod log;
mod objects;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

pub use report::{
    CollectionReport, DatabaseReport, Finding, FindingClass, Item, ItemKind, KeyVersionReport, Verdict, Verification,
    ZoneOwnerReport, ZoneReport,
};
use saker_keyring::{FileIdentity, KeyService, Lease, ZoneId, ZoneRecord};
use saker_model::{CollectionId, DatabaseId};
use saker_storage::{EntryKind, LogSequence, Place, ReadOnlyStores, StoredEntry};

use self::{
    form::{Claim, NoClaim},
    keys::{FoundZone, Zones},
};
use crate::records::LogPosition;

/// Hears of a walk's progress, and of what it opened in the platform's own log streams. Called from several threads.
pub trait WalkObserver: Send + Sync {
    /// How far the walk is: bytes looked at, of all.
    fn on_progress(&self, seen: u64, total: u64);
    /// A record of a log stream under the platform zone was opened. The records of a stream come in order.
    fn on_platform_record(&self, stream: &str, sequence: u64, record: u64, plain: &[u8]);
}

/// Walks a data directory. Nobody else may write to it meanwhile.
///
/// Never fails: whatever is wrong becomes a finding.
pub async fn verify(
    stores: Arc<ReadOnlyStores>,
    keys: &dyn KeyService,
    observer: Arc<dyn WalkObserver>,
) -> Verification {
    let walk = blocking(move || Walk::begin(stores, observer)).await;
    let Some(mut walk) = walk else { return broken_off() };
    if let Some(record) = walk.platform.clone() {
        let found = FoundZone {
            record,
            owner: ZoneOwnerReport::Platform,
            role: "zone".to_owned(),
            place: value_path(BOOTSTRAP),
        };
        walk.zones.unlock(keys, vec![found], &mut walk.out.findings).await;
    }
    let read = blocking(move || {
        let found = walk.catalog();
        (walk, found)
    });
    let Some((mut walk, found)) = read.await else {
        return broken_off();
    };
    walk.zones.unlock(keys, found, &mut walk.out.findings).await;
    blocking(move || walk.finish()).await.unwrap_or_else(broken_off)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// A bug ended the walk; that is no verdict, and must not look like one.
fn broken_off() -> Verification {
    Verification {
        findings: vec![Finding {
            what: ".".to_owned(),
            class: FindingClass::Unreadable,
            problem: "the walk was broken off by a bug; report it with the version".to_owned(),
        }],
        ..Verification::default()
    }
}

/// Key of the one value that is not sealed.
const BOOTSTRAP: &str = "cluster/platform";
/// What others than the owner may do.
const OTHERS: u32 = 0o077;

/// A walk and what it has found so far.
struct Walk {
    stores: Arc<ReadOnlyStores>,
    observer: Arc<dyn WalkObserver>,
    entries: Vec<StoredEntry>,
    /// Keys of metadata values.
    keys: Vec<String>,
    platform: Option<ZoneRecord>,
    zones: Zones,
    databases: BTreeMap<DatabaseId, Database>,
    collections: BTreeMap<CollectionId, Collection>,
    out: Found,
    /// Bytes of all metadata values.
    values_bytes: u64,
    seen: AtomicU64,
    total: u64,
}

/// What is known of a database.
#[derive(Debug)]
struct Database {
    report: DatabaseReport,
    zones: Vec<ZoneId>,
}

/// What is known of a collection.
#[derive(Debug)]
struct Collection {
    report: CollectionReport,
    /// Its own zones, if it has a key of its own.
    zones: Vec<ZoneId>,
    dropping: bool,
    /// Being moved to another database: its files may be under either's key.
    moving: bool,
    /// What its manifest names, by path of object; `None` if that could not be read.
    expected: Option<BTreeMap<String, FileIdentity>>,
    flushed: Option<LogPosition>,
}

/// What one thread found.
#[derive(Debug, Default)]
struct Found {
    items: Vec<Item>,
    findings: Vec<Finding>,
}

impl Found {
    fn finding(&mut self, what: &str, class: FindingClass, problem: impl Into<String>) {
        self.findings.push(Finding {
            what: what.to_owned(),
            class,
            problem: problem.into(),
        });
    }
    fn add(&mut self, other: Self) {
        self.items.extend(other.items);
        self.findings.extend(other.findings);
    }
}

/// How far the key to something can be used.
enum Key<'a> {
    /// Any of these, most often one.
    Leases(Vec<&'a Lease>),
    /// Its root key may not be used now.
    Dark,
    /// It is under no key that it may be under.
    Wrong(String),
}

/// Work for one thread.
enum Job<'a> {
    Object(&'a StoredEntry),
    Stream(&'a str, Vec<(LogSequence, &'a StoredEntry)>),
}

impl Walk {
    fn begin(stores: Arc<ReadOnlyStores>, observer: Arc<dyn WalkObserver>) -> Self {
        let mut out = Found::default();
        let entries = stores.entries();
        for problem in stores.metadata_problems() {
            out.finding("meta.redb", FindingClass::Damage, problem);
        }
        let (keys, ended) = stores.metadata_keys();
        if let Some(reason) = ended {
            out.finding(
                "meta.redb",
                FindingClass::Damage,
                format!("its values cannot all be listed: {reason}; restore it from a backup"),
            );
        }
        if let Err(problem) = stores.store_id() {
            out.finding("SAKER", FindingClass::Damage, problem);
        }
        let mut walk = Self {
            total: entries.iter().map(|entry| entry.bytes).sum(),
            stores,
            observer,
            entries,
            keys,
            platform: None,
            zones: Zones::default(),
            databases: BTreeMap::new(),
            collections: BTreeMap::new(),
            out,
            values_bytes: 0,
            seen: AtomicU64::new(0),
        };
        walk.platform = walk.bootstrap();
        walk
    }

    /// Everything that is left once all keys are there that will be.
    fn finish(mut self) -> Verification {
        self.definitions();
        let mut out = std::mem::take(&mut self.out);
        // So far there are values alone.
        self.values_bytes = out.items.iter().map(|item| item.bytes).sum();
        let mut jobs = Vec::new();
        let mut streams: BTreeMap<&str, Vec<(LogSequence, &StoredEntry)>> = BTreeMap::new();
        for entry in &self.entries {
            self.access_mode(entry, &mut out);
            match &entry.place {
                Place::Object(_) => jobs.push(Job::Object(entry)),
                Place::LogSegment { stream, sequence } => {
                    streams.entry(stream.as_str()).or_default().push((*sequence, entry));
                }
                _ => self.other(entry, &mut out),
            }
        }
        // First what one thread has to do in order.
        jobs.splice(
            0..0,
            streams
                .into_iter()
                .map(|(stream, segments)| Job::Stream(stream, segments)),
        );
        out.add(self.in_parallel(&jobs));
        drop(jobs);
        self.missing(&mut out);
        out.items.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        out.findings
            .sort_unstable_by(|a, b| (&a.what, a.class, &a.problem).cmp(&(&b.what, b.class, &b.problem)));
        self.observer.on_progress(self.total, self.total);
        Verification {
            cluster: self.platform.map(|record| record.context.cluster),
            store: self.stores.store_id().ok().map(|store| store.to_string()),
            zones: self.zones.report(),
            databases: self.databases.into_values().map(|database| database.report).collect(),
            collections: self
                .collections
                .into_values()
                .map(|collection| collection.report)
                .collect(),
            items: out.items,
            findings: out.findings,
        }
    }

    /// One thread per processor takes job after job.
    fn in_parallel(&self, jobs: &[Job<'_>]) -> Found {
        let threads = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(jobs.len().max(1));
        let (next, all) = (AtomicUsize::new(0), Mutex::new(Found::default()));
        let work = || {
            let mut found = Found::default();
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                match job {
                    Job::Object(entry) => self.object(entry, &mut found),
                    Job::Stream(stream, segments) => self.stream(stream, segments, &mut found),
                }
            }
            all.lock().unwrap_or_else(PoisonError::into_inner).add(found);
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        all.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, bytes: u64) {
        let seen = self.seen.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.observer.on_progress(seen.min(self.total), self.total);
    }

    /// Whether the catalog was read, so that what it does not name is known to be strange.
    fn has_catalog(&self) -> bool {
        self.platform_lease().is_some()
    }

    fn platform_lease(&self) -> Option<&Lease> {
        let record = self.platform.as_ref()?;
        self.zones
            .of(record.zone)
            .iter()
            .find_map(|zone| zone.lease.as_ref().ok())
    }

    /// The key to what has this header, if it may be under one of `allowed`.
    fn key(&self, claim: &Claim, allowed: &BTreeSet<ZoneId>) -> Key<'_> {
        let known = self.zones.of(claim.zone);
        if !self.has_catalog() && known.is_empty() {
            return Key::Dark;
        }
        if !allowed.contains(&claim.zone) {
            return Key::Wrong(if known.is_empty() {
                "it is sealed for a zone that the catalog does not have".to_owned()
            } else {
                "it is sealed for another zone than its own".to_owned()
            });
        }
        let with_version: Vec<_> = known.iter().filter(|zone| zone.has_version(claim.version)).collect();
        if with_version.is_empty() {
            return Key::Wrong(format!(
                "it is under version {} of its zone's key, which the zone does not have: an older copy was put back, or \
                 the header was altered",
                claim.version
            ));
        }
        let leases: Vec<&Lease> = with_version
            .iter()
            .filter_map(|zone| zone.lease.as_ref().ok())
            .collect();
        if leases.is_empty() {
            Key::Dark
        } else {
            Key::Leases(leases)
        }
    }

    /// The zones that a collection's files may be under.
    fn zones_of(&self, id: CollectionId) -> BTreeSet<ZoneId> {
        let Some(collection) = self.collections.get(&id) else {
            return self.zones.0.keys().copied().collect();
        };
        let of_database = self.databases.get(&collection.report.database);
        let of_database = of_database.into_iter().flat_map(|database| &database.zones);
        if collection.moving {
            return self.zones.0.keys().copied().collect();
        }
        if collection.zones.is_empty() {
            of_database.copied().collect()
        } else {
            collection.zones.iter().copied().collect()
        }
    }

    fn access_mode(&self, entry: &StoredEntry, out: &mut Found) {
        if entry.kind != EntryKind::Other && entry.mode & OTHERS != 0 {
            let wanted = if entry.kind == EntryKind::Directory {
                "0700"
            } else {
                "0600"
            };
            out.finding(
                &entry.path,
                FindingClass::Mode,
                format!(
                    "its access mode is {:04o}, so others than its owner may use it; set {wanted}",
                    entry.mode
                ),
            );
        }
        if let Some(problem) = &entry.problem {
            out.finding(&entry.path, FindingClass::Unreadable, problem.clone());
        }
    }

    /// What is neither an object nor a log segment.
    fn other(&self, entry: &StoredEntry, out: &mut Found) {
        let (kind, verdict) = match &entry.place {
            Place::Directory | Place::Cluster => return,
            Place::Object(_) | Place::LogSegment { .. } => return,
            Place::Foreign if entry.kind == EntryKind::Directory => {
                out.finding(&entry.path, FindingClass::Stray, "a directory that is not Saker's");
                return;
            }
            Place::Marker => (ItemKind::Marker, self.small_text(entry, out)),
            Place::Lock => (ItemKind::Lock, self.small_text(entry, out)),
            Place::Metadata => (ItemKind::MetadataFile, Verdict::Open),
            Place::LogFloor => (ItemKind::LogFloor, self.floor(entry, out)),
            Place::HeaderJournal => (ItemKind::HeaderJournal, self.journal(entry, out)),
            Place::Unfinished(what) => (ItemKind::Unfinished, self.unfinished(entry, what, out)),
            Place::Foreign => {
                let problem = match entry.kind {
                    EntryKind::Other => "no file but a link, a pipe or a device; nothing was read through it",
                    EntryKind::File | EntryKind::Directory => "a file that is not Saker's",
                };
                out.finding(&entry.path, FindingClass::Unsealed, problem);
                (ItemKind::Foreign, Verdict::Unsealed)
            }
        };
        self.step(entry.bytes);
        // Its values are items of their own; no byte counts twice.
        let values: u64 = match kind {
            ItemKind::MetadataFile => self.values_bytes,
            _ => 0,
        };
        out.items.push(Item {
            path: entry.path.clone(),
            kind,
            collection: None,
            zone: None,
            version: None,
            bytes: entry.bytes.saturating_sub(values),
            frames: 0,
            verdict,
        });
    }

    /// The two files that are not sealed hold one known text each, and no room for anything else.
    fn small_text(&self, entry: &StoredEntry, out: &mut Found) -> Verdict {
        const TEXT_BYTES_MAX: u64 = 256;
        let right = entry.bytes <= TEXT_BYTES_MAX
            && self.beginning(entry, TEXT_BYTES_MAX).is_ok_and(|text| {
                let text = String::from_utf8_lossy(&text).into_owned();
                match entry.place {
                    Place::Lock => text.trim().bytes().all(|byte| byte.is_ascii_digit()),
                    _ => text.lines().count() == 3,
                }
            });
        if right {
            return Verdict::Open;
        }
        out.finding(
            &entry.path,
            FindingClass::Unsealed,
            "it holds something else than the text that belongs there",
        );
        Verdict::Unsealed
    }

    fn floor(&self, entry: &StoredEntry, out: &mut Found) -> Verdict {
        if entry.bytes == 0 {
            return Verdict::Open;
        }
        self.unfinished(entry, "a log segment whose shredding was interrupted", out)
    }

    fn journal(&self, entry: &StoredEntry, out: &mut Found) -> Verdict {
        const JOURNAL_BYTES_MAX: u64 = 1 << 20;
        match self.beginning(entry, JOURNAL_BYTES_MAX) {
            Ok(bytes) if entry.bytes <= JOURNAL_BYTES_MAX && bytes.iter().all(|byte| *byte == 0) => Verdict::Open,
            Ok(bytes) if bytes.starts_with(b"SAKERHDR") => {
                let problem = format!(
                    "a replacement of headers was interrupted ({} of them are in the journals); the next start finishes it",
                    self.stores.unfinished_headers()
                );
                out.finding(&entry.path, FindingClass::Leftover, problem);
                Verdict::Unfinished
            }
            Ok(_) => {
                out.finding(&entry.path, FindingClass::Unsealed, "it is no journal of headers");
                Verdict::Unsealed
            }
            Err(problem) => {
                out.finding(&entry.path, FindingClass::Unreadable, problem);
                Verdict::Refused
            }
        }
    }

    /// A left-over holds what was being sealed, or zeros where it was being shredded.
    fn unfinished(&self, entry: &StoredEntry, what: &str, out: &mut Found) -> Verdict {
        const SEALED: [&[u8]; 4] = [b"\x93SAKER\r\n", b"SAKERLOG", b"redb", b"saker data directory"];
        let begins = self.beginning(entry, 32).unwrap_or_default();
        let sealed = SEALED.iter().any(|magic| {
            let shorter = magic.len().min(begins.len());
            begins[..shorter] == magic[..shorter]
        });
        if sealed || begins.iter().all(|byte| *byte == 0) {
            let problem = format!("{what}; the next start clears it away");
            out.finding(&entry.path, FindingClass::Leftover, problem);
            return Verdict::Unfinished;
        }
        let problem = format!("it has the name of {what}, and does not begin as one does");
        out.finding(&entry.path, FindingClass::Unsealed, problem);
        Verdict::Unsealed
    }

    fn beginning(&self, entry: &StoredEntry, bytes_max: u64) -> Result<Vec<u8>, String> {
        let file = self.stores.file(entry).map_err(|error| error.to_string())?;
        let bytes = file
            .read(0..file.bytes().min(bytes_max))
            .map_err(|error| error.to_string())?;
        Ok(bytes.as_bytes().to_vec())
    }

    /// What the manifests name and nobody saw.
    fn missing(&self, out: &mut Found) {
        let there: BTreeSet<&str> = self
            .entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::File)
            .filter_map(|entry| match &entry.place {
                Place::Object(path) => Some(path.as_str()),
                _ => None,
            })
            .collect();
        for collection in self.collections.values() {
            for path in collection.expected.iter().flat_map(BTreeMap::keys) {
                if there.contains(path.as_str()) {
                    continue;
                }
                let (class, problem) = if collection.dropping {
                    (
                        FindingClass::Leftover,
                        "it is gone: a drop of its collection was interrupted",
                    )
                } else {
                    (FindingClass::Missing, "it is missing; restore it from a backup")
                };
                out.finding(&format!("objects/{path}"), class, problem);
            }
        }
    }
}

/// How a metadata value is called in reports.
fn value_path(key: &str) -> String {
    format!("meta.redb:{key}")
}

/// What to say of bytes without a claim.
fn no_claim(reason: NoClaim) -> (FindingClass, Verdict, &'static str) {
    match reason {
        NoClaim::Unsealed => (FindingClass::Unsealed, Verdict::Unsealed, "it is not sealed"),
        NoClaim::Malformed => (
            FindingClass::Damage,
            Verdict::Refused,
            "its header makes no sense; restore it from a backup",
        ),
    }
}

const REFUSED: &str = "it failed verification; restore it from a backup";
