//! What is written as a sealed segment is what is loaded, for every type; what was moved or altered is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]

mod common;

use std::path::PathBuf;

use common::{PREFIX, SEGMENT, World, field, full_rows, full_schema, small_rows, small_schema, stamps};
use saker_keyring::FileKind;
use saker_model::{
    ArrayValue, Bitmap, Column, ColumnData, DataType, FieldId, FieldSchema, PartitionId, PrimaryKey, RowBatch,
    SegmentId, Timestamp,
};
use saker_segment::{
    Chunk, ChunkRows, GrowingSegment, SegmentError, SegmentView, remove_files, write_deletes, write_segment,
};
use saker_storage::ObjectStore;

fn path_of(world: &World, name: &str) -> PathBuf {
    world.directory.path().join(PREFIX).join(name)
}

#[tokio::test]
async fn every_type_comes_back() {
    for text_key in [false, true] {
        for rows in [0, 1, 2, 63, 64, 65, 200] {
            let world = World::new();
            let schema = full_schema(text_key);
            let written = full_rows(&schema, 0, rows);
            let manifest = world.write(&schema, written.clone(), &stamps(rows, 1_000)).await;
            assert_eq!(manifest.rows, rows as u64);
            assert_eq!(manifest.columns.len(), schema.fields.len() + 1);
            if rows > 0 {
                assert_eq!(manifest.min_timestamp, Timestamp(1_000));
                assert_eq!(manifest.max_timestamp, Timestamp(1_000 + rows as u64 - 1));
            }
            let loaded = world.load(&schema, &manifest).await.unwrap();
            assert_eq!(loaded.rows(), rows);
            let all: Vec<usize> = (0..rows).collect();
            let fields: Vec<FieldId> = schema.fields.iter().map(|field| field.id).collect();
            let taken = loaded.snapshot().take(&fields, &all).unwrap();
            for (column, original) in taken.iter().zip(written.columns()) {
                assert_eq!(column.data, original.data, "{} rows of field {}", rows, original.field);
                let valid = |column: &Column| (0..rows).map(|row| column.is_valid(row)).collect::<Vec<_>>();
                assert_eq!(
                    valid(column),
                    valid(original),
                    "{} rows of field {}",
                    rows,
                    original.field
                );
            }
            let stamped = loaded.timestamps().to_vec();
            assert_eq!(stamped, (1_000..1_000 + rows as u64).collect::<Vec<_>>());
        }
    }
}

#[tokio::test]
async fn a_manifest_survives_serialisation() {
    let world = World::new();
    let schema = full_schema(true);
    let manifest = world.write(&schema, full_rows(&schema, 0, 10), &stamps(10, 1)).await;
    let text = serde_json::to_string(&manifest).unwrap();
    assert_eq!(
        serde_json::from_str::<saker_segment::SegmentManifest>(&text).unwrap(),
        manifest
    );
    let listed = world.store.list(PREFIX).await.unwrap();
    assert_eq!(listed.len(), manifest.files().count());
    assert_eq!(listed.iter().map(|info| info.bytes).sum::<u64>(), manifest.bytes());
}

#[tokio::test]
async fn every_file_has_an_id_of_its_own_and_no_plaintext() {
    let world = World::new();
    let schema = full_schema(true);
    let canary = "canary-that-nobody-else-writes";
    let rows = full_rows(&schema, 0, 50);
    let columns = rows.into_columns().into_iter().map(|column| {
        if column.field != FieldId(207) {
            return column;
        }
        assert_eq!(column.data.data_type(), DataType::VarChar);
        Column::full(column.field, ColumnData::VarChar(vec![canary.to_owned(); 50]))
    });
    let manifest = world
        .write(&schema, RowBatch::new(columns.collect()).unwrap(), &stamps(50, 1))
        .await;
    let mut files: Vec<_> = manifest.files().map(|entry| entry.file.to_string()).collect();
    files.sort();
    files.dedup();
    assert_eq!(files.len(), manifest.columns.len());
    for entry in manifest.files() {
        let bytes = std::fs::read(path_of(&world, &entry.name)).unwrap();
        assert!(!bytes.windows(canary.len()).any(|window| window == canary.as_bytes()));
    }
}

