//! Indexes of sealed segments: kept beside the columns, in a sealed file of their own.

use std::sync::Arc;

use saker_index::{DiskGraph, GraphIndex, SparseIndex};
use saker_keyring::{FileKind, FrameSize, Lease, STACK_BYTES, leaving_no_trace};
use saker_model::{FieldId, IndexSpec, MetricType, SegmentId};
use saker_storage::ObjectStore;
use zeroize::Zeroizing;

use crate::{
    IndexEntry, SealedSegment, SegmentError, VectorRows,
    disk::{DiskFile, DiskIndex, open_index},
    encoding::{self, IndexHeader, IndexPart},
    file, metric_of,
    sparse::kind_of,
};

/// What answers searches.
#[derive(Debug)]
pub enum SegmentIndexKind {
    /// Comparing with every vector.
    Flat,
    /// The graph.
    Graph(GraphIndex),
    /// Postings of sparse vectors.
    Sparse(SparseIndex),
    /// The graph, most of it on disk.
    Disk(DiskIndex),
}

/// An index of one vector field of one segment.
#[derive(Debug)]
pub struct SegmentIndex {
    /// What was asked for.
    pub spec: IndexSpec,
    /// The metric that it was built for.
    pub metric: MetricType,
    /// What answers searches.
    pub kind: SegmentIndexKind,
}

impl SegmentIndex {
    /// The graph, if there is one for this metric.
    #[must_use]
    pub fn graph_for(&self, metric: MetricType) -> Option<&GraphIndex> {
        if let SegmentIndexKind::Graph(graph) = &self.kind {
            (self.metric == metric).then_some(graph)
        } else {
            None
        }
    }
    /// The graph on disk, if there is one for this metric.
    pub(crate) fn disk_for(&self, metric: MetricType) -> Option<&DiskIndex> {
        if let SegmentIndexKind::Disk(graph) = &self.kind {
            (self.metric == metric).then_some(graph)
        } else {
            None
        }
    }
    /// The postings, if there are some for this metric.
    #[must_use]
    pub fn sparse_for(&self, metric: MetricType) -> Option<&SparseIndex> {
        if let SegmentIndexKind::Sparse(postings) = &self.kind {
            (self.metric == metric).then_some(postings)
        } else {
            None
        }
    }
    /// Bytes that it takes in memory, without the vectors.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.kind {
            SegmentIndexKind::Flat => 0,
            SegmentIndexKind::Graph(graph) => graph.memory_bytes(),
            SegmentIndexKind::Sparse(postings) => postings.memory_bytes(),
            SegmentIndexKind::Disk(graph) => graph.memory_bytes(),
        }
    }
}

/// Seals an index of `segment` and stores it. Put the entry into the manifest.
///
/// If the call is cancelled, a file that no manifest names may be left.
///
/// # Errors
/// [`SegmentError`] of locking, sealing and storing; [`SegmentError::NotAVector`] for another field.
pub async fn write_index(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: &SealedSegment,
    index: Arc<SegmentIndex>,
) -> Result<IndexEntry, SegmentError> {
    let (id, field) = (segment.segment(), index.spec.field);
    if segment.disk_vectors(field).is_some() {
        return write_on_disk(lease, store, prefix, id, index).await;
    }
    let vectors = segment_vectors(segment, field)?;
    let spec = index.spec.clone();
    let (kind, frame) = (FileKind::Index, FrameSize::Sequential);
    let file = file::write(lease, store, prefix, kind, frame, Some(field), move |sealer| {
        let header = IndexHeader::of(id, &index, &vectors);
        sealer.write(&header.to_bytes())?;
        match &index.kind {
            // A graph on disk has its file already.
            SegmentIndexKind::Flat | SegmentIndexKind::Disk(_) => {}
            SegmentIndexKind::Graph(graph) => sealer.write(&Zeroizing::new(graph.to_bytes()))?,
            SegmentIndexKind::Sparse(postings) => sealer.write(&Zeroizing::new(postings.to_bytes()))?,
        }
        Ok(())
    })
    .await?;
    let on_disk = false;
    Ok(IndexEntry { spec, file, on_disk })
}

