//! What is on disk: nothing readable, nothing of others, nothing left after a drop.

use std::path::{Path, PathBuf};

use crate::common::{Cluster, DIM, collection, filter, insert, loaded, rows, vector};
use saker_engine::ErrorKind;
use saker_testing::ScriptedKms;

const DB: &str = "zone";

pub(crate) fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Everything that a user put in, as it would look if it lay around: texts, vectors, keys, names.
fn canaries() -> Vec<(String, Vec<u8>)> {
    let mut canaries: Vec<(String, Vec<u8>)> = [
        "canary-name-",
        "canary_key",
        "zebrafield",
        "zebra_partition",
        "zebra_alias",
    ]
    .map(|text| (text.to_owned(), text.as_bytes().to_vec()))
    .into();
    for id in [0, 17, 205] {
        let vector = vector(id);
        assert_eq!(vector.len(), DIM);
        let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
        canaries.push((format!("half of the vector of row {id}"), bytes[..DIM * 2].to_vec()));
    }
    canaries
}

fn scan(dir: &Path) {
    let mut files = Vec::new();
    walk(dir, &mut files);
    assert!(files.len() > 3, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        for (what, canary) in canaries() {
            assert!(!holds(&bytes, &canary), "{what} is readable in {}", file.display());
        }
        for name in ["canary", "zebra", "words"] {
            assert!(
                !file.to_string_lossy().contains(name),
                "{} names {name}",
                file.display()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_user_is_readable_at_any_stage() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    let mut spec = crate::common::spec("words_zebra");
    spec.schema
        .fields
        .push(crate::common::field("zebrafield", saker_model::DataType::Bool));
    spec.schema.fields[3].nullable = true;
    spec.schema.description = "zebra_alias".into();
    // The bool field has id 103 here, the dynamic field 104.
    engine.create_collection(DB, spec).await.unwrap();
    for (database, name) in [(DB, "words"), ("default", "words")] {
        collection(&engine, database, name, "AUTOINDEX").await;
        engine
            .create_partition(database, name, "zebra_partition")
            .await
            .unwrap();
        insert(&engine, database, name, 0..600).await;
        engine
            .insert(database, name, Some("zebra_partition"), rows(600..610))
            .await
            .unwrap();
    }
    engine.create_alias(DB, "words", "zebra_alias").await.unwrap();
    scan(&cluster.dir);
    for (database, name) in [(DB, "words"), ("default", "words")] {
        engine.flush(database, &[name.into()]).await.unwrap();
        engine.upsert(database, name, None, rows(17..20)).await.unwrap();
        engine
            .delete(database, name, None, filter("name == \"canary-name-000205\""))
            .await
            .unwrap();
        engine.flush(database, &[name.into()]).await.unwrap();
        engine.insert(database, name, None, rows(700..900)).await.unwrap();
    }
    scan(&cluster.dir);
    engine.shutdown().await;
    drop(engine);
    scan(&cluster.dir);
    // Not even the names of databases and collections.
    let mut files = Vec::new();
    walk(&cluster.dir, &mut files);
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(
            !holds(&bytes, b"words_zebra") && !holds(&bytes, b"_default"),
            "{}",
            file.display()
        );
    }
}

/// The test above can fail: the scan finds what is there.
#[test]
fn the_scan_finds_what_is_readable() {
    let bytes = b"some canary-name- here";
    assert!(canaries().iter().any(|(_, canary)| holds(bytes, canary)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_collection_leaves_no_file() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    let files = || {
        let mut files = Vec::new();
        walk(&cluster.dir.join("objects"), &mut files);
        walk(&cluster.dir.join("log"), &mut files);
        files
    };
    let before = files();
    collection(&engine, DB, "c", "FLAT").await;
    insert(&engine, DB, "c", 0..50).await;
    engine.flush(DB, &["c".into()]).await.unwrap();
    insert(&engine, DB, "c", 50..60).await;
    let image = cluster.crash_image("before-the-drop");
    assert!(files().len() > before.len());
    engine.drop_collection(DB, "c").await.unwrap();
    assert_eq!(files(), before);
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.open().await;
    assert!(engine.list_collections(DB).await.unwrap().is_empty());
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.try_open(&image).await.unwrap();
    loaded(&engine, DB, "c").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_another_cluster_is_refused() {
    let cluster = Cluster::new();
    cluster.open().await.shutdown().await;
    // The same name of key, another key behind it.
    let mut other = Cluster::new();
    other.kms = std::sync::Arc::new(ScriptedKms::new());
    other.platform = other.kms.add_root();
    assert_eq!(other.platform, cluster.platform);
    let error = other.try_open(&cluster.dir).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidParameter);
    assert!(error.message.contains("another cluster"), "{error}");
    // Another name.
    other.platform = other.kms.add_root();
    let error = other.try_open(&cluster.dir).await.unwrap_err();
    assert!(error.message.contains(cluster.platform.as_str()), "{error}");
    cluster.open().await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_files_are_refused_and_reported() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "FLAT").await;
    insert(&engine, DB, "c", 0..50).await;
    engine.flush(DB, &["c".into()]).await.unwrap();
    engine.shutdown().await;
    drop(engine);
    let mut files = Vec::new();
    walk(&cluster.dir.join("objects"), &mut files);
    let mut bytes = std::fs::read(&files[0]).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    #[expect(clippy::disallowed_methods, reason = "this is the attacker")]
    std::fs::write(&files[0], bytes).unwrap();
    let engine = cluster.open().await;
    crate::common::eventually("the refusal", || async {
        let request = crate::common::search_request(DB, "c", 1, 1);
        matches!(engine.search(request).await, Err(error) if error.kind == ErrorKind::Corrupt)
    })
    .await;
    let events = cluster.events.0.lock().unwrap();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, saker_engine::Event::VerificationFailed { .. }))
    );
}
