//! Any bytes as a saved sparse index: refused, or an index whose searches are safe and which is saved as the same bytes.
#![no_main]

#[path = "patches.rs"]
mod patches;

use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use saker_index::{Bm25, SparseIndex, SparseKind, SparseScoring};

/// Rows that the bytes claim, as far as a fuzzer will go.
const ROWS_MAX: u64 = 4_096;

const KINDS: [SparseKind; 2] = [SparseKind::Ip, SparseKind::Bm25];

/// A sound index of each kind.
static SOUND: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let row = |row: u32| vec![(row % 3, 1.0), (7 + row % 40, 0.5 + (row % 4) as f32), (u32::MAX - 1, 2.0)];
    let rows: Vec<Vec<(u32, f32)>> = (0..700).map(row).collect();
    KINDS.map(|kind| {
        let built = SparseIndex::build(kind, rows.len(), |at| &rows[at], 0.0, &AtomicBool::new(false));
        built.expect("an index").to_bytes()
    })
});

fuzz_target!(|data: &[u8]| {
    for (kind, sound) in KINDS.into_iter().zip(&*SOUND) {
        look(kind, &patches::patched(data, sound));
    }
});

fn look(kind: SparseKind, data: &[u8]) {
    let Some(rows) = data.get(16..24).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes) else {
        return;
    };
    let Ok(rows) = usize::try_from(rows.min(ROWS_MAX)) else { return };
    let Ok(index) = SparseIndex::from_bytes(data, kind, rows) else { return };
    assert!(index.to_bytes() == data, "it changed while it was open");
    let query = [(0, 1.0), (1, -2.0), (7, 0.5), (u32::MAX - 1, 3.0)];
    let bm25 = SparseScoring::Bm25(Bm25 { k1: 1.2, b: 0.75, average_length: 3.0 });
    for scoring in [SparseScoring::Ip, bm25] {
        if let Ok(hits) = index.search(&query, scoring, 10, None, true) {
            assert!(hits.iter().all(|hit| (hit.row as usize) < rows), "a row that is not there");
        }
    }
}
