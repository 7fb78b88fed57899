//! Moving a collection to another database by wrapping its data keys anew: no row is read, no file is copied.
//!
//! Two steps, one commit between them.
//!
//! **Before the commit** nothing is stored. Writes wait (they do not fail), growing rows become files, and the header of
//! every file and log segment is read, opened under the old zone and wrapped for the new one, in memory. **The commit**
//! is one transaction: the collection's record names the new database, definition and manifest are sealed under its
//! zone, and all new headers are kept in the catalog. **After the commit** the headers are written over the old ones.
//! That needs no key at all, so that neither a crash nor a key that is disabled in this moment can leave a collection
//! half in one database: the next start writes them once more, before anything is opened.
//!
//! What is decoded in memory stays: the same segments are handed over to the collection's new [`Opened`], so searches do
//! not stop. A collection with a key of its own changes nothing but its record.
//!
//! **Order of locks**, for everything that touches more than one: the zones' `rekeying` (tried, never waited for), a
//! collection's `gate`, its [`Opened`]'s `maintenance`,
//! `definition` and `manifest`, then the databases' `changes` by id, then the collection's `opening`. Whoever opens a
//! collection holds `opening` and waits for the old tasks, which may wait for `maintenance`: so `opening` is waited for
//! only until the old one is stopped.
//!
//! Start reading at [`Engine::move_collection`].

mod headers;
mod kept;

use std::sync::Arc;

use saker_keyring::{Lease, Unverified};
use saker_model::{CollectionSchema, Limits};
use saker_storage::{Expected, MetaBatch};
use tokio::sync::oneshot;

use crate::{
    collection::Collection,
    database::Database,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    events::Event,
    manifest::ManifestState,
    opened::{Opened, interrupted},
    records::{hash, meta_key, seal},
    shared::Shared,
};

pub(crate) use kept::KeptMove;

/// A collection to be moved to another database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MoveRequest {
    /// The database that it is in.
    pub database: String,
    /// Its name.
    pub collection: String,
    /// The database that it goes to.
    pub to: String,
    /// Its name there; `None` keeps it.
    pub name: Option<String>,
}

/// What a move did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The database that the collection is in.
    pub database: String,
    /// Its name.
    pub collection: String,
    /// Headers of files and log segments that were wrapped anew; 0 if it has a key of its own.
    pub headers: u64,
    /// Whether it has a key of its own, so that only the catalog changed.
    pub own_key: bool,
}

impl Engine {
    /// Moves a collection to another database, under that database's key. Writes wait meanwhile, searches go on; it is
    /// loaded afterwards if it was before. Its partitions, indexes and properties stay. It takes time by the number of
    /// files, not by their size.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`], [`ErrorKind::CollectionNotFound`]; a bad or taken name; a collection with
    /// aliases, which are names in its database; a locked zone, of either database. The collection is as before then.
    pub async fn move_collection(self: &Arc<Self>, request: MoveRequest) -> Result<Moved> {
        let this = Arc::clone(self);
        let (send, receive) = oneshot::channel();
        // On a task of its own: what is begun goes to its end, whoever waits.
        self.shared.tasks.spawn(async move {
            let mut answer = Answer(Some(send));
            let outcome = this.relocate(request, &mut answer).await;
            answer.give(outcome);
        });
        receive
            .await
            .unwrap_or_else(|_| Err(Error::internal("the move was lost; see the server's log")))
    }

    async fn relocate(&self, request: MoveRequest, answer: &mut Answer) -> Result<Moved> {
        self.shared.check_running()?;
        let (from, to) = (self.database(&request.database)?, self.database(&request.to)?);
        let name = request.name.unwrap_or_else(|| request.collection.clone());
        CollectionSchema::check_name("collection", &name).map_err(|error| Error::invalid(error.to_string()))?;
        if from.id == to.id {
            return Err(Error::invalid(format!(
                "collection {} is in database {} already; to give it another name rename it",
                request.collection,
                to.name()
            )));
        }
        let collection = {
            let names = from.names();
            if names.aliases.contains_key(&request.collection) {
                let alias = &request.collection;
                return Err(Error::invalid(format!(
                    "unsupported use an alias to move collection, alias:{alias}; use the collection's name"
                )));
            }
            let found = names.collections.get(&request.collection).cloned();
            found.ok_or_else(|| Error::collection_not_found(from.name(), &request.collection))?
        };
        let route = Route {
            from,
            to,
            from_name: request.collection,
            name,
        };
        let _keys_stay = if collection.own_key {
            None
        } else {
            Some(route.keys_stay()?)
        };
        let _writes_wait = collection.gate.write().await;
        route.check(&collection)?;
        let headers = if collection.own_key {
            self.move_record(&route, &collection).await?;
            0
        } else {
            self.move_zone(&route, &collection, answer).await?
        };
        self.shared.emit(&Event::CollectionMoved {
            from_database: route.from.name().to_owned(),
            from_collection: route.from_name.clone(),
            database: route.to.name().to_owned(),
            collection: route.name.clone(),
            headers,
        });
        Ok(route.moved(headers, collection.own_key))
    }

