//! A bound filter over rows held by column.
//!
//! Conditions have three values: true, false and unknown, as in SQL. Each step gives two bitmaps, the rows that are
//! surely in and those that are surely out; a row in neither is unknown, and is not selected. `not` swaps the two.
//!
//! A condition on a place that has an index is looked up there (`indexed`), before conditions that are not, so that those
//! look at fewer rows. A column compared with a constant is one typed loop (`scan`). Everything else goes by blocks of rows (`operand`), as
//! integers, floats or, where a JSON value may be of any kind, as items.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what a typed path does not name goes the general way or is refused"
)]

mod indexed;
mod operand;
mod scan;

use saker_model::{Bitmap, Column, ColumnData, DataType, FieldId};

use crate::ast::Comparison;
use crate::json::{Item, Want, extract};
use crate::mixed_set::{MixedSet, as_item};
use crate::number::{compare_doubles, compare_int_double};
use crate::plan::{Bound, ListOperand, Number, Operand, Predicate, Set};
use crate::{ColumnSource, FilterError, Literal};

use operand::BLOCK_ROWS;
pub(crate) use operand::array_items;

/// The rows that a filter selects.
///
/// # Errors
/// [`FilterError::Column`] if a column is not of the type that the filter's schema gives its field, or is too short.
pub fn evaluate(bound: &Bound, source: &dyn ColumnSource) -> Result<Bitmap, FilterError> {
    let mut selected = Bitmap::default();
    for chunk in 0..source.chunks() {
        let rows = source.chunk_rows(chunk);
        let of_chunk = match &bound.predicate {
            Predicate::Always(value) => {
                selected.extend(rows, *value);
                continue;
            }
            predicate => Chunk { source, chunk, rows }.selected(predicate)?,
        };
        // Most sources are one chunk, whose answer need not be copied.
        if selected.is_empty() {
            selected = of_chunk;
        } else {
            selected.append(&of_chunk);
        }
    }
    Ok(selected)
}

/// Rows for which a condition holds, and rows for which it does not; the others are unknown.
#[derive(Clone)]
pub(crate) struct Truth {
    yes: Bitmap,
    no: Bitmap,
}

impl Truth {
    fn same(rows: usize, value: Option<bool>) -> Self {
        let map = |set| if set { Bitmap::ones(rows) } else { Bitmap::zeros(rows) };
        Self {
            yes: map(value == Some(true)),
            no: map(value == Some(false)),
        }
    }
}

/// Builds a [`Truth`] row by row.
#[derive(Default)]
struct TruthWriter {
    yes: Vec<u64>,
    no: Vec<u64>,
    rows: usize,
}

impl TruthWriter {
    fn push(&mut self, value: Option<bool>) {
        let bit = self.rows % 64;
        if bit == 0 {
            self.yes.push(0);
            self.no.push(0);
        }
        let words = if value == Some(true) {
            &mut self.yes
        } else {
            &mut self.no
        };
        if let (Some(_), Some(word)) = (value, words.last_mut()) {
            *word |= 1 << bit;
        }
        self.rows += 1;
    }
    fn finish(self) -> Truth {
        Truth {
            yes: Bitmap::from_words(self.yes, self.rows),
            no: Bitmap::from_words(self.no, self.rows),
        }
    }
}

/// One chunk of the source.
struct Chunk<'a> {
    source: &'a dyn ColumnSource,
    chunk: usize,
    rows: usize,
}

impl<'a> Chunk<'a> {
    /// The rows for which a condition holds.
    fn selected(&self, predicate: &Predicate) -> Result<Bitmap, FilterError> {
        match self.selected_by_indexes(predicate) {
            Some(selected) => Ok(selected),
            None => Ok(self.truth(predicate, None)?.yes),
        }
    }

