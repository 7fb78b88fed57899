//! The pass over one collection: every data key that an older zone key wraps is wrapped by the newest one.
//!
//! A few hundred files at a time, so that flushes and loads get their turns in between. While a part is done, nothing
//! else makes or removes files of the collection: its `maintenance` and `sealing` are held, or, if it is not in use,
//! `opening`, so that nobody begins to use it. Reads and writes of rows go on.
//!
//! What is sealed after the first of these locks was held has the newest key: whoever seals takes it from the zone then.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use saker_keyring::{
    FileId, FileIdentity, FileKind, HEADER_BYTES, Lease, RewrapError, SealedHeader, Unverified, ZoneKeyVersion,
    wrapping_version,
};
use saker_storage::{Expected, LogError, LogSequence, MetaBatch, ObjectPath, StoreError};

use super::job::Job;
use crate::{
    collection::Collection,
    error::{Error, ErrorKind, Result},
    opened::{Opened, interrupted, prefix_of, stream_of},
    records::{self, CollectionBody, Manifest, hash, meta_key, seal},
    shared::Shared,
    zones::Access,
};

/// Files whose headers are replaced while the locks are held once: a fraction of a second.
const PART: usize = 256;
/// Headers that are read at the same time.
const READS_AT_ONCE: usize = 16;
/// Definition and manifest.
const VALUES: u64 = 2;

/// Files, log segments and values of a collection.
///
/// # Errors
/// A failed store.
pub(super) async fn count(shared: &Shared, collection: &Collection) -> Result<u64> {
    let objects = shared.objects.list(&prefix_of(collection.id)).await?.len();
    let segments = shared.log.segments(&stream_of(collection.id)?).await?.len();
    Ok((objects + segments) as u64 + VALUES)
}

/// Wraps all data keys of a collection under the zone's key `target`, its newest. A collection that is not in this zone
/// any more, or is being dropped, is passed over.
///
/// # Errors
/// A locked zone, damage, a failed store; what was done stays done.
pub(super) async fn wrap(
    shared: &Arc<Shared>,
    access: &Arc<Access>,
    collection: &Arc<Collection>,
    target: ZoneKeyVersion,
    job: &Arc<Job>,
) -> Result<()> {
    let first = {
        let (shared, access, id, job) = (Arc::clone(shared), Arc::clone(access), collection.id, Arc::clone(job));
        move |opened: Option<Arc<Opened>>| async move {
            let lease = access.lease()?;
            match &opened {
                Some(opened) => reseal_in_use(opened, target).await?,
                None => reseal_at_rest(&shared, &lease, id, target).await?,
            }
            job.advance(VALUES);
            if let Some(opened) = &opened {
                // A log segment that is begun at this moment is there, or gets the newest key.
                drop(opened.writer.lock().await);
            }
            job.advance(wrap_log(&shared, &lease, id, target).await?);
            let objects = shared.objects.list(&prefix_of(id)).await?;
            Ok(objects.into_iter().map(|object| object.path).collect::<Vec<_>>())
        }
    };
    let Some(objects) = exclusively(shared, access, collection, first).await? else {
        return Ok(());
    };
    for part in objects.chunks(PART) {
        let (shared_too, access_too, part) = (Arc::clone(shared), Arc::clone(access), part.to_vec());
        let count = part.len() as u64;
        let work = move |_| async move { wrap_objects(&shared_too, &access_too, part, target).await };
        if exclusively(shared, access, collection, work).await?.is_none() {
            return Ok(());
        }
        job.advance(count);
    }
    Ok(())
}

