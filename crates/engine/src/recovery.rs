//! From what is stored to a collection in use: definition, manifest, and the log replayed onto them, exactly once.
//!
//! The manifest says through which log record everything is in files; replay begins after it. A record counts if it is
//! whole in the log: it was acknowledged, or was about to be. Files that the manifest does not name are left-overs of a
//! flush that did not get to its end, and are removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use saker_keyring::Lease;
use saker_model::CollectionId;
use saker_storage::ObjectStore;
use tokio::sync::mpsc;

use crate::{
    codec::{self, LogLink},
    error::{Error, ErrorKind, Result},
    manifest::ManifestState,
    opened::{Opened, prefix_of, stream_of},
    records::{self, CollectionBody, LogPosition, Manifest, meta_key},
    shared::Shared,
    zones::Access,
};

/// Opens a collection.
///
/// # Errors
/// A locked zone; [`ErrorKind::Corrupt`] for damage, which is reported and never skipped.
pub(crate) async fn recover(
    shared: &Arc<Shared>,
    access: &Arc<Access>,
    collection: CollectionId,
    lease: Lease,
) -> Result<Arc<Opened>> {
    let (body_key, manifest_key) = (meta_key("body", collection)?, meta_key("manifest", collection)?);
    let missing = |what: &str| {
        Error::new(
            ErrorKind::Corrupt,
            format!("{what} of collection {collection} is missing"),
        )
    };
    let definition = shared
        .meta
        .get(&body_key)
        .await?
        .ok_or_else(|| missing("the definition"))?;
    let body: CollectionBody = records::open(&lease, &body_key, &definition)?;
    let stored = shared
        .meta
        .get(&manifest_key)
        .await?
        .ok_or_else(|| missing("the manifest"))?;
    let manifest: Manifest = records::open(&lease, &manifest_key, &stored)?;
    shared.oracle.observe(body.updated);
    shared.oracle.observe(manifest.last_timestamp);
    for id in manifest
        .segments
        .iter()
        .map(|segment| segment.segment.0)
        .chain(body.partitions.iter().map(|p| p.id.0))
    {
        shared.oracle.observe_id(id);
    }
    remove_orphans(&*shared.objects, collection, &manifest).await?;

    let (send, receive) = mpsc::unbounded_channel();
    let state = ManifestState { manifest, stored };
    let opened = Opened::new(
        Arc::clone(shared),
        Arc::clone(access),
        collection,
        stream_of(collection)?,
        lease,
        body,
        definition,
        state,
        send,
    );
    let opened = Arc::new(opened);
    replay(&opened).await?;
    opened.tasks.spawn(Arc::clone(&opened).apply_loop(receive));
    opened.tasks.spawn(Arc::clone(&opened).flush_loop());
    Ok(opened)
}

/// Applies the log records after the manifest's position.
async fn replay(opened: &Arc<Opened>) -> Result<()> {
    let shared = &opened.shared;
    let flushed = opened.memory().position;
    let mut seen = BTreeMap::new();
    for info in shared.log.segments(&opened.stream).await? {
        let sequence = info.sequence.0;
        if flushed.is_some_and(|position| sequence < position.sequence) {
            continue;
        }
        let contents = shared.log.read_segment(&opened.stream, info.sequence).await?;
        let this = Arc::clone(opened);
        let before = seen.clone();
        let records = Shared::blocking(move || {
            let segment = format!("{sequence} of {}", this.stream);
            let refused = |error| Error::opening(error, "log segment", &segment);
            let mut log = this.lease.open_log(contents.file, &contents.header).map_err(refused)?;
            let mut record = 0;
            for sealed in &contents.records {
                // `None` is the closing record.
                let Some(plain) = log.open(sealed).map_err(refused)? else {
                    continue;
                };
                let position = LogPosition { sequence, record };
                record += 1;
                let (link, operation) = codec::decode(&plain, this.collection, sequence)?;
                if record == 1 {
                    check_link(&this, sequence, link, flushed, &before)?;
                }
                observe(&this, &operation);
                if flushed.is_none_or(|flushed| position > flushed) {
                    this.apply(operation, position, plain.len())?;
                }
            }
            Ok(record)
        })
        .await?;
        seen.insert(sequence, records);
    }
    Ok(())
}

/// Records that are in no file must be in the log: a segment that is missing or shorter than it was known to be was
/// taken away, cut, or replaced by an older copy of itself.
fn check_link(
    opened: &Opened,
    sequence: u64,
    link: LogLink,
    flushed: Option<LogPosition>,
    seen: &BTreeMap<u64, u64>,
) -> Result<()> {
    let needed = link.sequence != 0 && flushed.is_none_or(|flushed| link.sequence >= flushed.sequence);
    let there = seen.get(&link.sequence).copied().unwrap_or(0);
    if !needed || there >= link.records {
        return Ok(());
    }
    let (before, known, stream) = (link.sequence, link.records, &opened.stream);
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "log segment {before} of {stream} has {there} records, segment {sequence} knows of {known}; restore the \
             log from a backup"
        ),
    ))
}

/// No timestamp and no key that the server made comes a second time.
fn observe(opened: &Opened, operation: &codec::Operation) {
    let oracle = &opened.shared.oracle;
    oracle.observe(operation.timestamp);
    let Some(primary) = opened.schema.primary().filter(|field| field.auto_id) else {
        return;
    };
    for (_, rows) in &operation.parts {
        if let Some(saker_model::ColumnData::Int64(keys)) = rows.column(primary.id).map(|column| &column.data)
            && let Some(largest) = keys.iter().max()
        {
            oracle.observe_id(*largest);
        }
    }
}

/// Removes files of this collection that its manifest does not name. Nothing else writes files of it now.
pub(crate) async fn remove_orphans(
    objects: &dyn ObjectStore,
    collection: CollectionId,
    manifest: &Manifest,
) -> Result<()> {
    let prefix = prefix_of(collection);
    let mut known = BTreeSet::new();
    for segment in &manifest.segments {
        known.extend(
            segment
                .files()
                .map(|file| format!("{prefix}/{}/{}", segment.segment, file.name)),
        );
    }
    known.extend(
        manifest
            .key_deletes
            .iter()
            .map(|entry| crate::flush::key_deletes_path(collection, entry.file)),
    );
    let mut removed = 0_usize;
    for object in objects.list(&prefix).await? {
        if !known.contains(object.path.as_str()) {
            objects.shred(&object.path).await?;
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!(%collection, removed, "removed files that no manifest names");
    }
    Ok(())
}
