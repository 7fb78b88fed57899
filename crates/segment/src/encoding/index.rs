//! The file of an index: a header that says over which vectors, then the index crate's own bytes.

use saker_index::Vectors;
use saker_model::{FieldId, MetricType, SegmentId};

use super::{HEADER_BYTES, Reader, VERSION, metric_code};
use crate::{SegmentIndex, SegmentIndexKind};

const MAGIC: &[u8; 4] = b"SKIX";
const KIND_FLAT: u8 = 1;
const KIND_GRAPH: u8 = 2;

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
    pub(crate) fn of(segment: SegmentId, index: &SegmentIndex, vectors: &Vectors) -> Self {
        let kind = match index.kind {
            SegmentIndexKind::Flat => KIND_FLAT,
            SegmentIndexKind::Graph(_) => KIND_GRAPH,
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

/// The header, and the graph's bytes if there is one.
pub(crate) fn decode_index<'a>(
    bytes: &'a [u8],
    segment: SegmentId,
    field: FieldId,
    vectors: &Vectors,
) -> Result<(IndexHeader, Option<&'a [u8]>), &'static str> {
    let mut reader = Reader(bytes);
    if reader.array()? != *MAGIC {
        return Err("it is no index");
    }
    if reader.u16()? != VERSION {
        return Err("its version is not known here; use a newer version of Saker");
    }
    let kind = reader.u8()?;
    let metric_found = reader.u8()?;
    let metrics = [MetricType::L2, MetricType::Ip, MetricType::Cosine];
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
        KIND_FLAT => reader.end().map(|()| (header, None)),
        KIND_GRAPH => Ok((header, Some(reader.0))),
        _ => Err("its kind is not known here"),
    }
}
