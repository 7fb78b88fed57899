//! A data directory to look at and not to use: nothing on disk changes, so a copy or a read-only mount will do.
//!
//! It shows what is there as it is: files by their place in the layout, their access modes, left-overs that the next
//! start would clear away. It deliberately repairs nothing and hides nothing, and no damage to one file keeps another from
//! being read. Its calls block; they are meant for a tool that walks a directory from threads of its own.
//!
//! Start reading at [`ReadOnlyStores::open`].

mod layout;
mod metadata;
mod overlay;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::ErrorKind,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;
pub use layout::Place;
use saker_keyring::{FileId, Unverified};
use thiserror::Error;

use self::metadata::Metadata;
use super::{frame, header_journal, writer::WriterLimits};
use crate::{
    DirectoryError, StoreId,
    directory::{self, lock_without_writing},
    object::ObjectStoreLimits,
};

/// A data directory, opened without a change to it. While it is open no server starts on it.
#[derive(Debug)]
pub struct ReadOnlyStores {
    root: PathBuf,
    store: Result<StoreId, String>,
    metadata: Result<Metadata, String>,
    /// New headers that an interrupted replacement did not bring to the end, by path; the next start does.
    headers: BTreeMap<String, Vec<u8>>,
    _lock: Option<File>,
}

/// Something in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its path relative to the data directory. What is no UTF-8 in it is replaced, and its place is
    /// [`Place::Foreign`].
    pub path: String,
    /// What it is, by its name.
    pub place: Place,
    /// What it is to the operating system.
    pub kind: EntryKind,
    /// Its length, in bytes; 0 for a directory.
    pub bytes: u64,
    /// Its permission bits, such as `0o600`.
    pub mode: u32,
    /// What the operating system said instead of showing it.
    pub problem: Option<String>,
}

/// What something is to the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file with content.
    File,
    /// A directory.
    Directory,
    /// A link, a pipe, a device: never followed and never read.
    Other,
}

/// Why bytes could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file ends before them.
    #[error("bytes {start}..{end} are not inside it")]
    OutOfRange {
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
    },
    /// More than is read at once.
    #[error("it is {bytes} bytes long, at most {bytes_max} are read at once")]
    TooLarge {
        /// Bytes asked for.
        bytes: u64,
        /// Most bytes read at once.
        bytes_max: u64,
    },
    /// The operating system refused.
    #[error("it cannot be read: {0}")]
    Io(String),
}

/// A file that is open for reading.
#[derive(Debug)]
pub struct ReadOnlyFile<'a> {
    file: File,
    bytes: u64,
    /// Stands in for its first bytes.
    start: Option<&'a [u8]>,
}

/// A log segment as far as it can be read.
#[derive(Clone, Debug)]
pub struct ReadOnlySegment {
    /// The id that the file claims.
    pub file: FileId,
    /// The sealed header.
    pub header: Unverified,
    /// The sealed records of all whole groups before the end or the first damage.
    pub records: Vec<Unverified>,
    /// Bytes that are no whole group, if there are any.
    pub broken: Option<BrokenTail>,
}

/// Bytes of a log segment that are no whole group of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenTail {
    /// Where they start, in bytes from the start of the file.
    pub offset: u64,
    /// How many there are to the file's end.
    pub bytes: u64,
    /// Which check failed.
    pub reason: &'static str,
    /// Whether a whole group follows: then they were acknowledged and are damaged. If none follows and the segment is
    /// its stream's last, they are a write that was interrupted, as far as the bytes tell.
    pub followed: bool,
}

impl ReadOnlyStores {
    /// Opens a data directory for reading. Damage inside it is no error here.
    ///
    /// # Errors
    /// [`DirectoryError`] if it is no directory, none of ours (no file `SAKER`), or in use by a server.
    pub fn open(directory: &Path) -> Result<Self, DirectoryError> {
        if !directory.is_dir() {
            return Err(DirectoryError::NotADirectory {
                directory: directory.to_owned(),
            });
        }
        let store = match directory::read_marker(directory) {
            Ok(Some(store)) => Ok(store),
            Ok(None) => {
                return Err(DirectoryError::Foreign {
                    directory: directory.to_owned(),
                    reason: "there is none",
                });
            }
            Err(error) => Err(error.to_string()),
        };
        let lock = lock_without_writing(directory)?;
        let mut headers = BTreeMap::new();
        for part in ["objects", "log"] {
            for (path, start) in header_journal::unfinished(&directory.join(part)) {
                headers.insert(format!("{part}/{path}"), start);
            }
        }
        Ok(Self {
            metadata: Metadata::open(&directory.join("meta.redb")),
            root: directory.to_owned(),
            store,
            headers,
            _lock: lock,
        })
    }

