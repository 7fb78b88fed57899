//! The header that every sealed file, value and log segment starts with: who the file is, and its wrapped data key.
//!
//! It has two parts. The fixed part (bytes 0 to 111) names the file for its whole life and is authenticated under the
//! data key. The key slot (bytes 112 to 191) says which zone and zone key version wrap the data key now; it alone
//! changes when a file is rewrapped. The wrap authenticates everything before its own nonce. Byte tables and reasons
//! are in `docs/formats.md`.

use aws_lc_rs::error::Unspecified;

use crate::{
    FileId, FileIdentity, FileKind, OpenError, PlainKey, SealError, Unverified, ZoneId, ZoneKeyVersion,
    cipher::{self, AeadKey, NONCE_BYTES, OVERHEAD_BYTES},
    random_key,
    zone::ZoneKeys,
};

/// Length of the header of a sealed file, value or log segment, in bytes.
pub const HEADER_BYTES: usize = 192;

/// Bytes of a header that stay for its file's whole life; a rewrap changes only those behind them.
pub const HEADER_FIXED_BYTES: usize = SLOT;

/// How the bytes behind a header are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Frames of one size that can be opened one by one.
    File,
    /// One piece.
    Value,
    /// Records, in order.
    Log,
}

/// The part of a header that stays for the file's whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    pub(crate) shape: Shape,
    pub(crate) kind: FileKind,
    /// Base-2 logarithm of the frame's plaintext bytes; 0 unless the shape is [`Shape::File`].
    pub(crate) frame_log2: u8,
    pub(crate) file: FileId,
    /// The zone that the file was made in; bound by every frame. The file may be rewrapped to another zone since.
    pub(crate) birth: ZoneId,
}

/// A header as it was verified, with the key that its frames are sealed under.
pub(crate) struct Opened {
    pub(crate) fixed: Fixed,
    pub(crate) frames: PlainKey,
    data_key: PlainKey,
}

/// Makes a header with a fresh data key. Returns it with the key for the frames.
pub(crate) fn seal(zone: ZoneId, keys: &ZoneKeys, fixed: &Fixed) -> Result<([u8; HEADER_BYTES], PlainKey), SealError> {
    let data_key = random_key();
    let derived = Derived::new(&data_key, fixed.file).map_err(|_| SealError::Module)?;
    let mut header = [0_u8; HEADER_BYTES];
    fixed.write(&mut header);
    header[COMMITMENT..HEADER_TAG].copy_from_slice(&derived.commitment);
    let tag = cipher::mac(derived.header.expose_bytes(), &header[..HEADER_TAG]);
    header[HEADER_TAG..SLOT].copy_from_slice(&tag);
    wrap(zone, keys, fixed.file, &data_key, &mut header)?;
    Ok((header, derived.frames))
}

/// The zone key version that a header says it is wrapped by; `None` if it is no header. A claim: only opening proves it.
#[must_use]
pub fn wrapping_version(header: &Unverified) -> Option<(ZoneId, ZoneKeyVersion)> {
    let header = header.as_bytes().get(..HEADER_BYTES)?;
    Fixed::read(header)?;
    let zone = ZoneId::from_bytes(header[SLOT..SLOT_VERSION].try_into().ok()?);
    let version = u32::from_le_bytes(header[SLOT_VERSION..WRAP].try_into().ok()?);
    Some((zone, ZoneKeyVersion::new(version)))
}

/// Verifies a header completely: that it is of the file, kind and shape that the caller expects, wrapped by this zone,
/// and that not one bit of it differs from what was sealed.
pub(crate) fn open(
    zone: ZoneId,
    keys: &ZoneKeys,
    expected: FileIdentity,
    shape: Shape,
    header: &[u8],
) -> Result<Opened, OpenError> {
    let fixed = Fixed::read(header).ok_or(OpenError::Refused)?;
    if fixed.file != expected.file || fixed.kind != expected.kind || fixed.shape != shape {
        return Err(OpenError::Refused);
    }
    open_any(zone, keys, &fixed, header)
}

/// Like [`open`], for a caller that takes any file: a rewrap works on all shapes.
pub(crate) fn open_unless_moved(
    zone: ZoneId,
    keys: &ZoneKeys,
    expected: FileIdentity,
    header: &[u8],
) -> Result<Opened, OpenError> {
    let fixed = Fixed::read(header).ok_or(OpenError::Refused)?;
    if fixed.file != expected.file || fixed.kind != expected.kind {
        return Err(OpenError::Refused);
    }
    open_any(zone, keys, &fixed, header)
}

