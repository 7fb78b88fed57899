//! What the tests of this crate share: an unlocked zone, and sealed things to store.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::{fs, path::Path, sync::Arc};

use saker_keyring::{FileId, FileKind, FrameSize, Lease, SealedObject, Zone, ZoneId, ZoneKeyVersion, random_key};

pub(crate) fn unlocked() -> (Arc<Zone>, Lease) {
    let zone = Zone::locked(ZoneId::random());
    zone.unlock(vec![(ZoneKeyVersion::FIRST, random_key())]).unwrap();
    let lease = zone.lease().unwrap();
    (zone, lease)
}

pub(crate) fn object(lease: &Lease, file: FileId, plain: &[u8]) -> SealedObject {
    let mut sealer = lease.file_sealer(file, FileKind::Column, FrameSize::Random).unwrap();
    sealer.write(plain).unwrap();
    sealer.finish().unwrap()
}

/// Puts bytes into a file, as a disk or an attacker would.
pub(crate) fn overwrite(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .unwrap();
    file.write_all(bytes).unwrap();
}

/// Whether `needle` stands anywhere in `haystack`.
pub(crate) fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
