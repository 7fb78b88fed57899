//! Any text as a filter: refused, or an answer for every row that is the same with and without scalar indexes.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use saker_model::{ArrayValue, Bitmap, CollectionSchema, Column, ColumnData, DataType, FieldId, FieldSchema, RowBatch};
use saker_query::{ColumnSource, IndexTarget, JsonCast, Templates, bind, evaluate, parse};
use saker_scalar::ScalarIndex;

const ROWS: usize = 70;

fn field(id: i64, name: &str, data_type: DataType) -> FieldSchema {
    let matched = [("enable_analyzer", "true"), ("enable_match", "true")];
    FieldSchema {
        id: FieldId(id),
        name: name.to_owned(),
        description: String::new(),
        data_type,
        element_type: (data_type == DataType::Array).then_some(DataType::Int32),
        is_primary: id == 100,
        auto_id: false,
        is_partition_key: false,
        is_dynamic: name == "$meta",
        nullable: id != 100,
        default_value: None,
        dim: 0,
        max_length: 64,
        max_capacity: 8,
        type_params: match data_type {
            DataType::VarChar => matched.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            _ => BTreeMap::new(),
        },
    }
}

struct Rows {
    schema: CollectionSchema,
    batch: RowBatch,
    indexes: Vec<Arc<ScalarIndex>>,
}

/// The same rows, with their indexes.
struct Indexed<'a>(&'a Rows);

impl ColumnSource for Indexed<'_> {
    fn chunk_rows(&self, _chunk: usize) -> usize {
        ROWS
    }
    fn column(&self, _chunk: usize, field: FieldId) -> Option<&Column> {
        self.0.batch.column(field)
    }
    fn indexes(&self, _chunk: usize) -> &[Arc<ScalarIndex>] {
        &self.0.indexes
    }
}

static ROWS_OF_ALL_TYPES: LazyLock<Rows> = LazyLock::new(|| {
    let fields = vec![
        field(100, "id", DataType::Int64),
        field(101, "a", DataType::Int32),
        field(102, "b", DataType::Double),
        field(103, "c", DataType::Bool),
        field(104, "t", DataType::VarChar),
        field(105, "j", DataType::Json),
        field(106, "l", DataType::Array),
        field(107, "f", DataType::Float),
        field(108, "$meta", DataType::Json),
    ];
    let rows = || 0..ROWS;
    let json = |row: usize| match row % 5 {
        0 => format!(r#"{{"a": {row}, "b": [1, "x", {row}]}}"#),
        1 => format!(r#"{{"a": "text {row}", "c": {{"d": true}}}}"#),
        2 => "[1, 2.5, null]".to_owned(),
        3 => r#"{"a": null, "b": {}}"#.to_owned(),
        _ => "7".to_owned(),
    };
    let data = [
        ColumnData::Int64((0..).take(ROWS).collect()),
        ColumnData::Int32((-30..).take(ROWS).collect()),
        ColumnData::Double(rows().map(|row| row as f64 / 4.0 - 3.0).collect()),
        ColumnData::Bool(rows().map(|row| row % 3 == 0).collect()),
        ColumnData::VarChar(rows().map(|row| "a bc äö ".repeat(row % 4) + "Z").collect()),
        ColumnData::Json(rows().map(|row| json(row).into_bytes()).collect()),
        ColumnData::Array(rows().map(|row| ArrayValue::Int32((0..).take(row % 5).collect())).collect()),
        ColumnData::Float(rows().map(|row| row as f32 / 10.0).collect()),
        ColumnData::Json(rows().map(|row| json(row + 1).into_bytes()).collect()),
    ];
    let columns = fields.iter().zip(data).map(|(field, data)| Column {
        field: field.id,
        data,
        validity: field.nullable.then(|| Bitmap::from_bools(rows().map(|row| row % 7 != 0))),
    });
    let batch = RowBatch::new(columns.collect()).expect("columns of one length");
    let schema = CollectionSchema {
        name: "rows".to_owned(),
        description: String::new(),
        fields,
        enable_dynamic_field: true,
        functions: Vec::new(),
    };
    let targets = schema.fields.iter().filter_map(IndexTarget::of_field);
    let paths = [("j['a']", JsonCast::Any), ("j['b']", JsonCast::Doubles), ("a2", JsonCast::Text)];
    let paths = paths.iter().filter_map(|(path, cast)| IndexTarget::of_path(path, *cast, &schema).ok());
    let build = |target: IndexTarget| target.build(batch.column(target.place().field), ROWS).ok().map(Arc::new);
    let words = schema.fields.iter().filter_map(IndexTarget::of_words);
    let indexes = targets.chain(words).chain(paths).filter_map(build).collect();
    Rows { schema, batch, indexes }
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let rows = &*ROWS_OF_ALL_TYPES;
    let Ok(parsed) = parse(text) else { return };
    let Ok(bound) = bind(&parsed, &rows.schema, &Templates::default()) else { return };
    let scanned = evaluate(&bound, &rows.batch).expect("columns of the right types");
    let looked_up = evaluate(&bound, &Indexed(rows)).expect("columns of the right types");
    assert!(scanned.len() == ROWS && scanned.words() == looked_up.words(), "an index changes the answer");
});
