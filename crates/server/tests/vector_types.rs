//! Vectors of every width on the wire, byte for byte: what goes in by `FieldData` comes back by `FieldData`, and
//! placeholders of each type find it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use prost::Message as _;
use saker_engine::EngineConfig;
use saker_keyring::RootKeyId;
use saker_kms::KeyServicesConfig;
use saker_proto::{
    common::{self, KeyValuePair, PlaceholderGroup, PlaceholderType, PlaceholderValue},
    milvus::{self, milvus_service_client::MilvusServiceClient, search_request::SearchInput},
    schema::{
        self, DataType as Wire, FieldData, field_data::Field, scalar_field::Data as Scalars,
        vector_field::Data as Vectors,
    },
};
use saker_server::{
    listen,
    running::{Running, Settings},
};
use tempfile::TempDir;
use tonic::transport::Channel;

type Client = MilvusServiceClient<Channel>;

/// Code of an invalid parameter.
const INVALID: i32 = 1100;

async fn start(dir: &TempDir) -> (Running, Client) {
    let settings = Settings {
        data_dir: dir.path().join("data"),
        keys: KeyServicesConfig {
            platform_key_file: Some(dir.path().join("platform.key")),
            ..KeyServicesConfig::default()
        },
        platform_root: RootKeyId::platform_file(),
        engine: EngineConfig::default(),
        auth_required: false,
        control: saker_server::running::ControlSettings::default(),
        audit: saker_server::audit::AuditSection::default(),
    };
    let listener = listen::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let running = Box::pin(Running::start(settings, listener, None)).await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", running.address)).unwrap();
    let client = MilvusServiceClient::new(channel.connect().await.unwrap());
    (running, client)
}

fn pair(key: &str, value: &str) -> KeyValuePair {
    KeyValuePair {
        key: key.into(),
        value: value.into(),
    }
}

/// One type of vector, with three rows of one value in several places.
struct Kind {
    wire: Wire,
    placeholder: PlaceholderType,
    dim: usize,
    row_bytes: usize,
    metric: &'static str,
    vectors: fn(Vec<u8>) -> Vectors,
    /// Bytes of a row at distance `n` from the row of zeros.
    row: fn(u8) -> Vec<u8>,
}

const KINDS: [Kind; 4] = [
    Kind {
        wire: Wire::Float16Vector,
        placeholder: PlaceholderType::Float16Vector,
        dim: 2,
        row_bytes: 4,
        metric: "L2",
        vectors: |bytes| Vectors::Float16Vector(bytes.into()),
        // 0, 1, 2, 3 as 16-bit floats.
        row: |n| {
            [0x0000u16, 0x3c00, 0x4000, 0x4200][n as usize]
                .to_le_bytes()
                .into_iter()
                .chain([0, 0])
                .collect()
        },
    },
    Kind {
        wire: Wire::BFloat16Vector,
        placeholder: PlaceholderType::BFloat16Vector,
        dim: 2,
        row_bytes: 4,
        metric: "L2",
        vectors: |bytes| Vectors::Bfloat16Vector(bytes.into()),
        row: |n| {
            [0x0000u16, 0x3f80, 0x4000, 0x4040][n as usize]
                .to_le_bytes()
                .into_iter()
                .chain([0, 0])
                .collect()
        },
    },
    Kind {
        wire: Wire::Int8Vector,
        placeholder: PlaceholderType::Int8Vector,
        dim: 3,
        row_bytes: 3,
        metric: "L2",
        vectors: |bytes| Vectors::Int8Vector(bytes.into()),
        row: |n| vec![0, n.wrapping_neg(), 0],
    },
    Kind {
        wire: Wire::BinaryVector,
        placeholder: PlaceholderType::BinaryVector,
        dim: 16,
        row_bytes: 2,
        metric: "HAMMING",
        vectors: |bytes| Vectors::BinaryVector(bytes.into()),
        row: |n| vec![[0, 1, 3, 7][n as usize], 0],
    },
];

async fn create(client: &mut Client, kind: &Kind, dim: usize, metric: &str, index_type: &str) -> [common::Status; 2] {
    let field = |name: &str, data_type: Wire| schema::FieldSchema {
        name: name.into(),
        data_type: data_type as i32,
        ..schema::FieldSchema::default()
    };
    let fields = vec![
        schema::FieldSchema {
            is_primary_key: true,
            ..field("id", Wire::Int64)
        },
        schema::FieldSchema {
            type_params: vec![pair("dim", &dim.to_string())],
            ..field("v", kind.wire)
        },
    ];
    let encoded = schema::CollectionSchema {
        name: "c".into(),
        fields,
        ..schema::CollectionSchema::default()
    };
    let create = milvus::CreateCollectionRequest {
        collection_name: "c".into(),
        schema: encoded.encode_to_vec().into(),
        ..milvus::CreateCollectionRequest::default()
    };
    let created = client.create_collection(create).await.unwrap().into_inner();
    let index = milvus::CreateIndexRequest {
        collection_name: "c".into(),
        field_name: "v".into(),
        extra_params: vec![pair("index_type", index_type), pair("metric_type", metric)],
        ..milvus::CreateIndexRequest::default()
    };
    let indexed = client.create_index(index).await.unwrap().into_inner();
    let load = milvus::LoadCollectionRequest {
        collection_name: "c".into(),
        ..milvus::LoadCollectionRequest::default()
    };
    client.load_collection(load).await.unwrap();
    [created, indexed]
}

