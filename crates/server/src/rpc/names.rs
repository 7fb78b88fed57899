//! What of a request goes into the log of requests: names and counts, listed field by field, so that a field that is new
//! in Milvus's interface is left out until somebody lists it.
//!
//! Filters, vectors, rows, properties and passwords are never listed.

use saker_proto::milvus;
use serde_json::{Map, Value};

/// A request with names in it.
pub(super) trait Named {
    /// The database that it names; empty if it names none.
    fn database_name(&self) -> &str;
    /// Other names, and counts.
    fn names(&self) -> Map<String, Value>;
}

/// Longest name that is kept, in characters: Milvus's longest, and one.
const NAME_CHARACTERS_MAX: usize = 256;
/// Names of one list that are kept.
const NAMES_MAX: usize = 64;

/// A field that may be shown.
trait Shown {
    /// `None` if it is not set.
    fn shown(&self) -> Option<Value>;
}

impl Shown for String {
    fn shown(&self) -> Option<Value> {
        (!self.is_empty()).then(|| self.chars().take(NAME_CHARACTERS_MAX).collect::<String>().into())
    }
}

impl Shown for Vec<String> {
    fn shown(&self) -> Option<Value> {
        (!self.is_empty()).then(|| self.iter().take(NAMES_MAX).filter_map(Shown::shown).collect())
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Shown for $number {
            fn shown(&self) -> Option<Value> {
                (*self != <$number>::default()).then(|| (*self).into())
            }
        }
    )*};
}

numbers! { i32 i64 u32 bool }

macro_rules! named {
    ($($request:ident [$($database:ident)?] { $($field:ident $name:literal;)* })*) => {$(
        impl Named for milvus::$request {
            fn database_name(&self) -> &str {
                $(return &self.$database;)?
                #[allow(unreachable_code, reason = "requests without a database end here")]
                ""
            }
            fn names(&self) -> Map<String, Value> {
                #[allow(unused_mut, reason = "requests without names")]
                let mut names = Map::new();
                $(if let Some(value) = self.$field.shown() {
                    names.insert($name.to_owned(), value);
                })*
                names
            }
        }
    )*};
}

