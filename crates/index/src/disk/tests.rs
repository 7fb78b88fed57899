//! A graph that is read in pieces finds what exact search finds, and believes nothing that it reads.

use std::{
    cell::{Cell, RefCell},
    sync::atomic::AtomicBool,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{format::DiskGraphLayout, *};
use crate::{GraphIndex, GraphParams, Vectors, flat_search};

/// The score that every search gives a row.
fn score(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    Scorer::new(metric, query).score(Elements::F32(row))
}

/// A graph written to bytes and opened again, and its vectors.
struct Disk {
    graph: DiskGraph,
    bytes: RefCell<Vec<u8>>,
    vectors: Vectors,
    lists_read: Cell<usize>,
    vectors_read: Cell<usize>,
}

const BEFORE: usize = 40;

fn written(graph: &GraphIndex) -> Vec<u8> {
    let mut bytes = vec![7; BEFORE];
    DiskGraph::write(graph, BEFORE, |part| {
        bytes.extend_from_slice(part);
        Ok::<_, IndexError>(())
    })
    .unwrap();
    bytes
}

/// As an index into bytes in memory.
fn span(range: &std::ops::Range<u64>) -> std::ops::Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

fn opened(bytes: &[u8], metric: Metric, dim: usize, rows: usize) -> Result<(DiskGraph, DiskGraphLayout), IndexError> {
    let part = |range: std::ops::Range<u64>| bytes.get(span(&range));
    let short = IndexError::Corrupt { reason: "short" };
    let head = part(BEFORE as u64..(BEFORE + DiskGraphLayout::BYTES) as u64).ok_or(short.clone())?;
    let layout = DiskGraphLayout::read(head.try_into().unwrap(), BEFORE as u64, metric, dim, rows)?;
    let (numbers, codes) = layout.resident();
    let (numbers, codes) = (part(numbers).ok_or(short.clone())?, part(codes).ok_or(short)?);
    Ok((DiskGraph::open(&layout, numbers, codes.to_vec())?, layout))
}

impl Disk {
    fn new(vectors: Vectors, metric: Metric, degree: usize) -> Self {
        let params = GraphParams {
            degree,
            build_list: 64,
            ..GraphParams::default()
        };
        let graph = GraphIndex::build(vectors.clone(), metric, &params, 2, &|_| (), &AtomicBool::new(false)).unwrap();
        let bytes = written(&graph);
        let (graph, layout) = opened(&bytes, metric, vectors.dim(), vectors.rows()).unwrap();
        assert_eq!(layout.file_bytes(), bytes.len() as u64);
        Self {
            graph,
            bytes: RefCell::new(bytes),
            vectors,
            lists_read: Cell::new(0),
            vectors_read: Cell::new(0),
        }
    }
}

impl DiskRows for Disk {
    type Error = IndexError;
    fn neighbours(&self, row: u32, list: &mut Vec<u32>) -> Result<(), IndexError> {
        self.lists_read.set(self.lists_read.get() + 1);
        let range = self.graph.list_range(row);
        assert_eq!(range.start / 4_096, (range.end - 1) / 4_096, "a list in two frames");
        list.clear();
        self.graph.read_list(&self.bytes.borrow()[span(&range)], list)
    }
    fn vector(&self, row: u32, values: &mut [f32]) -> Result<(), IndexError> {
        self.vectors_read.set(self.vectors_read.get() + 1);
        values.copy_from_slice(self.vectors.row(row as usize));
        Ok(())
    }
}

fn clustered(rows: usize, dim: usize, seed: u64) -> Vectors {
    let mut random = StdRng::seed_from_u64(seed);
    let centers: Vec<Vec<f32>> = (0..20)
        .map(|_| (0..dim).map(|_| random.random_range(-1.0..1.0)).collect())
        .collect();
    let mut values = Vec::with_capacity(rows * dim);
    for row in 0..rows {
        values.extend(
            centers[row % 20]
                .iter()
                .map(|center| center + random.random_range(-0.6..0.6)),
        );
    }
    Vectors::new(dim, values).unwrap()
}

fn recall(disk: &Disk, metric: Metric, ef: usize, mask: Option<RowMask<'_>>) -> f64 {
    let dim = disk.vectors.dim();
    let mut random = StdRng::seed_from_u64(99);
    let (mut found, mut wanted) = (0, 0);
    for query in 0..40 {
        let near = disk.vectors.row(query * 17);
        let query: Vec<f32> = near
            .iter()
            .map(|value| value + random.random_range(-0.3..0.3))
            .collect();
        let exact = flat_search(metric, disk.vectors.as_slice(), dim, &query, 10, mask);
        let hits = disk.graph.search(disk, &query, 10, ef, mask).unwrap();
        assert!(
            hits.windows(2)
                .all(|pair| metric.cost(pair[0].score) <= metric.cost(pair[1].score))
        );
        for hit in &hits {
            assert_eq!(hit.score, score(metric, &query, disk.vectors.row(hit.row as usize)));
            assert!(mask.is_none_or(|mask| mask.contains(hit.row as usize)));
        }
        wanted += exact.len();
        found += exact
            .iter()
            .filter(|hit| hits.iter().any(|other| other.row == hit.row))
            .count();
    }
    found as f64 / wanted as f64
}

#[test]
fn finds_what_exact_search_finds() {
    for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
        let disk = Disk::new(clustered(4_000, 48, 1), metric, 24);
        let recall = recall(&disk, metric, 40, None);
        assert!(recall >= 0.95, "{metric:?}: {recall}");
        // Far fewer reads than rows: that is what it is for.
        assert!(disk.vectors_read.get() < 40 * 100 && (1..40 * 400).contains(&disk.lists_read.get()));
    }
}