async fn drop_collection(client: &mut Client) {
    let drop = milvus::DropCollectionRequest {
        collection_name: "c".into(),
        ..milvus::DropCollectionRequest::default()
    };
    client.drop_collection(drop).await.unwrap();
}

fn insert(kind: &Kind, ids: Vec<i64>, dim: i64, vectors: Vectors) -> milvus::InsertRequest {
    let num_rows = u32::try_from(ids.len()).unwrap();
    let column = |name: &str, data_type: Wire, field: Field| FieldData {
        r#type: data_type as i32,
        field_name: name.into(),
        field: Some(field),
        ..FieldData::default()
    };
    let id = schema::ScalarField {
        data: Some(Scalars::LongData(schema::LongArray { data: ids })),
        ..schema::ScalarField::default()
    };
    let vector = schema::VectorField {
        dim,
        data: Some(vectors),
        ..schema::VectorField::default()
    };
    milvus::InsertRequest {
        collection_name: "c".into(),
        num_rows,
        fields_data: vec![
            column("id", Wire::Int64, Field::Scalars(id)),
            column("v", kind.wire, Field::Vectors(vector)),
        ],
        ..milvus::InsertRequest::default()
    }
}

fn search(placeholder: PlaceholderType, queries: Vec<Vec<u8>>, params: &str) -> milvus::SearchRequest {
    let value = PlaceholderValue {
        tag: "$0".into(),
        r#type: placeholder as i32,
        values: queries.into_iter().map(Into::into).collect(),
        element_level: false,
    };
    let group = PlaceholderGroup {
        placeholders: vec![value],
    };
    milvus::SearchRequest {
        collection_name: "c".into(),
        search_params: vec![pair("topk", "4"), pair("anns_field", "v"), pair("params", params)],
        nq: 1,
        output_fields: vec!["v".into()],
        dsl_type: common::DslType::BoolExprV1 as i32,
        search_input: Some(SearchInput::PlaceholderGroup(group.encode_to_vec().into())),
        ..milvus::SearchRequest::default()
    }
}