    /// Answers for every row in `care`; what it says of others does not matter, so costly steps leave them out.
    fn truth(&self, predicate: &Predicate, care: Option<&Bitmap>) -> Result<Truth, FilterError> {
        if let Some(truth) = self.looked_up(predicate) {
            return Ok(truth);
        }
        match predicate {
            Predicate::Always(value) => Ok(Truth::same(self.rows, Some(*value))),
            Predicate::And(items) => self.all(items, care),
            Predicate::Or(items) => self.any(items, care),
            Predicate::Not(inner) => {
                let Truth { yes, no } = self.truth(inner, care)?;
                Ok(Truth { yes: no, no: yes })
            }
            Predicate::Compare { operator, left, right } => self.compare(*operator, left, right, care),
            Predicate::In { value, set } => self.is_in(value, set, care),
            Predicate::Matches {
                value: Operand::Column(field, DataType::VarChar),
                pattern,
            } => self.scan_texts(*field, |text| pattern.matches(text)),
            Predicate::Matches { value, pattern } => self.test(value, Want::Scalar, care, |item| match item {
                Item::Text(text) => pattern.matches(text),
                _ => false,
            }),
            Predicate::IsNull(field) => Ok(self.is_null(*field)),
            Predicate::Exists(path) => {
                let value = Operand::Json(path.clone());
                let Truth { yes, .. } = self.test(&value, Want::Presence, care, |item| *item == Item::Bool(true))?;
                // A document that is null has no paths; that is known.
                let mut no = yes.clone();
                no.negate();
                Ok(Truth { yes, no })
            }
            Predicate::Contains { list, items, all } => self.contains(list, items, *all, care),
            Predicate::Truth(Operand::Column(field, DataType::Bool)) => self.scan_bools(*field, true),
            Predicate::Truth(value) => self.test(value, Want::Scalar, care, |item| *item == Item::Bool(true)),
        }
    }

    fn all(&self, items: &[Predicate], care: Option<&Bitmap>) -> Result<Truth, FilterError> {
        let mut so_far = Truth::same(self.rows, Some(true));
        let mut open = care.cloned().unwrap_or_else(|| Bitmap::ones(self.rows));
        for item in self.indexed_first(items) {
            let next = self.truth(item, Some(&open))?;
            so_far.yes.and(&next.yes);
            so_far.no.or(&next.no);
            open.and_not(&next.no);
            if open.count_ones() == 0 {
                break;
            }
        }
        Ok(so_far)
    }

    fn any(&self, items: &[Predicate], care: Option<&Bitmap>) -> Result<Truth, FilterError> {
        let mut so_far = Truth::same(self.rows, Some(false));
        let mut open = care.cloned().unwrap_or_else(|| Bitmap::ones(self.rows));
        for item in self.indexed_first(items) {
            let next = self.truth(item, Some(&open))?;
            so_far.yes.or(&next.yes);
            so_far.no.and(&next.no);
            open.and_not(&next.yes);
            if open.count_ones() == 0 {
                break;
            }
        }
        Ok(so_far)
    }

    fn compare(
        &self,
        operator: Comparison,
        left: &Operand,
        right: &Operand,
        care: Option<&Bitmap>,
    ) -> Result<Truth, FilterError> {
        if let (Operand::Column(field, data_type), Operand::Constant(literal)) = (left, right)
            && let Some(truth) = self.scan(*field, *data_type, operator, literal)?
        {
            return Ok(truth);
        }
        match (left.number(), right.number()) {
            (Some(Number::Int), Some(Number::Int)) => self.by_block(|block| {
                let (left, right) = (self.ints(left, block.clone())?, self.ints(right, block)?);
                Ok(left.zip(&right, |left, right| operator.holds(Some(left.cmp(&right)))))
            }),
            (Some(Number::Int), Some(Number::Double)) => self.by_block(|block| {
                let (left, right) = (self.ints(left, block.clone())?, self.doubles(right, block)?);
                Ok(left.zip(&right, |left, right| operator.holds(compare_int_double(left, right))))
            }),
            (Some(Number::Double), Some(Number::Int)) => self.by_block(|block| {
                let (left, right) = (self.doubles(left, block.clone())?, self.ints(right, block)?);
                Ok(left.zip(&right, |left, right| {
                    operator.swapped().holds(compare_int_double(right, left))
                }))
            }),
            (Some(Number::Double), Some(Number::Double)) => self.by_block(|block| {
                let (left, right) = (self.doubles(left, block.clone())?, self.doubles(right, block)?);
                Ok(left.zip(&right, |left, right| operator.holds(compare_doubles(left, right))))
            }),
            _ => self.compare_items(operator, left, right, care),
        }
    }