#[tokio::test]
async fn swapped_columns_are_refused() {
    let world = World::new();
    let schema = full_schema(false);
    let manifest = world.write(&schema, full_rows(&schema, 0, 20), &stamps(20, 1)).await;
    // Two columns of the same type, row count and length: only their identity differs.
    let entry = |field| manifest.column(FieldId(field)).unwrap().clone();
    let (a, b) = (entry(204), entry(100));
    assert_eq!(a.bytes, b.bytes);
    let (path_a, path_b, spare) = (
        path_of(&world, &a.name),
        path_of(&world, &b.name),
        path_of(&world, "spare"),
    );
    std::fs::rename(&path_a, &spare).unwrap();
    std::fs::rename(&path_b, &path_a).unwrap();
    std::fs::rename(&spare, &path_b).unwrap();
    let refused = world.load(&schema, &manifest).await;
    assert!(
        matches!(refused, Err(SegmentError::Refused { segment: SEGMENT, .. })),
        "{refused:?}"
    );

    // A manifest that names them the other way round: the files verify, but are not the columns that it says.
    let mut swapped = manifest.clone();
    for column in &mut swapped.columns {
        let field = column.field;
        if field == a.field || field == b.field {
            let other = if field == a.field { &b } else { &a };
            *column = other.clone();
            column.field = field;
            column.name = if field == a.field {
                a.name.clone()
            } else {
                b.name.clone()
            };
        }
    }
    let refused = world.load(&schema, &swapped).await;
    assert!(matches!(refused, Err(SegmentError::Malformed { .. })), "{refused:?}");
}

