use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::links::{NONE, Neighbours};
use super::*;
use crate::{distance, flat_search};

/// One way to search.
type Search<'a> = &'a dyn Fn(&[f32]) -> Vec<Hit>;

const METRICS: [Metric; 3] = [Metric::L2, Metric::Ip, Metric::Cosine];

/// Rows around 50 random centers, so that neighbourhoods have structure as embeddings do.
fn clustered(rows: usize, dim: usize, seed: u64) -> Vectors {
    let mut random = StdRng::seed_from_u64(seed);
    let mut value = |spread: f32| (0..4).map(|_| random.random_range(-spread..spread)).sum::<f32>();
    let centers: Vec<f32> = (0..50 * dim).map(|_| value(2.0)).collect();
    let data = (0..rows * dim)
        .map(|i| centers[(i / dim * 7_919) % 50 * dim + i % dim] + value(1.0))
        .collect();
    Vectors::new(dim, data).unwrap()
}

fn built(vectors: &Vectors, metric: Metric) -> GraphIndex {
    let never = AtomicBool::new(false);
    GraphIndex::build(vectors.clone(), metric, &GraphParams::default(), 2, &|_| (), &never).unwrap()
}

/// A search that walks whatever [`GraphIndex::search`] would choose for so few rows.
fn walked(index: &GraphIndex, query: &[f32], k: usize, ef: usize, mask: Option<RowMask<'_>>) -> Vec<Hit> {
    let mut weights = Query::default();
    index.encoder.encode_query(query, &mut weights);
    index.with_scratch(|scratch| {
        match mask {
            None => index.ground().walk(&weights, ef, scratch),
            Some(mask) => index.ground().walk_among(&weights, ef, mask, mask.count(), scratch),
        }
        reranked(index, query, &weights, k, scratch)
    })
}

fn scanned(index: &GraphIndex, query: &[f32], k: usize, ef: usize, mask: Option<RowMask<'_>>) -> Vec<Hit> {
    let mut weights = Query::default();
    index.encoder.encode_query(query, &mut weights);
    index.with_scratch(|scratch| {
        index.scan(&weights, ef, mask, scratch);
        reranked(index, query, &weights, k, scratch)
    })
}

fn reranked(index: &GraphIndex, query: &[f32], weights: &Query, k: usize, scratch: &Scratch) -> Vec<Hit> {
    rerank::rerank(
        &index.vectors,
        index.encoder.metric,
        query,
        weights,
        k,
        &scratch.nearest,
    )
}

/// The share of the true best ten of `queries` that `search` finds.
fn recall(
    vectors: &Vectors,
    metric: Metric,
    queries: &Vectors,
    mask: Option<RowMask<'_>>,
    search: impl Fn(&[f32]) -> Vec<Hit>,
) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for query in (0..queries.rows()).map(|row| queries.row(row)) {
        let truth = flat_search(metric, vectors.as_slice(), vectors.dim(), query, 10, mask);
        let hits = search(query);
        assert!(hits.len() <= truth.len());
        for hit in &hits {
            assert!(
                mask.is_none_or(|mask| mask.contains(hit.row as usize)),
                "a masked row came back"
            );
            let exact = distance(metric, query, vectors.row(hit.row as usize));
            assert!(
                (hit.score - exact).abs() <= 1e-4 * exact.abs().max(1.0),
                "{} is not {exact}",
                hit.score
            );
        }
        assert!(
            hits.windows(2)
                .all(|pair| metric.cost(pair[0].score) <= metric.cost(pair[1].score))
        );
        found += hits
            .iter()
            .filter(|hit| truth.iter().any(|true_hit| true_hit.row == hit.row))
            .count();
        wanted += truth.len();
    }
    found as f64 / wanted as f64
}

fn random_mask(rows: usize, per_mille: u32, seed: u64) -> Vec<u64> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut words = vec![0u64; rows.div_ceil(64)];
    for row in (0..rows).filter(|_| random.random_range(0..1_000) < per_mille) {
        words[row / 64] |= 1 << (row % 64);
    }
    words
}

