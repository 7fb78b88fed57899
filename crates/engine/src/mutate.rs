//! Insert, upsert, delete: from checked rows to one write.

use std::{collections::HashMap, sync::Arc};

use saker_model::{Column, ColumnData, PartitionId, PrimaryKey, RowBatch};

use crate::{
    codec::Operation,
    codec::batch_bytes,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    events::Event,
    opened::{Applied, Opened},
    partitions::route,
    query::{bind_filter, matching_keys},
    shared::Shared,
    types::{Filter, MutationResult, PrimaryKeys},
};

/// Bytes of rows beyond which they are checked on the blocking pool: about 500 µs of work.
const INLINE_BYTES_MAX: usize = 256 << 10;
/// Likewise of text that functions cut into terms.
const INLINE_TEXT_BYTES_MAX: usize = 16 << 10;

impl Engine {
    /// Writes rows; durable and visible when this returns. Keys are not checked for being there already, as in Milvus.
    ///
    /// # Errors
    /// [`ErrorKind::SchemaMismatch`], [`ErrorKind::PartitionNotFound`], [`ErrorKind::CollectionNotFound`]; a locked
    /// zone; a full disk: nothing of the rows is kept then.
    pub async fn insert(
        &self,
        database: &str,
        collection: &str,
        partition: Option<&str>,
        rows: RowBatch,
    ) -> Result<MutationResult> {
        self.put(database, collection, partition, rows, false).await
    }

    /// Writes rows in place of those with the same primary keys, which readers see in one step. Of rows with the same
    /// key in one request the last counts. If the server makes the keys, the rows get new ones, as in Milvus.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub async fn upsert(
        &self,
        database: &str,
        collection: &str,
        partition: Option<&str>,
        rows: RowBatch,
    ) -> Result<MutationResult> {
        self.put(database, collection, partition, rows, true).await
    }

    async fn put(
        &self,
        database: &str,
        collection: &str,
        partition: Option<&str>,
        rows: RowBatch,
        upsert: bool,
    ) -> Result<MutationResult> {
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        let prepared = prepare(&opened, partition, rows, upsert).await?;
        let count = prepared.ids.len() as u64;
        let operation = Operation {
            deletes: prepared.replaced,
            parts: prepared.parts,
            ..Operation::default()
        };
        let applied = write(&opened, operation).await?;
        self.shared.emit(&Event::Inserted {
            database: opened.access.database(),
            rows: count,
        });
        Ok(MutationResult {
            ids: prepared.ids,
            inserted: count,
            deleted: applied.deleted,
            timestamp: applied.timestamp,
        })
    }

    /// Deletes the rows that match. A filter on primary keys alone works on a collection that is not loaded.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParameter`] for a bad or empty filter; [`ErrorKind::CollectionNotLoaded`]; as
    /// [`Self::insert`].
    pub async fn delete(
        &self,
        database: &str,
        collection: &str,
        partition: Option<&str>,
        filter: Filter,
    ) -> Result<MutationResult> {
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        if filter.text.trim().is_empty() {
            return Err(Error::invalid(
                "delete needs a filter; to delete all rows give one that every row meets",
            ));
        }
        let schema = Arc::clone(&opened.schema);
        let bound = self.shared.compute(move || bind_filter(&filter, &schema)).await?;
        let delete_partition = partition
            .filter(|name| !name.is_empty())
            .map(|name| opened.partition(name))
            .transpose()?;
        let keys = match bound.as_ref().and_then(saker_query::Bound::primary_keys) {
            Some(keys) => keys,
            None => {
                let partitions = delete_partition.map(|partition| vec![partition]);
                let pinned = collection.pin(&opened, partitions.as_deref())?;
                self.shared
                    .compute(move || matching_keys(&pinned, bound.as_ref()))
                    .await?
            }
        };
        opened.check()?;
        let count = keys.len() as u64;
        let ids = to_ids(&opened, keys.iter().cloned())?;
        if keys.is_empty() {
            return Ok(MutationResult {
                ids,
                inserted: 0,
                deleted: 0,
                timestamp: self.shared.oracle.now(),
            });
        }
        let applied = write(
            &opened,
            Operation {
                deletes: keys,
                delete_partition,
                ..Operation::default()
            },
        )
        .await?;
        self.shared.emit(&Event::Deleted {
            database: opened.access.database(),
            rows: count,
        });
        Ok(MutationResult {
            ids,
            inserted: 0,
            deleted: count,
            timestamp: applied.timestamp,
        })
    }
}

async fn write(opened: &Arc<Opened>, operation: Operation) -> Result<Applied> {
    opened
        .write(operation)
        .await
        .map_err(|error| opened.access.explain(error))
}

struct Prepared {
    ids: PrimaryKeys,
    /// Keys whose older rows go.
    replaced: Vec<PrimaryKey>,
    parts: Vec<(PartitionId, RowBatch)>,
}

