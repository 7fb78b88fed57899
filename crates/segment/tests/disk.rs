//! Vectors and graphs that stay on disk answer as those in memory do, and whatever happens to their files is noticed by the
//! search that meets it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says so")]
#![allow(clippy::disallowed_methods, reason = "the tests alter files under a running reader")]

mod common;

use std::{
    collections::BTreeMap,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use common::{Numbers, PREFIX, SEGMENT, World, full_rows, full_schema, small_rows, small_schema, stamps};
use saker_keyring::{HEADER_BYTES, Zone, ZoneId, ZoneKeyVersion, random_key};
use saker_model::{
    Bitmap, CollectionSchema, FieldId, IndexKind, IndexSpec, MetricType, PartitionId, PrimaryKey, Timestamp,
};
use saker_segment::{
    ChunkRows, FrameCache, GraphIndex, GraphParams, Hit, QueryVector, Residency, SealedSegment, SearchParams,
    SegmentError, SegmentIndex, SegmentIndexKind, SegmentManifest, SegmentView, metric_of, remove_files, write_index,
    write_segment, write_segment_to_stay,
};

const VECTOR: FieldId = FieldId(101);
const METRICS: [MetricType; 3] = [MetricType::L2, MetricType::Ip, MetricType::Cosine];
const SEALED_FRAME: usize = 4_096 + 28;

fn on_disk(cache_bytes: usize) -> Residency {
    Residency {
        on_disk: vec![VECTOR],
        packed: Vec::new(),
        cache: FrameCache::new(cache_bytes),
    }
}

fn params(metric: MetricType, k: usize) -> SearchParams {
    SearchParams { metric, k, ef: 0 }
}

/// With a list so short that a walk is quicker than a look at all codes.
fn walked(metric: MetricType) -> SearchParams {
    SearchParams { metric, k: 5, ef: 20 }
}

fn spec(metric: MetricType) -> IndexSpec {
    IndexSpec {
        name: "vector".to_owned(),
        field: VECTOR,
        kind: IndexKind::Graph,
        type_name: "DISKANN".to_owned(),
        metric: Some(metric),
        params: BTreeMap::new(),
    }
}

fn path_of(world: &World, name: &str) -> PathBuf {
    world.directory.path().join(PREFIX).join(name)
}

fn search(segment: &Arc<SealedSegment>, query: &[f32], params: &SearchParams) -> Result<Vec<Hit>, SegmentError> {
    segment
        .snapshot()
        .search_vectors(VECTOR, QueryVector::Dense(query), params, None)
}

/// A segment of `rows` rows whose vectors lie in small frames, written with a graph.
struct Stored {
    world: World,
    schema: Arc<CollectionSchema>,
    manifest: SegmentManifest,
    queries: Vec<Vec<f32>>,
}

impl Stored {
    async fn new(rows: usize, dim: usize, metric: Option<MetricType>) -> Self {
        let world = World::new();
        let schema = small_schema(dim);
        let mut numbers = Numbers(77);
        let centers: Vec<Vec<f32>> = (0..16).map(|_| numbers.vector(dim)).collect();
        let mut near = |row: usize, spread: f32| -> Vec<f32> {
            let noise = numbers.vector(dim);
            centers[row % 16]
                .iter()
                .zip(noise)
                .map(|(center, noise)| center - 0.5 + spread * (noise - 0.5))
                .collect()
        };
        let values = (0..rows).flat_map(|row| near(row, 0.8)).collect();
        let queries = (0..12).map(|query| near(query * 7, 0.8)).collect();
        let keys: Vec<i64> = (0..i64::try_from(rows).unwrap()).collect();
        let source = ChunkRows::of_batch(&schema, small_rows(&keys, dim, values), &stamps(rows, 1)).unwrap();
        let mut manifest = write_segment_to_stay(
            &world.lease,
            &world.store,
            PREFIX,
            SEGMENT,
            PartitionId(3),
            &schema,
            vec![source],
            &[VECTOR],
        )
        .await
        .unwrap();
        if let Some(metric) = metric {
            let opened = SealedSegment::open(
                &world.lease,
                &world.store,
                PREFIX,
                Arc::clone(&schema),
                &manifest,
                &on_disk(0),
            )
            .await
            .unwrap();
            let vectors = opened.disk_vectors(VECTOR).unwrap().read(0..rows).unwrap();
            let compared = metric_of(metric).unwrap();
            let (params, stop) = (GraphParams::default(), AtomicBool::new(false));
            let graph = GraphIndex::build(vectors, compared, &params, 2, &|_| (), &stop).unwrap();
            let index = Arc::new(SegmentIndex {
                spec: spec(metric),
                metric,
                kind: SegmentIndexKind::Graph(graph),
            });
            let entry = write_index(&world.lease, &world.store, PREFIX, &opened, index)
                .await
                .unwrap();
            assert!(entry.on_disk);
            manifest.indexes.push(entry);
        }
        Self {
            world,
            schema,
            manifest,
            queries,
        }
    }
    async fn open(&self, residency: &Residency) -> Result<Arc<SealedSegment>, SegmentError> {
        let (lease, store) = (&self.world.lease, &self.world.store);
        SealedSegment::open(
            lease,
            store,
            PREFIX,
            Arc::clone(&self.schema),
            &self.manifest,
            residency,
        )
        .await
    }
    async fn in_memory(&self) -> Arc<SealedSegment> {
        self.world.load(&self.schema, &self.manifest).await.unwrap()
    }
    fn column(&self) -> PathBuf {
        path_of(&self.world, &self.manifest.column(VECTOR).unwrap().name)
    }
    fn index(&self) -> PathBuf {
        path_of(&self.world, &self.manifest.indexes[0].file.name)
    }
}

/// Flips a bit of a file in place, under whoever has it open.
fn flip(path: &PathBuf, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[tokio::test]
async fn exact_search_and_rows_are_those_of_memory() {
    // With every third row deleted or left out, in small frames and large ones, through a cache and without.
    let stored = Stored::new(2_500, 33, None).await;
    let memory = stored.in_memory().await;
    let allowed = Bitmap::from_bools((0..2_500).map(|row| row % 7 == 3 || row % 1_000 == 1));
    let few = Bitmap::from_bools((0..2_500).map(|row| row % 600 == 5));
    for cache_bytes in [0, 64 << 10, 8 << 20] {
        let disk = stored.open(&on_disk(cache_bytes)).await.unwrap();
        assert!(disk.vectors(VECTOR).is_none() && disk.disk_vectors(VECTOR).is_some());
        assert!(disk.bytes() < memory.bytes() / 2);
        for segment in [&memory, &disk] {
            let keys: Vec<PrimaryKey> = (0..500).map(|key| PrimaryKey::Int(key * 3)).collect();
            segment.delete_all(&keys, Timestamp(9_999));
        }
        for metric in METRICS {
            for query in &stored.queries {
                for k in [1, 10, 3_000] {
                    for mask in [None, Some(&allowed), Some(&few)] {
                        let of = |segment: &Arc<SealedSegment>| {
                            let view = segment.snapshot();
                            view.search_vectors(VECTOR, QueryVector::Dense(query), &params(metric, k), mask)
                                .unwrap()
                        };
                        assert_eq!(of(&disk), of(&memory), "{metric:?} {k}");
                    }
                }
            }
        }
        let rows: Vec<usize> = (0..2_500).rev().step_by(3).chain([0, 0, 2_499]).collect();
        let taken = |segment: &Arc<SealedSegment>| segment.snapshot().take(&[VECTOR, FieldId(100)], &rows).unwrap();
        for (disk, memory) in taken(&disk).iter().zip(&taken(&memory)) {
            assert_eq!((&disk.data, &disk.validity), (&memory.data, &memory.validity));
        }
    }
}

#[tokio::test]
async fn every_dense_type_with_and_without_nulls() {
    for rows in [0, 1, 64, 700] {
        let world = World::new();
        let schema = full_schema(false);
        // Written for memory: large frames are read where they lie all the same.
        let manifest = world
            .write(&schema, full_rows(&schema, 0, rows), &stamps(rows, 5))
            .await;
        let memory = world.load(&schema, &manifest).await.unwrap();
        let fields: Vec<FieldId> = schema.fields.iter().map(|field| field.id).collect();
        let residency = Residency {
            // Also fields that cannot stay on disk: those are in memory then.
            on_disk: fields.clone(),
            packed: Vec::new(),
            cache: FrameCache::new(1 << 20),
        };
        let disk = SealedSegment::open(
            &world.lease,
            &world.store,
            PREFIX,
            Arc::clone(&schema),
            &manifest,
            &residency,
        )
        .await
        .unwrap();
        let kept = fields
            .iter()
            .filter(|field| disk.disk_vectors(**field).is_some())
            .count();
        assert_eq!(kept, 8, "four types, each with nulls and without");
        let all: Vec<usize> = (0..rows).collect();
        let taken = |segment: &Arc<SealedSegment>| segment.snapshot().take(&fields, &all).unwrap();
        for (disk, memory) in taken(&disk).iter().zip(&taken(&memory)) {
            assert_eq!((&disk.data, &disk.validity), (&memory.data, &memory.validity));
        }
        for field in schema
            .fields
            .iter()
            .filter(|field| disk.disk_vectors(field.id).is_some())
        {
            let query: Vec<f32> = (0..field.dim).map(|at| at as f32 - 1.5).collect();
            for metric in METRICS {
                let of = |segment: &Arc<SealedSegment>| {
                    let (view, query) = (segment.snapshot(), QueryVector::Dense(&query));
                    view.search_vectors(field.id, query, &params(metric, 20), None).unwrap()
                };
                assert_eq!(of(&disk), of(&memory), "{:?}", field.data_type);
            }
        }
        // Written again from disk, without a row.
        let kept_rows: Vec<usize> = (0..rows).filter(|row| row % 5 != 2).collect();
        let source = ChunkRows {
            chunk: Arc::clone(disk.chunk()),
            rows: Some(kept_rows.clone()),
        };
        let (lease, store) = (&world.lease, &world.store);
        let again = write_segment(
            lease,
            store,
            "zone/again",
            SEGMENT,
            PartitionId(3),
            &schema,
            vec![source],
        )
        .await;
        let again = again.unwrap();
        let again = SealedSegment::load(lease, store, "zone/again", Arc::clone(&schema), &again)
            .await
            .unwrap();
        let expected = memory.snapshot().take(&fields, &kept_rows).unwrap();
        let every: Vec<usize> = (0..kept_rows.len()).collect();
        for (column, expected) in again.snapshot().take(&fields, &every).unwrap().iter().zip(&expected) {
            assert_eq!(column.data, expected.data);
        }
    }
}

#[tokio::test]
async fn the_graph_finds_what_exact_search_finds_in_a_small_cache() {
    for metric in METRICS {
        let stored = Stored::new(6_000, 48, Some(metric)).await;
        let memory = stored.in_memory().await;
        let residency = on_disk(256 << 10);
        let disk = stored.open(&residency).await.unwrap();
        let roomy = stored.open(&on_disk(64 << 20)).await.unwrap();
        let (mut found, mut wanted) = (0, 0);
        for query in &stored.queries {
            let walked = SearchParams {
                ef: 60,
                ..params(metric, 10)
            };
            let hits = search(&disk, query, &walked).unwrap();
            assert_eq!(
                hits,
                search(&roomy, query, &walked).unwrap(),
                "the cache changes no answer"
            );
            let exact = search(&memory, query, &params(metric, 10)).unwrap();
            wanted += exact.len();
            for best in &exact {
                let same = hits.iter().find(|hit| hit.row == best.row);
                found += usize::from(same.is_some());
                assert!(same.is_none_or(|hit| hit.score == best.score), "scores are exact");
            }
            let status = residency.cache.status();
            assert!(status.bytes <= status.bytes_max, "{status:?}");
        }
        assert!(found * 100 >= wanted * 95, "{metric:?}: {found} of {wanted}");
        let status = residency.cache.status();
        assert!(
            status.evicted > 0 && status.hits > 0 && status.misses > status.frames as u64,
            "{status:?}"
        );
        // Codes are an eighth of the vectors; the rest of the segment is keys and times.
        assert!(disk.bytes() < 6_000 * 48 * 4 / 2, "{}", disk.bytes());
        // Filtered, to the point of a handful of rows.
        for keep_one_in in [2, 50, 2_000] {
            let allowed = Bitmap::from_bools((0..6_000).map(|row| row % keep_one_in == 1));
            let of = |segment: &Arc<SealedSegment>, query: &[f32]| {
                let view = segment.snapshot();
                let query = QueryVector::Dense(query);
                view.search_vectors(VECTOR, query, &params(metric, 10), Some(&allowed))
                    .unwrap()
            };
            let (mut found, mut wanted) = (0, 0);
            for query in &stored.queries {
                let (hits, exact) = (of(&disk, query), of(&memory, query));
                assert!(hits.iter().all(|hit| allowed.contains(hit.row as usize)));
                wanted += exact.len();
                found += exact
                    .iter()
                    .filter(|best| hits.iter().any(|hit| hit.row == best.row))
                    .count();
            }
            assert!(
                found * 100 >= wanted * 95,
                "{metric:?} one in {keep_one_in}: {found} of {wanted}"
            );
        }
    }
}

#[tokio::test]
async fn what_memory_holds_is_bounded_by_the_budget_and_gone_with_the_segment() {
    let stored = Stored::new(6_000, 48, Some(MetricType::L2)).await;
    for cache_bytes in [0, 10_000, 100 << 10, 1 << 20] {
        let residency = on_disk(cache_bytes);
        let disk = stored.open(&residency).await.unwrap();
        for query in &stored.queries {
            search(
                &disk,
                query,
                &SearchParams {
                    ef: 50,
                    ..walked(MetricType::L2)
                },
            )
            .unwrap();
            search(&disk, query, &params(MetricType::Cosine, 50)).unwrap();
            let rows: Vec<usize> = (0..6_000).step_by(97).collect();
            disk.snapshot().take(&[VECTOR], &rows).unwrap();
            let status = residency.cache.status();
            assert!(status.bytes <= cache_bytes, "{status:?}");
            assert!(status.frames * SEALED_FRAME <= cache_bytes, "{status:?}");
        }
        assert!(residency.cache.status().frames > 0 || cache_bytes < 5_000);
        drop(disk);
        assert_eq!(
            residency.cache.status().frames,
            0,
            "a closed file takes its frames along"
        );
        assert_eq!(residency.cache.status().bytes, 0);
    }
}

#[tokio::test]
async fn a_flipped_bit_in_any_frame_fails_the_search_that_meets_it() {
    let stored = Stored::new(2_000, 48, Some(MetricType::L2)).await;
    let exact = params(MetricType::Cosine, 5); // No graph for this metric: it reads every vector.
    let walked = walked(MetricType::L2);
    let disk = stored.open(&on_disk(0)).await.unwrap();
    let all = |params: &SearchParams| -> Vec<Result<Vec<Hit>, SegmentError>> {
        stored
            .queries
            .iter()
            .map(|query| search(&disk, query, params))
            .collect()
    };
    let truth: [Vec<Vec<Hit>>; 2] =
        [&exact, &walked].map(|params| all(params).into_iter().map(Result::unwrap).collect());
    let refused = |error: &SegmentError| matches!(error, SegmentError::Refused { segment: SEGMENT, .. });

    let (column, index) = (stored.column(), stored.index());
    let mut met = [0, 0];
    for (which, path) in [(0, &column), (1, &index)] {
        let bytes = usize::try_from(std::fs::metadata(path).unwrap().len()).unwrap();
        let frames = (bytes - HEADER_BYTES).div_ceil(SEALED_FRAME);
        for frame in 0..frames {
            let start = HEADER_BYTES + frame * SEALED_FRAME;
            // In turn in the nonce, the ciphertext and the tag.
            let end = bytes.min(start + SEALED_FRAME);
            let at = [start + 3, (start + end) / 2, end - 2][frame % 3] as u64;
            flip(path, at);
            if which == 0 {
                for result in all(&exact) {
                    assert!(refused(&result.unwrap_err()), "frame {frame} of the vectors");
                }
            }
            for (result, truth) in all(&walked).into_iter().zip(&truth[1]) {
                match result {
                    Ok(hits) => assert_eq!(&hits, truth, "frame {frame}: a wrong answer"),
                    Err(error) => {
                        assert!(refused(&error), "{error}");
                        met[which] += 1;
                    }
                }
            }
            flip(path, at);
        }
    }
    assert!(met.iter().all(|met| *met > 0), "{met:?}");
    // Nothing of it stays: the files are as they were.
    for (params, truth) in [&exact, &walked].into_iter().zip(&truth) {
        let again: Vec<_> = all(params).into_iter().map(Result::unwrap).collect();
        assert_eq!(&again, truth);
    }
    // What is damaged when the segment is opened is refused there, as far as it is read there.
    for path in [&column, &index] {
        for at in [
            20,
            HEADER_BYTES as u64 + 50,
            std::fs::metadata(path).unwrap().len() - 30,
        ] {
            flip(path, at);
            let opened = stored.open(&on_disk(1 << 20)).await;
            assert!(refused(&opened.unwrap_err()), "byte {at}");
            flip(path, at);
        }
    }
    // So is an index's code anywhere.
    let codes_at = HEADER_BYTES as u64 + 3 * SEALED_FRAME as u64;
    flip(&index, codes_at);
    assert!(refused(&stored.open(&on_disk(1 << 20)).await.unwrap_err()));
    flip(&index, codes_at);
    stored.open(&on_disk(1 << 20)).await.unwrap();
}

#[tokio::test]
async fn another_file_in_its_place_is_noticed() {
    let stored = Stored::new(2_000, 48, Some(MetricType::L2)).await;
    let other = Stored::new(2_000, 48, Some(MetricType::L2)).await;
    let searched = walked(MetricType::L2);
    for (path, other_path) in [(stored.column(), other.column()), (stored.index(), other.index())] {
        let (mine, theirs) = (std::fs::read(&path).unwrap(), std::fs::read(&other_path).unwrap());
        assert_eq!(mine.len(), theirs.len());
        let disk = stored.open(&on_disk(0)).await.unwrap();
        let truth = search(&disk, &stored.queries[0], &searched).unwrap();

        // A new file under the name, as a copy tool or a restore makes it: whoever has the old one open goes on with it.
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        std::fs::write(&path, &theirs).unwrap();
        assert_eq!(search(&disk, &stored.queries[0], &searched).unwrap(), truth);
        assert!(matches!(
            stored.open(&on_disk(0)).await,
            Err(SegmentError::Refused { .. })
        ));
        // Gone: the same.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(search(&disk, &stored.queries[0], &searched).unwrap(), truth);
        std::fs::rename(&aside, &path).unwrap();

        // Other bytes in the same file, all of them or frames in another order, and a file cut short.
        let mut swapped = mine.clone();
        let frames = (mine.len() - HEADER_BYTES) / SEALED_FRAME;
        for pair in 0..frames / 2 {
            let (a, b) = (
                HEADER_BYTES + 2 * pair * SEALED_FRAME,
                HEADER_BYTES + (2 * pair + 1) * SEALED_FRAME,
            );
            for byte in 0..SEALED_FRAME {
                swapped.swap(a + byte, b + byte);
            }
        }
        let short = mine[..HEADER_BYTES].to_vec();
        for bytes in [&theirs, &swapped, &short] {
            std::fs::write(&path, bytes).unwrap();
            for query in &stored.queries {
                let error = search(&disk, query, &searched).unwrap_err();
                assert!(
                    matches!(error, SegmentError::Refused { .. } | SegmentError::Store(_)),
                    "{error}"
                );
            }
        }
        std::fs::write(&path, &mine).unwrap();
        assert_eq!(search(&disk, &stored.queries[0], &searched).unwrap(), truth);
    }
}

#[tokio::test]
async fn readers_go_on_while_the_files_of_a_segment_are_shredded() {
    let stored = Stored::new(2_000, 48, Some(MetricType::L2)).await;
    let disk = stored.open(&on_disk(0)).await.unwrap();
    let searched = walked(MetricType::L2);
    let truth = search(&disk, &stored.queries[0], &searched).unwrap();
    // As after it was put together with others while a search still has it.
    remove_files(&stored.world.store, PREFIX, stored.manifest.files())
        .await
        .unwrap();
    assert_eq!(search(&disk, &stored.queries[0], &searched).unwrap(), truth);
    assert!(stored.open(&on_disk(0)).await.is_err());
}

#[tokio::test]
async fn after_a_lock_nothing_is_read_not_even_from_the_cache() {
    let stored = Stored::new(2_000, 48, Some(MetricType::L2)).await;
    let residency = on_disk(64 << 20);
    let disk = stored.open(&residency).await.unwrap();
    let none = Bitmap::zeros(2_000);
    let locked = |result: Result<Vec<Hit>, SegmentError>| matches!(result, Err(SegmentError::Locked(_)));
    for metric in METRICS {
        search(&disk, &stored.queries[0], &params(metric, 5)).unwrap();
    }
    disk.snapshot().take(&[VECTOR], &[0, 1]).unwrap();
    assert!(residency.cache.status().frames > 0);
    stored.world.zone.lock();
    for metric in METRICS {
        assert!(
            locked(search(&disk, &stored.queries[0], &params(metric, 5))),
            "{metric:?}"
        );
        // Also an answer that would be empty anyway.
        let view = disk.snapshot();
        let query = QueryVector::Dense(&stored.queries[0]);
        assert!(
            locked(view.search_vectors(VECTOR, query, &params(metric, 5), Some(&none))),
            "{metric:?}"
        );
    }
    assert!(matches!(
        disk.snapshot().take(&[VECTOR], &[0]),
        Err(SegmentError::Locked(_))
    ));
    // What the engine does at a lock: it drops the segments, and with them what was opened of their files.
    drop(disk);
    assert_eq!(residency.cache.status().frames, 0);

    // The zone comes back, with another lease; the old segment stays dead.
    stored
        .world
        .zone
        .unlock(vec![(ZoneKeyVersion::FIRST, random_key())])
        .unwrap();
    assert!(
        stored.open(&residency).await.is_err(),
        "the lease is of before the lock"
    );
}

#[tokio::test]
async fn after_a_move_the_new_zone_decides() {
    let stored = Stored::new(2_000, 48, Some(MetricType::L2)).await;
    let disk = stored.open(&on_disk(1 << 20)).await.unwrap();
    let searched = walked(MetricType::L2);
    let truth = search(&disk, &stored.queries[0], &searched).unwrap();
    let new = Zone::locked(ZoneId::random());
    new.unlock(vec![(ZoneKeyVersion::FIRST, random_key())]).unwrap();
    disk.rebind(&new.lease().unwrap());
    stored.world.zone.lock();
    assert_eq!(search(&disk, &stored.queries[0], &searched).unwrap(), truth);
    disk.snapshot().take(&[VECTOR], &[0]).unwrap();
    new.lock();
    assert!(matches!(
        search(&disk, &stored.queries[0], &searched),
        Err(SegmentError::Locked(_))
    ));
}

/// Searches that each of the threads tries before it gives up.
const ROUNDS_MAX: usize = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_while_searches_run_ends_them() {
    let stored = Stored::new(2_000, 48, Some(MetricType::L2)).await;
    let disk = stored.open(&on_disk(128 << 10)).await.unwrap();
    let truth: Vec<_> = stored
        .queries
        .iter()
        .map(|query| search(&disk, query, &walked(MetricType::L2)).unwrap())
        .collect();
    let (locked, start, answered) = (AtomicBool::new(false), Barrier::new(4), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (disk, stored, truth, locked, start, answered) = (&disk, &stored, &truth, &locked, &start, &answered);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS_MAX {
                    let query = (round + thread) % truth.len();
                    let was_locked = locked.load(Ordering::SeqCst);
                    match search(disk, &stored.queries[query], &walked(MetricType::L2)) {
                        Ok(hits) => {
                            assert!(!was_locked, "answered after the zone was locked");
                            assert_eq!(hits, truth[query]);
                            answered.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            assert!(matches!(error, SegmentError::Locked(_)), "{error}");
                            return;
                        }
                    }
                }
                panic!("never locked");
            });
        }
        start.wait();
        while answered.load(Ordering::SeqCst) < 20 {
            std::thread::yield_now();
        }
        stored.world.zone.lock();
        locked.store(true, Ordering::SeqCst);
    });
}

