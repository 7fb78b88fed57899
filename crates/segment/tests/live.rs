//! Rows that come and go while they are searched: lists beside growing rows, and the two steps of a write.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use common::{Numbers, SEGMENT, World, small_rows, small_schema, stamps};
use saker_model::{Bitmap, ColumnData, FieldId, IndexKind, IndexSpec, MetricType, PartitionId, PrimaryKey, Timestamp};
use saker_segment::{
    GraphIndex, GraphParams, GrowingSegment, QueryVector, SearchParams, SegmentIndex, SegmentIndexKind, SegmentView,
    metric_of,
};

const VECTOR: FieldId = FieldId(101);
const DIM: usize = 8;
static GO: AtomicBool = AtomicBool::new(false);

fn growing() -> Arc<GrowingSegment> {
    GrowingSegment::new(SEGMENT, PartitionId(1), small_schema(DIM))
}

fn add(growing: &GrowingSegment, keys: &[i64], numbers: &mut Numbers, at: u64) {
    let stamps: Vec<Timestamp> = keys.iter().map(|_| Timestamp(at)).collect();
    let rows = small_rows(keys, DIM, numbers.vector(keys.len() * DIM));
    growing.append(rows, &stamps).unwrap();
}

fn search(view: &dyn SegmentView, query: &[f32], metric: MetricType, allowed: Option<&Bitmap>) -> Vec<u32> {
    let params = SearchParams { metric, k: 10, ef: 0 };
    let hits = view.search_vectors(VECTOR, QueryVector::Dense(query), &params, allowed);
    hits.unwrap().into_iter().map(|hit| hit.row).collect()
}

/// The nearest of the rows that may be returned, by comparing with all of them.
fn brute_force(view: &dyn SegmentView, query: &[f32], allowed: Option<&Bitmap>) -> Vec<u32> {
    let rows: Vec<usize> = (0..view.rows())
        .filter(|&row| !view.deletes().contains(row) && allowed.is_none_or(|allowed| allowed.contains(row)))
        .collect();
    let taken = view.take(&[VECTOR], &rows).unwrap();
    let ColumnData::FloatVector { data, .. } = &taken[0].data else {
        panic!("not vectors")
    };
    let cost = |at: usize| -> f32 {
        let row = &data[at * DIM..][..DIM];
        row.iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    let mut ranked: Vec<(f32, usize)> = rows.iter().enumerate().map(|(at, row)| (cost(at), *row)).collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let best = ranked.into_iter().take(10);
    best.map(|(_, row)| u32::try_from(row).unwrap()).collect()
}

/// The share of the true nearest that is found, over some queries.
fn recall(view: &dyn SegmentView, allowed: Option<&Bitmap>) -> f64 {
    let mut numbers = Numbers(4_711);
    let (mut right, mut all) = (0_u32, 0_u32);
    for _ in 0..25 {
        let query = numbers.vector(DIM);
        let truth = brute_force(view, &query, allowed);
        let found = search(view, &query, MetricType::L2, allowed);
        assert!(found.iter().all(|&row| {
            let row = row as usize;
            !view.deletes().contains(row) && allowed.is_none_or(|allowed| allowed.contains(row))
        }));
        right += u32::try_from(truth.iter().filter(|row| found.contains(row)).count()).unwrap();
        all += u32::try_from(truth.len()).unwrap();
    }
    f64::from(right) / f64::from(all)
}

#[test]
fn lists_are_made_for_many_rows_and_answer_like_all_of_them() {
    let (growing, mut numbers) = (growing(), Numbers(3));
    add(&growing, &(0..1_000).collect::<Vec<_>>(), &mut numbers, 5);
    assert!(!growing.wants_lists(VECTOR, MetricType::L2), "too few rows");
    for batch in 1..9 {
        let keys: Vec<i64> = (batch * 1_000..batch * 1_000 + 1_000).collect();
        add(&growing, &keys, &mut numbers, 5);
    }
    assert!(growing.wants_lists(VECTOR, MetricType::L2));
    let bytes = growing.bytes();
    growing.build_lists(VECTOR, MetricType::L2, &GO).unwrap();
    assert!(!growing.wants_lists(VECTOR, MetricType::L2));
    assert!(
        growing.wants_lists(VECTOR, MetricType::Cosine),
        "they are for one metric"
    );
    assert!(growing.bytes() > bytes, "lists count");
    // Every third row goes, and more rows come.
    let gone: Vec<PrimaryKey> = (0..9_000).step_by(3).map(PrimaryKey::Int).collect();
    assert_eq!(growing.delete_all(&gone, Timestamp(9)), 3_000);
    add(&growing, &(9_000..9_500).collect::<Vec<_>>(), &mut numbers, 12);
    let snapshot = growing.snapshot();
    assert_eq!(snapshot.live().count_ones(), 6_500);
    assert!(recall(&snapshot, None) > 0.95);
    let allowed = Bitmap::from_bools((0..9_500).map(|row| row % 10 == 1));
    assert!(recall(&snapshot, Some(&allowed)) > 0.95);
    let few = Bitmap::from_bools((0..9_500).map(|row| row % 500 == 1));
    assert_eq!(recall(&snapshot, Some(&few)), 1.0, "few rows are compared exactly");

    growing.drop_lists(VECTOR);
    assert_eq!(recall(&growing.snapshot(), None), 1.0, "without lists it is exact");
    let stopped = growing.build_lists(VECTOR, MetricType::L2, &AtomicBool::new(true));
    stopped.unwrap_err();
    assert_eq!(recall(&growing.snapshot(), None), 1.0);
}

#[test]
fn lists_are_made_and_dropped_while_rows_come_and_go() {
    let growing = growing();
    let (done, newest) = (AtomicBool::new(false), AtomicI64::new(-1));
    std::thread::scope(|scope| {
        let background = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) {
                growing.build_lists(VECTOR, MetricType::L2, &GO).unwrap();
                rounds += 1;
                if rounds % 5 == 0 {
                    growing.drop_lists(VECTOR);
                }
            }
        });
        let reader = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let known = newest.load(Ordering::SeqCst);
                let snapshot = growing.snapshot();
                assert!(
                    known < 0 || !snapshot.find(&PrimaryKey::Int(known)).is_empty() || snapshot.deleted_rows() > 0,
                    "row {known} is gone"
                );
                assert_eq!(snapshot.live().count_ones(), snapshot.rows() - snapshot.deleted_rows());
                if snapshot.rows() > 0 {
                    assert!(recall(&snapshot, None) > 0.9);
                }
            }
        });
        let mut numbers = Numbers(9);
        for batch in 0..40_i64 {
            let keys: Vec<i64> = (batch * 200..batch * 200 + 200).collect();
            add(&growing, &keys, &mut numbers, 5);
            newest.store(batch * 200 + 199, Ordering::SeqCst);
            growing.delete(&PrimaryKey::Int(batch * 200), Timestamp(7));
        }
        done.store(true, Ordering::SeqCst);
        background.join().unwrap();
        reader.join().unwrap();
    });
    assert_eq!((growing.rows(), growing.snapshot().deleted_rows()), (8_000, 40));
}

