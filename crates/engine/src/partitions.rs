//! Partitions: making, dropping, listing, and which one a row goes to.

use saker_model::{ColumnData, Limits, PartitionId, RowBatch};

use crate::{
    collections::{DEFAULT_PARTITION, read_body},
    engine::Engine,
    error::{Error, ErrorKind, Result},
    opened::Opened,
    records::{CollectionBody, PartitionRecord},
    types::PartitionInfo,
};

impl Engine {
    /// Makes a partition. One that is there is fine.
    ///
    /// # Errors
    /// A bad name; [`ErrorKind::CollectionNotFound`]; a collection with a partition key; a locked zone.
    pub async fn create_partition(&self, database: &str, collection: &str, partition: &str) -> Result<()> {
        saker_model::CollectionSchema::check_name("partition", partition)
            .map_err(|error| Error::invalid(error.to_string()))?;
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        refuse_partition_key(&opened.body.load())?;
        let (id, created) = (PartitionId(self.shared.oracle.id()), self.shared.oracle.now());
        opened
            .change_body(|body| {
                if body.partitions.iter().any(|known| known.name == partition) {
                    return Ok(());
                }
                if body.partitions.len() >= Limits::PARTITIONS_MAX {
                    let limit = Limits::PARTITIONS_MAX;
                    return Err(Error::new(
                        ErrorKind::QuotaExceeded,
                        format!(
                            "partition number ({}) exceeds max configuration ({limit})",
                            body.partitions.len()
                        ),
                    ));
                }
                body.partitions.push(PartitionRecord {
                    id,
                    name: partition.to_owned(),
                    created,
                });
                Ok(())
            })
            .await
    }

    /// Drops a partition and its rows. A missing one is fine.
    ///
    /// # Errors
    /// The default partition is refused; [`ErrorKind::CollectionNotFound`]; a locked zone.
    pub async fn drop_partition(&self, database: &str, collection: &str, partition: &str) -> Result<()> {
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        refuse_partition_key(&opened.body.load())?;
        if partition == DEFAULT_PARTITION {
            return Err(Error::invalid("default partition cannot be deleted"));
        }
        let Ok(id) = opened.partition(partition) else {
            return Ok(());
        };
        // First the name: from here on no row goes there, and replay leaves out those that are in the log.
        opened
            .change_body(|body| {
                body.partitions.retain(|known| known.id != id);
                Ok(())
            })
            .await?;
        opened.remove_rows(Some(id)).await
    }

    /// Whether there is a partition of this name.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a locked zone.
    pub async fn has_partition(&self, database: &str, collection: &str, partition: &str) -> Result<bool> {
        let body = read_body(&*self.collection(database, collection)?).await?;
        Ok(body.partitions.iter().any(|known| known.name == partition))
    }

    /// All partitions.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`]; a locked zone.
    pub async fn list_partitions(&self, database: &str, collection: &str) -> Result<Vec<PartitionInfo>> {
        let body = read_body(&*self.collection(database, collection)?).await?;
        let info = |known: &PartitionRecord| PartitionInfo {
            id: known.id,
            name: known.name.clone(),
            created: known.created,
        };
        Ok(body.partitions.iter().map(info).collect())
    }
}

impl Opened {
    /// A partition's id by name.
    ///
    /// # Errors
    /// [`ErrorKind::PartitionNotFound`].
    pub(crate) fn partition(&self, name: &str) -> Result<PartitionId> {
        let body = self.body.load();
        let found = body.partitions.iter().find(|known| known.name == name);
        found
            .map(|known| known.id)
            .ok_or_else(|| Error::partition_not_found(name))
    }
    /// The partitions that a reader named; `None` for all.
    ///
    /// # Errors
    /// [`ErrorKind::PartitionNotFound`].
    pub(crate) fn partitions(&self, names: &[String]) -> Result<Option<Vec<PartitionId>>> {
        if names.is_empty() {
            return Ok(None);
        }
        names
            .iter()
            .map(|name| self.partition(name))
            .collect::<Result<Vec<_>>>()
            .map(Some)
    }

