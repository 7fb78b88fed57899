use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::{Hit, RowMask};

type Row = Vec<(u32, f32)>;

fn built(kind: SparseKind, rows: &[Row], drop_ratio: f32) -> SparseIndex {
    let never = AtomicBool::new(false);
    SparseIndex::build(kind, rows.len(), |at| &rows[at], drop_ratio, &never).unwrap()
}

fn flat(rows: &[Row], query: &Pairs, scoring: SparseScoring, k: usize, mask: Option<RowMask<'_>>) -> Vec<Hit> {
    sparse_flat_search(rows.len(), |at| &rows[at], query, scoring, k, mask)
}

fn bm25(rows: &[Row], k1: f32, b: f32) -> SparseScoring {
    let lengths: f64 = rows.iter().map(|row| f64::from(sparse_length(row))).sum();
    #[expect(clippy::cast_precision_loss, reason = "few rows")]
    let average_length = lengths / rows.len().max(1) as f64;
    SparseScoring::Bm25(Bm25 { k1, b, average_length })
}

/// Rows as texts give them: few terms are in many rows, most in few; some rows are empty.
fn texts(count: usize, seed: u64) -> Vec<Row> {
    let mut random = StdRng::seed_from_u64(seed);
    let row = |_| {
        let mut row = std::collections::BTreeMap::new();
        for _ in 0..random.random_range(0..40) {
            let skewed = random.random_range(0.0_f64..1.0).powi(4);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a term")]
            let term = (skewed * 5_000.0) as u32;
            *row.entry(term * 7_919).or_insert(0.0) += 1.0;
        }
        row.into_iter().collect()
    };
    (0..count).map(row).collect()
}

/// Scores differ by the order of additions only; rows may change places where scores do.
fn agree(found: &[Hit], expected: &[Hit]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let room = expected.score.abs() * 1e-6;
        assert!((found.score - expected.score).abs() <= room, "{found:?} {expected:?}");
    }
}

#[test]
fn a_row_needs_a_term_of_the_query() {
    let rows = vec![
        vec![(1, 2.0), (5, 1.0)],
        vec![],
        vec![(2, 9.0)],
        vec![(1, -3.0)],
        vec![(5, 0.0)],
    ];
    let index = built(SparseKind::Ip, &rows, 0.0);
    let rows_of = |hits: Vec<Hit>| hits.iter().map(|hit| (hit.row, hit.score)).collect::<Vec<_>>();
    let search = |query: &Pairs, k| rows_of(index.search(query, SparseScoring::Ip, k, None, true).unwrap());
    assert_eq!(search(&[(1, 1.0), (5, 4.0)], 9), [(0, 6.0), (3, -3.0)]);
    assert_eq!(search(&[(1, 1.0)], 1), [(0, 2.0)]);
    assert_eq!(search(&[(1, -1.0), (2, 0.0)], 9), [(3, 3.0), (0, -2.0)]);
    assert_eq!(search(&[(7, 1.0)], 9), []);
    assert_eq!(search(&[], 9), []);
    assert_eq!(search(&[(1, 1.0)], 0), []);
    assert_eq!(
        (index.rows(), index.rows_with(1), index.rows_with(5), index.rows_with(6)),
        (5, 2, 1, 0)
    );
    assert!(!index.dropped() && index.memory_bytes() > 0);
}

#[test]
fn bm25_is_the_formula() {
    let rows = vec![vec![(1, 2.0), (2, 1.0)], vec![(1, 1.0)], vec![(3, 6.0)]];
    let index = built(SparseKind::Bm25, &rows, 0.0);
    assert_eq!(index.length(), 10.0);
    let weight = Bm25::weight(3, 2, 1.0);
    assert!((f64::from(weight) - (1.0_f64 + 1.5 / 2.5).ln()).abs() < 1e-6);
    let hits = index
        .search(&[(1, weight)], bm25(&rows, 1.2, 0.75), 5, None, true)
        .unwrap();
    let expected = |f: f64, n: f64| f64::from(weight) * f * 2.2 / (f + 1.2 * (0.25 + 0.75 * n / (10.0 / 3.0)));
    for (hit, (row, score)) in hits.iter().zip([(0, expected(2.0, 3.0)), (1, expected(1.0, 1.0))]) {
        assert!(
            hit.row == row && (f64::from(hit.score) - score).abs() < 1e-6,
            "{hit:?} {score}"
        );
    }
    assert_eq!(hits.len(), 2);
    // A term that nearly all rows have counts little, but never against a row.
    assert!(Bm25::weight(10, 10, 1.0) > 0.0 && Bm25::weight(1, 9, 1.0) > 0.0);
    // Lengths are not there for it.
    let other = built(SparseKind::Ip, &rows, 0.0);
    assert_eq!(
        other.search(&[(1, 1.0)], bm25(&rows, 1.2, 0.75), 5, None, true),
        Err(IndexError::Scoring)
    );
}

