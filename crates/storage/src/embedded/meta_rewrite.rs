//! Rewriting the metadata file, so that what was removed from it cannot be read there any more.
//!
//! `redb` never writes over a page in use, so a removed value (a database's wrapped keys, say) stays readable in a page that
//! was given up until that page happens to be used again. After a removal the live values therefore move to a new file,
//! and the old one is overwritten. A crash before the new file takes the old one's name leaves everything as it was; a crash
//! right after it leaves the old bytes to the file system, as with any removed file.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use redb::{Database, Durability, ReadableDatabase, ReadableTable};

use super::local_meta::{VALUES, builder};
use crate::directory::{private_file, sync_directory};

/// Bytes that are overwritten at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// Where the new file grows. One that a crash left is worth nothing.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("redb.new")
}

/// Makes a durable file of the values in `database` alone.
pub(super) fn copy_live(database: &Database, path: &Path) -> Result<PathBuf, redb::Error> {
    let target = unfinished(path);
    remove(&target)?;
    let file = private_file().create_new(true).open(&target)?;
    let copy = builder().create_with_backend(redb::backends::FileBackend::new(file)?)?;
    let live = database.begin_read()?.open_table(VALUES)?;
    let mut transaction = copy.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut table = transaction.open_table(VALUES)?;
        for entry in live.iter()? {
            let (key, value) = entry?;
            table.insert(key.value(), value.value())?;
        }
    }
    transaction.commit()?;
    Ok(target)
}

/// Gives the new file the old one's name, and overwrites the old one. Nobody may have either open as a database.
pub(super) fn replace(path: &Path, with: &Path) -> io::Result<()> {
    let mut old = private_file().open(path)?;
    std::fs::rename(with, path)?;
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        sync_directory(directory)?;
    }
    let mut left = old.metadata()?.len();
    let zeros = vec![0; BLOCK_BYTES];
    while left > 0 {
        let count = left.min(BLOCK_BYTES as u64);
        old.write_all(
            zeros
                .get(..usize::try_from(count).unwrap_or(BLOCK_BYTES))
                .unwrap_or(&zeros),
        )?;
        left -= count;
    }
    old.sync_all()
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
