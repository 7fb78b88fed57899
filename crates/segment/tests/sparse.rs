//! Sparse vectors: growing and sealed segments, with and without an index in a file, find what comparing by hand finds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use common::{Numbers, PREFIX, SEGMENT, World, field, schema, stamps};
use saker_index::sparse_score;
use saker_model::{
    Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldId, FieldSchema, IndexKind, IndexSpec, MetricType,
    PartitionId, PrimaryKey, RowBatch, SparseVector, Timestamp,
};
use saker_segment::{
    Bm25, GrowingSegment, Hit, QueryVector, SearchParams, SegmentError, SegmentIndex, SegmentIndexKind, SegmentView,
    SparseQuery, SparseScoring, TermStatistics, VectorRows, write_index,
};

const TERMS: FieldId = FieldId(101);
const ROWS: usize = 3_000;

fn sparse_schema() -> Arc<CollectionSchema> {
    let key = FieldSchema {
        is_primary: true,
        ..field(100, DataType::Int64)
    };
    schema(vec![key, field(101, DataType::SparseFloatVector)])
}

/// A row of up to 12 terms out of 400, the lower ones far more often; whole values, so that sums are exact.
fn row(numbers: &mut Numbers) -> SparseVector {
    let drawn = numbers.vector(24);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number from 0 to 1"
    )]
    let term = |number: f32| (number * number * number * 400.0) as u32;
    let mut row = BTreeMap::new();
    for pair in drawn.chunks(2).take(1 + term(drawn[0]) as usize % 12) {
        *row.entry(term(pair[0].abs())).or_insert(0.0) += 1.0 + f32::from(pair[1] > 0.5);
    }
    SparseVector::new(row.into_iter().collect()).unwrap()
}

fn batch(keys: std::ops::Range<i64>, vectors: &[SparseVector]) -> RowBatch {
    RowBatch::new(vec![
        Column::full(FieldId(100), ColumnData::Int64(keys.collect())),
        Column::full(TERMS, ColumnData::SparseFloatVector { data: vectors.to_vec() }),
    ])
    .unwrap()
}

fn query(vector: &SparseVector, scoring: SparseScoring) -> QueryVector<'_> {
    QueryVector::Sparse(SparseQuery {
        vector,
        scoring,
        drop_ratio: 0.0,
        prune: true,
    })
}

fn params(scoring: SparseScoring, k: usize) -> SearchParams {
    let metric = match scoring {
        SparseScoring::Ip => MetricType::Ip,
        SparseScoring::Bm25(_) => MetricType::Bm25,
    };
    SearchParams { metric, k, ef: 0 }
}

/// By going through all rows.
fn expected(
    rows: &[SparseVector],
    query: &SparseVector,
    scoring: SparseScoring,
    k: usize,
    may: impl Fn(usize) -> bool,
) -> Vec<Hit> {
    let scored = rows
        .iter()
        .enumerate()
        .filter(|(at, _)| may(*at))
        .filter_map(|(at, row)| {
            let score = sparse_score(row.pairs(), query.pairs(), scoring)?;
            Some(Hit {
                row: u32::try_from(at).unwrap(),
                score,
            })
        });
    let mut hits: Vec<Hit> = scored.collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    hits.truncate(k);
    hits
}

fn close(found: &[Hit], expected: &[Hit]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found.score - expected.score).abs() <= expected.score.abs() * 1e-6,
            "{found:?} {expected:?}"
        );
    }
}

/// Searches of every kind agree with going through all rows.
fn agrees(view: &dyn SegmentView, rows: &[SparseVector], numbers: &mut Numbers, hidden: &dyn Fn(usize) -> bool) {
    let bm25 = SparseScoring::Bm25(Bm25 {
        k1: 1.2,
        b: 0.75,
        average_length: 8.0,
    });
    let some = Bitmap::from_bools((0..rows.len()).map(|at| at % 3 == 1));
    let few = Bitmap::from_bools((0..rows.len()).map(|at| at % 701 == 5));
    for _ in 0..15 {
        let wanted = row(numbers);
        for scoring in [SparseScoring::Ip, bm25] {
            for allowed in [None, Some(&some), Some(&few)] {
                let may = |at: usize| !hidden(at) && allowed.is_none_or(|allowed| allowed.contains(at));
                let found = view.search_vectors(TERMS, query(&wanted, scoring), &params(scoring, 20), allowed);
                close(&found.unwrap(), &expected(rows, &wanted, scoring, 20, may));
            }
        }
    }
}