    /// Removes all rows, of one partition or of all: from memory, manifest, files.
    ///
    /// # Errors
    /// A locked zone; a failed store.
    pub(crate) async fn remove_rows(self: &std::sync::Arc<Self>, partition: Option<PartitionId>) -> Result<()> {
        let _maintenance = self.maintenance.lock().await;
        if partition.is_none() {
            self.freeze_log().await?;
        }
        let gone = |of: PartitionId| partition.is_none_or(|partition| partition == of);
        let (removed, deletes) = {
            let mut state = self.manifest.lock().await;
            let mut next = state.manifest.clone();
            let (removed, kept): (Vec<_>, Vec<_>) = next.segments.drain(..).partition(|s| gone(s.partition));
            next.segments = kept;
            let mut deletes = Vec::new();
            if partition.is_none() {
                let memory = self.memory();
                next.flushed = memory.frozen_position;
                next.last_timestamp = memory.last_timestamp;
                deletes = std::mem::take(&mut next.key_deletes);
            }
            self.commit_manifest(&mut state, next).await?;
            (removed, deletes)
        };
        {
            let mut memory = self.memory_mut();
            if self.stop.is_cancelled() {
                return Err(crate::opened::interrupted(self));
            }
            memory.sealed.retain(|_, segment| !gone(segment.manifest().partition));
            memory.frozen.retain(|segment| !gone(segment.partition()));
            memory.sealed_count = memory.sealed_count.saturating_sub(removed.len());
            match partition {
                // What came after the freeze stays.
                None => {
                    memory.deletes.clear();
                    memory.frozen_bytes = 0;
                }
                Some(partition) => drop(memory.growing.remove(&partition)),
            }
        }
        self.discard(&removed).await;
        for entry in deletes {
            crate::flush::shred(
                &*self.shared.objects,
                &crate::flush::key_deletes_path(self.collection, entry.file),
            )
            .await;
        }
        Ok(())
    }
}

/// Splits rows over the partitions by the value of the partition key; everything goes to `named` or the default
/// partition if there is no such key.
///
/// # Errors
/// [`ErrorKind::PartitionNotFound`]; a partition named although there is a key.
pub(crate) fn route(
    body: &CollectionBody,
    named: Option<&str>,
    rows: RowBatch,
) -> Result<Vec<(PartitionId, RowBatch)>> {
    let named = named.filter(|name| !name.is_empty());
    let Some(key) = body.schema.fields.iter().find(|field| field.is_partition_key) else {
        let name = named.unwrap_or(DEFAULT_PARTITION);
        let found = body.partitions.iter().find(|known| known.name == name);
        return Ok(vec![(found.ok_or_else(|| Error::partition_not_found(name))?.id, rows)]);
    };
    if named.is_some() {
        return Err(Error::invalid(
            "not support manually specifying the partition names if partition key mode is used",
        ));
    }
    let count = body.partitions.len().max(1);
    let column = rows
        .column(key.id)
        .ok_or_else(|| Error::internal("rows without their partition key"))?;
    let mut places: Vec<Vec<usize>> = vec![Vec::new(); count];
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a checked schema has no other partition key"
    )]
    match &column.data {
        ColumnData::Int64(values) => {
            values
                .iter()
                .enumerate()
                .for_each(|(row, value)| places[place(&value.to_le_bytes(), count)].push(row));
        }
        ColumnData::VarChar(values) => {
            values
                .iter()
                .enumerate()
                .for_each(|(row, value)| places[place(value.as_bytes(), count)].push(row));
        }
        _ => return Err(Error::internal("a partition key of another type than Int64 or VarChar")),
    }
    let mut parts = Vec::new();
    for (partition, picked) in body
        .partitions
        .iter()
        .zip(places)
        .filter(|(_, picked)| !picked.is_empty())
    {
        let columns = rows.columns().iter().map(|column| column.take(&picked)).collect();
        parts.push((
            partition.id,
            RowBatch::new(columns).map_err(|error| Error::internal(error.to_string()))?,
        ));
    }
    Ok(parts)
}

/// Where a key's bytes go: FNV-1a with a final mix. Fixed for ever: rows of one key must stay in one partition.
fn place(bytes: &[u8], count: usize) -> usize {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^= hash >> 32;
    usize::try_from(hash % count as u64).unwrap_or(0)
}

fn refuse_partition_key(body: &CollectionBody) -> Result<()> {
    if body.schema.fields.iter().any(|field| field.is_partition_key) {
        return Err(Error::invalid(
            "disable create or drop partition if partition key mode is used",
        ));
    }
    Ok(())
}
