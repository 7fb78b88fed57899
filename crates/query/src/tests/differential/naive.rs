//! The second evaluator: one row at a time, as the documentation says.

use saker_model::DataType;
use serde_json::Value as Json;

use super::columns::json;
use super::{Constant, Filter, Operand, TYPES, Value};

pub(super) struct Row<'a> {
    pub(super) types: &'a [usize],
    pub(super) values: &'a [Option<Value>],
}

impl Row<'_> {
    fn document(&self, field: Option<usize>) -> Option<Json> {
        self.values[field.unwrap_or(self.types.len())]
            .as_ref()
            .map(|value| json(value, true))
    }

    fn find(&self, field: Option<usize>, steps: &[String]) -> Option<Json> {
        let mut at = self.document(field)?;
        for step in steps {
            at = match step.parse::<usize>() {
                Ok(index) => at.as_array()?.get(index)?.clone(),
                Err(_) => at.as_object()?.get(step)?.clone(),
            };
        }
        Some(at)
    }

    fn value(&self, operand: &Operand) -> Value {
        match operand {
            Operand::Constant(constant) => constant.value.clone(),
            Operand::Field(index) => self.values[*index].clone().unwrap_or(Value::Null),
            Operand::Element(index, element) => match &self.values[*index] {
                Some(Value::List(items)) => items.get(*element).cloned().unwrap_or(Value::Null),
                _ => Value::Null,
            },
            Operand::Length(index) => match &self.values[*index] {
                Some(Value::List(items)) => Value::Int(i64::try_from(items.len()).expect("a short list")),
                _ => Value::Null,
            },
            Operand::Path(field, steps) => match (self.document(*field), self.find(*field, steps)) {
                (None, _) => Value::Null,
                (_, None) => Value::Absent,
                (_, Some(found)) => from_json(&found),
            },
            Operand::PathLength(field, steps) => match (self.document(*field), self.find(*field, steps)) {
                (None, _) => Value::Null,
                (_, Some(Json::Array(items))) => Value::Int(i64::try_from(items.len()).expect("a short list")),
                _ => Value::Absent,
            },
            Operand::Negate(inner) => match self.value(inner) {
                Value::Double(value) if is_constant(inner) => Value::Double(-value),
                value => compute('-', &Value::Int(0), &value, false),
            },
            Operand::Arithmetic(operator, left, right) => {
                let whole_power = !is_constant(right) && self.static_int(left) && self.static_int(right);
                compute(*operator, &self.value(left), &self.value(right), whole_power)
            }
        }
    }

    /// Whether the type is known to be an integer, whatever the row.
    fn static_int(&self, operand: &Operand) -> bool {
        let int = |data_type| {
            matches!(
                data_type,
                DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64
            )
        };
        match operand {
            Operand::Constant(constant) => matches!(constant.value, Value::Int(_)),
            Operand::Field(index) => int(TYPES[self.types[*index]].0),
            Operand::Element(index, _) => TYPES[self.types[*index]].1.is_some_and(int),
            Operand::Length(_) => true,
            Operand::Path(..) | Operand::PathLength(..) => false,
            Operand::Negate(inner) => self.static_int(inner),
            Operand::Arithmetic(operator, left, right) => {
                let whole = is_constant(right) && matches!(self.value(right), Value::Int(0..));
                self.static_int(left) && self.static_int(right) && (*operator != '^' || whole)
            }
        }
    }

    fn is_single(&self, operand: &Operand) -> bool {
        match operand {
            Operand::Field(index) => matches!(
                TYPES[self.types[*index]],
                (DataType::Float, _) | (_, Some(DataType::Float))
            ),
            Operand::Element(index, _) => TYPES[self.types[*index]].1 == Some(DataType::Float),
            _ => false,
        }
    }

    pub(super) fn answer(&self, filter: &Filter) -> Option<bool> {
        match filter {
            Filter::Compare(name, left, right) => {
                let mut sides = (self.value(left), self.value(right));
                if self.is_single(left) && is_constant(right) {
                    sides.1 = single(&sides.1);
                }
                if self.is_single(right) && is_constant(left) {
                    sides.0 = single(&sides.0);
                }
                if !is_constant(left) && !is_constant(right) {
                    // Only a written list makes lists comparable.
                    for side in [&mut sides.0, &mut sides.1] {
                        if matches!(side, Value::List(_)) {
                            *side = Value::Absent;
                        }
                    }
                }
                compare(name, &sides.0, &sides.1)
            }
            Filter::Range(low, low_equal, value, high_equal, high) => {
                let bound = |constant: &Constant| {
                    if self.is_single(value) {
                        single(&constant.value)
                    } else {
                        constant.value.clone()
                    }
                };
                let value = self.value(value);
                let low = compare(if *low_equal { "<=" } else { "<" }, &bound(low), &value);
                let high = compare(if *high_equal { "<=" } else { "<" }, &value, &bound(high));
                both(low, high)
            }
            Filter::In(value, items, negated) => {
                let round = self.is_single(value);
                let value = self.value(value);
                if value == Value::Null {
                    return None;
                }
                let equal = |item: &Constant| {
                    let item = if round { single(&item.value) } else { item.value.clone() };
                    compare("==", &value, &item) == Some(true)
                };
                Some(items.iter().any(equal) != *negated)
            }
            Filter::Like(value, pattern, negated) => match self.value(value) {
                Value::Null => None,
                Value::Text(text) => {
                    let pattern: Vec<char> = pattern.chars().collect();
                    Some(like(&pattern, &text.chars().collect::<Vec<_>>()) != *negated)
                }
                _ => Some(*negated),
            },
            Filter::IsNull(Operand::Path(field, steps), negated) if !steps.is_empty() => {
                let there = self.find(*field, steps).is_some_and(|found| !found.is_null());
                Some(there == *negated)
            }
            Filter::IsNull(Operand::Path(field, _), negated) => Some(self.document(*field).is_none() != *negated),
            Filter::IsNull(value, negated) => Some((self.value(value) == Value::Null) != *negated),
            Filter::Exists(field, steps) => Some(self.find(*field, steps).is_some_and(|found| !found.is_null())),
            Filter::Contains(value, name, items) => {
                let round = self.is_single(value);
                let list = match self.value(value) {
                    Value::Null => return None,
                    Value::List(list) => list,
                    _ => return Some(false),
                };
                let zero = [Constant {
                    value: Value::Int(0),
                    template: false,
                }];
                let items = match (*name, items.as_slice()) {
                    ("array_contains", []) => &zero[..],
                    ("array_contains", items) => &items[..1],
                    (_, items) => items,
                };
                let mut found = items.iter().map(|item| {
                    let item = if round { single(&item.value) } else { item.value.clone() };
                    list.iter().any(|held| compare("==", held, &item) == Some(true))
                });
                Some(if name.ends_with("_any") {
                    found.any(|found| found)
                } else {
                    found.all(|found| found)
                })
            }
            Filter::Truth(value) => match self.value(value) {
                Value::Null => None,
                value => Some(value == Value::Bool(true)),
            },
            Filter::And(items) => items.iter().map(|item| self.answer(item)).reduce(both).flatten(),
            Filter::Or(items) => items
                .iter()
                .map(|item| self.answer(item).map(|value| !value))
                .reduce(both)
                .flatten()
                .map(|value| !value),
            Filter::Not(inner) => self.answer(inner).map(|value| !value),
        }
    }
}

