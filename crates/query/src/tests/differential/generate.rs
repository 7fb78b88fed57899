//! Random schemas, rows and filters. Filters mostly fit their schema; one that does not is refused, which is no failure.

use proptest::prelude::*;
use saker_model::DataType;

use super::{Case, Constant, Filter, Operand, TYPES, Value};

pub(super) fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => (-4i64..=4).prop_map(Value::Int),
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, 9_007_199_254_740_993, 1 << 53, -128, 127, 300]).prop_map(Value::Int),
        3 => prop::sample::select(vec![0.0, -0.0, 0.5, 1.0, 2.0, -1.5, 0.1, 3.0]).prop_map(Value::Double),
        1 => prop::sample::select(vec![1e300, -1e300, 9_007_199_254_740_992.0, 9_223_372_036_854_775_808.0, 1e-9])
            .prop_map(Value::Double),
    ]
}

pub(super) fn text() -> impl Strategy<Value = Value> {
    prop::sample::select(vec!["", "a", "ab", "b", "a%", "_", "é", "\"\\'", "1"])
        .prop_map(|text| Value::Text(text.to_owned()))
}

pub(super) fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![4 => number(), 2 => text(), 1 => any::<bool>().prop_map(Value::Bool)]
}

/// What a document may hold; `Absent` becomes null.
pub(super) fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![5 => scalar(), 1 => Just(Value::Absent)];
    leaf.prop_recursive(2, 12, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(Value::List)
    })
}

/// A value that fits a field of this type.
pub(super) fn fitting(kind: usize) -> BoxedStrategy<Value> {
    let int = |low: i64, high: i64| {
        prop_oneof![4 => -4i64..=4, 1 => Just(low), 1 => Just(high)]
            .prop_map(Value::Int)
            .boxed()
    };
    let single = prop::sample::select(vec![0.0f32, -0.0, 0.5, 1.0, 2.0, -1.5, 0.1, 16_777_216.0])
        .prop_map(|value| Value::Double(f64::from(value)));
    match TYPES[kind] {
        (DataType::Bool, _) => any::<bool>().prop_map(Value::Bool).boxed(),
        (DataType::Int8, _) => int(-128, 127),
        (DataType::Int16, _) => int(i64::from(i16::MIN), i64::from(i16::MAX)),
        (DataType::Int32, _) => int(i64::from(i32::MIN), i64::from(i32::MAX)),
        (DataType::Int64, _) => int(i64::MIN, i64::MAX),
        (DataType::Float, _) => single.boxed(),
        (DataType::Double, _) => number()
            .prop_filter("a float", |value| matches!(value, Value::Double(_)))
            .boxed(),
        (DataType::VarChar, _) => text().boxed(),
        (DataType::Json, _) => document().boxed(),
        (_, Some(DataType::Int64)) => prop::collection::vec(int(i64::MIN, i64::MAX), 0..4)
            .prop_map(Value::List)
            .boxed(),
        (_, Some(DataType::Float)) => prop::collection::vec(single, 0..4).prop_map(Value::List).boxed(),
        _ => prop::collection::vec(text(), 0..4).prop_map(Value::List).boxed(),
    }
}

pub(super) fn constant(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Constant> {
    (value, prop::bool::weighted(0.2)).prop_map(|(value, template)| Constant { value, template })
}

pub(super) fn steps() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(
        prop::sample::select(vec!["a", "b", "0", "1"]).prop_map(str::to_owned),
        0..3,
    )
}

/// Fields of the schema whose type passes, or a dynamic path if none does.
pub(super) fn any_field(types: &[usize], wanted: fn(DataType) -> bool) -> BoxedStrategy<Operand> {
    let fields: Vec<usize> = (0..types.len())
        .filter(|&index| wanted(TYPES[types[index]].0))
        .collect();
    let types = types.to_vec();
    if fields.is_empty() {
        return steps().prop_map(|steps| Operand::Path(None, dynamic(steps))).boxed();
    }
    (prop::sample::select(fields), steps(), 0usize..4)
        .prop_map(move |(index, steps, element)| match TYPES[types[index]].0 {
            DataType::Json => Operand::Path(Some(index), steps),
            DataType::Array if element < 3 => Operand::Element(index, element),
            _ => Operand::Field(index),
        })
        .boxed()
}

