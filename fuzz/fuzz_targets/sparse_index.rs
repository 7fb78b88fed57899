//! Any bytes as a saved sparse index: refused, or an index whose searches are safe and which is saved as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use saker_index::{Bm25, SparseIndex, SparseKind, SparseScoring};

/// Rows that the bytes claim, as far as a fuzzer will go.
const ROWS_MAX: u64 = 4_096;

fuzz_target!(|data: &[u8]| {
    let Some(rows) = data.get(16..24).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes) else {
        return;
    };
    let Ok(rows) = usize::try_from(rows.min(ROWS_MAX)) else { return };
    for kind in [SparseKind::Ip, SparseKind::Bm25] {
        let Ok(index) = SparseIndex::from_bytes(data, kind, rows) else { continue };
        assert!(index.to_bytes() == data, "it changed while it was open");
        let query = [(0, 1.0), (1, -2.0), (7, 0.5), (u32::MAX - 1, 3.0)];
        let bm25 = SparseScoring::Bm25(Bm25 { k1: 1.2, b: 0.75, average_length: 3.0 });
        for scoring in [SparseScoring::Ip, bm25] {
            if let Ok(hits) = index.search(&query, scoring, 10, None, true) {
                assert!(hits.iter().all(|hit| (hit.row as usize) < rows), "a row that is not there");
            }
        }
    }
});
