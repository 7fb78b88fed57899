//! Names to fields, types checked, constants folded.
//!
//! Every part of an expression becomes a constant, a value of a row, or a condition; each operator says which it takes.
//! `!=` and `not in` are bound as the negation of `==` and `in`, so they cannot drift apart.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "operators name what they take and refuse the rest"
)]

mod fold;
mod set;

use saker_analyzer::Analyzer;
use saker_model::{CollectionSchema, DataType, FieldSchema, Limits};
use saker_scalar::Place;

use crate::ast::{Arithmetic, Comparison, Expr, ExprKind, Function, Step};
use crate::mixed_set::MixedSet;
use crate::parser::{cut_name, list_literal};
use crate::pattern::Pattern;
use crate::plan::{Bound, JsonPath, ListOperand, Number, Operand, Predicate};
use crate::{FilterError, Literal, Templates};

/// Checks a filter against a schema and makes it ready for evaluation.
///
/// # Errors
/// [`FilterError`] if a field does not exist, types do not go together, a `{name}` has no value, a constant overflows or is
/// divided by zero, or the filter uses a part of the language that is not implemented.
pub fn bind(expr: &Expr, schema: &CollectionSchema, templates: &Templates) -> Result<Bound, FilterError> {
    let predicate = Binder { schema, templates }.condition(expr)?;
    Ok(Bound {
        predicate,
        primary: schema.primary().map(|field| field.id),
    })
}

/// The place that an expression names, if it is nothing but a path into a JSON field.
///
/// # Errors
/// [`FilterError`] if it is something else, or if the schema has no such field.
pub(crate) fn json_place(expr: &Expr, schema: &CollectionSchema) -> Result<Place, FilterError> {
    let templates = Templates::new();
    let binder = Binder {
        schema,
        templates: &templates,
    };
    match binder.value(expr)? {
        Term::Value(Operand::Json(JsonPath { field, steps }), _) => Ok(Place { field, steps }),
        _ => mismatch(expr.position, "json_path must lead into a JSON field"),
    }
}

struct Binder<'a> {
    schema: &'a CollectionSchema,
    templates: &'a Templates,
}

/// What an expression turns out to be.
enum Term {
    Constant(Literal),
    Value(Operand, Kind),
    Condition(Predicate),
}

/// What operators may do with a row's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Double,
    /// A 32-bit float of a column: constants that it is compared with are rounded to 32 bits.
    Float,
    Text,
    /// Any kind, known per row only.
    Json,
    Array(DataType),
}

impl Kind {
    const fn of(data_type: DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Bool => Self::Bool,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Self::Int,
            DataType::Float => Self::Float,
            DataType::Double => Self::Double,
            DataType::VarChar => Self::Text,
            DataType::Json => Self::Json,
            DataType::Array
            | DataType::FloatVector
            | DataType::Float16Vector
            | DataType::BFloat16Vector
            | DataType::Int8Vector
            | DataType::BinaryVector
            | DataType::SparseFloatVector => return None,
        })
    }
    const fn name(self) -> &'static str {
        match self {
            Self::Bool => "a boolean",
            Self::Int => "an integer",
            Self::Double | Self::Float => "a float",
            Self::Text => "a string",
            Self::Json => "a JSON value",
            Self::Array(_) => "an array",
        }
    }
    const fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Double | Self::Float)
    }
    /// Whether values of both kinds may be compared with each other.
    fn compares_with(self, other: Self) -> bool {
        match (self, other) {
            (Self::Array(_), _) | (_, Self::Array(_)) => false,
            (Self::Json, _) | (_, Self::Json) => true,
            (left, right) => left == right || left.is_number() && right.is_number(),
        }
    }
    /// Whether values of this kind may be compared with this constant.
    fn takes(self, literal: &Literal) -> bool {
        match literal {
            Literal::Bool(_) => matches!(self, Self::Bool | Self::Json),
            Literal::Int(_) | Literal::Double(_) => self.is_number() || self == Self::Json,
            Literal::Text(_) => matches!(self, Self::Text | Self::Json),
            Literal::Ints(_) | Literal::List(_) => match self {
                Self::Json => true,
                Self::Array(element) => Self::of(element).is_some_and(|element| match literal {
                    Literal::Ints(items) => items.is_empty() || element.is_number(),
                    Literal::List(items) => items.iter().all(|item| element.takes(item)),
                    _ => false,
                }),
                Self::Bool | Self::Int | Self::Double | Self::Float | Self::Text => false,
            },
        }
    }
}

