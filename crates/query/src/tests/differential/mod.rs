//! The evaluator against a second one that goes row by row, over random schemas, rows, chunks and filters.
//!
//! The second one shares nothing with the first but the text of the filter: it has its own tree, reads JSON with
//! `serde_json::Value`, and computes with 128-bit integers. The first one answers twice, by scanning columns and by looking
//! conditions up in indexes on every field and on paths into every document.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "values of other kinds are all treated alike"
)]

mod columns;
mod generate;
mod naive;
mod written;

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use saker_model::{Bitmap, DataType};

use crate::{bind, evaluate, parse};
use columns::{chunks, schema};
use generate::case;
use naive::Row;
use written::Writer;

/// A value of a row, as the documentation has it.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Absent,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    List(Vec<Value>),
}

#[derive(Clone, Debug)]
struct Constant {
    value: Value,
    /// Bound as a template instead of written.
    template: bool,
}

#[derive(Clone, Debug)]
enum Operand {
    Constant(Constant),
    Field(usize),
    Element(usize, usize),
    Length(usize),
    /// A JSON field or the dynamic one, and steps; a number is an index.
    Path(Option<usize>, Vec<String>),
    PathLength(Option<usize>, Vec<String>),
    Arithmetic(char, Box<Operand>, Box<Operand>),
    Negate(Box<Operand>),
}

#[derive(Clone, Debug)]
enum Filter {
    Compare(&'static str, Operand, Operand),
    Range(Constant, bool, Operand, bool, Constant),
    In(Operand, Vec<Constant>, bool),
    Like(Operand, String, bool),
    IsNull(Operand, bool),
    Exists(Option<usize>, Vec<String>),
    Contains(Operand, &'static str, Vec<Constant>),
    Truth(Operand),
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
}

const TYPES: [(DataType, Option<DataType>); 12] = [
    (DataType::Bool, None),
    (DataType::Int8, None),
    (DataType::Int16, None),
    (DataType::Int32, None),
    (DataType::Int64, None),
    (DataType::Float, None),
    (DataType::Double, None),
    (DataType::VarChar, None),
    (DataType::Json, None),
    (DataType::Array, Some(DataType::Int64)),
    (DataType::Array, Some(DataType::Float)),
    (DataType::Array, Some(DataType::VarChar)),
];

/// Columns of one field, row by row; `None` is null.
type Rows = Vec<Vec<Option<Value>>>;

#[derive(Clone, Debug)]
struct Case {
    types: Vec<usize>,
    rows: Rows,
    chunks: Vec<usize>,
    filter: Filter,
}

#[test]
fn both_evaluators_agree() {
    let (bound_count, selected_count, refused_count) = (Cell::new(0u32), Cell::new(0usize), Cell::new(0u32));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(8_000));
    let outcome = runner.run(&case(), |case| {
        let mut writer = Writer::default();
        writer.filter(&case.filter);
        let expr = parse(&writer.text).map_err(|error| TestCaseError::fail(format!("{}: {error}", writer.text)))?;
        let Ok(bound) = bind(&expr, &schema(&case.types), &writer.templates) else {
            refused_count.set(refused_count.get() + 1);
            return Ok(());
        };
        bound_count.set(bound_count.get() + 1);
        let found = evaluate(&bound, &chunks(&case)).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let looked_up = evaluate(&bound, &chunks(&case).indexed(&case));
        let looked_up = looked_up.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let row = |values| Row {
            types: &case.types,
            values,
        };
        let expected = Bitmap::from_bools(
            case.rows
                .iter()
                .map(|values| row(values.as_slice()).answer(&case.filter) == Some(true)),
        );
        selected_count.set(selected_count.get() + expected.count_ones());
        prop_assert_eq!(looked_up, expected.clone(), "with indexes: {}", writer.text);
        prop_assert_eq!(found, expected, "{}", writer.text);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // Guards the generator: most filters must get as far as selecting rows.
    let (bound, refused) = (bound_count.get(), refused_count.get());
    assert!(bound > refused / 2, "{bound} bound, {refused} refused");
    assert!(selected_count.get() > 8_000, "{} rows selected", selected_count.get());
}
