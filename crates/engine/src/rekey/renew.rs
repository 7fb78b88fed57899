//! Re-encryption: every segment is written again, under fresh data keys, by the machinery that puts segments together.

use std::sync::Arc;

use saker_model::SegmentId;

use super::{job::Job, owner::Owner};
use crate::{error::Result, shared::Shared};

/// Writes again every segment of the zone whose id is smaller than `before`.
///
/// # Errors
/// A locked zone, damage, a failed store; what was done stays done.
pub(super) async fn renew(shared: &Arc<Shared>, owner: &Owner, job: &Arc<Job>, before: i64) -> Result<()> {
    let access = owner.access();
    let before = SegmentId(before);
    let collections = owner.collections().await;
    let mut total = 0;
    let mut in_use = Vec::with_capacity(collections.len());
    for collection in collections {
        shared.check_running()?;
        if collection.record().dropping || !Arc::ptr_eq(&collection.access(), &access) {
            continue;
        }
        let opened = collection.open().await?;
        // Rows of the log become files; what is left of their log segments goes with the next flush.
        opened.flush().await?;
        total += opened.bytes_before(before).await;
        in_use.push((collection, opened));
    }
    job.count_from(total);
    for (collection, opened) in in_use {
        loop {
            let _stays = collection.gate.read().await;
            match opened.renew_one(before).await? {
                Some(bytes) => job.advance(bytes),
                None => break,
            }
        }
        opened.renew_deletes().await?;
        opened.kick_builds();
    }
    Ok(())
}
