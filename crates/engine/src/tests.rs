//! What only the inside can see: that a lock drops what is decoded.

use std::sync::Arc;

use saker_keyring::Denial;
use saker_model::{CollectionSchema, Column, ColumnData, ConsistencyLevel, DataType, FieldId, FieldSchema, RowBatch};
use saker_storage::EmbeddedStores;
use saker_testing::{KmsAnswer, ScriptedKms};

use crate::{CollectionSpec, Engine, EngineConfig, IndexRequest, LoadState};

fn field(name: &str, data_type: DataType) -> FieldSchema {
    FieldSchema {
        id: FieldId(0),
        name: name.into(),
        description: String::new(),
        data_type,
        element_type: None,
        is_primary: data_type == DataType::Int64,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: false,
        nullable: false,
        default_value: None,
        dim: if data_type.is_vector() { 2 } else { 0 },
        max_length: 0,
        max_capacity: 0,
        type_params: Default::default(),
    }
}

fn rows(ids: std::ops::Range<i64>) -> RowBatch {
    let count = ids.clone().count();
    RowBatch::new(vec![
        Column::full(FieldId(100), ColumnData::Int64(ids.collect())),
        Column::full(
            FieldId(101),
            ColumnData::FloatVector {
                dim: 2,
                data: vec![0.5; count * 2],
            },
        ),
    ])
    .unwrap()
}

