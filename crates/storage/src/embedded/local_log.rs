//! The log as files: `<stream>/<sequence>.log`, written as `frame` describes, by the writer of `writer`.
//!
//! Other names in a stream's directory: `<sequence>.log.new` is a segment being made, `<sequence>.log.gone` one being
//! shredded (both are cleared away when the log is opened), and `<sequence>.floor` an empty file that says: numbers below
//! this were used, when no segment is left to say it.

use std::{
    collections::HashMap,
    fs,
    io::{self, ErrorKind, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use saker_keyring::{FileId, SealedHeader, SealedLogHeader, SealedRecord, Unverified};
use tokio::runtime::Handle;

use super::{
    frame,
    header_journal::{HeaderJournal, Replacement},
    local_objects::{overwrite_start, remove},
    writer::{Writer, WriterLimits},
};
use crate::{
    Log, LogAppend, LogAppender, LogError, LogReady, LogSegmentContents, LogSegmentInfo, LogSequence, StreamId, Tail,
    directory::{is_full, private_file, sync_directory},
};

/// The log under a directory.
#[derive(Debug)]
pub struct LocalLog {
    root: PathBuf,
    headers: Arc<HeaderJournal>,
    streams: Mutex<HashMap<StreamId, Arc<Stream>>>,
}

/// One stream; its lock is held by whoever changes the stream's directory.
#[derive(Debug)]
struct Stream {
    id: StreamId,
    directory: PathBuf,
    last: Mutex<Last>,
}

/// What is known of a stream's last segment.
#[derive(Default)]
struct Last {
    writer: Option<Arc<Writer>>,
    /// A segment of an earlier run whose tail was looked at.
    checked: Option<LogSequence>,
}

#[derive(Debug)]
struct LocalAppender(Arc<Writer>);

impl LocalLog {
    /// Opens a directory that exists, clears away what interrupted calls left in it, and finishes a replacement of headers.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn open(root: &Path) -> Result<Self, LogError> {
        let headers = HeaderJournal::open(root).map_err(|error| LogError::Io {
            action: "open",
            stream: "(all)".to_owned(),
            reason: error.to_string(),
        })?;
        let log = Self {
            root: root.to_owned(),
            headers: Arc::new(headers),
            streams: Mutex::default(),
        };
        for id in list_streams(root)? {
            let stream = log.stream(&id);
            stream.clear().map_err(|error| stream.failed("clear", &error))?;
        }
        Ok(log)
    }

    fn stream(&self, id: &StreamId) -> Arc<Stream> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Stream {
                id: id.clone(),
                directory: self.root.join(id.as_str()),
                last: Mutex::default(),
            })
        };
        Arc::clone(streams.entry(id.clone()).or_insert_with(new))
    }

    /// Runs file work off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        id: &StreamId,
        work: impl FnOnce(&Stream) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let stream = self.stream(id);
        let worker = Arc::clone(&stream);
        let done = tokio::task::spawn_blocking(move || work(&worker)).await;
        done.unwrap_or_else(|error| Err(stream.failed(action, &error.into())))
    }
}

#[async_trait]
impl Log for LocalLog {
    async fn create_segment(
        &self,
        stream: &StreamId,
        header: SealedLogHeader,
        file: FileId,
    ) -> Result<Box<dyn LogAppender>, LogError> {
        let runtime = Handle::current();
        let root = self.root.clone();
        let create = move |stream: &Stream| stream.create(&root, &header, file, runtime);
        Ok(Box::new(LocalAppender(
            self.blocking("create a segment", stream, create).await?,
        )))
    }

    async fn segments(&self, stream: &StreamId) -> Result<Vec<LogSegmentInfo>, LogError> {
        self.blocking("list segments", stream, Stream::segments).await
    }

    async fn read_segment(&self, stream: &StreamId, sequence: LogSequence) -> Result<LogSegmentContents, LogError> {
        self.blocking("read a segment", stream, move |stream| stream.read(sequence))
            .await
    }

    async fn remove_segments_below(&self, stream: &StreamId, sequence: LogSequence) -> Result<(), LogError> {
        self.blocking("remove segments", stream, move |stream| stream.remove_below(sequence))
            .await
    }

    async fn remove_stream(&self, stream: &StreamId) -> Result<(), LogError> {
        let root = self.root.clone();
        self.blocking("remove a stream", stream, move |stream| stream.remove_all(&root))
            .await
    }

    async fn streams(&self) -> Result<Vec<StreamId>, LogError> {
        let root = self.root.clone();
        let listed = tokio::task::spawn_blocking(move || list_streams(&root)).await;
        let failed = |reason| LogError::Io {
            action: "list",
            stream: "(all)".to_owned(),
            reason,
        };
        listed.unwrap_or_else(|error| Err(failed(error.to_string())))
    }

