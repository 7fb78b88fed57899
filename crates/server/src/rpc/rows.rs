//! Rows: insert, upsert, delete, flush.

use std::sync::Arc;

use saker_engine::CollectionInfo;
use saker_keyring::{STACK_BYTES, leaving_no_trace};
use saker_model::{RowBatch, SegmentId};
use saker_proto::{
    common::ErrorCode,
    milvus::{
        DeleteRequest, FlushAllRequest, FlushAllResponse, FlushRequest, FlushResponse, GetFlushAllStateRequest,
        GetFlushAllStateResponse, GetFlushStateRequest, GetFlushStateResponse, InsertRequest, MutationResult,
        UpsertRequest,
    },
    schema::{FieldData, LongArray},
};

use super::Call;
use crate::{
    node::Node,
    wire::{
        Failure,
        failure::Code,
        rows_in::{Write, rows_in},
        rows_out::ids_out,
        search::filter_in,
    },
};

/// Rows from which decoding moves off the network threads; below, moving costs more than it saves.
const DECODE_INLINE_ROWS_MAX: u32 = 128;

pub(super) async fn insert(node: &Node, call: &Call, request: InsertRequest) -> Result<MutationResult, Failure> {
    refuse_extras(request.namespace.as_deref())?;
    let database = call.database(&request.db_name);
    let info = node
        .engine
        .describe_collection(&database, &request.collection_name)
        .await?;
    check_schema_version(&info, request.schema_timestamp)?;
    let rows = decode(&info, request.fields_data, request.num_rows, Write::Insert).await?;
    let partition = partition_of(&request.partition_name);
    let done = node
        .engine
        .insert(&database, &request.collection_name, partition, rows)
        .await?;
    node.metrics.rows_inserted(done.inserted);
    Ok(MutationResult {
        insert_cnt: count(done.inserted),
        ..written(done, request.num_rows)
    })
}

pub(super) async fn upsert(node: &Node, call: &Call, request: UpsertRequest) -> Result<MutationResult, Failure> {
    refuse_extras(request.namespace.as_deref())?;
    if request.partial_update || !request.field_ops.is_empty() {
        return Err(Failure::unsupported("a partial update"));
    }
    let database = call.database(&request.db_name);
    let info = node
        .engine
        .describe_collection(&database, &request.collection_name)
        .await?;
    check_schema_version(&info, request.schema_timestamp)?;
    let rows = decode(&info, request.fields_data, request.num_rows, Write::Upsert).await?;
    let partition = partition_of(&request.partition_name);
    let done = node
        .engine
        .upsert(&database, &request.collection_name, partition, rows)
        .await?;
    node.metrics.rows_inserted(done.inserted);
    let upsert_cnt = count(done.inserted);
    Ok(MutationResult {
        upsert_cnt,
        insert_cnt: upsert_cnt,
        ..written(done, request.num_rows)
    })
}

pub(super) async fn delete(node: &Node, call: &Call, request: DeleteRequest) -> Result<MutationResult, Failure> {
    refuse_extras(request.namespace.as_deref())?;
    if request.expr.trim().is_empty() {
        return Err(Failure::invalid(
            "the filter expression of a delete should not be empty",
        ));
    }
    let filter = filter_in(request.expr, request.expr_template_values)?;
    let partition = partition_of(&request.partition_name);
    let database = call.database(&request.db_name);
    let done = node
        .engine
        .delete(&database, &request.collection_name, partition, filter)
        .await?;
    // No ids here: clients take ids in a delete's answer for the whole answer.
    Ok(MutationResult {
        acknowledged: true,
        delete_cnt: count(done.deleted),
        timestamp: done.timestamp.0,
        ..MutationResult::default()
    })
}

