//! Replacing the headers of files in place, so that a crash leaves each file with its old or its new one.
//!
//! A header is 192 bytes in the middle of nothing else: a power failure while they are overwritten could leave neither
//! the old nor the new one, and with it a file whose data key is lost. So all headers of a batch are first made durable
//! in a journal beside the files; then they are written over the old ones, and made durable there; then the journal is
//! overwritten with zeros, so that it does not keep a wrapped key of a file that is shredded later. What a crash leaves
//! in the journal is written once more at the next start.
//!
//! It is deliberately no general write-ahead log: one batch at a time, and what it writes does not depend on what was
//! there. `docs/formats.md` has the bytes.

use std::{
    fs,
    io::{self, ErrorKind, Read as _},
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};

use saker_keyring::{HEADER_BYTES, HEADER_FIXED_BYTES};

use crate::directory::private_file;

/// Name of the journal in its store's directory: no object and no stream can have it, since it begins with a dot.
pub(super) const NAME: &str = ".headers";
/// Most headers in one batch of the journal; longer batches are cut into several.
pub(super) const BATCH_MAX: usize = 1_024;

const MAGIC: &[u8; 8] = b"SAKERHDR";
const VERSION: u32 = 1;
/// Bytes before the entries.
const HEAD_BYTES: usize = 28;
/// Longest journal that is read, in bytes: `BATCH_MAX` entries with the longest path and start.
const BYTES_MAX: u64 = 1 << 20;
/// Most bytes of a file's start that an entry holds.
const START_BYTES_MAX: usize = 512;
/// Files that are made durable at the same time: a disk takes several syncs together.
const SYNCS_AT_ONCE: usize = 8;

/// New first bytes of one file, the header at their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replacement {
    /// Where the file is, relative to the store's directory.
    pub(super) path: String,
    /// Its first bytes from now on, as long as those that they replace.
    pub(super) start: Vec<u8>,
}

/// The journal of one store's directory.
#[derive(Debug)]
pub(super) struct HeaderJournal {
    root: PathBuf,
    /// Held for a whole batch. Whether the journal may hold a batch that was not finished.
    turn: Mutex<bool>,
    /// Held for writing while headers change (never while waiting for a disk), for reading while one is read.
    headers: RwLock<()>,
}

