//! Rows as chunks of columns.

use std::sync::Arc;

use saker_model::{ArrayValue, Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldId, FieldSchema, RowBatch};
use saker_scalar::ScalarIndex;
use serde_json::Value as Json;

use super::{Case, TYPES, Value};
use crate::sample::field;
use crate::{ColumnSource, IndexTarget, JsonCast};

pub(super) fn schema(types: &[usize]) -> CollectionSchema {
    let mut fields: Vec<FieldSchema> = types
        .iter()
        .enumerate()
        .map(|(index, &kind)| field(id(index), &format!("f{index}"), TYPES[kind].0, TYPES[kind].1))
        .collect();
    fields.push(field(crate::sample::META, "$meta", DataType::Json, None));
    CollectionSchema {
        name: "random".into(),
        description: String::new(),
        fields,
        enable_dynamic_field: true,
        functions: Vec::new(),
    }
}

pub(super) fn id(index: usize) -> FieldId {
    FieldId(200 + i64::try_from(index).expect("few fields"))
}

pub(super) fn column(
    field: FieldId,
    kind: (DataType, Option<DataType>),
    values: &[Option<Value>],
    object: bool,
) -> Column {
    fn numbers<T>(values: &[Option<Value>], make: impl Fn(i64, f64) -> T) -> Vec<T> {
        let number = |value: &Option<Value>| match value {
            Some(Value::Int(value)) => make(*value, 0.0),
            Some(Value::Double(value)) => make(0, *value),
            _ => make(0, 0.0),
        };
        values.iter().map(number).collect()
    }
    let texts = |value: &Value| {
        if let Value::Text(text) = value {
            text.clone()
        } else {
            String::new()
        }
    };
    let text = |value: &Option<Value>| value.as_ref().map(texts).unwrap_or_default();
    let items = |value: &Option<Value>| {
        if let Some(Value::List(items)) = value {
            items.clone()
        } else {
            Vec::new()
        }
    };
    #[expect(clippy::cast_possible_truncation, reason = "values were made to fit")]
    let data = match kind {
        (DataType::Bool, _) => ColumnData::Bool(values.iter().map(|value| *value == Some(Value::Bool(true))).collect()),
        (DataType::Int8, _) => ColumnData::Int8(numbers(values, |int, _| int as i8)),
        (DataType::Int16, _) => ColumnData::Int16(numbers(values, |int, _| int as i16)),
        (DataType::Int32, _) => ColumnData::Int32(numbers(values, |int, _| int as i32)),
        (DataType::Int64, _) => ColumnData::Int64(numbers(values, |int, _| int)),
        (DataType::Float, _) => ColumnData::Float(numbers(values, |_, double| double as f32)),
        (DataType::Double, _) => ColumnData::Double(numbers(values, |_, double| double)),
        (DataType::VarChar, _) => ColumnData::VarChar(values.iter().map(text).collect()),
        (DataType::Json, _) => {
            let document = |value: &Option<Value>| {
                value
                    .as_ref()
                    .map(|value| json(value, object).to_string().into_bytes())
                    .unwrap_or_default()
            };
            ColumnData::Json(values.iter().map(document).collect())
        }
        (_, Some(DataType::Int64)) => {
            let array = |value: &Option<Value>| {
                let ints = items(value).into_iter();
                ArrayValue::Int64(
                    ints.filter_map(|item| {
                        if let Value::Int(value) = item {
                            Some(value)
                        } else {
                            None
                        }
                    })
                    .collect(),
                )
            };
            ColumnData::Array(values.iter().map(array).collect())
        }
        (_, Some(DataType::Float)) => {
            let array = |value: &Option<Value>| {
                let floats = items(value).into_iter();
                let single = |item| {
                    if let Value::Double(value) = item {
                        Some(value as f32)
                    } else {
                        None
                    }
                };
                ArrayValue::Float(floats.filter_map(single).collect())
            };
            ColumnData::Array(values.iter().map(array).collect())
        }
        _ => ColumnData::Array(
            values
                .iter()
                .map(|value| ArrayValue::Text(items(value).iter().map(texts).collect()))
                .collect(),
        ),
    };
    let all = values.iter().all(Option::is_some);
    let validity = (!all).then(|| Bitmap::from_bools(values.iter().map(Option::is_some)));
    Column { field, data, validity }
}