#[test]
fn windows_and_blocks_agree_with_looking_at_every_row() {
    let rows = texts(9_000, 7);
    let index = built(SparseKind::Bm25, &rows, 0.0);
    let words: Vec<u64> = (0..rows.len().div_ceil(64) as u64)
        .map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let few: Vec<u64> = (0..words.len()).map(|word| u64::from(word % 40 == 3) << 9).collect();
    let all = RowMask {
        words: &words,
        rows: rows.len(),
    };
    let rare = RowMask {
        words: &few,
        rows: rows.len(),
    };
    for seed in 0..25 {
        let query: Row = texts(1, 1_000 + seed).remove(0);
        for scoring in [
            SparseScoring::Ip,
            bm25(&rows, 1.2, 0.75),
            bm25(&rows, 0.0, 0.0),
            bm25(&rows, 3.0, 1.0),
        ] {
            for mask in [None, Some(all), Some(rare)] {
                for k in [1, 10, 300] {
                    let expected = flat(&rows, &query, scoring, k, mask);
                    agree(&index.search(&query, scoring, k, mask, true).unwrap(), &expected);
                    agree(&index.search(&query, scoring, k, mask, false).unwrap(), &expected);
                }
            }
        }
    }
}

#[test]
fn masks_have_to_fit() {
    let rows = texts(70, 1);
    let index = built(SparseKind::Ip, &rows, 0.0);
    let search =
        |words: &[u64], rows| index.search(&[(0, 1.0)], SparseScoring::Ip, 3, Some(RowMask { words, rows }), true);
    assert!(search(&[u64::MAX; 2], 70).is_ok());
    assert_eq!(
        search(&[u64::MAX; 2], 71),
        Err(IndexError::MaskRows { mask: 71, index: 70 })
    );
    assert_eq!(
        search(&[u64::MAX; 1], 70),
        Err(IndexError::MaskRows { mask: 64, index: 70 })
    );
}

#[test]
fn small_values_can_be_left_out() {
    let rows = vec![vec![(1, 0.5), (2, 0.1), (3, 0.9)], vec![(2, 0.2), (4, -0.8)]];
    let index = built(SparseKind::Ip, &rows, 0.4);
    assert!(index.dropped());
    assert_eq!([1, 2, 3, 4].map(|term| index.rows_with(term)), [1, 0, 1, 1]);
    assert_eq!(shortened(&[(1, 0.5), (2, -0.9), (3, 0.1)], 0.34), [(1, 0.5), (2, -0.9)]);
    assert_eq!(shortened(&[(1, 0.5), (2, -0.9)], 0.99), [(2, -0.9)]);
    assert_eq!(shortened(&[(1, 0.5)], 0.0), [(1, 0.5)]);
    assert_eq!(shortened(&[], 0.5), []);
    let same = built(SparseKind::Ip, &vec![vec![(1, 1.0), (2, 1.0)]; 3], 0.9);
    assert!(!same.dropped());
}

#[test]
fn a_build_stops_when_asked() {
    let rows = texts(10, 1);
    let stop = AtomicBool::new(true);
    let outcome = SparseIndex::build(SparseKind::Ip, rows.len(), |at| &rows[at], 0.0, &stop);
    assert!(matches!(outcome, Err(IndexError::Stopped)));
}

#[test]
fn saved_bytes_come_back() {
    for (kind, rows) in [
        (SparseKind::Ip, texts(300, 3)),
        (SparseKind::Bm25, texts(300, 4)),
        (SparseKind::Bm25, vec![]),
    ] {
        let index = built(kind, &rows, 0.0);
        let bytes = index.to_bytes();
        let back = SparseIndex::from_bytes(&bytes, kind, rows.len()).unwrap();
        assert_eq!(back.to_bytes(), bytes);
        assert_eq!((back.rows(), back.length()), (index.rows(), index.length()));
        let query = [(0, 1.0), (7_919, 2.0)];
        let search = |index: &SparseIndex| index.search(&query, SparseScoring::Ip, 20, None, true).unwrap();
        assert_eq!(search(&back), search(&index));
    }
}

