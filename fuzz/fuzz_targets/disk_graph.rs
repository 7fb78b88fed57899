//! Any bytes as a graph that is read in pieces: refused, or an index whose searches are safe and give exact scores.
#![no_main]

#[path = "patches.rs"]
mod patches;

use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use saker_index::{
    DiskGraph, DiskGraphLayout, DiskRows, GraphIndex, GraphParams, IndexError, Metric, RowMask, Vectors, distance,
};

const DIM: usize = 3;
/// Rows that the bytes claim, as far as a fuzzer will go.
const ROWS_MAX: usize = 4_096;

struct Pieces<'a> {
    graph: &'a DiskGraph,
    bytes: &'a [u8],
}

impl Pieces<'_> {
    fn vector_of(row: u32) -> [f32; DIM] {
        [row as f32, (row % 7) as f32, 1.0]
    }
}

impl DiskRows for Pieces<'_> {
    type Error = IndexError;
    fn neighbours(&self, row: u32, list: &mut Vec<u32>) -> Result<(), IndexError> {
        list.clear();
        let bytes = part(self.bytes, self.graph.list_range(row)).ok_or(IndexError::Corrupt { reason: "it is short" })?;
        self.graph.read_list(bytes, list)
    }
    fn vector(&self, row: u32, values: &mut [f32]) -> Result<(), IndexError> {
        values.copy_from_slice(&Self::vector_of(row));
        Ok(())
    }
}

fn part(bytes: &[u8], range: Range<u64>) -> Option<&[u8]> {
    bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
}

/// A sound graph.
static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let vectors = Vectors::new(DIM, (0..600).flat_map(Pieces::vector_of).collect()).expect("whole rows");
    let params = GraphParams { degree: 6, ..GraphParams::default() };
    let graph = GraphIndex::build(vectors, Metric::L2, &params, 1, &|_| (), &AtomicBool::new(false)).expect("a graph");
    let mut bytes = Vec::new();
    let put = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok::<_, ()>(())
    };
    DiskGraph::write(&graph, 0, put).expect("memory takes all");
    bytes
});

fuzz_target!(|data: &[u8]| {
    let data = &*patches::patched(data, &SOUND);
    let Some((head, _)) = data.split_first_chunk::<{ DiskGraphLayout::BYTES }>() else { return };
    let rows = u32::from_le_bytes([head[16], head[17], head[18], head[19]]) as usize;
    if rows > ROWS_MAX {
        return;
    }
    for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
        let Ok(layout) = DiskGraphLayout::read(head, 0, metric, DIM, rows) else { continue };
        let (numbers, codes) = layout.resident();
        let (Some(numbers), Some(codes)) = (part(data, numbers), part(data, codes)) else { continue };
        let Ok(graph) = DiskGraph::open(&layout, numbers, codes.to_vec()) else { continue };
        let (query, words) = ([0.5, 2.0, 1.0], vec![0x5555_5555_5555_5555; rows.div_ceil(64)]);
        for mask in [None, Some(RowMask { words: &words, rows })] {
            for ef in [1, 10, 0] {
                let Ok(hits) = graph.search(&Pieces { graph: &graph, bytes: data }, &query, 5, ef, mask) else {
                    continue;
                };
                for hit in hits {
                    assert!((hit.row as usize) < rows && mask.is_none_or(|mask| mask.contains(hit.row as usize)));
                    let exact = distance(metric, &query, &Pieces::vector_of(hit.row));
                    assert!((hit.score - exact).abs() <= 1e-3 * exact.abs().max(1.0), "{metric:?}");
                }
            }
        }
    }
});