/// A list of two, at the top of an object document, is the object's values of `a` and `b`.
pub(super) fn json(value: &Value, object: bool) -> Json {
    match value {
        Value::List(items) if object && items.len() == 2 => {
            let mut map = serde_json::Map::new();
            for (key, item) in ["a", "b"].into_iter().zip(items) {
                // Half of the nulls are left out instead.
                if *item != Value::Absent || key == "b" {
                    map.insert(key.to_owned(), json(item, true));
                }
            }
            Json::Object(map)
        }
        Value::List(items) => Json::Array(items.iter().map(|item| json(item, true)).collect()),
        Value::Null | Value::Absent => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Double(value) => Json::from(*value),
        Value::Text(value) => Json::from(value.clone()),
    }
}

/// Rows cut into chunks whose columns hold one row more than counts.
pub(super) struct Chunks(Vec<(usize, RowBatch)>, Vec<Vec<Arc<ScalarIndex>>>);

impl ColumnSource for Chunks {
    fn chunks(&self) -> usize {
        self.0.len()
    }
    fn chunk_rows(&self, chunk: usize) -> usize {
        self.0[chunk].0
    }
    fn column(&self, chunk: usize, field: FieldId) -> Option<&Column> {
        self.0[chunk].1.column(field)
    }
    fn indexes(&self, chunk: usize) -> &[Arc<ScalarIndex>] {
        self.1.get(chunk).map_or(&[], Vec::as_slice)
    }
}

impl Chunks {
    /// The same rows with an index on every field and on paths into every JSON field.
    pub(super) fn indexed(mut self, case: &Case) -> Self {
        let schema = schema(&case.types);
        let casts: &[JsonCast] = if case.rows.len().is_multiple_of(2) {
            &[JsonCast::Any, JsonCast::Doubles]
        } else {
            &[JsonCast::Double, JsonCast::Bool, JsonCast::Text, JsonCast::Texts]
        };
        let mut targets: Vec<IndexTarget> = schema.fields.iter().filter_map(IndexTarget::of_field).collect();
        for field in schema.fields.iter().filter(|field| field.data_type == DataType::Json) {
            let steps: &[&str] = if field.is_dynamic {
                &["['a']", "['b']", "['a']['b']", "['a'][0]", "['b'][1]"]
            } else {
                &["", "['a']", "['b']", "[0]", "[1]", "['a'][0]"]
            };
            for step in steps {
                let path = format!("{}{step}", field.name);
                targets.extend(
                    casts
                        .iter()
                        .map(|&cast| IndexTarget::of_path(&path, cast, &schema).expect("a path")),
                );
            }
        }
        let indexes = self.0.iter().map(|(rows, batch)| {
            let built = targets.iter().map(|target| {
                let index = target
                    .build(batch.column(target.place().field), *rows)
                    .expect("few rows");
                // What comes out of a file answers alike.
                let opened = ScalarIndex::from_bytes(&index.to_bytes(), target.place().field, *rows);
                Arc::new(opened.expect("bytes of an index"))
            });
            built.collect()
        });
        self.1 = indexes.collect();
        self
    }
}

pub(super) fn chunks(case: &Case) -> Chunks {
    let mut start = 0usize;
    let mut out = Vec::new();
    let sizes = case.chunks.iter().copied().chain([usize::MAX]);
    for size in sizes {
        let end = case.rows.len().min(start.saturating_add(size));
        let held = &case.rows[start..case.rows.len().min(end + 1)];
        let kinds = case
            .types
            .iter()
            .map(|&kind| TYPES[kind])
            .chain([(DataType::Json, None)]);
        let columns = kinds.enumerate().map(|(index, kind)| {
            let dynamic = index == case.types.len();
            let field = if dynamic { crate::sample::META } else { id(index) };
            let values: Vec<Option<Value>> = held.iter().map(|row| row[index].clone()).collect();
            column(field, kind, &values, true)
        });
        out.push((
            end - start,
            RowBatch::new(columns.collect()).expect("columns of one length"),
        ));
        start = end;
    }
    Chunks(out, Vec::new())
}