    fn compare_items(
        &self,
        operator: Comparison,
        left: &Operand,
        right: &Operand,
        care: Option<&Bitmap>,
    ) -> Result<Truth, FilterError> {
        if let Operand::Constant(literal) = right {
            let constant = as_item(literal);
            let want = if matches!(constant, Item::List(_)) {
                Want::List
            } else {
                Want::Scalar
            };
            return self.test(left, want, care, |item| item.compare(operator, &constant));
        }
        self.by_block(|block| {
            let left = self.items(left, block.clone(), Want::Scalar, care)?;
            let right = self.items(right, block, Want::Scalar, care)?;
            let known = |left: &Item<'_>, right: &Item<'_>| *left != Item::Null && *right != Item::Null;
            let pairs = left.iter().zip(&right);
            Ok(pairs
                .map(|(left, right)| known(left, right).then(|| left.compare(operator, right)))
                .collect())
        })
    }

    fn is_in(&self, value: &Operand, set: &Set, care: Option<&Bitmap>) -> Result<Truth, FilterError> {
        if let Operand::Column(field, data_type) = value
            && let Some(truth) = self.scan_set(*field, *data_type, set)?
        {
            return Ok(truth);
        }
        if let (Some(Number::Int), Set::Ints(values)) = (value.number(), set) {
            return self.by_block(|block| {
                Ok(self
                    .ints(value, block)?
                    .map(|value| values.binary_search(&value).is_ok()))
            });
        }
        let want = if matches!(value, Operand::Json(_)) {
            Want::List
        } else {
            Want::Scalar
        };
        self.test(value, want, care, |item| set_contains(set, item))
    }

    fn is_null(&self, field: FieldId) -> Truth {
        let column = self.source.column(self.chunk, field);
        let words = match column {
            None => return Truth::same(self.rows, Some(true)),
            Some(Column { validity: None, .. }) => return Truth::same(self.rows, Some(false)),
            Some(Column {
                validity: Some(validity),
                ..
            }) => validity.words().to_vec(),
        };
        let no = Bitmap::from_words(words.into_iter().take(self.rows.div_ceil(64)).collect(), self.rows);
        let mut yes = no.clone();
        yes.negate();
        Truth { yes, no }
    }

    fn contains(
        &self,
        list: &ListOperand,
        wanted: &MixedSet,
        all: bool,
        care: Option<&Bitmap>,
    ) -> Result<Truth, FilterError> {
        let mut found = vec![false; if all { wanted.len() } else { 0 }];
        let mut holds = |mut items: Box<dyn Iterator<Item = Item<'_>> + '_>, count: usize| -> bool {
            if !all {
                return items.any(|item| wanted.position(&item).is_some());
            }
            if count < wanted.len() {
                return false;
            }
            found.fill(false);
            let mut missing = wanted.len();
            for item in items {
                if missing == 0 {
                    break;
                }
                if let Some(position) = wanted.position(&item)
                    && !std::mem::replace(&mut found[position], true)
                {
                    missing -= 1;
                }
            }
            missing == 0
        };
        let field = list.field();
        let data_type = if matches!(list, ListOperand::Array(..)) {
            DataType::Array
        } else {
            DataType::Json
        };
        let Some(column) = self.column(field, data_type)? else {
            return Ok(Truth::same(self.rows, None));
        };
        let mut out = TruthWriter::default();
        for row in 0..self.rows {
            let wanted_row = care.is_none_or(|care| care.contains(row)) && column.is_valid(row);
            out.push(match (&column.data, list) {
                _ if !wanted_row => None,
                (ColumnData::Array(values), _) => Some(holds(array_items(&values[row]), values[row].len())),
                (ColumnData::Json(documents), ListOperand::Json(path)) => {
                    Some(match extract(&documents[row], &path.steps, Want::List) {
                        Item::List(items) => {
                            let count = items.len();
                            holds(Box::new(items.into_iter()), count)
                        }
                        _ => false,
                    })
                }
                _ => return Err(FilterError::Column { field }),
            });
        }
        Ok(out.finish())
    }