    /// The id that the directory got when it was made.
    ///
    /// # Errors
    /// What is wrong with the file `SAKER`.
    pub fn store_id(&self) -> Result<StoreId, &str> {
        self.store.as_ref().copied().map_err(String::as_str)
    }

    /// Headers whose replacement was interrupted; they are read as the next start will write them.
    #[must_use]
    pub fn unfinished_headers(&self) -> usize {
        self.headers.len()
    }

    /// Everything in the directory, the directory itself (with the path `.`) first, each directory before what is in it.
    /// The data directories of other clusters ([`Place::Cluster`]) show, and what is in them does not.
    #[must_use]
    pub fn entries(&self) -> Vec<StoredEntry> {
        let mut found = vec![self.entry(String::new(), true)];
        let mut waiting = vec![String::new()];
        while let Some(parent) = waiting.pop() {
            let listed = fs::read_dir(self.root.join(&parent)).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let mut listed = match listed {
                Ok(listed) => listed,
                Err(error) => {
                    let at = found.iter_mut().rev().find(|entry| entry.path == parent);
                    if let Some(entry) = at {
                        entry.problem = Some(format!("it cannot be listed: {error}"));
                    }
                    continue;
                }
            };
            listed.sort_unstable_by_key(fs::DirEntry::file_name);
            for entry in listed {
                let name = entry.file_name();
                let text = name.to_string_lossy();
                let path = if parent.is_empty() {
                    text.clone().into_owned()
                } else {
                    format!("{parent}/{text}")
                };
                let mut entry = self.entry(path, name.to_str().is_some());
                if entry.place == Place::Cluster && !self.root.join(&entry.path).join("SAKER").is_file() {
                    entry.place = Place::Foreign;
                }
                if entry.kind == EntryKind::Directory && name.to_str().is_some() && entry.place != Place::Cluster {
                    waiting.push(entry.path.clone());
                }
                found.push(entry);
            }
        }
        if let Some(first) = found.first_mut() {
            first.path = ".".to_owned();
        }
        found
    }

    fn entry(&self, path: String, exact: bool) -> StoredEntry {
        let metadata = match fs::symlink_metadata(self.root.join(&path)) {
            Ok(metadata) => metadata,
            Err(error) => {
                return StoredEntry {
                    place: Place::Foreign,
                    kind: EntryKind::Other,
                    bytes: 0,
                    mode: 0,
                    problem: Some(error.to_string()),
                    path,
                };
            }
        };
        let (kind, place) = match metadata.file_type() {
            kind if kind.is_file() => (EntryKind::File, Place::of_file(&path)),
            kind if kind.is_dir() && path.is_empty() => (EntryKind::Directory, Place::Directory),
            kind if kind.is_dir() => (EntryKind::Directory, Place::of_directory(&path)),
            _ => (EntryKind::Other, Place::Foreign),
        };
        StoredEntry {
            place: if exact { place } else { Place::Foreign },
            kind,
            bytes: if kind == EntryKind::Directory {
                0
            } else {
                metadata.len()
            },
            mode: metadata.mode() & 0o7777,
            problem: None,
            path,
        }
    }

    /// The data directories of other clusters of the same server.
    #[must_use]
    pub fn clusters(&self) -> Vec<PathBuf> {
        let entries = self.entries();
        let clusters = entries.iter().filter(|entry| entry.place == Place::Cluster);
        clusters.map(|entry| self.root.join(&entry.path)).collect()
    }