#[test]
fn other_bytes_are_refused() {
    let rows = vec![vec![(1, 2.0), (4, 1.0)], vec![(4, 3.0)]];
    let good = built(SparseKind::Bm25, &rows, 0.0).to_bytes();
    let refused = |bytes: &[u8], part: &str| {
        let error = SparseIndex::from_bytes(bytes, SparseKind::Bm25, 2)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error} lacks {part}");
    };
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    (0..good.len()).for_each(|length| assert!(SparseIndex::from_bytes(&good[..length], SparseKind::Bm25, 2).is_err()));
    refused(&[good.as_slice(), &[0; 4]].concat(), "counts");
    refused(&changed(0, b"X"), "saved sparse index");
    refused(&changed(4, &[9]), "version 9");
    refused(&changed(12, &[2]), "flags");
    assert!(
        SparseIndex::from_bytes(&good, SparseKind::Ip, 2)
            .unwrap_err()
            .to_string()
            .contains("metric")
    );
    assert!(
        SparseIndex::from_bytes(&good, SparseKind::Bm25, 3)
            .unwrap_err()
            .to_string()
            .contains("other rows")
    );
    refused(&changed(24, &[255; 8]), "counts");
    refused(&changed(32, &[255; 8]), "counts");
    // Terms at 40, counts at 48, rows at 56 (0, 0, 1), values at 68, lengths at 80.
    refused(&changed(40, &[4]), "terms do not ascend");
    refused(&changed(44, &[255; 4]), "terms do not ascend");
    refused(&changed(48, &[0]), "no postings");
    refused(&changed(48, &[2]), "all postings");
    refused(&changed(60, &[1]), "do not ascend");
    refused(&changed(64, &[2]), "do not ascend");
    refused(&changed(68, &f32::NAN.to_le_bytes()), "value");
    refused(&changed(68, &(-1.0_f32).to_le_bytes()), "value");
    refused(&changed(80, &(-1.0_f32).to_le_bytes()), "length");
}

/// Values whose sums are exact, so that scores can be compared to the bit.
fn exact_rows() -> impl Strategy<Value = Vec<Row>> {
    let value = (-8i8..9).prop_map(|value| f32::from(value) / 4.0);
    let row = prop::collection::btree_map(0u32..12, value, 0..6).prop_map(|row| row.into_iter().collect());
    prop::collection::vec(row, 0..300)
}

proptest! {
    #[test]
    fn equals_looking_at_every_row(
        rows in exact_rows(),
        query in prop::collection::btree_map(0u32..14, -4i8..5, 0..8),
        bits in prop::collection::vec(any::<u64>(), 5),
        masked in any::<bool>(),
        k in 0usize..40,
    ) {
        let query: Row = query.into_iter().map(|(term, weight)| (term, f32::from(weight))).collect();
        let index = built(SparseKind::Ip, &rows, 0.0);
        let mask = masked.then_some(RowMask { words: &bits, rows: rows.len() });
        let expected = flat(&rows, &query, SparseScoring::Ip, k, mask);
        prop_assert_eq!(index.search(&query, SparseScoring::Ip, k, mask, true).unwrap(), expected.clone());
        prop_assert_eq!(index.search(&query, SparseScoring::Ip, k, mask, false).unwrap(), expected);
        let back = SparseIndex::from_bytes(&index.to_bytes(), SparseKind::Ip, rows.len()).unwrap();
        prop_assert_eq!(back.to_bytes(), index.to_bytes());
    }

    #[test]
    fn any_bytes_are_answered(
        rows in exact_rows(),
        at in 0usize..4_096,
        byte in any::<u8>(),
        query in prop::collection::btree_map(0u32..14, 1i8..5, 0..8),
    ) {
        let mut bytes = built(SparseKind::Ip, &rows, 0.0).to_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let query: Row = query.into_iter().map(|(term, weight)| (term, f32::from(weight))).collect();
        if let Ok(index) = SparseIndex::from_bytes(&bytes, SparseKind::Ip, rows.len()) {
            let hits = index.search(&query, SparseScoring::Ip, 10, None, true).unwrap();
            prop_assert!(hits.iter().all(|hit| (hit.row as usize) < rows.len()));
        }
    }
}
