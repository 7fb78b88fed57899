//! The data directory: whose it is, which version it has, and that one server at a time uses it.
//!
//! `SAKER` is the marker, a text file: `saker data directory`, `format 1`, `store UUID`, one a line. It is written before
//! anything else, so a directory without it is either empty or somebody else's. `LOCK` is locked with `flock` for as long
//! as a server runs (the kernel lets go when the process ends, however it ends) and holds the holder's process id.

use std::{
    fmt, fs,
    io::{ErrorKind, Read, Seek, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;
use uuid::Uuid;

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// Another server uses it.
    #[error(
        "data directory {directory} is in use by another server (process {holder}); stop that one or choose another directory"
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// Process id of the holder as it wrote it, or `unknown`.
        holder: String,
    },
    /// It holds files, but none of ours.
    #[error(
        "directory {directory} is not empty and not a Saker data directory (no valid file SAKER in it: {reason}); choose another directory"
    )]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// What was expected.
        reason: &'static str,
    },
    /// It was written by a version that this one does not know.
    #[error(
        "data directory {directory} has format {found}, this version reads format {known}; use the version that wrote it or upgrade"
    )]
    Version {
        /// The directory.
        directory: PathBuf,
        /// The format in the marker.
        found: u32,
        /// The format that this version reads.
        known: u32,
    },
    /// The path is something else.
    #[error("{directory} is not a directory; choose another path")]
    NotADirectory {
        /// The path.
        directory: PathBuf,
    },
    /// A store in it cannot be opened.
    #[error("cannot open the {store} store in {directory}: {reason}")]
    Store {
        /// Which store.
        store: &'static str,
        /// The directory.
        directory: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {reason}; check that the path exists, is writable and has space")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
}

/// A random id that a data directory gets when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId(Uuid);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The right to use a data directory; given back when dropped or when the process ends.
#[derive(Debug)]
pub struct DirectoryLock {
    directory: PathBuf,
    store: StoreId,
    /// Holds the `flock`.
    _file: fs::File,
}

impl DirectoryLock {
    /// The format that this version reads and writes.
    pub const FORMAT: u32 = 1;

    /// Takes a data directory, which is made if it does not exist or is empty.
    ///
    /// # Errors
    /// [`DirectoryError`]; nothing in a directory that is not ours is touched.
    pub fn acquire(directory: &Path) -> Result<Self, DirectoryError> {
        create_private(directory)?;
        let marked = read_marker(directory)?;
        if marked.is_none() {
            check_empty(directory)?;
        }
        let file = lock(directory)?;
        // Looked at again under the lock: another server may have begun the directory in between.
        let store = match read_marker(directory)? {
            Some(store) => store,
            None => write_marker(directory)?,
        };
        Ok(Self {
            directory: directory.to_owned(),
            store,
            _file: file,
        })
    }
    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
    /// The id that it got when it was made.
    #[must_use]
    pub const fn store(&self) -> StoreId {
        self.store
    }
}

const MARKER: &str = "SAKER";
const MARKER_STAGED: &str = "SAKER.new";
const LOCK: &str = "LOCK";
const TITLE: &str = "saker data directory";
/// Longest marker that is read, in bytes; ours is below 100.
const MARKER_BYTES_MAX: u64 = 4_096;

