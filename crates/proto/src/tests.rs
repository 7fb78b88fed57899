use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Request, server::NamedService};

use crate::{
    FILE_DESCRIPTOR_SET, MILVUS_RPCS, common, milvus,
    milvus::milvus_service_server::{MilvusService, MilvusServiceServer},
    schema,
};

struct Nothing;

#[tonic::async_trait]
impl MilvusService for Nothing {}

#[tonic::async_trait]
impl milvus::proxy_service_server::ProxyService for Nothing {}

/// The stubs never wait, so one poll ends them.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a default stub waited"),
    }
}

#[test]
fn the_service_has_the_rpcs_that_clients_call() {
    for name in [
        "Connect",
        "GetVersion",
        "CreateCollection",
        "Insert",
        "Upsert",
        "Delete",
        "Search",
        "Query",
        "Flush",
    ] {
        assert!(MILVUS_RPCS.contains(&name), "{name} is missing");
    }
    for name in [
        "CreateDatabase",
        "DescribeDatabase",
        "HybridSearch",
        "LoadCollection",
        "GetLoadState",
    ] {
        assert!(MILVUS_RPCS.contains(&name), "{name} is missing");
    }
    let mut unique = MILVUS_RPCS.to_vec();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), MILVUS_RPCS.len());
}

#[test]
fn every_listed_rpc_is_in_the_descriptor_set() {
    let has = |needle: &str| {
        FILE_DESCRIPTOR_SET
            .windows(needle.len())
            .any(|window| window == needle.as_bytes())
    };
    assert!(MILVUS_RPCS.iter().all(|name| has(name)));
    assert!(has("google/protobuf/descriptor.proto"));
}

#[test]
fn a_missing_rpc_says_which_one() {
    let status = ready(Nothing.search(Request::new(milvus::SearchRequest::default()))).unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.message(), "Search is not implemented by this server");
    // The last one of the file too: names and stubs are paired by order.
    let status = ready(milvus::proxy_service_server::ProxyService::register_link(
        &Nothing,
        Request::new(milvus::RegisterLinkRequest::default()),
    ))
    .unwrap_err();
    assert_eq!(status.message(), "RegisterLink is not implemented by this server");
}

#[test]
fn messages_survive_the_wire() {
    let sent = milvus::SearchRequest {
        db_name: "vault".into(),
        collection_name: "words".into(),
        nq: 1,
        search_input: Some(milvus::search_request::SearchInput::PlaceholderGroup(
            Bytes::from_static(b"\x0a\x02$0"),
        )),
        search_params: vec![common::KeyValuePair {
            key: "topk".into(),
            value: "10".into(),
        }],
        ..Default::default()
    };
    let wire = Bytes::from(sent.encode_to_vec());
    let received = milvus::SearchRequest::decode(wire.clone()).unwrap();
    assert_eq!(received, sent);
    let Some(milvus::search_request::SearchInput::PlaceholderGroup(group)) = &received.search_input else {
        panic!("placeholder group lost");
    };
    let inside = wire.as_ptr_range();
    assert!(inside.contains(&group.as_ptr()), "the placeholder group was copied");

    let truncated = wire.slice(..wire.len() - 1);
    assert!(milvus::SearchRequest::decode(truncated).is_err());
}

#[test]
fn vectors_survive_the_wire() {
    let field = schema::FieldData {
        r#type: schema::DataType::FloatVector as i32,
        field_name: "v".into(),
        field: Some(schema::field_data::Field::Vectors(schema::VectorField {
            dim: 2,
            data: Some(schema::vector_field::Data::FloatVector(schema::FloatArray {
                data: vec![0.5, f32::MIN],
            })),
            ..Default::default()
        })),
        ..Default::default()
    };
    assert_eq!(
        schema::FieldData::decode(field.encode_to_vec().as_slice()).unwrap(),
        field
    );
}

#[test]
fn the_server_mounts_under_the_name_that_clients_dial() {
    fn name<S: NamedService>(_: &S) -> &'static str {
        S::NAME
    }
    assert_eq!(
        name(&MilvusServiceServer::new(Nothing)),
        "milvus.proto.milvus.MilvusService"
    );
}
