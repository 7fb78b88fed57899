//! After a crash at any moment: no acknowledged row is lost, none is doubled.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use crate::common::{Cluster, collection, copy_dir, count, ids, insert, loaded, named_rows};
use saker_model::ColumnData;

const DB: &str = "zone";

/// Opens an image and checks that its rows are `0..n` with `acked <= n <= begun`.
async fn check(cluster: &Cluster, image: &std::path::Path, acked: i64, begun: i64) {
    let engine = cluster.try_open(image).await.unwrap();
    loaded(&engine, DB, "c").await;
    let found = ids(&engine, DB, "c").await;
    let n = i64::try_from(found.len()).unwrap();
    assert_eq!(found, (0..n).collect::<Vec<_>>());
    assert!(
        n >= acked && n <= begun,
        "{n} rows, {acked} acknowledged, {begun} begun"
    );
    assert_eq!(
        count(&engine, DB, "c").await,
        found.len() as u64,
        "a row is there twice"
    );
    // It goes on, and a second restart finds the same.
    insert(&engine, DB, "c", n..n + 3).await;
    engine.shutdown().await;
    drop(engine);
    let engine = cluster.try_open(image).await.unwrap();
    loaded(&engine, DB, "c").await;
    assert_eq!(ids(&engine, DB, "c").await, (0..n + 3).collect::<Vec<_>>());
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_taken_while_rows_come_and_are_flushed() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "FLAT").await;
    let (acked, begun) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (engine, acked, begun, stop) = (engine.clone(), acked.clone(), begun.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let from = begun.fetch_add(10, Ordering::SeqCst);
                insert(&engine, DB, "c", from..from + 10).await;
                acked.store(from + 10, Ordering::SeqCst);
            }
        })
    };
    let flusher = {
        let (engine, stop) = (engine.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                engine.flush(DB, &["c".into()]).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
    };
    let mut images = Vec::new();
    for number in 0..8 {
        tokio::time::sleep(std::time::Duration::from_millis(40)).await;
        let before = acked.load(Ordering::SeqCst);
        let image = cluster.crash_image(&format!("crash-{number}"));
        images.push((image, before, begun.load(Ordering::SeqCst)));
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    flusher.await.unwrap();
    assert!(acked.load(Ordering::SeqCst) > 0);
    let end = begun.load(Ordering::SeqCst);
    engine.shutdown().await;
    drop(engine);
    check(&cluster, &cluster.dir, end, end).await;
    // A copy that is not atomic across files may hold a manifest and a log of different instants, which no crash leaves.
    // What must hold all the same: it opens to a prefix of the writes, or says that it is damaged.
    for (image, _, begun) in images {
        let Ok(engine) = cluster.try_open(&image).await else {
            continue;
        };
        engine.load_collection(DB, "c").await.ok();
        let mut state = engine.load_state(DB, "c").await;
        for _ in 0..500 {
            if matches!(state, Ok(saker_engine::LoadState::Loaded)) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            state = engine.load_state(DB, "c").await;
        }
        if !matches!(state, Ok(saker_engine::LoadState::Loaded)) {
            continue;
        }
        let found = ids(&engine, DB, "c").await;
        assert!(found.len() as i64 <= begun);
        assert_eq!(
            count(&engine, DB, "c").await,
            found.len() as u64,
            "a row is there twice"
        );
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_without_a_word_at_every_step() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    cluster.database(&engine, DB).await;
    collection(&engine, DB, "c", "FLAT").await;
    let mut images = Vec::new();
    let mut rows = 0;
    for step in 0..8 {
        insert(&engine, DB, "c", rows..rows + 5).await;
        rows += 5;
        if step % 3 == 1 {
            engine.flush(DB, &["c".into()]).await.unwrap();
        }
        images.push((cluster.crash_image(&format!("step-{step}")), rows));
    }
    drop(engine);
    for (image, rows) in images {
        check(&cluster, &image, rows, rows).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upserts_and_deletes_survive_in_order() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "FLAT").await;
    let names = |from: i64, tag: &str| (from..from + 4).map(|id| format!("{tag}-{id}")).collect::<Vec<_>>();
    for round in 0..5 {
        let keys: Vec<i64> = (round..round + 4).collect();
        engine
            .upsert(
                "default",
                "c",
                None,
                named_rows(&keys, names(round, &format!("r{round}"))),
            )
            .await
            .unwrap();
        if round == 2 {
            engine.flush("default", &["c".into()]).await.unwrap();
        }
        let gone = crate::common::filter(&format!("id == {round}"));
        engine.delete("default", "c", None, gone).await.unwrap();
    }
    // The log alone, the log on top of files, and files alone.
    let crash = cluster.crash_image("crash");
    let flushed = cluster.crash_image("flushed");
    engine.shutdown().await;
    drop(engine);
    for (image, flush) in [(crash, false), (flushed, true)] {
        let copy = image.with_extension("again");
        let engine = cluster.try_open(&image).await.unwrap();
        loaded(&engine, "default", "c").await;
        if flush {
            engine.flush("default", &["c".into()]).await.unwrap();
        }
        for reopened in [false, true] {
            let engine = if reopened {
                copy_dir(&image, &copy);
                cluster.try_open(&copy).await.unwrap()
            } else {
                engine.clone()
            };
            loaded(&engine, "default", "c").await;
            let all = crate::common::query_request("default", "c", "id >= 0", &["name"]);
            let result = engine.query(all).await.unwrap();
            let column = result.columns.iter().find(|column| column.name == "name").unwrap();
            assert_eq!(
                column.column.data,
                ColumnData::VarChar(vec!["r4-5".into(), "r4-6".into(), "r4-7".into()])
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_share_the_log_and_lose_nothing() {
    let cluster = Cluster::new();
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "FLAT").await;
    let writers = (0..16).map(|writer| {
        let engine = engine.clone();
        tokio::spawn(async move {
            for batch in 0..10 {
                let from = writer * 1_000 + batch * 10;
                insert(&engine, "default", "c", from..from + 10).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let expected: Vec<i64> = (0..16)
        .flat_map(|writer| writer * 1_000..writer * 1_000 + 100)
        .collect();
    assert_eq!(ids(&engine, "default", "c").await, expected);
    drop(engine);
    let engine = cluster.try_open(&cluster.crash_image("crash")).await.unwrap();
    loaded(&engine, "default", "c").await;
    assert_eq!(ids(&engine, "default", "c").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_log_segments_roll_and_are_trimmed() {
    let mut cluster = Cluster::new();
    cluster.config.log_segment_bytes_max = 4_096;
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "FLAT").await;
    let log_files = || {
        let mut files = Vec::new();
        crate::sealed::walk(&cluster.dir.join("log"), &mut files);
        files.len()
    };
    for batch in 0..20 {
        insert(&engine, "default", "c", batch * 20..batch * 20 + 20).await;
    }
    let before = log_files();
    let image = cluster.crash_image("rolled");
    engine.flush("default", &["c".into()]).await.unwrap();
    insert(&engine, "default", "c", 400..401).await;
    assert!(
        log_files() < before && before > 5,
        "{before} files, {} after the flush",
        log_files()
    );
    engine.shutdown().await;
    drop(engine);
    for (image, rows) in [(image, 400), (cluster.dir.clone(), 401)] {
        let engine = cluster.try_open(&image).await.unwrap();
        loaded(&engine, "default", "c").await;
        assert_eq!(ids(&engine, "default", "c").await, (0..rows).collect::<Vec<_>>());
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_segment_that_was_taken_away_or_cut_is_missed() {
    let mut cluster = Cluster::new();
    cluster.config.log_segment_bytes_max = 4_096;
    let engine = cluster.open().await;
    collection(&engine, "default", "c", "FLAT").await;
    for batch in 0..20 {
        insert(&engine, "default", "c", batch * 20..batch * 20 + 20).await;
    }
    engine.shutdown().await;
    drop(engine);
    let mut files = Vec::new();
    crate::sealed::walk(&cluster.dir.join("log"), &mut files);
    files.retain(|file| file.metadata().unwrap().len() > 1_000);
    files.sort();
    assert!(files.len() > 4, "{files:?}");
    let gone = cluster.crash_image("gone");
    std::fs::remove_file(gone.join(files[2].strip_prefix(&cluster.dir).unwrap())).unwrap();
    let engine = cluster.try_open(&gone).await.unwrap();
    crate::common::eventually("the refusal", || async {
        let request = crate::common::search_request("default", "c", 1, 1);
        matches!(engine.search(request).await, Err(error) if error.kind == saker_engine::ErrorKind::Corrupt)
    })
    .await;
    // All of it, for comparison.
    let engine = cluster.open().await;
    loaded(&engine, "default", "c").await;
    assert_eq!(ids(&engine, "default", "c").await, (0..400).collect::<Vec<_>>());
}
