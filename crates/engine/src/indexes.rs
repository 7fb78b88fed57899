//! Index definitions: what users ask for, and how far it is.

use std::sync::PoisonError;

use saker_model::{CollectionSchema, DataType, FieldSchema, IndexKind, IndexSpec, Limits};
use saker_query::{Place, Step};

use crate::{
    collections::read_body,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    index_types,
    scalar_types::{indexed_field, scalar_index, scalar_target},
    sparse_types,
    types::{IndexInfo, IndexRequest},
};

impl Engine {
    /// Makes an index; it is built in the background. The same again is fine; another one on the field is refused.
    ///
    /// # Errors
    /// [`ErrorKind::FieldNotFound`], [`ErrorKind::IndexAlreadyExists`], bad parameters; a locked zone.
    pub async fn create_index(&self, database: &str, collection: &str, request: IndexRequest) -> Result<()> {
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        let field = indexed_field(&opened.schema, &request.field, &request.params)?.ok_or_else(|| {
            Error::new(
                ErrorKind::FieldNotFound,
                format!("cannot create index on non-exist field: {}", cut(&request.field)),
            )
        })?;
        let spec = spec_of(&opened.schema, field, &request)?;
        opened
            .change_body(|body| {
                if body.indexes.contains(&spec) {
                    return Ok(());
                }
                for known in body.indexes.iter().filter(|known| known.field == spec.field) {
                    // A JSON field may have an index on each of several paths.
                    if place_of(&body.schema, known)? == place_of(&body.schema, &spec)? {
                        return Err(already(&spec.name, "at most one distinct index is allowed per field"));
                    }
                }
                if body.indexes.iter().any(|known| known.name == spec.name) {
                    return Err(already(&spec.name, "index names must be distinct within a collection"));
                }
                body.indexes.push(spec);
                Ok(())
            })
            .await?;
        opened.kick_builds();
        Ok(())
    }

    /// Indexes with their progress; `name` is an index's or a field's name, empty for all.
    ///
    /// # Errors
    /// [`ErrorKind::IndexNotFound`] if there is none; a locked zone.
    pub async fn describe_index(&self, database: &str, collection: &str, name: &str) -> Result<Vec<IndexInfo>> {
        let collection = self.collection(database, collection)?;
        // Definitions are there without opening; progress needs the manifest.
        let body = read_body(&collection).await?;
        let field_name = |spec: &IndexSpec| {
            body.schema
                .field_by_id(spec.field)
                .map(|field| field.name.clone())
                .unwrap_or_default()
        };
        let wanted = |spec: &&IndexSpec| name.is_empty() || is_called(&body.schema, spec, name);
        let specs: Vec<_> = body.indexes.iter().filter(wanted).cloned().collect();
        if specs.is_empty() {
            return Err(not_found(name));
        }
        let opened = collection.open().await?;
        let failure = opened
            .build_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut infos = Vec::with_capacity(specs.len());
        for spec in specs {
            let (indexed_rows, total_rows) = opened.index_progress(&spec).await;
            let failure = failure.clone().filter(|_| indexed_rows < total_rows);
            infos.push(IndexInfo {
                field: field_name(&spec),
                spec,
                indexed_rows,
                total_rows,
                failure,
            });
        }
        opened.check()?;
        Ok(infos)
    }

    /// Drops an index by its or its field's name; a missing one is fine.
    ///
    /// # Errors
    /// An index of a loaded collection's vector field is refused, as in Milvus; a locked zone.
    pub async fn drop_index(&self, database: &str, collection: &str, name: &str) -> Result<()> {
        let collection = self.collection(database, collection)?;
        let (_gate, opened) = collection.open_to_write().await?;
        let body = opened.body.load_full();
        let by_name = body.indexes.iter().find(|spec| spec.name == name);
        let mut called = body.indexes.iter().filter(|spec| is_called(&body.schema, spec, name));
        let spec = match (by_name, called.next(), called.next()) {
            (Some(spec), ..) | (None, Some(spec), None) => spec.clone(),
            (None, Some(_), Some(_)) => {
                return Err(Error::invalid(format!(
                    "there are multiple indexes on field {}, please specify the index_name",
                    cut(name)
                )));
            }
            (None, None, _) => return Ok(()),
        };
        if collection.record().load_wanted && spec.kind != IndexKind::Scalar {
            return Err(Error::invalid(format!(
                "vector index cannot be dropped on loaded collection: {}; release it first",
                collection.name()
            )));
        }
        opened
            .change_body(|body| {
                body.indexes.retain(|known| *known != spec);
                Ok(())
            })
            .await?;
        opened.drop_unwanted_lists();
        opened.drop_built(&spec).await
    }
}