    /// Tests the value of each row that is not null. An absent JSON value goes to the test too.
    fn test(
        &self,
        value: &Operand,
        want: Want,
        care: Option<&Bitmap>,
        test: impl Fn(&Item<'_>) -> bool,
    ) -> Result<Truth, FilterError> {
        self.by_block(|block| {
            let items = self.items(value, block, want, care)?;
            Ok(items
                .iter()
                .map(|item| (*item != Item::Null).then(|| test(item)))
                .collect())
        })
    }

    fn by_block(
        &self,
        answer: impl Fn(std::ops::Range<usize>) -> Result<Vec<Option<bool>>, FilterError>,
    ) -> Result<Truth, FilterError> {
        let mut out = TruthWriter::default();
        for start in (0..self.rows).step_by(BLOCK_ROWS) {
            for value in answer(start..self.rows.min(start + BLOCK_ROWS))? {
                out.push(value);
            }
        }
        Ok(out.finish())
    }

    /// A field's column; `None` if every row is null.
    fn column(&self, field: FieldId, data_type: DataType) -> Result<Option<&'a Column>, FilterError> {
        match self.source.column(self.chunk, field) {
            None => Ok(None),
            Some(column) if column.data.data_type() == data_type && column.rows() >= self.rows => Ok(Some(column)),
            Some(_) => Err(FilterError::Column { field }),
        }
    }
}

fn set_contains(set: &Set, item: &Item<'_>) -> bool {
    match (set, item) {
        (Set::Mixed(set), item) => set.position(item).is_some(),
        (Set::Ints(values), Item::Int(value)) => values.binary_search(value).is_ok(),
        (Set::Texts(values), Item::Text(value)) => values
            .binary_search_by(|text| text.as_str().cmp(value.as_ref()))
            .is_ok(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "items of a set of 32-bit floats are widened ones"
        )]
        (Set::Floats(values), Item::Double(value)) => values.binary_search(&(*value as f32 + 0.0).to_bits()).is_ok(),
        _ => false,
    }
}

impl Item<'_> {
    /// Whether two known values compare so. Values of different kinds, and absent ones, never do.
    fn compare(&self, operator: Comparison, other: &Item<'_>) -> bool {
        match (self, other) {
            (Item::Bool(left), Item::Bool(right)) => operator.holds(Some(left.cmp(right))),
            (Item::Text(left), Item::Text(right)) => operator.holds(Some(left.cmp(right))),
            (Item::Int(left), Item::Int(right)) => operator.holds(Some(left.cmp(right))),
            (Item::Double(left), Item::Double(right)) => operator.holds(compare_doubles(*left, *right)),
            (Item::Int(left), Item::Double(right)) => operator.holds(compare_int_double(*left, *right)),
            (Item::Double(left), Item::Int(right)) => operator.swapped().holds(compare_int_double(*right, *left)),
            (Item::List(left), Item::List(right)) => {
                operator == Comparison::Equal
                    && left.len() == right.len()
                    && left
                        .iter()
                        .zip(right)
                        .all(|(left, right)| left.compare(operator, right))
            }
            _ => false,
        }
    }
}

impl Operand {
    /// What the value is known to be, whatever the row; `None` if it is no number or known per row only.
    fn number(&self) -> Option<Number> {
        let of = |data_type: &DataType| match data_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Number::Int),
            DataType::Float | DataType::Double => Some(Number::Double),
            DataType::Bool
            | DataType::VarChar
            | DataType::Json
            | DataType::Array
            | DataType::FloatVector
            | DataType::Float16Vector
            | DataType::BFloat16Vector
            | DataType::Int8Vector
            | DataType::BinaryVector
            | DataType::SparseFloatVector => None,
        };
        match self {
            Self::Constant(Literal::Int(_)) | Self::Length(ListOperand::Array(..)) => Some(Number::Int),
            Self::Constant(Literal::Double(_)) => Some(Number::Double),
            Self::Column(_, data_type) | Self::Element { element: data_type, .. } => of(data_type),
            Self::Arithmetic {
                number: Number::Json, ..
            }
            | Self::Constant(_)
            | Self::Json(_)
            | Self::Length(ListOperand::Json(_)) => None,
            Self::Arithmetic { number, .. } => Some(*number),
        }
    }
}