/// The dynamic document is an object, so a path into it starts with a key.
pub(super) fn dynamic(mut steps: Vec<String>) -> Vec<String> {
    match steps.first().map(String::as_str) {
        Some("a" | "b") => {}
        _ => steps.insert(0, "a".to_owned()),
    }
    steps
}

pub(super) fn list_operand(types: &[usize]) -> BoxedStrategy<Operand> {
    let lists: Vec<usize> = (0..types.len())
        .filter(|&index| matches!(TYPES[types[index]].0, DataType::Json | DataType::Array))
        .collect();
    let types = types.to_vec();
    let path = steps().prop_map(|steps| Operand::Path(None, dynamic(steps)));
    if lists.is_empty() {
        return path.boxed();
    }
    let field = (prop::sample::select(lists), steps()).prop_map(move |(index, steps)| match TYPES[types[index]].0 {
        DataType::Json => Operand::Path(Some(index), steps),
        _ => Operand::Field(index),
    });
    prop_oneof![1 => path, 3 => field].boxed()
}

pub(super) fn is_number(data_type: DataType) -> bool {
    use DataType::{Array, Double, Float, Int8, Int16, Int32, Int64, Json};
    matches!(data_type, Int8 | Int16 | Int32 | Int64 | Float | Double | Json | Array)
}

pub(super) fn numeric(types: &[usize]) -> BoxedStrategy<Operand> {
    let length = list_operand(types).prop_map(|operand| match operand {
        Operand::Path(field, steps) => Operand::PathLength(field, steps),
        Operand::Field(index) => Operand::Length(index),
        other => other,
    });
    let leaf = prop_oneof![
        4 => any_field(types, is_number),
        1 => length,
        2 => constant(number()).prop_map(Operand::Constant),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            4 => (prop::sample::select(vec!['+', '-', '*', '/', '%', '^']), inner.clone(), inner.clone())
                .prop_map(|(operator, left, right)| Operand::Arithmetic(operator, Box::new(left), Box::new(right))),
            1 => inner.prop_map(|inner| Operand::Negate(Box::new(inner))),
        ]
    })
    .boxed()
}

/// A field, or a part of one, and a constant that its values may well equal.
pub(super) fn fitting_pair(types: &[usize]) -> BoxedStrategy<(Operand, Value)> {
    let types = types.to_vec();
    (0..types.len(), 0usize..3, steps())
        .prop_flat_map(move |(index, element, steps)| {
            let (data_type, element_type) = TYPES[types[index]];
            let (operand, data_type) = match (data_type, element_type) {
                (DataType::Json, _) => (Operand::Path(Some(index), steps), DataType::Json),
                (DataType::Array, Some(held)) => (Operand::Element(index, element), held),
                _ => (Operand::Field(index), data_type),
            };
            let value = match data_type {
                DataType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
                DataType::VarChar => text().boxed(),
                DataType::Json => scalar().boxed(),
                _ => number().boxed(),
            };
            (Just(operand), value)
        })
        .boxed()
}

pub(super) fn fitting_compare(types: &[usize]) -> BoxedStrategy<Filter> {
    let operator = prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let several = prop::collection::vec(number(), 0..4);
    (operator, fitting_pair(types), several, 0u8..8)
        .prop_map(|(name, (operand, value), others, form)| {
            let written = |value| Constant { value, template: false };
            let constant = Operand::Constant(written(value.clone()));
            let name = if matches!(value, Value::Bool(_)) { "==" } else { name };
            match (form, &value) {
                (0, _) => Filter::Compare(name, constant, operand),
                (1, Value::Int(_) | Value::Double(_)) => {
                    Filter::In(operand, others.into_iter().chain([value]).map(written).collect(), false)
                }
                (1, _) => Filter::In(operand, vec![written(value)], false),
                _ => Filter::Compare(name, operand, constant),
            }
        })
        .boxed()
}