#[test]
fn prepared_rows_are_seen_once_they_are_published() {
    let (growing, mut numbers) = (growing(), Numbers(1));
    add(&growing, &[1, 2, 3], &mut numbers, 5);
    let mut rows = |keys: &[i64]| small_rows(keys, DIM, numbers.vector(keys.len() * DIM));
    let upsert = [PrimaryKey::Int(2), PrimaryKey::Int(4), PrimaryKey::Int(2)];
    let prepared = growing.prepare(rows(&[2, 4]), &stamps(2, 8)).unwrap();
    let hidden = growing.rows_to_delete(&upsert, Timestamp(8));
    assert_eq!((growing.rows(), growing.snapshot().deleted_rows()), (3, 0));
    assert_eq!(growing.snapshot().find(&PrimaryKey::Int(2)), [1]);
    assert!(growing.snapshot().find(&PrimaryKey::Int(4)).is_empty());
    assert_eq!(growing.delete_rows(&hidden, Timestamp(8)), 1, "each row once");
    prepared.publish();
    assert_eq!((growing.rows(), growing.snapshot().deleted_rows()), (5, 1));
    assert_eq!(growing.snapshot().find(&PrimaryKey::Int(2)), [3]);

    // Rows that were prepared and never came leave nothing behind.
    drop(growing.prepare(rows(&[7, 8]), &stamps(2, 9)).unwrap());
    assert_eq!(growing.rows(), 5);
    assert!(growing.snapshot().find(&PrimaryKey::Int(7)).is_empty());
    for keys in [[7, 9], [8, 7]] {
        growing.append(rows(&keys), &stamps(2, 10)).unwrap();
    }
    assert_eq!(growing.snapshot().find(&PrimaryKey::Int(7)), [5, 8]);
    assert_eq!(growing.snapshot().find(&PrimaryKey::Int(8)), [7]);
    assert_eq!(growing.delete(&PrimaryKey::Int(7), Timestamp(99)), 2);
    assert_eq!(growing.snapshot().deleted_rows(), 3);
}

#[tokio::test]
async fn lists_of_a_sealed_segment_go_when_its_graph_comes() {
    let (world, schema) = (World::new(), small_schema(DIM));
    let keys: Vec<i64> = (0..3_000).collect();
    let rows = small_rows(&keys, DIM, Numbers(5).vector(3_000 * DIM));
    let manifest = world.write(&schema, rows, &stamps(3_000, 1)).await;
    assert_eq!(manifest.clean_until, Timestamp(0));
    let sealed = world.load(&schema, &manifest).await.unwrap();
    let bytes = sealed.bytes();
    sealed.chunk().build_lists(VECTOR, MetricType::L2, &GO).unwrap();
    assert!(sealed.bytes() > bytes);
    let found = sealed.rows_to_delete(&[PrimaryKey::Int(3), PrimaryKey::Int(3)], Timestamp(9_000));
    assert_eq!((sealed.delete_rows(&found, Timestamp(9_000)), sealed.deleted()), (1, 1));
    assert!(
        sealed
            .rows_to_delete(&[PrimaryKey::Int(3)], Timestamp(9_001))
            .is_empty()
    );
    assert!(recall(&sealed.snapshot(), None) > 0.95);

    let metric = metric_of(MetricType::L2).unwrap();
    let vectors = sealed.vectors(VECTOR).unwrap().clone();
    let graph = GraphIndex::build(vectors, metric, &GraphParams::default(), 1, &|_| {}, &GO).unwrap();
    let spec = IndexSpec {
        name: "graph".into(),
        field: VECTOR,
        kind: IndexKind::Graph,
        type_name: "HNSW".into(),
        metric: Some(MetricType::L2),
        params: BTreeMap::new(),
    };
    let index = SegmentIndex {
        spec,
        metric: MetricType::L2,
        kind: SegmentIndexKind::Graph(graph),
    };
    sealed.set_index(VECTOR, Some(Arc::new(index)));
    assert!(sealed.chunk().wants_lists(VECTOR, MetricType::L2), "they are gone");
    assert!(recall(&sealed.snapshot(), None) > 0.95);
}
