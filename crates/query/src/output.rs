//! Which fields a request wants to see.

use std::collections::BTreeMap;

use saker_model::{CollectionSchema, FieldId, FieldSchema, Limits};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::parser::cut_name;

/// The fields that a request named, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OutputFields {
    fields: Vec<FieldId>,
    dynamic: DynamicKeys,
    count: bool,
}

/// What a request wants of the dynamic field.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum DynamicKeys {
    /// Nothing.
    #[default]
    None,
    /// These keys, in the order named.
    Some(Vec<String>),
    /// The whole document.
    All,
}

/// Why output fields are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OutputError {
    /// A name that the schema does not have, where there is no dynamic field to look it up in.
    #[error("field {name} not exist")]
    FieldNotFound {
        /// The name, cut at the longest name that a field can have.
        name: String,
    },
    /// A field whose values a function makes: they are for searches alone.
    #[error("not allowed to retrieve raw data of field {name}")]
    NotShown {
        /// The field.
        name: String,
    },
    /// `count(*)` beside other fields.
    #[error("count(*) cannot be combined with other output fields")]
    CountNotAlone,
    /// Too many names.
    #[error("{names} output fields named, the limit is {limit}")]
    TooMany {
        /// How many were named.
        names: usize,
        /// The limit.
        limit: usize,
    },
    /// A stored dynamic document is not a JSON object.
    #[error("a dynamic field's document is not a JSON object")]
    Document,
}

impl OutputFields {
    /// Resolves names: a field, `*` (every field and the whole dynamic field), `$meta`, `$meta["key"]`, a dynamic key, or
    /// `count(*)` alone. A name given twice counts once.
    ///
    /// # Errors
    /// [`OutputError`] if a name is unknown, `count(*)` is not alone, or there are too many names.
    pub fn resolve(names: &[String], schema: &CollectionSchema) -> Result<Self, OutputError> {
        if names.len() > Limits::OUTPUT_FIELDS_MAX {
            return Err(OutputError::TooMany {
                names: names.len(),
                limit: Limits::OUTPUT_FIELDS_MAX,
            });
        }
        let mut output = Self::default();
        for name in names.iter().map(|name| name.trim()) {
            if is_count(name) {
                output.count = true;
            } else if name == "*" {
                let shown = |field: &&FieldSchema| !field.is_dynamic && !schema.is_function_output(field);
                for field in schema.fields.iter().filter(shown) {
                    output.add(field.id);
                }
                if schema.dynamic().is_some() {
                    output.dynamic = DynamicKeys::All;
                }
            } else {
                output.add_name(name, schema)?;
            }
        }
        if output.count && (!output.fields.is_empty() || output.dynamic != DynamicKeys::None) {
            return Err(OutputError::CountNotAlone);
        }
        Ok(output)
    }

    /// Adds the primary key in front, if it is not there yet. Queries return it always.
    #[must_use]
    pub fn with_primary(mut self, schema: &CollectionSchema) -> Self {
        if let Some(primary) = schema.primary()
            && !self.count
            && !self.fields.contains(&primary.id)
        {
            self.fields.insert(0, primary.id);
        }
        self
    }

    /// Declared fields, in the order named, each once; never the dynamic field.
    #[must_use]
    pub fn fields(&self) -> &[FieldId] {
        &self.fields
    }

    /// What is wanted of the dynamic field.
    #[must_use]
    pub fn dynamic(&self) -> &DynamicKeys {
        &self.dynamic
    }

    /// Whether the number of rows is wanted instead of rows.
    #[must_use]
    pub fn is_count(&self) -> bool {
        self.count
    }

    fn add(&mut self, field: FieldId) {
        if !self.fields.contains(&field) {
            self.fields.push(field);
        }
    }

    fn add_name(&mut self, name: &str, schema: &CollectionSchema) -> Result<(), OutputError> {
        let unknown = || OutputError::FieldNotFound {
            name: cut_name(name).to_owned(),
        };
        match schema.field(name) {
            Some(field) if field.is_dynamic => self.dynamic = DynamicKeys::All,
            Some(field) if schema.is_function_output(field) => {
                return Err(OutputError::NotShown {
                    name: cut_name(name).to_owned(),
                });
            }
            Some(field) => self.add(field.id),
            None if schema.dynamic().is_none() => return Err(unknown()),
            None => {
                let key = match name.strip_prefix(CollectionSchema::DYNAMIC_FIELD_NAME) {
                    Some(rest) => quoted_key(rest).ok_or_else(unknown)?,
                    None if name.is_empty() => return Err(unknown()),
                    None => name,
                };
                match &mut self.dynamic {
                    DynamicKeys::All => {}
                    DynamicKeys::None => self.dynamic = DynamicKeys::Some(vec![key.to_owned()]),
                    DynamicKeys::Some(keys) if keys.iter().any(|known| known == key) => {}
                    DynamicKeys::Some(keys) => keys.push(key.to_owned()),
                }
            }
        }
        Ok(())
    }
}

impl DynamicKeys {
    /// The part of a dynamic document that is wanted, as JSON text; `None` if nothing is.
    ///
    /// # Errors
    /// [`OutputError::Document`] if the document is not a JSON object.
    pub fn project(&self, document: &[u8]) -> Result<Option<Vec<u8>>, OutputError> {
        let keys = match self {
            Self::None => return Ok(None),
            Self::All => return Ok(Some(document.to_vec())),
            Self::Some(keys) => keys,
        };
        let mut values: BTreeMap<String, &RawValue> =
            serde_json::from_slice(document).map_err(|_| OutputError::Document)?;
        values.retain(|key, _| keys.contains(key));
        serde_json::to_vec(&values).map(Some).map_err(|_| OutputError::Document)
    }
}

