//! What a header says of its file, before any key was used (`docs/formats.md`, header). Nothing here is trusted: with the
//! key at hand the seal decides; without it, this form is all that can be checked.

use saker_keyring::{FileId, FileKind, HEADER_BYTES, Unverified, ZoneId};

/// The fields of a well-formed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) kind: FileKind,
    pub(super) shape: Shape,
    pub(super) file: FileId,
    /// The zone whose key wraps the file's key now.
    pub(super) zone: ZoneId,
    pub(super) version: u32,
    frame_log2: u8,
}

/// How what follows the header is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    File,
    Value,
    Log,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoClaim {
    /// They do not begin as anything sealed does.
    Unsealed,
    /// They begin so, but a field holds what no version writes.
    Malformed,
}

/// First bytes of everything sealed.
const MAGIC: [u8; 8] = *b"\x93SAKER\r\n";
/// Nonce and tag of a frame.
const FRAME_OVERHEAD_BYTES: u64 = 28;

impl Claim {
    /// Reads a header, which may have more bytes behind it.
    pub(super) fn read(bytes: &Unverified) -> Result<Self, NoClaim> {
        let bytes = bytes.as_bytes();
        let word = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        if !bytes.starts_with(&MAGIC) {
            return Err(NoClaim::Unsealed);
        }
        let read = || {
            let known = bytes.len() >= HEADER_BYTES && word(8)? == 1 && word(10)? == 1;
            let shape = match bytes.get(14)? {
                1 => Shape::File,
                2 => Shape::Value,
                3 => Shape::Log,
                _ => return None,
            };
            let frame_log2 = *bytes.get(15)?;
            let frames_known = match shape {
                Shape::File => (12..=20).contains(&frame_log2),
                Shape::Value | Shape::Log => frame_log2 == 0,
            };
            let claim = Self {
                kind: FileKind::from_code(word(12)?)?,
                shape,
                file: FileId::from_bytes(bytes.get(16..32)?.try_into().ok()?),
                zone: ZoneId::from_bytes(bytes.get(112..128)?.try_into().ok()?),
                version: u32::from_le_bytes(bytes.get(128..132)?.try_into().ok()?),
                frame_log2,
            };
            (known && frames_known).then_some(claim)
        };
        read().ok_or(NoClaim::Malformed)
    }

    /// Whether a file of this many bytes is header and whole frames.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        let Some(body) = bytes.checked_sub(HEADER_BYTES as u64) else {
            return false;
        };
        match self.shape {
            Shape::Value => body >= FRAME_OVERHEAD_BYTES,
            Shape::Log => true,
            Shape::File => {
                let frame = (1_u64 << self.frame_log2) + FRAME_OVERHEAD_BYTES;
                let rest = body % frame;
                // An empty last frame stands alone.
                rest > FRAME_OVERHEAD_BYTES || (rest == 0 && body > 0) || body == FRAME_OVERHEAD_BYTES
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use saker_keyring::{FrameSize, Zone, ZoneKeyVersion, random_key};

    use super::*;

    #[test]
    fn what_is_sealed_has_the_form() {
        let zone = Zone::locked(ZoneId::random());
        zone.unlock(vec![(ZoneKeyVersion::new(3), random_key())]).unwrap();
        let lease = zone.lease().unwrap();
        for plain in [0, 1, 65_536, 65_537, 200_000] {
            let file = FileId::random();
            let mut sealer = lease.file_sealer(file, FileKind::Index, FrameSize::Sequential).unwrap();
            sealer.write(&vec![1; plain]).unwrap();
            let sealed = sealer.finish().unwrap();
            let bytes = sealed.to_unverified();
            let claim = Claim::read(&bytes).unwrap();
            assert_eq!(
                (claim.kind, claim.shape, claim.file),
                (FileKind::Index, Shape::File, file)
            );
            assert_eq!((claim.zone, claim.version), (lease.zone(), 3));
            assert!(claim.fits(sealed.len()), "{plain}");
            assert!(!claim.fits(191) && !claim.fits(192) && !claim.fits(192 + 27));
            assert!(
                !claim.fits(192 + 65_536 + 28 + 28),
                "an empty last frame behind another"
            );
            // Altered fields are not believed.
            for (at, value) in [(8, 2), (10, 9), (12, 99), (14, 4), (15, 11), (15, 21)] {
                let mut altered = bytes.as_bytes().to_vec();
                altered[at] = value;
                let altered = Unverified::new(altered.into());
                assert_eq!(Claim::read(&altered), Err(NoClaim::Malformed), "byte {at}");
            }
            let short = bytes.slice(0..191).unwrap();
            assert_eq!(Claim::read(&short), Err(NoClaim::Malformed));
        }
        let value = lease.seal_value("k", b"v").unwrap().into_unverified();
        let claim = Claim::read(&value).unwrap();
        assert_eq!((claim.kind, claim.shape), (FileKind::Metadata, Shape::Value));
        assert!(claim.fits(value.len() as u64) && !claim.fits(219));
        for bytes in [&b""[..], b"plain", b"\x93SAKER\n"] {
            let bytes = Unverified::new(bytes.to_vec().into());
            assert_eq!(Claim::read(&bytes), Err(NoClaim::Unsealed));
        }
    }
}