fn io_error(action: &'static str, path: &Path, error: &std::io::Error) -> DirectoryError {
    DirectoryError::Io {
        action,
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

/// Makes a directory that only its owner can enter, with its parents, if there is none.
pub(crate) fn create_private(directory: &Path) -> Result<(), DirectoryError> {
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            return Err(DirectoryError::NotADirectory {
                directory: directory.to_owned(),
            });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("look at", directory, &error)),
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(directory)
        .map_err(|error| io_error("create", directory, &error))?;
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_directory(parent).map_err(|error| io_error("sync", parent, &error))?;
    }
    Ok(())
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// Options for a file that only its owner can read.
pub(crate) fn private_file() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Whether the operating system says that the disk (or the file's owner's share of it) is full.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

pub(crate) fn read_marker(directory: &Path) -> Result<Option<StoreId>, DirectoryError> {
    let path = directory.join(MARKER);
    let mut text = String::new();
    match fs::File::open(&path).and_then(|file| file.take(MARKER_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() != ErrorKind::InvalidData => return Err(io_error("read", &path, &error)),
        Err(_) => text.clear(),
    }
    let foreign = |reason| DirectoryError::Foreign {
        directory: directory.to_owned(),
        reason,
    };
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(foreign("its first line is not `saker data directory`"));
    }
    let format = lines
        .next()
        .and_then(|line| line.strip_prefix("format "))
        .and_then(|number| number.parse().ok());
    let found: u32 = format.ok_or_else(|| foreign("it names no format"))?;
    if found != DirectoryLock::FORMAT {
        return Err(DirectoryError::Version {
            directory: directory.to_owned(),
            found,
            known: DirectoryLock::FORMAT,
        });
    }
    let store = lines
        .next()
        .and_then(|line| line.strip_prefix("store "))
        .and_then(|id| id.parse().ok());
    Ok(Some(StoreId(store.ok_or_else(|| foreign("it names no store id"))?)))
}

fn check_empty(directory: &Path) -> Result<(), DirectoryError> {
    let entries = fs::read_dir(directory).map_err(|error| io_error("list", directory, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| io_error("list", directory, &error))?;
        // Left by a first start that was interrupted.
        if entry.file_name() != LOCK && entry.file_name() != MARKER_STAGED {
            return Err(DirectoryError::Foreign {
                directory: directory.to_owned(),
                reason: "there is none",
            });
        }
    }
    Ok(())
}

fn write_marker(directory: &Path) -> Result<StoreId, DirectoryError> {
    let store = StoreId(Uuid::new_v4());
    let (staged, path) = (directory.join(MARKER_STAGED), directory.join(MARKER));
    let write = || {
        let mut file = private_file().create(true).truncate(true).open(&staged)?;
        write!(file, "{TITLE}\nformat {}\nstore {store}\n", DirectoryLock::FORMAT)?;
        file.sync_all()?;
        fs::rename(&staged, &path)?;
        sync_directory(directory)
    };
    write().map_err(|error| io_error("write", &path, &error))?;
    Ok(store)
}

/// Keeps servers away from a directory for as long as the file is kept, without a change to it. `None` where there is no
/// lock file (in a copy, say) or the file system has no locks.
pub(crate) fn lock_without_writing(directory: &Path) -> Result<Option<fs::File>, DirectoryError> {
    let path = directory.join(LOCK);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", &path, &error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Err(in_use(directory, file)),
        Err(fs::TryLockError::Error(_)) => Ok(None),
    }
}

fn in_use(directory: &Path, lock: fs::File) -> DirectoryError {
    let mut holder = String::new();
    let read = lock.take(MARKER_BYTES_MAX).read_to_string(&mut holder);
    let holder = holder.trim();
    let known = read.is_ok() && !holder.is_empty() && holder.bytes().all(|b| b.is_ascii_digit());
    DirectoryError::InUse {
        directory: directory.to_owned(),
        holder: if known { holder.to_owned() } else { "unknown".to_owned() },
    }
}

fn lock(directory: &Path) -> Result<fs::File, DirectoryError> {
    let path = directory.join(LOCK);
    let mut file = private_file()
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| io_error("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(in_use(directory, file)),
        Err(fs::TryLockError::Error(error)) => return Err(io_error("lock", &path, &error)),
    }
    let write = || {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    let written: std::io::Result<()> = { write }();
    match written {
        // The process id is for the error message only: a full disk must not keep a server from starting.
        Err(error) if !is_full(&error) => Err(io_error("write", &path, &error)),
        _ => Ok(file),
    }
}
