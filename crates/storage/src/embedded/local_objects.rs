//! Sealed objects as files of a directory: written as `staged` describes, read and listed through `object_store`, whose
//! calls run on the blocking pool.

use std::{
    fs,
    io::ErrorKind,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{GetOptions, GetRange, ObjectStore as _, local::LocalFileSystem, path::Path as StorePath};
use saker_keyring::{HEADER_BYTES, SealedHeader, SealedObject, Unverified};

use super::{
    header_journal::{HeaderJournal, Replacement},
    staged,
};
use crate::{
    ObjectInfo, ObjectPath, ObjectReader, ObjectStore, StoreError,
    directory::{is_full, sync_directory},
    object::ObjectStoreLimits,
    path::check_prefix,
};

/// Sealed objects under a directory.
#[derive(Debug)]
pub struct LocalObjects {
    root: PathBuf,
    files: LocalFileSystem,
    headers: Arc<HeaderJournal>,
}

impl LocalObjects {
    /// Opens a directory that exists, removes what interrupted writes left in it, and finishes a replacement of headers.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let failed = |reason: String| StoreError::Io {
            action: "open",
            path: String::new(),
            reason,
        };
        let root = fs::canonicalize(root).map_err(|error| failed(error.to_string()))?;
        remove_staged(&root).map_err(|error| failed(error.to_string()))?;
        let headers = HeaderJournal::open(&root).map_err(|error| failed(error.to_string()))?;
        let files = LocalFileSystem::new_with_prefix(&root).map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            root,
            files,
            headers: Arc::new(headers),
        })
    }

    async fn read(&self, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Unverified, StoreError> {
        let location = location(path);
        let failed = |error| translate("read", path, &error);
        let options = GetOptions {
            range: range.clone().map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let found = match self.files.get_opts(&location, options).await {
            Err(error) if range.is_some() && !is_missing(&error) => {
                // The back end has one error for a range that is not there and for everything else.
                let range = range.unwrap_or_default();
                return Err(if self.size(path).await? < range.end {
                    StoreError::OutOfRange {
                        path: path.clone(),
                        start: range.start,
                        end: range.end,
                    }
                } else {
                    failed(error)
                });
            }
            found => found.map_err(failed)?,
        };
        let bytes = found.range.end - found.range.start;
        if let Some(Range { start, end }) = range
            && found.range != (start..end)
        {
            return Err(StoreError::OutOfRange {
                path: path.clone(),
                start,
                end,
            });
        }
        let bytes_max = ObjectStoreLimits::READ_BYTES_MAX;
        if bytes > bytes_max {
            return Err(StoreError::TooLarge {
                path: path.clone(),
                bytes,
                bytes_max,
            });
        }
        let at = found.range.start;
        let bytes = found.bytes().await.map_err(failed)?;
        if at < HEADER_BYTES as u64 {
            return self.with_whole_header(path, at, bytes).await;
        }
        Ok(Unverified::new(bytes))
    }

    /// `bytes` (which start at `at`) with the part of them that is the header read again while nobody replaces it: they
    /// may hold parts of two headers.
    async fn with_whole_header(&self, path: &ObjectPath, at: u64, bytes: Bytes) -> Result<Unverified, StoreError> {
        let headers = Arc::clone(&self.headers);
        self.blocking("read", path, move |file| {
            let length = bytes
                .len()
                .min(HEADER_BYTES.saturating_sub(usize::try_from(at).unwrap_or(HEADER_BYTES)));
            let mut header = vec![0; length];
            let read = {
                let _reading = headers.reading();
                fs::File::open(&file).and_then(|file| file.read_exact_at(&mut header, at))
            };
            match read {
                Ok(()) if header != bytes[..length] => {
                    header.extend_from_slice(&bytes[length..]);
                    Ok(Unverified::new(header.into()))
                }
                Ok(()) => Ok(Unverified::new(bytes)),
                // Removed since it was opened.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Unverified::new(bytes)),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Runs file work off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        path: &ObjectPath,
        work: impl FnOnce(PathBuf) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.root.join(path.as_str());
        let done = tokio::task::spawn_blocking(move || work(file))
            .await
            .unwrap_or_else(|error| Err(error.into()));
        done.map_err(|error| StoreError::Io {
            action,
            path: path.to_string(),
            reason: error.to_string(),
        })
    }
}

#[async_trait]
impl ObjectStore for LocalObjects {
    async fn put(&self, path: &ObjectPath, object: SealedObject) -> Result<(), StoreError> {
        let (root, name) = (self.root.clone(), path.to_string());
        let stored = tokio::task::spawn_blocking(move || staged::write(&root, &name, object.chunks())).await;
        let path = path.clone();
        stored.unwrap_or_else(|error| Err(error.into())).map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists {
                StoreError::AlreadyExists { path }
            } else if is_full(&error) {
                StoreError::Full { path }
            } else {
                StoreError::Io {
                    action: "write",
                    path: path.to_string(),
                    reason: error.to_string(),
                }
            }
        })
    }

    async fn get(&self, path: &ObjectPath) -> Result<Unverified, StoreError> {
        self.read(path, None).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Unverified, StoreError> {
        if range.start > range.end {
            return Err(StoreError::OutOfRange {
                path: path.clone(),
                start: range.start,
                end: range.end,
            });
        }
        if range.is_empty() {
            // `object_store` takes no empty range; the object must be there and reach that far all the same.
            return if range.end > self.size(path).await? {
                Err(StoreError::OutOfRange {
                    path: path.clone(),
                    start: range.start,
                    end: range.end,
                })
            } else {
                Ok(Unverified::new(Bytes::new()))
            };
        }
        self.read(path, Some(range)).await
    }

    async fn open(&self, path: &ObjectPath) -> Result<Arc<dyn ObjectReader>, StoreError> {
        let (file, owned) = (self.root.join(path.as_str()), path.clone());
        let opened = tokio::task::spawn_blocking(move || OpenFile::open(&file, owned)).await;
        opened.unwrap_or_else(|error| Err(io_failed("open", path, &error.into())))
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, StoreError> {
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let found = self.files.get_opts(&location(path), options).await;
        found
            .map(|found| found.meta.size)
            .map_err(|error| translate("look at", path, &error))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        check_prefix("object prefix", prefix)?;
        let failed = |reason: String| StoreError::Io {
            action: "list",
            path: prefix.to_owned(),
            reason,
        };
        if !prefix.is_empty() {
            let directory = self.root.join(prefix);
            match tokio::fs::metadata(&directory).await {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Ok(Vec::new()),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Ok(Vec::new());
                }
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        let prefix_path = (!prefix.is_empty()).then(|| StorePath::from(prefix));
        let found = self.files.list(prefix_path.as_ref());
        let mut objects: Vec<ObjectInfo> = found
            .try_filter_map(|meta| async move {
                // A name that is no object path was not written by us; it cannot be asked for either.
                let path = ObjectPath::new(meta.location.as_ref()).ok();
                Ok(path.map(|path| ObjectInfo { path, bytes: meta.size }))
            })
            .try_collect()
            .await
            .map_err(|error| failed(describe(&error)))?;
        objects.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.blocking("delete", path, |file| remove(&file)).await
    }

    async fn shred(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let headers = Arc::clone(&self.headers);
        self.blocking("shred", path, move |file| {
            match headers.alone(|| overwrite_start(&file, HEADER_BYTES as u64)) {
                Ok(()) => remove(&file),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn replace_headers(&self, headers: Vec<(ObjectPath, SealedHeader)>) -> Result<usize, StoreError> {
        let Some((first, _)) = headers.first() else {
            return Ok(0);
        };
        let first = first.clone();
        let replacement = |(path, header): (ObjectPath, SealedHeader)| Replacement {
            path: path.to_string(),
            start: header.as_bytes().to_vec(),
        };
        let batch: Vec<_> = headers.into_iter().map(replacement).collect();
        let journal = Arc::clone(&self.headers);
        let done = tokio::task::spawn_blocking(move || journal.replace(&batch))
            .await
            .unwrap_or_else(|error| Err(error.into()));
        done.map_err(|error| {
            if is_full(&error) {
                return StoreError::Full { path: first };
            }
            StoreError::Io {
                action: "replace headers of",
                path: first.to_string(),
                reason: error.to_string(),
            }
        })
    }
}

/// An object's file, open for reading.
#[derive(Debug)]
struct OpenFile {
    path: ObjectPath,
    file: fs::File,
    bytes: u64,
}

impl OpenFile {
    fn open(file: &Path, path: ObjectPath) -> Result<Arc<dyn ObjectReader>, StoreError> {
        let opened = fs::File::open(file).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((bytes, file)) => Ok(Arc::new(Self { path, file, bytes })),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(StoreError::NotFound { path }),
            Err(error) => Err(io_failed("open", &path, &error)),
        }
    }
}

impl ObjectReader for OpenFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, at: u64, out: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_exact_at(out, at).map_err(|error| {
            if error.kind() == ErrorKind::UnexpectedEof {
                StoreError::OutOfRange {
                    path: self.path.clone(),
                    start: at,
                    end: at.saturating_add(out.len() as u64),
                }
            } else {
                io_failed("read", &self.path, &error)
            }
        })
    }

    fn will_read(&self, range: Range<u64>) {
        if let Some(bytes) = std::num::NonZeroU64::new(range.end.saturating_sub(range.start)) {
            // A hint that the system does not take costs nothing but time.
            let _ = rustix::fs::fadvise(&self.file, range.start, Some(bytes), rustix::fs::Advice::WillNeed);
        }
    }
}

fn io_failed(action: &'static str, path: &ObjectPath, error: &std::io::Error) -> StoreError {
    StoreError::Io {
        action,
        path: path.to_string(),
        reason: error.to_string(),
    }
}

fn location(path: &ObjectPath) -> StorePath {
    StorePath::from(path.as_str())
}

fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
}

/// Overwrites the first bytes of a file with zeros, durably.
pub(super) fn overwrite_start(file: &Path, bytes: u64) -> std::io::Result<()> {
    let opened = fs::OpenOptions::new().write(true).open(file)?;
    let bytes = bytes.min(opened.metadata()?.len());
    let zeros = [0u8; 4_096];
    let mut done = 0;
    while done < bytes {
        let part = &zeros[..usize::try_from(bytes - done).unwrap_or(usize::MAX).min(zeros.len())];
        opened.write_all_at(part, done)?;
        done += part.len() as u64;
    }
    opened.sync_all()
}

/// Removes a file durably; one that is not there is fine.
pub(super) fn remove(file: &Path) -> std::io::Result<()> {
    match fs::remove_file(file) {
        Ok(()) => file.parent().map_or(Ok(()), sync_directory),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes `name#number` files, which interrupted writes left, and makes private what an earlier version made readable
/// for others.
fn remove_staged(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() || kind.is_file() {
            staged::make_private(&entry.path(), &entry.metadata()?)?;
        }
        if kind.is_dir() {
            remove_staged(&entry.path())?;
        } else if kind.is_file()
            && let Some((_, number)) = entry.file_name().to_string_lossy().rsplit_once('#')
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn translate(action: &'static str, path: &ObjectPath, error: &object_store::Error) -> StoreError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(here) = cause {
        if here.downcast_ref::<std::io::Error>().is_some_and(is_full) {
            return StoreError::Full { path: path.clone() };
        }
        cause = here.source();
    }
    let reason = describe(error);
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is open, and the rest is one case to a caller"
    )]
    match error {
        object_store::Error::NotFound { .. } => StoreError::NotFound { path: path.clone() },
        object_store::Error::AlreadyExists { .. } => StoreError::AlreadyExists { path: path.clone() },
        _ => StoreError::Io {
            action,
            path: path.to_string(),
            reason,
        },
    }
}

/// The innermost cause: the outer ones repeat the path in the machine's own terms.
fn describe(error: &object_store::Error) -> String {
    let mut innermost: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
