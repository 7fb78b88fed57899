//! Which vectors stay on disk while their collection is in use.
//!
//! Milvus's names decide: an index of type `DISKANN`, or `mmap.enabled` on an index, a field or a collection, the nearest of
//! them. Vectors and graph of a field are together, on disk or in memory.

use saker_model::{DataType, FieldId, FieldSchema, IndexKind, IndexSpec};
use saker_segment::{IndexEntry, Residency};

use crate::{
    engine::Engine,
    error::{Error, Result},
    opened::Opened,
    records::CollectionBody,
    types::Properties,
};

/// The property that keeps vectors on disk.
pub(crate) const MMAP_ENABLED: &str = "mmap.enabled";
/// The index type that always does.
const DISKANN: &str = "DISKANN";

/// Fields whose vectors stay on disk.
pub(crate) fn on_disk(body: &CollectionBody) -> Vec<FieldId> {
    let stays = |field: &&FieldSchema| {
        let dense = matches!(
            field.data_type,
            DataType::FloatVector | DataType::Float16Vector | DataType::BFloat16Vector | DataType::Int8Vector
        );
        let index = body.indexes.iter().find(|index| index.field == field.id);
        dense && asked(index, field, &body.properties)
    };
    body.schema.fields.iter().filter(stays).map(|field| field.id).collect()
}

fn asked(index: Option<&IndexSpec>, field: &FieldSchema, collection: &Properties) -> bool {
    if index.is_some_and(|index| index.type_name.eq_ignore_ascii_case(DISKANN)) {
        return true;
    }
    let of = |value: Option<&String>| value.and_then(|text| flag(text));
    of(index.and_then(|index| index.params.get(MMAP_ENABLED)))
        .or_else(|| of(field.type_params.get(MMAP_ENABLED)))
        .or_else(|| of(collection.get(MMAP_ENABLED)))
        .unwrap_or(false)
}

