//! Vectors of every width: growing and sealed segments, with and without a graph, find what comparing by hand finds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]
#![allow(clippy::wildcard_enum_match_arm, reason = "each arm is a type that is tested here")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use common::{Numbers, PREFIX, SEGMENT, World, field, schema, stamps};
use saker_index::{BinaryMetric, BinaryVectors, Vectors, exact_search};
use saker_model::{
    Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldId, FieldSchema, IndexKind, IndexSpec, MetricType,
    PartitionId, PrimaryKey, RowBatch, Timestamp,
};
use saker_segment::{
    GraphIndex, GraphParams, GrowingSegment, Hit, QueryVector, SearchParams, SegmentError, SegmentIndex,
    SegmentIndexKind, SegmentView, metric_of, write_index,
};

const VECTOR: FieldId = FieldId(101);
const DENSE: [DataType; 3] = [DataType::Float16Vector, DataType::BFloat16Vector, DataType::Int8Vector];
const DIM: usize = 16;

fn schema_of(data_type: DataType, nullable: bool) -> Arc<CollectionSchema> {
    let key = FieldSchema {
        is_primary: true,
        ..field(100, DataType::Int64)
    };
    let vector = FieldSchema {
        dim: DIM,
        nullable,
        ..field(101, data_type)
    };
    schema(vec![key, vector])
}

/// A number from 0 to 1 as a 16-bit IEEE 754 float from 1 to 2, and as the upper half of such an `f32`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number from 0 to 1"
)]
fn bits(data_type: DataType, number: f32) -> u16 {
    match data_type {
        DataType::Float16Vector => 0x3c00 | (number * 1_023.0) as u16,
        _ => 0x3f80 | (number * 127.0) as u16,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number from 0 to 1"
)]
fn vectors_of(data_type: DataType, numbers: &mut Numbers, rows: usize) -> ColumnData {
    let mut next = |count: usize| numbers.vector(rows * count);
    match data_type {
        DataType::Float16Vector => ColumnData::Float16Vector {
            dim: DIM,
            data: next(DIM).iter().map(|&number| bits(data_type, number)).collect(),
        },
        DataType::BFloat16Vector => ColumnData::BFloat16Vector {
            dim: DIM,
            data: next(DIM).iter().map(|&number| bits(data_type, number)).collect(),
        },
        DataType::Int8Vector => ColumnData::Int8Vector {
            dim: DIM,
            data: next(DIM).iter().map(|number| (number * 255.0 - 128.0) as i8).collect(),
        },
        _ => ColumnData::BinaryVector {
            dim: DIM,
            data: next(DIM / 8).iter().map(|number| (number * 256.0) as u8).collect(),
        },
    }
}

fn batch(first: i64, vectors: ColumnData, validity: Option<Bitmap>) -> RowBatch {
    let keys = (first..).take(vectors.rows()).collect();
    let vectors = Column {
        field: VECTOR,
        data: vectors,
        validity,
    };
    RowBatch::new(vec![Column::full(FieldId(100), ColumnData::Int64(keys)), vectors]).unwrap()
}

/// What comparing with every visible row by hand gives, through nothing but `take`.
fn expected(view: &dyn SegmentView, query: QueryVector<'_>, params: &SearchParams) -> Vec<Hit> {
    let rows: Vec<usize> = (0..view.rows()).filter(|&row| !view.deletes().contains(row)).collect();
    let taken = view.take(&[VECTOR], &rows).unwrap().remove(0);
    let valid: Vec<u64> = (0..rows.len().div_ceil(64))
        .map(|word| {
            (0..64)
                .filter(|bit| word * 64 + bit < rows.len() && taken.is_valid(word * 64 + bit))
                .fold(0, |bits, bit| bits | 1 << bit)
        })
        .collect();
    let mask = saker_index::RowMask {
        words: &valid,
        rows: rows.len(),
    };
    let dense = |vectors: Vectors| {
        let QueryVector::Dense(query) = query else {
            panic!("a query of bits")
        };
        exact_search(metric_of(params.metric).unwrap(), &vectors, query, params.k, Some(mask))
    };
    let hits = match taken.data {
        ColumnData::Float16Vector { dim, data } => dense(Vectors::of_f16(dim, data).unwrap()),
        ColumnData::BFloat16Vector { dim, data } => dense(Vectors::of_bf16(dim, data).unwrap()),
        ColumnData::Int8Vector { dim, data } => dense(Vectors::of_i8(dim, data).unwrap()),
        ColumnData::BinaryVector { dim, data } => {
            let metric = match params.metric {
                MetricType::Jaccard => BinaryMetric::Jaccard,
                _ => BinaryMetric::Hamming,
            };
            let QueryVector::Binary(query) = query else {
                panic!("a query of numbers")
            };
            let vectors = BinaryVectors::new(dim, data).unwrap();
            vectors.search(metric, query, params.k, Some(mask)).unwrap()
        }
        other => panic!("{:?} is not tested here", other.data_type()),
    };
    let placed = |hit: Hit| Hit {
        row: u32::try_from(rows[hit.row as usize]).unwrap(),
        ..hit
    };
    hits.into_iter().map(placed).collect()
}