fn mismatch<T>(position: usize, reason: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError::Type {
        position,
        reason: reason.into(),
    })
}

impl Binder<'_> {
    fn condition(&self, expr: &Expr) -> Result<Predicate, FilterError> {
        match self.term(expr)? {
            Term::Condition(predicate) => Ok(predicate),
            Term::Constant(Literal::Bool(value)) => Ok(Predicate::Always(value)),
            Term::Value(operand, Kind::Bool | Kind::Json) => Ok(Predicate::Truth(operand)),
            Term::Constant(literal) => mismatch(
                expr.position,
                format!("predicate is not a boolean expression, but {}", literal.kind()),
            ),
            Term::Value(_, kind) => mismatch(
                expr.position,
                format!("predicate is not a boolean expression, but {}", kind.name()),
            ),
        }
    }

    /// An expression that must not be a condition.
    fn value(&self, expr: &Expr) -> Result<Term, FilterError> {
        match self.term(expr)? {
            Term::Condition(Predicate::Always(value)) => Ok(Term::Constant(Literal::Bool(value))),
            Term::Condition(_) => mismatch(expr.position, "the result of a condition cannot be an operand"),
            term => Ok(term),
        }
    }

    fn constant(&self, expr: &Expr, what: &str) -> Result<Literal, FilterError> {
        match self.value(expr)? {
            Term::Constant(literal) => Ok(literal),
            Term::Value(..) | Term::Condition(_) => mismatch(expr.position, format!("{what} must be a constant")),
        }
    }

    /// Only sends on, so that its frame, of which deep filters put many on the stack, stays small.
    fn term(&self, expr: &Expr) -> Result<Term, FilterError> {
        let at = expr.position;
        match &expr.kind {
            ExprKind::Everything => Ok(Term::Condition(Predicate::Always(true))),
            ExprKind::Literal(literal) => Ok(Term::Constant(literal.clone())),
            ExprKind::Template(name) => self.template(at, name),
            ExprKind::List(items) => self.list(items),
            ExprKind::Path { name, steps } => self.path(at, name, steps),
            ExprKind::Negate(inner) => self.negate(inner),
            ExprKind::Arithmetic { operator, left, right } => self.arithmetic(at, *operator, left, right),
            ExprKind::Not(inner) => self.not(inner),
            ExprKind::And(items) => self.all(items),
            ExprKind::Or(items) => self.any(items),
            ExprKind::Compare { operator, left, right } => self.compare(at, *operator, left, right),
            ExprKind::Between {
                left,
                left_operator,
                value,
                right_operator,
                right,
            } => self.between(at, (left, *left_operator), value, (*right_operator, right)),
            ExprKind::In { value, list, negated } => negated_if(*negated, self.contained(value, list)),
            ExprKind::Like { value, pattern } => negated_if(false, self.matches(value, pattern, Pattern::like)),
            ExprKind::Regex {
                value,
                pattern,
                negated,
            } => negated_if(*negated, self.matches(value, pattern, Pattern::regex)),
            ExprKind::IsNull { value, negated } => negated_if(*negated, self.is_null(value)),
            ExprKind::Exists(value) => self.exists(at, value),
            ExprKind::Call { function, arguments } => self.call(at, *function, arguments),
        }
    }

    fn list(&self, items: &[Expr]) -> Result<Term, FilterError> {
        let items: Result<Vec<_>, _> = items.iter().map(|item| self.constant(item, "a list's item")).collect();
        Ok(Term::Constant(list_literal(items?)))
    }

    fn not(&self, inner: &Expr) -> Result<Term, FilterError> {
        negated_if(true, self.condition(inner))
    }

    fn compare(&self, position: usize, operator: Comparison, left: &Expr, right: &Expr) -> Result<Term, FilterError> {
        let (left, right) = (self.value(left)?, self.value(right)?);
        compare(position, operator, left, right).map(Term::Condition)
    }

    fn between(
        &self,
        position: usize,
        low: (&Expr, Comparison),
        value: &Expr,
        high: (Comparison, &Expr),
    ) -> Result<Term, FilterError> {
        let above = compare(position, low.1, self.value(low.0)?, self.value(value)?)?;
        let below = compare(position, high.0, self.value(value)?, self.value(high.1)?)?;
        Ok(Term::Condition(and(vec![above, below])))
    }

    fn exists(&self, position: usize, value: &Expr) -> Result<Term, FilterError> {
        match self.value(value)? {
            Term::Value(Operand::Json(path), _) => Ok(Term::Condition(Predicate::Exists(path))),
            _ => mismatch(position, "exists operations are only supported on a JSON field's path"),
        }
    }

    fn template(&self, position: usize, name: &str) -> Result<Term, FilterError> {
        let Some(value) = self.templates.get(name) else {
            return Err(FilterError::TemplateNotFound {
                name: cut_name(name).to_owned(),
            });
        };
        if value.depth() > Limits::FILTER_DEPTH_MAX {
            return Err(FilterError::TooDeep {
                position,
                limit: Limits::FILTER_DEPTH_MAX,
            });
        }
        if !finite(value) {
            return mismatch(position, "a template's value is not a number or infinity");
        }
        // Lists of any origin are compact where they can be.
        Ok(Term::Constant(match value.clone() {
            Literal::List(items) => list_literal(items),
            other => other,
        }))
    }

    fn path(&self, position: usize, name: &str, steps: &[Step]) -> Result<Term, FilterError> {
        if let Some(field) = self.schema.field(name) {
            return field_value(position, field, steps);
        }
        match self.schema.dynamic() {
            Some(dynamic) if name != CollectionSchema::DYNAMIC_FIELD_NAME => {
                let steps = std::iter::once(Step::Key(name.to_owned()))
                    .chain(steps.iter().cloned())
                    .collect();
                Ok(Term::Value(
                    Operand::Json(JsonPath {
                        field: dynamic.id,
                        steps,
                    }),
                    Kind::Json,
                ))
            }
            _ => Err(FilterError::FieldNotFound {
                name: cut_name(name).to_owned(),
            }),
        }
    }

    fn negate(&self, inner: &Expr) -> Result<Term, FilterError> {
        match self.value(inner)? {
            Term::Constant(literal) => {
                let zero = if matches!(literal, Literal::Double(_)) {
                    Literal::Double(-0.0)
                } else {
                    Literal::Int(0)
                };
                Ok(Term::Constant(fold::arithmetic(
                    inner.position,
                    Arithmetic::Subtract,
                    &zero,
                    &literal,
                )?))
            }
            Term::Value(operand, kind) => {
                let zero = Term::Constant(Literal::Int(0));
                row_arithmetic(inner.position, Arithmetic::Subtract, zero, Term::Value(operand, kind))
            }
            Term::Condition(_) => mismatch(inner.position, "a condition has no negative"),
        }
    }

    fn arithmetic(
        &self,
        position: usize,
        operator: Arithmetic,
        left: &Expr,
        right: &Expr,
    ) -> Result<Term, FilterError> {
        match (self.value(left)?, self.value(right)?) {
            (Term::Constant(left), Term::Constant(right)) => {
                Ok(Term::Constant(fold::arithmetic(position, operator, &left, &right)?))
            }
            (left, right) => row_arithmetic(position, operator, left, right),
        }
    }

    fn all(&self, items: &[Expr]) -> Result<Term, FilterError> {
        Ok(Term::Condition(and(self.conditions(items)?)))
    }

    fn any(&self, items: &[Expr]) -> Result<Term, FilterError> {
        Ok(Term::Condition(or(self.conditions(items)?)))
    }

    fn conditions(&self, items: &[Expr]) -> Result<Vec<Predicate>, FilterError> {
        items.iter().map(|item| self.condition(item)).collect()
    }

    fn contained(&self, value: &Expr, list: &Expr) -> Result<Predicate, FilterError> {
        let Some(items) = into_list(self.constant(list, "the right operand of 'in'")?) else {
            return mismatch(list.position, "the right operand of 'in' must be a list");
        };
        match self.value(value)? {
            Term::Constant(literal) => {
                let items = items.into_items().unwrap_or_default();
                Ok(Predicate::Always(items.iter().any(|item| fold::equal(&literal, item))))
            }
            Term::Value(operand, kind) => {
                let set = set::build(value.position, kind, items)?;
                Ok(Predicate::In { value: operand, set })
            }
            Term::Condition(_) => mismatch(value.position, "the result of a condition cannot be an operand"),
        }
    }

    fn matches(
        &self,
        value: &Expr,
        pattern: &Expr,
        compile: impl Fn(&str) -> Result<Pattern, String>,
    ) -> Result<Predicate, FilterError> {
        let Literal::Text(text) = self.constant(pattern, "a pattern")? else {
            return mismatch(pattern.position, "a pattern must be a string");
        };
        let pattern = match compile(&text) {
            Ok(compiled) => compiled,
            Err(reason) => return mismatch(pattern.position, reason),
        };
        match self.value(value)? {
            Term::Constant(Literal::Text(text)) => Ok(Predicate::Always(pattern.matches(&text))),
            Term::Value(operand, Kind::Text | Kind::Json) => Ok(Predicate::Matches {
                value: operand,
                pattern,
            }),
            Term::Value(_, kind) => mismatch(
                value.position,
                format!("like operation on non-string is unsupported, found {}", kind.name()),
            ),
            Term::Constant(_) | Term::Condition(_) => {
                mismatch(value.position, "like operation on non-string is unsupported")
            }
        }
    }

    /// `text_match(field, 'words')`: whether the text has one of the words, as the field's analyzer cuts both.
    fn text_match(&self, position: usize, value: &Expr, words: Option<&Expr>) -> Result<Term, FilterError> {
        let Some(words) = words else {
            return mismatch(position, "a function needs arguments");
        };
        let Literal::Text(text) = self.constant(words, "the words to match")? else {
            return mismatch(words.position, "the words to match must be a string");
        };
        let found = match self.value(value)? {
            Term::Value(Operand::Column(field, DataType::VarChar), Kind::Text) => self.schema.field_by_id(field),
            _ => None,
        };
        let Some(field) = found else {
            return mismatch(value.position, "text_match operation on non-string is unsupported");
        };
        let name = &field.name;
        if !field.is_matched() {
            return mismatch(value.position, format!("field \"{name}\" does not enable match"));
        }
        let params = field.type_params.get(FieldSchema::ANALYZER_PARAMS);
        let pattern = Analyzer::from_params(params.map(String::as_str))
            .map_err(|error| error.to_string())
            .and_then(|analyzer| Pattern::words(analyzer, &text));
        match pattern {
            Ok(pattern) => Ok(Term::Condition(Predicate::Matches {
                value: Operand::Column(field.id, DataType::VarChar),
                pattern,
            })),
            Err(reason) => mismatch(words.position, reason),
        }
    }

    fn is_null(&self, value: &Expr) -> Result<Predicate, FilterError> {
        match self.value(value)? {
            Term::Value(Operand::Json(path), _) if !path.steps.is_empty() => Ok(not(Predicate::Exists(path))),
            Term::Value(Operand::Json(JsonPath { field, .. }) | Operand::Column(field, _), _) => {
                Ok(Predicate::IsNull(field))
            }
            _ => mismatch(value.position, "'is null' needs a field or a JSON path"),
        }
    }

    fn call(&self, position: usize, function: Function, arguments: &[Expr]) -> Result<Term, FilterError> {
        let Some((first, rest)) = arguments.split_first() else {
            return mismatch(position, "a function needs arguments");
        };
        if function == Function::TextMatch {
            return self.text_match(position, first, rest.first());
        }
        let (list, kind) = match self.value(first)? {
            Term::Value(Operand::Json(path), kind) => (ListOperand::Json(path), kind),
            Term::Value(Operand::Column(field, _), Kind::Array(element)) => {
                (ListOperand::Array(field), Kind::Array(element))
            }
            _ => {
                return mismatch(
                    first.position,
                    "the first argument must be an array field or a JSON path",
                );
            }
        };
        let second = match (function, rest.first()) {
            (Function::ArrayLength, _) => {
                let kind = if kind == Kind::Json { Kind::Json } else { Kind::Int };
                return Ok(Term::Value(Operand::Length(list), kind));
            }
            (_, Some(second)) => second,
            (_, None) => return mismatch(position, "a function needs arguments"),
        };
        let literal = self.constant(second, "the second argument")?;
        let items = match function {
            Function::Contains | Function::ArrayLength | Function::TextMatch => vec![literal],
            Function::ContainsAll | Function::ContainsAny => match literal.into_items() {
                Some(items) => items,
                None => return mismatch(second.position, "the second argument must be a list"),
            },
        };
        if let Kind::Array(element) = kind {
            let element_kind = Kind::of(element);
            if !items
                .iter()
                .all(|item| element_kind.is_some_and(|kind| kind.takes(item)))
            {
                let reason = format!("the values do not fit an array of {}", element.name());
                return mismatch(second.position, reason);
            }
        }
        let items = Box::new(MixedSet::new(
            items.into_iter().map(|item| rounded(kind, item)).collect(),
        ));
        Ok(Term::Condition(Predicate::Contains {
            list,
            items,
            all: function != Function::ContainsAny,
        }))
    }
}

