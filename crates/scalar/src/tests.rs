use std::borrow::Cow;
use std::cmp::Ordering;

use proptest::prelude::*;
use saker_model::{Bitmap, FieldId};

use crate::{Builder, Class, Classes, Place, Probe, Relation, ScalarError, ScalarIndex, Step, compare_int_double};

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
}

impl Value {
    fn probe(&self) -> Probe<'_> {
        match self {
            Self::Bool(value) => Probe::Bool(*value),
            Self::Int(value) => Probe::Int(*value),
            Self::Double(value) => Probe::Double(*value),
            Self::Text(value) => Probe::Text(value),
        }
    }

    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Double(b)) => compare_int_double(*a, *b),
            (Self::Double(a), Self::Int(b)) => compare_int_double(*b, *a).map(Ordering::reverse),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => any::<bool>().prop_map(Value::Bool),
        4 => (-3i64..4).prop_map(Value::Int),
        1 => prop::sample::select(vec![i64::MIN, i64::MAX, 9_007_199_254_740_993]).prop_map(Value::Int),
        3 => prop::sample::select(vec![0.0, -0.0, 0.5, 1.0, -2.0, f64::NAN, f64::INFINITY, 9_007_199_254_740_992.0])
            .prop_map(Value::Double),
        4 => "[ab%é]{0,3}".prop_map(Value::Text),
    ]
}

/// Up to so many values in each row.
fn rows(values_max: usize, rows_max: usize) -> impl Strategy<Value = Vec<Vec<Value>>> {
    prop::collection::vec(prop::collection::vec(value(), 0..=values_max), 0..rows_max)
}

fn built(rows: &[Vec<Value>], of_elements: bool, covers: Classes) -> ScalarIndex {
    let valid = Bitmap::from_bools(rows.iter().map(|row| row.len() != 1));
    let place = Place {
        field: FieldId(7),
        steps: vec![Step::Key("a".into()), Step::Index(3)],
    };
    let entries = rows.iter().map(Vec::len).sum();
    let mut builder = Builder::new(place, rows.len(), of_elements, covers, Some(valid), entries);
    for (row, values) in (0u32..).zip(rows) {
        for value in values {
            match value {
                Value::Bool(value) => builder.add_bool(row, *value),
                Value::Int(value) => builder.add_int(row, *value),
                Value::Double(value) => builder.add_double(row, *value),
                Value::Text(value) => builder.add_text(row, Cow::Borrowed(value)),
            }
        }
    }
    builder.finish().unwrap()
}

fn rows_that(rows: &[Vec<Value>], test: impl Fn(&Value) -> bool) -> Bitmap {
    Bitmap::from_bools(rows.iter().map(|values| values.iter().any(&test)))
}

