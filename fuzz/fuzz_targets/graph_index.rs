//! Any bytes as a saved graph: refused, or an index whose searches, with and without a mask, are safe and give exact scores.
#![no_main]

#[path = "patches.rs"]
mod patches;

use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use saker_index::{GraphIndex, GraphParams, Metric, RowMask, Vectors, distance};

const DIM: usize = 5;
/// Rows that the bytes claim, as far as a fuzzer will go.
const ROWS_MAX: u32 = 512;
const METRICS: [Metric; 3] = [Metric::L2, Metric::Ip, Metric::Cosine];

fn vector_of(row: usize) -> [f32; DIM] {
    [row as f32, (row % 7) as f32, 1.0, (row % 3) as f32 - 1.0, 0.5]
}

fn vectors(rows: usize) -> Vectors {
    Vectors::new(DIM, (0..rows).flat_map(vector_of).collect()).expect("whole rows")
}

/// A sound graph under each metric.
static SOUND: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let params = GraphParams { degree: 6, ..GraphParams::default() };
    METRICS.map(|metric| {
        let built = GraphIndex::build(vectors(400), metric, &params, 1, &|_| (), &AtomicBool::new(false));
        built.expect("a graph").to_bytes()
    })
});

fuzz_target!(|data: &[u8]| {
    for (metric, sound) in METRICS.into_iter().zip(&*SOUND) {
        let data = &patches::patched(data, sound);
        let Some(rows) = data.get(20..24).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes) else {
            return;
        };
        let rows = rows.min(ROWS_MAX) as usize;
        let Ok(index) = GraphIndex::from_bytes(data, vectors(rows), metric) else { continue };
        let (query, words) = ([0.5, 2.0, 1.0, -1.0, 0.0], vec![0x5555_5555_5555_5557; rows.div_ceil(64)]);
        for mask in [None, Some(RowMask { words: &words, rows })] {
            for ef in [1, 10, 0] {
                let Ok(hits) = index.search(&query, 3, ef, mask) else { continue };
                for hit in hits {
                    let row = hit.row as usize;
                    assert!(row < rows && mask.is_none_or(|mask| mask.contains(row)), "a row that is not allowed");
                    let exact = distance(metric, &query, &vector_of(row));
                    assert!((hit.score - exact).abs() <= 1e-3 * exact.abs().max(1.0), "{metric:?}");
                }
            }
        }
    }
});