fn flag(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// Refuses a value of `mmap.enabled` that is neither true nor false.
///
/// # Errors
/// An invalid parameter.
pub(crate) fn check_properties(set: &Properties) -> Result<()> {
    match set.get(MMAP_ENABLED) {
        Some(text) if flag(text).is_none() => {
            let shown: String = text.chars().take(32).collect();
            Err(Error::invalid(format!(
                "invalid mmap.enabled value: {shown}, expected: true, false"
            )))
        }
        _ => Ok(()),
    }
}

/// Whether these change where vectors are kept.
pub(crate) fn changes(set: &Properties, delete: &[String]) -> bool {
    set.contains_key(MMAP_ENABLED) || delete.iter().any(|key| key == MMAP_ENABLED)
}

/// What is refused while a collection is loaded: what is in memory would have to change place under running searches.
pub(crate) fn loaded(collection: &str) -> Error {
    Error::invalid(format!(
        "can not alter mmap properties if collection loaded: {collection}; release it first"
    ))
}

impl Opened {
    /// Where the vectors of its segments are kept.
    pub(crate) fn residency(&self) -> Residency {
        let body = self.body.load();
        let graphs = body.indexes.iter().filter(|index| index.kind == IndexKind::Graph);
        Residency {
            on_disk: on_disk(&body),
            packed: graphs.map(|index| index.field).collect(),
            cache: std::sync::Arc::clone(&self.shared.frames),
        }
    }
    /// Bytes at which its growing segments are sealed, and that segments which are put together stay below. Less where
    /// vectors stay on disk: a segment is in memory while it is written and while its graph is built.
    pub(crate) fn segment_bytes_max(&self) -> usize {
        let config = &self.shared.config;
        if on_disk(&self.body.load()).is_empty() {
            config.segment_bytes_max
        } else {
            config.segment_bytes_max.min(config.disk_segment_bytes_max)
        }
    }
    /// Bytes of rows that may wait to be sealed.
    pub(crate) fn backlog_bytes_max(&self) -> usize {
        let segments = if on_disk(&self.body.load()).is_empty() {
            BACKLOG_SEGMENTS_MAX
        } else {
            BACKLOG_SEGMENTS_ON_DISK_MAX
        };
        self.segment_bytes_max().saturating_mul(segments)
    }
}

/// Segments' worth of rows that may wait to be sealed.
const BACKLOG_SEGMENTS_MAX: usize = 4;
/// The same, where vectors stay on disk because memory is short.
const BACKLOG_SEGMENTS_ON_DISK_MAX: usize = 2;

/// Whether an index file is what a definition asks for, of a field whose vectors are on disk or not.
pub(crate) fn serves(built: &IndexEntry, spec: &IndexSpec, on_disk: &[FieldId]) -> bool {
    built.spec == *spec && built.on_disk == on_disk.contains(&spec.field)
}

impl Engine {
    /// Sets and deletes properties of an index: `mmap.enabled`. The collection must not be loaded.
    ///
    /// # Errors
    /// [`crate::ErrorKind::IndexNotFound`]; another property or value; a loaded collection; a locked zone.
    pub async fn alter_index(
        &self,
        database: &str,
        collection: &str,
        index: &str,
        set: Properties,
        delete: Vec<String>,
    ) -> Result<()> {
        only_mmap(&set, &delete, "index")?;
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        if collection.record().load_wanted {
            return Err(loaded(&collection.name()));
        }
        let change = |body: &mut CollectionBody| {
            let field = body.schema.field(index).map(|field| field.id);
            let spec = body
                .indexes
                .iter_mut()
                .find(|spec| spec.name == index || Some(spec.field) == field);
            let spec = spec.ok_or_else(|| crate::indexes::not_found(index))?;
            spec.params.extend(set);
            spec.params.retain(|key, _| !delete.contains(key));
            Ok(())
        };
        opened.change_body(change).await?;
        opened.kick_builds();
        Ok(())
    }

    /// Sets and deletes properties of a field: `mmap.enabled`. The collection must not be loaded.
    ///
    /// # Errors
    /// [`crate::ErrorKind::FieldNotFound`]; another property or value; a loaded collection; a locked zone.
    pub async fn alter_collection_field(
        &self,
        database: &str,
        collection: &str,
        field: &str,
        set: Properties,
        delete: Vec<String>,
    ) -> Result<()> {
        only_mmap(&set, &delete, "field")?;
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        if collection.record().load_wanted {
            return Err(loaded(&collection.name()));
        }
        let change = |body: &mut CollectionBody| {
            let found = body.schema.fields.iter_mut().find(|known| known.name == field);
            let found = found.ok_or_else(|| {
                let shown: String = field.chars().take(255).collect();
                Error::new(
                    crate::ErrorKind::FieldNotFound,
                    format!("field does not exist in collection: {shown}"),
                )
            })?;
            found.type_params.extend(set);
            found.type_params.retain(|key, _| !delete.contains(key));
            Ok(())
        };
        opened.change_body(change).await?;
        opened.kick_builds();
        Ok(())
    }
}

fn only_mmap(set: &Properties, delete: &[String], of: &str) -> Result<()> {
    let other = set.keys().chain(delete).find(|key| *key != MMAP_ENABLED);
    if let Some(other) = other {
        let shown: String = other.chars().take(64).collect();
        return Err(Error::invalid(format!(
            "{shown} is not allowed to be altered in {of} params; only {MMAP_ENABLED} is"
        )));
    }
    check_properties(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_property_decides() {
        let with = |text: Option<&str>| {
            let pair = text.map(|text| (MMAP_ENABLED.to_owned(), text.to_owned()));
            pair.into_iter().collect::<Properties>()
        };
        let index = |type_name: &str, text: Option<&str>| IndexSpec {
            name: "index".to_owned(),
            field: FieldId(100),
            kind: IndexKind::Graph,
            type_name: type_name.to_owned(),
            metric: None,
            params: with(text),
        };
        let decided = |index: Option<&IndexSpec>, field: Option<&str>, collection: Option<&str>| {
            let field = FieldSchema {
                id: FieldId(100),
                name: "vector".to_owned(),
                description: String::new(),
                data_type: DataType::FloatVector,
                element_type: None,
                is_primary: false,
                auto_id: false,
                is_partition_key: false,
                is_dynamic: false,
                nullable: false,
                default_value: None,
                dim: 4,
                max_length: 0,
                max_capacity: 0,
                type_params: with(field),
            };
            asked(index, &field, &with(collection))
        };
        let (on, off) = (Some("true"), Some("False"));
        assert!(!decided(None, None, None) && decided(None, None, on) && decided(None, Some("TRUE"), off));
        assert!(!decided(None, off, on));
        assert!(!decided(Some(&index("HNSW", off)), on, on) && decided(Some(&index("HNSW", on)), off, off));
        assert!(decided(Some(&index("HNSW", None)), None, on));
        assert!(
            decided(Some(&index("diskann", off)), off, off),
            "that type is what it is"
        );
        assert!(!decided(None, None, Some("yes")));
    }

    #[test]
    fn values_are_checked() {
        let set = |text: &str| Properties::from([(MMAP_ENABLED.to_owned(), text.to_owned())]);
        assert!(check_properties(&set("true")).is_ok() && check_properties(&set("FALSE")).is_ok());
        assert!(check_properties(&set("1")).is_err());
        assert!(only_mmap(&set("true"), &[], "index").is_ok());
        assert!(only_mmap(&Properties::new(), &["metric_type".to_owned()], "index").is_err());
    }
}
