//! Milvus's gRPC service over the engine.
//!
//! Each RPC is a function `(node, call, request) -> Result<answer, Failure>` in the module of its subject; [`Service`]
//! binds them to the generated trait, measures them and turns failures into statuses. An RPC that is not listed here
//! answers UNIMPLEMENTED with its name (the generated default).
//!
//! Cancellation: a mutation or definition runs to its end even if the client goes away, so that nothing is left half
//! done; a read is dropped with its request.
//!
//! Start reading at [`Service`].

mod admin;
mod aliases;
mod collections;
mod databases;
mod indexes;
mod names;
mod partitions;
mod rows;
mod search;
mod text;
mod users;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use futures::FutureExt as _;
use saker_model::Limits;
use saker_proto::{
    common,
    milvus::{self, milvus_service_server::MilvusService},
};
use serde_json::{Map, Value};
use tonic::{Request, Response, Status};

use self::names::Named;
use crate::{
    audit::{Accessed, Interface},
    auth::User,
    carried::Carried,
    node::Node,
    wire::{Failure, failure},
};

/// Name of the database that requests without one mean.
pub const DEFAULT_DATABASE: &str = "default";

/// Where the metadata name the database.
pub(crate) const DATABASE_KEY: &str = "dbname";

/// What a request carries beside its message.
#[derive(Clone, Debug)]
pub struct Call {
    /// The database named in the metadata, if any.
    database: Option<String>,
    /// Who asks, if users have to say so.
    pub user: Option<User>,
    /// What the connection carried; `None` where there is no connection, in tests.
    carried: Option<Carried>,
}

impl Call {
    fn of<T>(request: &Request<T>) -> Self {
        let database = request.metadata().get(DATABASE_KEY);
        Self::new(
            database.and_then(|value| value.to_str().ok()),
            request.extensions().get::<User>().cloned(),
            request.extensions().get::<Carried>().cloned(),
        )
    }
    /// What came with a message, the database by [`DATABASE_KEY`].
    pub(crate) fn new(database: Option<&str>, user: Option<User>, carried: Option<Carried>) -> Self {
        Self {
            database: database.filter(|name| !name.is_empty()).map(str::to_owned),
            user,
            carried,
        }
    }
    /// The database that the request means: the one in its message, else in its metadata, else the default one.
    #[must_use]
    pub fn database(&self, in_message: &str) -> String {
        let name = if in_message.is_empty() {
            self.database.clone().unwrap_or_else(|| DEFAULT_DATABASE.to_owned())
        } else {
            in_message.to_owned()
        };
        if let Some(carried) = &self.carried {
            carried.database(&name);
        }
        name
    }
}

/// An answer that carries a status.
trait Answer: prost::Message + Default + 'static {
    fn set_status(&mut self, status: common::Status);
    fn status_code(&self) -> i32;
}

impl Answer for common::Status {
    fn set_status(&mut self, status: common::Status) {
        *self = status;
    }
    fn status_code(&self) -> i32 {
        self.code
    }
}

macro_rules! answers {
    ($($name:ident)*) => {$(
        impl Answer for milvus::$name {
            fn set_status(&mut self, status: common::Status) {
                self.status = Some(status);
            }
            fn status_code(&self) -> i32 {
                self.status.as_ref().map_or(0, |status| status.code)
            }
        }
    )*};
}

answers! {
    AllocTimestampResponse BatchDescribeCollectionResponse BoolResponse CheckHealthResponse ConnectResponse
    DescribeAliasResponse DescribeCollectionResponse DescribeDatabaseResponse DescribeIndexResponse FlushAllResponse
    FlushResponse GetCollectionStatisticsResponse GetFlushAllStateResponse GetFlushStateResponse
    GetIndexBuildProgressResponse GetIndexStateResponse GetIndexStatisticsResponse GetLoadStateResponse
    GetLoadingProgressResponse GetPartitionStatisticsResponse GetPersistentSegmentInfoResponse GetVersionResponse
    ListAliasesResponse ListCredUsersResponse ListDatabasesResponse MutationResult QueryResults RunAnalyzerResponse SearchResults
    ShowCollectionsResponse ShowPartitionsResponse TruncateCollectionResponse
}

/// The gRPC service of one node.
#[derive(Clone, Debug)]
pub struct Service {
    node: Arc<Node>,
}

