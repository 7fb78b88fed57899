//! A graph whose neighbour lists stay on disk.

use std::sync::Arc;

use saker_index::{DiskGraph, DiskGraphLayout, DiskRows, Hit, RowMask};
use saker_keyring::Lease;
use saker_model::{IndexSpec, SegmentId};
use saker_storage::ObjectStore;
use zeroize::Zeroizing;

use super::{DiskVectors, FrameCache, file::DiskFile};
use crate::{IndexEntry, SegmentError, SegmentIndex, SegmentIndexKind, encoding, metric_of};

/// A graph over vectors on disk: codes in memory, neighbour lists on disk.
#[derive(Debug)]
pub struct DiskIndex {
    graph: DiskGraph,
    file: Arc<DiskFile>,
    vectors: Arc<DiskVectors>,
}

/// Opens an index file that was written for this.
///
/// # Errors
/// As of [`crate::load_index`].
pub(crate) async fn open_index(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: SegmentId,
    entry: &IndexEntry,
    vectors: &Arc<DiskVectors>,
    cache: &Arc<FrameCache>,
) -> Result<Arc<SegmentIndex>, SegmentError> {
    let file = DiskFile::kept_open(lease, store, prefix, segment, &entry.file, cache).await?;
    let (spec, vectors) = (entry.spec.clone(), Arc::clone(vectors));
    tokio::task::spawn_blocking(move || read(file, segment, spec, vectors))
        .await
        .map_err(|_| SegmentError::Stopped)?
}

fn read(
    file: Arc<DiskFile>,
    segment: SegmentId,
    spec: IndexSpec,
    vectors: Arc<DiskVectors>,
) -> Result<Arc<SegmentIndex>, SegmentError> {
    const HEAD_BYTES: usize = encoding::HEADER_BYTES + DiskGraphLayout::BYTES;
    let malformed = |reason| file.malformed(reason);
    let part = |range: std::ops::Range<u64>| {
        if range.end > file.plain_bytes() {
            return Err(file.malformed("it ends too early"));
        }
        let bytes = usize::try_from(range.end - range.start).map_err(|_| file.malformed("it ends too early"))?;
        let mut plain = vec![0; bytes];
        file.scan(range.start, &mut plain)?;
        Ok::<_, SegmentError>(plain)
    };
    let start = part(0..HEAD_BYTES as u64)?;
    let (header, layout) = start
        .split_at_checked(encoding::HEADER_BYTES)
        .ok_or_else(|| malformed("it ends too early"))?;
    let metric =
        encoding::decode_disk_index(header, segment, spec.field, vectors.rows(), vectors.dim()).map_err(malformed)?;
    let compared = metric_of(metric).ok_or_else(|| malformed("a graph has no such metric"))?;
    let layout = layout.try_into().map_err(|_| malformed("it ends too early"))?;
    let layout = DiskGraphLayout::read(
        layout,
        encoding::HEADER_BYTES as u64,
        compared,
        vectors.dim(),
        vectors.rows(),
    )
    .map_err(|_| malformed("the graph does not fit the vectors"))?;
    if layout.file_bytes() != file.plain_bytes() {
        return Err(malformed("its length does not fit its rows"));
    }
    let (numbers, codes) = layout.resident();
    let (numbers, codes) = (Zeroizing::new(part(numbers)?), part(codes)?);
    let graph = DiskGraph::open(&layout, &numbers, codes).map_err(|_| malformed("the graph is not usable"))?;
    Ok(Arc::new(SegmentIndex {
        spec,
        metric,
        kind: SegmentIndexKind::Disk(DiskIndex { graph, file, vectors }),
    }))
}

impl DiskIndex {
    /// Bytes that it takes in memory, the cache's not counted.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.graph.memory_bytes()
    }
    /// Puts it under another lease, after a move to another zone.
    pub(crate) fn rebind(&self, lease: &Lease) {
        self.file.rebind(lease);
        self.vectors.rebind(lease);
    }
    /// The best rows, as [`DiskGraph::search`] finds them; a query that no walk answers is compared with every row.
    pub(crate) fn search(
        &self,
        query: &[f32],
        k: usize,
        ef: usize,
        mask: Option<RowMask<'_>>,
    ) -> Result<Vec<Hit>, SegmentError> {
        // Also for an answer that needs no read.
        self.file.check()?;
        self.vectors.check()?;
        if self.graph.answers(query) {
            self.graph.search(self, query, k, ef, mask)
        } else {
            self.vectors.search(self.graph.metric(), query, k, mask)
        }
    }
}

impl DiskRows for DiskIndex {
    type Error = SegmentError;

    fn neighbours(&self, row: u32, list: &mut Vec<u32>) -> Result<(), SegmentError> {
        let range = self.graph.list_range(row);
        let bytes = usize::try_from(range.end - range.start).unwrap_or(0);
        list.clear();
        let mut read = Ok(());
        self.file.with(range.start, bytes, |_, part| {
            if read.is_ok() {
                read = self.graph.read_list(part, list);
            }
        })?;
        read.map_err(|_| self.file.malformed("a neighbour list is not one"))
    }

    fn vector(&self, row: u32, values: &mut [f32]) -> Result<(), SegmentError> {
        self.vectors.row(row as usize, values)
    }

    fn neighbours_soon(&self, row: u32) {
        let range = self.graph.list_range(row);
        self.file
            .will_read(range.start, usize::try_from(range.end - range.start).unwrap_or(0));
    }

    fn vector_soon(&self, row: u32) {
        self.vectors.row_soon(row as usize);
    }
}
