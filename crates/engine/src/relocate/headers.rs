//! The headers of everything that a collection consists of, wrapped for another zone.

use futures::{StreamExt as _, TryStreamExt as _};
use saker_keyring::{FileIdentity, FileKind, HEADER_BYTES, Lease, RewrapError, SealedHeader};
use saker_storage::{LogSequence, ObjectPath};

use crate::{
    error::{Error, ErrorKind, Result},
    flush::key_deletes_path,
    opened::Opened,
    records::Manifest,
    zones::Access,
};

/// Most files and log segments that a collection may have to be moved: their new headers are kept in one transaction.
pub(super) const HEADERS_MAX: usize = 200_000;
/// Headers that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// New headers, and where they belong.
pub(super) struct Wrapped {
    pub(super) objects: Vec<(ObjectPath, SealedHeader)>,
    pub(super) log: Vec<(LogSequence, SealedHeader)>,
}

/// Opens each header under the collection's zone and wraps its data key for the zone `to`. Changes nothing.
///
/// # Errors
/// A locked zone, by its name; damage; a failed store.
pub(super) async fn wrap_anew(opened: &Opened, manifest: &Manifest, to: &Access, zone: &Lease) -> Result<Wrapped> {
    let files = files_of(opened, manifest)?;
    let segments = opened.shared.log.segments(&opened.stream).await?;
    let count = files.len() + segments.len();
    if count > HEADERS_MAX {
        return Err(Error::new(
            ErrorKind::QuotaExceeded,
            format!("a collection of {count} files and log segments cannot be moved, the limit is {HEADERS_MAX}"),
        ));
    }
    let reads = files.into_iter().map(|(path, identity)| async move {
        let header = opened.shared.objects.get_range(&path, 0..HEADER_BYTES as u64).await?;
        let wrapped = zone.rewrap_header(&opened.lease, identity, &header);
        let wrapped = wrapped.map_err(|error| refused(&opened.access, to, error, "file", &path))?;
        Ok::<_, Error>((path, wrapped))
    });
    let objects = futures::stream::iter(reads)
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let mut log = Vec::with_capacity(segments.len());
    for segment in segments {
        let (file, header) = opened.shared.log.read_header(&opened.stream, segment.sequence).await?;
        let kind = FileKind::Log;
        let wrapped = zone.rewrap_header(&opened.lease, FileIdentity { file, kind }, &header);
        let wrapped = wrapped.map_err(|error| refused(&opened.access, to, error, "log segment", &segment.sequence))?;
        log.push((segment.sequence, wrapped));
    }
    Ok(Wrapped { objects, log })
}

/// Every file that the manifest names, and who it is.
fn files_of(opened: &Opened, manifest: &Manifest) -> Result<Vec<(ObjectPath, FileIdentity)>> {
    let mut files = Vec::new();
    for segment in &manifest.segments {
        let prefix = opened.segment_prefix(segment.segment);
        for entry in segment.files() {
            let (file, kind) = (entry.file, entry.kind);
            files.push((ObjectPath::join(&prefix, &entry.name)?, FileIdentity { file, kind }));
        }
    }
    for entry in &manifest.key_deletes {
        let (file, kind) = (entry.file, FileKind::Deletes);
        let path = ObjectPath::new(key_deletes_path(opened.collection, file))?;
        files.push((path, FileIdentity { file, kind }));
    }
    Ok(files)
}

/// Either zone may have been locked meanwhile.
fn refused(from: &Access, to: &Access, error: RewrapError, what: &str, id: &dyn std::fmt::Display) -> Error {
    match error {
        RewrapError::Open(error) => from.explain(Error::opening(error, what, id)),
        RewrapError::Seal(error) => to.explain(error.into()),
    }
}