fn field_value(position: usize, field: &FieldSchema, steps: &[Step]) -> Result<Term, FilterError> {
    let name = cut_name(&field.name);
    match (field.data_type, steps) {
        (DataType::Json, _) => Ok(Term::Value(
            Operand::Json(JsonPath {
                field: field.id,
                steps: steps.to_vec(),
            }),
            Kind::Json,
        )),
        (data_type, _) if data_type.is_vector() => Err(FilterError::NotSupported {
            what: format!("a filter on vector field {name}"),
            position,
        }),
        (DataType::Array, _) => {
            let element = field.element_type.unwrap_or(DataType::Int64);
            match steps {
                [] => Ok(Term::Value(
                    Operand::Column(field.id, DataType::Array),
                    Kind::Array(element),
                )),
                [Step::Index(index)] => match Kind::of(element) {
                    Some(kind) => Ok(Term::Value(
                        Operand::Element {
                            field: field.id,
                            element,
                            index: *index,
                        },
                        kind,
                    )),
                    None => mismatch(position, format!("elements of field {name} cannot be compared")),
                },
                _ => mismatch(position, format!("field {name} of type Array takes one integer index")),
            }
        }
        (data_type, []) => match Kind::of(data_type) {
            Some(kind) => Ok(Term::Value(Operand::Column(field.id, data_type), kind)),
            None => mismatch(position, format!("field {name} cannot be filtered")),
        },
        (data_type, _) => mismatch(
            position,
            format!("field {name} of type {} cannot be indexed", data_type.name()),
        ),
    }
}