fn vectors_of(fields: &[FieldData]) -> (i64, Vectors) {
    let field = fields.iter().find(|field| field.field_name == "v").unwrap();
    let Field::Vectors(vectors) = field.field.clone().unwrap() else {
        panic!("no vectors")
    };
    (vectors.dim, vectors.data.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_goes_in_is_found_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (running, mut client) = start(&dir).await;
    for kind in &KINDS {
        let [created, indexed] = create(&mut client, kind, kind.dim, kind.metric, "AUTOINDEX").await;
        assert_eq!(
            (created.code, indexed.code),
            (0, 0),
            "{} {}",
            created.reason,
            indexed.reason
        );
        let dim = i64::try_from(kind.dim).unwrap();
        let describe = milvus::DescribeCollectionRequest {
            collection_name: "c".into(),
            ..milvus::DescribeCollectionRequest::default()
        };
        let described = client.describe_collection(describe).await.unwrap().into_inner();
        let field = described.schema.unwrap().fields.remove(1);
        assert_eq!(field.data_type, kind.wire as i32);
        assert_eq!(field.type_params, [pair("dim", &kind.dim.to_string())]);

        let all: Vec<u8> = (0..4).flat_map(|n| (kind.row)(n)).collect();
        assert_eq!(all.len(), 4 * kind.row_bytes);
        let rows = insert(kind, vec![10, 11, 12, 13], dim, (kind.vectors)(all.clone()));
        let inserted = client.insert(rows).await.unwrap().into_inner();
        assert_eq!((inserted.status.unwrap().code, inserted.insert_cnt), (0, 4));

        for flushed in [false, true] {
            if flushed {
                let flush = milvus::FlushRequest {
                    collection_names: vec!["c".into()],
                    ..milvus::FlushRequest::default()
                };
                client.flush(flush).await.unwrap();
            }
            let found = client
                .search(search(kind.placeholder, vec![(kind.row)(0)], "{}"))
                .await
                .unwrap();
            let results = found.into_inner().results.unwrap();
            let Some(schema::i_ds::IdField::IntId(ids)) = results.ids.unwrap().id_field else {
                panic!("no integer ids")
            };
            assert_eq!(ids.data, [10, 11, 12, 13]);
            let expected = if kind.metric == "L2" {
                [0.0, 1.0, 4.0, 9.0]
            } else {
                [0.0, 1.0, 2.0, 3.0]
            };
            assert_eq!(results.scores, expected);
            assert_eq!(vectors_of(&results.fields_data), (dim, (kind.vectors)(all.clone())));
            let query = milvus::QueryRequest {
                collection_name: "c".into(),
                expr: "id in [13, 11]".into(),
                output_fields: vec!["v".into()],
                ..milvus::QueryRequest::default()
            };
            let rows = client.query(query).await.unwrap().into_inner();
            let two = [(kind.row)(1), (kind.row)(3)].concat();
            assert_eq!(vectors_of(&rows.fields_data), (dim, (kind.vectors)(two)));
        }
        drop_collection(&mut client).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (running, mut client) = start(&dir).await;
    for kind in &KINDS {
        let binary = kind.wire == Wire::BinaryVector;
        create(&mut client, kind, kind.dim, kind.metric, "AUTOINDEX").await;
        let dim = i64::try_from(kind.dim).unwrap();
        let half = vec![0; kind.row_bytes / 2];
        let mut refusals = vec![
            (insert(kind, vec![1], dim, (kind.vectors)(half)), ""),
            (
                insert(kind, vec![1], dim + 8, (kind.vectors)((kind.row)(1))),
                "is not equal to schema dim",
            ),
            (
                insert(kind, vec![1, 2], dim, (kind.vectors)((kind.row)(1))),
                "number of rows",
            ),
            (
                insert(
                    kind,
                    vec![1],
                    dim,
                    Vectors::SparseFloatVector(schema::SparseFloatArray::default()),
                ),
                "carries no",
            ),
        ];
        for (wire, special) in [(Wire::Float16Vector, 0x7c00u16), (Wire::BFloat16Vector, 0x7fc0)] {
            if kind.wire == wire {
                let bytes = [special.to_le_bytes(), [0, 0]].concat();
                refusals.push((
                    insert(kind, vec![1], dim, (kind.vectors)(bytes)),
                    "not a number or infinite",
                ));
            }
        }
        for (request, said) in refusals {
            let status = client.insert(request).await.unwrap().into_inner().status.unwrap();
            assert_eq!(status.code, INVALID, "{said}: {}", status.reason);
            assert!(status.reason.contains(said), "{} lacks {said}", status.reason);
        }
        let good = insert(kind, vec![1], dim, (kind.vectors)((kind.row)(1)));
        assert_eq!(client.insert(good).await.unwrap().into_inner().status.unwrap().code, 0);

        let other = if binary {
            PlaceholderType::Int8Vector
        } else {
            PlaceholderType::BinaryVector
        };
        let longer = [(kind.row)(1), vec![0; 4]].concat();
        let searches = [
            (
                search(other, vec![(kind.row)(1)], "{}"),
                "vector type must be the same, field v - type",
            ),
            (
                search(kind.placeholder, vec![longer], "{}"),
                "vector dimension mismatch",
            ),
            (search(kind.placeholder, vec![], "{}"), "nq [0] is invalid"),
            (
                search(kind.placeholder, vec![(kind.row)(1)], r#"{"level": 11}"#),
                "param 'level' (11)",
            ),
        ];
        for (request, said) in searches {
            let status = client.search(request).await.unwrap().into_inner().status.unwrap();
            assert_eq!(status.code, INVALID, "{}", status.reason);
            assert!(status.reason.contains(said), "{} lacks {said}", status.reason);
        }
        drop_collection(&mut client).await;
    }
    let binary = &KINDS[3];
    for (dim, metric, index_type, place, said) in [
        (
            12,
            "HAMMING",
            "BIN_FLAT",
            0,
            "binary vector dimension should be multiple of 8",
        ),
        (
            16,
            "COSINE",
            "BIN_FLAT",
            1,
            "binary vector index does not support metric type: COSINE",
        ),
        (
            16,
            "HAMMING",
            "HNSW",
            1,
            "data type BinaryVector can't build with this index HNSW",
        ),
        (16, "HAMMING", "BIN_HNSW", 1, "invalid index type: BIN_HNSW"),
    ] {
        let outcome = create(&mut client, binary, dim, metric, index_type).await;
        assert_eq!(outcome[place].code, INVALID, "{}", outcome[place].reason);
        assert!(
            outcome[place].reason.contains(said),
            "{} lacks {said}",
            outcome[place].reason
        );
        drop_collection(&mut client).await;
    }
    running.stop().await;
}