#[tokio::test]
async fn growing_and_sealed_segments_find_the_nearest() {
    let mut numbers = Numbers(7);
    for data_type in [DENSE.as_slice(), &[DataType::BinaryVector]].concat() {
        for nullable in [false, true] {
            let world = World::new();
            let schema = schema_of(data_type, nullable);
            let growing = GrowingSegment::new(SEGMENT, PartitionId(1), Arc::clone(&schema));
            for part in 0..7i64 {
                let validity = nullable.then(|| Bitmap::from_bools((0..30).map(|row| (row + part) % 4 != 0)));
                let rows = batch(part * 30, vectors_of(data_type, &mut numbers, 30), validity);
                growing
                    .append(rows, &stamps(30, 1 + 30 * part.cast_unsigned()))
                    .unwrap();
            }
            for key in [3, 77, 200] {
                growing.delete(&PrimaryKey::Int(key), Timestamp(9_999));
            }
            let growing = growing.snapshot();
            let source = saker_segment::ChunkRows::visible(&growing);
            let manifest = saker_segment::write_segment(
                &world.lease,
                &world.store,
                PREFIX,
                SEGMENT,
                PartitionId(1),
                &schema,
                source,
            )
            .await
            .unwrap();
            let sealed = world.load(&schema, &manifest).await.unwrap().snapshot();
            assert_eq!((growing.rows(), sealed.rows()), (210, 207));
            let (floats, bytes): (Vec<f32>, Vec<u8>) = (numbers.vector(DIM), vec![0b1010_0110, 0b0001_1111]);
            let (query, metrics) = match data_type {
                DataType::BinaryVector => (
                    QueryVector::Binary(&bytes),
                    vec![MetricType::Hamming, MetricType::Jaccard],
                ),
                _ => (
                    QueryVector::Dense(&floats),
                    vec![MetricType::L2, MetricType::Ip, MetricType::Cosine],
                ),
            };
            for metric in metrics {
                for k in [1, 10, 500] {
                    let params = SearchParams { metric, k, ef: 0 };
                    for view in [&growing as &dyn SegmentView, &sealed] {
                        let found = view.search_vectors(VECTOR, query, &params, None).unwrap();
                        assert_eq!(found, expected(view, query, &params), "{data_type:?} {metric:?} {k}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_graph_over_narrow_rows_survives_its_file() {
    let mut numbers = Numbers(11);
    for data_type in DENSE {
        let world = World::new();
        let schema = schema_of(data_type, false);
        let rows = batch(0, vectors_of(data_type, &mut numbers, 2_000), None);
        let mut manifest = world.write(&schema, rows, &stamps(2_000, 1)).await;
        let sealed = world.load(&schema, &manifest).await.unwrap();
        let metric = MetricType::L2;
        let vectors = sealed.vectors(VECTOR).unwrap().clone();
        let stop = AtomicBool::new(false);
        let graph = GraphIndex::build(
            vectors,
            metric_of(metric).unwrap(),
            &GraphParams::default(),
            1,
            &|_| (),
            &stop,
        )
        .unwrap();
        let index = Arc::new(SegmentIndex {
            spec: IndexSpec {
                name: "vector".into(),
                field: VECTOR,
                kind: IndexKind::Graph,
                type_name: "HNSW".into(),
                metric: Some(metric),
                params: BTreeMap::new(),
            },
            metric,
            kind: SegmentIndexKind::Graph(graph),
        });
        let entry = write_index(&world.lease, &world.store, PREFIX, &sealed, index)
            .await
            .unwrap();
        manifest.indexes.push(entry);
        let loaded = world.load(&schema, &manifest).await.unwrap();
        assert!(
            loaded
                .index(VECTOR)
                .is_some_and(|index| index.graph_for(metric).is_some())
        );
        let view = loaded.snapshot();
        let mut found_best = 0;
        for _ in 0..20 {
            let query = numbers.vector(DIM);
            let query = QueryVector::Dense(&query);
            let params = SearchParams { metric, k: 10, ef: 100 };
            let hits = view.search_vectors(VECTOR, query, &params, None).unwrap();
            let best = expected(&view, query, &params);
            found_best += best.iter().filter(|best| hits.contains(best)).count();
        }
        assert!(
            found_best >= 190,
            "{data_type:?}: found {found_best} of 200 nearest, with their exact scores"
        );
    }
}

#[test]
fn queries_of_another_form_are_refused() {
    let params = |metric| SearchParams { metric, k: 1, ef: 0 };
    let mut numbers = Numbers(3);
    let mut filled = |data_type| {
        let segment = GrowingSegment::new(SEGMENT, PartitionId(1), schema_of(data_type, false));
        segment
            .append(batch(0, vectors_of(data_type, &mut numbers, 3), None), &stamps(3, 1))
            .unwrap();
        segment.snapshot()
    };
    let (binary, int8) = (filled(DataType::BinaryVector), filled(DataType::Int8Vector));
    let numbers = [0.0; DIM];
    for (view, query, metric) in [
        (&binary, QueryVector::Dense(&numbers), MetricType::L2),
        (&binary, QueryVector::Binary(&[0, 0]), MetricType::L2),
        (&int8, QueryVector::Binary(&[0, 0]), MetricType::Hamming),
        (&int8, QueryVector::Dense(&numbers), MetricType::Jaccard),
    ] {
        let refused = view.search_vectors(VECTOR, query, &params(metric), None);
        assert!(matches!(refused, Err(SegmentError::QueryKind { .. })), "{metric:?}");
    }
    for (view, query, metric) in [
        (&binary, QueryVector::Binary(&[0]), MetricType::Hamming),
        (&int8, QueryVector::Dense(&numbers[1..]), MetricType::L2),
    ] {
        let refused = view.search_vectors(VECTOR, query, &params(metric), None);
        assert!(matches!(refused, Err(SegmentError::Index(_))), "{metric:?}");
    }
}
