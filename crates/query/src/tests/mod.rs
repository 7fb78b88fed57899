//! The language as a whole: text in, rows out.

mod differential;
mod grammar;
mod limits;
mod semantics;
mod words;

use saker_model::{ArrayValue, Bitmap, Column, ColumnData, FieldId, RowBatch};

use crate::sample::{self, schema};
use crate::{FilterError, Literal, Templates, bind, evaluate, parse};

/// Six rows of [`schema`]. In row 5 everything that may be null is null.
pub(super) fn rows() -> RowBatch {
    let text = |values: [&str; 6]| values.map(str::to_owned).to_vec();
    let json = |values: [&str; 6]| values.map(|value| value.as_bytes().to_vec()).to_vec();
    let ints = |values: [&[i64]; 6]| values.map(|value| ArrayValue::Int64(value.to_vec())).to_vec();
    let texts = |values: [&[&str]; 6]| {
        let array = |value: &[&str]| ArrayValue::Text(value.iter().map(|&text| text.to_owned()).collect());
        values.map(array).to_vec()
    };
    let full = |field, data| Column::full(field, data);
    let nullable = |field, data| {
        let validity = Some(Bitmap::from_bools((0..6).map(|row| row != 5)));
        Column { field, data, validity }
    };
    RowBatch::new(vec![
        full(sample::ID, ColumnData::Int64(vec![1, 2, 3, 4, 5, 6])),
        nullable(sample::AGE, ColumnData::Int64(vec![10, 20, 30, -5, i64::MAX, 0])),
        nullable(sample::TINY, ColumnData::Int8(vec![0, 1, -1, 127, -128, 0])),
        nullable(
            sample::SCORE,
            ColumnData::Float(vec![0.1, 0.5, -0.0, 16_777_216.0, 1.5, 0.0]),
        ),
        nullable(sample::PRICE, ColumnData::Double(vec![0.1, 0.5, 1.0, 1e300, -2.5, 0.0])),
        nullable(
            sample::NAME,
            ColumnData::VarChar(text(["ann", "bob", "50%", "a_c", "é\"\\", ""])),
        ),
        nullable(
            sample::FLAG,
            ColumnData::Bool(vec![true, false, true, false, true, false]),
        ),
        nullable(
            sample::INFO,
            ColumnData::Json(json([
                r#"{"a": 1, "b": "x", "c": [1, 2, 3], "d": {"e": true}}"#,
                r#"{"a": 1.0, "b": "y", "c": ["x", [1, 2], 2.5], "d": {"e": false}}"#,
                r#"{"a": "1", "b": null, "c": [], "d": [{"e": 5}, 7]}"#,
                r#"{"a": 2, "c": 4}"#,
                "7",
                "",
            ])),
        ),
        nullable(
            sample::INTS,
            ColumnData::Array(ints([&[1, 2, 3], &[3], &[], &[-1, 2], &[7, 7], &[]])),
        ),
        nullable(
            sample::TAGS,
            ColumnData::Array(texts([&["x", "y"], &["y"], &[], &["x"], &["z"], &[]])),
        ),
        full(
            sample::VECTOR,
            ColumnData::FloatVector {
                dim: 2,
                data: vec![0.0; 12],
            },
        ),
        full(
            sample::META,
            ColumnData::Json(json([
                r#"{"color": "red", "size": 5}"#,
                r#"{"color": "blue", "size": 7.5}"#,
                r#"{"size": "big"}"#,
                r#"{"color": null, "deep": {"list": [10, 20]}}"#,
                "{}",
                "{}",
            ])),
        ),
    ])
    .expect("columns of one length")
}

pub(super) fn select_with(filter: &str, templates: &Templates) -> Result<Vec<i64>, FilterError> {
    let bound = bind(&parse(filter)?, &schema(), templates)?;
    Ok(evaluate(&bound, &rows())?
        .iter_ones()
        .map(|row| i64::try_from(row).expect("six rows") + 1)
        .collect())
}

/// The ids of the rows that a filter selects.
#[track_caller]
pub(super) fn select(filter: &str) -> Vec<i64> {
    select_with(filter, &Templates::new()).unwrap_or_else(|error| panic!("{filter}: {error}"))
}

/// The message with which a filter is refused.
#[track_caller]
pub(super) fn refuse(filter: &str) -> String {
    select_with(filter, &Templates::new()).expect_err(filter).to_string()
}