fn holds(relation: Relation, order: Option<Ordering>) -> bool {
    match relation {
        Relation::Equal => order == Some(Ordering::Equal),
        Relation::Less => order == Some(Ordering::Less),
        Relation::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Relation::Greater => order == Some(Ordering::Greater),
        Relation::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

const RELATIONS: [Relation; 5] = [
    Relation::Equal,
    Relation::Less,
    Relation::LessOrEqual,
    Relation::Greater,
    Relation::GreaterOrEqual,
];

fn check(rows: &[Vec<Value>], index: &ScalarIndex, probes: &[Value], prefix: &str) -> Result<(), TestCaseError> {
    for probe in probes {
        for relation in RELATIONS {
            let expected = rows_that(rows, |value| holds(relation, value.order(probe)));
            prop_assert_eq!(
                index.compare(relation, probe.probe()),
                expected,
                "{:?} {:?}",
                relation,
                probe
            );
        }
    }
    let expected = rows_that(rows, |value| {
        probes.iter().any(|probe| value.order(probe) == Some(Ordering::Equal))
    });
    prop_assert_eq!(index.any_of(&probes.iter().map(Value::probe)), expected);
    let mut ascending = probes.to_vec();
    ascending.sort_by(|a, b| a.order(b).unwrap_or(Ordering::Equal));
    prop_assert_eq!(
        index.any_of(&ascending.iter().map(Value::probe)),
        index.any_of(&probes.iter().map(Value::probe))
    );
    let starts = |value: &Value| matches!(value, Value::Text(text) if text.starts_with(prefix));
    prop_assert_eq!(index.starting_with(prefix), rows_that(rows, starts));
    let odd = |text: &str| text.len() % 2 == 1;
    let expected = rows_that(rows, |value| {
        starts(value) && matches!(value, Value::Text(text) if odd(text))
    });
    prop_assert_eq!(index.texts_that(prefix, odd), expected);
    Ok(())
}

proptest! {
    #[test]
    fn answers_equal_looking_at_every_row(
        rows in rows(1, 150),
        probes in prop::collection::vec(value(), 0..6),
        prefix in "[ab%é]{0,2}",
    ) {
        let index = built(&rows, false, Classes::ALL);
        check(&rows, &index, &probes, &prefix)?;
        let opened = ScalarIndex::from_bytes(&index.to_bytes(), FieldId(7), rows.len()).unwrap();
        check(&rows, &opened, &probes, &prefix)?;
        prop_assert_eq!(opened.place(), index.place());
        prop_assert_eq!(opened.valid(), index.valid());
        prop_assert_eq!(opened.to_bytes(), index.to_bytes());
    }

    #[test]
    fn elements_of_lists_too(
        rows in rows(5, 80),
        probes in prop::collection::vec(value(), 0..6),
        prefix in "[ab%é]{0,2}",
    ) {
        let index = built(&rows, true, Classes::ALL);
        prop_assert!(index.of_elements());
        check(&rows, &index, &probes, &prefix)?;
        let opened = ScalarIndex::from_bytes(&index.to_bytes(), FieldId(7), rows.len()).unwrap();
        check(&rows, &opened, &probes, &prefix)?;
    }

    #[test]
    fn wide_ranges_over_many_rows(
        seed in any::<u64>(),
        spread in prop::sample::select(vec![2u64, 40, 3_000, 1 << 40]),
        probes in prop::collection::vec(0.0f64..1.0, 1..6),
    ) {
        // Enough rows for unions; values skewed, so that some keys are frequent.
        let mut state = seed | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let rows: Vec<Vec<Value>> = (0..5_000)
            .map(|_| vec![Value::Int(i64::try_from(if random() % 4 == 0 { 1 } else { random() % spread }).unwrap())])
            .collect();
        let index = built(&rows, false, Classes::ALL);
        #[expect(clippy::cast_precision_loss, reason = "about so far is enough")]
        let probes: Vec<Value> = probes.iter().map(|share| Value::Double(share * spread as f64)).collect();
        check(&rows, &index, &probes, "")?;
        check(&rows, &index, &[Value::Int(1), Value::Int(0)], "")?;
    }

    #[test]
    fn damaged_bytes_never_panic(
        rows in rows(2, 60),
        of_elements in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..8),
        probe in value(),
    ) {
        let rows: Vec<Vec<Value>> = rows.into_iter().map(|row| if of_elements { row } else { row.into_iter().take(1).collect() }).collect();
        let mut bytes = built(&rows, of_elements, Classes::ALL).to_bytes().to_vec();
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        if let Ok(index) = ScalarIndex::from_bytes(&bytes, FieldId(7), rows.len()) {
            for relation in RELATIONS {
                prop_assert_eq!(index.compare(relation, probe.probe()).len(), rows.len());
            }
            let _ = index.texts_that("a", |text| text.len() == 1);
        }
    }

    #[test]
    fn arbitrary_bytes_never_open_or_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(ScalarIndex::from_bytes(&bytes, FieldId(7), 10).is_err());
    }
}

#[test]
fn no_truncation_opens() {
    let rows: Vec<Vec<Value>> = vec![
        vec![Value::Int(3)],
        vec![],
        vec![Value::Text("abc".into()), Value::Bool(true)],
        vec![Value::Double(0.5)],
    ];
    let bytes = built(&rows, true, Classes::ALL).to_bytes();
    for len in 0..bytes.len() {
        assert!(
            ScalarIndex::from_bytes(&bytes[..len], FieldId(7), 4).is_err(),
            "{len} bytes"
        );
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(ScalarIndex::from_bytes(&longer, FieldId(7), 4).is_err());
    assert!(ScalarIndex::from_bytes(&bytes, FieldId(8), 4).is_err());
    assert!(ScalarIndex::from_bytes(&bytes, FieldId(7), 5).is_err());
    let mut newer = bytes.to_vec();
    newer[4] = 2;
    assert_eq!(
        ScalarIndex::from_bytes(&newer, FieldId(7), 4).unwrap_err(),
        ScalarError::Version { found: 2, known: 1 }
    );
}

#[test]
fn only_covered_kinds_are_kept() {
    let rows: Vec<Vec<Value>> = vec![
        vec![Value::Int(1)],
        vec![Value::Text("1".into())],
        vec![Value::Double(1.0)],
    ];
    let index = built(&rows, false, Classes::only(Class::Number));
    assert!(index.covers(Class::Number) && !index.covers(Class::Text));
    assert_eq!(index.distinct(), 2);
    assert_eq!(
        index
            .compare(Relation::Equal, Probe::Int(1))
            .iter_ones()
            .collect::<Vec<_>>(),
        [0, 2]
    );
    assert_eq!(index.starting_with("").count_ones(), 0);
    assert!(index.memory_bytes() > 0);
}

#[test]
fn nothing_prints_a_value() {
    let index = built(&[vec![Value::Text("hunter2".into())]], false, Classes::ALL);
    let printed = format!("{index:?} {:?}", Probe::Text("hunter2"));
    assert!(!printed.contains("hunter2"), "{printed}");
}
