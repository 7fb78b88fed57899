//! Zone and ids of the golden files in `crates/keyring/tests/golden`.

use bytes::Bytes;
use saker_keyring::{FileId, Lease, PlainKey, Unverified, Zone, ZoneId, ZoneKeyVersion};

pub(crate) fn lease() -> Lease {
    let zone = Zone::locked(ZoneId::from_bytes([0x21; 16]));
    let key = |byte| PlainKey::take(&mut [byte; 32]).expect("32 bytes");
    zone.unlock(vec![(ZoneKeyVersion::FIRST, key(0x21)), (ZoneKeyVersion::new(2), key(0x22))]).expect("two keys");
    zone.lease().expect("unlocked")
}

#[allow(dead_code, reason = "each target uses what it needs")]
pub(crate) const FILE: FileId = FileId::from_bytes([0x31; 16]);
#[allow(dead_code, reason = "each target uses what it needs")]
pub(crate) const SEGMENT: FileId = FileId::from_bytes([0x32; 16]);

pub(crate) fn unverified(bytes: &[u8]) -> Unverified {
    Unverified::new(Bytes::copy_from_slice(bytes))
}
