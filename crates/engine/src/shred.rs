//! Dropping a collection: its keys first, for good, then what they sealed.
//!
//! The order: nobody writes any more; everything that will be destroyed is counted and hashed; one commit marks the
//! collection as dropping, destroys definition, manifest and the zone keys of its own, and stores the receipt's draft;
//! then log and files are shredded; a last commit removes the record and finishes the receipt. What a crash leaves after
//! the first commit is finished at the next start.

use std::sync::Arc;

use saker_storage::MetaBatch;

use crate::{
    collection::Collection,
    database::Database,
    engine::Engine,
    error::{Error, Result},
    events::Event,
    opened::{prefix_of, stream_of},
    receipts::{Receipt, ReceiptKind, zone_keys},
    records::{self, CollectionRecord, meta_key},
};

impl Engine {
    /// Drops a collection; its wrapped keys are destroyed first, and the receipt says which. A missing one is fine (as in
    /// Milvus): `None`. Works while its zone is locked.
    ///
    /// # Errors
    /// [`DatabaseNotFound`](crate::ErrorKind::DatabaseNotFound); an alias is refused; a failed store, after which the
    /// drop is finished at the next start.
    pub async fn drop_collection(self: &Arc<Self>, database: &str, collection: &str) -> Result<Option<Receipt>> {
        let (this, database, collection) = (Arc::clone(self), database.to_owned(), collection.to_owned());
        // On a task of its own: what is begun goes to its end, whoever waits.
        let task = self
            .shared
            .tasks
            .spawn(async move { this.drop_named(&database, &collection).await });
        task.await
            .unwrap_or_else(|_| Err(Error::internal("the drop was lost; see the server's log")))
    }

    async fn drop_named(&self, database: &str, collection: &str) -> Result<Option<Receipt>> {
        let database = self.database(database)?;
        let found = {
            let names = database.names();
            if names.aliases.contains_key(collection) {
                return Err(Error::invalid(format!(
                    "cannot drop the collection via alias = {collection}"
                )));
            }
            names.collections.get(collection).cloned()
        };
        let Some(found) = found else {
            return Ok(None);
        };
        // Writes end first, and a move that is under way; only then the names: see `relocate` for the order of locks.
        let _gate = found.gate.write().await;
        let _changes = database.changes.lock().await;
        let there = database.names().collections.get(collection).cloned();
        if !there.is_some_and(|there| Arc::ptr_eq(&there, &found)) {
            // Renamed, moved or dropped meanwhile.
            return Ok(None);
        }
        let receipt = self.destroy_keys(&database, &found).await?;
        {
            let mut names = database.names_mut();
            names.collections.remove(collection);
            names.aliases.retain(|_, target| !Arc::ptr_eq(target, &found));
        }
        if found.own_key {
            found.access().zone.lock();
            self.disown(&found.access());
        }
        self.erase(&found.record()).await?;
        self.shared.emit(&Event::CollectionDropped {
            database: database.name().to_owned(),
            collection: collection.to_owned(),
        });
        self.receipt(&receipt.id).await.map(Some)
    }

    /// Marks the collection as dropping, together with the receipt's draft; the definition's, the manifest's and its own
    /// zone's keys go with the same stroke. If that fails, the collection is as before.
    async fn destroy_keys(&self, database: &Database, collection: &Arc<Collection>) -> Result<Receipt> {
        collection.close_for_drop().await;
        let marked = self.mark_dropping(database, collection).await;
        if marked.is_err() {
            collection.undo_drop();
        }
        marked
    }

    async fn mark_dropping(&self, database: &Database, collection: &Arc<Collection>) -> Result<Receipt> {
        // What the receipt says of the zone's keys stays so until they are destroyed.
        let mut lock = collection.lock_record().await;
        let record = collection.record();
        let access = collection.access();
        let mut receipt = Receipt::begun(&self.shared, ReceiptKind::Collection, database);
        receipt.collection = Some(record.name.clone());
        receipt.collection_id = Some(record.id.0);
        receipt.zone = access.zone.id().to_string();
        receipt.root = access.root();
        receipt.count(&self.shared, record.id).await?;
        receipt.zone_keys = [&record.zone, &record.retiring]
            .into_iter()
            .flatten()
            .flat_map(zone_keys)
            .collect();
        let mut batch = MetaBatch::new();
        batch
            .delete(meta_key("body", record.id)?)
            .delete(meta_key("manifest", record.id)?);
        self.put_receipt(&mut batch, &receipt).await?;
        let id = receipt.id.clone();
        collection
            .change_locked_record_for_good(&mut lock, batch, |record| {
                record.dropping = true;
                (record.zone, record.retiring) = (None, None);
                record.receipt = Some(id);
            })
            .await?;
        Ok(receipt)
    }

    /// Erases whatever is stored of a collection whose wrapped keys are gone already, then its record, and finishes the
    /// receipt.
    pub(crate) async fn erase(&self, record: &CollectionRecord) -> Result<()> {
        let (shared, id) = (&self.shared, record.id);
        shared.log.remove_stream(&stream_of(id)?).await?;
        for object in shared.objects.list(&prefix_of(id)).await? {
            shared.objects.shred(&object.path).await?;
        }
        let mut batch = MetaBatch::new();
        batch
            .delete(meta_key("body", id)?)
            .delete(meta_key("manifest", id)?)
            .delete(meta_key("collection", id)?);
        if let Some(draft) = &record.receipt {
            let key = meta_key("receipt", draft)?;
            if let Some(value) = shared.meta.get(&key).await? {
                let mut finished: Receipt = records::open(&shared.platform_lease()?, &key, &value)?;
                finished.finish(shared);
                // Everything is destroyed; if the commit below is lost, the next start puts it on record again.
                finished.keep_on_record(shared).await;
                self.put_receipt(&mut batch, &finished).await?;
            }
        }
        Ok(shared.meta.commit(batch).await?)
    }
}