pub(super) fn templates<const N: usize>(values: [(&str, Literal); N]) -> Templates {
    values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[test]
fn an_absent_column_is_null() {
    let batch = RowBatch::new(vec![Column::full(sample::ID, ColumnData::Int64(vec![1, 2]))]).expect("one column");
    let count = |filter: &str| {
        let bound = bind(&parse(filter).unwrap(), &schema(), &Templates::new()).unwrap();
        evaluate(&bound, &batch).unwrap().count_ones()
    };
    for filter in [
        "age == 0",
        "age != 0",
        "not (age == 0)",
        "age in [0]",
        "age + 1 > 0",
        "name like '%'",
        "flag",
        "ints[0] == 0",
        "array_contains(ints, 1)",
        "array_length(ints) == 0",
        "age == tiny",
        "info['a'] == 1",
    ] {
        assert_eq!(count(filter), 0, "{filter}");
    }
    assert_eq!(count("age is null"), 2);
    assert_eq!(count("age is not null"), 0);
    assert_eq!(count("id > 1"), 1);
}

#[test]
fn a_column_of_another_type_or_length_is_refused() {
    let bound = bind(&parse("age == 1").unwrap(), &schema(), &Templates::new()).unwrap();
    let other = RowBatch::new(vec![Column::full(sample::AGE, ColumnData::Double(vec![1.0]))]).unwrap();
    assert_eq!(
        evaluate(&bound, &other),
        Err(FilterError::Column { field: sample::AGE })
    );

    struct Short(RowBatch);
    impl crate::ColumnSource for Short {
        fn chunk_rows(&self, _chunk: usize) -> usize {
            2
        }
        fn column(&self, _chunk: usize, field: FieldId) -> Option<&Column> {
            self.0.column(field)
        }
    }
    let short = Short(RowBatch::new(vec![Column::full(sample::AGE, ColumnData::Int64(vec![1]))]).unwrap());
    assert_eq!(
        evaluate(&bound, &short),
        Err(FilterError::Column { field: sample::AGE })
    );
}

/// Rows of which only indexes are there: reading a column fails.
struct IndexesOnly(Vec<std::sync::Arc<saker_scalar::ScalarIndex>>);

impl crate::ColumnSource for IndexesOnly {
    fn chunk_rows(&self, _chunk: usize) -> usize {
        6
    }
    fn column(&self, _chunk: usize, _field: FieldId) -> Option<&Column> {
        panic!("a column was read")
    }
    fn indexes(&self, _chunk: usize) -> &[std::sync::Arc<saker_scalar::ScalarIndex>] {
        &self.0
    }
}

#[test]
fn what_an_index_answers_reads_no_column() {
    let (schema, rows) = (schema(), rows());
    let fields = schema.fields.iter().filter_map(crate::IndexTarget::of_field);
    let paths = [
        ("info['a']", crate::JsonCast::Double),
        ("info['a']", crate::JsonCast::Text),
        ("info['d']['e']", crate::JsonCast::Bool),
        ("info['c']", crate::JsonCast::Doubles),
        ("color", crate::JsonCast::Text),
        ("$meta['size']", crate::JsonCast::Any),
    ];
    let paths = paths.map(|(path, cast)| crate::IndexTarget::of_path(path, cast, &schema).unwrap());
    let built = fields.chain(paths).map(|target| {
        let index = target.build(rows.column(target.place().field), 6).unwrap();
        std::sync::Arc::new(index)
    });
    let indexes = IndexesOnly(built.collect());
    for filter in [
        "age == 10",
        "age != 10",
        "not (age == 10)",
        "20 < age <= 30.5",
        "tiny in [1, 127, 5.0]",
        "score == 0.1",
        "score in [0.1, 0.5, 0]",
        "price >= 0.5",
        "price in [1, 1e300]",
        "name == 'ann'",
        "name like 'a%'",
        "name like '%n%'",
        "name like 'b_b'",
        "name in ['bob', '50%'] or name > 'b'",
        "flag",
        "flag == false",
        "info['a'] == 1",
        "info['a'] != 1",
        "info['a'] > 1.5 and info['a'] == '1'",
        "info['d']['e']",
        "json_contains(info['c'], 2.5)",
        "array_contains_all(ints, [1, 2])",
        "array_contains_any(tags, ['x', 'z']) and color in ['red']",
        "size == 'big' or size > 6",
        "color like 'r%'",
    ] {
        let bound = bind(&parse(filter).unwrap(), &schema, &Templates::new()).unwrap();
        assert_eq!(
            evaluate(&bound, &indexes).unwrap(),
            evaluate(&bound, &rows).unwrap(),
            "{filter}"
        );
    }
}

#[test]
fn indexes_are_of_scalars_and_of_json_paths() {
    let schema = schema();
    let target = |name: &str| crate::IndexTarget::of_field(schema.field(name).unwrap());
    assert!(target("age").is_some() && target("tags").is_some());
    assert!(target("info").is_none() && target("vector").is_none());
    for bad in ["age", "age + 1", "nowhere[", "1", "info['a'] == 1", "tags[0]", ""] {
        let refused = crate::IndexTarget::of_path(bad, crate::JsonCast::Any, &schema);
        assert!(refused.is_err(), "{bad}");
    }
    assert_eq!(
        crate::JsonCast::from_name("array_double"),
        Some(crate::JsonCast::Doubles)
    );
    assert_eq!(crate::JsonCast::from_name("INT64"), None);
}

#[test]
fn primary_keys_are_found_only_when_they_are_the_whole_filter() {
    use saker_model::PrimaryKey::{Int, Text};
    let keys = |filter: &str| {
        bind(&parse(filter).unwrap(), &schema(), &Templates::new())
            .unwrap()
            .primary_keys()
    };
    assert_eq!(keys("id == 7"), Some(vec![Int(7)]));
    assert_eq!(keys("7 == id"), Some(vec![Int(7)]));
    assert_eq!(keys("(id in [3, 1, 3, -2])"), Some(vec![Int(-2), Int(1), Int(3)]));
    assert_eq!(keys("id in []"), Some(vec![]));
    for other in [
        "id > 7",
        "id != 7",
        "id not in [1]",
        "age == 7",
        "id == 7 and age == 1",
        "id == 7 or id == 8",
        "",
        "id + 0 == 7",
    ] {
        assert_eq!(keys(other), None, "{other}");
    }
    let mut schema = schema();
    schema.fields[0] = sample::field(sample::ID, "id", saker_model::DataType::VarChar, None);
    let text = bind(&parse("id in ['b', 'a', 'b']").unwrap(), &schema, &Templates::new()).unwrap();
    assert_eq!(text.primary_keys(), Some(vec![Text("a".into()), Text("b".into())]));
}

#[test]
fn a_bound_filter_names_its_fields() {
    let fields = |filter: &str| {
        bind(&parse(filter).unwrap(), &schema(), &Templates::new())
            .unwrap()
            .fields()
    };
    assert_eq!(fields(""), []);
    assert_eq!(
        fields("name like 'a' or age + tiny > 1 and not (color == 1) and array_length(ints) in [1] and flag"),
        [
            sample::AGE,
            sample::TINY,
            sample::NAME,
            sample::FLAG,
            sample::INTS,
            sample::META
        ]
    );
    let selects = |filter: &str| {
        let bound = bind(&parse(filter).unwrap(), &schema(), &Templates::new()).unwrap();
        (bound.selects_everything(), bound.selects_nothing())
    };
    assert_eq!(selects(" "), (true, false));
    assert_eq!(selects("1 > 2"), (false, true));
    assert_eq!(selects("id in []"), (false, true));
    assert_eq!(selects("id > 2"), (false, false));
}

#[test]
fn nothing_prints_a_literal() {
    let filter = "age == 987654321 and name in ['hunter2'] and name like 'hunter2%' and json_contains(color, 'hunter2') \
        and info['a'] in ['hunter2', 987654321] and price > 987654321.5";
    let expr = parse(filter).unwrap();
    let bound = bind(&expr, &schema(), &templates([("x", Literal::Text("hunter2".into()))])).unwrap();
    for text in [format!("{expr:?}"), format!("{bound:?}")] {
        assert!(!text.contains("hunter2") && !text.contains("987654321"), "{text}");
    }
    for bad in [
        "age == 'hunter2'",
        "name == 987654321",
        "'hunter2' == 987654321",
        "age in ['hunter2']",
        "name like 987654321",
        "name =~ 'hunter2('",
        "age == 987654321987654321987654321",
        "1 + 'hunter2' == 2",
        "array_contains(ints, 'hunter2')",
        "name == 'hunter2",
        "age 'hunter2'",
        "age 987654321",
        "'hunter2'",
        "flag > true and 'hunter2'",
    ] {
        let message = refuse(bad);
        assert!(
            !message.contains("hunter2") && !message.contains("987654321"),
            "{message}"
        );
    }
}
