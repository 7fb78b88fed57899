//! Types of indexes on fields that are no vectors, by the names that Milvus's users give: which fields they take, which
//! parameters they have, and what they are built of.
//!
//! One engine serves all names: distinct values in order, with the rows of each. It answers what any of them is meant
//! for, so a name says what is allowed, not what is fast. Rules are Milvus's, in the words that clients know.

use saker_model::{CollectionSchema, DataType, FieldSchema, IndexKind, IndexSpec};
use saker_query::{IndexTarget, JsonCast};

use crate::{
    error::{Error, Result},
    index_types::{Given, cut, refused},
    types::Properties,
};

const AUTOINDEX: &str = "AUTOINDEX";
const INVERTED: &str = "INVERTED";
const BITMAP: &str = "BITMAP";
const STL_SORT: &str = "STL_SORT";
const TRIE: &str = "TRIE";
const NGRAM: &str = "NGRAM";
/// Of [`word_indexes`]; not a name that a request may give.
const WORDS: &str = "WORDS";
const NAMES: &[&str] = &[AUTOINDEX, INVERTED, BITMAP, STL_SORT, TRIE, NGRAM];

/// Where in the documents of a JSON field the values are.
const JSON_PATH: &str = "json_path";
/// Which of them the index is to hold.
const JSON_CAST_TYPE: &str = "json_cast_type";

/// What an index of a field that is no vector is to be: kind and name of the type.
///
/// # Errors
/// An unknown type, a type that does not take the field, a parameter that is missing or not allowed.
pub(crate) fn scalar_index(
    schema: &CollectionSchema,
    field: &FieldSchema,
    params: &Properties,
) -> Result<(IndexKind, String)> {
    let given = Given::new(params)?;
    let asked = given.text("index_type").filter(|name| !name.is_empty());
    let shown = asked.unwrap_or_else(|| AUTOINDEX.to_owned());
    let upper = shown.to_ascii_uppercase();
    let Some(name) = NAMES.iter().find(|known| **known == upper) else {
        return Err(refused(&format!(
            "index type {} is not supported on {} field {}",
            cut(&shown),
            field.data_type.name(),
            field.name
        )));
    };
    check_field(name, field)?;
    if *name == NGRAM {
        check_grams(&given)?;
    }
    if field.data_type == DataType::Json {
        check_cast(name, &given)?;
    }
    target(schema, field, &given)?;
    Ok((IndexKind::Scalar, shown))
}

/// The indexes that nobody defines and no list shows: of the words of each field that `text_match` may be asked of.
pub(crate) fn word_indexes(schema: &CollectionSchema) -> impl Iterator<Item = IndexSpec> + '_ {
    let matched = schema.fields.iter().filter(|field| field.is_matched());
    matched.map(|field| IndexSpec {
        name: String::new(),
        field: field.id,
        kind: IndexKind::Scalar,
        type_name: WORDS.to_owned(),
        metric: None,
        params: Default::default(),
    })
}

/// What an index is built of.
///
/// # Errors
/// If the definition does not fit the schema: it was checked when it was made.
pub(crate) fn scalar_target(schema: &CollectionSchema, spec: &IndexSpec) -> Result<IndexTarget> {
    let field = schema.field_by_id(spec.field);
    let field = field.ok_or_else(|| Error::internal(format!("index of field {}, which is not there", spec.field)))?;
    if spec.type_name == WORDS {
        let words = IndexTarget::of_words(field);
        return words.ok_or_else(|| Error::internal(format!("field {}, whose words are not matched", spec.field)));
    }
    target(schema, field, &Given::new(&spec.params)?)
}

/// The field that a request names: a declared one or, where it says a path, a key of the dynamic field.
pub(crate) fn indexed_field<'s>(
    schema: &'s CollectionSchema,
    name: &str,
    params: &Properties,
) -> Result<Option<&'s FieldSchema>> {
    if let Some(field) = schema.field(name) {
        return Ok(Some(field));
    }
    let given = Given::new(params)?;
    let says_how = given.text(JSON_CAST_TYPE).is_some() || given.text(JSON_PATH).is_some();
    Ok(schema.dynamic().filter(|_| says_how))
}

fn target(schema: &CollectionSchema, field: &FieldSchema, given: &Given<'_>) -> Result<IndexTarget> {
    if field.data_type != DataType::Json {
        return IndexTarget::of_field(field).ok_or_else(|| {
            refused(&format!(
                "{INVERTED} are not supported on {} field",
                field.data_type.name()
            ))
        });
    }
    let cast = given.text(JSON_CAST_TYPE).and_then(|name| JsonCast::from_name(&name));
    let cast = cast.ok_or_else(|| missing("json index must specify cast type", JSON_CAST_TYPE))?;
    let path = given.text(JSON_PATH).filter(|path| !path.is_empty());
    let path = path.unwrap_or_else(|| field.name.clone());
    let target = IndexTarget::of_path(&path, cast, schema)?;
    if target.place().field == field.id {
        Ok(target)
    } else {
        Err(refused(&format!(
            "{JSON_PATH} leads into another field than {}",
            field.name
        )))
    }
}

