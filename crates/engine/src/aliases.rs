//! Aliases: other names of collections. They stand in the collection's record, so they work while a zone is locked.

use std::sync::Arc;

use saker_model::CollectionSchema;

use crate::{
    engine::Engine,
    error::{Error, ErrorKind, Result},
};

impl Engine {
    /// Another name for a collection.
    ///
    /// # Errors
    /// A bad or taken name; [`ErrorKind::CollectionNotFound`].
    pub async fn create_alias(&self, database: &str, collection: &str, alias: &str) -> Result<()> {
        CollectionSchema::check_name("alias", alias).map_err(|error| Error::invalid(error.to_string()))?;
        let database = self.database(database)?;
        let _changes = database.changes.lock().await;
        let target = {
            let names = database.names();
            if names.collections.contains_key(alias) {
                return Err(Error::invalid(format!(
                    "alias and collection name conflict[database={}][alias={alias}]",
                    database.name()
                )));
            }
            let target = names.collections.get(collection).cloned();
            let target = target.ok_or_else(|| Error::collection_not_found(database.name(), collection))?;
            match names.aliases.get(alias) {
                Some(known) if Arc::ptr_eq(known, &target) => return Ok(()),
                Some(known) => {
                    return Err(Error::new(
                        ErrorKind::AliasAlreadyExists,
                        format!(
                            "{alias} is alias to another collection: {}: alias already exist",
                            known.name()
                        ),
                    ));
                }
                None => target,
            }
        };
        target
            .change_record(|record| record.aliases.push(alias.to_owned()))
            .await?;
        database.names_mut().aliases.insert(alias.to_owned(), target);
        Ok(())
    }

    /// Drops an alias; a missing one is fine.
    ///
    /// # Errors
    /// [`ErrorKind::DatabaseNotFound`].
    pub async fn drop_alias(&self, database: &str, alias: &str) -> Result<()> {
        let database = self.database(database)?;
        let _changes = database.changes.lock().await;
        let Some(target) = database.names().aliases.get(alias).cloned() else {
            return Ok(());
        };
        target
            .change_record(|record| record.aliases.retain(|known| known != alias))
            .await?;
        database.names_mut().aliases.remove(alias);
        Ok(())
    }

    /// Points an alias at another collection.
    ///
    /// # Errors
    /// [`ErrorKind::AliasNotFound`], [`ErrorKind::CollectionNotFound`].
    pub async fn alter_alias(&self, database: &str, collection: &str, alias: &str) -> Result<()> {
        let database = self.database(database)?;
        let _changes = database.changes.lock().await;
        let (from, to) = {
            let names = database.names();
            let from = names
                .aliases
                .get(alias)
                .cloned()
                .ok_or_else(|| not_found(database.name(), alias))?;
            let to = names.collections.get(collection).cloned();
            (
                from,
                to.ok_or_else(|| Error::collection_not_found(database.name(), collection))?,
            )
        };
        if Arc::ptr_eq(&from, &to) {
            return Ok(());
        }
        // A crash in between leaves the alias at both, and the next start keeps one of them.
        to.change_record(|record| record.aliases.push(alias.to_owned())).await?;
        database.names_mut().aliases.insert(alias.to_owned(), to);
        from.change_record(|record| record.aliases.retain(|known| known != alias))
            .await
    }

    /// The name of the collection that an alias stands for.
    ///
    /// # Errors
    /// [`ErrorKind::AliasNotFound`].
    pub async fn describe_alias(&self, database: &str, alias: &str) -> Result<String> {
        let database = self.database(database)?;
        let found = database.names().aliases.get(alias).cloned();
        Ok(found.ok_or_else(|| not_found(database.name(), alias))?.name())
    }

    /// Aliases and their collections; of one collection if given.
    ///
    /// # Errors
    /// [`ErrorKind::CollectionNotFound`].
    pub async fn list_aliases(&self, database: &str, collection: Option<&str>) -> Result<Vec<(String, String)>> {
        let database = self.database(database)?;
        let wanted = collection
            .filter(|name| !name.is_empty())
            .map(|name| database.collection(name))
            .transpose()?;
        let names = database.names();
        let of = names
            .aliases
            .iter()
            .filter(|(_, target)| wanted.as_ref().is_none_or(|w| Arc::ptr_eq(w, target)));
        Ok(of.map(|(alias, target)| (alias.clone(), target.name())).collect())
    }
}

fn not_found(database: &str, alias: &str) -> Error {
    Error::new(
        ErrorKind::AliasNotFound,
        format!("alias not found[database={database}][alias={alias}]"),
    )
}