/// Data keys of a collection that are under an older zone key.
///
/// # Errors
/// A failed store; a file that is of another zone.
pub(super) async fn count_older(
    shared: &Arc<Shared>,
    access: &Arc<Access>,
    collection: &Arc<Collection>,
    target: ZoneKeyVersion,
) -> Result<u64> {
    if !Arc::ptr_eq(&collection.access(), access) || collection.record().dropping {
        return Ok(0);
    }
    let id = collection.id;
    let older = |what: &dyn std::fmt::Display, header: &Unverified| is_older(access, target, what, header);
    let mut count = 0;
    for kind in ["body", "manifest"] {
        let key = meta_key(kind, id)?;
        if let Some(value) = shared.meta.get(&key).await? {
            count += u64::from(older(&key, &value)?);
        }
    }
    let stream = stream_of(id)?;
    for segment in shared.log.segments(&stream).await? {
        match shared.log.read_header(&stream, segment.sequence).await {
            Ok((_, header)) => {
                count += u64::from(older(
                    &format!("log segment {} of {stream}", segment.sequence),
                    &header,
                )?)
            }
            Err(LogError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let objects = shared.objects.list(&prefix_of(id)).await?;
    for (path, header) in headers(shared, objects.into_iter().map(|object| object.path).collect()).await? {
        count += u64::from(older(&path, &header)?);
    }
    Ok(count)
}

/// Returns when whoever used files of the collection at this moment is done.
///
/// # Errors
/// If the collection is shut meanwhile.
pub(super) async fn pass_through(
    shared: &Arc<Shared>,
    access: &Arc<Access>,
    collection: &Arc<Collection>,
) -> Result<()> {
    exclusively(shared, access, collection, |_| async { Ok(()) })
        .await
        .map(drop)
}

/// Runs `work` while nothing else changes the collection's files; with the collection in use, if it is. `None` if it is
/// not in this zone any more.
async fn exclusively<T, F>(
    shared: &Arc<Shared>,
    access: &Arc<Access>,
    collection: &Arc<Collection>,
    work: impl FnOnce(Option<Arc<Opened>>) -> F,
) -> Result<Option<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    loop {
        shared.check_running()?;
        let _stays = collection.gate.read().await;
        if !Arc::ptr_eq(&collection.access(), access) || collection.record().dropping {
            return Ok(None);
        }
        access.lease()?;
        if let Some(opened) = collection.current() {
            let (this, work) = (Arc::clone(&opened), work(Some(Arc::clone(&opened))));
            // Whoever drops the collection waits for its tasks.
            let task = opened.tasks.spawn(async move {
                let _builds_wait = this.sealing.write().await;
                let _maintenance = this.maintenance.lock().await;
                if this.stop.is_cancelled() {
                    return Err(interrupted(&this));
                }
                // Not broken off by a stop: what it stores, it stores to the end.
                work.await
            });
            return task.await.unwrap_or_else(|_| Err(interrupted(&opened))).map(Some);
        }
        let mut opening = collection.opening.lock().await;
        if collection.current().is_some() {
            continue;
        }
        if let Some(before) = opening.take() {
            before.close();
            before.wait().await;
        }
        return work(None).await.map(Some);
    }
}

/// Definition and manifest of a collection in use, sealed anew.
async fn reseal_in_use(opened: &Arc<Opened>, target: ZoneKeyVersion) -> Result<()> {
    let access = &opened.access;
    {
        let mut stored = opened.definition.lock().await;
        let key = meta_key("body", opened.collection)?;
        if is_older(access, target, &key, &stored)? {
            let value = seal(&opened.lease, &key, &*opened.body.load_full())?;
            let mut batch = MetaBatch::new();
            batch.expect(key.clone(), Expected::Value(stored.clone()));
            batch.put(key.clone(), value.clone());
            let next = value.into_unverified();
            if let Err(error) = super::commit_settled(&opened.shared, batch, &key, &next).await {
                if error.kind != ErrorKind::Full {
                    // What is stored is not known: start again from what is there.
                    opened.shut();
                }
                return Err(error);
            }
            *stored = next;
        }
    }
    let mut state = opened.manifest.lock().await;
    if is_older(access, target, &meta_key("manifest", opened.collection)?, &state.stored)? {
        let next = state.manifest.clone();
        opened.commit_manifest(&mut state, next).await?;
    }
    Ok(())
}

/// The same of a collection that nobody uses.
async fn reseal_at_rest(
    shared: &Shared,
    lease: &Lease,
    collection: saker_model::CollectionId,
    target: ZoneKeyVersion,
) -> Result<()> {
    for kind in ["body", "manifest"] {
        let key = meta_key(kind, collection)?;
        // Missing: it is being dropped.
        let Some(stored) = shared.meta.get(&key).await? else {
            continue;
        };
        if wrapping_version(&stored).is_none_or(|(_, version)| version >= target) {
            continue;
        }
        let value = if kind == "body" {
            seal(lease, &key, &records::open::<CollectionBody>(lease, &key, &stored)?)?
        } else {
            let mut manifest: Manifest = records::open(lease, &key, &stored)?;
            manifest.version += 1;
            manifest.previous = hash(&stored);
            seal(lease, &key, &manifest)?
        };
        let mut batch = MetaBatch::new();
        batch.expect(key.clone(), Expected::Value(stored));
        batch.put(key, value);
        shared.meta.commit(batch).await?;
    }
    Ok(())
}

/// Log segments, also one that is being appended to; how many there are.
async fn wrap_log(
    shared: &Shared,
    lease: &Lease,
    collection: saker_model::CollectionId,
    target: ZoneKeyVersion,
) -> Result<u64> {
    let stream = stream_of(collection)?;
    let segments = shared.log.segments(&stream).await?;
    for segment in &segments {
        let sequence: LogSequence = segment.sequence;
        let (file, header) = match shared.log.read_header(&stream, sequence).await {
            Err(LogError::NotFound { .. }) => continue,
            read => read?,
        };
        let what = format!("log segment {sequence} of {stream}");
        if older_in(lease, target, &what, &header)? {
            let identity = FileIdentity {
                file,
                kind: FileKind::Log,
            };
            let fresh = rewrap(lease, identity, &what, &header)?;
            shared.log.replace_header(&stream, sequence, fresh).await?;
        }
    }
    Ok(segments.len() as u64)
}

/// Files of a collection.
async fn wrap_objects(
    shared: &Shared,
    access: &Arc<Access>,
    paths: Vec<ObjectPath>,
    target: ZoneKeyVersion,
) -> Result<()> {
    let lease = access.lease()?;
    let found = headers(shared, paths).await?;
    let fresh = Shared::blocking(move || {
        let mut fresh = Vec::with_capacity(found.len());
        for (path, header) in found {
            if older_in(&lease, target, &path, &header)? {
                let header = rewrap(&lease, identity_at(&path, &header)?, &path, &header)?;
                fresh.push((path, header));
            }
        }
        Ok(fresh)
    })
    .await?;
    shared.objects.replace_headers(fresh).await?;
    Ok(())
}

/// The headers of files. Those that were removed meanwhile, or are too short to have one, are left out.
async fn headers(shared: &Shared, paths: Vec<ObjectPath>) -> Result<Vec<(ObjectPath, Unverified)>> {
    let reads = paths.into_iter().map(|path| async move {
        match shared.objects.get_range(&path, 0..HEADER_BYTES as u64).await {
            Ok(header) => Ok(Some((path, header))),
            Err(StoreError::NotFound { .. } | StoreError::OutOfRange { .. }) => Ok(None),
            Err(error) => Err(Error::from(error)),
        }
    });
    futures::stream::iter(reads)
        .buffer_unordered(READS_AT_ONCE)
        .try_filter_map(|found| async move { Ok(found) })
        .try_collect()
        .await
}

fn is_older(
    access: &Access,
    target: ZoneKeyVersion,
    what: &dyn std::fmt::Display,
    header: &Unverified,
) -> Result<bool> {
    older_than(access.zone.id(), target, what, header)
}

fn older_in(lease: &Lease, target: ZoneKeyVersion, what: &dyn std::fmt::Display, header: &Unverified) -> Result<bool> {
    older_than(lease.zone(), target, what, header)
}

/// Whether the data key in `header` is wrapped by an older key of this zone than `target`.
fn older_than(
    zone: saker_keyring::ZoneId,
    target: ZoneKeyVersion,
    what: &dyn std::fmt::Display,
    header: &Unverified,
) -> Result<bool> {
    let corrupt = |reason: &str| Error::new(ErrorKind::Corrupt, format!("{what} {reason}; no key was destroyed"));
    match wrapping_version(header) {
        None => Err(corrupt("has no valid header: restore it from a backup")),
        Some((other, _)) if other != zone => Err(corrupt(
            "is sealed under another zone: if a collection was moved here, its move is not finished; restart the server",
        )),
        Some((_, version)) => Ok(version < target),
    }
}

/// What a file must be, by its name; its kind by its own word, which the rewrap proves.
fn identity_at(path: &ObjectPath, header: &Unverified) -> Result<FileIdentity> {
    let name = path.as_str().rsplit('/').next().unwrap_or_default();
    let file = name
        .parse::<uuid::Uuid>()
        .ok()
        .map(|id| FileId::from_bytes(*id.as_bytes()));
    let code = header.as_bytes().get(12..14).and_then(|code| code.try_into().ok());
    let kind = code.map(u16::from_le_bytes).and_then(FileKind::from_code);
    file.zip(kind)
        .map(|(file, kind)| FileIdentity { file, kind })
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("{path} is no file of ours; remove it")))
}

fn rewrap(
    lease: &Lease,
    identity: FileIdentity,
    what: &dyn std::fmt::Display,
    header: &Unverified,
) -> Result<SealedHeader> {
    lease
        .rewrap_header(lease, identity, header)
        .map_err(|error| match error {
            RewrapError::Open(error) => Error::opening(error, "header of", what),
            RewrapError::Seal(error) => error.into(),
        })
}