fn check_field(name: &str, field: &FieldSchema) -> Result<()> {
    use DataType::{Array, Bool, Double, Float, Int8, Int16, Int32, Int64, Json, VarChar};
    let discrete = |data_type: DataType| matches!(data_type, Bool | Int8 | Int16 | Int32 | Int64 | VarChar);
    let data_type = field.data_type;
    match name {
        TRIE if data_type != VarChar => Err(refused("TRIE are only supported on varchar field")),
        STL_SORT
            if !matches!(
                data_type,
                Int8 | Int16 | Int32 | Int64 | Float | Double | VarChar | Json
            ) =>
        {
            Err(refused(&format!(
                "STL_SORT are only supported on numeric, varchar, timestamptz, date or time field, got {}",
                data_type.name()
            )))
        }
        BITMAP if field.is_primary => Err(refused("create bitmap index on primary key not supported")),
        BITMAP if data_type == Array && !field.element_type.is_some_and(discrete) => Err(refused(
            "bitmap index are only supported on bool, int, string for array field",
        )),
        BITMAP if !discrete(data_type) && !matches!(data_type, Array | Json) => Err(refused(
            "bitmap index are only supported on bool, int, string and array field",
        )),
        NGRAM if !matches!(data_type, VarChar | Json) => {
            Err(refused("ngram index can only be created on VARCHAR or JSON field"))
        }
        _ => Ok(()),
    }
}

fn check_cast(name: &str, given: &Given<'_>) -> Result<()> {
    let cast = given.text(JSON_CAST_TYPE);
    if name == NGRAM {
        return match cast {
            None => Err(refused("JSON field with ngram index must specify json_cast_type")),
            Some(cast) if JsonCast::from_name(&cast) != Some(JsonCast::Text) => Err(refused(&format!(
                "JSON field with ngram index only supports VARCHAR cast type, got: {}",
                cut(&cast.to_ascii_uppercase())
            ))),
            Some(_) => Ok(()),
        };
    }
    let cast = cast.ok_or_else(|| missing("json index must specify cast type", JSON_CAST_TYPE))?;
    let Some(known) = JsonCast::from_name(&cast) else {
        return Err(refused(&format!("json_cast_type {} is not supported", cut(&cast))));
    };
    let fits = match name {
        BITMAP => matches!(known, JsonCast::Bool | JsonCast::Text),
        STL_SORT => matches!(known, JsonCast::Double | JsonCast::Text),
        _ => return check_cast_function(known, &cast, given),
    };
    if !fits {
        return Err(refused(&format!(
            "json_cast_type {} is not supported for {name} index",
            cut(&cast)
        )));
    }
    if given.text(JSON_PATH).is_none() {
        return Err(missing("json index must specify json path", JSON_PATH));
    }
    Ok(())
}

/// An index of converted values would answer other filters than those that read the documents.
fn check_cast_function(known: JsonCast, cast: &str, given: &Given<'_>) -> Result<()> {
    match given.text("json_cast_function") {
        None => Ok(()),
        Some(function) if known != JsonCast::Double => Err(refused(&format!(
            "json_cast_function {} is not supported for json_cast_type {}",
            cut(&function),
            cut(cast)
        ))),
        Some(function) => Err(refused(&format!(
            "json_cast_function {} is not supported",
            cut(&function)
        ))),
    }
}

fn check_grams(given: &Given<'_>) -> Result<()> {
    let (Some(min), Some(max)) = (given.text("min_gram"), given.text("max_gram")) else {
        return Err(refused("Ngram index must specify both min_gram and max_gram"));
    };
    let number = |name: &str, text: &str| {
        text.trim().parse::<i64>().map_err(|_| {
            refused(&format!(
                "{name} for Ngram index must be an integer, got: {}",
                cut(text)
            ))
        })
    };
    let (min, max) = (number("min_gram", &min)?, number("max_gram", &max)?);
    if min <= 0 || max <= 0 || min > max {
        return Err(refused(&format!(
            "invalid min_gram or max_gram value for Ngram index, min_gram: {min}, max_gram: {max}"
        )));
    }
    Ok(())
}