    async fn replace_header(
        &self,
        stream: &StreamId,
        sequence: LogSequence,
        header: SealedHeader,
    ) -> Result<(), LogError> {
        let headers = Arc::clone(&self.headers);
        self.blocking("replace a header", stream, move |stream| {
            stream.replace_header(&headers, sequence, &header)
        })
        .await
    }

    async fn read_header(&self, stream: &StreamId, sequence: LogSequence) -> Result<(FileId, Unverified), LogError> {
        self.blocking("read a header", stream, move |stream| {
            let _last = stream.last();
            stream.header(sequence)
        })
        .await
    }
}

impl LogAppender for LocalAppender {
    fn append(&self, record: SealedRecord) -> LogAppend {
        self.0.append(record)
    }
    fn ready(&self) -> LogReady {
        let writer = Arc::clone(&self.0);
        async move { writer.ready().await }.boxed()
    }
    fn sequence(&self) -> LogSequence {
        self.0.sequence()
    }
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
    fn ended(&self) -> Option<LogError> {
        self.0.ended()
    }
    fn commits(&self) -> u64 {
        self.0.commits()
    }
}

impl Stream {
    fn create(
        &self,
        root: &Path,
        header: &SealedLogHeader,
        file: FileId,
        runtime: Handle,
    ) -> Result<Arc<Writer>, LogError> {
        let mut last = self.last();
        let failed = |error: &io::Error| self.failed("create a segment", error);
        if let Some(writer) = &last.writer {
            writer
                .finish("a later segment was begun")
                .map_err(|error| failed(&error))?;
        }
        let names = self.names().map_err(|error| failed(&error))?;
        let highest = names.segments.last().copied();
        if let Some(sequence) = highest
            && last.writer.as_ref().is_none_or(|writer| writer.sequence() != sequence)
            && last.checked != Some(sequence)
        {
            // Left by an earlier run: once it is not the last one any more, a torn tail would count as damage.
            self.contents(sequence, &mut last)?;
        }
        let sequence = LogSequence(
            highest
                .map_or(1, |highest| highest.0.saturating_add(1))
                .max(names.floor),
        );
        let start = frame::begin(file, header.as_bytes()).ok_or_else(|| LogError::TooLarge {
            what: "segment header",
            bytes: header.as_bytes().len() as u64,
            bytes_max: frame::HEADER_BYTES_MAX as u64,
        })?;
        let path = self.path(sequence, "log");
        let staged = self.path(sequence, "log.new");
        let write = || {
            if make_directory(&self.directory)? {
                sync_directory(root)?;
            }
            let mut opened = private_file().create(true).truncate(true).open(&staged)?;
            opened.write_all(&start)?;
            opened.sync_all()?;
            fs::rename(&staged, &path)?;
            sync_directory(&self.directory)?;
            Ok(opened)
        };
        let opened = write().map_err(|error| {
            let _ = fs::remove_file(&staged);
            failed(&error)
        })?;
        let (id, durable) = (self.id.clone(), start.len() as u64);
        let writer = Writer::new(id, sequence, Box::new(opened), durable, WriterLimits::STANDARD, runtime);
        let writer = Arc::new(writer);
        *last = Last {
            writer: Some(Arc::clone(&writer)),
            checked: None,
        };
        Ok(writer)
    }

    fn segments(&self) -> Result<Vec<LogSegmentInfo>, LogError> {
        let _last = self.last();
        let names = self.names().map_err(|error| self.failed("list segments", &error))?;
        names
            .segments
            .into_iter()
            .map(|sequence| self.information(sequence))
            .collect()
    }

    fn information(&self, sequence: LogSequence) -> Result<LogSegmentInfo, LogError> {
        let failed = |error: io::Error| self.failed("read a segment", &error);
        let opened = fs::File::open(self.path(sequence, "log")).map_err(failed)?;
        let bytes = opened.metadata().map_err(failed)?.len();
        let mut start = Vec::with_capacity(frame::PREAMBLE_BYTES);
        opened
            .take(frame::PREAMBLE_BYTES as u64)
            .read_to_end(&mut start)
            .map_err(failed)?;
        let preamble = frame::preamble(&start).map_err(|reason| self.corrupt(sequence, 0, reason))?;
        Ok(LogSegmentInfo {
            file: preamble.file,
            sequence,
            bytes,
        })
    }

