//! Building graph indexes over sealed segments, in the background, one at a time.
//!
//! Until an index is there, a segment is searched exactly. Segments below `index_rows_min` rows never get a graph:
//! comparing all of their vectors is as fast.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use saker_model::{FieldId, IndexKind, IndexSpec, MetricType, SegmentId};
use saker_segment::{
    GraphIndex, GraphParams, SealedSegment, SegmentIndex, SegmentIndexKind, SegmentManifest, metric_of, remove_files,
    write_index,
};

use crate::{
    error::{Error, Result},
    events::Event,
    opened::Opened,
    shared::Shared,
};

impl Opened {
    /// Starts to build what is missing. If that is going on already, it looks once more before it ends.
    pub(crate) fn kick_builds(self: &Arc<Self>) {
        self.build_wanted.store(true, Ordering::SeqCst);
        if self.building.swap(true, Ordering::SeqCst) {
            return;
        }
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            // Whoever asks after the last look finds `building` set or finds it cleared: in the first case this sees
            // the wish, in the second they start a task of their own.
            loop {
                while this.build_wanted.swap(false, Ordering::SeqCst) {
                    let outcome = this.build_all().await;
                    let failure = outcome.err().filter(|_| this.usable()).map(|error| error.to_string());
                    if let Some(failure) = &failure {
                        let collection = this.collection;
                        tracing::warn!(%collection, "index not built, rows are searched exactly: {failure}");
                    }
                    *this.build_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
                }
                this.building.store(false, Ordering::SeqCst);
                if !this.build_wanted.load(Ordering::SeqCst) || this.building.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        });
    }

    async fn build_all(self: &Arc<Self>) -> Result<()> {
        // First the segments that will stay.
        self.compact().await?;
        while let Some((segment, spec)) = self.next_build().await {
            if !self.usable() {
                return Ok(());
            }
            self.build_one(&segment, spec).await?;
        }
        // A flush puts its segment into the manifest first and into memory next; a build between the two finds it in the
        // manifest alone. Whoever puts a segment into memory asks for builds after that, which end here.
        self.load_newer_indexes().await
    }

    /// A segment without the graph that the definition asks for.
    async fn next_build(&self) -> Option<(SegmentManifest, IndexSpec)> {
        let body = self.body.load_full();
        let state = self.manifest.lock().await;
        let rows_min = self.shared.config.index_rows_min as u64;
        let graphs = || body.indexes.iter().filter(|spec| spec.kind == IndexKind::Graph);
        state
            .manifest
            .segments
            .iter()
            .filter(|segment| segment.rows >= rows_min)
            .find_map(|segment| {
                let missing = graphs().find(|spec| !segment.indexes.iter().any(|built| built.spec == **spec))?;
                Some((segment.clone(), missing.clone()))
            })
    }

    async fn build_one(self: &Arc<Self>, manifest: &SegmentManifest, spec: IndexSpec) -> Result<()> {
        let _turn = self
            .shared
            .builds
            .acquire()
            .await
            .map_err(|_| crate::opened::interrupted(self))?;
        let (id, field) = (manifest.segment, spec.field);
        let started = self.shared.config.clock.monotonic_ms();
        let in_memory = self.memory().sealed.get(&id).cloned();
        let segment = match in_memory {
            Some(segment) => segment,
            None => {
                let _keys_stay = self.sealing.read().await;
                self.load_segment(manifest).await?
            }
        };
        let progress = Arc::new(AtomicUsize::new(0));
        self.progress_of(id, field, Some(Arc::clone(&progress)));
        let outcome = self.build_and_store(&segment, spec, progress).await;
        self.progress_of(id, field, None);
        outcome?;
        let millis = self.shared.config.clock.monotonic_ms().saturating_sub(started);
        self.shared.emit(&Event::IndexBuilt {
            database: self.access.database(),
            rows: manifest.rows,
            millis,
        });
        Ok(())
    }

    async fn build_and_store(
        self: &Arc<Self>,
        segment: &Arc<SealedSegment>,
        spec: IndexSpec,
        progress: Arc<AtomicUsize>,
    ) -> Result<()> {
        let (id, field) = (segment.segment(), spec.field);
        let metric = spec.metric.unwrap_or(MetricType::Cosine);
        let vectors = segment.vectors(field).cloned();
        let vectors =
            vectors.ok_or_else(|| Error::internal(format!("segment {id} has no vectors of field {field}")))?;
        let (params, threads) = (graph_params(&spec), self.shared.build_threads());
        let stop = Arc::clone(&self.stop_builds);
        let graph = Shared::blocking(move || {
            let report = |done: usize| progress.store(done, Ordering::Relaxed);
            GraphIndex::build(vectors, metric_of(metric), &params, threads, &report, &stop)
                .map_err(|error| Error::internal(error.to_string()))
        })
        .await?;
        let index = Arc::new(SegmentIndex {
            spec: spec.clone(),
            metric,
            kind: SegmentIndexKind::Graph(graph),
        });
        // From before the file is sealed until the manifest names it.
        let _keys_stay = self.sealing.read().await;
        let prefix = self.segment_prefix(id);
        let objects = &*self.shared.objects;
        let entry = write_index(&self.lease, objects, &prefix, segment, Arc::clone(&index)).await?;

        let mut state = self.manifest.lock().await;
        let mut next = state.manifest.clone();
        let wanted = self.body.load().indexes.contains(&spec);
        let Some(place) = next
            .segments
            .iter_mut()
            .find(|place| place.segment == id)
            .filter(|_| wanted)
        else {
            // Segment or index were dropped meanwhile.
            drop(state);
            return Ok(remove_files(objects, &prefix, [&entry.file]).await?);
        };
        let (old, kept) = place.indexes.drain(..).partition(|built| built.spec.field == field);
        place.indexes = kept;
        let old: Vec<saker_segment::IndexEntry> = old;
        place.indexes.push(entry.clone());
        if let Err(error) = self.commit_manifest(&mut state, next).await {
            if self.usable() {
                remove_files(objects, &prefix, [&entry.file]).await?;
            }
            return Err(error);
        }
        drop(state);
        // Looked up again: it may have been loaded while the graph was built.
        let in_memory = self.memory().sealed.get(&id).cloned();
        if let Some(in_memory) = in_memory {
            if Arc::ptr_eq(&in_memory, segment) {
                in_memory.set_index(field, Some(index));
            } else {
                let loaded = saker_segment::load_index(&self.lease, objects, &prefix, &in_memory, &entry).await?;
                in_memory.set_index(field, Some(loaded));
            }
        }
        Ok(remove_files(objects, &prefix, old.iter().map(|built| &built.file)).await?)
    }

    fn progress_of(&self, segment: SegmentId, field: FieldId, progress: Option<Arc<AtomicUsize>>) {
        let mut all = self.build_progress.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Some(progress) => drop(all.insert((segment, field), progress)),
            None => drop(all.remove(&(segment, field))),
        }
    }

    /// Rows covered by an index and rows that should be, of sealed segments.
    pub(crate) async fn index_progress(&self, spec: &IndexSpec) -> (u64, u64) {
        let state = self.manifest.lock().await;
        let rows_min = self.shared.config.index_rows_min as u64;
        let progress = self.build_progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut done, mut total) = (0, 0);
        for segment in &state.manifest.segments {
            total += segment.rows;
            let exact = spec.kind != IndexKind::Graph || segment.rows < rows_min;
            if exact || segment.indexes.iter().any(|built| built.spec == *spec) {
                done += segment.rows;
            } else if let Some(running) = progress.get(&(segment.segment, spec.field)) {
                // Never all of it before it is stored.
                done += (running.load(Ordering::Relaxed) as u64).min(segment.rows.saturating_sub(1));
            }
        }
        (done, total)
    }
}

impl Shared {
    pub(crate) fn build_threads(&self) -> usize {
        match self.config.index_threads {
            0 => std::thread::available_parallelism().map_or(1, |count| count.get().div_ceil(2)),
            threads => threads,
        }
    }
}

/// Build parameters from HNSW's names: `M` links a row and layer (the lowest has twice as many), `efConstruction`.
fn graph_params(spec: &IndexSpec) -> GraphParams {
    let mut params = GraphParams::default();
    if let Some(links) = parameter(spec, "M") {
        params.degree = (2 * links).clamp(8, GraphParams::DEGREE_MAX);
    }
    if let Some(list) = parameter(spec, "efConstruction") {
        params.build_list = list.clamp(params.degree, GraphParams::BUILD_LIST_MAX);
    }
    params
}

/// A numeric parameter, given beside `index_type` or in the JSON text under `params`.
pub(crate) fn parameter(spec: &IndexSpec, name: &str) -> Option<usize> {
    if let Some(text) = spec.params.get(name) {
        return text.trim().parse().ok();
    }
    let nested: serde_json::Value = serde_json::from_str(spec.params.get("params")?).ok()?;
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is a number")]
    match nested.get(name)? {
        serde_json::Value::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