impl crate::opened::Opened {
    /// Removes the files of an index that no definition asks for any more.
    async fn drop_built(&self, spec: &IndexSpec) -> Result<()> {
        let mut state = self.manifest.lock().await;
        let mut next = state.manifest.clone();
        let mut removed = Vec::new();
        for segment in &mut next.segments {
            let (gone, kept) = segment.indexes.drain(..).partition(|built| built.spec == *spec);
            segment.indexes = kept;
            let gone: Vec<saker_segment::IndexEntry> = gone;
            removed.extend(gone.into_iter().map(|built| (segment.segment, built.file)));
        }
        if removed.is_empty() {
            return Ok(());
        }
        self.commit_manifest(&mut state, next).await?;
        drop(state);
        for segment in self.memory().sealed.values() {
            match spec.kind {
                IndexKind::Scalar => segment.set_scalar_index(spec, None),
                IndexKind::Flat | IndexKind::Graph | IndexKind::Sparse => segment.set_index(spec.field, None),
            }
        }
        for (segment, file) in removed {
            let prefix = self.segment_prefix(segment);
            saker_segment::remove_files(&*self.shared.objects, &prefix, [&file]).await?;
        }
        Ok(())
    }
}

fn spec_of(schema: &CollectionSchema, field: &FieldSchema, request: &IndexRequest) -> Result<IndexSpec> {
    let (kind, type_name, metric) = if field.data_type == DataType::SparseFloatVector {
        let (kind, type_name, metric) = sparse_types::sparse_index(schema, field, &request.params)?;
        (kind, type_name, Some(metric))
    } else if field.data_type.is_vector() {
        let (kind, type_name, metric) = index_types::vector_index(field, &request.params)?;
        (kind, type_name, Some(metric))
    } else {
        let (kind, type_name) = scalar_index(schema, field, &request.params)?;
        (kind, type_name, None)
    };
    let named = request.name.clone().filter(|name| !name.is_empty());
    let mut spec = IndexSpec {
        name: named.clone().unwrap_or_else(|| field.name.clone()),
        field: field.id,
        kind,
        type_name,
        metric,
        params: request.params.clone(),
    };
    if named.is_none()
        && let Some(place) = place_of(schema, &spec)?
    {
        for step in &place.steps {
            spec.name.push('/');
            match step {
                Step::Key(key) => spec.name.push_str(key),
                Step::Index(index) => spec.name.push_str(&index.to_string()),
            }
        }
        spec.name = spec.name.chars().take(Limits::NAME_BYTES_MAX).collect();
    }
    Ok(spec)
}

/// What an index on a scalar or JSON field is of; `None` for an index of vectors.
fn place_of(schema: &CollectionSchema, spec: &IndexSpec) -> Result<Option<Place>> {
    match spec.kind {
        IndexKind::Scalar => Ok(Some(scalar_target(schema, spec)?.place().clone())),
        IndexKind::Flat | IndexKind::Graph | IndexKind::Sparse => Ok(None),
    }
}

/// Whether this is an index's name, or that of its field or of the key of the dynamic field that it is of.
fn is_called(schema: &CollectionSchema, spec: &IndexSpec, name: &str) -> bool {
    let field = schema.field_by_id(spec.field);
    spec.name == name
        || field.is_some_and(|field| {
            let is_key = || {
                let place = place_of(schema, spec).ok().flatten();
                place.is_some_and(|place| place.steps == [Step::Key(name.to_owned())])
            };
            field.name == name || field.is_dynamic && is_key()
        })
}

fn already(name: &str, reason: &str) -> Error {
    Error::new(
        ErrorKind::IndexAlreadyExists,
        format!("CreateIndex failed: {reason} [index={}]", cut(name)),
    )
}

pub(crate) fn not_found(name: &str) -> Error {
    Error::new(
        ErrorKind::IndexNotFound,
        format!("index not found[indexName={}]", cut(name)),
    )
}

fn cut(text: &str) -> String {
    text.chars().take(255).collect()
}