#[test]
fn walks_find_the_nearest_rows_under_every_metric() {
    let (vectors, queries) = (clustered(6_000, 24, 1), clustered(60, 24, 1));
    for metric in METRICS {
        let index = built(&vectors, metric);
        let found = recall(&vectors, metric, &queries, None, |query| {
            walked(&index, query, 10, 100, None)
        });
        assert!(found >= 0.97, "{metric:?}: recall {found}");
        let found = recall(&vectors, metric, &queries, None, |query| {
            scanned(&index, query, 10, 100, None)
        });
        assert!(found >= 0.99, "{metric:?}: recall of a scan {found}");
    }
}

#[test]
fn a_longer_list_finds_no_less() {
    let (vectors, queries) = (clustered(5_000, 32, 2), clustered(60, 32, 20));
    let index = built(&vectors, Metric::L2);
    let at = |ef| {
        recall(&vectors, Metric::L2, &queries, None, |query| {
            walked(&index, query, 10, ef, None)
        })
    };
    let (short, long) = (at(10), at(200));
    assert!(long >= short && long >= 0.99, "{short} then {long}");
}

#[test]
fn masked_searches_find_the_nearest_allowed_rows() {
    let (vectors, queries) = (clustered(6_000, 24, 3), clustered(40, 24, 3));
    for metric in METRICS {
        let index = built(&vectors, metric);
        for per_mille in [500, 100, 10, 1] {
            let words = random_mask(6_000, per_mille, 9);
            let mask = Some(RowMask {
                words: &words,
                rows: 6_000,
            });
            let searches: [(&str, Search<'_>); 3] = [
                ("search", &|query| index.search(query, 10, 0, mask).unwrap()),
                ("walk", &|query| walked(&index, query, 10, 100, mask)),
                ("scan", &|query| scanned(&index, query, 10, 100, mask)),
            ];
            for (name, search) in searches {
                let found = recall(&vectors, metric, &queries, mask, search);
                // A search compares so few rows one by one; a walk that is forced loses a little.
                let least = if name == "walk" { 0.92 } else { 0.97 };
                assert!(
                    found >= least,
                    "{metric:?} {name} at {per_mille} per mille: recall {found}"
                );
            }
        }
    }
}

#[test]
fn a_mask_of_one_cluster_far_from_the_query_is_found_by_walking() {
    let vectors = clustered(6_000, 24, 4);
    let index = built(&vectors, Metric::L2);
    // Rows of one cluster are every fiftieth.
    let mut words = vec![0u64; 6_000usize.div_ceil(64)];
    (0..6_000)
        .step_by(50)
        .for_each(|row| words[row / 64] |= 1 << (row % 64));
    let mask = Some(RowMask {
        words: &words,
        rows: 6_000,
    });
    let queries = Vectors::new(24, (1..30).flat_map(|row| vectors.row(row).to_vec()).collect()).unwrap();
    let found = recall(&vectors, Metric::L2, &queries, mask, |query| {
        walked(&index, query, 10, 60, mask)
    });
    assert!(found >= 0.97, "recall {found}");
}

#[test]
fn large_indexes_walk_and_small_ones_compare_all() {
    let vectors = clustered(12_000, 8, 5);
    let index = built(&vectors, Metric::L2);
    assert!(index.walk_rows(16) < 12_000.0, "this search is to walk");
    let queries = clustered(40, 8, 5);
    let found = recall(&vectors, Metric::L2, &queries, None, |query| {
        index.search(query, 10, 16, None).unwrap()
    });
    assert!(found > 0.8, "recall {found}");
    let found = recall(&vectors, Metric::L2, &queries, None, |query| {
        index.search(query, 10, 12_000, None).unwrap()
    });
    assert!(found == 1.0, "recall {found} with a list of all rows");
}

#[test]
fn saved_graphs_open_to_the_same_answers() {
    let (vectors, queries) = (clustered(3_000, 20, 6), clustered(30, 20, 60));
    for metric in METRICS {
        let index = built(&vectors, metric);
        let bytes = index.to_bytes();
        let opened = GraphIndex::from_bytes(&bytes, vectors.clone(), metric).unwrap();
        assert_eq!(opened.to_bytes(), bytes);
        assert_eq!(opened.codes.as_slice(), index.codes.as_slice());
        // 64 bytes of codes, 32 list entries, under L2 a square for each row, and little else.
        let square_bytes = if metric == Metric::L2 { 4 } else { 0 };
        let rows_bytes = 3_000 * (64 + 4 * 32 + square_bytes);
        assert!((rows_bytes..rows_bytes + 1_000).contains(&opened.memory_bytes()));
        assert!((rows_bytes..rows_bytes + 100_000).contains(&index.memory_bytes()));
        for row in 0..queries.rows() {
            let query = queries.row(row);
            assert_eq!(
                walked(&index, query, 10, 50, None),
                walked(&opened, query, 10, 50, None)
            );
            assert_eq!(index.search(query, 10, 0, None), opened.search(query, 10, 0, None));
        }
    }
}

#[test]
fn every_dimension_works_under_every_metric() {
    for dim in [1, 2, 3, 50, 768] {
        let vectors = clustered(400, dim, 7);
        for metric in METRICS {
            let index = built(&vectors, metric);
            let queries = clustered(10, dim, 70);
            let exact = recall(&vectors, metric, &queries, None, |query| {
                index.search(query, 10, 0, None).unwrap()
            });
            assert!(exact == 1.0, "dimension {dim} {metric:?}: recall {exact}");
            // One value has only a direction under cosine: all rows tie, so any ten of them are right.
            if dim > 3 {
                let found = recall(&vectors, metric, &queries, None, |query| {
                    walked(&index, query, 10, 150, None)
                });
                assert!(found >= 0.95, "dimension {dim} {metric:?}: recall of a walk {found}");
            }
        }
    }
}

#[test]
fn all_rows_can_be_reached_even_if_many_are_equal() {
    let mut data = vec![1.0f32; 700 * 4];
    data.extend(clustered(300, 4, 8).as_slice());
    data.extend(vec![0.0f32; 500 * 4]);
    let vectors = Vectors::new(4, data).unwrap();
    for metric in METRICS {
        let index = built(&vectors, metric);
        let mut reached = vec![false; vectors.rows()];
        reached[index.start as usize] = true;
        let mut pending = vec![index.start];
        while let Some(row) = pending.pop() {
            index.links.each(row, |neighbour| {
                if !std::mem::replace(&mut reached[neighbour as usize], true) {
                    pending.push(neighbour);
                }
            });
        }
        assert!(reached.iter().all(|&reached| reached), "{metric:?}");
        let hits = walked(&index, &[1.0; 4], 10, 64, None);
        assert_eq!(hits.len(), 10);
        if metric == Metric::L2 {
            assert!(
                hits.iter().all(|hit| hit.score == 0.0),
                "ten of the 700 equal rows are at distance 0"
            );
        }
    }
}

#[test]
fn lists_hold_no_row_twice_and_never_the_row_itself() {
    let vectors = clustered(3_000, 6, 9);
    let index = built(&vectors, Metric::L2);
    for row in 0..3_000 {
        let mut list: Vec<u32> = index
            .links
            .row(row)
            .iter()
            .copied()
            .filter(|&entry| entry != NONE)
            .collect();
        assert!(!list.is_empty() && !list.contains(&row));
        list.sort_unstable();
        let count = list.len();
        list.dedup();
        assert_eq!(list.len(), count);
    }
}

#[test]
fn zero_vectors_have_similarity_zero_under_cosine() {
    let mut data = clustered(2_000, 10, 10).as_slice().to_vec();
    for row in (0..2_000).step_by(3) {
        data[row * 10..][..10].fill(0.0);
    }
    let vectors = Vectors::new(10, data).unwrap();
    let index = built(&vectors, Metric::Cosine);
    let queries = clustered(20, 10, 10);
    let found = recall(&vectors, Metric::Cosine, &queries, None, |query| {
        walked(&index, query, 10, 60, None)
    });
    assert!(found >= 0.97, "recall {found}");
    let hits = index.search(&[0.0; 10], 5, 0, None).unwrap();
    assert_eq!(hits, (0..5).map(|row| Hit { row, score: 0.0 }).collect::<Vec<_>>());
}

#[test]
fn queries_far_outside_the_rows_find_the_edge() {
    let vectors = clustered(4_000, 16, 11);
    let index = built(&vectors, Metric::L2);
    let queries = Vectors::new(16, [[30.0f32; 16], [-30.0; 16]].concat()).unwrap();
    let found = recall(&vectors, Metric::L2, &queries, None, |query| {
        walked(&index, query, 10, 150, None)
    });
    assert!(found >= 0.9, "recall {found}");
}

#[test]
fn no_rows_no_hits() {
    for metric in METRICS {
        let vectors = Vectors::new(5, Vec::new()).unwrap();
        let index = built(&vectors, metric);
        assert_eq!(index.search(&[1.0; 5], 10, 0, None).unwrap(), []);
        let opened = GraphIndex::from_bytes(&index.to_bytes(), vectors, metric).unwrap();
        let mask = Some(RowMask { words: &[], rows: 0 });
        assert_eq!(opened.search(&[1.0; 5], 10, 0, mask).unwrap(), []);
    }
}

#[test]
fn k_beyond_the_rows_gives_all_and_zero_gives_none() {
    let vectors = clustered(30, 5, 12);
    let index = built(&vectors, Metric::Ip);
    assert_eq!(index.search(&[1.0; 5], 1_000, 1, None).unwrap().len(), 30);
    assert_eq!(index.search(&[1.0; 5], usize::MAX, usize::MAX, None).unwrap().len(), 30);
    assert_eq!(index.search(&[1.0; 5], 0, 10, None).unwrap(), []);
    let none = [0u64; 1];
    assert_eq!(
        index
            .search(&[1.0; 5], 3, 10, Some(RowMask { words: &none, rows: 30 }))
            .unwrap(),
        []
    );
    assert_eq!(
        walked(&index, &[1.0; 5], 3, 10, Some(RowMask { words: &none, rows: 30 })),
        []
    );
    // Bits beyond the rows do not count.
    let beyond = [u64::MAX << 30];
    assert_eq!(
        index
            .search(
                &[1.0; 5],
                3,
                10,
                Some(RowMask {
                    words: &beyond,
                    rows: 30
                })
            )
            .unwrap(),
        []
    );
}

#[test]
fn wrong_shapes_are_refused() {
    let index = built(&clustered(100, 5, 13), Metric::L2);
    let search = |query: &[f32], mask| index.search(query, 3, 0, mask).unwrap_err();
    assert_eq!(
        search(&[1.0; 4], None),
        IndexError::QueryDimension { query: 4, index: 5 }
    );
    let words = [u64::MAX; 2];
    let mask = |words, rows| Some(RowMask { words, rows });
    assert_eq!(
        search(&[1.0; 5], mask(&words, 99)),
        IndexError::MaskRows { mask: 99, index: 100 }
    );
    assert_eq!(
        search(&[1.0; 5], mask(&words[..1], 100)),
        IndexError::MaskRows { mask: 64, index: 100 }
    );
    for (degree, build_list) in [(1, 10), (257, 10), (8, 0), (8, 4_097)] {
        let params = GraphParams {
            degree,
            build_list,
            ..GraphParams::default()
        };
        let never = AtomicBool::new(false);
        let built = GraphIndex::build(clustered(10, 5, 13), Metric::L2, &params, 1, &|_| (), &never);
        assert!(
            matches!(built.unwrap_err(), IndexError::Parameter { .. }),
            "{degree} {build_list}"
        );
    }
    for (degree, build_list) in [(2, 1), (256, 4_096)] {
        let params = GraphParams {
            degree,
            build_list,
            ..GraphParams::default()
        };
        let never = AtomicBool::new(false);
        GraphIndex::build(clustered(300, 5, 13), Metric::L2, &params, 1, &|_| (), &never).unwrap();
    }
}

#[test]
fn values_that_are_not_numbers_never_panic() {
    let mut data = clustered(600, 6, 14).as_slice().to_vec();
    for (place, bad) in [
        (0, f32::NAN),
        (13, f32::INFINITY),
        (27, f32::NEG_INFINITY),
        (36, f32::MAX),
        (43, f32::MIN),
    ] {
        data[place] = bad;
    }
    let vectors = Vectors::new(6, data).unwrap();
    for metric in METRICS {
        let index = built(&vectors, metric);
        let opened = GraphIndex::from_bytes(&index.to_bytes(), vectors.clone(), metric).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
            assert_eq!(opened.search(&[bad; 6], 10, 0, None).unwrap().len(), 10);
            assert_eq!(walked(&opened, &[bad; 6], 10, 20, None).len(), 10);
        }
        // The sound rows are still found.
        let hits = index.search(vectors.row(300), 1, 0, None).unwrap();
        assert!(metric != Metric::L2 || hits[0] == Hit { row: 300, score: 0.0 });
    }
}

