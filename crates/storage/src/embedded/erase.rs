//! Erasing a whole data directory.

use std::{
    fs,
    io::{ErrorKind, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use crate::{
    DirectoryError, DirectoryLock,
    directory::{private_file, read_marker, sync_directory},
};

/// Zeroes that are written at a time, in bytes.
const ZEROES: usize = 1 << 20;
/// The metadata's file: it holds every wrapped zone key, and nothing else does.
const METADATA: &str = "meta.redb";

/// Erases a data directory and everything in it: first the wrapped zone keys are overwritten, which makes the rest
/// unreadable for good, then all files are removed. One that is not there is fine, so this can be done again after a crash.
///
/// # Errors
/// [`DirectoryError`]: in use, not a data directory, or the operating system refuses.
pub async fn erase_data_directory(directory: impl AsRef<Path>) -> Result<(), DirectoryError> {
    let directory = directory.as_ref().to_owned();
    let erased = tokio::task::spawn_blocking(move || erase(&directory)).await;
    erased.unwrap_or_else(|error| {
        Err(DirectoryError::Store {
            store: "embedded",
            directory: Default::default(),
            reason: error.to_string(),
        })
    })
}

fn erase(directory: &Path) -> Result<(), DirectoryError> {
    let failed = |action, error: &std::io::Error| DirectoryError::Io {
        action,
        path: directory.to_owned(),
        reason: error.to_string(),
    };
    let is_empty = match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list", &error)),
    };
    // An empty one is what a crash between the last file and the directory itself leaves.
    if !is_empty {
        // What is removed below must be ours; the marker goes last, so that a second attempt knows it again.
        if read_marker(directory)?.is_none() {
            return Err(DirectoryError::Foreign {
                directory: directory.to_owned(),
                reason: "there is no such file",
            });
        }
        let _lock = DirectoryLock::acquire(directory)?;
        overwrite(&directory.join(METADATA)).map_err(|error| failed("overwrite the metadata in", &error))?;
        remove_contents(directory).map_err(|error| failed("remove", &error))?;
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("remove", &error)),
        _ => {}
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_directory(parent).map_err(|error| failed("sync the parent of", &error))?;
    }
    Ok(())
}

fn overwrite(path: &Path) -> std::io::Result<()> {
    let mut file = match private_file().open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut left = file.metadata()?.len();
    file.seek(SeekFrom::Start(0))?;
    let zeroes = vec![0; ZEROES];
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(ZEROES).min(ZEROES);
        file.write_all(&zeroes[..part])?;
        left -= part as u64;
    }
    file.sync_all()
}

/// Everything but the marker and the lock.
fn remove_contents(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == "SAKER" || entry.file_name() == "LOCK" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddedStores;

    #[tokio::test]
    async fn only_a_data_directory_that_nobody_uses_is_erased() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        // Nothing there: done already.
        erase_data_directory(&directory).await.unwrap();
        let stores = EmbeddedStores::open(&directory).await.unwrap();
        let used = erase_data_directory(&directory).await.unwrap_err();
        assert!(matches!(used, DirectoryError::InUse { .. }), "{used}");
        assert!(directory.join(METADATA).exists());
        drop(stores);
        erase_data_directory(&directory).await.unwrap();
        assert!(!directory.exists());
        fs::create_dir(&directory).unwrap();
        private_file()
            .create(true)
            .truncate(false)
            .open(directory.join("mine"))
            .unwrap();
        let foreign = erase_data_directory(&directory).await.unwrap_err();
        assert!(matches!(foreign, DirectoryError::Foreign { .. }), "{foreign}");
        assert!(directory.join("mine").exists());
    }

    #[test]
    fn every_byte_is_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("x");
        let mut file = private_file().create(true).truncate(true).open(&path).unwrap();
        file.write_all(&vec![7; ZEROES + 5]).unwrap();
        overwrite(&path).unwrap();
        let after = fs::read(&path).unwrap();
        assert_eq!(after, vec![0; ZEROES + 5]);
    }
}
