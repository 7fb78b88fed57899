//! One sealed file of a segment: sealing and storing it, reading and opening it. Cipher and codec work runs on the
//! blocking pool, never on the async threads.

use saker_keyring::{
    FileId, FileIdentity, FileKind, FileOpener, FileSealer, FrameSize, HEADER_BYTES, Lease, OpenError, STACK_BYTES,
    Unverified, leaving_no_trace,
};
use saker_model::{FieldId, SegmentId};
use saker_storage::{ObjectPath, ObjectStore};
use zeroize::Zeroizing;

use crate::{FileEntry, SegmentError};

/// Why a file was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// It did not verify.
    Open(OpenError),
    /// It verified, but is not what it should be.
    Malformed(&'static str),
}

impl From<OpenError> for DecodeError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<&'static str> for DecodeError {
    fn from(reason: &'static str) -> Self {
        Self::Malformed(reason)
    }
}

/// A file whose header and length are verified. Its frames are verified as they are opened.
pub(crate) struct Opened<'a> {
    file: &'a Unverified,
    opener: FileOpener,
}

impl<'a> Opened<'a> {
    fn new(lease: &Lease, entry: &FileEntry, file: &'a Unverified) -> Result<Self, OpenError> {
        let identity = FileIdentity {
            file: entry.file,
            kind: entry.kind,
        };
        let header = file.slice(0..HEADER_BYTES).ok_or(OpenError::Refused)?;
        let unverified = lease.open_file(identity, &header, file.len() as u64)?;
        let last = slice(file, unverified.last_frame_range()).ok_or(OpenError::Refused)?;
        Ok(Self {
            file,
            opener: unverified.verify_last(&last)?,
        })
    }
    /// Length of the plaintext, in bytes.
    pub(crate) fn plain_bytes(&self) -> u64 {
        self.opener.plain_bytes()
    }
    /// All of the plaintext.
    pub(crate) fn whole(&self) -> Result<Zeroizing<Vec<u8>>, DecodeError> {
        Ok(self.opener.open_all(self.file)?)
    }
    /// Hands the plaintext over frame by frame, so that no second copy of a large file is in memory.
    pub(crate) fn frames(&self, mut take: impl FnMut(&[u8]) -> Result<(), &'static str>) -> Result<(), DecodeError> {
        for frame in 0..self.opener.frame_count() {
            let sealed = slice(self.file, self.opener.frame_range(frame)).ok_or(OpenError::Refused)?;
            take(&self.opener.open_frame(frame, &sealed)?)?;
        }
        Ok(())
    }
}

fn slice(file: &Unverified, range: std::ops::Range<u64>) -> Option<Unverified> {
    file.slice(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// Seals what `fill` writes as a new file and stores it durably.
pub(crate) async fn write(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    kind: FileKind,
    frame: FrameSize,
    field: Option<FieldId>,
    fill: impl FnOnce(&mut FileSealer) -> Result<(), SegmentError> + Send + 'static,
) -> Result<FileEntry, SegmentError> {
    let (file, lease) = (FileId::random(), lease.clone());
    let name = file.to_string();
    let path = ObjectPath::join(prefix, &name)?;
    let seal = move || {
        let mut sealer = lease.file_sealer(file, kind, frame)?;
        fill(&mut sealer)?;
        Ok::<_, SegmentError>(sealer.finish()?)
    };
    let object = tokio::task::spawn_blocking(|| leaving_no_trace::<STACK_BYTES, _>(seal))
        .await
        .map_err(|_| SegmentError::Stopped)??;
    let bytes = object.len();
    store.put(&path, object).await?;
    Ok(FileEntry {
        field,
        kind,
        file,
        bytes,
        name,
    })
}

/// Reads a file, verifies it as the one that the manifest names, and decodes it.
pub(crate) async fn read<T: Send + 'static>(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: SegmentId,
    entry: &FileEntry,
    decode: impl FnOnce(&Opened<'_>) -> Result<T, DecodeError> + Send + 'static,
) -> Result<T, SegmentError> {
    lease.check()?;
    let path = ObjectPath::join(prefix, &entry.name)?;
    let file = entry.file;
    // Asked for first, so that a store cannot make us read more than the manifest says.
    if store.size(&path).await? != entry.bytes {
        return Err(SegmentError::Refused { segment, file });
    }
    let sealed = store.get(&path).await?;
    let (lease, entry) = (lease.clone(), entry.clone());
    let open = move || {
        Opened::new(&lease, &entry, &sealed)
            .map_err(DecodeError::from)
            .and_then(|opened| decode(&opened))
    };
    let decoded = tokio::task::spawn_blocking(|| leaving_no_trace::<STACK_BYTES, _>(open))
        .await
        .map_err(|_| SegmentError::Stopped)?;
    decoded.map_err(|error| match error {
        DecodeError::Open(error) => SegmentError::opening(error, segment, file),
        DecodeError::Malformed(reason) => SegmentError::Malformed { segment, file, reason },
    })
}
