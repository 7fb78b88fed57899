//! Building indexes over sealed segments, in the background, one at a time.
//!
//! Until an index is there, a segment is searched exactly. Segments below `index_rows_min` rows never get a graph:
//! comparing all of their vectors is as fast.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use saker_model::{FieldId, IndexKind, IndexSpec, MetricType, SegmentId};
use saker_segment::{
    GraphIndex, IndexEntry, SealedSegment, SegmentIndex, SegmentIndexKind, SegmentManifest, VectorRows, metric_of,
    remove_files, write_index, write_scalar_index,
};

use crate::{
    error::{Error, Result},
    events::Event,
    index_types,
    opened::Opened,
    residency::{on_disk, serves},
    scalar_types::{scalar_target, word_indexes},
    shared::Shared,
    sparse_types::drop_ratio_build,
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
        let outcome = self.compact_and_build().await;
        // Nothing is waited for any more, whether it was built or not.
        self.stand_down(None);
        outcome?;
        // A flush puts its segment into the manifest first and into memory next; a build between the two finds it in the
        // manifest alone. Whoever puts a segment into memory asks for builds after that, which end here.
        self.load_newer_indexes().await
    }

    async fn compact_and_build(self: &Arc<Self>) -> Result<()> {
        // What is about to be put together gets its graph after that.
        while self.compact_once().await? {
            self.build_missing().await?;
        }
        self.build_missing().await
    }

    async fn build_missing(self: &Arc<Self>) -> Result<()> {
        // Until it is their turn. Flushed and merged segments have lists already.
        self.list_all_sealed().await?;
        while let Some((segment, spec)) = self.next_build().await {
            if !self.usable() {
                return Ok(());
            }
            self.build_one(&segment, spec).await?;
            if !self.lacks_graph(segment.segment).await {
                self.stand_down(Some(segment.segment));
            }
        }
        Ok(())
    }

    /// A segment without the graph that the definition asks for.
    async fn next_build(&self) -> Option<(SegmentManifest, IndexSpec)> {
        let body = self.body.load_full();
        let state = self.manifest.lock().await;
        let rows_min = self.shared.config.index_rows_min as u64;
        let words: Vec<IndexSpec> = word_indexes(&body.schema).collect();
        let graphs = || body.indexes.iter().chain(&words).filter(|spec| spec.kind.has_file());
        let on_disk = on_disk(&body);
        state
            .manifest
            .segments
            .iter()
            .filter(|segment| segment.rows >= rows_min)
            .find_map(|segment| {
                let is_built = |spec: &&IndexSpec| segment.indexes.iter().any(|built| serves(built, spec, &on_disk));
                let missing = graphs().find(|spec| !is_built(spec))?;
                Some((segment.clone(), missing.clone()))
            })
    }

    async fn lacks_graph(&self, segment: SegmentId) -> bool {
        let body = self.body.load_full();
        let state = self.manifest.lock().await;
        let place = state.manifest.segments.iter().find(|place| place.segment == segment);
        let mut graphs = body.indexes.iter().filter(|spec| spec.kind == IndexKind::Graph);
        let on_disk = on_disk(&body);
        let is_built = |place: &SegmentManifest, spec| place.indexes.iter().any(|built| serves(built, spec, &on_disk));
        place.is_some_and(|place| graphs.any(|spec| !is_built(place, spec)))
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
        drop(segment);
        Shared::tidy_memory();
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
        if spec.kind == IndexKind::Scalar {
            return self.build_scalar(segment, spec).await;
        }
        let (id, field) = (segment.segment(), spec.field);
        let metric = spec.metric.unwrap_or(MetricType::Cosine);
        let kind = if spec.kind == IndexKind::Sparse {
            self.build_postings(segment, &spec, metric).await?
        } else {
            self.build_graph(segment, &spec, metric, progress).await?
        };
        let index = Arc::new(SegmentIndex {
            spec: spec.clone(),
            metric,
            kind,
        });
        // From before the file is sealed until the manifest names it.
        let _keys_stay = self.sealing.read().await;
        let prefix = self.segment_prefix(id);
        let objects = &*self.shared.objects;
        let entry = write_index(&self.lease, objects, &prefix, segment, Arc::clone(&index)).await?;

        let Some(old) = self.name_in_manifest(id, &entry).await? else {
            return Ok(());
        };
        // Looked up again: it may have been loaded while the graph was built.
        let in_memory = self.memory().sealed.get(&id).cloned();
        if let Some(in_memory) = in_memory {
            if Arc::ptr_eq(&in_memory, segment) && !entry.on_disk {
                in_memory.set_index(field, Some(index));
            } else if entry.on_disk == in_memory.disk_vectors(field).is_some() {
                drop(index);
                let loaded = saker_segment::load_index(&self.lease, objects, &prefix, &in_memory, &entry).await?;
                in_memory.set_index(field, Some(loaded));
            }
        }
        Ok(remove_files(objects, &prefix, old.iter().map(|built| &built.file)).await?)
    }

    /// The index of a field that is no vector, or of a path into a JSON field.
    async fn build_scalar(self: &Arc<Self>, segment: &Arc<SealedSegment>, spec: IndexSpec) -> Result<()> {
        let (id, field) = (segment.segment(), spec.field);
        let (target, rows) = (scalar_target(&self.schema, &spec)?, Arc::clone(segment));
        let index = Shared::background(move || {
            let built = target.build(rows.column(field), rows.rows());
            built.map(Arc::new).map_err(|error| Error::internal(error.to_string()))
        })
        .await?;
        // From before the file is sealed until the manifest names it.
        let _keys_stay = self.sealing.read().await;
        let (prefix, objects) = (self.segment_prefix(id), &*self.shared.objects);
        let built = Arc::clone(&index);
        let entry = write_scalar_index(&self.lease, objects, &prefix, segment, spec.clone(), built).await?;
        let Some(old) = self.name_in_manifest(id, &entry).await? else {
            return Ok(());
        };
        // Looked up again: it may have been loaded meanwhile. Its rows are the same.
        let in_memory = self.memory().sealed.get(&id).cloned();
        if let Some(in_memory) = in_memory {
            in_memory.set_scalar_index(&spec, Some(index));
        }
        Ok(remove_files(objects, &prefix, old.iter().map(|built| &built.file)).await?)
    }

    /// Puts a stored index into the manifest, in place of those that nobody asks for any more. `None` if segment or index
    /// were dropped meanwhile; its file is removed then.
    async fn name_in_manifest(self: &Arc<Self>, id: SegmentId, entry: &IndexEntry) -> Result<Option<Vec<IndexEntry>>> {
        let (prefix, objects) = (self.segment_prefix(id), &*self.shared.objects);
        let mut state = self.manifest.lock().await;
        let mut next = state.manifest.clone();
        let body = self.body.load_full();
        let is_wanted = |spec: &IndexSpec| {
            body.indexes.contains(spec) || word_indexes(&body.schema).any(|of_words| of_words == *spec)
        };
        let wanted = is_wanted(&entry.spec);
        let Some(place) = next
            .segments
            .iter_mut()
            .find(|place| place.segment == id)
            .filter(|_| wanted)
        else {
            drop(state);
            remove_files(objects, &prefix, [&entry.file]).await?;
            return Ok(None);
        };
        // A JSON field has an index for each of several paths.
        let replaced = |built: &IndexEntry| {
            built.spec.field == entry.spec.field && (built.spec == entry.spec || !is_wanted(&built.spec))
        };
        let (old, kept) = place.indexes.drain(..).partition(replaced);
        place.indexes = kept;
        place.indexes.push(entry.clone());
        if let Err(error) = self.commit_manifest(&mut state, next).await {
            if self.usable() {
                remove_files(objects, &prefix, [&entry.file]).await?;
            }
            return Err(error);
        }
        Ok(Some(old))
    }

    /// The graph of a field of dense vectors.
    async fn build_graph(
        self: &Arc<Self>,
        segment: &Arc<SealedSegment>,
        spec: &IndexSpec,
        metric: MetricType,
        progress: Arc<AtomicUsize>,
    ) -> Result<SegmentIndexKind> {
        let (id, field) = (segment.segment(), spec.field);
        let compared_by = metric_of(metric)
            .ok_or_else(|| Error::internal(format!("a graph of field {field} has metric {}", metric.name())))?;
        let vectors = match (segment.vectors(field), segment.disk_vectors(field).cloned()) {
            (Some(vectors), _) => vectors.clone(),
            // Into memory while the graph is built; that is why such segments are small.
            (None, Some(vectors)) => Shared::blocking(move || Ok(vectors.read(0..vectors.rows())?)).await?,
            (None, None) => return Err(Error::internal(format!("segment {id} has no vectors of field {field}"))),
        };
        let (params, threads) = (index_types::graph_params(spec), self.shared.build_threads());
        let stop = Arc::clone(&self.stop_builds);
        let graph = Shared::background(move || {
            let report = |done: usize| progress.store(done, Ordering::Relaxed);
            GraphIndex::build(vectors, compared_by, &params, threads, &report, &stop)
                .map_err(|error| Error::internal(error.to_string()))
        })
        .await?;
        Ok(SegmentIndexKind::Graph(graph))
    }

    /// The postings of a field of sparse vectors.
    async fn build_postings(
        self: &Arc<Self>,
        segment: &Arc<SealedSegment>,
        spec: &IndexSpec,
        metric: MetricType,
    ) -> Result<SegmentIndexKind> {
        let (id, field) = (segment.segment(), spec.field);
        let Some(VectorRows::Sparse(rows)) = segment.chunk().vector_rows(field).cloned() else {
            return Err(Error::internal(format!(
                "segment {id} has no sparse vectors of field {field}"
            )));
        };
        let (drop_ratio, stop) = (drop_ratio_build(spec), Arc::clone(&self.stop_builds));
        let postings = Shared::background(move || Ok(rows.build_index(metric, drop_ratio, &stop)?)).await?;
        Ok(SegmentIndexKind::Sparse(postings))
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
        let on_disk = on_disk(&self.body.load());
        let (mut done, mut total) = (0, 0);
        for segment in &state.manifest.segments {
            total += segment.rows;
            let exact = !spec.kind.has_file() || segment.rows < rows_min;
            if exact || segment.indexes.iter().any(|built| serves(built, spec, &on_disk)) {
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
