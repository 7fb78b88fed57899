//! Writing a sealed file.

use std::fmt;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::{
    FileId, FileKind, FrameSize, Lease, SealError, SealedObject,
    cipher::{AeadKey, NONCE_BYTES, OVERHEAD_BYTES, TAG_BYTES},
    header::{self, FRAMES_MAX, Fixed, HEADER_BYTES, Shape},
};

/// Seals one file, piece by piece, into memory. Dropped before [`Self::finish`], it leaves nothing behind: plaintext
/// of the frame in work is zeroed.
pub struct FileSealer {
    lease: Lease,
    fixed: Fixed,
    key: AeadKey,
    frame_bytes: usize,
    frames_max: u64,
    /// Chunks that are complete.
    chunks: Vec<Bytes>,
    /// The chunk in work: sealed frames, then room for a nonce and `pending` bytes of plaintext of the frame in work.
    /// Its capacity holds the frame in work to its end, so that it never moves and leaves plaintext behind.
    chunk: Zeroizing<Vec<u8>>,
    pending: usize,
    /// Index of the frame in work.
    frame: u64,
}

impl Lease {
    /// Starts a sealed file under a fresh data key.
    ///
    /// # Errors
    /// [`SealError`] if the zone is locked.
    pub fn file_sealer(&self, file: FileId, kind: FileKind, frame: FrameSize) -> Result<FileSealer, SealError> {
        FileSealer::with_frames_max(self, file, kind, frame, FRAMES_MAX)
    }
}

impl FileSealer {
    /// The limit is a parameter for tests alone: nobody can write 2^32 frames in one.
    pub(super) fn with_frames_max(
        lease: &Lease,
        file: FileId,
        kind: FileKind,
        frame: FrameSize,
        frames_max: u64,
    ) -> Result<Self, SealError> {
        let fixed = Fixed {
            shape: Shape::File,
            kind,
            frame_log2: frame.log2(),
            file,
            birth: lease.zone(),
        };
        let (header, key) = lease.with_keys(|keys| header::seal(lease.zone(), keys, &fixed))??;
        let frame_bytes = frame.bytes();
        let mut chunk = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + frame_bytes + OVERHEAD_BYTES));
        chunk.extend_from_slice(&header);
        chunk.extend_from_slice(&[0; NONCE_BYTES]);
        Ok(Self {
            lease: lease.clone(),
            fixed,
            key: AeadKey::for_sealing(&key)?,
            frame_bytes,
            frames_max,
            chunks: Vec::new(),
            chunk,
            pending: 0,
            frame: 0,
        })
    }

    /// Appends plaintext.
    ///
    /// # Errors
    /// [`SealError`] if the zone was locked or the file has reached the number of frames that one key may seal. The
    /// file cannot be finished then.
    pub fn write(&mut self, mut plain: &[u8]) -> Result<(), SealError> {
        self.lease.check()?;
        while !plain.is_empty() {
            if self.pending == self.frame_bytes {
                if self.frame + 1 >= self.frames_max {
                    return Err(SealError::FrameLimit {
                        frames_max: self.frames_max,
                    });
                }
                self.seal_frame(false)?;
                self.begin_frame();
            }
            let (now, later) = plain.split_at(plain.len().min(self.frame_bytes - self.pending));
            self.chunk.extend_from_slice(now);
            self.pending += now.len();
            plain = later;
        }
        Ok(())
    }

    /// Seals the last frame and gives the file.
    ///
    /// # Errors
    /// [`SealError`] if the zone was locked.
    pub fn finish(mut self) -> Result<SealedObject, SealError> {
        self.seal_frame(true)?;
        self.complete_chunk();
        Ok(SealedObject::new(self.fixed.file, std::mem::take(&mut self.chunks)))
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.fixed.file
    }

    fn seal_frame(&mut self, last: bool) -> Result<(), SealError> {
        let start = self.chunk.len() - self.pending - NONCE_BYTES;
        self.chunk.extend_from_slice(&[0; TAG_BYTES]);
        let aad = self.fixed.aad(self.frame, last);
        let sealed = self
            .lease
            .with_keys(|_| self.key.seal_in_place(&aad, &mut self.chunk[start..]))
            .map_err(SealError::from);
        if let Err(error) = sealed.flatten() {
            // As it was, so that a later attempt fails the same way.
            self.chunk.truncate(start + NONCE_BYTES + self.pending);
            return Err(error);
        }
        Ok(())
    }

    fn begin_frame(&mut self) {
        self.frame += 1;
        self.pending = 0;
        let sealed_frame_bytes = self.frame_bytes + OVERHEAD_BYTES;
        if self.chunk.capacity() - self.chunk.len() < sealed_frame_bytes {
            self.complete_chunk();
            self.chunk
                .reserve_exact((CHUNK_BYTES / self.frame_bytes) * sealed_frame_bytes);
        }
        self.chunk.extend_from_slice(&[0; NONCE_BYTES]);
    }

    fn complete_chunk(&mut self) {
        self.chunks.push(std::mem::take(&mut *self.chunk).into());
    }
}

impl fmt::Debug for FileSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSealer")
            .field("file", &self.fixed.file)
            .field("frame", &self.frame)
            .field("key", &"[redacted]")
            .finish_non_exhaustive()
    }
}

/// Plaintext bytes per chunk of a [`SealedObject`] after the first: few enough writes, little memory held idle.
const CHUNK_BYTES: usize = 1 << 20;