    /// The sealed header of a segment. The caller holds the stream's lock.
    fn header(&self, sequence: LogSequence) -> Result<(FileId, Unverified), LogError> {
        let opened = match fs::File::open(self.path(sequence, "log")) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(LogError::NotFound {
                    stream: self.id.clone(),
                    sequence,
                });
            }
            opened => opened.map_err(|error| self.failed("read a header", &error))?,
        };
        let mut start = Vec::with_capacity(frame::PREAMBLE_BYTES + frame::HEADER_BYTES_MAX);
        opened
            .take((frame::PREAMBLE_BYTES + frame::HEADER_BYTES_MAX) as u64)
            .read_to_end(&mut start)
            .map_err(|error| self.failed("read a header", &error))?;
        let found = frame::header(&Bytes::from(start));
        let (preamble, header) = found.map_err(|reason| self.corrupt(sequence, 0, reason))?;
        Ok((preamble.file, Unverified::new(header)))
    }

    /// Its writer, if it is open, writes behind the header: neither is in the other's way. Readers wait.
    fn replace_header(
        &self,
        headers: &HeaderJournal,
        sequence: LogSequence,
        header: &SealedHeader,
    ) -> Result<(), LogError> {
        let _last = self.last();
        let (file, old) = self.header(sequence)?;
        let failed = |error: io::Error| self.failed("replace a header", &error);
        let start = frame::begin(file, header.as_bytes()).filter(|_| old.len() == header.as_bytes().len());
        let start =
            start.ok_or_else(|| failed(io::Error::other("the new header has another length than the old one")))?;
        let name = self.path(sequence, "log");
        let name = name.file_name().map(|name| name.to_string_lossy().into_owned());
        let replacement = Replacement {
            path: format!("{}/{}", self.id, name.unwrap_or_default()),
            start,
        };
        headers.replace(&[replacement]).map(|_| ()).map_err(failed)
    }

    fn read(&self, sequence: LogSequence) -> Result<LogSegmentContents, LogError> {
        self.contents(sequence, &mut self.last())
    }

    /// Reads a segment; a torn tail is cut off if this is the last one.
    fn contents(&self, sequence: LogSequence, last: &mut Last) -> Result<LogSegmentContents, LogError> {
        let failed = |error: io::Error| self.failed("read a segment", &error);
        // What lies behind the durable end of a segment that is open here is being written at this moment.
        let open = last
            .writer
            .as_ref()
            .filter(|writer| writer.sequence() == sequence)
            .map(|writer| writer.durable());
        let mut file = match private_file().open(self.path(sequence, "log")) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(LogError::NotFound {
                    stream: self.id.clone(),
                    sequence,
                });
            }
            Err(error) => return Err(failed(error)),
        };
        let length = file.metadata().map_err(failed)?.len();
        let (bytes, bytes_max) = (
            open.unwrap_or(length).min(length),
            WriterLimits::STANDARD.segment_bytes_max,
        );
        if bytes > bytes_max {
            return Err(LogError::TooLarge {
                what: "segment",
                bytes,
                bytes_max,
            });
        }
        let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
        Read::by_ref(&mut file)
            .take(bytes)
            .read_to_end(&mut content)
            .map_err(failed)?;
        let content = Bytes::from(content);
        let (preamble, header) = frame::header(&content).map_err(|reason| self.corrupt(sequence, 0, reason))?;
        let scan = frame::scan(&content, frame::PREAMBLE_BYTES + preamble.header_bytes);
        let tail = match scan.broken {
            None => Tail::Clean,
            Some(broken) => {
                let names = self.names().map_err(failed)?;
                if broken.followed || open.is_some() || names.segments.last() != Some(&sequence) {
                    return Err(self.corrupt(sequence, scan.end as u64, broken.reason));
                }
                let bytes_cut = (content.len() - scan.end) as u64;
                file.set_len(scan.end as u64)
                    .and_then(|()| file.sync_all())
                    .map_err(failed)?;
                tracing::warn!(stream = %self.id, %sequence, bytes_cut, "cut off a write that a crash had interrupted");
                Tail::Torn { bytes_cut }
            }
        };
        if open.is_none() {
            last.checked = Some(sequence);
        }
        let records = scan.records.into_iter().map(Unverified::new).collect();
        Ok(LogSegmentContents {
            file: preamble.file,
            header: Unverified::new(header),
            records,
            tail,
        })
    }

    fn remove_below(&self, below: LogSequence) -> Result<(), LogError> {
        let mut last = self.last();
        let failed = |error: io::Error| self.failed("remove segments", &error);
        let names = self.names().map_err(failed)?;
        let Some(highest) = names.segments.last().copied() else {
            return Ok(());
        };
        if let Some(writer) = last.writer.take_if(|writer| writer.sequence() < below) {
            writer.finish("it was removed").map_err(failed)?;
        }
        let remove = || {
            let gone = names
                .segments
                .iter()
                .copied()
                .filter(|sequence| *sequence < below && *sequence < highest);
            self.shred(&gone.collect::<Vec<_>>())?;
            if highest < below {
                // The last segment becomes the file that keeps its number from being used again: a new file might not
                // fit on a full disk, and then nothing could ever be removed.
                let floor = self.path(LogSequence(highest.0.saturating_add(1)), "floor");
                fs::rename(self.path(highest, "log"), floor)?;
                sync_directory(&self.directory)?;
                self.clear()?;
            }
            Ok(())
        };
        remove().map_err(failed)
    }

    fn remove_all(&self, root: &Path) -> Result<(), LogError> {
        let mut last = self.last();
        let failed = |error: io::Error| self.failed("remove a stream", &error);
        if let Some(writer) = last.writer.take() {
            // Everything it wrote is about to go, so a failure to cut its end is none.
            let _ = writer.finish("its stream was removed");
        }
        last.checked = None;
        let remove = || {
            self.shred(&self.names()?.segments)?;
            for entry in fs::read_dir(&self.directory)? {
                fs::remove_file(entry?.path())?;
            }
            fs::remove_dir(&self.directory)?;
            sync_directory(root)
        };
        match remove() {
            Err(error) if error.kind() == ErrorKind::NotFound && !self.directory.exists() => Ok(()),
            done => done.map_err(failed),
        }
    }

    /// Takes segments out of the stream, then overwrites their headers, then deletes them. A crash in between leaves
    /// names that no listing shows and that the next start clears away.
    fn shred(&self, sequences: &[LogSequence]) -> io::Result<()> {
        for &sequence in sequences {
            fs::rename(self.path(sequence, "log"), self.path(sequence, "log.gone"))?;
        }
        if !sequences.is_empty() {
            sync_directory(&self.directory)?;
        }
        self.clear()
    }

    /// Finishes what interrupted calls left.
    fn clear(&self) -> io::Result<()> {
        let (mut leftovers, mut floors) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("gone" | "new") => leftovers.push(path),
                Some("floor") => floors.push(path),
                _ => {}
            }
        }
        // All keys first: a crash on the way leaves ciphertext without keys, not keys.
        for path in leftovers.iter().chain(&floors) {
            overwrite_start(path, (frame::PREAMBLE_BYTES + frame::HEADER_BYTES_MAX) as u64)?;
        }
        leftovers.iter().try_for_each(|path| remove(path))?;
        // Names sort like numbers; the highest floor says all.
        floors.sort_unstable();
        if let Some((highest, lower)) = floors.split_last() {
            private_file().open(highest)?.set_len(0)?;
            lower.iter().try_for_each(|path| remove(path))?;
        }
        Ok(())
    }

    fn names(&self) -> io::Result<Names> {
        let mut names = Names::default();
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(names),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some((number, kind)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let Some(number) = number.parse().ok().filter(|_| number.len() == SEQUENCE_DIGITS) else {
                continue;
            };
            match kind {
                "log" => names.segments.push(LogSequence(number)),
                "floor" => names.floor = names.floor.max(number),
                _ => {}
            }
        }
        names.segments.sort_unstable();
        Ok(names)
    }

    fn path(&self, sequence: LogSequence, kind: &str) -> PathBuf {
        self.directory
            .join(format!("{:0width$}.{kind}", sequence.0, width = SEQUENCE_DIGITS))
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn corrupt(&self, sequence: LogSequence, offset: u64, reason: &'static str) -> LogError {
        LogError::Corrupt {
            stream: self.id.clone(),
            sequence,
            offset,
            reason,
        }
    }

    fn failed(&self, action: &'static str, error: &io::Error) -> LogError {
        if is_full(error) {
            return LogError::Full {
                stream: self.id.clone(),
            };
        }
        LogError::Io {
            action,
            stream: self.id.to_string(),
            reason: error.to_string(),
        }
    }
}

/// The names in a stream's directory.
#[derive(Default)]
struct Names {
    /// In order.
    segments: Vec<LogSequence>,
    /// Numbers below were used; 0 if that is not known.
    floor: u64,
}

/// Digits of a sequence number in a file name: all of a `u64`, so that names sort like numbers.
const SEQUENCE_DIGITS: usize = 20;

/// The streams that have a directory under `root`, in order.
fn list_streams(root: &Path) -> Result<Vec<StreamId>, LogError> {
    let list = || -> io::Result<Vec<StreamId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir()
                && let Some(Ok(id)) = entry.file_name().to_str().map(StreamId::new)
            {
                found.push(id);
            }
        }
        found.sort_unstable();
        Ok(found)
    };
    list().map_err(|error| LogError::Io {
        action: "list",
        stream: "(all)".to_owned(),
        reason: error.to_string(),
    })
}

/// Makes a directory; whether it was not there before.
fn make_directory(directory: &Path) -> io::Result<bool> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("sequence", &self.sequence())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Last")
            .field("writer", &self.writer)
            .field("checked", &self.checked)
            .finish()
    }
}