    /// A collection with a zone of its own: it takes its zone along.
    async fn move_record(&self, route: &Route, collection: &Arc<Collection>) -> Result<()> {
        let _changes = route.lock().await;
        self.still_there(&route.to)?;
        route.check(collection)?;
        collection
            .change_record_for_good(MetaBatch::new(), |record| {
                record.database = route.to.id;
                record.name.clone_from(&route.name);
            })
            .await?;
        collection.rescope(route.to.name());
        route.switch_names(collection);
        Ok(())
    }

    /// A collection under its database's key. How many headers were wrapped anew.
    async fn move_zone(&self, route: &Route, collection: &Arc<Collection>, answer: &mut Answer) -> Result<u64> {
        let lease = route.to.access.lease()?;
        let opened = collection.open().await?;
        let maintenance = opened.maintenance.lock().await;
        // Files and log segments are what moves; nobody writes rows now.
        let flushed = opened.flush_held().await;
        flushed.map_err(|error| opened.access.explain(error))?;
        let definition = opened.definition.lock().await;
        let manifest = opened.manifest.lock().await;
        if !opened.memory().is_flushed() {
            return Err(stopped(&opened));
        }
        let wrapped = headers::wrap_anew(&opened, &manifest.manifest, &route.to.access, &lease).await?;

        let changes = route.lock().await;
        let mut opening = tokio::select! {
            opening = collection.opening.lock() => opening,
            () = opened.stop.cancelled() => return Err(stopped(&opened)),
        };
        self.still_there(&route.to)?;
        route.check(collection)?;
        let current = collection.current();
        if !current.is_some_and(|current| Arc::ptr_eq(&current, &opened)) {
            return Err(stopped(&opened));
        }
        let kept = KeptMove::new(collection, route, wrapped);
        let place = self
            .commit_move(route, collection, &kept, &lease, &opened, &definition, &manifest)
            .await?;

        // It is in the new database now, whatever comes.
        let next = opened.under_zone(Arc::clone(&route.to.access), lease, place.definition, place.manifest);
        let new_maintenance = next.maintenance.lock().await;
        route.switch_names(collection);
        collection.hand_over(&next, &mut opening);
        drop((changes, manifest, definition, maintenance));
        opened.tasks.wait().await;
        // Its decoded segments belong to the new one alone: who locks that one wipes them.
        drop(opened);
        // It is moved; if the disk fails now, that is no reason to make anybody wait.
        let moved = route.moved(kept.headers(), false);
        kept.finish(&self.shared, || answer.give(Ok(moved.clone()))).await;
        self.sweep(&next).await;
        // Until here nobody may open it anew: its files could still have the old headers.
        drop((new_maintenance, opening));
        collection.go_on();
        Ok(kept.headers())
    }

    /// The one commit that decides where the collection is.
    #[expect(clippy::too_many_arguments, reason = "all that the commit has to agree with")]
    async fn commit_move(
        &self,
        route: &Route,
        collection: &Arc<Collection>,
        kept: &KeptMove,
        lease: &Lease,
        opened: &Opened,
        definition: &Unverified,
        manifest: &ManifestState,
    ) -> Result<Place> {
        let mut next = manifest.manifest.clone();
        next.version += 1;
        next.previous = hash(&manifest.stored);
        let mut batch = kept.batch(&self.shared)?;
        let (body_key, manifest_key) = (meta_key("body", collection.id)?, meta_key("manifest", collection.id)?);
        let explain = |error| route.to.access.explain(error);
        let body_value = seal(lease, &body_key, &*opened.body.load_full()).map_err(explain)?;
        let manifest_value = seal(lease, &manifest_key, &next).map_err(explain)?;
        // A removal leaves nothing of the old values, which open under the old zone's key, in the metadata file.
        for (key, old, new) in [
            (body_key, definition, &body_value),
            (manifest_key, &manifest.stored, &manifest_value),
        ] {
            batch.expect(key.clone(), Expected::Value(old.clone()));
            batch.delete(key.clone()).put(key, new.clone());
        }
        collection
            .change_record_for_good(batch, |record| {
                record.database = route.to.id;
                record.name.clone_from(&route.name);
            })
            .await?;
        Ok(Place {
            definition: body_value.into_unverified(),
            manifest: ManifestState {
                manifest: next,
                stored: manifest_value.into_unverified(),
            },
        })
    }