async fn prepare(opened: &Arc<Opened>, partition: Option<&str>, rows: RowBatch, upsert: bool) -> Result<Prepared> {
    if batch_bytes(&rows) <= INLINE_BYTES_MAX && opened.text.bytes(&rows) <= INLINE_TEXT_BYTES_MAX {
        return prepare_rows(opened, partition, rows, upsert);
    }
    let (opened, partition) = (Arc::clone(opened), partition.map(str::to_owned));
    Shared::blocking(move || prepare_rows(&opened, partition.as_deref(), rows, upsert)).await
}

fn prepare_rows(opened: &Opened, partition: Option<&str>, mut rows: RowBatch, upsert: bool) -> Result<Prepared> {
    let schema = &opened.schema;
    let primary = schema
        .primary()
        .ok_or_else(|| Error::internal("a schema without primary key"))?;
    let mismatch = |message: String| Error::new(ErrorKind::SchemaMismatch, message);
    if rows.rows() == 0 {
        return Err(mismatch(
            "num_rows should be greater than 0: invalid parameter".to_owned(),
        ));
    }
    let mut replaced = Vec::new();
    if upsert {
        if rows.column(primary.id).is_none() {
            return Err(mismatch(format!(
                "upsert needs the primary key, field {}",
                primary.name
            )));
        }
        rows.check(schema).map_err(|error| mismatch(error.to_string()))?;
        rows = last_of_each_key(rows, primary.id)?;
        replaced = keys_of(&rows, primary.id)?;
    }
    if primary.auto_id {
        if !upsert && rows.column(primary.id).is_some() {
            return Err(mismatch(format!(
                "the server makes the values of field {} (auto_id); leave it out",
                primary.name
            )));
        }
        let mut columns = rows.into_columns();
        columns.retain(|column| column.field != primary.id);
        let count = columns.first().map_or(0, Column::rows);
        columns.push(Column::full(primary.id, made_keys(opened, primary.data_type, count)));
        rows = RowBatch::new(columns).map_err(|error| mismatch(error.to_string()))?;
    }
    let rows = rows.complete(schema).map_err(|error| mismatch(error.to_string()))?;
    let rows = opened.text.fill(rows)?;
    let ids = to_ids(opened, keys_of(&rows, primary.id)?)?;
    let parts = route(&opened.body.load(), partition, rows)?;
    Ok(Prepared { ids, replaced, parts })
}

/// Keys that were never used before.
fn made_keys(opened: &Opened, data_type: saker_model::DataType, count: usize) -> ColumnData {
    let first = opened.shared.oracle.allocate(count as u64).0.cast_signed();
    let keys = (first..).take(count);
    if data_type == saker_model::DataType::VarChar {
        ColumnData::VarChar(keys.map(|key| key.to_string()).collect())
    } else {
        ColumnData::Int64(keys.collect())
    }
}

fn keys_of(rows: &RowBatch, primary: saker_model::FieldId) -> Result<Vec<PrimaryKey>> {
    let column = rows
        .column(primary)
        .ok_or_else(|| Error::internal("rows without primary key"))?;
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a checked schema has no other primary key"
    )]
    match &column.data {
        ColumnData::Int64(keys) => Ok(keys.iter().copied().map(PrimaryKey::Int).collect()),
        ColumnData::VarChar(keys) => Ok(keys.iter().cloned().map(PrimaryKey::Text).collect()),
        _ => Err(Error::internal("a primary key of another type than Int64 or VarChar")),
    }
}

fn last_of_each_key(rows: RowBatch, primary: saker_model::FieldId) -> Result<RowBatch> {
    let keys = keys_of(&rows, primary)?;
    let last: HashMap<&PrimaryKey, usize> = keys.iter().enumerate().map(|(row, key)| (key, row)).collect();
    if last.len() == keys.len() {
        return Ok(rows);
    }
    let kept: Vec<usize> = (0..keys.len())
        .filter(|row| last.get(&keys[*row]) == Some(row))
        .collect();
    let columns = rows.columns().iter().map(|column| column.take(&kept)).collect();
    RowBatch::new(columns).map_err(|error| Error::internal(error.to_string()))
}

/// Keys as callers get them.
pub(crate) fn to_ids(opened: &Opened, keys: impl IntoIterator<Item = PrimaryKey>) -> Result<PrimaryKeys> {
    let texts = opened
        .schema
        .primary()
        .is_some_and(|field| field.data_type == saker_model::DataType::VarChar);
    let wrong = || Error::internal("a primary key of another type than its field");
    let keys = keys.into_iter();
    if texts {
        let text = |key| {
            if let PrimaryKey::Text(key) = key {
                Some(key)
            } else {
                None
            }
        };
        return keys
            .map(text)
            .collect::<Option<_>>()
            .map(PrimaryKeys::Text)
            .ok_or_else(wrong);
    }
    let int = |key| {
        if let PrimaryKey::Int(key) = key {
            Some(key)
        } else {
            None
        }
    };
    keys.map(int)
        .collect::<Option<_>>()
        .map(PrimaryKeys::Int)
        .ok_or_else(wrong)
}

impl PrimaryKeys {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Int(keys) => keys.len(),
            Self::Text(keys) => keys.len(),
        }
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
