//! Sealed files: a header, then frames of one size that can be opened one by one.
//!
//! Start at [`Lease::file_sealer`] to write and [`Lease::open_file`] to read. Reading goes in two steps that the types
//! enforce: [`UnverifiedFile`] has a verified header but unknown length, and becomes a [`FileOpener`] only once its last
//! frame has proved to be the last. So a file that was cut at a border between frames gives no plaintext at all. A file
//! that is read for a long time becomes a [`KeptFile`].

mod keep;
mod open;
mod seal;

use crate::{
    FileId, FileKind,
    cipher::OVERHEAD_BYTES,
    header::{FRAMES_MAX, HEADER_BYTES},
};

pub use keep::KeptFile;
pub use open::{FileOpener, UnverifiedFile};
pub use seal::FileSealer;

/// How much plaintext each frame of a new file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameSize {
    /// 64 KiB: for files that are read whole or in long runs.
    Sequential,
    /// 4 KiB: for files that are read at random.
    Random,
}

/// What the catalog knows of a file. The zone comes from the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Its id.
    pub file: FileId,
    /// What it holds.
    pub kind: FileKind,
}

impl FrameSize {
    /// Plaintext bytes per frame.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.log2()
    }
    const fn log2(self) -> u8 {
        match self {
            Self::Sequential => 16,
            Self::Random => 12,
        }
    }
}

/// Where the frames of a file are. Follows from the frame size and the file's length alone; the last-frame flag in the
/// associated data is what proves the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    /// Plaintext bytes of every frame but the last.
    frame_bytes: u64,
    frame_count: u64,
    plain_bytes: u64,
}

impl Layout {
    /// `None` for a length that no sealed file can have.
    fn new(frame_log2: u8, file_bytes: u64) -> Option<Self> {
        let frame_bytes = 1_u64 << frame_log2;
        let body_bytes = file_bytes.checked_sub(HEADER_BYTES as u64)?;
        let frame_count = body_bytes.div_ceil(frame_bytes + OVERHEAD);
        let last_bytes = body_bytes - frame_count.checked_sub(1)? * (frame_bytes + OVERHEAD);
        // Only an empty file has an empty frame.
        let last_bytes_min = if frame_count == 1 { OVERHEAD } else { OVERHEAD + 1 };
        if last_bytes < last_bytes_min || frame_count > FRAMES_MAX {
            return None;
        }
        Some(Self {
            frame_bytes,
            frame_count,
            plain_bytes: body_bytes - frame_count * OVERHEAD,
        })
    }

    fn last(&self) -> u64 {
        self.frame_count - 1
    }

    /// Plaintext bytes of `frame`.
    fn plain_len(&self, frame: u64) -> u64 {
        if frame == self.last() {
            self.plain_bytes - frame * self.frame_bytes
        } else {
            self.frame_bytes
        }
    }

    /// Where `frame` is in the sealed file.
    fn range(&self, frame: u64) -> std::ops::Range<u64> {
        let start = HEADER_BYTES as u64 + frame * (self.frame_bytes + OVERHEAD);
        start..start + self.plain_len(frame) + OVERHEAD
    }
}

const OVERHEAD: u64 = OVERHEAD_BYTES as u64;

#[cfg(test)]
mod tests;