#[tokio::test]
async fn growing_and_sealed_segments_agree_with_going_through_all_rows() {
    let (world, schema, mut numbers) = (World::new(), sparse_schema(), Numbers(5));
    let rows: Vec<SparseVector> = (0..ROWS).map(|_| row(&mut numbers)).collect();
    let growing = GrowingSegment::new(SEGMENT, PartitionId(1), Arc::clone(&schema));
    let mut start = 0;
    for count in [1, 7, 900, 60, 1, 2_000, 31] {
        let end = (start + count).min(ROWS);
        let keys = i64::try_from(start).unwrap()..i64::try_from(end).unwrap();
        growing
            .append(batch(keys, &rows[start..end]), &stamps(end - start, 10))
            .unwrap();
        start = end;
        agrees(&growing.snapshot(), &rows[..end], &mut numbers, &|_| false);
    }
    assert_eq!(start, ROWS);
    growing.delete(&PrimaryKey::Int(3), Timestamp(u64::MAX));
    let hidden = |at: usize| at == 3;
    agrees(&growing.snapshot(), &rows, &mut numbers, &hidden);

    let mut manifest = world
        .write(
            &schema,
            batch(0..i64::try_from(ROWS).unwrap(), &rows),
            &stamps(ROWS, 10),
        )
        .await;
    for metric in [MetricType::Ip, MetricType::Bm25] {
        let sealed = world.load(&schema, &manifest).await.unwrap();
        sealed.delete(&PrimaryKey::Int(3), Timestamp(u64::MAX));
        agrees(&sealed.snapshot(), &rows, &mut numbers, &hidden);
        let Some(VectorRows::Sparse(vectors)) = sealed.chunk().vector_rows(TERMS).cloned() else {
            panic!("sparse vectors");
        };
        let postings = vectors.build_index(metric, 0.0, &AtomicBool::new(false)).unwrap();
        let index = Arc::new(SegmentIndex {
            spec: spec(metric),
            metric,
            kind: SegmentIndexKind::Sparse(postings),
        });
        let entry = write_index(&world.lease, &world.store, PREFIX, &sealed, index)
            .await
            .unwrap();
        manifest.indexes = vec![entry];
        let loaded = world.load(&schema, &manifest).await.unwrap();
        assert!(
            loaded
                .index(TERMS)
                .is_some_and(|index| index.sparse_for(metric).is_some())
        );
        loaded.delete(&PrimaryKey::Int(3), Timestamp(u64::MAX));
        agrees(&loaded.snapshot(), &rows, &mut numbers, &hidden);
        let taken = loaded.snapshot().take(&[TERMS], &[5, 0]).unwrap();
        let both = vec![rows[5].clone(), rows[0].clone()];
        assert_eq!(taken[0].data, ColumnData::SparseFloatVector { data: both });
    }
}

fn spec(metric: MetricType) -> IndexSpec {
    IndexSpec {
        name: "terms".into(),
        field: TERMS,
        kind: IndexKind::Sparse,
        type_name: "SPARSE_INVERTED_INDEX".into(),
        metric: Some(metric),
        params: BTreeMap::new(),
    }
}

