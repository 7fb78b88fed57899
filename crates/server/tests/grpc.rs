//! The server as a gRPC client sees it: one process, a real engine in a temporary directory, a real socket.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;
use saker_engine::EngineConfig;
use saker_keyring::RootKeyId;
use saker_kms::KeyServicesConfig;
use saker_proto::{
    common::{self, KeyValuePair, PlaceholderGroup, PlaceholderType, PlaceholderValue},
    milvus::{self, milvus_service_client::MilvusServiceClient, search_request::SearchInput},
    schema::{self, FieldData, field_data::Field, scalar_field::Data as Scalars, vector_field::Data as Vectors},
};
use saker_server::{
    listen,
    running::{Running, Settings},
};
use tempfile::TempDir;
use tonic::{Code, Request, transport::Channel};

type Client = MilvusServiceClient<Channel>;

async fn start(dir: &TempDir, auth_required: bool) -> Running {
    let settings = Settings {
        data_dir: dir.path().join("data"),
        keys: KeyServicesConfig {
            platform_key_file: Some(dir.path().join("platform.key")),
            ..KeyServicesConfig::default()
        },
        platform_root: RootKeyId::platform_file(),
        engine: EngineConfig::default(),
        auth_required,
        control: saker_server::running::ControlSettings::default(),
        audit: saker_server::audit::AuditSection::default(),
    };
    let listener = listen::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    Box::pin(Running::start(settings, listener, None)).await.unwrap()
}

async fn client(running: &Running) -> Client {
    let channel = Channel::from_shared(format!("http://{}", running.address)).unwrap();
    MilvusServiceClient::new(channel.connect().await.unwrap())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}

fn pair(key: &str, value: &str) -> KeyValuePair {
    KeyValuePair {
        key: key.into(),
        value: value.into(),
    }
}

async fn make_collection(client: &mut Client, name: &str) {
    let field = |name: &str, data_type: schema::DataType| schema::FieldSchema {
        name: name.into(),
        data_type: data_type as i32,
        ..schema::FieldSchema::default()
    };
    let fields = vec![
        schema::FieldSchema {
            is_primary_key: true,
            ..field("id", schema::DataType::Int64)
        },
        schema::FieldSchema {
            type_params: vec![pair("dim", "2")],
            ..field("vector", schema::DataType::FloatVector)
        },
    ];
    let encoded = schema::CollectionSchema {
        name: name.into(),
        fields,
        ..schema::CollectionSchema::default()
    };
    let create = milvus::CreateCollectionRequest {
        collection_name: name.into(),
        schema: encoded.encode_to_vec().into(),
        ..milvus::CreateCollectionRequest::default()
    };
    assert_eq!(client.create_collection(create).await.unwrap().into_inner().code, 0);
    let index = milvus::CreateIndexRequest {
        collection_name: name.into(),
        field_name: "vector".into(),
        extra_params: vec![pair("index_type", "FLAT"), pair("metric_type", "L2")],
        ..milvus::CreateIndexRequest::default()
    };
    assert_eq!(client.create_index(index).await.unwrap().into_inner().code, 0);
    let load = milvus::LoadCollectionRequest {
        collection_name: name.into(),
        ..milvus::LoadCollectionRequest::default()
    };
    assert_eq!(client.load_collection(load).await.unwrap().into_inner().code, 0);
}

fn rows(collection: &str, count: u32) -> milvus::InsertRequest {
    let ids = (0..i64::from(count)).collect();
    let vectors = (0..count).flat_map(|row| [row as f32, 0.5]).collect();
    let column = |name: &str, data_type: schema::DataType, field: Field| FieldData {
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
        dim: 2,
        data: Some(Vectors::FloatVector(schema::FloatArray { data: vectors })),
        ..schema::VectorField::default()
    };
    milvus::InsertRequest {
        collection_name: collection.into(),
        num_rows: count,
        fields_data: vec![
            column("id", schema::DataType::Int64, Field::Scalars(id)),
            column("vector", schema::DataType::FloatVector, Field::Vectors(vector)),
        ],
        ..milvus::InsertRequest::default()
    }
}

