//! Rows in, rows out: collections, partitions, filters, restarts.

use crate::common::{
    Cluster, brute_force, collection, count, field, filter, ids, index_and_load, insert, ints, loaded, name_of,
    named_rows, query_request, rows, search, search_request, spec, spec_of, vector,
};
use saker_engine::{ErrorKind, LoadState, PrimaryKeys, Queries, SearchParams};
use saker_model::{Column, ColumnData, DataType, FieldId, RowBatch};

const DB: &str = "zone";

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_before_and_after_a_restart() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "words", "AUTOINDEX").await;
    insert(&engine, DB, "words", 0..300).await;
    let expected = brute_force(0..300, &vector(7), 10);
    let found = search(&engine, DB, "words", 7, 10).await;
    assert_eq!(ints(&found.ids), expected);
    assert_eq!(found.scores[0], 0.0);
    let ColumnData::VarChar(names) = &found.columns[0].column.data else {
        panic!("names")
    };
    assert_eq!(*names, expected.iter().map(|id| name_of(*id)).collect::<Vec<_>>());
    engine.shutdown().await;
    drop(engine);

    let engine = cluster.open().await;
    loaded(&engine, DB, "words").await;
    assert_eq!(ints(&search(&engine, DB, "words", 7, 10).await.ids), expected);
    assert_eq!(count(&engine, DB, "words").await, 300);
    engine.flush(DB, &["words".into()]).await.unwrap();
    insert(&engine, DB, "words", 300..310).await;
    assert_eq!(ids(&engine, DB, "words").await, (0..310).collect::<Vec<_>>());
    engine.shutdown().await;
    drop(engine);

    let engine = cluster.open().await;
    loaded(&engine, DB, "words").await;
    assert_eq!(ids(&engine, DB, "words").await, (0..310).collect::<Vec<_>>());
    assert_eq!(ints(&search(&engine, DB, "words", 305, 1).await.ids), [305]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_output_fields_and_windows() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "FLAT").await;
    insert(&engine, "default", "c", (0..50).rev()).await;
    engine.flush("default", &["c".into()]).await.unwrap();
    insert(&engine, "default", "c", 50..100).await;

    let mut request = search_request("default", "c", 3, 5);
    request.filter = filter("canary_key >= 40 and name like \"canary%\"");
    request.output_fields = vec!["*".into()];
    let found = engine.search(request).await.unwrap();
    assert_eq!(ints(&found.ids), brute_force(40..100, &vector(3), 5));
    let names: Vec<_> = found.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "vector", "name", "$meta"]);

    let mut request = search_request("default", "c", 3, 5);
    request.offset = 5;
    assert_eq!(
        ints(&engine.search(request).await.unwrap().ids),
        brute_force(0..100, &vector(3), 10)[5..]
    );

    let mut request = query_request("default", "c", "", &["name", "canary_key"]);
    request.limit = Some(10);
    request.offset = 45;
    let result = engine.query(request).await.unwrap();
    let ColumnData::Int64(keys) = &result.columns[0].column.data else {
        panic!("keys")
    };
    assert_eq!(*keys, (45..55).collect::<Vec<_>>());
    let dynamic = result.columns.iter().find(|column| column.is_dynamic).unwrap();
    let ColumnData::Json(documents) = &dynamic.column.data else {
        panic!("documents")
    };
    assert_eq!(documents[0], b"{\"canary_key\":45}");

    let by_key = engine
        .query(query_request("default", "c", "id in [99, 3, 1000]", &["id"]))
        .await
        .unwrap();
    assert_eq!(by_key.rows, 2);

    // A range: distances of the 3rd to the 6th nearest.
    let all = search(&engine, "default", "c", 3, 10).await;
    let mut request = search_request("default", "c", 3, 10);
    request.params = SearchParams {
        ef: None,
        radius: Some(all.scores[6]),
        range_filter: Some(all.scores[3]),
        ..SearchParams::default()
    };
    assert_eq!(ints(&engine.search(request).await.unwrap().ids), ints(&all.ids)[3..6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn upserts_replace_and_deletes_hide_wherever_the_rows_are() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "FLAT").await;
    insert(&engine, "default", "c", 0..20).await;
    engine.flush("default", &["c".into()]).await.unwrap();
    insert(&engine, "default", "c", 20..40).await;
    // One sealed, one growing, one new; one twice in a request.
    let replacing = named_rows(&[5, 25, 45, 5], vec!["x".into(), "y".into(), "z".into(), "last".into()]);
    let done = engine.upsert("default", "c", None, replacing).await.unwrap();
    assert_eq!(done.ids, PrimaryKeys::Int(vec![25, 45, 5]));
    let deleted = engine
        .delete("default", "c", None, filter("id in [0, 21]"))
        .await
        .unwrap();
    assert_eq!(deleted.deleted, 2);
    let deleted = engine
        .delete("default", "c", None, filter("name == \"canary-name-000001\""))
        .await
        .unwrap();
    assert_eq!(deleted.ids, PrimaryKeys::Int(vec![1]));
    let expected: Vec<i64> = (2..20).chain([20]).chain(22..40).chain([45]).collect();

    for round in 0..4 {
        assert_eq!(ids(&engine, "default", "c").await, expected, "round {round}");
        assert_eq!(count(&engine, "default", "c").await, expected.len() as u64);
        assert_eq!(
            engine.row_count("default", "c", None).await.unwrap(),
            expected.len() as u64
        );
        let named = engine
            .query(query_request("default", "c", "id in [5, 25]", &["name"]))
            .await
            .unwrap();
        let column = named.columns.iter().find(|column| column.name == "name").unwrap();
        assert_eq!(column.column.data, ColumnData::VarChar(vec!["last".into(), "y".into()]));
        assert_eq!(
            ints(&search(&engine, "default", "c", 1, 3).await.ids),
            brute_force(expected.clone(), &vector(1), 3)
        );
        match round {
            0 => drop(engine.flush("default", &["c".into()]).await.unwrap()),
            1 => {
                engine.release_collection("default", "c").await.unwrap();
                let refused = engine.search(search_request("default", "c", 1, 1)).await.unwrap_err();
                assert_eq!(refused.kind, ErrorKind::CollectionNotLoaded);
                engine.load_collection("default", "c").await.unwrap();
                loaded(&engine, "default", "c").await;
            }
            _ => {}
        }
    }
    // Deletes that come while the rows are not in memory.
    engine.release_collection("default", "c").await.unwrap();
    assert_eq!(engine.load_state("default", "c").await.unwrap(), LoadState::NotLoaded);
    engine
        .delete("default", "c", None, filter("id in [2, 3]"))
        .await
        .unwrap();
    engine.flush("default", &["c".into()]).await.unwrap();
    engine.delete("default", "c", None, filter("id == 4")).await.unwrap();
    engine.load_collection("default", "c").await.unwrap();
    loaded(&engine, "default", "c").await;
    assert_eq!(ids(&engine, "default", "c").await, expected[3..]);
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, "default", "c").await;
    assert_eq!(ids(&engine, "default", "c").await, expected[3..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_keep_rows_apart() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "FLAT").await;
    engine.create_partition("default", "c", "other").await.unwrap();
    insert(&engine, "default", "c", 0..10).await;
    engine
        .insert("default", "c", Some("other"), rows(10..20))
        .await
        .unwrap();
    engine.flush("default", &["c".into()]).await.unwrap();
    engine
        .insert("default", "c", Some("other"), rows(20..25))
        .await
        .unwrap();
    assert_eq!(engine.row_count("default", "c", Some("other")).await.unwrap(), 15);
    let mut request = search_request("default", "c", 3, 30);
    request.partitions = vec!["other".into()];
    assert_eq!(
        ints(&engine.search(request).await.unwrap().ids),
        brute_force(10..25, &vector(3), 30)
    );
    // A delete in one partition leaves the other alone.
    engine
        .delete("default", "c", Some("other"), filter("id in [1, 11]"))
        .await
        .unwrap();
    assert_eq!(count(&engine, "default", "c").await, 24);
    engine.drop_partition("default", "c", "other").await.unwrap();
    assert_eq!(ids(&engine, "default", "c").await, (0..10).collect::<Vec<_>>());
    assert!(!engine.has_partition("default", "c", "other").await.unwrap());
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, "default", "c").await;
    assert_eq!(ids(&engine, "default", "c").await, (0..10).collect::<Vec<_>>());
    engine.truncate_collection("default", "c").await.unwrap();
    assert_eq!(count(&engine, "default", "c").await, 0);
    insert(&engine, "default", "c", 5..7).await;
    assert_eq!(ids(&engine, "default", "c").await, [5, 6]);
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    loaded(&engine, "default", "c").await;
    assert_eq!(ids(&engine, "default", "c").await, [5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_key_spreads_rows_and_keys_made_by_the_server_never_repeat() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    let mut id = field("id", DataType::Int64);
    (id.is_primary, id.auto_id) = (true, true);
    let mut tenant = field("tenant", DataType::VarChar);
    tenant.is_partition_key = true;
    let fields = vec![id, field("vector", DataType::FloatVector), tenant];
    engine
        .create_collection("default", spec_of("c", fields, false))
        .await
        .unwrap();
    index_and_load(&engine, "default", "c", "FLAT").await;
    assert_eq!(engine.list_partitions("default", "c").await.unwrap().len(), 16);
    let batch = || {
        let data = (0..40).flat_map(vector).collect();
        RowBatch::new(vec![
            Column::full(
                FieldId(101),
                ColumnData::FloatVector {
                    dim: crate::common::DIM,
                    data,
                },
            ),
            Column::full(
                FieldId(102),
                ColumnData::VarChar((0..40).map(|n| format!("t{}", n % 20)).collect()),
            ),
        ])
        .unwrap()
    };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        seen.extend(ints(&engine.insert("default", "c", None, batch()).await.unwrap().ids));
    }
    assert_eq!(seen.len(), 120);
    let image = cluster.crash_image("crash");
    let segments = engine.segments("default", "c").await.unwrap();
    assert!(
        segments.len() > 4,
        "rows of 20 tenants went to {} partitions",
        segments.len()
    );
    engine.shutdown().await;
    let engine = cluster.try_open(&image).await.unwrap();
    loaded(&engine, "default", "c").await;
    seen.extend(ints(&engine.insert("default", "c", None, batch()).await.unwrap().ids));
    assert_eq!(seen.len(), 160);
    let found = engine
        .query(query_request("default", "c", "tenant == \"t3\"", &["tenant"]))
        .await
        .unwrap();
    assert_eq!(found.rows, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_aliases_and_drops() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "one", "FLAT").await;
    collection(&engine, DB, "two", "FLAT").await;
    insert(&engine, DB, "two", 0..5).await;
    engine.create_collection(DB, spec("one")).await.unwrap();
    let other = engine
        .create_collection(DB, spec_of("one", spec("x").schema.fields, false))
        .await
        .unwrap_err();
    assert_eq!(other.kind, ErrorKind::CollectionAlreadyExists);
    engine.create_alias(DB, "one", "alias").await.unwrap();
    engine.alter_alias(DB, "two", "alias").await.unwrap();
    assert_eq!(count(&engine, DB, "alias").await, 5);
    assert_eq!(engine.describe_alias(DB, "alias").await.unwrap(), "two");
    engine.rename_collection(DB, "two", "", "three").await.unwrap();
    let refused = engine
        .rename_collection(DB, "three", "default", "three")
        .await
        .unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidParameter);
    assert_eq!(
        engine.drop_database(DB).await.unwrap_err().kind,
        ErrorKind::InvalidParameter
    );
    assert_eq!(
        engine.drop_database("default").await.unwrap_err().kind,
        ErrorKind::InvalidParameter
    );
    engine.create_credential("ann", "hash").await.unwrap();
    engine.shutdown().await;
    drop(engine);

    let engine = cluster.open().await;
    loaded(&engine, DB, "three").await;
    assert_eq!(count(&engine, DB, "alias").await, 5);
    assert_eq!(engine.credential("ann").as_deref(), Some("hash"));
    let names: Vec<_> = engine
        .list_collections(DB)
        .await
        .unwrap()
        .into_iter()
        .map(|c| c.name)
        .collect();
    assert_eq!(names, ["one", "three"]);
    for name in ["one", "three"] {
        engine.drop_collection(DB, name).await.unwrap();
    }
    assert_eq!(
        engine.describe_collection(DB, "alias").await.unwrap_err().kind,
        ErrorKind::CollectionNotFound
    );
    engine.drop_database(DB).await.unwrap();
    assert_eq!(
        engine.describe_database(DB).await.unwrap_err().kind,
        ErrorKind::DatabaseNotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_say_what_is_wrong() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "FLAT").await;
    insert(&engine, "default", "c", 0..5).await;
    let mut request = search_request("default", "c", 3, 5);
    request.queries = Queries::Dense(vec![0.5; 4]);
    let error = engine.search(request).await.unwrap_err();
    assert_eq!(
        error.message,
        "vector dimension mismatch, expected vector size(byte) 32, actual 16."
    );
    let mut request = search_request("default", "c", 3, 5);
    request.metric = Some("COSINE".into());
    let error = engine.search(request).await.unwrap_err();
    assert_eq!(
        error.message,
        "metric type not match: invalid parameter[expected=L2][actual=COSINE]"
    );
    let mut request = search_request("default", "c", 3, 5);
    request.queries = Queries::Dense(vec![f32::NAN; 8]);
    assert_eq!(
        engine.search(request).await.unwrap_err().kind,
        ErrorKind::InvalidParameter
    );
    for limit in [0, 16_385] {
        let error = engine
            .search(search_request("default", "c", 3, limit))
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidParameter);
    }
    let mut request = search_request("default", "c", 3, 5);
    request.filter = filter("name == 'secret-text");
    let error = engine.search(request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidParameter);
    assert!(!error.message.contains("secret-text"), "{error}");
    let error = engine
        .search(search_request("default", "missing", 3, 5))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::CollectionNotFound);
    assert!(error.message.contains("collection not found"));
    let error = engine.search(search_request("nowhere", "c", 3, 5)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DatabaseNotFound);

    let mut columns = rows(0..1).into_columns();
    columns.remove(2);
    let error = engine
        .insert("default", "c", None, RowBatch::new(columns).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::SchemaMismatch);
    let error = engine
        .insert("default", "c", Some("nope"), rows(0..1))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::PartitionNotFound);
    assert_eq!(count(&engine, "default", "c").await, 5);
}