named! {
    AllocTimestampRequest [] {}
    AlterAliasRequest [db_name] { collection_name "collection"; alias "alias"; }
    AlterCollectionFieldRequest [db_name] { collection_name "collection"; field_name "field"; }
    AlterCollectionRequest [db_name] { collection_name "collection"; }
    AlterDatabaseRequest [db_name] {}
    AlterIndexRequest [db_name] { collection_name "collection"; index_name "index"; }
    BatchDescribeCollectionRequest [db_name] { collection_name "collection"; }
    CheckHealthRequest [] {}
    ConnectRequest [] {}
    CreateAliasRequest [db_name] { collection_name "collection"; alias "alias"; }
    CreateCollectionRequest [db_name] { collection_name "collection"; consistency_level "consistency_level"; num_partitions "num_partitions"; shards_num "shards_num"; }
    CreateCredentialRequest [] { username "username"; }
    CreateDatabaseRequest [db_name] {}
    CreateIndexRequest [db_name] { collection_name "collection"; field_name "field"; index_name "index"; }
    CreatePartitionRequest [db_name] { collection_name "collection"; partition_name "partition"; }
    DeleteCredentialRequest [] { username "username"; }
    DeleteRequest [db_name] { collection_name "collection"; partition_name "partition"; consistency_level "consistency_level"; }
    DescribeAliasRequest [db_name] { alias "alias"; }
    DescribeCollectionRequest [db_name] { collection_name "collection"; }
    DescribeDatabaseRequest [db_name] {}
    DescribeIndexRequest [db_name] { collection_name "collection"; field_name "field"; index_name "index"; }
    DropAliasRequest [db_name] { alias "alias"; }
    DropCollectionRequest [db_name] { collection_name "collection"; }
    DropDatabaseRequest [db_name] {}
    DropIndexRequest [db_name] { collection_name "collection"; field_name "field"; index_name "index"; }
    DropPartitionRequest [db_name] { collection_name "collection"; partition_name "partition"; }
    FlushAllRequest [] {}
    FlushRequest [db_name] { collection_names "collections"; }
    GetCollectionStatisticsRequest [db_name] { collection_name "collection"; }
    GetFlushAllStateRequest [] {}
    GetFlushStateRequest [db_name] { collection_name "collection"; }
    GetIndexBuildProgressRequest [db_name] { collection_name "collection"; field_name "field"; index_name "index"; }
    GetIndexStateRequest [db_name] { collection_name "collection"; field_name "field"; index_name "index"; }
    GetIndexStatisticsRequest [db_name] { collection_name "collection"; index_name "index"; }
    GetLoadStateRequest [db_name] { collection_name "collection"; partition_names "partitions"; }
    GetLoadingProgressRequest [db_name] { collection_name "collection"; partition_names "partitions"; }
    GetPartitionStatisticsRequest [db_name] { collection_name "collection"; partition_name "partition"; }
    GetPersistentSegmentInfoRequest [db_name] { collection_name "collection"; }
    GetVersionRequest [] {}
    HasCollectionRequest [db_name] { collection_name "collection"; }
    HasPartitionRequest [db_name] { collection_name "collection"; partition_name "partition"; }
    InsertRequest [db_name] { collection_name "collection"; partition_name "partition"; num_rows "rows"; }
    ListAliasesRequest [db_name] { collection_name "collection"; }
    ListCredUsersRequest [] {}
    ListDatabasesRequest [] {}
    LoadCollectionRequest [db_name] { collection_name "collection"; replica_number "replica_number"; }
    LoadPartitionsRequest [db_name] { collection_name "collection"; partition_names "partitions"; replica_number "replica_number"; }
    QueryRequest [db_name] { collection_name "collection"; partition_names "partitions"; output_fields "output_fields"; consistency_level "consistency_level"; }
    ReleaseCollectionRequest [db_name] { collection_name "collection"; }
    RenameCollectionRequest [db_name] { old_name "old_name"; new_db_name "new_db_name"; new_name "new_name"; }
    RunAnalyzerRequest [db_name] { collection_name "collection"; field_name "field"; }
    SearchRequest [db_name] { collection_name "collection"; partition_names "partitions"; nq "nq"; output_fields "output_fields"; consistency_level "consistency_level"; }
    ShowCollectionsRequest [db_name] { }
    ShowPartitionsRequest [db_name] { collection_name "collection"; partition_names "partitions"; }
    TruncateCollectionRequest [db_name] { collection_name "collection"; }
    UpdateCredentialRequest [] { username "username"; }
    UpsertRequest [db_name] { collection_name "collection"; partition_name "partition"; num_rows "rows"; partial_update "partial_update"; }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_counts_are_shown_and_nothing_else() {
        let request = milvus::SearchRequest {
            db_name: "d".into(),
            collection_name: "c".into(),
            partition_names: vec!["p".into()],
            dsl: "secret == 'canary'".into(),
            output_fields: vec!["title".into()],
            nq: 3,
            search_params: vec![saker_proto::common::KeyValuePair {
                key: "k".into(),
                value: "canary".into(),
            }],
            ..Default::default()
        };
        assert_eq!(request.database_name(), "d");
        let shown = json!({ "collection": "c", "partitions": ["p"], "output_fields": ["title"], "nq": 3 });
        assert_eq!(Value::Object(request.names()), shown);
        let request = milvus::CreateCredentialRequest {
            username: "u".into(),
            password: "canary".into(),
            ..Default::default()
        };
        assert_eq!(Value::Object(request.names()), json!({ "username": "u" }));
        assert_eq!(request.database_name(), "");
    }

    #[test]
    fn names_are_bounded() {
        let request = milvus::FlushRequest {
            collection_names: vec!["x".repeat(NAME_CHARACTERS_MAX + 1); NAMES_MAX + 1],
            ..Default::default()
        };
        let shown = request.names();
        let names = shown["collections"].as_array().unwrap();
        assert_eq!(names.len(), NAMES_MAX);
        assert!(
            names
                .iter()
                .all(|name| name.as_str().unwrap().len() == NAME_CHARACTERS_MAX)
        );
    }
}