/// Arithmetic of which at least one side is a row's value.
fn row_arithmetic(position: usize, operator: Arithmetic, left: Term, right: Term) -> Result<Term, FilterError> {
    let zero = match &right {
        Term::Constant(Literal::Int(value)) => *value == 0,
        Term::Constant(Literal::Double(value)) => *value == 0.0,
        Term::Constant(_) | Term::Value(..) | Term::Condition(_) => false,
    };
    if zero && matches!(operator, Arithmetic::Divide | Arithmetic::Modulo) {
        return mismatch(position, "division by zero");
    }
    let whole_power = matches!(&right, Term::Constant(Literal::Int(exponent)) if *exponent >= 0);
    let (left, left_kind) = numeric(position, left)?;
    let (right, right_kind) = numeric(position, right)?;
    let number = match (left_kind, right_kind) {
        (Kind::Json, _) | (_, Kind::Json) => Number::Json,
        (Kind::Int, Kind::Int) if operator != Arithmetic::Power || whole_power => Number::Int,
        _ => Number::Double,
    };
    let kind = match number {
        Number::Int => Kind::Int,
        Number::Double => Kind::Double,
        Number::Json => Kind::Json,
    };
    let (left, right) = (Box::new(left), Box::new(right));
    Ok(Term::Value(
        Operand::Arithmetic {
            operator,
            number,
            left,
            right,
        },
        kind,
    ))
}