fn search(collection: &str, vector: [f32; 2]) -> milvus::SearchRequest {
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    let placeholder = PlaceholderValue {
        tag: "$0".into(),
        r#type: PlaceholderType::FloatVector as i32,
        values: vec![bytes.into()],
        element_level: false,
    };
    let group = PlaceholderGroup {
        placeholders: vec![placeholder],
    };
    milvus::SearchRequest {
        collection_name: collection.into(),
        search_params: vec![pair("topk", "3"), pair("anns_field", "vector"), pair("params", "{}")],
        nq: 1,
        dsl_type: common::DslType::BoolExprV1 as i32,
        search_input: Some(SearchInput::PlaceholderGroup(group.encode_to_vec().into())),
        ..milvus::SearchRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_and_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&dir, false).await;
    let mut client = client(&running).await;
    let connected = client
        .connect(milvus::ConnectRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(connected.identifier != 0 && connected.server_info.is_some());
    make_collection(&mut client, "books").await;
    let inserted = client.insert(rows("books", 500)).await.unwrap().into_inner();
    assert_eq!((inserted.status.unwrap().code, inserted.insert_cnt), (0, 500));
    let found = client.search(search("books", [7.2, 0.5])).await.unwrap().into_inner();
    assert_eq!(found.status.unwrap().code, 0);
    let results = found.results.unwrap();
    assert_eq!(results.topks, [3]);
    let Some(schema::i_ds::IdField::IntId(ids)) = results.ids.unwrap().id_field else {
        panic!("no integer ids")
    };
    assert_eq!(ids.data, [7, 8, 6]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&dir, false).await;
    let mut client = client(&running).await;
    let refused = client
        .get_metrics(milvus::GetMetricsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("GetMetrics"));
    let missing = client.search(search("nothing", [0.0, 0.0])).await.unwrap().into_inner();
    assert_eq!(missing.status.unwrap().code, 100);
    let mut elsewhere = Request::new(milvus::ShowCollectionsRequest::default());
    elsewhere.metadata_mut().insert("dbname", "nowhere".parse().unwrap());
    let missing = client.show_collections(elsewhere).await.unwrap().into_inner();
    assert_eq!(missing.status.unwrap().code, 800);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_too_large_message_is_final_and_the_connection_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&dir, false).await;
    let mut client = client(&running).await;
    let refused = client.insert(rows("books", 9_000_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("67108864"));
    assert!(client.get_version(milvus::GetVersionRequest::default()).await.is_ok());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_have_to_say_who_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&dir, true).await;
    let mut client = client(&running).await;
    let request = |token: Option<&str>| {
        let mut request = Request::new(milvus::ListDatabasesRequest::default());
        if let Some(token) = token {
            let value = STANDARD.encode(token).parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    };
    for token in [None, Some("root:wrong"), Some("nobody:Milvus"), Some("root")] {
        let refused = client.list_databases(request(token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}");
    }
    for _ in 0..3 {
        assert!(client.list_databases(request(Some("root:Milvus"))).await.is_ok());
    }
    let mut change = Request::new(milvus::UpdateCredentialRequest {
        username: "root".into(),
        old_password: STANDARD.encode("Milvus"),
        new_password: STANDARD.encode("changed"),
        ..milvus::UpdateCredentialRequest::default()
    });
    change
        .metadata_mut()
        .insert("authorization", STANDARD.encode("root:Milvus").parse().unwrap());
    assert_eq!(client.update_credential(change).await.unwrap().into_inner().code, 0);
    assert!(client.list_databases(request(Some("root:Milvus"))).await.is_err());
    assert!(client.list_databases(request(Some("root:changed"))).await.is_ok());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_that_come_together_are_each_answered() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&dir, false).await;
    let mut client = client(&running).await;
    make_collection(&mut client, "books").await;
    client.insert(rows("books", 500)).await.unwrap();
    let ids_of = |found: milvus::SearchResults| {
        assert_eq!(found.status.unwrap().code, 0);
        let Some(schema::i_ds::IdField::IntId(ids)) = found.results.unwrap().ids.unwrap().id_field else {
            panic!("no integer ids")
        };
        ids.data
    };
    // On one connection, some of them beside requests of other kinds.
    let mut together = tokio::task::JoinSet::new();
    for row in 1..200_u16 {
        let mut client = client.clone();
        together.spawn(async move {
            if row % 10 == 0 {
                client.get_version(milvus::GetVersionRequest::default()).await.unwrap();
            }
            let found = client.search(search("books", [f32::from(row) + 0.1, 0.5])).await;
            (i64::from(row), found.unwrap().into_inner())
        });
    }
    while let Some(done) = together.join_next().await {
        let (row, found) = done.unwrap();
        assert_eq!(ids_of(found), [row, row + 1, row - 1]);
    }
    // Many queries in one request, which takes several frames from a client that sends small ones.
    let mut many = search("books", [0.0, 0.0]);
    let vectors = (0..4_000_u16).map(|row| [f32::from(row % 400) + 0.1, 0.5]);
    let placeholder = PlaceholderValue {
        tag: "$0".into(),
        r#type: PlaceholderType::FloatVector as i32,
        values: vectors
            .map(|vector| {
                vector
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect::<Vec<u8>>()
                    .into()
            })
            .collect(),
        element_level: false,
    };
    let group = PlaceholderGroup {
        placeholders: vec![placeholder],
    };
    many.search_input = Some(SearchInput::PlaceholderGroup(group.encode_to_vec().into()));
    many.nq = 4_000;
    let ids = ids_of(client.search(many).await.unwrap().into_inner());
    assert_eq!(ids.len(), 12_000);
    assert!(
        ids.chunks(3)
            .enumerate()
            .all(|(query, ids)| ids[0] == (query % 400) as i64)
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_keep_the_rules_of_all_requests() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(&dir, true).await;
    let mut client = client(&running).await;
    let with_token = |message: milvus::SearchRequest, token: &str| {
        let mut request = Request::new(message);
        let value = STANDARD.encode(token).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    };
    let wanted = || search("books", [0.0, 0.0]);
    assert_eq!(client.search(wanted()).await.unwrap_err().code(), Code::Unauthenticated);
    for token in ["root:wrong", "nobody:Milvus", "root"] {
        let refused = client.search(with_token(wanted(), token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token}");
    }
    // Verified once and remembered after that, until the password changes.
    for _ in 0..3 {
        let found = client.search(with_token(wanted(), "root:Milvus")).await.unwrap();
        assert_eq!(found.into_inner().status.unwrap().code, 100);
    }
    let mut change = Request::new(milvus::UpdateCredentialRequest {
        username: "root".into(),
        old_password: STANDARD.encode("Milvus"),
        new_password: STANDARD.encode("changed"),
        ..milvus::UpdateCredentialRequest::default()
    });
    let token = STANDARD.encode("root:Milvus").parse().unwrap();
    change.metadata_mut().insert("authorization", token);
    assert_eq!(client.update_credential(change).await.unwrap().into_inner().code, 0);
    let refused = client.search(with_token(wanted(), "root:Milvus")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(client.search(with_token(wanted(), "root:changed")).await.is_ok());
    // A message beyond the limit is final, and the connection goes on.
    let mut large = wanted();
    large.dsl = "x".repeat(65 << 20);
    let refused = client.search(with_token(large, "root:changed")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("67108864"));
    assert!(client.search(with_token(wanted(), "root:changed")).await.is_ok());
    // All of it is counted.
    let counted = running.node.metrics.render(&running.node.engine).await.unwrap();
    let counted = String::from_utf8(counted).unwrap();
    for line in [
        "saker_rpc_total{code=\"100\",rpc=\"Search\"} 5",
        "saker_grpc_refused_total{rpc=\"Search\",status=\"16\"} 5",
        "saker_grpc_refused_total{rpc=\"Search\",status=\"8\"} 1",
    ] {
        assert!(
            counted.lines().any(|found| found == line),
            "{line} is not in\n{counted}"
        );
    }
    running.stop().await;
}