#[tokio::test]
async fn statistics_are_the_same_everywhere() {
    let (world, schema, mut numbers) = (World::new(), sparse_schema(), Numbers(9));
    let rows: Vec<SparseVector> = (0..ROWS).map(|_| row(&mut numbers)).collect();
    let terms = [0, 1, 7, 399, 12_345];
    let has = |term: u32| {
        rows.iter()
            .filter(|row| row.pairs().iter().any(|pair| pair.0 == term))
            .count() as u64
    };
    let all = TermStatistics {
        rows: ROWS as u64,
        length: rows
            .iter()
            .flat_map(SparseVector::pairs)
            .map(|pair| f64::from(pair.1))
            .sum(),
        rows_with: terms.iter().map(|&term| has(term)).collect(),
    };
    assert!(all.rows_with[0] > 100 && all.rows_with[4] == 0);
    let growing = GrowingSegment::new(SEGMENT, PartitionId(1), Arc::clone(&schema));
    for (at, rows) in rows.chunks(250).enumerate() {
        let first = i64::try_from(at * 250).unwrap();
        let keys = first..first + i64::try_from(rows.len()).unwrap();
        growing.append(batch(keys, rows), &stamps(rows.len(), 10)).unwrap();
    }
    assert_eq!(growing.snapshot().term_statistics(TERMS, &terms).unwrap(), all);
    let manifest = world
        .write(
            &schema,
            batch(0..i64::try_from(ROWS).unwrap(), &rows),
            &stamps(ROWS, 10),
        )
        .await;
    let sealed = world.load(&schema, &manifest).await.unwrap();
    let view = sealed.snapshot();
    assert_eq!(view.term_statistics(TERMS, &terms).unwrap(), all);
    assert!(matches!(
        view.term_statistics(FieldId(100), &terms),
        Err(SegmentError::NotAVector { .. })
    ));
    assert!(matches!(
        view.term_statistics(FieldId(7), &terms),
        Err(SegmentError::NoSuchField(_))
    ));
    let mut twice = all.clone();
    twice.add(&all);
    assert_eq!((twice.rows, twice.rows_with[0]), (2 * all.rows, 2 * all.rows_with[0]));
}

#[tokio::test]
async fn a_part_of_the_values_finds_nearly_the_same_with_whole_scores() {
    let (world, schema, mut numbers) = (World::new(), sparse_schema(), Numbers(11));
    let rows: Vec<SparseVector> = (0..ROWS).map(|_| row(&mut numbers)).collect();
    let manifest = world
        .write(
            &schema,
            batch(0..i64::try_from(ROWS).unwrap(), &rows),
            &stamps(ROWS, 10),
        )
        .await;
    let sealed = world.load(&schema, &manifest).await.unwrap();
    let view = sealed.snapshot();
    let (mut found_best, mut all) = (0, 0);
    for _ in 0..30 {
        let wanted = row(&mut numbers);
        let asked = SparseQuery {
            vector: &wanted,
            scoring: SparseScoring::Ip,
            drop_ratio: 0.2,
            prune: true,
        };
        let hits = view
            .search_vectors(TERMS, QueryVector::Sparse(asked), &params(SparseScoring::Ip, 10), None)
            .unwrap();
        for hit in &hits {
            let whole = sparse_score(rows[hit.row as usize].pairs(), wanted.pairs(), SparseScoring::Ip);
            assert_eq!(whole, Some(hit.score));
        }
        let best = expected(&rows, &wanted, SparseScoring::Ip, 10, |_| true);
        let scores = |hits: &[Hit]| hits.iter().map(|hit| hit.score.to_bits()).collect::<Vec<_>>();
        found_best += scores(&hits)
            .iter()
            .zip(scores(&best))
            .filter(|(found, best)| **found == *best)
            .count();
        all += best.len();
    }
    assert!(found_best * 10 >= all * 8, "{found_best} of {all}");
}

#[tokio::test]
async fn queries_of_another_form_are_refused() {
    let (world, schema, mut numbers) = (World::new(), sparse_schema(), Numbers(3));
    let rows = vec![row(&mut numbers); 5];
    let manifest = world.write(&schema, batch(0..5, &rows), &stamps(5, 10)).await;
    let view = world.load(&schema, &manifest).await.unwrap().snapshot();
    let ip = params(SparseScoring::Ip, 3);
    let wrong = view.search_vectors(TERMS, QueryVector::Dense(&[1.0]), &ip, None);
    assert!(matches!(wrong, Err(SegmentError::QueryKind { .. })));
    let l2 = SearchParams {
        metric: MetricType::L2,
        ..ip
    };
    let wrong = view.search_vectors(TERMS, query(&rows[0], SparseScoring::Ip), &l2, None);
    assert!(matches!(wrong, Err(SegmentError::QueryKind { .. })));
    let wrong = view.search_vectors(FieldId(100), query(&rows[0], SparseScoring::Ip), &ip, None);
    assert!(matches!(wrong, Err(SegmentError::NotAVector { .. })));
}