fn numeric(position: usize, term: Term) -> Result<(Operand, Kind), FilterError> {
    match term {
        Term::Constant(literal @ Literal::Int(_)) => Ok((Operand::Constant(literal), Kind::Int)),
        Term::Constant(literal @ Literal::Double(_)) => Ok((Operand::Constant(literal), Kind::Double)),
        Term::Value(operand, kind) if kind.is_number() || kind == Kind::Json => Ok((operand, kind)),
        Term::Constant(literal) => mismatch(position, format!("arithmetic needs numbers, found {}", literal.kind())),
        Term::Value(_, kind) => mismatch(position, format!("arithmetic needs numbers, found {}", kind.name())),
        Term::Condition(_) => mismatch(position, "arithmetic needs numbers, found a condition"),
    }
}

fn compare(position: usize, operator: Comparison, left: Term, right: Term) -> Result<Predicate, FilterError> {
    if operator == Comparison::NotEqual {
        return Ok(not(compare(position, Comparison::Equal, left, right)?));
    }
    match (left, right) {
        (Term::Constant(left), Term::Constant(right)) => fold::compare(position, operator, &left, &right),
        (Term::Constant(literal), Term::Value(operand, kind)) => {
            compare_constant(position, operator.swapped(), operand, kind, literal)
        }
        (Term::Value(operand, kind), Term::Constant(literal)) => {
            compare_constant(position, operator, operand, kind, literal)
        }
        (Term::Value(left, left_kind), Term::Value(right, right_kind)) => {
            if !left_kind.compares_with(right_kind) {
                let reason = format!("cannot compare {} with {}", left_kind.name(), right_kind.name());
                return mismatch(position, reason);
            }
            check_order(
                position,
                operator,
                left_kind == Kind::Bool || right_kind == Kind::Bool,
                "booleans",
            )?;
            Ok(Predicate::Compare { operator, left, right })
        }
        (Term::Condition(_), _) | (_, Term::Condition(_)) => {
            mismatch(position, "the result of a condition cannot be an operand")
        }
    }
}