pub(super) fn is_constant(operand: &Operand) -> bool {
    match operand {
        Operand::Constant(_) => true,
        Operand::Arithmetic(_, left, right) => is_constant(left) && is_constant(right),
        Operand::Negate(inner) => is_constant(inner),
        _ => false,
    }
}

pub(super) fn both(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is what is modelled")]
pub(super) fn single(value: &Value) -> Value {
    match value {
        Value::Double(value) => Value::Double(f64::from(*value as f32)),
        Value::List(items) => Value::List(items.iter().map(single).collect()),
        other => other.clone(),
    }
}

pub(super) fn from_json(value: &Json) -> Value {
    match value {
        Json::Null | Json::Object(_) => Value::Absent,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Double(number.as_f64().expect("a number")),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
    }
}

pub(super) fn compare(name: &str, left: &Value, right: &Value) -> Option<bool> {
    if name == "!=" {
        return compare("==", left, right).map(|equal| !equal);
    }
    let order = match (left, right) {
        (Value::Null, _) | (_, Value::Null) => return None,
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => Some(left.as_bytes().cmp(right.as_bytes())),
        (Value::List(left), Value::List(right)) => {
            let same = left.len() == right.len();
            return Some(
                same && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| compare("==", left, right) == Some(true)),
            );
        }
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(right)),
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Int(left), Value::Double(right)) => exact(*left, *right),
        (Value::Double(left), Value::Int(right)) => exact(*right, *left).map(std::cmp::Ordering::reverse),
        _ => None,
    };
    Some(order.is_some_and(|order| match name {
        "==" => order.is_eq(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }))
}