impl Service {
    /// Serves this node.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    fn answered<A: Answer>(&self, rpc: &'static str, noted: Noted, outcome: Result<A, Failure>) -> Result<A, Status> {
        let answer = match outcome {
            Ok(mut answer) => {
                answer.set_status(failure::success());
                answer
            }
            Err(refusal) => {
                tracing::debug!(rpc, code = refusal.code.0, "refused");
                let mut answer = A::default();
                answer.set_status(refusal.to_status());
                answer
            }
        };
        self.node
            .metrics
            .rpc_answered(rpc, answer.status_code(), noted.started.elapsed());
        noted.answered(&self.node, rpc, answer.status_code());
        // Said here, where it can still be a status: found later, it would end the answer in its middle.
        if answer.encoded_len() > Limits::MESSAGE_BYTES_MAX {
            return Err(crate::rest::too_large());
        }
        Ok(answer)
    }

    /// A search that came without the layers around this service.
    pub(crate) async fn searched(
        &self,
        call: &Call,
        request: milvus::SearchRequest,
    ) -> Result<milvus::SearchResults, Status> {
        let noted = Noted::of(&self.node, call, &request);
        self.read("Search", noted, search::search(&self.node, call, request))
            .await
    }

    /// What a read answers. A bug in one must not take the other requests of its connection with it.
    async fn read<A: Answer>(
        &self,
        rpc: &'static str,
        noted: Noted,
        work: impl Future<Output = Result<A, Failure>>,
    ) -> Result<A, Status> {
        let outcome = AssertUnwindSafe(work).catch_unwind().await;
        self.answered(rpc, noted, outcome.unwrap_or_else(|_| Err(no_answer())))
    }
}

/// When a request came, and what the log of requests will say of it.
struct Noted {
    started: Instant,
    shown: Option<(String, Option<String>, Map<String, Value>)>,
}

impl Noted {
    /// Names are looked at only if they are recorded.
    fn of(node: &Node, call: &Call, request: &impl Named) -> Self {
        let shown = node.audit.records_access().then(|| {
            let user = call.user.as_ref().map(|user| user.name().to_owned());
            (call.database(request.database_name()), user, request.names())
        });
        Self {
            started: Instant::now(),
            shown,
        }
    }
    fn answered(self, node: &Node, action: &'static str, code: i32) {
        if let Some((database, user, params)) = self.shown {
            node.audit.accessed(Accessed {
                action: action.into(),
                interface: Interface::Grpc,
                database,
                user,
                params,
                code,
                started: self.started,
            });
        }
    }
}

/// Runs a handler to its end even if the caller goes away.
async fn to_the_end<A: Send + 'static>(
    work: impl Future<Output = Result<A, Failure>> + Send + 'static,
) -> Result<A, Failure> {
    match tokio::spawn(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(no_answer()),
    }
}

/// The refusal of a request whose handler panicked; the panic itself is in the log.
fn no_answer() -> Failure {
    saker_engine::Error::internal("the request ended without an answer").into()
}

macro_rules! service {
    (
        read { $($read:ident $read_name:literal $read_request:ident => $read_answer:ty, $read_by:path;)* }
        change { $($change:ident $change_name:literal $change_request:ident => $change_answer:ty, $change_by:path;)* }
    ) => {
        #[tonic::async_trait]
        impl MilvusService for Service {
            $(async fn $read(
                &self,
                request: Request<milvus::$read_request>,
            ) -> Result<Response<$read_answer>, Status> {
                let call = Call::of(&request);
                let noted = Noted::of(&self.node, &call, request.get_ref());
                let work = $read_by(&self.node, &call, request.into_inner());
                self.read($read_name, noted, work).await.map(Response::new)
            })*
            $(async fn $change(
                &self,
                request: Request<milvus::$change_request>,
            ) -> Result<Response<$change_answer>, Status> {
                let call = Call::of(&request);
                let noted = Noted::of(&self.node, &call, request.get_ref());
                let node = Arc::clone(&self.node);
                let message = request.into_inner();
                let outcome = to_the_end(async move { $change_by(&node, &call, message).await }).await;
                self.answered($change_name, noted, outcome).map(Response::new)
            })*
        }
    };
}

