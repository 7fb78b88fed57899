//! A sealed file that stays open: any of its frames, at any time, for as long as the lease lives.

use std::{
    fmt,
    ops::Range,
    sync::{PoisonError, RwLock},
};

use zeroize::Zeroize as _;

use super::{FileOpener, Layout};
use crate::{
    Lease, OpenError, PlainKey, ZoneLocked,
    cipher::{AeadKey, NONCE_BYTES, OVERHEAD_BYTES},
    header::Fixed,
};

/// A sealed file whose header and length are verified and that is read frame by frame for a long time.
///
/// It asks no key service: the file's key was unwrapped once, when it was opened. Between reads only that key is kept, in
/// locked memory; the cipher's own form of it is made for each call and gone with it. Nothing opens once the zone was
/// locked.
pub struct KeptFile {
    lease: RwLock<Lease>,
    fixed: Fixed,
    frames: PlainKey,
    layout: Layout,
}

impl FileOpener {
    /// Keeps the file open.
    #[must_use]
    pub fn keep(self) -> KeptFile {
        KeptFile {
            lease: RwLock::new(self.lease),
            fixed: self.fixed,
            frames: self.frames,
            layout: self.layout,
        }
    }
}

impl KeptFile {
    /// Bytes that a sealed frame has more than its plaintext.
    pub const OVERHEAD_BYTES: usize = OVERHEAD_BYTES;

    /// Whether frames may be opened now.
    ///
    /// # Errors
    /// [`ZoneLocked`] if the zone was locked.
    pub fn check(&self) -> Result<(), ZoneLocked> {
        self.lease().check()
    }

    /// Puts the file under another lease, for a file that was moved to another zone while it was open: from now on that
    /// zone's lock ends it.
    pub fn rebind(&self, lease: &Lease) {
        *self.lease.write().unwrap_or_else(PoisonError::into_inner) = lease.clone();
    }

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

    /// Where these frames are in the sealed file, as far as it has them.
    #[must_use]
    pub fn frames_range(&self, frames: Range<u64>) -> Range<u64> {
        let end = frames.end.min(self.layout.frame_count);
        if frames.start >= end {
            return 0..0;
        }
        self.layout.range(frames.start).start..self.layout.range(end - 1).end
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

    /// Opens frame `frame` where it stands; says which part of `sealed` is its plaintext now.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or this is not that frame of this file; `sealed` is zeroed then.
    pub fn open_in_place(&self, frame: u64, sealed: &mut [u8]) -> Result<Range<usize>, OpenError> {
        let mut plain = 0..0;
        let bytes = sealed.len();
        self.open_run(frame, sealed, |opened| plain = NONCE_BYTES..NONCE_BYTES + opened.len())?;
        debug_assert!(plain.end <= bytes, "the plaintext lies within the frame");
        Ok(plain)
    }

    /// Opens a run of frames, the first of them `first`, where they stand, and hands their plaintexts to `take` in order.
    /// `sealed` is all of those frames and nothing else, as at [`Self::frames_range`]; it holds plaintext afterwards.
    ///
    /// # Errors
    /// [`OpenError`] if the zone is locked or these are not those frames of this file. `sealed` is zeroed then; `take` may
    /// have seen the frames before the one that failed.
    pub fn open_run(&self, first: u64, sealed: &mut [u8], take: impl FnMut(&[u8])) -> Result<(), OpenError> {
        self.run(first, sealed, take).inspect_err(|_| sealed.zeroize())
    }

    fn run(&self, first: u64, mut sealed: &mut [u8], mut take: impl FnMut(&[u8])) -> Result<(), OpenError> {
        let lease = self.lease();
        let key = lease.with_keys(|_| AeadKey::for_opening(&self.frames))??;
        let mut frame = first;
        while !sealed.is_empty() {
            if frame >= self.layout.frame_count {
                return Err(OpenError::Refused);
            }
            let range = self.layout.range(frame);
            // A frame has at most a mebibyte.
            let bytes = usize::try_from(range.end - range.start).map_err(|_| OpenError::Refused)?;
            let (this, rest) = std::mem::take(&mut sealed)
                .split_at_mut_checked(bytes)
                .ok_or(OpenError::Refused)?;
            let (nonce, body) = this.split_first_chunk_mut::<NONCE_BYTES>().ok_or(OpenError::Refused)?;
            let aad = self.fixed.aad(frame, frame == self.layout.last());
            lease.with_keys(|_| key.open_in_place(nonce, &aad, body))??;
            take(&body[..body.len() - (OVERHEAD_BYTES - NONCE_BYTES)]);
            sealed = rest;
            frame += 1;
        }
        Ok(())
    }

    fn lease(&self) -> Lease {
        self.lease.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for KeptFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptFile")
            .field("file", &self.fixed.file)
            .field("frame_count", &self.layout.frame_count)
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}
