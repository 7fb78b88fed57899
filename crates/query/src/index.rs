//! Making scalar indexes of columns: which place an index is of, and which of its values are in it.

use saker_analyzer::Analyzer;
use saker_model::{ArrayValue, Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldSchema};
use saker_scalar::{Builder, Class, Classes, Place, ScalarError, ScalarIndex};

use crate::bind::json_place;
use crate::evaluate::array_items;
use crate::json::{Item, Want, extract};
use crate::{FilterError, parse};

/// What an index on a field is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexTarget {
    place: Place,
    covers: Classes,
    of_elements: bool,
    /// What cuts texts into the words that are in it, if it is of those.
    words: Option<Analyzer>,
}

/// What values an index on a JSON path holds, by Milvus's `json_cast_type`. Values of other kinds are not in it, and
/// filters that ask for those read the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonCast {
    /// `BOOL`.
    Bool,
    /// `DOUBLE`: all numbers, compared exactly.
    Double,
    /// `VARCHAR`.
    Text,
    /// `ARRAY_BOOL`: the booleans in a list.
    Bools,
    /// `ARRAY_DOUBLE`: the numbers in a list.
    Doubles,
    /// `ARRAY_VARCHAR`: the texts in a list.
    Texts,
    /// `JSON`: booleans, numbers and texts.
    Any,
}

impl JsonCast {
    /// The one with this name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_uppercase().as_str() {
            "BOOL" => Self::Bool,
            "DOUBLE" => Self::Double,
            "VARCHAR" => Self::Text,
            "ARRAY_BOOL" => Self::Bools,
            "ARRAY_DOUBLE" => Self::Doubles,
            "ARRAY_VARCHAR" => Self::Texts,
            "JSON" => Self::Any,
            _ => return None,
        })
    }

    const fn covers(self) -> Classes {
        match self {
            Self::Bool | Self::Bools => Classes::only(Class::Bool),
            Self::Double | Self::Doubles => Classes::only(Class::Number),
            Self::Text | Self::Texts => Classes::only(Class::Text),
            Self::Any => Classes::ALL,
        }
    }
}

impl IndexTarget {
    /// The values of a field, or the elements of an array field; `None` for fields of vectors and of JSON, whose indexes
    /// are [of a path](Self::of_path).
    #[must_use]
    pub fn of_field(field: &FieldSchema) -> Option<Self> {
        let of_elements = field.data_type == DataType::Array;
        let class = class_of(if of_elements {
            field.element_type?
        } else {
            field.data_type
        })?;
        Some(Self {
            place: Place::of(field.id),
            covers: Classes::only(class),
            of_elements,
            words: None,
        })
    }

    /// The words of a field's texts, for `text_match`; `None` if the field is not to be matched so.
    #[must_use]
    pub fn of_words(field: &FieldSchema) -> Option<Self> {
        if field.data_type != DataType::VarChar || !field.is_matched() {
            return None;
        }
        let params = field.type_params.get(FieldSchema::ANALYZER_PARAMS);
        Some(Self {
            place: Place::of(field.id),
            covers: Classes::only(Class::Text),
            of_elements: true,
            words: Some(Analyzer::from_params(params.map(String::as_str)).ok()?),
        })
    }

    /// The values at a path, written as in a filter: `info["a"][0]`, or the bare key of a dynamic field.
    ///
    /// # Errors
    /// [`FilterError`] if it is no path into a JSON field of this schema.
    pub fn of_path(path: &str, cast: JsonCast, schema: &CollectionSchema) -> Result<Self, FilterError> {
        Ok(Self {
            place: json_place(&parse(path)?, schema)?,
            covers: cast.covers(),
            of_elements: matches!(cast, JsonCast::Bools | JsonCast::Doubles | JsonCast::Texts),
            words: None,
        })
    }

    /// Where the values are.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Makes the index of the first `rows` rows of the field's column; without one, all rows are null.
    ///
    /// # Errors
    /// [`IndexBuildError`].
    pub fn build(&self, column: Option<&Column>, rows: usize) -> Result<ScalarIndex, IndexBuildError> {
        let field = self.place.field;
        let valid = match column {
            None => Some(Bitmap::zeros(rows)),
            Some(column) if column.rows() < rows => return Err(FilterError::Column { field }.into()),
            Some(column) => column.validity.as_ref().map(|valid| {
                let words = valid.words().iter().take(rows.div_ceil(64)).copied().collect();
                Bitmap::from_words(words, rows)
            }),
        };
        if let Some(analyzer) = &self.words {
            return self.build_words(analyzer, column, rows, valid);
        }
        let entries_max = match column.filter(|_| self.of_elements) {
            None => rows,
            Some(column) => self.elements(column, rows),
        };
        let place = self.place.clone();
        let mut builder = Builder::new(place, rows, self.of_elements, self.covers, valid, entries_max);
        if let Some(column) = column {
            self.fill(&mut builder, column, rows)?;
        }
        Ok(builder.finish()?)
    }

