//! A filter as text, some of its constants as templates.

use super::{Constant, Filter, Operand, Value};
use crate::{Literal, Templates};

#[derive(Default)]
pub(super) struct Writer {
    pub(super) text: String,
    pub(super) templates: Templates,
}

impl Writer {
    fn constant(&mut self, constant: &Constant) {
        if constant.template {
            let name = format!("t{}", self.templates.len());
            self.text.push_str(&format!("{{{name}}}"));
            self.templates.insert(name, literal(&constant.value));
        } else {
            write_value(&constant.value, &mut self.text);
        }
    }
    fn list(&mut self, items: &[Constant]) {
        self.text.push('[');
        for item in items {
            self.constant(item);
            self.text.push(',');
        }
        if items.is_empty() {
            self.text.push(']');
        } else {
            self.text.pop();
            self.text.push(']');
        }
    }
    fn path(&mut self, field: Option<usize>, steps: &[String]) {
        let mut steps = steps.iter();
        match (field, steps.len() % 2) {
            (Some(index), _) => self.text.push_str(&format!("f{index}")),
            // The two ways to name a dynamic key.
            (None, 0) => self.text.push_str("$meta"),
            (None, _) => self.text.push_str(steps.next().map_or("$meta", String::as_str)),
        }
        for step in steps {
            let quoted = step.parse::<usize>().is_err();
            self.text.push_str(&if quoted {
                format!("['{step}']")
            } else {
                format!("[{step}]")
            });
        }
    }
    fn operand(&mut self, operand: &Operand) {
        match operand {
            Operand::Constant(constant) => self.constant(constant),
            Operand::Field(index) => self.text.push_str(&format!("f{index}")),
            Operand::Element(index, element) => self.text.push_str(&format!("f{index}[{element}]")),
            Operand::Length(index) => self.text.push_str(&format!("array_length(f{index})")),
            Operand::Path(field, steps) => self.path(*field, steps),
            Operand::PathLength(field, steps) => {
                self.text.push_str("array_length(");
                self.path(*field, steps);
                self.text.push(')');
            }
            Operand::Arithmetic(operator, left, right) => {
                self.text.push('(');
                // A minus sign binds less tightly than **, so a negative constant needs its own parentheses.
                let negative = matches!(**left, Operand::Constant(_));
                self.text.push_str(if negative { "(" } else { "" });
                self.operand(left);
                self.text.push_str(if negative { ")" } else { "" });
                self.text.push_str(if *operator == '^' { " ** " } else { " " });
                if *operator != '^' {
                    self.text.push(*operator);
                    self.text.push(' ');
                }
                self.operand(right);
                self.text.push(')');
            }
            Operand::Negate(inner) => {
                self.text.push_str("(-");
                self.operand(inner);
                self.text.push(')');
            }
        }
    }
    fn chain(&mut self, items: &[Filter], between: &str) {
        for (index, item) in items.iter().enumerate() {
            self.text.push_str(if index == 0 { "" } else { between });
            self.text.push('(');
            self.filter(item);
            self.text.push(')');
        }
    }
    pub(super) fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::Compare(name, left, right) => {
                self.operand(left);
                self.text.push_str(&format!(" {name} "));
                self.operand(right);
            }
            Filter::Range(low, low_equal, value, high_equal, high) => {
                self.constant(low);
                self.text.push_str(if *low_equal { " <= " } else { " < " });
                self.operand(value);
                self.text.push_str(if *high_equal { " <= " } else { " < " });
                self.constant(high);
            }
            Filter::In(value, items, negated) => {
                self.operand(value);
                self.text.push_str(if *negated { " not in " } else { " in " });
                self.list(items);
            }
            Filter::Like(value, pattern, negated) => {
                self.operand(value);
                self.text.push_str(if *negated { " not like " } else { " like " });
                self.text.push_str(&format!("'{pattern}'"));
            }
            Filter::IsNull(value, negated) => {
                self.operand(value);
                self.text.push_str(if *negated { " is not null" } else { " is null" });
            }
            Filter::Exists(field, steps) => {
                self.text.push_str("exists ");
                self.path(*field, steps);
            }
            Filter::Contains(value, name, items) => {
                self.text.push_str(&format!("{name}("));
                self.operand(value);
                self.text.push_str(", ");
                match (*name, items.first()) {
                    ("array_contains", Some(item)) => self.constant(item),
                    ("array_contains", None) => self.text.push('0'),
                    _ => self.list(items),
                }
                self.text.push(')');
            }
            Filter::Truth(value) => self.operand(value),
            Filter::And(items) => self.chain(items, " and "),
            Filter::Or(items) => self.chain(items, " or "),
            Filter::Not(inner) => {
                self.text.push_str("not (");
                self.filter(inner);
                self.text.push(')');
            }
        }
    }
}

pub(super) fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Absent => out.push_str("null"),
        Value::Bool(value) => out.push_str(&value.to_string()),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Double(value) => out.push_str(&format!("{value:?}")),
        Value::Text(value) => {
            out.push('"');
            out.push_str(&value.replace('\\', "\\\\").replace('"', "\\\""));
            out.push('"');
        }
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_value(item, out);
            }
            out.push(']');
        }
    }
}

pub(super) fn literal(value: &Value) -> Literal {
    match value {
        Value::Bool(value) => Literal::Bool(*value),
        Value::Int(value) => Literal::Int(*value),
        Value::Double(value) => Literal::Double(*value),
        Value::Text(value) => Literal::Text(value.clone()),
        Value::List(items) => Literal::List(items.iter().map(literal).collect()),
        Value::Null | Value::Absent => unreachable!("constants are not null"),
    }
}
