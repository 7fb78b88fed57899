//! Writing an object so that it is there whole or not at all, and readable by its owner alone.
//!
//! A file is made under a name of its own (`NAME#NUMBER`, which no listing shows and the next start removes), made durable,
//! linked to its name, which fails if there is one already, and its directory made durable.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

use crate::directory::{private_file, sync_directory};

/// Access for the owner alone.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Tells writes of this process apart, should two be for one name.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Writes `chunks` to `path` under `root`, durably.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] if there is a file of that name; whatever else the operating system says. Nothing is
/// left then.
pub(super) fn write(root: &Path, path: &str, chunks: &[Bytes]) -> io::Result<()> {
    let target = root.join(path);
    let Some(parent) = target.parent() else {
        return Err(ErrorKind::InvalidInput.into());
    };
    make_directories(root, parent)?;
    let staged = PathBuf::from(format!("{}#{}", target.display(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let write = || {
        let mut file = private_file().create_new(true).open(&staged)?;
        chunks.iter().try_for_each(|chunk| file.write_all(chunk))?;
        file.sync_all()?;
        fs::hard_link(&staged, &target)
    };
    let written = write();
    // Whether or not it got its name; what cannot be removed now is removed at the next start.
    let _left = fs::remove_file(&staged);
    written?;
    sync_directory(parent)
}

/// Makes the directories from `root` down to `directory`, each durable in the one above it.
fn make_directories(root: &Path, directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let Some(parent) = directory.parent().filter(|_| directory != root) else {
        return Err(ErrorKind::NotFound.into());
    };
    make_directories(root, parent)?;
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        // Another write made it a moment ago, but may not have made it durable yet.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made?,
    }
    sync_directory(parent)
}

/// Takes away what others may do with a file or directory that an earlier version made.
pub(super) fn make_private(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    let wanted = if metadata.is_dir() { DIRECTORY_MODE } else { FILE_MODE };
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_can_read_what_is_written() {
        let root = tempfile::tempdir().unwrap();
        let chunks = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
        write(root.path(), "a/b/c", &chunks).unwrap();
        assert_eq!(fs::read(root.path().join("a/b/c")).unwrap(), b"onetwo");
        assert_eq!(mode(&root.path().join("a/b/c")), 0o600);
        assert_eq!(mode(&root.path().join("a")), 0o700);
        assert_eq!(mode(&root.path().join("a/b")), 0o700);
        let error = write(root.path(), "a/b/c", &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        // Nothing is left of either.
        assert_eq!(fs::read_dir(root.path().join("a/b")).unwrap().count(), 1);
        assert_eq!(fs::read(root.path().join("a/b/c")).unwrap(), b"onetwo");
    }

    #[test]
    fn what_was_wider_is_made_private() {
        let root = tempfile::tempdir().unwrap();
        let (directory, file) = (root.path().join("d"), root.path().join("d/f"));
        fs::create_dir(&directory).unwrap();
        private_file().create(true).open(&file).unwrap();
        for (path, wide, narrow) in [(&file, 0o644, 0o600), (&directory, 0o755, 0o700), (&file, 0o400, 0o400)] {
            fs::set_permissions(path, fs::Permissions::from_mode(wide)).unwrap();
            make_private(path, &fs::metadata(path).unwrap()).unwrap();
            assert_eq!(mode(path), narrow);
        }
    }
}
