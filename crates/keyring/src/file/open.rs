//! Reading a sealed file.

use std::{fmt, ops::Range};

use zeroize::{Zeroize, Zeroizing};

use super::Layout;
use crate::{
    FileIdentity, Lease, OpenError, PlainKey, Unverified,
    cipher::{AeadKey, NONCE_BYTES, TAG_BYTES},
    header::{self, Fixed, HEADER_BYTES, Shape},
};

/// A sealed file whose header is verified, but not yet its length: no plaintext comes out of it.
///
/// [`Self::verify_last`] makes it a [`FileOpener`]; [`Self::open_all`] and [`Self::open_into`] do so on the way.
#[derive(Debug)]
pub struct UnverifiedFile(FileOpener);

/// A sealed file whose header and length are verified. Opens any frame.
///
/// Holds the file's key until it is dropped (which zeroes it), but opens nothing once the zone was locked.
pub struct FileOpener {
    pub(super) lease: Lease,
    pub(super) fixed: Fixed,
    /// What `key` was made of.
    pub(super) frames: PlainKey,
    key: AeadKey,
    pub(super) layout: Layout,
}

impl Lease {
    /// Opens the sealed file that the catalog knows as `expected`. `header` is its first [`HEADER_BYTES`] bytes,
    /// `file_bytes` its length as storage tells it.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked, the header does not verify as this file's, or no sealed file has that length.
    pub fn open_file(
        &self,
        expected: FileIdentity,
        header: &Unverified,
        file_bytes: u64,
    ) -> Result<UnverifiedFile, OpenError> {
        let opened =
            self.with_keys(|keys| header::open(self.zone(), keys, expected, Shape::File, header.as_bytes()))??;
        let layout = Layout::new(opened.fixed.frame_log2, file_bytes).ok_or(OpenError::Refused)?;
        Ok(UnverifiedFile(FileOpener {
            lease: self.clone(),
            fixed: opened.fixed,
            key: AeadKey::for_opening(&opened.frames)?,
            frames: opened.frames,
            layout,
        }))
    }

    /// Opens a whole sealed file that is in memory.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked, or a single bit of the file is not what was sealed as `expected`.
    pub fn open_whole_file(&self, expected: FileIdentity, file: &Unverified) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let header = file.slice(0..HEADER_BYTES).ok_or(OpenError::Refused)?;
        self.open_file(expected, &header, file.len() as u64)?.open_all(file)
    }
}

impl UnverifiedFile {
    /// Length of the plaintext in bytes, if the file's length is right.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.0.layout.plain_bytes
    }

    /// Where the last frame is in the sealed file.
    #[must_use]
    pub fn last_frame_range(&self) -> Range<u64> {
        self.0.layout.range(self.0.layout.last())
    }

    /// Proves the file's length by its last frame: `last` is the sealed bytes at [`Self::last_frame_range`].
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or this is not the last frame.
    pub fn verify_last(self, last: &Unverified) -> Result<FileOpener, OpenError> {
        self.0.open_frame(self.0.layout.last(), last)?;
        Ok(self.0)
    }

    /// Verifies and opens the whole file; `file` includes the header.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or anything does not verify.
    pub fn open_all(self, file: &Unverified) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.0.open_all(file)
    }

    /// Verifies the whole file and opens it into `out`, which is [`Self::plain_bytes`] long; `file` includes the header.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or anything does not verify, the lengths included; `out` is zeroed then.
    pub fn open_into(self, file: &Unverified, out: &mut [u8]) -> Result<(), OpenError> {
        self.0.open_into(file, out)
    }
}

impl FileOpener {
    /// Length of the plaintext in bytes.
    #[must_use]
    pub fn plain_bytes(&self) -> u64 {
        self.layout.plain_bytes
    }