    /// Opens a file that [`Self::entries`] showed.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn file(&self, entry: &StoredEntry) -> Result<ReadOnlyFile<'_>, ReadError> {
        if entry.kind != EntryKind::File {
            return Err(ReadError::Io("it is no file".to_owned()));
        }
        let io = |error: std::io::Error| ReadError::Io(error.to_string());
        let file = File::open(self.root.join(&entry.path)).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let start = self.headers.get(&entry.path).map(Vec::as_slice);
        Ok(ReadOnlyFile { file, bytes, start })
    }

    /// Reads a log segment as far as it goes. All of it is in memory then.
    ///
    /// # Errors
    /// What is wrong with its first bytes, if they make no sense: nothing else can be read then.
    pub fn log_segment(&self, entry: &StoredEntry) -> Result<ReadOnlySegment, String> {
        let opened = self.file(entry).map_err(|error| error.to_string())?;
        let (bytes, bytes_max) = (opened.bytes, WriterLimits::STANDARD.segment_bytes_max);
        if bytes > bytes_max {
            return Err(ReadError::TooLarge { bytes, bytes_max }.to_string());
        }
        let content = opened.read(0..bytes).map_err(|error| error.to_string())?.into_bytes();
        let (preamble, header) =
            frame::header(&content).map_err(|reason| format!("it is damaged at byte 0: {reason}"))?;
        let scan = frame::scan(&content, frame::PREAMBLE_BYTES + preamble.header_bytes);
        Ok(ReadOnlySegment {
            file: preamble.file,
            header: Unverified::new(header),
            records: scan.records.into_iter().map(Unverified::new).collect(),
            broken: scan.broken.map(|broken| BrokenTail {
                offset: scan.end as u64,
                bytes: (content.len() - scan.end) as u64,
                reason: broken.reason,
                followed: broken.followed,
            }),
        })
    }

    /// What is wrong with the metadata file as a whole; its values may be there all the same.
    #[must_use]
    pub fn metadata_problems(&self) -> Vec<String> {
        match &self.metadata {
            Err(reason) => vec![format!(
                "the metadata file cannot be read: {reason}; restore it from a backup"
            )],
            Ok(metadata) => {
                let damage = metadata.damage.iter().map(|reason| {
                    format!("the metadata file fails its own checks: {reason}; restore it from a backup")
                });
                let strangers = metadata
                    .strangers
                    .iter()
                    .map(|_| "there is a table in it that is not Saker's".to_owned());
                damage.chain(strangers).collect()
            }
        }
    }

    /// The keys of all metadata values, in order. The second part says what ended the list early, if anything did.
    #[must_use]
    pub fn metadata_keys(&self) -> (Vec<String>, Option<String>) {
        let mut keys: Vec<String> = Vec::new();
        let Ok(metadata) = &self.metadata else {
            return (keys, None);
        };
        loop {
            match metadata.next_key(keys.last().map(String::as_str)) {
                Ok(Some(key)) if keys.last().is_none_or(|last| *last < key) => keys.push(key),
                Ok(Some(_)) => return (keys, Some("its keys are not in order".to_owned())),
                Ok(None) => return (keys, None),
                Err(reason) => return (keys, Some(reason)),
            }
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// What is wrong with the metadata file.
    pub fn metadata_value(&self, key: &str) -> Result<Option<Unverified>, String> {
        match &self.metadata {
            Ok(metadata) => metadata.value(key),
            Err(reason) => Err(reason.clone()),
        }
    }
}

impl ReadOnlyFile<'_> {
    /// Its length, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Exactly these bytes.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, range: Range<u64>) -> Result<Unverified, ReadError> {
        let Range { start, end } = range;
        if start > end || end > self.bytes {
            return Err(ReadError::OutOfRange { start, end });
        }
        let (bytes, bytes_max) = (end - start, ObjectStoreLimits::READ_BYTES_MAX);
        let length = usize::try_from(bytes)
            .ok()
            .filter(|_| bytes <= bytes_max)
            .ok_or(ReadError::TooLarge { bytes, bytes_max })?;
        let mut content = vec![0; length];
        self.file.read_exact_at(&mut content, start).map_err(|error| {
            // Somebody cuts it while it is read.
            if error.kind() == ErrorKind::UnexpectedEof {
                ReadError::OutOfRange { start, end }
            } else {
                ReadError::Io(error.to_string())
            }
        })?;
        if let Some(header) = self.start {
            let from = usize::try_from(start).unwrap_or(usize::MAX);
            let fresh = header.get(from..).unwrap_or_default();
            let count = fresh.len().min(content.len());
            content[..count].copy_from_slice(&fresh[..count]);
        }
        Ok(Unverified::new(Bytes::from(content)))
    }
}