pub(super) async fn flush(node: &Node, call: &Call, request: FlushRequest) -> Result<FlushResponse, Failure> {
    let database = call.database(&request.db_name);
    let flushed = node.engine.flush(&database, &request.collection_names).await?;
    let mut response = FlushResponse {
        db_name: database,
        ..FlushResponse::default()
    };
    for collection in flushed {
        let data = collection.segments.iter().map(|segment| segment.0).collect::<Vec<_>>();
        let seconds = i64::try_from(collection.timestamp.millis() / 1_000).unwrap_or(i64::MAX);
        response
            .coll_seg_i_ds
            .insert(collection.collection.clone(), LongArray { data: data.clone() });
        response
            .flush_coll_seg_i_ds
            .insert(collection.collection.clone(), LongArray { data });
        response.coll_seal_times.insert(collection.collection.clone(), seconds);
        response
            .coll_flush_ts
            .insert(collection.collection, collection.timestamp.0);
    }
    Ok(response)
}

pub(super) async fn flush_state(
    node: &Node,
    call: &Call,
    request: GetFlushStateRequest,
) -> Result<GetFlushStateResponse, Failure> {
    let segments: Vec<SegmentId> = request.segment_i_ds.into_iter().map(SegmentId).collect();
    let database = call.database(&request.db_name);
    let flushed = node
        .engine
        .flush_state(&database, &request.collection_name, &segments)
        .await?;
    Ok(GetFlushStateResponse { status: None, flushed })
}

/// Flushes every collection of every database that can be used now.
pub(super) async fn flush_all(node: &Node, _: &Call, _: FlushAllRequest) -> Result<FlushAllResponse, Failure> {
    let mut response = FlushAllResponse::default();
    for database in node.engine.list_databases().await? {
        if matches!(database.lock, saker_engine::LockStatus::Locked { .. }) {
            continue;
        }
        let listed = node.engine.list_collections(&database.name).await?;
        let names: Vec<String> = listed.into_iter().map(|collection| collection.name).collect();
        if !names.is_empty() {
            node.engine.flush(&database.name, &names).await?;
        }
    }
    set_flush_all_timestamp(&mut response, node.timestamp().0);
    Ok(response)
}

#[expect(
    deprecated,
    reason = "current clients still hand this timestamp back to ask for the state"
)]
fn set_flush_all_timestamp(response: &mut FlushAllResponse, timestamp: u64) {
    response.flush_all_ts = timestamp;
}

/// Always done: a flush of everything answers when it is done.
pub(super) async fn flush_all_state(
    _: &Node,
    _: &Call,
    _: GetFlushAllStateRequest,
) -> Result<GetFlushAllStateResponse, Failure> {
    Ok(GetFlushAllStateResponse {
        flushed: true,
        ..GetFlushAllStateResponse::default()
    })
}

async fn decode(info: &CollectionInfo, fields: Vec<FieldData>, rows: u32, write: Write) -> Result<RowBatch, Failure> {
    if rows <= DECODE_INLINE_ROWS_MAX {
        return rows_in(&info.schema, fields, rows, write);
    }
    let schema = Arc::clone(&info.schema);
    let decode = move || leaving_no_trace::<STACK_BYTES, _>(|| rows_in(&schema, fields, rows, write));
    match tokio::task::spawn_blocking(decode).await {
        Ok(outcome) => outcome,
        Err(_) => Err(saker_engine::Error::internal("rows could not be decoded").into()),
    }
}

/// A client that describes the collection by an old schema has to fetch the new one: its columns may not fit.
fn check_schema_version(info: &CollectionInfo, seen: u64) -> Result<(), Failure> {
    if seen == 0 || seen == info.updated.0 {
        return Ok(());
    }
    Err(Failure::new(
        Code::SCHEMA_MISMATCH,
        ErrorCode::SchemaMismatch,
        format!(
            "collection schema mismatch[collection={}]: describe the collection again",
            info.name
        ),
    ))
}

fn refuse_extras(namespace: Option<&str>) -> Result<(), Failure> {
    match namespace {
        None | Some("") => Ok(()),
        Some(_) => Err(Failure::unsupported("a namespace")),
    }
}

fn partition_of(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

fn count(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn written(done: saker_engine::MutationResult, rows: u32) -> MutationResult {
    MutationResult {
        i_ds: Some(ids_out(done.ids)),
        succ_index: (0..rows).collect(),
        acknowledged: true,
        delete_cnt: count(done.deleted),
        timestamp: done.timestamp.0,
        ..MutationResult::default()
    }
}
