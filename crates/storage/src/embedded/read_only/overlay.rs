//! A file of the metadata library whose changes stay in memory.
//!
//! The library repairs a file that was not closed (after a crash, say) by writing to it, and has no way to read one without.
//! Here those writes go to pages in memory, so that a file on a read-only disk can be read as the next start would.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

const PAGE_BYTES: u64 = 4_096;

/// Reads from the file, writes to memory.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    bytes: u64,
    /// Bytes of the file that still show; behind them are zeros.
    shown: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self {
            file,
            changes: Mutex::new(Changes {
                bytes,
                shown: bytes,
                pages: BTreeMap::new(),
            }),
        })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `out` from the file; zeros where it shows nothing.
    fn read_below(&self, shown: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = shown.saturating_sub(offset).min(out.len() as u64);
        let there = usize::try_from(there).unwrap_or(out.len());
        self.file.read_exact_at(&mut out[..there], offset)
    }
}

/// The part of page `page` that `offset..offset + length` touches, and where that part lies in a buffer of the range.
fn part(page: u64, offset: u64, length: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let end = offset + length as u64;
    let (start, stop) = (offset.max(page * PAGE_BYTES), end.min((page + 1) * PAGE_BYTES));
    let local = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
    (
        local(start, page * PAGE_BYTES)..local(stop, page * PAGE_BYTES),
        local(start, offset)..local(stop, offset),
    )
}

impl redb::StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes().bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes();
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= changes.bytes);
        let Some(end) = end else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        self.read_below(changes.shown, offset, out)?;
        let touched = offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        for (&page, content) in changes.pages.range(touched) {
            let (inside, at) = part(page, offset, out.len());
            out[at].copy_from_slice(&content[inside]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changes = self.changes();
        if len < changes.bytes {
            changes.shown = changes.shown.min(len);
            changes.pages.split_off(&len.div_ceil(PAGE_BYTES));
            let last = len % PAGE_BYTES;
            if let Some(page) = changes.pages.get_mut(&(len / PAGE_BYTES)) {
                page[usize::try_from(last).unwrap_or_default()..].fill(0);
            }
        }
        changes.bytes = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes();
        let end = offset.saturating_add(data.len() as u64);
        changes.bytes = changes.bytes.max(end);
        for page in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let (inside, at) = part(page, offset, data.len());
            if !changes.pages.contains_key(&page) {
                let mut content = vec![0; usize::try_from(PAGE_BYTES).unwrap_or_default()];
                self.read_below(changes.shown, page * PAGE_BYTES, &mut content)?;
                changes.pages.insert(page, content);
            }
            if let Some(content) = changes.pages.get_mut(&page) {
                content[inside].copy_from_slice(&data[at]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use redb::StorageBackend as _;

    use super::*;

    /// The same calls on an overlay and on bytes in memory give the same bytes, and the file stays as it was.
    #[test]
    fn it_is_what_the_file_would_be() {
        let mut file = tempfile::tempfile().unwrap();
        let mut model: Vec<u8> = (0..20_000_u32).map(|at| at.to_le_bytes()[0] ^ 0x5a).collect();
        file.write_all(&model).unwrap();
        let before = model.clone();
        let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
        let mut seed = 7_u64;
        let mut next = |bound: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % bound
        };
        for round in 0..2_000 {
            match next(4) {
                0 => {
                    let len = next(40_000);
                    overlay.set_len(len as u64).unwrap();
                    model.resize(len, 0);
                }
                1 => {
                    let data = vec![u8::try_from(round % 251).unwrap(); next(9_000)];
                    let at = next(model.len() + 1);
                    overlay.write(at as u64, &data).unwrap();
                    model.resize(model.len().max(at + data.len()), 0);
                    model[at..at + data.len()].copy_from_slice(&data);
                }
                _ => {
                    let at = next(model.len() + 1);
                    let mut out = vec![1; next(model.len() - at + 1)];
                    overlay.read(at as u64, &mut out).unwrap();
                    assert_eq!(out, model[at..at + out.len()], "round {round}");
                }
            }
            assert_eq!(overlay.len().unwrap(), model.len() as u64);
        }
        assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
        let mut after = vec![0; before.len()];
        file.read_exact_at(&mut after, 0).unwrap();
        assert_eq!(after, before);
    }
}
