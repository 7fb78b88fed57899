//! Collections with a key of their own, inside a database under another one.

use std::sync::Arc;

use crate::common::{
    Cluster, collection, count, ids, index_and_load, insert, loaded, query_request, rows, search_request, spec,
};
use saker_engine::{CollectionSpec, Engine, ErrorKind, LoadState};
use saker_keyring::{Denial, RootKeyId};
use saker_testing::KmsAnswer;

const DB: &str = "zone";

fn under(name: &str, root: &RootKeyId) -> CollectionSpec {
    let mut spec = spec(name);
    spec.properties = [
        ("cipher.enabled", "true"),
        ("cipher.key", root.as_str()),
        ("mmap", "no"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    spec
}

/// Collection `plain` under the database's key, `own` under one of its own, both with rows in files and in the log.
async fn two_collections(cluster: &Cluster, own: &RootKeyId) -> Arc<Engine> {
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "plain", "FLAT").await;
    engine.create_collection(DB, under("own", own)).await.unwrap();
    index_and_load(&engine, DB, "own", "FLAT").await;
    for name in ["plain", "own"] {
        insert(&engine, DB, name, 0..30).await;
        engine.flush(DB, &[name.into()]).await.unwrap();
        insert(&engine, DB, name, 30..40).await;
    }
    engine
}

async fn refused(engine: &Arc<Engine>, name: &str, collection: Option<&str>, root: &RootKeyId) {
    let search = engine.search(search_request(DB, name, 1, 3)).await.unwrap_err();
    let query = engine
        .query(query_request(DB, name, "id == 1", &["*"]))
        .await
        .unwrap_err();
    let insert = engine.insert(DB, name, None, rows(900..901)).await.unwrap_err();
    let describe = engine.describe_collection(DB, name).await.unwrap_err();
    for error in [search, query, insert, describe] {
        let ErrorKind::ZoneLocked {
            database,
            collection: named,
            root: key,
            ..
        } = &error.kind
        else {
            panic!("{error:?}")
        };
        assert_eq!((database.as_str(), named.as_deref(), key), (DB, collection, root));
        if let Some(collection) = collection {
            assert!(error.message.contains(&format!("[collection={collection}]")), "{error}");
        }
        assert!(
            error.message.contains(root.as_str()) && error.message.contains(DB),
            "{error}"
        );
    }
    let LoadState::Locked { refusal } = engine.load_state(DB, name).await.unwrap() else {
        panic!("not locked")
    };
    assert!(refusal.message.contains(root.as_str()), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_darkens_its_own_data_alone() {
    let cluster = Cluster::new();
    let own = cluster.kms.add_root();
    let engine = two_collections(&cluster, &own).await;
    let turns = [
        ("own", Some("own"), "plain", &own),
        ("plain", None, "own", &cluster.customer),
    ];
    for round in 0..2 {
        for (dark, named, bright, root) in turns {
            cluster.kms.set(root, KmsAnswer::Deny(Denial::Disabled));
            engine.check_keys_now().await.unwrap();
            refused(&engine, dark, named, root).await;
            let before = count(&engine, DB, bright).await;
            let fresh = 100 + round;
            insert(&engine, DB, bright, fresh..fresh + 1).await;
            assert_eq!(count(&engine, DB, bright).await, before + 1);
            // Names of both are there, whatever is locked.
            let names: Vec<_> = engine.list_collections(DB).await.unwrap();
            assert_eq!(
                names.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
                ["own", "plain"]
            );
            assert!(engine.has_collection(DB, dark).await.unwrap());
            cluster.kms.set(root, KmsAnswer::Right);
            engine.check_keys_now().await.unwrap();
            loaded(&engine, DB, dark).await;
        }
    }
    let expected: Vec<i64> = (0..40).chain(100..102).collect();
    assert_eq!(ids(&engine, DB, "own").await, expected);
    assert_eq!(ids(&engine, DB, "plain").await, expected);
    // After a restart each is opened under its own key.
    engine.shutdown().await;
    drop(engine);
    cluster.kms.set(&own, KmsAnswer::Deny(Denial::AccessDenied));
    let engine = cluster.open().await;
    loaded(&engine, DB, "plain").await;
    refused(&engine, "own", Some("own"), &own).await;
    assert_eq!(ids(&engine, DB, "plain").await, expected);
    cluster.kms.set(&own, KmsAnswer::Right);
    engine.check_keys_now().await.unwrap();
    loaded(&engine, DB, "own").await;
    assert_eq!(ids(&engine, DB, "own").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_names_its_databases_key_has_another_zone_under_it() {
    let cluster = Cluster::new();
    let customer = cluster.customer.clone();
    let engine = two_collections(&cluster, &customer).await;
    let shown = engine.describe_collection(DB, "own").await.unwrap().properties;
    let database = engine.describe_database(DB).await.unwrap().properties;
    assert_eq!(shown["cipher.key"], database["cipher.key"]);
    assert_ne!(shown["cipher.ezID"], database["cipher.ezID"]);
    cluster.kms.set(&customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    refused(&engine, "own", Some("own"), &customer).await;
    refused(&engine, "plain", None, &customer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_listed_and_refused() {
    let cluster = Cluster::new();
    let own = cluster.kms.add_root();
    let engine = two_collections(&cluster, &own).await;
    let shown = engine.describe_collection(DB, "own").await.unwrap().properties;
    assert_eq!(shown["cipher.enabled"], "true");
    assert_eq!(shown["cipher.key"], own.as_str());
    assert_eq!(shown["mmap"], "no");
    assert!(shown.contains_key("cipher.ezID"));
    let plain = engine.describe_collection(DB, "plain").await.unwrap().properties;
    assert!(!plain.keys().any(|key| key.starts_with("cipher.")), "{plain:?}");
    let users = |states: Vec<saker_engine::KeyStatus>, root: &RootKeyId| {
        states
            .into_iter()
            .find(|state| state.root == *root)
            .map(|state| state.databases)
    };
    let states = engine.key_states().await.unwrap();
    assert_eq!(users(states.clone(), &own).unwrap(), ["zone/own"]);
    assert_eq!(users(states, &cluster.customer).unwrap(), ["zone"]);
    // The list and the refusals follow a new name.
    engine.rename_collection(DB, "own", "", "renamed").await.unwrap();
    assert_eq!(
        users(engine.key_states().await.unwrap(), &own).unwrap(),
        ["zone/renamed"]
    );

    let alter = engine
        .alter_collection(
            DB,
            "renamed",
            [("cipher.key".to_owned(), "x".to_owned())].into(),
            Vec::new(),
        )
        .await;
    assert_eq!(alter.unwrap_err().kind, ErrorKind::InvalidParameter);
    let alter = engine
        .alter_collection(DB, "renamed", Default::default(), vec!["cipher.enabled".to_owned()])
        .await;
    assert_eq!(alter.unwrap_err().kind, ErrorKind::InvalidParameter);

    let mut contradiction = under("c", &own);
    contradiction.properties.insert("cipher.enabled".into(), "false".into());
    let error = engine.create_collection(DB, contradiction).await.unwrap_err();
    assert!(error.message.contains("cipher.enabled is \"false\""), "{error}");
    let unknown: RootKeyId = "arn:aws:kms:us-east-1:000000000000:key/none".parse().unwrap();
    let error = engine.create_collection(DB, under("c", &unknown)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::KeyUnusable { root: unknown.clone() });
    assert!(
        users(engine.key_states().await.unwrap(), &unknown).is_none(),
        "a key that nobody uses is watched"
    );
    assert!(!engine.has_collection(DB, "c").await.unwrap());

    // The same again is fine; with another key, or without, it is another collection.
    engine.create_collection(DB, under("renamed", &own)).await.unwrap();
    for other in [under("renamed", &cluster.customer), spec("renamed")] {
        let error = engine.create_collection(DB, other).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::CollectionAlreadyExists);
    }

    // Nothing new comes into a database that its owner disabled.
    cluster.kms.set(&cluster.customer, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    let error = engine.create_collection(DB, under("c", &own)).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::ZoneLocked { .. }), "{error}");

    // Dropped while locked, its key is not asked for any more.
    cluster.kms.set(&own, KmsAnswer::Deny(Denial::Disabled));
    engine.check_keys_now().await.unwrap();
    engine.drop_collection(DB, "renamed").await.unwrap().unwrap();
    assert!(users(engine.key_states().await.unwrap(), &own).is_none());
    let calls = cluster.kms.calls(&own).total();
    engine.check_keys_now().await.unwrap();
    assert_eq!(cluster.kms.calls(&own).total(), calls);
}