/// Through 128-bit integers, which hold both an integer and a float's whole part.
pub(super) fn exact(left: i64, right: f64) -> Option<std::cmp::Ordering> {
    if right.is_nan() {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "clamped to a range far outside 64 bits")]
    let doubled = (right.clamp(-1e30, 1e30) * 2.0).floor() as i128;
    let rest = right.abs() < 1e15 && (right * 2.0).fract() != 0.0;
    Some((i128::from(left) * 2).cmp(&doubled).then(if rest {
        std::cmp::Ordering::Less
    } else {
        std::cmp::Ordering::Equal
    }))
}

/// `power_is_float`: both sides are integers of rows, so that the type of the result is not known before the row.
#[expect(clippy::cast_precision_loss, reason = "float arithmetic is what is modelled")]
pub(super) fn compute(operator: char, left: &Value, right: &Value, power_is_float: bool) -> Value {
    if *left == Value::Null || *right == Value::Null {
        return Value::Null;
    }
    if let (Value::Int(left), Value::Int(right)) = (left, right)
        && !(operator == '^' && (power_is_float || *right < 0))
    {
        let (left, right) = (i128::from(*left), i128::from(*right));
        let result = match operator {
            '+' => Some(left + right),
            '-' => Some(left - right),
            '*' => Some(left * right),
            '/' => (right != 0).then(|| left / right),
            '%' => (right != 0).then(|| left % right),
            _ if left.abs() > 1 && right > 64 => None,
            _ => {
                let exponent = if left.abs() <= 1 {
                    right % 2 + i128::from(right > 0) * 2
                } else {
                    right
                };
                (0..exponent).try_fold(1i128, |power, _| power.checked_mul(left))
            }
        };
        return result
            .and_then(|result| i64::try_from(result).ok())
            .map_or(Value::Null, Value::Int);
    }
    let double = |value: &Value| match value {
        Value::Int(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    };
    let (Some(left), Some(right)) = (double(left), double(right)) else {
        return Value::Absent;
    };
    match operator {
        '+' => Value::Double(left + right),
        '-' => Value::Double(left - right),
        '*' => Value::Double(left * right),
        '/' | '%' if right == 0.0 => Value::Null,
        '/' => Value::Double(left / right),
        '%' => Value::Double(left % right),
        _ => Value::Double(left.powf(right)),
    }
}

pub(super) fn like(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('%', rest)) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        Some(('_', rest)) => !text.is_empty() && like(rest, &text[1..]),
        Some((first, rest)) => text.first() == Some(first) && like(rest, &text[1..]),
    }
}