/// Writes a graph so that it can be read in pieces. What is not a graph needs no file.
async fn write_on_disk(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: SegmentId,
    index: Arc<SegmentIndex>,
) -> Result<IndexEntry, SegmentError> {
    let (spec, field) = (index.spec.clone(), index.spec.field);
    let (kind, frame) = (FileKind::Index, FrameSize::Random);
    let file = file::write(lease, store, prefix, kind, frame, Some(field), move |sealer| {
        let SegmentIndexKind::Graph(graph) = &index.kind else {
            return Err(SegmentError::Manifest {
                segment,
                field,
                reason: "only a graph in memory can be written to be read from disk",
            });
        };
        let header = IndexHeader::of(segment, &index, &VectorRows::Dense(graph.vectors().clone())).on_disk();
        sealer.write(&header.to_bytes())?;
        DiskGraph::write(graph, encoding::HEADER_BYTES, |bytes| Ok(sealer.write(bytes)?))
    })
    .await?;
    let on_disk = true;
    Ok(IndexEntry { spec, file, on_disk })
}

/// Reads, verifies and opens an index of `segment`.
///
/// # Errors
/// [`SegmentError`] of locking, verifying, decoding and storing.
pub async fn load_index(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: &SealedSegment,
    entry: &IndexEntry,
) -> Result<Arc<SegmentIndex>, SegmentError> {
    load_index_over(lease, store, prefix, segment, entry).await
}

pub(crate) async fn load_index_over(
    lease: &Lease,
    store: &dyn ObjectStore,
    prefix: &str,
    segment: &SealedSegment,
    entry: &IndexEntry,
) -> Result<Arc<SegmentIndex>, SegmentError> {
    let id = segment.segment();
    if let Some(vectors) = segment.disk_vectors(entry.spec.field) {
        return open_index(lease, store, prefix, id, entry, vectors, segment.cache()).await;
    }
    let vectors = segment_vectors(segment, entry.spec.field)?;
    let spec = entry.spec.clone();
    let file = DiskFile::kept_open(lease, store, prefix, id, &entry.file, segment.cache()).await?;
    let decode = move || {
        let bytes = file.whole()?;
        decode(&bytes, id, spec, vectors).map_err(|reason| file.malformed(reason))
    };
    tokio::task::spawn_blocking(|| leaving_no_trace::<STACK_BYTES, _>(decode))
        .await
        .map_err(|_| SegmentError::Stopped)?
}

fn decode(
    bytes: &[u8],
    segment: SegmentId,
    spec: IndexSpec,
    vectors: VectorRows,
) -> Result<Arc<SegmentIndex>, &'static str> {
    let (header, part) = encoding::decode_index(bytes, segment, spec.field, &vectors)?;
    let kind = match (part, vectors) {
        (IndexPart::Nothing, _) => SegmentIndexKind::Flat,
        (IndexPart::Graph(bytes), VectorRows::Dense(vectors)) => {
            let metric = metric_of(header.metric).ok_or("a graph has no such metric")?;
            let graph = GraphIndex::from_bytes(bytes, vectors, metric);
            SegmentIndexKind::Graph(graph.map_err(|_| "the graph does not fit the vectors")?)
        }
        (IndexPart::Sparse(bytes), VectorRows::Sparse(rows)) => {
            let postings = SparseIndex::from_bytes(bytes, kind_of(header.metric), rows.rows());
            SegmentIndexKind::Sparse(postings.map_err(|_| "the postings do not fit the vectors")?)
        }
        (IndexPart::Graph(_) | IndexPart::Sparse(_), _) => return Err("it is an index of other vectors"),
    };
    Ok(Arc::new(SegmentIndex {
        spec,
        metric: header.metric,
        kind,
    }))
}

fn segment_vectors(segment: &SealedSegment, field: FieldId) -> Result<VectorRows, SegmentError> {
    if let Some(vectors) = segment.chunk().vector_rows(field) {
        return Ok(vectors.clone());
    }
    Err(match segment.column(field) {
        Some(column) => SegmentError::NotAVector {
            field,
            data_type: column.data.data_type(),
        },
        None => SegmentError::NoSuchField(field),
    })
}
