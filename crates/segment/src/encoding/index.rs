//! The file of an index: a header that says over which vectors, then the index crate's own bytes.

use saker_model::{FieldId, MetricType, SegmentId};

use super::{HEADER_BYTES, Reader, VERSION, metric_code};
use crate::{SegmentIndex, SegmentIndexKind, VectorRows};

const MAGIC: &[u8; 4] = b"SKIX";
const KIND_FLAT: u8 = 1;
const KIND_GRAPH: u8 = 2;
const KIND_SPARSE: u8 = 3;
const KIND_SCALAR: u8 = 4;
/// A graph that is read from disk in pieces.
const KIND_DISK_GRAPH: u8 = 9;

/// What the header of an index file says.
#[derive(Clone, Debug)]
pub(crate) struct IndexHeader {
    kind: u8,
    pub(crate) metric: MetricType,
    field: FieldId,
    segment: SegmentId,
    rows: usize,
    dim: usize,
}

impl IndexHeader {
    pub(crate) fn of(segment: SegmentId, index: &SegmentIndex, vectors: &VectorRows) -> Self {
        let kind = match index.kind {
            SegmentIndexKind::Flat => KIND_FLAT,
            SegmentIndexKind::Graph(_) => KIND_GRAPH,
            SegmentIndexKind::Sparse(_) => KIND_SPARSE,
            SegmentIndexKind::Disk(_) => KIND_DISK_GRAPH,
        };
        let (metric, field) = (index.metric, index.spec.field);
        Self {
            kind,
            metric,
            field,
            segment,
            rows: vectors.rows(),
            dim: vectors.dim(),
        }
    }
    /// The header of the same graph, laid out to be read from disk in pieces.
    pub(crate) fn on_disk(self) -> Self {
        Self {
            kind: KIND_DISK_GRAPH,
            ..self
        }
    }
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.push(self.kind);
        bytes.push(metric_code(self.metric));
        bytes.extend_from_slice(&self.field.0.to_le_bytes());
        bytes.extend_from_slice(&self.segment.0.to_le_bytes());
        bytes.extend_from_slice(&(self.rows as u64).to_le_bytes());
        // The index crate's limit on the dimension is far below 2^32.
        bytes.extend_from_slice(&u32::try_from(self.dim).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }
}

/// The header of a scalar index; metric and dimension, of which it has none, are 0.
pub(crate) fn scalar_index_header(segment: SegmentId, field: FieldId, rows: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[KIND_SCALAR, 0]);
    bytes.extend_from_slice(&field.0.to_le_bytes());
    bytes.extend_from_slice(&segment.0.to_le_bytes());
    bytes.extend_from_slice(&(rows as u64).to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

/// What comes after the header of a scalar index.
pub(crate) fn decode_scalar_index(
    bytes: &[u8],
    segment: SegmentId,
    field: FieldId,
    rows: usize,
) -> Result<&[u8], &'static str> {
    let mut reader = Reader(bytes);
    if reader.array()? != *MAGIC {
        return Err("it is no index");
    }
    if reader.u16()? != VERSION {
        return Err("its version is not known here; use a newer version of Saker");
    }
    if reader.array()? != [KIND_SCALAR, 0] {
        return Err("it is no index of a scalar field");
    }
    if reader.i64()? != field.0 || reader.i64()? != segment.0 {
        return Err("it belongs to another segment or field");
    }
    if reader.u64()? != rows as u64 || reader.array()? != [0; 8] {
        return Err("it is an index of other rows");
    }
    Ok(reader.0)
}

/// The index crate's own bytes, by what they are.
pub(crate) enum IndexPart<'a> {
    Nothing,
    Graph(&'a [u8]),
    Sparse(&'a [u8]),
}

/// The header, and what comes after it.
pub(crate) fn decode_index<'a>(
    bytes: &'a [u8],
    segment: SegmentId,
    field: FieldId,
    vectors: &VectorRows,
) -> Result<(IndexHeader, IndexPart<'a>), &'static str> {
    let mut reader = Reader(bytes);
    if reader.array()? != *MAGIC {
        return Err("it is no index");
    }
    if reader.u16()? != VERSION {
        return Err("its version is not known here; use a newer version of Saker");
    }
    let kind = reader.u8()?;
    let metric_found = reader.u8()?;
    let metrics = [
        MetricType::L2,
        MetricType::Ip,
        MetricType::Cosine,
        MetricType::Hamming,
        MetricType::Jaccard,
        MetricType::Bm25,
    ];
    let metric = metrics
        .into_iter()
        .find(|&metric| metric_code(metric) == metric_found)
        .ok_or("its metric is not known here")?;
    if reader.i64()? != field.0 || reader.i64()? != segment.0 {
        return Err("it belongs to another segment or field");
    }
    if reader.u64()? != vectors.rows() as u64 || reader.u32()? as usize != vectors.dim() || reader.u32()? != 0 {
        return Err("it is an index of other vectors");
    }
    let header = IndexHeader {
        kind,
        metric,
        field,
        segment,
        rows: vectors.rows(),
        dim: vectors.dim(),
    };
    match kind {
        KIND_FLAT => reader.end().map(|()| (header, IndexPart::Nothing)),
        KIND_GRAPH => Ok((header, IndexPart::Graph(reader.0))),
        KIND_SPARSE => Ok((header, IndexPart::Sparse(reader.0))),
        _ => Err("its kind is not known here"),
    }
}

/// The metric of a graph that is read from disk in pieces; `header` is the start of its file.
pub(crate) fn decode_disk_index(
    header: &[u8],
    segment: SegmentId,
    field: FieldId,
    rows: usize,
    dim: usize,
) -> Result<MetricType, &'static str> {
    let mut reader = Reader(header);
    if reader.array()? != *MAGIC {
        return Err("it is no index");
    }
    if reader.u16()? != VERSION {
        return Err("its version is not known here; use a newer version of Saker");
    }
    if reader.u8()? != KIND_DISK_GRAPH {
        return Err("it is no graph that is read from disk");
    }
    let metric_found = reader.u8()?;
    let metric = [MetricType::L2, MetricType::Ip, MetricType::Cosine]
        .into_iter()
        .find(|&metric| metric_code(metric) == metric_found)
        .ok_or("its metric is not known here")?;
    if reader.i64()? != field.0 || reader.i64()? != segment.0 {
        return Err("it belongs to another segment or field");
    }
    if reader.u64()? != rows as u64 || reader.u32()? as usize != dim || reader.u32()? != 0 {
        return Err("it is an index of other vectors");
    }
    reader.end()?;
    Ok(metric)
}
