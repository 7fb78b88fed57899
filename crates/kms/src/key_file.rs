//! A 256-bit root secret in a file of its own, made once.
//!
//! What it is for: the platform key of an installation whose root is a key file, and the root secret of the local key
//! server. What it deliberately does not do: it does not rotate or overwrite; whoever loses the file loses everything
//! under it, so an existing file is only ever read.
//!
//! Format: one line, `saker-root-key-v1:` and 64 hexadecimal digits. The file belongs to one user (mode 0600); a file
//! that others may read is refused.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use saker_keyring::PlainKey;
use thiserror::Error;
use zeroize::Zeroizing;

const HEADER: &str = "saker-root-key-v1:";
/// Header, digits, line end, and room for an editor's stray white space.
const FILE_BYTES_MAX: usize = 256;

/// Why a key file cannot be used.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// The file system said no.
    #[error("cannot {action} key file {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Other users could read the key.
    #[error("key file {} has mode {mode:04o}; only its owner may access it (chmod 600)", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a key file.
    #[error("{} is not a key file: expected one line, {HEADER} and 64 hexadecimal digits", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

/// Reads the key in `path`, making the file with a fresh random key if there is none. A file that was made is on disk
/// (itself and its directory entry) before this returns; of two processes that make it at once, both get the same key.
///
/// # Errors
/// [`KeyFileError`] if the file cannot be read or made, is readable by others, or holds no key.
pub(crate) fn open_or_create(path: &Path) -> Result<PlainKey, KeyFileError> {
    match read(path) {
        Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create(path)?;
            read(path)
        }
        outcome => outcome,
    }
}

fn read(path: &Path) -> Result<PlainKey, KeyFileError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let metadata = file.metadata().map_err(failed("inspect", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    // Read at most the limit, into a buffer that never reallocates: no copy of the key is left behind.
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut text)
        .map_err(failed("read", path))?;
    parse(&text).ok_or_else(|| KeyFileError::Malformed { path: path.to_owned() })
}

fn parse(text: &[u8]) -> Option<PlainKey> {
    if text.len() > FILE_BYTES_MAX {
        return None;
    }
    let digits = text.trim_ascii().strip_prefix(HEADER.as_bytes())?;
    let mut bytes = Zeroizing::new([0_u8; PlainKey::BYTES]);
    hex::decode_to_slice(digits, bytes.as_mut()).ok()?;
    PlainKey::take(bytes.as_mut())
}

/// Writes a fresh key beside `path` and links it into place, so that the name never holds half a key and never loses
/// one that another process put there first.
fn create(path: &Path) -> Result<(), KeyFileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_private_directory(directory).map_err(failed("make the directory of", path))?;
    let key = saker_keyring::random_key();
    let mut line = Zeroizing::new(vec![0_u8; HEADER.len() + 2 * PlainKey::BYTES + 1]);
    line[..HEADER.len()].copy_from_slice(HEADER.as_bytes());
    let digits = HEADER.len()..HEADER.len() + 2 * PlainKey::BYTES;
    // The slice has exactly two digits a byte, so this cannot fail; if it ever did, no key would be written.
    hex::encode_to_slice(key.expose_bytes(), &mut line[digits])
        .map_err(|error| failed("encode", path)(io::Error::other(error)))?;
    if let Some(last) = line.last_mut() {
        *last = b'\n';
    }
    let draft = directory.join(format!(".root-key-{}", uuid::Uuid::new_v4()));
    let written = write_new_private(&draft, &line).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    });
    let removed = fs::remove_file(&draft);
    written
        .and(removed)
        .and_then(|()| sync_directory(directory))
        .map_err(failed("create", path))
}

/// Writes a file that must not exist yet, readable by its owner only, and waits until it is on disk.
pub(crate) fn write_new_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a directory (and its parents) that only its owner may enter; an existing one is left as it is.
pub(crate) fn make_private_directory(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Waits until the entries of `directory` are on disk.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyFileError {
    move |source| KeyFileError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/root");
        let first = open_or_create(&path).unwrap();
        let second = open_or_create(&path).unwrap();
        assert_eq!(first.expose_bytes(), second.expose_bytes());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(dir.path().join("deep")).unwrap().count(),
            1,
            "no draft is left"
        );
        let other = open_or_create(&dir.path().join("other")).unwrap();
        assert_ne!(first.expose_bytes(), other.expose_bytes());
    }

    #[test]
    fn racing_makers_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8).map(|_| scope.spawn(|| open_or_create(&path).unwrap())).collect();
            makers.into_iter().map(|maker| maker.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| key.expose_bytes() == keys[0].expose_bytes()));
    }

    #[test]
    fn refuses_what_others_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        open_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            open_or_create(&path),
            Err(KeyFileError::Exposed { mode: 0o640, .. })
        ));
    }

    #[test]
    fn refuses_what_is_not_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let digits = "0123456789abcdef".repeat(4);
        for (number, text) in [
            String::new(),
            digits.clone(),
            format!("{HEADER}{}", &digits[..62]),
            format!("{HEADER}{digits}00"),
            format!("{HEADER}{}zz", &digits[..62]),
            format!("{HEADER}{digits}{}", " ".repeat(300)),
        ]
        .iter()
        .enumerate()
        {
            let path = dir.path().join(number.to_string());
            write_new_private(&path, text.as_bytes()).unwrap();
            assert!(
                matches!(open_or_create(&path), Err(KeyFileError::Malformed { .. })),
                "{number}"
            );
        }
        let path = dir.path().join("good");
        write_new_private(&path, format!("{HEADER}{digits}\n").as_bytes()).unwrap();
        assert_eq!(open_or_create(&path).unwrap().expose_bytes()[..2], [0x01, 0x23]);
    }
}