impl HeaderJournal {
    /// Opens the journal of `root`, and finishes the batch that a crash interrupted.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let journal = Self {
            root: root.to_owned(),
            turn: Mutex::new(true),
            headers: RwLock::new(()),
        };
        {
            let mut unfinished = journal.turn();
            let finished = journal.finish()?;
            *unfinished = false;
            if finished > 0 {
                tracing::warn!(
                    headers = finished,
                    "wrote headers once more whose replacement was interrupted"
                );
            }
        }
        Ok(journal)
    }

    /// Held while a header is read, so that it is one header and not parts of two.
    pub(super) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.headers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` (overwriting a file's start) while no header is replaced or read.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let _alone = self.headers.write().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Replaces headers, durably. Files that are not there or were shredded are passed over. How many were replaced.
    ///
    /// After an error each file has its old or its new header; the next call or start finishes what was begun.
    pub(super) fn replace(&self, batch: &[Replacement]) -> io::Result<usize> {
        let mut replaced = 0;
        for part in batch.chunks(BATCH_MAX) {
            let mut unfinished = self.turn();
            if *unfinished {
                self.finish()?;
                *unfinished = false;
            }
            for replacement in part {
                self.check(replacement)?;
            }
            *unfinished = true;
            let used = self.write(part)?;
            replaced += self.apply(part)?;
            self.clear(used)?;
            *unfinished = false;
        }
        Ok(replaced)
    }

    fn turn(&self) -> MutexGuard<'_, bool> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> PathBuf {
        self.root.join(NAME)
    }

    /// Writes again what an unfinished batch holds, and clears it. How many headers that were.
    fn finish(&self) -> io::Result<usize> {
        let bytes = match fs::File::open(self.path()) {
            Ok(file) if file.metadata()?.len() > BYTES_MAX => {
                return Err(io::Error::new(ErrorKind::InvalidData, "the header journal is too long"));
            }
            Ok(mut file) => {
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut file, &mut bytes)?;
                bytes
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(0);
        }
        // A journal that does not check was not durable yet, so nothing was written over any header.
        let batch = decode(&bytes).unwrap_or_default();
        self.apply(&batch)?;
        self.clear(bytes.len())?;
        Ok(batch.len())
    }

    /// Refuses a header that is not of the file that it is to stand in.
    fn check(&self, replacement: &Replacement) -> io::Result<()> {
        let mut old = vec![0; replacement.start.len()];
        let _reading = self.reading();
        let read = open(&self.root.join(&replacement.path)).and_then(|file| file.read_exact_at(&mut old, 0));
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read?,
        }
        let fixed = fixed_part(&replacement.start);
        if is_shredded(&old) || fixed.is_some_and(|range| old.get(range.clone()) == replacement.start.get(range)) {
            return Ok(());
        }
        let reason = format!("the new header of {} is of another file", replacement.path);
        Err(io::Error::new(ErrorKind::InvalidInput, reason))
    }

    /// Makes a batch durable in the journal; how many bytes it takes.
    fn write(&self, batch: &[Replacement]) -> io::Result<usize> {
        let bytes = encode(batch)?;
        let path = self.path();
        let new = !path.exists();
        let file = private_file().create(true).truncate(false).open(&path)?;
        file.write_all_at(&bytes, 0)?;
        file.sync_all()?;
        if new {
            crate::directory::sync_directory(&self.root)?;
        }
        Ok(bytes.len())
    }

    /// Writes a batch over the old headers and makes that durable; how many there were.
    fn apply(&self, batch: &[Replacement]) -> io::Result<usize> {
        let mut written = Vec::with_capacity(batch.len());
        for replacement in batch {
            let file = match open(&self.root.join(&replacement.path)) {
                Ok(file) => file,
                // Removed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let _alone = self.headers.write().unwrap_or_else(PoisonError::into_inner);
            let mut old = vec![0; replacement.start.len()];
            file.read_exact_at(&mut old, 0)?;
            if !is_shredded(&old) {
                file.write_all_at(&replacement.start, 0)?;
                written.push(file);
            }
        }
        let share = written.len().div_ceil(SYNCS_AT_ONCE).max(1);
        std::thread::scope(|scope| {
            let syncs: Vec<_> = written
                .chunks(share)
                .map(|files| scope.spawn(|| files.iter().try_for_each(fs::File::sync_data)))
                .collect();
            syncs.into_iter().try_for_each(|sync| {
                sync.join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread failed while headers were made durable")))
            })
        })?;
        Ok(written.len())
    }

    /// Overwrites the journal's first bytes: it must not outlive the headers that it held.
    fn clear(&self, used: usize) -> io::Result<()> {
        let file = private_file().open(self.path())?;
        file.write_all_at(&vec![0; used], 0)?;
        file.sync_all()
    }
}

fn open(path: &Path) -> io::Result<fs::File> {
    private_file().open(path)
}

/// The bytes of a file's start that no replacement changes: its header's fixed part.
fn fixed_part(start: &[u8]) -> Option<std::ops::Range<usize>> {
    let header = start.len().checked_sub(HEADER_BYTES)?;
    Some(header..header + HEADER_FIXED_BYTES)
}

/// Whether the start was overwritten because the file is being shredded. No header comes back to such a file.
fn is_shredded(start: &[u8]) -> bool {
    start.iter().all(|byte| *byte == 0)
}

fn encode(batch: &[Replacement]) -> io::Result<Vec<u8>> {
    let too_long = || {
        io::Error::new(
            ErrorKind::InvalidInput,
            "a path or header is too long for the header journal",
        )
    };
    let mut body = Vec::new();
    for Replacement { path, start } in batch {
        if start.len() > START_BYTES_MAX || start.len() < HEADER_BYTES {
            return Err(too_long());
        }
        for part in [path.as_bytes(), start] {
            body.extend_from_slice(&u16::try_from(part.len()).map_err(|_| too_long())?.to_le_bytes());
            body.extend_from_slice(part);
        }
    }
    let length = |length: usize| u32::try_from(length).map(u32::to_le_bytes).map_err(|_| too_long());
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length(batch.len())?);
    bytes.extend_from_slice(&length(body.len())?);
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// What an interrupted replacement left in the journal of `root`: paths and the bytes that the next start writes over the
/// beginning of those files. Changes nothing.
pub(super) fn unfinished(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let read = fs::File::open(root.join(NAME)).and_then(|file| io::Read::take(file, BYTES_MAX).read_to_end(&mut bytes));
    let batch = read.ok().and_then(|_| decode(&bytes)).unwrap_or_default();
    batch.into_iter().map(|entry| (entry.path, entry.start)).collect()
}

/// The batch, if it is there whole.
fn decode(bytes: &[u8]) -> Option<Vec<Replacement>> {
    let head = bytes.get(..HEAD_BYTES)?;
    let word = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    if !head.starts_with(MAGIC) || word(8)? != VERSION || word(24)? != crc32fast::hash(head.get(..24)?) {
        return None;
    }
    let (count, length) = (word(12)? as usize, word(16)? as usize);
    let mut body = bytes.get(HEAD_BYTES..HEAD_BYTES.checked_add(length)?)?;
    if count > BATCH_MAX || crc32fast::hash(body) != word(20)? {
        return None;
    }
    let mut batch = Vec::with_capacity(count);
    let mut take = || {
        let (length, rest) = body.split_first_chunk()?;
        let (part, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        body = rest;
        Some(part.to_vec())
    };
    for _ in 0..count {
        let path = String::from_utf8(take()?).ok()?;
        let start = take()?;
        // Whoever writes into the journal must not reach a file outside the store.
        let inside = Path::new(&path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !inside || start.len() > START_BYTES_MAX || start.len() < HEADER_BYTES {
            return None;
        }
        batch.push(Replacement { path, start });
    }
    body.is_empty().then_some(batch)
}

#[cfg(test)]
mod tests;