/// `count(*)`, in any case, with blanks anywhere.
fn is_count(name: &str) -> bool {
    let mut letters = name
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_ascii_lowercase());
    "count(*)".chars().all(|wanted| letters.next() == Some(wanted)) && letters.next().is_none()
}

/// The key in `["key"]`, written without escapes.
fn quoted_key(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?.trim();
    let key = ['"', '\'']
        .iter()
        .find_map(|quote| inner.strip_prefix(*quote)?.strip_suffix(*quote))?;
    (!key.is_empty() && !key.contains(['"', '\'', '\\'])).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, schema};

    fn resolve(names: &[&str], schema: &CollectionSchema) -> Result<OutputFields, OutputError> {
        OutputFields::resolve(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), schema)
    }

    fn unknown(name: &str) -> OutputError {
        OutputError::FieldNotFound { name: name.to_owned() }
    }

    #[test]
    fn names_resolve_in_order_and_once() {
        let output = resolve(&["age", "id", "age"], &schema()).unwrap();
        assert_eq!(output.fields(), [sample::AGE, sample::ID]);
        assert_eq!(output.dynamic(), &DynamicKeys::None);
        assert!(!output.is_count());
    }

    #[test]
    fn a_star_is_every_field() {
        let all = resolve(&["*", "age"], &schema()).unwrap();
        assert_eq!(all.fields().len(), schema().fields.len() - 1);
        assert!(!all.fields().contains(&sample::META));
        assert_eq!(all.dynamic(), &DynamicKeys::All);
    }

    #[test]
    fn other_names_are_dynamic_keys() {
        let output = resolve(&["color", r#"$meta["size"]"#, "color"], &schema()).unwrap();
        let keys = vec!["color".to_owned(), "size".to_owned()];
        assert_eq!(output.dynamic(), &DynamicKeys::Some(keys));
        assert_eq!(
            resolve(&["color", "$meta"], &schema()).unwrap().dynamic(),
            &DynamicKeys::All
        );
        assert_eq!(
            resolve(&["$meta[size]"], &schema()).unwrap_err(),
            unknown("$meta[size]")
        );
        assert_eq!(resolve(&[""], &schema()).unwrap_err(), unknown(""));
    }

    #[test]
    fn without_a_dynamic_field_other_names_are_refused() {
        let mut schema = schema();
        schema.fields.retain(|field| !field.is_dynamic);
        assert_eq!(
            resolve(&["color"], &schema).unwrap_err().to_string(),
            "field color not exist"
        );
        assert_eq!(resolve(&["$meta"], &schema).unwrap_err(), unknown("$meta"));
        assert_eq!(resolve(&["*"], &schema).unwrap().dynamic(), &DynamicKeys::None);
    }

    #[test]
    fn count_stands_alone() {
        assert!(resolve(&["count(*)"], &schema()).unwrap().is_count());
        assert!(resolve(&[" COUNT( * ) "], &schema()).unwrap().is_count());
        assert_eq!(
            resolve(&["count(*)", "age"], &schema()).unwrap_err(),
            OutputError::CountNotAlone
        );
        assert_eq!(
            resolve(&["color", "count(*)"], &schema()).unwrap_err(),
            OutputError::CountNotAlone
        );
        assert!(
            resolve(&["count(*)"], &schema())
                .unwrap()
                .with_primary(&schema())
                .fields()
                .is_empty()
        );
    }

    #[test]
    fn the_primary_key_is_added_once() {
        let fields = |names: &[&str]| {
            resolve(names, &schema())
                .unwrap()
                .with_primary(&schema())
                .fields()
                .to_vec()
        };
        assert_eq!(fields(&["age"]), [sample::ID, sample::AGE]);
        assert_eq!(fields(&["age", "id"]), [sample::AGE, sample::ID]);
    }

    #[test]
    fn names_are_limited() {
        let names = |count| vec!["age".to_owned(); count];
        let limit = Limits::OUTPUT_FIELDS_MAX;
        assert!(OutputFields::resolve(&names(limit), &schema()).is_ok());
        let error = OutputFields::resolve(&names(limit + 1), &schema()).unwrap_err();
        assert_eq!(
            error,
            OutputError::TooMany {
                names: limit + 1,
                limit
            }
        );
    }

    #[test]
    fn documents_are_cut_to_the_keys() {
        let keys = DynamicKeys::Some(vec!["b".to_owned(), "missing".to_owned()]);
        let project = |text: &str| keys.project(text.as_bytes());
        assert_eq!(
            project(r#"{"a":1,"b":{"c":[1.50,12345678901234567890123]}}"#)
                .unwrap()
                .unwrap(),
            br#"{"b":{"c":[1.50,12345678901234567890123]}}"#
        );
        assert_eq!(project(r#"{"a":1}"#).unwrap().unwrap(), b"{}");
        assert_eq!(project("[1]").unwrap_err(), OutputError::Document);
        assert_eq!(DynamicKeys::All.project(b"{ }").unwrap().unwrap(), b"{ }");
        assert_eq!(DynamicKeys::None.project(b"{}").unwrap(), None);
    }
}