/// Replaces the key slot of `header` (verified as `opened`): the data key is wrapped by `zone`'s current key.
pub(crate) fn rewrap(
    zone: ZoneId,
    keys: &ZoneKeys,
    opened: &Opened,
    header: &[u8],
) -> Result<[u8; HEADER_BYTES], SealError> {
    let mut fresh = [0_u8; HEADER_BYTES];
    fresh[..SLOT].copy_from_slice(header.get(..SLOT).ok_or(SealError::Module)?);
    wrap(zone, keys, opened.fixed.file, &opened.data_key, &mut fresh)?;
    Ok(fresh)
}

/// Whether these bytes have the form of a header. Says nothing about whose it is.
pub(crate) fn is_header(bytes: &[u8]) -> bool {
    bytes.len() == HEADER_BYTES && Fixed::read(bytes).is_some()
}

fn open_any(zone: ZoneId, keys: &ZoneKeys, fixed: &Fixed, header: &[u8]) -> Result<Opened, OpenError> {
    if header.len() != HEADER_BYTES || header[SLOT..SLOT_VERSION] != zone.as_bytes()[..] {
        return Err(OpenError::Refused);
    }
    let version: [u8; 4] = header[SLOT_VERSION..WRAP].try_into().map_err(|_| OpenError::Refused)?;
    let version = ZoneKeyVersion::new(u32::from_le_bytes(version));
    let zone_key = keys.version(version).ok_or(OpenError::Refused)?;
    let wrap_key = wrap_key(zone_key, zone, version, fixed.file).map_err(|_| OpenError::Refused)?;
    let mut unwrapped = wrap_key.open(&header[..WRAP], &header[WRAP..])?;
    let data_key = PlainKey::take(&mut unwrapped).ok_or(OpenError::Refused)?;
    let derived = Derived::new(&data_key, fixed.file).map_err(|_| OpenError::Refused)?;
    cipher::equal(&derived.commitment, &header[COMMITMENT..HEADER_TAG])?;
    cipher::equal(
        &cipher::mac(derived.header.expose_bytes(), &header[..HEADER_TAG]),
        &header[HEADER_TAG..SLOT],
    )?;
    Ok(Opened {
        fixed: *fixed,
        frames: derived.frames,
        data_key,
    })
}

fn wrap(
    zone: ZoneId,
    keys: &ZoneKeys,
    file: FileId,
    data_key: &PlainKey,
    header: &mut [u8; HEADER_BYTES],
) -> Result<(), SealError> {
    let (version, zone_key) = keys.current().ok_or(SealError::Module)?;
    header[SLOT..SLOT_VERSION].copy_from_slice(zone.as_bytes());
    header[SLOT_VERSION..WRAP].copy_from_slice(&version.number().to_le_bytes());
    let wrap_key = wrap_key(zone_key, zone, version, file).map_err(|_| SealError::Module)?;
    let (bound, wrapped) = header.split_at_mut(WRAP);
    wrapped[NONCE_BYTES..NONCE_BYTES + PlainKey::BYTES].copy_from_slice(data_key.expose_bytes());
    wrap_key.seal_in_place(bound, wrapped)
}

/// The key that wraps one file's data key. Derived per file, so that a zone key may wrap any number of data keys: each
/// derived key meets a handful of random nonces (one per rewrap), not one per file of the zone.
fn wrap_key(zone_key: &PlainKey, zone: ZoneId, version: ZoneKeyVersion, file: FileId) -> Result<AeadKey, Unspecified> {
    let info: [&[u8]; 3] = [b"saker/v1/wrap", zone.as_bytes(), &version.number().to_le_bytes()];
    AeadKey::new(cipher::derive(zone_key.expose_bytes(), file.as_bytes(), &info)?.expose_bytes())
}

/// What is derived from a data key, each under its own label.
struct Derived {
    frames: PlainKey,
    header: PlainKey,
    commitment: [u8; COMMITMENT_BYTES],
}