pub(super) fn filter(types: &[usize]) -> BoxedStrategy<Filter> {
    let operator = || prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let anything = || prop_oneof![3 => any_field(types, |_| true), 1 => numeric(types)];
    let list = || prop::collection::vec(constant(document().prop_filter("no null", has_no_null)), 0..5);
    let compare = prop_oneof![
        (operator(), numeric(types), numeric(types)).prop_map(|(name, left, right)| Filter::Compare(name, left, right)),
        (operator(), anything(), constant(scalar()).prop_map(Operand::Constant))
            .prop_map(|(name, left, right)| Filter::Compare(name, left, right)),
        (operator(), constant(scalar()).prop_map(Operand::Constant), anything())
            .prop_map(|(name, left, right)| Filter::Compare(name, left, right)),
        (operator(), anything(), anything()).prop_map(|(name, left, right)| Filter::Compare(name, left, right)),
        (prop::sample::select(vec!["==", "!="]), list_operand(types), list()).prop_map(|(name, left, items)| {
            let value = Value::List(items.into_iter().map(|item| item.value).collect());
            Filter::Compare(name, left, Operand::Constant(Constant { value, template: false }))
        }),
        (
            constant(number()),
            any::<bool>(),
            numeric(types),
            any::<bool>(),
            constant(number())
        )
            .prop_map(|(low, low_equal, value, high_equal, high)| Filter::Range(
                low, low_equal, value, high_equal, high
            )),
    ];
    let texts = any_field(types, |data_type| {
        matches!(data_type, DataType::VarChar | DataType::Json)
    });
    let leaf = prop_oneof![
        4 => compare,
        8 => fitting_compare(types),
        3 => (anything(), list(), any::<bool>()).prop_map(|(value, items, negated)| Filter::In(value, items, negated)),
        2 => (numeric(types), prop::collection::vec(constant(number()), 0..5), any::<bool>())
            .prop_map(|(value, items, negated)| Filter::In(value, items, negated)),
        1 => (any_field(types, |data_type| data_type == DataType::VarChar), prop::collection::vec(constant(text()), 0..4),
            any::<bool>()).prop_map(|(value, items, negated)| Filter::In(value, items, negated)),
        2 => (texts, "[ab%_é]{0,3}", any::<bool>()).prop_map(|(value, pattern, negated)| Filter::Like(value, pattern, negated)),
        1 => (any_field(types, |_| true), any::<bool>()).prop_map(|(value, negated)| Filter::IsNull(value, negated)),
        1 => steps().prop_map(|steps| Filter::Exists(None, dynamic(steps))),
        2 => (list_operand(types), prop::sample::select(vec!["array_contains", "json_contains_all", "array_contains_any"]),
            list()).prop_map(|(value, name, items)| Filter::Contains(value, name, items)),
        1 => (list_operand(types), prop::sample::select(vec!["array_contains_all", "json_contains_any"]),
            prop::collection::vec(constant(number()), 0..3))
            .prop_map(|(value, name, items)| Filter::Contains(value, name, items)),
        1 => any_field(types, |data_type| matches!(data_type, DataType::Bool | DataType::Json)).prop_map(Filter::Truth),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Filter::Or),
            inner.prop_map(|inner| Filter::Not(Box::new(inner))),
        ]
    })
    .boxed()
}

pub(super) fn has_no_null(value: &Value) -> bool {
    match value {
        Value::Null | Value::Absent => false,
        Value::List(items) => items.iter().all(has_no_null),
        _ => true,
    }
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let types = prop::collection::vec(0..TYPES.len(), 1..6);
    types.prop_flat_map(|types| {
        let mut row: Vec<BoxedStrategy<Option<Value>>> = types
            .iter()
            .map(|&kind| prop::option::weighted(0.8, fitting(kind)).boxed())
            .collect();
        // The dynamic field: an object of two keys.
        row.push(
            prop::collection::vec(document(), 2)
                .prop_map(|items| Some(Value::List(items)))
                .boxed(),
        );
        let rows = prop::collection::vec(row, 0..12);
        (
            Just(types.clone()),
            rows,
            prop::collection::vec(0usize..6, 0..4),
            filter(&types),
        )
            .prop_map(|(types, rows, chunks, filter)| Case {
                types,
                rows,
                chunks,
                filter,
            })
    })
}
