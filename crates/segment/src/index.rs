//! Indexes of sealed segments: kept beside the columns, in a sealed file of their own.

use std::sync::Arc;

use saker_index::{GraphIndex, Vectors};
use saker_keyring::{FileKind, Lease};
use saker_model::{FieldId, IndexSpec, MetricType, SegmentId};
use saker_storage::ObjectStore;
use zeroize::Zeroizing;

use crate::{
    IndexEntry, SealedSegment, SegmentError,
    encoding::{self, IndexHeader},
    file, metric_of,
};

/// What answers searches.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one per field and segment, behind an `Arc`"
)]
pub enum SegmentIndexKind {
    /// Comparing with every vector.
    Flat,
    /// The graph.
    Graph(GraphIndex),
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
        match &self.kind {
            SegmentIndexKind::Graph(graph) if self.metric == metric => Some(graph),
            SegmentIndexKind::Graph(_) | SegmentIndexKind::Flat => None,
        }
    }
    /// Bytes that it takes in memory, without the vectors.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match &self.kind {
            SegmentIndexKind::Flat => 0,
            SegmentIndexKind::Graph(graph) => graph.memory_bytes(),
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
    let vectors = segment_vectors(segment, field)?;
    let spec = index.spec.clone();
    let file = file::write(lease, store, prefix, FileKind::Index, Some(field), move |sealer| {
        let header = IndexHeader::of(id, &index, &vectors);
        sealer.write(&header.to_bytes())?;
        if let SegmentIndexKind::Graph(graph) = &index.kind {
            sealer.write(&Zeroizing::new(graph.to_bytes()))?;
        }
        Ok(())
    })
    .await?;
    Ok(IndexEntry { spec, file })
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
    let vectors = segment_vectors(segment, entry.spec.field)?;
    let spec = entry.spec.clone();
    file::read(lease, store, prefix, id, &entry.file, move |opened| {
        decode(opened, id, spec, vectors)
    })
    .await
}

fn decode(
    opened: &file::Opened<'_>,
    segment: SegmentId,
    spec: IndexSpec,
    vectors: Vectors,
) -> Result<Arc<SegmentIndex>, file::DecodeError> {
    let bytes = opened.whole()?;
    let (header, graph) = encoding::decode_index(&bytes, segment, spec.field, &vectors)?;
    let kind = match graph {
        None => SegmentIndexKind::Flat,
        Some(bytes) => {
            let graph = GraphIndex::from_bytes(bytes, vectors, metric_of(header.metric));
            SegmentIndexKind::Graph(graph.map_err(|_| "the graph does not fit the vectors")?)
        }
    };
    Ok(Arc::new(SegmentIndex {
        spec,
        metric: header.metric,
        kind,
    }))
}

fn segment_vectors(segment: &SealedSegment, field: FieldId) -> Result<Vectors, SegmentError> {
    if let Some(vectors) = segment.vectors(field) {
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