fn compare_constant(
    position: usize,
    operator: Comparison,
    left: Operand,
    kind: Kind,
    literal: Literal,
) -> Result<Predicate, FilterError> {
    if !kind.takes(&literal) {
        return mismatch(
            position,
            format!("cannot compare {} with {}", kind.name(), literal.kind()),
        );
    }
    check_order(position, operator, matches!(literal, Literal::Bool(_)), "booleans")?;
    check_order(
        position,
        operator,
        matches!(literal, Literal::Ints(_) | Literal::List(_)),
        "lists",
    )?;
    Ok(Predicate::Compare {
        operator,
        left,
        right: Operand::Constant(rounded(kind, literal)),
    })
}

fn check_order(position: usize, operator: Comparison, unordered: bool, what: &str) -> Result<(), FilterError> {
    if unordered && operator != Comparison::Equal {
        return mismatch(position, format!("{what} can be compared with == and != only"));
    }
    Ok(())
}

/// A constant that is compared with a 32-bit float is one itself, so that `score == 0.1` finds a stored 0.1.
fn rounded(kind: Kind, literal: Literal) -> Literal {
    let single = matches!(kind, Kind::Float | Kind::Array(DataType::Float));
    match literal {
        #[expect(clippy::cast_possible_truncation, reason = "rounding to 32 bits is the purpose")]
        Literal::Double(value) if single => Literal::Double(f64::from(value as f32)),
        Literal::List(items) if single => Literal::List(items.into_iter().map(|item| rounded(kind, item)).collect()),
        other => other,
    }
}

fn into_list(literal: Literal) -> Option<Literal> {
    matches!(literal, Literal::Ints(_) | Literal::List(_)).then_some(literal)
}

fn finite(literal: &Literal) -> bool {
    match literal {
        Literal::Double(value) => value.is_finite(),
        Literal::List(items) => items.iter().all(finite),
        Literal::Bool(_) | Literal::Int(_) | Literal::Text(_) | Literal::Ints(_) => true,
    }
}

/// A condition as a term, turned round if asked.
fn negated_if(negated: bool, condition: Result<Predicate, FilterError>) -> Result<Term, FilterError> {
    condition.map(|condition| Term::Condition(if negated { not(condition) } else { condition }))
}

fn not(predicate: Predicate) -> Predicate {
    match predicate {
        Predicate::Always(value) => Predicate::Always(!value),
        Predicate::Not(inner) => *inner,
        other => Predicate::Not(Box::new(other)),
    }
}

fn and(items: Vec<Predicate>) -> Predicate {
    if items.iter().any(|item| matches!(item, Predicate::Always(false))) {
        return Predicate::Always(false);
    }
    let mut items: Vec<_> = items
        .into_iter()
        .filter(|item| !matches!(item, Predicate::Always(true)))
        .collect();
    match items.len() {
        0 => Predicate::Always(true),
        1 => items.swap_remove(0),
        _ => Predicate::And(items),
    }
}

fn or(items: Vec<Predicate>) -> Predicate {
    if items.iter().any(|item| matches!(item, Predicate::Always(true))) {
        return Predicate::Always(true);
    }
    let mut items: Vec<_> = items
        .into_iter()
        .filter(|item| !matches!(item, Predicate::Always(false)))
        .collect();
    match items.len() {
        0 => Predicate::Always(false),
        1 => items.swap_remove(0),
        _ => Predicate::Or(items),
    }
}
