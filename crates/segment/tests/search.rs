//! Searching growing and sealed segments: the same answers as comparing with everything.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{Numbers, PREFIX, SEGMENT, World, field, schema, small_rows, small_schema, stamps};
use saker_index::{IndexError, distance};
use saker_model::{
    Bitmap, Column, ColumnData, DataType, FieldId, FieldSchema, IndexKind, IndexSpec, MetricType, PartitionId,
    PrimaryKey, RowBatch, Timestamp,
};
use saker_segment::{
    CHUNK_ROWS, GraphIndex, GraphParams, GrowingSegment, Hit, QueryVector, SearchParams, SegmentError, SegmentIndex,
    SegmentIndexKind, SegmentView, load_index, metric_of, write_index,
};

const VECTOR: FieldId = FieldId(101);
const METRICS: [MetricType; 3] = [MetricType::L2, MetricType::Ip, MetricType::Cosine];

fn params(metric: MetricType, k: usize) -> SearchParams {
    SearchParams { metric, k, ef: 0 }
}

/// Compares with every row that may be returned, through nothing but `take`.
fn brute_force(view: &dyn SegmentView, query: &[f32], params: &SearchParams, allowed: Option<&Bitmap>) -> Vec<Hit> {
    let rows: Vec<usize> = (0..view.rows())
        .filter(|&row| !view.deletes().contains(row) && allowed.is_none_or(|allowed| allowed.contains(row)))
        .collect();
    let taken = view.take(&[VECTOR], &rows).unwrap();
    let ColumnData::FloatVector { dim, data } = &taken[0].data else {
        panic!("not vectors")
    };
    let score = |(index, row): (usize, &usize)| Hit {
        row: u32::try_from(*row).unwrap(),
        score: distance(metric_of(params.metric).unwrap(), query, &data[index * dim..][..*dim]),
    };
    let mut hits: Vec<Hit> = rows
        .iter()
        .enumerate()
        .filter(|(index, _)| taken[0].is_valid(*index))
        .map(score)
        .collect();
    hits.sort_by(|a, b| {
        let order = a.score.total_cmp(&b.score);
        if params.metric.larger_is_nearer() {
            order.reverse()
        } else {
            order
        }
        .then(a.row.cmp(&b.row))
    });
    hits.truncate(params.k);
    hits
}

fn assert_same(found: &[Hit], expected: &[Hit], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!(
            a.row == b.row || (a.score - b.score).abs() < 1e-5,
            "{what}: {a:?} {b:?}"
        );
    }
}