#[tokio::test]
async fn an_index_for_the_other_place_is_not_used() {
    let stored = Stored::new(2_000, 16, Some(MetricType::L2)).await;
    // In memory, with an index that was written for disk.
    let memory = stored.in_memory().await;
    assert!(memory.index(VECTOR).is_none());
    let exact = search(&memory, &stored.queries[0], &params(MetricType::L2, 5)).unwrap();
    let disk = stored.open(&on_disk(0)).await.unwrap();
    assert!(disk.index(VECTOR).is_some());
    // A query without a direction, or that is not finite, is compared with every row as in memory.
    for query in [vec![0.0; 16], vec![f32::NAN; 16]] {
        let of = |segment: &Arc<SealedSegment>| {
            search(segment, &query, &params(MetricType::L2, 5))
                .unwrap()
                .iter()
                .map(|hit| hit.row)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&disk), of(&memory));
    }
    assert_eq!(exact.len(), 5);
}

#[tokio::test]
async fn packed_rows_are_found_taken_and_written_again_as_plain_ones_are() {
    const ROWS: usize = 2_048;
    let stored = Stored::new(ROWS, 64, None).await;
    let (world, schema) = (&stored.world, &stored.schema);
    let residency = Residency {
        packed: vec![VECTOR],
        ..Residency::memory()
    };
    let (lease, store) = (&world.lease, &world.store);
    let packed = SealedSegment::open(lease, store, PREFIX, Arc::clone(schema), &stored.manifest, &residency);
    let packed = packed.await.unwrap();
    let plain = world.load(schema, &stored.manifest).await.unwrap();
    let bytes = |segment: &Arc<SealedSegment>| segment.vectors(VECTOR).unwrap().bytes();
    assert_eq!(bytes(&plain), 4 * 64 * ROWS);
    assert!(bytes(&packed) < bytes(&plain) * 9 / 10, "{}", bytes(&packed));

    let some = [0, 5, 2_047, 9];
    let taken = |segment: &Arc<SealedSegment>| segment.snapshot().take(&[VECTOR], &some).unwrap().remove(0).data;
    assert_eq!(taken(&packed), taken(&plain));
    for metric in METRICS {
        for query in &stored.queries {
            let (found, expected) = (
                search(&packed, query, &params(metric, 10)).unwrap(),
                search(&plain, query, &params(metric, 10)).unwrap(),
            );
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found.score - expected.score).abs() < 1e-4, "{metric:?}");
            }
            assert_eq!(found.len(), expected.len());
        }
    }

    let rows = vec![ChunkRows {
        chunk: Arc::clone(packed.chunk()),
        rows: None,
    }];
    let again = write_segment(lease, store, "zone/again", SEGMENT, PartitionId(3), schema, rows);
    let again = again.await.unwrap();
    let again = SealedSegment::load(lease, store, "zone/again", Arc::clone(schema), &again)
        .await
        .unwrap();
    assert_eq!(taken(&again), taken(&plain));
}
