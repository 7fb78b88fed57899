//! What a walk gives: every item with its verdict, what is not as it should be, and the keys that it met.

use saker_keyring::{RootKeyId, ZoneId};
use saker_model::{CollectionId, DatabaseId};

/// What a walk found. Nothing in it is decoded data but names of databases and collections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// The cluster's id, as the platform zone's record has it.
    pub cluster: Option<String>,
    /// The data directory's id.
    pub store: Option<String>,
    /// Every zone, the platform's first.
    pub zones: Vec<ZoneReport>,
    /// Every database of the catalog.
    pub databases: Vec<DatabaseReport>,
    /// Every collection of the catalog.
    pub collections: Vec<CollectionReport>,
    /// Every file, log segment and metadata value, in order of path.
    pub items: Vec<Item>,
    /// What is not as it should be, in order of place.
    pub findings: Vec<Finding>,
}

/// A zone and how far its key could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneReport {
    /// The zone.
    pub zone: ZoneId,
    /// The root key that wraps its keys.
    pub root: RootKeyId,
    /// Whose it is.
    pub owner: ZoneOwnerReport,
    /// The member of its owner's record that holds it: `zone` for the one in use; another during a change of root.
    pub role: String,
    /// Its key's versions, in order.
    pub versions: Vec<KeyVersionReport>,
    /// Why its key may not be used now, if it may not: then nothing under it was opened.
    pub dark: Option<String>,
}

/// Whose a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ZoneOwnerReport {
    /// The installation's: the catalog, and databases without a customer key.
    Platform,
    /// A database's.
    Database(DatabaseId),
    /// A collection's own.
    Collection(CollectionId),
    /// Named by another record of the catalog, such as a job that makes or retires it.
    Other,
}

/// One version of a zone's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersionReport {
    /// Its number.
    pub version: u32,
    /// SHA-256 of the key as the key service wrapped it, in hex.
    pub wrapped_sha256: String,
}

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseReport {
    /// Its id.
    pub id: DatabaseId,
    /// Its name.
    pub name: String,
    /// Whether its root key is a customer's.
    pub customer_key: bool,
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionReport {
    /// Its id.
    pub id: CollectionId,
    /// The database that it is in.
    pub database: DatabaseId,
    /// Its name.
    pub name: String,
}

/// One file, log segment or metadata value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its path in the data directory; a metadata value's is `meta.redb:KEY`.
    pub path: String,
    /// What it is.
    pub kind: ItemKind,
    /// The collection that it belongs to by its path.
    pub collection: Option<CollectionId>,
    /// The zone that its header names.
    pub zone: Option<ZoneId>,
    /// The version of the zone's key that its header names.
    pub version: Option<u32>,
    /// Its length, in bytes; of the metadata file what is around its values.
    pub bytes: u64,
    /// Frames, records or pieces that were opened; 0 if none was.
    pub frames: u64,
    /// What came of it.
    pub verdict: Verdict,
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    /// A sealed file: one column.
    Column,
    /// A sealed file: an index.
    Index,
    /// A sealed file: deletes.
    Deletes,
    /// A sealed file of another kind.
    OtherObject,
    /// A segment of the log.
    LogSegment,
    /// A sealed metadata value.
    MetadataValue,
    /// The platform zone's record, which holds wrapped keys and is what everything else is opened with.
    Bootstrap,
    /// The file that the metadata values are in.
    MetadataFile,
    /// The file that says whose directory this is.
    Marker,
    /// The file that keeps two servers apart.
    Lock,
    /// An empty file that keeps log numbers from being used again.
    LogFloor,
    /// The journal of header replacements.
    HeaderJournal,
    /// What an interrupted call left.
    Unfinished,
    /// Nothing that a data directory has.
    Foreign,
}

impl ItemKind {
    /// The word for it in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Column => "column",
            Self::Index => "index",
            Self::Deletes => "deletes",
            Self::OtherObject => "other-object",
            Self::LogSegment => "log-segment",
            Self::MetadataValue => "metadata-value",
            Self::Bootstrap => "bootstrap-record",
            Self::MetadataFile => "metadata-file",
            Self::Marker => "marker",
            Self::Lock => "lock",
            Self::LogFloor => "log-floor",
            Self::HeaderJournal => "header-journal",
            Self::Unfinished => "unfinished",
            Self::Foreign => "foreign",
        }
    }
}

/// What came of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every byte was opened under its own key, and it is what the catalog says it is.
    Verified,
    /// Its zone's key may not be used now: its header has the right form and names that zone; nothing was opened.
    Dark,
    /// Not sealed, and need not be: it holds no data.
    Open,
    /// Left by an interrupted call, or named by no manifest; the next start clears it away.
    Unfinished,
    /// Sealed, but it failed verification or belongs to nothing.
    Refused,
    /// Not sealed, and must be.
    Unsealed,
}

impl Verdict {
    /// All of them, the good ones first.
    pub const ALL: [Self; 6] = [
        Self::Verified,
        Self::Dark,
        Self::Open,
        Self::Unfinished,
        Self::Refused,
        Self::Unsealed,
    ];
    /// The word for it in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Dark => "dark",
            Self::Open => "open",
            Self::Unfinished => "unfinished",
            Self::Refused => "refused",
            Self::Unsealed => "unsealed",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which file, log segment or metadata value.
    pub what: String,
    /// What kind of problem.
    pub class: FindingClass,
    /// What is wrong with it. Holds ids, sizes and positions, never data and never names that a user gave.
    pub problem: String,
}

/// What kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingClass {
    /// Bytes that were altered, cut, extended, exchanged or put back.
    Damage,
    /// The catalog names it, and it is not there.
    Missing,
    /// It is not sealed.
    Unsealed,
    /// It belongs to nothing that the catalog knows.
    Stray,
    /// Others than its owner may use it.
    Mode,
    /// An interrupted call left it.
    Leftover,
    /// A wrapped key that its key service does not accept, or a zone without keys.
    Key,
    /// It could not be read.
    Unreadable,
}

impl FindingClass {
    /// The word for it in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Damage => "damage",
            Self::Missing => "missing",
            Self::Unsealed => "unsealed",
            Self::Stray => "stray",
            Self::Mode => "mode",
            Self::Leftover => "leftover",
            Self::Key => "key",
            Self::Unreadable => "unreadable",
        }
    }
}

impl Verification {
    /// Whether nothing is wrong; zones may be dark all the same.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
    /// Zones whose keys may not be used now.
    pub fn dark(&self) -> impl Iterator<Item = &ZoneReport> {
        self.zones.iter().filter(|zone| zone.dark.is_some())
    }
    /// How many items have this verdict, and their bytes.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> (u64, u64) {
        let chosen = self.items.iter().filter(|item| item.verdict == verdict);
        chosen.fold((0, 0), |(count, bytes), item| (count + 1, bytes + item.bytes))
    }
    /// The name of a database, if the catalog has it.
    #[must_use]
    pub fn database_name(&self, id: DatabaseId) -> Option<&str> {
        let found = self.databases.iter().find(|database| database.id == id);
        found.map(|database| database.name.as_str())
    }
}