#[tokio::test]
async fn altered_cut_and_foreign_files_are_refused() {
    let world = World::new();
    let schema = small_schema(4);
    let manifest = world
        .write(&schema, small_rows(&[1, 2, 3], 4, vec![0.5; 12]), &stamps(3, 1))
        .await;
    for entry in manifest.files() {
        let path = path_of(&world, &entry.name);
        let whole = std::fs::read(&path).unwrap();
        let put = |bytes: &[u8]| {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            file.write_all(bytes).unwrap();
        };
        for position in [0, 20, 100, 191, 192, whole.len() / 2, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[position] ^= 1;
            put(&bytes);
            let refused = world.load(&schema, &manifest).await;
            assert!(
                matches!(refused, Err(SegmentError::Refused { .. })),
                "byte {position}: {refused:?}"
            );
        }
        put(&whole[..whole.len() - 1]);
        assert!(matches!(
            world.load(&schema, &manifest).await,
            Err(SegmentError::Refused { .. })
        ));
        put(&[&whole[..], b"x"].concat());
        assert!(matches!(
            world.load(&schema, &manifest).await,
            Err(SegmentError::Refused { .. })
        ));
        put(&whole);
    }
    world.load(&schema, &manifest).await.unwrap();

    // The same bytes under another zone's keys.
    let other = World::new();
    let refused = saker_segment::SealedSegment::load(&other.lease, &world.store, PREFIX, schema, &manifest).await;
    assert!(matches!(refused, Err(SegmentError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn manifests_that_do_not_fit_are_refused() {
    let world = World::new();
    let schema = small_schema(4);
    let manifest = world
        .write(&schema, small_rows(&[1, 2, 3], 4, vec![0.5; 12]), &stamps(3, 1))
        .await;
    let mut other = manifest.clone();
    other.rows = 2;
    assert!(matches!(
        world.load(&schema, &other).await,
        Err(SegmentError::Malformed { .. })
    ));
    other.rows = u64::MAX;
    assert!(matches!(
        world.load(&schema, &other).await,
        Err(SegmentError::TooManyRows { .. })
    ));
    let mut other = manifest.clone();
    other.segment = SegmentId(72);
    assert!(matches!(
        world.load(&schema, &other).await,
        Err(SegmentError::Malformed { .. })
    ));
    let mut other = manifest.clone();
    other.columns.retain(|entry| entry.field != Some(FieldId(101)));
    let refused = world.load(&schema, &other).await;
    assert!(
        matches!(
            refused,
            Err(SegmentError::Manifest {
                field: FieldId(101),
                ..
            })
        ),
        "{refused:?}"
    );
    let mut other = manifest.clone();
    other.columns[0].kind = FileKind::Index;
    assert!(matches!(
        world.load(&schema, &other).await,
        Err(SegmentError::Refused { .. })
    ));
    let mut other = manifest.clone();
    other.columns[0].name = "../escape".to_owned();
    assert!(matches!(world.load(&schema, &other).await, Err(SegmentError::Path(_))));
    let wider = small_schema(6);
    let refused = world.load(&wider, &manifest).await;
    assert!(matches!(refused, Err(SegmentError::Malformed { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_locked_zone_writes_and_loads_nothing() {
    let world = World::new();
    let schema = small_schema(2);
    let manifest = world
        .write(&schema, small_rows(&[1], 2, vec![0.5; 2]), &stamps(1, 1))
        .await;
    world.zone.lock();
    assert!(matches!(
        world.load(&schema, &manifest).await,
        Err(SegmentError::Locked(_))
    ));
    let source = vec![ChunkRows::of_batch(&schema, small_rows(&[1], 2, vec![0.5; 2]), &stamps(1, 1)).unwrap()];
    let refused = write_segment(
        &world.lease,
        &world.store,
        PREFIX,
        SEGMENT,
        PartitionId(1),
        &schema,
        source,
    )
    .await;
    assert!(matches!(refused, Err(SegmentError::Locked(_))), "{refused:?}");
    assert_eq!(
        world.store.list("").await.unwrap().len(),
        manifest.files().count(),
        "files were left behind"
    );
}

#[tokio::test]
async fn a_flush_keeps_what_is_visible() {
    let world = World::new();
    let schema = full_schema(true);
    let growing = GrowingSegment::new(SEGMENT, PartitionId(1), schema.clone());
    for (first, rows) in [(0, 30), (30, 1), (31, 69)] {
        growing
            .append(full_rows(&schema, first, rows), &stamps(rows, 10 + first as u64))
            .unwrap();
    }
    let before = growing.snapshot();
    for row in [0, 7, 30, 99] {
        assert_eq!(growing.delete(&before.primary_key(row).unwrap(), Timestamp(1_000)), 1);
    }
    let snapshot = growing.snapshot();
    // After the flush began; to be carried over.
    let late = snapshot.primary_key(50).unwrap();
    assert_eq!(growing.delete(&late, Timestamp(2_000)), 1);

    let source = ChunkRows::visible(&snapshot);
    let manifest = write_segment(
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
    assert_eq!(manifest.rows, 96);
    let sealed = world.load(&schema, &manifest).await.unwrap();
    for (key, at) in growing.deletes_after(&snapshot) {
        assert_eq!(sealed.delete(&key, at), 1);
    }
    let (live, flushed) = (growing.snapshot(), sealed.snapshot());
    assert_eq!(flushed.deleted_rows(), 1);
    let fields: Vec<FieldId> = schema
        .fields
        .iter()
        .map(|field| field.id)
        .chain([FieldId::TIMESTAMP])
        .collect();
    for row in 0..100 {
        let key = live.primary_key(row).unwrap();
        let (in_growing, in_sealed) = (live.find(&key), flushed.find(&key));
        assert_eq!(in_growing.len(), in_sealed.len());
        assert_eq!(in_growing.is_empty(), [0, 7, 30, 99, 50].contains(&row));
        let columns = |view: &dyn SegmentView, rows: &[usize]| -> Vec<(ColumnData, bool)> {
            let taken = view.take(&fields, rows).unwrap().into_iter();
            taken
                .map(|column| (column.data.clone(), rows.is_empty() || column.is_valid(0)))
                .collect()
        };
        assert_eq!(columns(&live, &in_growing), columns(&flushed, &in_sealed));
    }
}

#[tokio::test]
async fn deletes_come_back_with_their_timestamps() {
    let world = World::new();
    let schema = small_schema(1);
    let keys: Vec<i64> = (0..100).collect();
    let mut manifest = world
        .write(&schema, small_rows(&keys, 1, vec![0.0; 100]), &stamps(100, 1))
        .await;
    let loaded = world.load(&schema, &manifest).await.unwrap();
    for key in [3, 99, 50] {
        assert_eq!(
            loaded.delete(&PrimaryKey::Int(key), Timestamp(1_000 + key.cast_unsigned())),
            1
        );
    }
    let deleted = loaded.deleted_rows();
    let entry = write_deletes(&world.lease, &world.store, PREFIX, SEGMENT, manifest.rows, &deleted)
        .await
        .unwrap();
    manifest.deletes = Some(entry);
    manifest.deleted_rows = deleted.len() as u64;
    let again = world.load(&schema, &manifest).await.unwrap();
    assert_eq!(again.deleted_rows(), deleted);
    assert_eq!(
        deleted.iter().collect::<Vec<_>>(),
        [(3, 1_003), (50, 1_050), (99, 1_099)]
    );
    assert!(again.find(&PrimaryKey::Int(50)).is_empty());
    assert_eq!(again.find(&PrimaryKey::Int(51)), [51]);
    // Replaying the log changes nothing.
    assert_eq!(again.delete(&PrimaryKey::Int(50), Timestamp(1_050)), 0);
    assert_eq!(again.deleted_rows(), deleted);
}

#[tokio::test]
async fn removed_files_are_gone() {
    let world = World::new();
    let schema = small_schema(1);
    let manifest = world
        .write(&schema, small_rows(&[1], 1, vec![0.0]), &stamps(1, 1))
        .await;
    remove_files(&world.store, PREFIX, manifest.files()).await.unwrap();
    assert!(world.store.list("").await.unwrap().is_empty());
    remove_files(&world.store, PREFIX, manifest.files()).await.unwrap();
    assert!(matches!(
        world.load(&schema, &manifest).await,
        Err(SegmentError::Store(_))
    ));
}

#[test]
fn rows_that_do_not_fit_the_schema_are_refused() {
    let key = FieldSchema {
        is_primary: true,
        ..field(100, DataType::Int64)
    };
    let array = FieldSchema {
        element_type: Some(DataType::Int8),
        ..field(101, DataType::Array)
    };
    let vector = FieldSchema {
        dim: 2,
        ..field(102, DataType::FloatVector)
    };
    let schema = common::schema(vec![key, array, vector]);
    let good = || {
        vec![
            Column::full(FieldId(100), ColumnData::Int64(vec![1, 2])),
            Column::full(
                FieldId(101),
                ColumnData::Array(vec![ArrayValue::Int32(vec![1]), ArrayValue::Int32(vec![])]),
            ),
            Column::full(
                FieldId(102),
                ColumnData::FloatVector {
                    dim: 2,
                    data: vec![0.0; 4],
                },
            ),
        ]
    };
    let build = |columns: Vec<Column>, stamped: usize| {
        Chunk::new(&schema, RowBatch::new(columns).unwrap(), &stamps(stamped, 1)).map(|chunk| chunk.rows())
    };
    assert_eq!(build(good(), 2).unwrap(), 2);
    let refuse = |columns: Vec<Column>, field: i64| match build(columns, 2) {
        Err(SegmentError::Rows { field: found, .. }) => assert_eq!(found, FieldId(field)),
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        build(good(), 1),
        Err(SegmentError::Rows {
            field: FieldId::TIMESTAMP,
            ..
        })
    ));
    refuse(good().into_iter().take(2).collect(), 102);
    refuse(
        good()
            .into_iter()
            .chain([Column::full(FieldId(9), ColumnData::Bool(vec![true; 2]))])
            .collect(),
        9,
    );
    let with = |index: usize, column: Column| {
        let mut columns = good();
        columns[index] = column;
        columns
    };
    refuse(with(0, Column::full(FieldId(100), ColumnData::Int32(vec![1, 2]))), 100);
    let validity = Some(Bitmap::from_bools([true, false]));
    refuse(
        with(
            0,
            Column {
                field: FieldId(100),
                data: ColumnData::Int64(vec![1, 0]),
                validity,
            },
        ),
        100,
    );
    refuse(
        with(
            1,
            Column::full(FieldId(101), ColumnData::Array(vec![ArrayValue::Int64(vec![1]); 2])),
        ),
        101,
    );
    refuse(
        with(
            2,
            Column::full(
                FieldId(102),
                ColumnData::FloatVector {
                    dim: 4,
                    data: vec![0.0; 8],
                },
            ),
        ),
        102,
    );
}