#[test]
fn growing_search_equals_brute_force_while_rows_come_and_go() {
    let dim = 8;
    let growing = GrowingSegment::new(SEGMENT, PartitionId(1), small_schema(dim));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2i64)
            .map(|writer| {
                let growing = &growing;
                scope.spawn(move || {
                    let mut numbers = Numbers(writer.cast_unsigned() + 1);
                    for batch in 0..120i64 {
                        let rows = [1, 3, 200, 17][usize::try_from(batch % 4).unwrap()];
                        let keys: Vec<i64> = (0..rows).map(|row| (batch * 1_000 + row) * 2 + writer).collect();
                        let count = keys.len();
                        growing
                            .append(small_rows(&keys, dim, numbers.vector(count * dim)), &stamps(count, 5))
                            .unwrap();
                        growing.delete(&PrimaryKey::Int(keys[count / 2]), Timestamp(1_000));
                    }
                })
            })
            .collect();
        let readers: Vec<_> = METRICS
            .into_iter()
            .map(|metric| {
                let (growing, done) = (&growing, &done);
                scope.spawn(move || {
                    let mut numbers = Numbers(77);
                    let mut seen = 0;
                    loop {
                        let last = done.load(Ordering::SeqCst);
                        let snapshot = growing.snapshot();
                        assert!(snapshot.rows() >= seen);
                        seen = snapshot.rows();
                        assert_eq!(snapshot.chunks().iter().map(|chunk| chunk.rows()).sum::<usize>(), seen);
                        assert_eq!(snapshot.deletes().len(), seen);
                        assert_eq!(snapshot.deletes().count_ones(), snapshot.deleted_rows());
                        let query = numbers.vector(dim);
                        let params = params(metric, 10);
                        let found = snapshot
                            .search_vectors(VECTOR, QueryVector::Dense(&query), &params, None)
                            .unwrap();
                        assert_same(&found, &brute_force(&snapshot, &query, &params, None), metric.name());
                        let allowed = Bitmap::from_bools((0..seen).map(|row| row % 3 == 1));
                        let found = snapshot
                            .search_vectors(VECTOR, QueryVector::Dense(&query), &params, Some(&allowed))
                            .unwrap();
                        assert_same(
                            &found,
                            &brute_force(&snapshot, &query, &params, Some(&allowed)),
                            metric.name(),
                        );
                        if last {
                            return;
                        }
                    }
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        // Before a writer's failure is passed on: the readers go on until this is set, and the scope waits for them.
        done.store(true, Ordering::SeqCst);
        written.into_iter().for_each(|written| written.unwrap());
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert_eq!(growing.rows(), 2 * 30 * (1 + 3 + 200 + 17));
    assert_eq!(growing.snapshot().deleted_rows(), 240);
}

#[test]
fn single_rows_are_put_together_into_few_chunks() {
    let growing = GrowingSegment::new(SEGMENT, PartitionId(1), small_schema(2));
    let total = CHUNK_ROWS * 2 + 100;
    for key in 0..i64::try_from(total).unwrap() {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        growing
            .append(
                small_rows(&[key], 2, vec![key as f32, 0.5]),
                &stamps(1, key.cast_unsigned()),
            )
            .unwrap();
    }
    let snapshot = growing.snapshot();
    assert!(snapshot.chunks().len() <= 24, "{} chunks", snapshot.chunks().len());
    for key in [0, 1, 4_095, 32_767, 32_768, 65_600] {
        let row = usize::try_from(key).unwrap();
        assert_eq!(snapshot.primary_key(row), Some(PrimaryKey::Int(key)));
        assert_eq!(snapshot.find(&PrimaryKey::Int(key)), [row]);
        assert_eq!(snapshot.timestamp(row), Some(Timestamp(key.cast_unsigned())));
    }
    assert_eq!(snapshot.primary_key(total), None);
    // In any order, with repeats, through chunk borders.
    let rows = [65_000, 3, 32_768, 3, 0, 32_767];
    let taken = snapshot.take(&[FieldId(100), FieldId::TIMESTAMP], &rows).unwrap();
    let expected: Vec<i64> = rows.iter().map(|&row| i64::try_from(row).unwrap()).collect();
    assert_eq!(taken[0].data, ColumnData::Int64(expected.clone()));
    assert_eq!(taken[1].data, ColumnData::Int64(expected));
    let empty = snapshot.take(&[FieldId(100), VECTOR], &[]).unwrap();
    assert_eq!((empty[0].rows(), empty[1].rows()), (0, 0));
}

#[tokio::test]
async fn sealed_search_equals_brute_force() {
    let world = World::new();
    let dim = 6;
    let schema = small_schema(dim);
    let keys: Vec<i64> = (0..500).collect();
    let rows = small_rows(&keys, dim, Numbers(5).vector(500 * dim));
    let manifest = world.write(&schema, rows, &stamps(500, 1)).await;
    let sealed = world.load(&schema, &manifest).await.unwrap();
    for key in [0, 100, 499] {
        sealed.delete(&PrimaryKey::Int(key), Timestamp(9_000));
    }
    let snapshot = sealed.snapshot();
    let mut numbers = Numbers(6);
    for metric in METRICS {
        for k in [0, 1, 10, 497, 498, 1_000] {
            let query = numbers.vector(dim);
            let found = snapshot
                .search_vectors(VECTOR, QueryVector::Dense(&query), &params(metric, k), None)
                .unwrap();
            assert_same(
                &found,
                &brute_force(&snapshot, &query, &params(metric, k), None),
                metric.name(),
            );
            assert_eq!(found.len(), k.min(497));
        }
    }
    let none = Bitmap::zeros(500);
    assert!(
        snapshot
            .search_vectors(
                VECTOR,
                QueryVector::Dense(&[0.5; 6]),
                &params(MetricType::L2, 5),
                Some(&none)
            )
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn wrong_questions_are_errors() {
    let world = World::new();
    let schema = small_schema(3);
    let manifest = world
        .write(&schema, small_rows(&[1, 2], 3, vec![0.5; 6]), &stamps(2, 1))
        .await;
    let sealed = world.load(&schema, &manifest).await.unwrap().snapshot();
    let growing = GrowingSegment::new(SEGMENT, PartitionId(1), schema);
    growing
        .append(small_rows(&[1, 2], 3, vec![0.5; 6]), &stamps(2, 1))
        .unwrap();
    let growing = growing.snapshot();
    for view in [&sealed as &dyn SegmentView, &growing] {
        let params = params(MetricType::L2, 1);
        let search =
            |field, query: &[f32], allowed| view.search_vectors(field, QueryVector::Dense(query), &params, allowed);
        let wrong_length = Bitmap::ones(3);
        assert!(matches!(
            search(FieldId(5), &[0.0; 3], None),
            Err(SegmentError::NoSuchField(FieldId(5)))
        ));
        assert!(matches!(
            search(FieldId(100), &[0.0; 3], None),
            Err(SegmentError::NotAVector { .. })
        ));
        let wrong = search(VECTOR, &[0.0; 2], None);
        assert!(matches!(
            wrong,
            Err(SegmentError::Index(IndexError::QueryDimension { query: 2, index: 3 }))
        ));
        let wrong = search(VECTOR, &[0.0; 3], Some(&wrong_length));
        assert!(matches!(wrong, Err(SegmentError::Index(IndexError::MaskRows { .. }))));
        assert!(matches!(
            view.take(&[FieldId(5)], &[0]),
            Err(SegmentError::NoSuchField(_))
        ));
        assert!(matches!(
            view.take(&[FieldId(5)], &[]),
            Err(SegmentError::NoSuchField(_))
        ));
        assert!(matches!(
            view.take(&[VECTOR], &[2]),
            Err(SegmentError::NoSuchRow { row: 2, rows: 2 })
        ));
        assert!(view.find(&PrimaryKey::Text("1".to_owned())).is_empty());
    }
}

#[tokio::test]
async fn null_vectors_are_never_found() {
    let world = World::new();
    let key = FieldSchema {
        is_primary: true,
        ..field(100, DataType::Int64)
    };
    let vector = FieldSchema {
        dim: 1,
        nullable: true,
        ..field(101, DataType::FloatVector)
    };
    let schema = schema(vec![key, vector]);
    let rows = |first: i64| {
        RowBatch::new(vec![
            Column::full(FieldId(100), ColumnData::Int64((first..first + 4).collect())),
            Column {
                field: VECTOR,
                data: ColumnData::FloatVector {
                    dim: 1,
                    data: vec![0.0, 5.0, 0.0, 1.0],
                },
                validity: Some(Bitmap::from_bools([false, true, true, true])),
            },
        ])
        .unwrap()
    };
    let manifest = world.write(&schema, rows(0), &stamps(4, 1)).await;
    let sealed = world.load(&schema, &manifest).await.unwrap().snapshot();
    let growing = GrowingSegment::new(SEGMENT, PartitionId(1), schema);
    growing.append(rows(0), &stamps(4, 1)).unwrap();
    for view in [&sealed as &dyn SegmentView, &growing.snapshot()] {
        let hits = view
            .search_vectors(VECTOR, QueryVector::Dense(&[0.0]), &params(MetricType::L2, 10), None)
            .unwrap();
        assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [2, 3, 1]);
    }
}

#[test]
fn deletes_hide_older_rows_only() {
    let growing = GrowingSegment::new(SEGMENT, PartitionId(1), small_schema(1));
    let insert = |key: i64, at: u64| {
        growing
            .append(small_rows(&[key], 1, vec![0.0]), &[Timestamp(at)])
            .unwrap();
    };
    let key = PrimaryKey::Int(7);
    insert(7, 10);
    insert(7, 20);
    insert(8, 10);
    let before = growing.snapshot();
    // Not what was written at the same instant or later.
    assert_eq!(growing.delete(&key, Timestamp(10)), 0);
    assert_eq!(growing.delete(&key, Timestamp(20)), 1);
    assert_eq!(growing.snapshot().find(&key), [1]);
    // An upsert: delete and insert at one timestamp.
    assert_eq!(growing.delete(&key, Timestamp(30)), 1);
    insert(7, 30);
    assert_eq!(growing.snapshot().find(&key), [3]);
    // Once more, as a replay would.
    assert_eq!(growing.delete(&key, Timestamp(30)), 0);
    assert_eq!(growing.snapshot().find(&key), [3]);
    assert_eq!(growing.delete(&PrimaryKey::Int(99), Timestamp(99)), 0);
    assert_eq!(
        growing.delete_all(&[PrimaryKey::Int(8), PrimaryKey::Int(8), key.clone()], Timestamp(99)),
        2
    );
    // A snapshot does not change.
    assert_eq!(
        (before.find(&key), before.rows(), before.deleted_rows()),
        (vec![0, 1], 3, 0)
    );
    let after: Vec<_> = growing.deletes_after(&before).into_iter().map(|(_, at)| at.0).collect();
    assert_eq!(after, [20, 30, 99]);
}

#[tokio::test]
async fn sealed_deletes_follow_the_same_rule() {
    let world = World::new();
    let schema = small_schema(1);
    let stamps = [10, 20, 10, 30].map(Timestamp);
    let manifest = world
        .write(&schema, small_rows(&[7, 7, 8, 7], 1, vec![0.0; 4]), &stamps)
        .await;
    let sealed = world.load(&schema, &manifest).await.unwrap();
    let key = PrimaryKey::Int(7);
    let before = sealed.snapshot();
    assert_eq!(sealed.find(&key), [0, 1, 3]);
    assert_eq!(sealed.delete(&key, Timestamp(10)), 0);
    assert_eq!(sealed.delete(&key, Timestamp(30)), 2);
    assert_eq!(sealed.delete(&key, Timestamp(30)), 0);
    assert_eq!(sealed.find(&key), [3]);
    assert_eq!(before.find(&key), [0, 1, 3]);
    assert_eq!(sealed.snapshot().deletes().count_ones(), 2);
    assert!(sealed.find(&PrimaryKey::Text("7".to_owned())).is_empty());
}

fn spec(metric: MetricType) -> IndexSpec {
    IndexSpec {
        name: "vector".to_owned(),
        field: VECTOR,
        kind: IndexKind::Graph,
        type_name: "HNSW".to_owned(),
        metric: Some(metric),
        params: BTreeMap::new(),
    }
}

#[tokio::test]
async fn an_index_answers_the_same_after_it_was_stored() {
    let world = World::new();
    let (dim, rows) = (16, 3_000usize);
    let schema = small_schema(dim);
    let keys: Vec<i64> = (0..3_000).collect();
    let mut numbers = Numbers(11);
    let batch = small_rows(&keys, dim, numbers.vector(rows * dim));
    let mut manifest = world.write(&schema, batch, &stamps(rows, 1)).await;
    let sealed = world.load(&schema, &manifest).await.unwrap();
    let vectors = sealed.vectors(VECTOR).unwrap().clone();
    let build = GraphIndex::build(
        vectors,
        metric_of(MetricType::L2).unwrap(),
        &GraphParams::default(),
        1,
        &|_| (),
        &AtomicBool::new(false),
    );
    let kind = SegmentIndexKind::Graph(build.unwrap());
    let index = Arc::new(SegmentIndex {
        spec: spec(MetricType::L2),
        metric: MetricType::L2,
        kind,
    });
    let entry = write_index(&world.lease, &world.store, PREFIX, &sealed, Arc::clone(&index))
        .await
        .unwrap();
    sealed.set_index(VECTOR, Some(index));
    manifest.indexes.push(entry.clone());
    sealed.delete(&PrimaryKey::Int(5), Timestamp(9_999));

    let again = world.load(&schema, &manifest).await.unwrap();
    again.delete(&PrimaryKey::Int(5), Timestamp(9_999));
    assert!(
        again
            .index(VECTOR)
            .is_some_and(|index| index.graph_for(MetricType::L2).is_some())
    );
    let (built, loaded) = (sealed.snapshot(), again.snapshot());
    // What a search is expected to read: all vectors, or less where a graph for the metric says where to look.
    let expected = |metric, ef, field| loaded.search_bytes(field, &SearchParams { metric, k: 10, ef });
    let all = rows * dim * size_of::<f32>();
    assert_eq!(expected(MetricType::Cosine, 64, VECTOR), all);
    assert!(expected(MetricType::L2, 16, VECTOR) < expected(MetricType::L2, 64, VECTOR));
    assert!(expected(MetricType::L2, 64, VECTOR) < all);
    assert_eq!(expected(MetricType::L2, 4_096, VECTOR), all);
    assert_eq!(expected(MetricType::L2, 64, FieldId(999)), usize::MAX);
    let mut found_best = 0;
    for _ in 0..50 {
        let query = numbers.vector(dim);
        let params = SearchParams {
            metric: MetricType::L2,
            k: 10,
            ef: 64,
        };
        let hits = built
            .search_vectors(VECTOR, QueryVector::Dense(&query), &params, None)
            .unwrap();
        assert_eq!(
            hits,
            loaded
                .search_vectors(VECTOR, QueryVector::Dense(&query), &params, None)
                .unwrap()
        );
        assert!(hits.iter().all(|hit| hit.row != 5));
        let expected = brute_force(&built, &query, &params, None);
        found_best += expected
            .iter()
            .filter(|best| hits.iter().any(|hit| hit.row == best.row))
            .count();
        // The graph is of another metric: compared with everything.
        let other = SearchParams {
            metric: MetricType::Cosine,
            ..params
        };
        let exact = loaded
            .search_vectors(VECTOR, QueryVector::Dense(&query), &other, None)
            .unwrap();
        assert_same(&exact, &brute_force(&loaded, &query, &other, None), "another metric");
    }
    assert!(found_best >= 475, "found {found_best} of 500 nearest");
    again.set_index(VECTOR, None);
    assert!(again.index(VECTOR).is_none());

    // A flat index is an entry without a graph.
    let flat = SegmentIndex {
        spec: spec(MetricType::Ip),
        metric: MetricType::Ip,
        kind: SegmentIndexKind::Flat,
    };
    let flat = write_index(&world.lease, &world.store, PREFIX, &sealed, Arc::new(flat))
        .await
        .unwrap();
    let flat = load_index(&world.lease, &world.store, PREFIX, &sealed, &flat)
        .await
        .unwrap();
    assert!(matches!(flat.kind, SegmentIndexKind::Flat));
    assert_eq!(flat.metric, MetricType::Ip);

    // The index of one segment is none of another.
    let other = world
        .write(
            &schema,
            small_rows(&keys[..10], dim, numbers.vector(10 * dim)),
            &stamps(10, 1),
        )
        .await;
    let other = world.load(&schema, &other).await.unwrap();
    let refused = load_index(&world.lease, &world.store, PREFIX, &other, &entry).await;
    assert!(matches!(refused, Err(SegmentError::Malformed { .. })), "{refused:?}");
    let mut wrong = spec(MetricType::L2);
    wrong.field = FieldId(100);
    let wrong = SegmentIndex {
        spec: wrong,
        metric: MetricType::L2,
        kind: SegmentIndexKind::Flat,
    };
    let refused = write_index(&world.lease, &world.store, PREFIX, &sealed, Arc::new(wrong)).await;
    assert!(matches!(refused, Err(SegmentError::NotAVector { .. })), "{refused:?}");
}