#[test]
fn masks_of_every_size_are_kept() {
    let disk = Disk::new(clustered(4_000, 48, 2), Metric::L2, 24);
    for keep_one_in in [1, 2, 7, 100, 1_000] {
        let mut words = vec![0u64; 4_000_usize.div_ceil(64)];
        (0..4_000)
            .step_by(keep_one_in)
            .for_each(|row: usize| words[row / 64] |= 1 << (row % 64));
        let mask = RowMask {
            words: &words,
            rows: 4_000,
        };
        let recall = recall(&disk, Metric::L2, 40, Some(mask));
        assert!(recall >= 0.95, "1 in {keep_one_in}: {recall}");
    }
    let none = RowMask {
        words: &[0; 63],
        rows: 4_000,
    };
    assert_eq!(
        disk.graph.search(&disk, &[0.0; 48], 10, 0, Some(none)).unwrap().len(),
        0
    );
}

#[test]
fn every_size_and_degree_is_laid_out_to_the_byte() {
    for rows in [0, 1, 2, 31, 32, 33, 64, 65, 200] {
        for degree in [2, 3, 32, 33, 256] {
            let disk = Disk::new(clustered(rows, 5, 3), Metric::L2, degree);
            let hits = disk.graph.search(&disk, &[0.0; 5], 10, 0, None).unwrap();
            assert_eq!(
                hits,
                flat_search(Metric::L2, disk.vectors.as_slice(), 5, &[0.0; 5], 10, None)
            );
        }
    }
}

#[test]
fn queries_and_masks_that_do_not_fit_are_refused() {
    let disk = Disk::new(clustered(100, 5, 4), Metric::Cosine, 8);
    assert!(matches!(
        disk.graph.search(&disk, &[0.0; 4], 10, 0, None),
        Err(IndexError::QueryDimension { query: 4, index: 5 })
    ));
    let short = RowMask { words: &[1], rows: 64 };
    assert!(matches!(
        disk.graph.search(&disk, &[1.0; 5], 10, 0, Some(short)),
        Err(IndexError::MaskRows { mask: 64, index: 100 })
    ));
    assert!(disk.graph.answers(&[1.0; 5]) && !disk.graph.answers(&[0.0; 5]));
    assert!(!disk.graph.answers(&[1.0, f32::NAN, 1.0, 1.0, 1.0]));
}

#[test]
fn any_bytes_give_an_error_or_exact_scores() {
    let disk = Disk::new(clustered(3_000, 8, 5), Metric::L2, 8);
    let whole = disk.bytes.borrow().clone();
    let (layout_end, lists_at) = (
        BEFORE + DiskGraphLayout::BYTES,
        usize::try_from(disk.graph.lists_at).unwrap(),
    );
    for at in BEFORE..layout_end {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        // The start row is the one number that may be another one; another degree does not fit the file's length.
        match opened(&bytes, Metric::L2, 8, 3_000) {
            Ok((_, layout)) => assert!(
                (BEFORE + 24..BEFORE + 28).contains(&at) || layout.file_bytes() != whole.len() as u64,
                "byte {at}"
            ),
            Err(error) => assert!(matches!(error, IndexError::Corrupt { .. } | IndexError::Version { .. })),
        }
    }
    for cut in [0, 10, BEFORE, layout_end, layout_end + 60, 5_000] {
        assert!(opened(&whole[..cut], Metric::L2, 8, 3_000).is_err());
    }
    let mut random = StdRng::seed_from_u64(6);
    let mut refused = 0;
    for _ in 0..200 {
        for _ in 0..20 {
            let at = random.random_range(lists_at..whole.len());
            disk.bytes.borrow_mut()[at] = random.random_range(0..=255);
        }
        match disk.graph.search(&disk, &[0.1; 8], 5, 100, None) {
            Ok(hits) => assert!(
                hits.iter()
                    .all(|hit| hit.score == score(Metric::L2, &[0.1; 8], disk.vectors.row(hit.row as usize)))
            ),
            Err(IndexError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0, "rows that do not exist are noticed");
}