impl Derived {
    fn new(data_key: &PlainKey, file: FileId) -> Result<Self, Unspecified> {
        let derive = |label: &[u8]| cipher::derive(data_key.expose_bytes(), file.as_bytes(), &[label]);
        Ok(Self {
            frames: derive(b"saker/v1/frames")?,
            header: derive(b"saker/v1/header")?,
            // No secret: it stands in the header.
            commitment: *derive(b"saker/v1/commitment")?.expose_bytes(),
        })
    }
}

impl Fixed {
    fn write(&self, header: &mut [u8; HEADER_BYTES]) {
        header[..8].copy_from_slice(MAGIC);
        header[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[10..12].copy_from_slice(&SUITE.to_le_bytes());
        header[12..14].copy_from_slice(&self.kind.code().to_le_bytes());
        header[14] = self.shape.code();
        header[15] = self.frame_log2;
        header[16..32].copy_from_slice(self.file.as_bytes());
        header[32..COMMITMENT].copy_from_slice(self.birth.as_bytes());
    }

    /// Reads the fixed part; `None` unless every field holds a value that this version knows. Nothing read here is
    /// trusted until the tags were checked.
    pub(crate) fn read(header: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = header.try_into().ok()?;
        let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        if header[..8] != MAGIC[..] || word(8) != FORMAT_VERSION || word(10) != SUITE {
            return None;
        }
        let shape = Shape::from_code(header[14])?;
        let frame_log2 = header[15];
        let frame_log2_known = match shape {
            Shape::File => (FRAME_LOG2_MIN..=FRAME_LOG2_MAX).contains(&frame_log2),
            Shape::Value | Shape::Log => frame_log2 == 0,
        };
        if !frame_log2_known {
            return None;
        }
        Some(Self {
            shape,
            kind: FileKind::from_code(word(12))?,
            frame_log2,
            file: FileId::from_bytes(header[16..32].try_into().ok()?),
            birth: ZoneId::from_bytes(header[32..COMMITMENT].try_into().ok()?),
        })
    }

    /// Associated data of frame or record `index`, without what a value's identity adds.
    pub(crate) fn aad(&self, index: u64, last: bool) -> [u8; AAD_BYTES] {
        let mut aad = [0_u8; AAD_BYTES];
        aad[..16].copy_from_slice(self.shape.label());
        aad[16..32].copy_from_slice(self.birth.as_bytes());
        aad[32..48].copy_from_slice(self.file.as_bytes());
        aad[48..50].copy_from_slice(&self.kind.code().to_le_bytes());
        aad[50] = self.frame_log2;
        aad[51] = u8::from(last);
        aad[52..].copy_from_slice(&index.to_le_bytes());
        aad
    }
}

impl Shape {
    const fn code(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Value => 2,
            Self::Log => 3,
        }
    }
    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::File,
            2 => Self::Value,
            3 => Self::Log,
            _ => return None,
        })
    }
    const fn label(self) -> &'static [u8; 16] {
        match self {
            Self::File => b"saker/v1/frame\0\0",
            Self::Value => b"saker/v1/value\0\0",
            Self::Log => b"saker/v1/record\0",
        }
    }
}

/// First bytes of every sealed file. The line ends in it show a transfer that altered line ends.
const MAGIC: &[u8; 8] = b"\x93SAKER\r\n";
const FORMAT_VERSION: u16 = 1;
/// AES-256-GCM with the module's random nonces, HKDF-SHA-512, HMAC-SHA-256.
const SUITE: u16 = 1;
/// Smallest frame that is read: 4 KiB.
pub(crate) const FRAME_LOG2_MIN: u8 = 12;
/// Largest frame that is read: 1 MiB.
pub(crate) const FRAME_LOG2_MAX: u8 = 20;
/// Most frames or records under one data key: with random 96-bit nonces, NIST SP 800-38D section 8.3 allows 2^32.
pub(crate) const FRAMES_MAX: u64 = 1 << 32;

const COMMITMENT: usize = 48;
const COMMITMENT_BYTES: usize = 32;
const HEADER_TAG: usize = COMMITMENT + COMMITMENT_BYTES;
const SLOT: usize = HEADER_TAG + 32;
const SLOT_VERSION: usize = SLOT + 16;
const WRAP: usize = SLOT_VERSION + 4;
const _: () = assert!(WRAP + OVERHEAD_BYTES + PlainKey::BYTES == HEADER_BYTES);
pub(crate) const AAD_BYTES: usize = 60;

#[cfg(test)]
mod tests;