#[test]
fn builds_tell_their_progress_and_stop_when_asked() {
    let vectors = clustered(5_000, 8, 15);
    let most = AtomicUsize::new(0);
    let heard = |done| {
        most.fetch_max(done, Ordering::Relaxed);
    };
    let stop = AtomicBool::new(false);
    let params = GraphParams::default();
    GraphIndex::build(vectors.clone(), Metric::L2, &params, 2, &heard, &stop).unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 5_000);

    let stop_at_once = |_: usize| stop.store(true, Ordering::Relaxed);
    let built = GraphIndex::build(vectors.clone(), Metric::L2, &params, 2, &stop_at_once, &stop);
    assert_eq!(built.unwrap_err(), IndexError::Stopped);
    let built = GraphIndex::build(vectors, Metric::L2, &params, 0, &|_| (), &stop);
    assert_eq!(built.unwrap_err(), IndexError::Stopped);
}

#[test]
fn one_thread_builds_the_same_graph_each_time() {
    let vectors = clustered(2_000, 8, 16);
    let never = AtomicBool::new(false);
    let params = GraphParams::default();
    let bytes = || {
        GraphIndex::build(vectors.clone(), Metric::L2, &params, 1, &|_| (), &never)
            .unwrap()
            .to_bytes()
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn graphs_of_other_vectors_metrics_or_versions_are_refused() {
    let vectors = clustered(200, 4, 17);
    let bytes = built(&vectors, Metric::L2).to_bytes();
    let open = |bytes: &[u8], vectors: &Vectors, metric| GraphIndex::from_bytes(bytes, vectors.clone(), metric);
    assert!(open(&bytes, &vectors, Metric::L2).is_ok());
    assert!(matches!(
        open(&bytes, &vectors, Metric::Cosine),
        Err(IndexError::Corrupt { .. })
    ));
    assert!(matches!(
        open(&bytes, &clustered(199, 4, 17), Metric::L2),
        Err(IndexError::Corrupt { .. })
    ));
    assert!(matches!(
        open(&bytes, &clustered(200, 5, 17), Metric::L2),
        Err(IndexError::Corrupt { .. })
    ));
    let mut newer = bytes.clone();
    newer[4] = 3;
    assert_eq!(
        open(&newer, &vectors, Metric::L2).unwrap_err(),
        IndexError::Version { found: 3, known: 2 }
    );
    let mut odd_codes = bytes.clone();
    odd_codes[32] = 8;
    assert!(matches!(
        open(&odd_codes, &vectors, Metric::L2),
        Err(IndexError::Corrupt { .. })
    ));
    let mut longer = bytes;
    longer.extend([0; 4]);
    assert!(matches!(
        open(&longer, &vectors, Metric::L2),
        Err(IndexError::Corrupt { .. })
    ));
}

/// What version 1 would have saved: one scale, of codes of 8 bits, and under inner product a center of an added value.
fn as_version_one(index: &GraphIndex) -> Vec<u8> {
    let bytes = index.to_bytes();
    let places = index.encoder.center.len();
    let (header, rest) = bytes.split_at(36);
    let (_, rest) = rest.split_at(4 * places);
    let (center, lists) = rest.split_at(4 * places);
    let mut old = header.to_vec();
    old[4] = 1;
    let added = index.encoder.metric == Metric::Ip;
    if added {
        old[12] = 1;
    }
    old[32..].copy_from_slice(&1.5f32.to_le_bytes());
    old.extend((index.encoder.scale[0] * 255.0 / 127.0).to_le_bytes());
    old.extend(center);
    if added {
        old.extend(0.7f32.to_le_bytes());
    }
    old.extend(lists);
    old
}

#[test]
fn graphs_of_version_one_open_to_the_same_answers() {
    let (vectors, queries) = (clustered(2_000, 20, 6), clustered(20, 20, 60));
    for metric in METRICS {
        let index = built(&vectors, metric);
        let old = as_version_one(&index);
        let opened = GraphIndex::from_bytes(&old, vectors.clone(), metric).unwrap();
        for row in 0..queries.rows() {
            let query = queries.row(row);
            assert_eq!(
                walked(&index, query, 10, 80, None),
                walked(&opened, query, 10, 80, None)
            );
        }
        for len in 0..old.len() / 8 {
            assert!(GraphIndex::from_bytes(&old[..len * 8], vectors.clone(), metric).is_err());
        }
    }
}

#[test]
fn codes_of_half_a_byte_find_the_nearest_rows_too() {
    for (dim, places) in [(24, 64), (200, 256)] {
        let (vectors, queries) = (clustered(4_000, dim, 21), clustered(40, dim, 21));
        for metric in METRICS {
            let params = GraphParams {
                code_bits: Some(CodeBits::Four),
                ..GraphParams::default()
            };
            let never = AtomicBool::new(false);
            let index = GraphIndex::build(vectors.clone(), metric, &params, 2, &|_| (), &never).unwrap();
            assert_eq!(index.codes.as_slice().len(), 4_000 * places / 2);
            let opened = GraphIndex::from_bytes(&index.to_bytes(), vectors.clone(), metric).unwrap();
            assert_eq!(opened.codes.as_slice(), index.codes.as_slice());
            let found = recall(&vectors, metric, &queries, None, |query| {
                walked(&opened, query, 10, 120, None)
            });
            assert!(found >= 0.95, "{metric:?} {dim}: recall {found}");
            let found = recall(&vectors, metric, &queries, None, |query| {
                scanned(&index, query, 10, 120, None)
            });
            assert!(found >= 0.97, "{metric:?} {dim}: recall of a scan {found}");
        }
    }
}

#[test]
fn places_of_very_different_spread_get_codes_that_can_tell_rows_apart() {
    let mut data = clustered(3_000, 128, 22).as_slice().to_vec();
    for row in data.chunks_exact_mut(128) {
        row[3] *= 30.0;
        row[40..60].iter_mut().for_each(|value| *value *= 0.01);
        row[99] = 5.0;
    }
    let vectors = Vectors::new(128, data).unwrap();
    let queries = Vectors::new(128, (0..30).flat_map(|row| vectors.row(row * 7).to_vec()).collect()).unwrap();
    for metric in METRICS {
        let index = built(&vectors, metric);
        assert_eq!(index.encoder.bits, CodeBits::Seven);
        let found = recall(&vectors, metric, &queries, None, |query| {
            walked(&index, query, 10, 100, None)
        });
        assert!(found >= 0.95, "{metric:?}: recall {found}");
    }
    assert_eq!(
        built(&clustered(500, 128, 22), Metric::Cosine).encoder.bits,
        CodeBits::Four
    );
}

#[test]
fn no_truncation_of_a_saved_graph_opens() {
    let vectors = clustered(60, 3, 18);
    let bytes = built(&vectors, Metric::Ip).to_bytes();
    for len in 0..bytes.len() {
        assert!(
            GraphIndex::from_bytes(&bytes[..len], vectors.clone(), Metric::Ip).is_err(),
            "{len} bytes"
        );
    }
}

proptest! {
    #[test]
    fn damaged_graphs_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..20),
        in_header in any::<bool>(),
        metric in prop::sample::select(METRICS.to_vec()),
    ) {
        static SAVED: std::sync::LazyLock<(Vectors, [Vec<u8>; 3])> = std::sync::LazyLock::new(|| {
            let vectors = clustered(300, 3, 19);
            let saved = METRICS.map(|metric| built(&vectors, metric).to_bytes());
            (vectors, saved)
        });
        let (vectors, saved) = &*SAVED;
        let mut bytes = saved[METRICS.iter().position(|&other| other == metric).unwrap()].clone();
        let reach = if in_header { 56 } else { bytes.len() };
        for (place, bit) in flips {
            bytes[place.index(reach)] ^= 1 << bit;
        }
        if let Ok(index) = GraphIndex::from_bytes(&bytes, vectors.clone(), metric) {
            let query = [0.5, -0.5, 1.0];
            let words = random_mask(300, 300, 1);
            let mask = RowMask { words: &words, rows: 300 };
            prop_assert_eq!(index.search(&query, 5, 8, None).unwrap().len(), 5);
            walked(&index, &query, 5, 8, None);
            walked(&index, &query, 5, 8, Some(mask));
        }
    }

    #[test]
    fn arbitrary_bytes_never_open_or_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let vectors = Vectors::new(2, vec![1.0; 8]).unwrap();
        prop_assert!(GraphIndex::from_bytes(&bytes, vectors, Metric::L2).is_err());
    }
}