/// Flushes, loads and builds that end in any order: each segment gets its index, in the manifest and in memory.
#[tokio::test(flavor = "multi_thread")]
async fn no_order_of_flush_load_and_build_leaves_a_segment_without_its_index() {
    let directory = tempfile::tempdir().unwrap();
    let kms = Arc::new(ScriptedKms::new());
    let platform = kms.add_root();
    let stores = EmbeddedStores::open(directory.path().join("data")).await.unwrap();
    let config = EngineConfig {
        index_rows_min: 16,
        ..EngineConfig::default()
    };
    let engine = Engine::open(config, stores, kms as _, platform).await.unwrap();
    for round in 0..40_i64 {
        let name = format!("c{round}");
        collection_with_index(&engine, "default", &name).await;
        engine.insert("default", &name, None, rows(0..40)).await.unwrap();
        engine.flush("default", std::slice::from_ref(&name)).await.unwrap();
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        engine.load_collection("default", &name).await.unwrap();
        engine.insert("default", &name, None, rows(40..80)).await.unwrap();
        engine.flush("default", std::slice::from_ref(&name)).await.unwrap();
        let collection = engine.collection("default", &name).unwrap();
        let mut looks = 0;
        loop {
            let opened = collection.current().unwrap();
            let (done, total) = opened.index_progress(&opened.body.load().indexes[0]).await;
            let in_memory = {
                let memory = opened.memory();
                memory.loaded
                    && memory
                        .sealed
                        .values()
                        .all(|segment| segment.index(FieldId(101)).is_some())
            };
            if done == 80 && total == 80 && in_memory {
                break;
            }
            looks += 1;
            assert!(
                looks < 3_000,
                "round {round}: {done} of {total} rows, in memory: {in_memory}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        engine.drop_collection("default", &name).await.unwrap();
    }
}

fn collection(name: &str, fields: Vec<FieldSchema>) -> CollectionSpec {
    CollectionSpec {
        schema: CollectionSchema {
            name: name.into(),
            description: String::new(),
            fields,
            enable_dynamic_field: false,
            functions: Vec::new(),
        },
        shards: 1,
        consistency: ConsistencyLevel::Strong,
        properties: Default::default(),
        partitions: None,
    }
}

async fn collection_with_index(engine: &Arc<Engine>, database: &str, name: &str) {
    let spec = collection(
        name,
        vec![field("id", DataType::Int64), field("vector", DataType::FloatVector)],
    );
    engine.create_collection(database, spec).await.unwrap();
    let request = IndexRequest {
        field: "vector".into(),
        ..IndexRequest::default()
    };
    engine.create_index(database, name, request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_drops_segments_indexes_and_growing_rows() {
    let directory = tempfile::tempdir().unwrap();
    let kms = Arc::new(ScriptedKms::new());
    let (platform, customer) = (kms.add_root(), kms.add_root());
    let stores = EmbeddedStores::open(directory.path().join("data")).await.unwrap();
    let config = EngineConfig {
        index_rows_min: 16,
        ..EngineConfig::default()
    };
    let engine = Engine::open(config, stores, Arc::clone(&kms) as _, platform)
        .await
        .unwrap();
    let properties = [("cipher.key".to_owned(), customer.to_string())].into();
    engine.create_database("zone", properties).await.unwrap();
    collection_with_index(&engine, "zone", "c").await;
    engine.insert("zone", "c", None, rows(0..100)).await.unwrap();
    engine.flush("zone", &["c".into()]).await.unwrap();
    // Enough for lists.
    engine.insert("zone", "c", None, rows(100..3_100)).await.unwrap();
    engine.load_collection("zone", "c").await.unwrap();
    let collection = engine.collection("zone", "c").unwrap();
    let mut looks = 0;
    let held = loop {
        looks += 1;
        assert!(looks < 6_000, "the collection was never loaded with its index");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        if engine.load_state("zone", "c").await.unwrap() != LoadState::Loaded {
            continue;
        }
        let opened = collection.current().unwrap();
        let memory = opened.memory();
        let sealed = memory.sealed.values().next().unwrap();
        let Some(index) = sealed.index(FieldId(101)) else {
            continue;
        };
        let growing = memory.growing.values().next().unwrap();
        if opened.wants_lists(growing) {
            continue;
        }
        let snapshot = growing.snapshot();
        let chunk = saker_segment::SegmentView::chunks(&snapshot).first().unwrap();
        break (
            Arc::downgrade(&opened),
            Arc::downgrade(sealed),
            Arc::downgrade(&index),
            Arc::downgrade(growing),
            // With its lists.
            Arc::downgrade(chunk),
        );
    };
    kms.set(&customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    for _ in 0..1_000 {
        let rows = held.1.upgrade().is_some() || held.2.upgrade().is_some() || held.3.upgrade().is_some();
        let rows = rows || held.4.upgrade().is_some();
        if held.0.upgrade().is_none() && !rows {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("something is still held: {held:?}");
}

/// The index that nobody asks for: of the words of a field that is matched.
#[tokio::test(flavor = "multi_thread")]
async fn words_are_indexed_after_a_flush_and_found_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let kms = Arc::new(ScriptedKms::new());
    let platform = kms.add_root();
    let open = async || {
        let stores = EmbeddedStores::open(directory.path().join("data")).await.unwrap();
        let config = EngineConfig {
            index_rows_min: 16,
            ..EngineConfig::default()
        };
        Engine::open(config, stores, Arc::clone(&kms) as _, platform.clone())
            .await
            .unwrap()
    };
    let engine = open().await;
    let mut body = field("body", DataType::VarChar);
    body.max_length = 100;
    body.type_params = [FieldSchema::ENABLE_ANALYZER, "enable_match"]
        .map(|name| (name.to_owned(), "true".to_owned()))
        .into();
    let fields = vec![
        field("id", DataType::Int64),
        field("vector", DataType::FloatVector),
        body,
    ];
    let spec = collection("c", fields);
    engine.create_collection("default", spec).await.unwrap();
    let vector = IndexRequest {
        field: "vector".into(),
        ..IndexRequest::default()
    };
    engine.create_index("default", "c", vector).await.unwrap();
    let on_the_texts = IndexRequest {
        field: "body".into(),
        params: [("index_type".to_owned(), "INVERTED".to_owned())].into(),
        ..IndexRequest::default()
    };
    engine.create_index("default", "c", on_the_texts).await.unwrap();
    let mut columns = rows(0..200).into_columns();
    let texts = (0..200).map(|row| format!("A text of row{}", row % 9)).collect();
    columns.push(Column::full(FieldId(102), ColumnData::VarChar(texts)));
    let batch = RowBatch::new(columns).unwrap();
    engine.insert("default", "c", None, batch).await.unwrap();
    engine.flush("default", &["c".into()]).await.unwrap();
    engine.load_collection("default", "c").await.unwrap();
    has_words_index(&engine).await;
    let listed = engine.describe_index("default", "c", "").await.unwrap();
    assert_eq!(listed.len(), 2, "the index of words is not listed");
    engine.drop_index("default", "c", "body").await.ok();
    engine.shutdown().await;
    drop(engine);
    let engine = open().await;
    has_words_index(&engine).await;
    let request = crate::QueryRequest {
        database: "default".into(),
        collection: "c".into(),
        filter: crate::Filter {
            text: "text_match(body, 'ROW3 row5')".into(),
            ..crate::Filter::default()
        },
        output_fields: vec!["count(*)".into()],
        ..crate::QueryRequest::default()
    };
    assert_eq!(engine.query(request).await.unwrap().count, Some(44));
    engine.shutdown().await;
}

async fn has_words_index(engine: &Engine) {
    for _ in 0..3_000 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let Some(opened) = engine.collection("default", "c").unwrap().current() else {
            continue;
        };
        let spec = crate::scalar_types::word_indexes(&opened.schema).next().unwrap();
        let memory = opened.memory();
        if memory.loaded && !memory.sealed.is_empty() && memory.sealed.values().all(|one| one.has_scalar_index(&spec)) {
            return;
        }
    }
    panic!("no index of words was built");
}