fn missing(reason: &str, name: &str) -> Error {
    refused(&format!("{reason}: missing parameter[missing_param={name}]"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use saker_model::FieldId;

    use super::*;

    fn field(id: i64, name: &str, data_type: DataType, element_type: Option<DataType>) -> FieldSchema {
        FieldSchema {
            id: FieldId(id),
            name: name.to_owned(),
            description: String::new(),
            data_type,
            element_type,
            is_primary: name == "id",
            auto_id: false,
            is_partition_key: false,
            is_dynamic: name == "$meta",
            nullable: false,
            default_value: None,
            dim: 0,
            max_length: 64,
            max_capacity: 8,
            type_params: BTreeMap::new(),
        }
    }

    fn schema() -> CollectionSchema {
        CollectionSchema {
            name: "c".to_owned(),
            description: String::new(),
            fields: vec![
                field(100, "id", DataType::Int64, None),
                field(101, "age", DataType::Int32, None),
                field(102, "price", DataType::Double, None),
                field(103, "name", DataType::VarChar, None),
                field(104, "flag", DataType::Bool, None),
                field(105, "info", DataType::Json, None),
                field(106, "tags", DataType::Array, Some(DataType::VarChar)),
                field(107, "sizes", DataType::Array, Some(DataType::Float)),
                field(108, "$meta", DataType::Json, None),
            ],
            enable_dynamic_field: true,
            functions: Vec::new(),
        }
    }

    fn asked(name: &str, pairs: &[(&str, &str)]) -> Result<(IndexKind, String)> {
        let schema = schema();
        let params: Properties = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let field = indexed_field(&schema, name, &params)?.ok_or_else(|| Error::invalid("no such field"))?;
        scalar_index(&schema, field, &params)
    }

    #[test]
    fn every_name_takes_the_fields_that_it_is_meant_for() {
        for (name, kind) in [
            ("id", "INVERTED"),
            ("id", "STL_SORT"),
            ("age", "BITMAP"),
            ("age", "AUTOINDEX"),
            ("age", ""),
            ("price", "STL_SORT"),
            ("price", "INVERTED"),
            ("name", "TRIE"),
            ("name", "trie"),
            ("name", "BITMAP"),
            ("name", "STL_SORT"),
            ("flag", "BITMAP"),
            ("flag", "INVERTED"),
            ("tags", "INVERTED"),
            ("tags", "BITMAP"),
            ("sizes", "INVERTED"),
        ] {
            let (_, shown) = asked(name, &[("index_type", kind)]).unwrap();
            assert_eq!(shown, if kind.is_empty() { "AUTOINDEX" } else { kind }, "{name}");
        }
        for (name, path) in [
            ("info", "info['a'][0]"),
            ("$meta", "$meta['a']"),
            ("a", "a"),
            ("a", "a['b']"),
        ] {
            for cast in ["DOUBLE", "varchar", "BOOL", "ARRAY_DOUBLE", "JSON"] {
                let pairs = [
                    ("index_type", "INVERTED"),
                    ("json_path", path),
                    ("json_cast_type", cast),
                ];
                assert!(asked(name, &pairs).is_ok(), "{path} {cast}");
            }
        }
        let nested = r#"{"json_path": "info['a']", "json_cast_type": "varchar"}"#;
        assert!(asked("info", &[("index_type", "AUTOINDEX"), ("params", nested)]).is_ok());
        assert!(asked("name", &[("index_type", "NGRAM"), ("min_gram", "2"), ("max_gram", "3")]).is_ok());
    }

    #[test]
    fn what_does_not_go_together_is_refused_in_the_words_that_clients_know() {
        let json = |kind: &'static str, cast: &'static str| {
            [
                ("index_type", kind),
                ("json_cast_type", cast),
                ("json_path", "info['a']"),
            ]
        };
        for (name, pairs, expected) in [
            (
                "age",
                vec![("index_type", "TRIE")],
                "TRIE are only supported on varchar field",
            ),
            (
                "flag",
                vec![("index_type", "STL_SORT")],
                "STL_SORT are only supported on numeric",
            ),
            (
                "tags",
                vec![("index_type", "STL_SORT")],
                "STL_SORT are only supported on numeric",
            ),
            (
                "price",
                vec![("index_type", "BITMAP")],
                "bitmap index are only supported on bool, int, string",
            ),
            (
                "sizes",
                vec![("index_type", "BITMAP")],
                "bitmap index are only supported on bool, int, string for array field",
            ),
            (
                "id",
                vec![("index_type", "BITMAP")],
                "create bitmap index on primary key not supported",
            ),
            (
                "age",
                vec![("index_type", "NGRAM")],
                "ngram index can only be created on VARCHAR or JSON field",
            ),
            (
                "name",
                vec![("index_type", "NGRAM")],
                "Ngram index must specify both min_gram and max_gram",
            ),
            (
                "name",
                vec![("index_type", "HNSW")],
                "index type HNSW is not supported on VarChar field name",
            ),
            (
                "info",
                vec![("index_type", "INVERTED")],
                "json index must specify cast type",
            ),
            (
                "info",
                vec![("index_type", "INVERTED"), ("json_cast_type", "int")],
                "json_cast_type int is not supported",
            ),
            (
                "info",
                json("BITMAP", "DOUBLE").to_vec(),
                "json_cast_type DOUBLE is not supported for BITMAP index",
            ),
            (
                "info",
                json("STL_SORT", "BOOL").to_vec(),
                "json_cast_type BOOL is not supported for STL_SORT index",
            ),
            (
                "info",
                vec![("json_cast_type", "DOUBLE"), ("json_path", "a")],
                "another field",
            ),
            (
                "info",
                vec![("json_cast_type", "DOUBLE"), ("json_path", "info['a")],
                "cannot parse expression",
            ),
            ("nowhere", vec![("index_type", "INVERTED")], "no such field"),
        ] {
            let message = asked(name, &pairs).unwrap_err().to_string();
            assert!(message.contains(expected), "{name}: {message}");
        }
    }
}