service! {
    read {
        connect "Connect" ConnectRequest => milvus::ConnectResponse, admin::connect;
        get_version "GetVersion" GetVersionRequest => milvus::GetVersionResponse, admin::version;
        check_health "CheckHealth" CheckHealthRequest => milvus::CheckHealthResponse, admin::health;
        alloc_timestamp "AllocTimestamp" AllocTimestampRequest => milvus::AllocTimestampResponse, admin::timestamp;
        list_databases "ListDatabases" ListDatabasesRequest => milvus::ListDatabasesResponse, databases::list;
        describe_database "DescribeDatabase" DescribeDatabaseRequest => milvus::DescribeDatabaseResponse, databases::describe;
        has_collection "HasCollection" HasCollectionRequest => milvus::BoolResponse, collections::has;
        describe_collection "DescribeCollection" DescribeCollectionRequest => milvus::DescribeCollectionResponse, collections::describe;
        batch_describe_collection "BatchDescribeCollection" BatchDescribeCollectionRequest => milvus::BatchDescribeCollectionResponse, collections::describe_batch;
        show_collections "ShowCollections" ShowCollectionsRequest => milvus::ShowCollectionsResponse, collections::show;
        get_collection_statistics "GetCollectionStatistics" GetCollectionStatisticsRequest => milvus::GetCollectionStatisticsResponse, collections::statistics;
        get_load_state "GetLoadState" GetLoadStateRequest => milvus::GetLoadStateResponse, collections::load_state;
        get_loading_progress "GetLoadingProgress" GetLoadingProgressRequest => milvus::GetLoadingProgressResponse, collections::loading_progress;
        has_partition "HasPartition" HasPartitionRequest => milvus::BoolResponse, partitions::has;
        show_partitions "ShowPartitions" ShowPartitionsRequest => milvus::ShowPartitionsResponse, partitions::show;
        get_partition_statistics "GetPartitionStatistics" GetPartitionStatisticsRequest => milvus::GetPartitionStatisticsResponse, partitions::statistics;
        describe_alias "DescribeAlias" DescribeAliasRequest => milvus::DescribeAliasResponse, aliases::describe;
        list_aliases "ListAliases" ListAliasesRequest => milvus::ListAliasesResponse, aliases::list;
        describe_index "DescribeIndex" DescribeIndexRequest => milvus::DescribeIndexResponse, indexes::describe;
        get_index_state "GetIndexState" GetIndexStateRequest => milvus::GetIndexStateResponse, indexes::state;
        get_index_build_progress "GetIndexBuildProgress" GetIndexBuildProgressRequest => milvus::GetIndexBuildProgressResponse, indexes::progress;
        get_index_statistics "GetIndexStatistics" GetIndexStatisticsRequest => milvus::GetIndexStatisticsResponse, indexes::statistics;
        search "Search" SearchRequest => milvus::SearchResults, search::search;
        query "Query" QueryRequest => milvus::QueryResults, search::query;
        run_analyzer "RunAnalyzer" RunAnalyzerRequest => milvus::RunAnalyzerResponse, text::run_analyzer;
        get_flush_state "GetFlushState" GetFlushStateRequest => milvus::GetFlushStateResponse, rows::flush_state;
        get_flush_all_state "GetFlushAllState" GetFlushAllStateRequest => milvus::GetFlushAllStateResponse, rows::flush_all_state;
        get_persistent_segment_info "GetPersistentSegmentInfo" GetPersistentSegmentInfoRequest => milvus::GetPersistentSegmentInfoResponse, collections::segments;
        list_cred_users "ListCredUsers" ListCredUsersRequest => milvus::ListCredUsersResponse, users::list;
    }
    change {
        create_database "CreateDatabase" CreateDatabaseRequest => common::Status, databases::create;
        drop_database "DropDatabase" DropDatabaseRequest => common::Status, databases::drop;
        alter_database "AlterDatabase" AlterDatabaseRequest => common::Status, databases::alter;
        create_collection "CreateCollection" CreateCollectionRequest => common::Status, collections::create;
        drop_collection "DropCollection" DropCollectionRequest => common::Status, collections::drop;
        rename_collection "RenameCollection" RenameCollectionRequest => common::Status, collections::rename;
        alter_collection "AlterCollection" AlterCollectionRequest => common::Status, collections::alter;
        truncate_collection "TruncateCollection" TruncateCollectionRequest => milvus::TruncateCollectionResponse, collections::truncate;
        load_collection "LoadCollection" LoadCollectionRequest => common::Status, collections::load;
        release_collection "ReleaseCollection" ReleaseCollectionRequest => common::Status, collections::release;
        create_partition "CreatePartition" CreatePartitionRequest => common::Status, partitions::create;
        drop_partition "DropPartition" DropPartitionRequest => common::Status, partitions::drop;
        load_partitions "LoadPartitions" LoadPartitionsRequest => common::Status, partitions::load;
        create_alias "CreateAlias" CreateAliasRequest => common::Status, aliases::create;
        drop_alias "DropAlias" DropAliasRequest => common::Status, aliases::drop;
        alter_alias "AlterAlias" AlterAliasRequest => common::Status, aliases::alter;
        alter_collection_field "AlterCollectionField" AlterCollectionFieldRequest => common::Status, collections::alter_field;
        create_index "CreateIndex" CreateIndexRequest => common::Status, indexes::create;
        alter_index "AlterIndex" AlterIndexRequest => common::Status, indexes::alter;
        drop_index "DropIndex" DropIndexRequest => common::Status, indexes::drop;
        insert "Insert" InsertRequest => milvus::MutationResult, rows::insert;
        upsert "Upsert" UpsertRequest => milvus::MutationResult, rows::upsert;
        delete "Delete" DeleteRequest => milvus::MutationResult, rows::delete;
        flush "Flush" FlushRequest => milvus::FlushResponse, rows::flush;
        flush_all "FlushAll" FlushAllRequest => milvus::FlushAllResponse, rows::flush_all;
        create_credential "CreateCredential" CreateCredentialRequest => common::Status, users::create;
        update_credential "UpdateCredential" UpdateCredentialRequest => common::Status, users::update;
        delete_credential "DeleteCredential" DeleteCredentialRequest => common::Status, users::delete;
    }
}