    fn build_words(
        &self,
        analyzer: &Analyzer,
        column: Option<&Column>,
        rows: usize,
        valid: Option<Bitmap>,
    ) -> Result<ScalarIndex, IndexBuildError> {
        let texts = match column.map(|column| &column.data) {
            None => &[],
            Some(ColumnData::VarChar(texts)) => texts.as_slice(),
            Some(_) => {
                return Err(FilterError::Column {
                    field: self.place.field,
                }
                .into());
            }
        };
        let index = ScalarIndex::of_words(self.place.clone(), rows, valid, |visit| {
            for (row, text) in (0u32..).zip(texts).take(rows) {
                if column.is_some_and(|column| column.is_valid(row as usize)) {
                    analyzer.analyze(text, |token| visit(row, token.text));
                }
            }
        });
        Ok(index?)
    }

    fn fill<'a>(&self, builder: &mut Builder<'a>, column: &'a Column, rows: usize) -> Result<(), FilterError> {
        macro_rules! values {
            ($values:expr, $add:expr) => {
                for (row, value) in (0u32..).zip($values).take(rows) {
                    if column.is_valid(row as usize) {
                        $add(builder, row, value);
                    }
                }
            };
        }
        match (&column.data, self.of_elements) {
            (ColumnData::Bool(values), false) => {
                values!(values, |b: &mut Builder<'a>, row, value: &bool| b.add_bool(row, *value));
            }
            (ColumnData::Int8(values), false) => {
                values!(values, |b: &mut Builder<'a>, row, value: &i8| b
                    .add_int(row, i64::from(*value)));
            }
            (ColumnData::Int16(values), false) => {
                values!(values, |b: &mut Builder<'a>, row, value: &i16| b
                    .add_int(row, i64::from(*value)));
            }
            (ColumnData::Int32(values), false) => {
                values!(values, |b: &mut Builder<'a>, row, value: &i32| b
                    .add_int(row, i64::from(*value)));
            }
            (ColumnData::Int64(values), false) => {
                values!(values, |b: &mut Builder<'a>, row, value: &i64| b.add_int(row, *value));
            }
            (ColumnData::Float(values), false) => {
                values!(values, |b: &mut Builder<'a>, row, value: &f32| b
                    .add_double(row, f64::from(*value)));
            }
            (ColumnData::Double(values), false) => {
                values!(values, |b: &mut Builder<'a>, row, value: &f64| b
                    .add_double(row, *value));
            }
            (ColumnData::VarChar(values), false) => {
                values!(values, |b: &mut Builder<'a>, row, value: &'a String| b
                    .add_text(row, value.as_str().into()));
            }
            (ColumnData::Array(values), true) => {
                values!(values, |b: &mut Builder<'a>, row, value: &'a ArrayValue| {
                    array_items(value).for_each(|item| add(b, row, item));
                });
            }
            (ColumnData::Json(documents), false) => {
                values!(documents, |b: &mut Builder<'a>, row, document: &'a Vec<u8>| {
                    add(b, row, extract(document, &self.place.steps, Want::Scalar));
                });
            }
            (ColumnData::Json(documents), true) => {
                values!(documents, |b: &mut Builder<'a>, row, document: &'a Vec<u8>| {
                    if let Item::List(items) = extract(document, &self.place.steps, Want::List) {
                        items.into_iter().for_each(|item| add(b, row, item));
                    }
                });
            }
            _ => {
                return Err(FilterError::Column {
                    field: self.place.field,
                });
            }
        }
        Ok(())
    }

    /// Elements of all lists.
    fn elements(&self, column: &Column, rows: usize) -> usize {
        #[expect(clippy::wildcard_enum_match_arm, reason = "columns of other types have no elements")]
        match &column.data {
            ColumnData::Array(values) => values.iter().take(rows).map(ArrayValue::len).sum(),
            ColumnData::Json(documents) => {
                let length = |document: &Vec<u8>| match extract(document, &self.place.steps, Want::Length) {
                    Item::Int(count) => usize::try_from(count).unwrap_or(0),
                    _ => 0,
                };
                documents.iter().take(rows).map(length).sum()
            }
            _ => 0,
        }
    }
}

/// Why an index was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexBuildError {
    /// The column is not of the type that the schema gives its field.
    #[error(transparent)]
    Column(#[from] FilterError),
    /// There is too much in it.
    #[error(transparent)]
    Index(#[from] ScalarError),
}

fn add<'a>(builder: &mut Builder<'a>, row: u32, item: Item<'a>) {
    match item {
        Item::Bool(value) => builder.add_bool(row, value),
        Item::Int(value) => builder.add_int(row, value),
        Item::Double(value) => builder.add_double(row, value),
        Item::Text(text) => builder.add_text(row, text),
        Item::Null | Item::Absent | Item::List(_) => {}
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "values of other types have no order")]
const fn class_of(data_type: DataType) -> Option<Class> {
    match data_type {
        DataType::Bool => Some(Class::Bool),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Float | DataType::Double => {
            Some(Class::Number)
        }
        DataType::VarChar => Some(Class::Text),
        _ => None,
    }
}
