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
    let spec = CollectionSpec {
        schema: CollectionSchema {
            name: "c".into(),
            description: String::new(),
            fields: vec![field("id", DataType::Int64), field("vector", DataType::FloatVector)],
            enable_dynamic_field: false,
        },
        shards: 1,
        consistency: ConsistencyLevel::Strong,
        properties: Default::default(),
        partitions: None,
    };
    engine.create_collection("zone", spec).await.unwrap();
    let request = IndexRequest {
        field: "vector".into(),
        ..IndexRequest::default()
    };
    engine.create_index("zone", "c", request).await.unwrap();
    engine.insert("zone", "c", None, rows(0..100)).await.unwrap();
    engine.flush("zone", &["c".into()]).await.unwrap();
    engine.insert("zone", "c", None, rows(100..110)).await.unwrap();
    engine.load_collection("zone", "c").await.unwrap();
    let collection = engine.collection("zone", "c").unwrap();
    let held = loop {
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
        break (
            Arc::downgrade(&opened),
            Arc::downgrade(sealed),
            Arc::downgrade(&index),
            Arc::downgrade(memory.growing.values().next().unwrap()),
        );
    };
    kms.set(&customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    for _ in 0..1_000 {
        let rows = held.1.upgrade().is_some() || held.2.upgrade().is_some() || held.3.upgrade().is_some();
        if held.0.upgrade().is_none() && !rows {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("something is still held: {held:?}");
}