    /// Removes files that no manifest names: what tasks of the old zone were writing when they were stopped.
    async fn sweep(&self, opened: &Arc<Opened>) {
        let manifest = opened.manifest.lock().await.manifest.clone();
        let swept = crate::recovery::remove_orphans(&*self.shared.objects, opened.collection, &manifest).await;
        if let Err(error) = swept {
            tracing::warn!(collection = %opened.collection, "left-over files not removed before it is opened next: {error}");
        }
    }
}

/// Definition and manifest as they are stored after the commit.
struct Place {
    definition: Unverified,
    manifest: ManifestState,
}

/// Why a move ended before its commit.
fn stopped(opened: &Opened) -> Error {
    match interrupted(opened) {
        error if error.kind == ErrorKind::Storage => Error::new(
            ErrorKind::Storage,
            "the move was interrupted before it was done; the collection is as before, try again",
        ),
        refusal => refusal,
    }
}

/// Who waits for a move.
struct Answer(Option<oneshot::Sender<Result<Moved>>>);

impl Answer {
    /// The first answer counts.
    fn give(&mut self, outcome: Result<Moved>) {
        if let Some(send) = self.0.take() {
            // Whoever asked may have gone away.
            let _gone = send.send(outcome);
        }
    }
}

/// From where to where.
pub(crate) struct Route {
    from: Arc<Database>,
    to: Arc<Database>,
    from_name: String,
    name: String,
}

impl Route {
    fn moved(&self, headers: u64, own_key: bool) -> Moved {
        Moved {
            database: self.to.name().to_owned(),
            collection: self.name.clone(),
            headers,
            own_key,
        }
    }
    /// No job changes the keys of either zone while these live.
    ///
    /// # Errors
    /// If one is doing that now.
    fn keys_stay(&self) -> Result<[tokio::sync::MutexGuard<'_, ()>; 2]> {
        let stay = |database: &'_ Arc<Database>| {
            Error::new(
                ErrorKind::RateLimit,
                format!(
                    "the keys of database {} are being changed; move the collection when `saker key jobs` shows that it \
                     is done",
                    database.name()
                ),
            )
        };
        let from = self.from.access.rekeying.try_lock().map_err(|_| stay(&self.from))?;
        let to = self.to.access.rekeying.try_lock().map_err(|_| stay(&self.to))?;
        Ok([from, to])
    }

    /// The names of both databases stand still while these live.
    async fn lock(&self) -> (tokio::sync::MutexGuard<'_, ()>, tokio::sync::MutexGuard<'_, ()>) {
        let (first, second) = if self.from.id < self.to.id {
            (&self.from, &self.to)
        } else {
            (&self.to, &self.from)
        };
        (first.changes.lock().await, second.changes.lock().await)
    }

    /// Whether the collection can go this way.
    fn check(&self, collection: &Arc<Collection>) -> Result<()> {
        let there = self.from.names().collections.get(&self.from_name).cloned();
        if !there.is_some_and(|there| Arc::ptr_eq(&there, collection)) {
            return Err(Error::collection_not_found(self.from.name(), &self.from_name));
        }
        let aliases = collection.record().aliases;
        if !aliases.is_empty() {
            return Err(Error::invalid(format!(
                "cannot move collection {} with aliases, which are names in its database: drop them first and make \
                 them anew in {}: {}",
                self.from_name,
                self.to.name(),
                aliases.join(", ")
            )));
        }
        let names = self.to.names();
        if names.collections.contains_key(&self.name) || names.aliases.contains_key(&self.name) {
            return Err(Error::invalid(format!(
                "duplicated new collection name {} with other collection name or alias in database {}",
                self.name,
                self.to.name()
            )));
        }
        if names.collections.len() >= Limits::COLLECTIONS_MAX {
            return Err(Error::new(
                ErrorKind::QuotaExceeded,
                format!(
                    "exceeded the limit number of collections, limit={}",
                    Limits::COLLECTIONS_MAX
                ),
            ));
        }
        Ok(())
    }

    /// Readers find it in one of the two databases at every moment.
    fn switch_names(&self, collection: &Arc<Collection>) {
        self.to
            .names_mut()
            .collections
            .insert(self.name.clone(), Arc::clone(collection));
        self.from.names_mut().collections.remove(&self.from_name);
    }
}

/// Finishes the moves that a crash interrupted after their commit. Before anything is opened.
///
/// # Errors
/// A failed store.
pub(crate) async fn finish_moves(shared: &Shared) -> Result<()> {
    for kept in KeptMove::all(shared).await? {
        kept.write_headers(shared).await?;
        kept.forget(shared).await?;
        tracing::warn!(collection = %kept.collection(), "finished the move of a collection that was interrupted");
        shared.emit(&kept.event());
    }
    Ok(())
}