    /// Plaintext bytes of every frame but the last.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        self.layout.frame_bytes
    }

    /// Number of frames; at least 1.
    #[must_use]
    pub fn frame_count(&self) -> u64 {
        self.layout.frame_count
    }

    /// Where frame `frame` is in the sealed file. Empty for a frame that the file does not have.
    #[must_use]
    pub fn frame_range(&self, frame: u64) -> Range<u64> {
        if frame < self.layout.frame_count {
            self.layout.range(frame)
        } else {
            0..0
        }
    }

    /// The frames that hold the plaintext `plain` (cut to the file's length).
    #[must_use]
    pub fn frames_for(&self, plain: Range<u64>) -> Range<u64> {
        let end = plain.end.min(self.layout.plain_bytes);
        if plain.start >= end {
            return 0..0;
        }
        plain.start / self.layout.frame_bytes..end.div_ceil(self.layout.frame_bytes)
    }

    /// Opens frame `frame`; `sealed` is the bytes at [`Self::frame_range`].
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or this is not that frame of this file.
    pub fn open_frame(&self, frame: u64, sealed: &Unverified) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.expect_frame(frame, sealed.as_bytes())?;
        self.lease
            .with_keys(|_| self.key.open(&self.aad(frame), sealed.as_bytes()))?
    }

    /// Opens frame `frame` into `out`, which has the length of the sealed frame's plaintext.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked, this is not that frame of this file, or `out` has another length; `out` is
    /// zeroed then.
    pub fn open_frame_into(&self, frame: u64, sealed: &Unverified, out: &mut [u8]) -> Result<(), OpenError> {
        let opened = self.open_frame(frame, sealed).and_then(|plain| {
            if plain.len() != out.len() {
                return Err(OpenError::Refused);
            }
            out.copy_from_slice(&plain);
            Ok(())
        });
        opened.inspect_err(|_| out.zeroize())
    }

    /// Opens the whole file, the last frame first; `file` includes the header.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or anything does not verify.
    pub fn open_all(&self, file: &Unverified) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.expect_length(file)?;
        // Not longer than `file`, which is in memory.
        let plain_bytes = usize::try_from(self.layout.plain_bytes).map_err(|_| OpenError::Refused)?;
        let mut out = Zeroizing::new(vec![0; plain_bytes]);
        self.open_into(file, &mut out)?;
        Ok(out)
    }

    /// Opens the whole file into `out`, the last frame first; `file` includes the header, `out` is
    /// [`Self::plain_bytes`] long.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or anything does not verify, the lengths included; `out` is zeroed then.
    pub fn open_into(&self, file: &Unverified, out: &mut [u8]) -> Result<(), OpenError> {
        self.open_frames(file, out).inspect_err(|_| out.zeroize())
    }

    fn open_frames(&self, file: &Unverified, out: &mut [u8]) -> Result<(), OpenError> {
        self.expect_length(file)?;
        if out.len() as u64 != self.layout.plain_bytes {
            return Err(OpenError::Refused);
        }
        let frames = file.slice(HEADER_BYTES..file.len()).ok_or(OpenError::Refused)?;
        // The file is in memory, so one of its frames is, too.
        let frame_bytes = usize::try_from(self.layout.frame_bytes).map_err(|_| OpenError::Refused)?;
        let mut sealed_frames = frames.as_bytes().chunks(frame_bytes + NONCE_BYTES + TAG_BYTES);

        let last = sealed_frames.next_back().ok_or(OpenError::Refused)?;
        let last = self
            .lease
            .with_keys(|_| self.key.open(&self.aad(self.layout.last()), last))??;
        let mut rest = out;
        for (frame, sealed) in (0..).zip(sealed_frames) {
            let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Refused)?;
            // Opened in place: the tag spills into where the next frame comes, and is overwritten by it.
            if let Some(in_place) = rest.get_mut(..body.len()) {
                in_place.copy_from_slice(body);
                self.lease
                    .with_keys(|_| self.key.open_in_place(nonce, &self.aad(frame), in_place))??;
            } else {
                let plain = self.lease.with_keys(|_| self.key.open(&self.aad(frame), sealed))??;
                rest.get_mut(..frame_bytes)
                    .ok_or(OpenError::Refused)?
                    .copy_from_slice(&plain);
            }
            rest = rest.get_mut(frame_bytes..).ok_or(OpenError::Refused)?;
        }
        if rest.len() != last.len() {
            return Err(OpenError::Refused);
        }
        rest.copy_from_slice(&last);
        Ok(())
    }

    fn aad(&self, frame: u64) -> [u8; header::AAD_BYTES] {
        self.fixed.aad(frame, frame == self.layout.last())
    }

    fn expect_frame(&self, frame: u64, sealed: &[u8]) -> Result<(), OpenError> {
        let range = self.frame_range(frame);
        if range.is_empty() || range.end - range.start != sealed.len() as u64 {
            return Err(OpenError::Refused);
        }
        Ok(())
    }

    fn expect_length(&self, file: &Unverified) -> Result<(), OpenError> {
        if file.len() as u64 != self.layout.range(self.layout.last()).end {
            return Err(OpenError::Refused);
        }
        Ok(())
    }
}

impl fmt::Debug for FileOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOpener")
            .field("file", &self.fixed.file)
            .field("frame_count", &self.layout.frame_count)
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}
