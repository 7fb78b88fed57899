//! The pass over what is under the cluster's own zone: the catalog's values, and the log streams of the audit log.
//!
//! Values that the engine keeps in memory as they are stored (databases, collections) are sealed again by their owners;
//! all others here, if nobody changed them meanwhile.

use std::sync::Arc;

use saker_keyring::{FileIdentity, FileKind, Lease, Unverified, ZoneKeyVersion, wrapping_version};
use saker_model::{CollectionId, DatabaseId};
use saker_storage::{Expected, LogError, MetaBatch, MetaError, MetaKey, StreamId};

use super::job::Job;
use crate::{
    audit_stores::AUDIT_STREAMS,
    engine::Engine,
    error::{Error, Result},
    shared::Shared,
};

/// Values and log segments of the cluster's own zone that are under an older key than `target`.
///
/// # Errors
/// A failed store.
pub(super) async fn count_older(shared: &Shared, target: ZoneKeyVersion) -> Result<u64> {
    let mut count = older_values(shared, target).await?.len();
    for stream in AUDIT_STREAMS {
        count += older_segments(shared, stream, target).await?.len();
    }
    Ok(count as u64)
}

/// Seals and wraps all of them under the zone's newest key, `target`.
///
/// # Errors
/// A locked catalog, damage, a failed store; what was done stays done.
pub(super) async fn wrap(engine: &Arc<Engine>, target: ZoneKeyVersion, job: &Job) -> Result<()> {
    let shared = &engine.shared;
    {
        // Databases, users and jobs that are being made were sealed before, and are stored when this is free.
        let _changes = engine.changes.lock().await;
    }
    let lease = shared.platform_lease()?;
    let values = older_values(shared, target).await?;
    job.count_from(values.len() as u64);
    for (key, stored) in values {
        reseal(engine, &lease, key, stored).await?;
        job.advance(1);
    }
    for stream in AUDIT_STREAMS {
        let id = stream_id(stream)?;
        for (sequence, file, header) in older_segments(shared, stream, target).await? {
            let identity = FileIdentity {
                file,
                kind: FileKind::Log,
            };
            let fresh = lease.rewrap_header(&lease, identity, &header).map_err(|_| {
                Error::new(
                    crate::ErrorKind::Corrupt,
                    format!("log segment {sequence} of {stream} failed verification"),
                )
            })?;
            match shared.log.replace_header(&id, sequence, fresh).await {
                // Removed meanwhile.
                Ok(()) | Err(LogError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

async fn reseal(engine: &Arc<Engine>, lease: &Lease, key: MetaKey, stored: Unverified) -> Result<()> {
    let shared = &engine.shared;
    let (kind, id) = key.as_str().split_once('/').unwrap_or_default();
    let id: Option<i64> = id.parse().ok();
    if kind == "database" {
        let database = {
            let databases = engine.databases();
            databases
                .values()
                .find(|database| Some(database.id) == id.map(DatabaseId))
                .cloned()
        };
        if let Some(database) = database {
            return database.change_record(shared, MetaBatch::new(), |_| {}).await;
        }
    }
    if kind == "collection" {
        let collection = {
            let databases = engine.databases();
            databases.values().find_map(|database| {
                let names = database.names();
                names
                    .collections
                    .values()
                    .find(|one| Some(one.id) == id.map(CollectionId))
                    .cloned()
            })
        };
        if let Some(collection) = collection {
            return collection.change_record(|_| {}).await;
        }
    }
    let plain = lease
        .open_value(key.as_str(), &stored)
        .map_err(|error| Error::opening(error, "metadata value", &key))?;
    let fresh = lease.seal_value(key.as_str(), &plain)?;
    let mut batch = MetaBatch::new();
    batch.expect(key.clone(), Expected::Value(stored)).put(key, fresh);
    match shared.meta.commit(batch).await {
        // Whoever changed or removed it meanwhile sealed it under the newest key; if not, the next pass finds it.
        Ok(()) | Err(MetaError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn older_values(shared: &Shared, target: ZoneKeyVersion) -> Result<Vec<(MetaKey, Unverified)>> {
    let zone = shared.platform.zone.id();
    let mut values = shared.meta.scan("").await?;
    values.retain(|(_, value)| wrapping_version(value).is_some_and(|(of, version)| of == zone && version < target));
    Ok(values)
}

type Segment = (saker_storage::LogSequence, saker_storage::FileId, Unverified);

async fn older_segments(shared: &Shared, stream: &str, target: ZoneKeyVersion) -> Result<Vec<Segment>> {
    let (zone, id) = (shared.platform.zone.id(), stream_id(stream)?);
    let mut older = Vec::new();
    for segment in shared.log.segments(&id).await? {
        match shared.log.read_header(&id, segment.sequence).await {
            Ok((file, header)) => {
                if wrapping_version(&header).is_some_and(|(of, version)| of == zone && version < target) {
                    older.push((segment.sequence, file, header));
                }
            }
            Err(LogError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(older)
}

fn stream_id(stream: &str) -> Result<StreamId> {
    StreamId::new(stream).map_err(|error| Error::internal(error.to_string()))
}
