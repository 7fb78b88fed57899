//! The values of a block of rows, as integers, floats or items of any kind.

use std::ops::Range;

use saker_model::{ArrayValue, Bitmap, Column, ColumnData, DataType, FieldId};

use crate::ast::Arithmetic;
use crate::json::{Item, Want, extract};
use crate::mixed_set::as_item;
use crate::number::{double_arithmetic, int_arithmetic};
use crate::plan::{ListOperand, Number, Operand};
use crate::{FilterError, Literal};

use super::Chunk;

/// Rows computed at a time: enough to make loops long, little enough to stay in the first cache.
pub(super) const BLOCK_ROWS: usize = 1_024;

/// Numbers of a block, `None` where unknown.
pub(super) struct Lane<T>(Vec<Option<T>>);

impl<T: Copy> Lane<T> {
    pub(super) fn map<R>(&self, answer: impl Fn(T) -> R) -> Vec<Option<R>> {
        self.0.iter().map(|value| value.map(&answer)).collect()
    }
    pub(super) fn zip<U: Copy, R>(&self, other: &Lane<U>, answer: impl Fn(T, U) -> R) -> Vec<Option<R>> {
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .map(|(left, right)| left.zip(*right).map(|(left, right)| answer(left, right)))
            .collect()
    }
    fn combine<U: Copy, R>(&self, other: &Lane<U>, answer: impl Fn(T, U) -> Option<R>) -> Lane<R> {
        Lane(self.zip(other, answer).into_iter().map(Option::flatten).collect())
    }
}

impl<'a> Chunk<'a> {
    /// The values of an operand whose [`Operand::number`] is integer.
    pub(super) fn ints(&self, operand: &Operand, block: Range<usize>) -> Result<Lane<i64>, FilterError> {
        let rows = block.len();
        match operand {
            Operand::Constant(Literal::Int(value)) => Ok(Lane(vec![Some(*value); rows])),
            Operand::Arithmetic {
                operator, left, right, ..
            } => {
                let (left, right) = (self.ints(left, block.clone())?, self.ints(right, block)?);
                Ok(left.combine(&right, |left, right| int_arithmetic(*operator, left, right)))
            }
            Operand::Column(field, data_type) => {
                let Some(column) = self.column(*field, *data_type)? else {
                    return Ok(Lane(vec![None; rows]));
                };
                Ok(match &column.data {
                    ColumnData::Int8(values) => lane(column, values, block, |value| i64::from(*value)),
                    ColumnData::Int16(values) => lane(column, values, block, |value| i64::from(*value)),
                    ColumnData::Int32(values) => lane(column, values, block, |value| i64::from(*value)),
                    ColumnData::Int64(values) => lane(column, values, block, |value| *value),
                    _ => return Err(FilterError::Column { field: *field }),
                })
            }
            other => {
                let items = self.items(other, block, Want::Scalar, None)?;
                let int = |item| if let Item::Int(value) = item { Some(value) } else { None };
                Ok(Lane(items.into_iter().map(int).collect()))
            }
        }
    }

    /// The values of an operand whose [`Operand::number`] is integer or float, as floats.
    pub(super) fn doubles(&self, operand: &Operand, block: Range<usize>) -> Result<Lane<f64>, FilterError> {
        let rows = block.len();
        match operand {
            Operand::Constant(Literal::Double(value)) => Ok(Lane(vec![Some(*value); rows])),
            Operand::Arithmetic {
                operator,
                number: Number::Double,
                left,
                right,
            } => {
                let (left, right) = (self.doubles(left, block.clone())?, self.doubles(right, block)?);
                Ok(left.combine(&right, |left, right| double_arithmetic(*operator, left, right)))
            }
            Operand::Column(field, data_type @ (DataType::Float | DataType::Double)) => {
                let Some(column) = self.column(*field, *data_type)? else {
                    return Ok(Lane(vec![None; rows]));
                };
                Ok(match &column.data {
                    ColumnData::Float(values) => lane(column, values, block, |value| f64::from(*value)),
                    ColumnData::Double(values) => lane(column, values, block, |value| *value),
                    _ => return Err(FilterError::Column { field: *field }),
                })
            }
            Operand::Element {
                element: DataType::Float | DataType::Double,
                ..
            } => {
                let items = self.items(operand, block, Want::Scalar, None)?;
                let double = |item| {
                    if let Item::Double(value) = item {
                        Some(value)
                    } else {
                        None
                    }
                };
                Ok(Lane(items.into_iter().map(double).collect()))
            }
            ints => Ok(Lane(self.ints(ints, block)?.map(as_double))),
        }
    }

    /// The values of any operand. Rows not in `care` may be left [`Item::Null`].
    pub(super) fn items<'r>(
        &self,
        operand: &'r Operand,
        block: Range<usize>,
        want: Want,
        care: Option<&Bitmap>,
    ) -> Result<Vec<Item<'r>>, FilterError>
    where
        'a: 'r,
    {
        let nulls = vec![Item::Null; block.len()];
        match operand {
            Operand::Constant(literal) => Ok(vec![as_item(literal); block.len()]),
            Operand::Column(field, data_type) => match self.column(*field, *data_type)? {
                None => Ok(nulls),
                Some(column) => self.column_items(column, block),
            },
            Operand::Json(path) => self.json_items(path.field, &path.steps, block, want, care),
            Operand::Length(ListOperand::Json(path)) => {
                self.json_items(path.field, &path.steps, block, Want::Length, care)
            }
            Operand::Length(ListOperand::Array(field)) => self.array_items(*field, block, |value| {
                i64::try_from(value.len()).map_or(Item::Null, Item::Int)
            }),
            Operand::Element { field, index, .. } => self.array_items(*field, block, |value| {
                array_items(value).nth(*index).unwrap_or(Item::Null)
            }),
            Operand::Arithmetic {
                number: Number::Int, ..
            } => Ok(self
                .ints(operand, block)?
                .0
                .into_iter()
                .map(|value| value.map_or(Item::Null, Item::Int))
                .collect()),
            Operand::Arithmetic {
                number: Number::Double, ..
            } => {
                let values = self.doubles(operand, block)?.0;
                Ok(values
                    .into_iter()
                    .map(|value| value.map_or(Item::Null, Item::Double))
                    .collect())
            }
            Operand::Arithmetic {
                operator,
                number: Number::Json,
                left,
                right,
            } => {
                let left = self.items(left, block.clone(), Want::Scalar, care)?;
                let right = self.items(right, block, Want::Scalar, care)?;
                Ok(left
                    .into_iter()
                    .zip(right)
                    .map(|(left, right)| item_arithmetic(*operator, &left, &right))
                    .collect())
            }
        }
    }

    fn column_items<'r>(&self, column: &'a Column, block: Range<usize>) -> Result<Vec<Item<'r>>, FilterError>
    where
        'a: 'r,
    {
        fn pick<'r, T>(
            column: &Column,
            values: &'r [T],
            block: Range<usize>,
            item: impl Fn(&'r T) -> Item<'r>,
        ) -> Vec<Item<'r>> {
            block
                .map(|row| {
                    if column.is_valid(row) {
                        item(&values[row])
                    } else {
                        Item::Null
                    }
                })
                .collect()
        }
        Ok(match &column.data {
            ColumnData::Bool(values) => pick(column, values, block, |value| Item::Bool(*value)),
            ColumnData::Int8(values) => pick(column, values, block, |value| Item::Int(i64::from(*value))),
            ColumnData::Int16(values) => pick(column, values, block, |value| Item::Int(i64::from(*value))),
            ColumnData::Int32(values) => pick(column, values, block, |value| Item::Int(i64::from(*value))),
            ColumnData::Int64(values) => pick(column, values, block, |value| Item::Int(*value)),
            ColumnData::Float(values) => pick(column, values, block, |value| Item::Double(f64::from(*value))),
            ColumnData::Double(values) => pick(column, values, block, |value| Item::Double(*value)),
            ColumnData::VarChar(values) => pick(column, values, block, |value| Item::Text(value.as_str().into())),
            ColumnData::Array(values) => pick(column, values, block, |value| Item::List(array_items(value).collect())),
            ColumnData::Json(_)
            | ColumnData::FloatVector { .. }
            | ColumnData::Float16Vector { .. }
            | ColumnData::BFloat16Vector { .. }
            | ColumnData::Int8Vector { .. }
            | ColumnData::BinaryVector { .. }
            | ColumnData::SparseFloatVector { .. } => {
                return Err(FilterError::Column { field: column.field });
            }
        })
    }

    fn json_items<'r>(
        &self,
        field: FieldId,
        steps: &[crate::ast::Step],
        block: Range<usize>,
        want: Want,
        care: Option<&Bitmap>,
    ) -> Result<Vec<Item<'r>>, FilterError>
    where
        'a: 'r,
    {
        let Some(column) = self.column(field, DataType::Json)? else {
            return Ok(vec![Item::Null; block.len()]);
        };
        let ColumnData::Json(documents) = &column.data else {
            return Err(FilterError::Column { field });
        };
        Ok(block
            .map(|row| {
                let wanted = care.is_none_or(|care| care.contains(row)) && column.is_valid(row);
                if wanted {
                    extract(&documents[row], steps, want)
                } else {
                    Item::Null
                }
            })
            .collect())
    }

    fn array_items<'r>(
        &self,
        field: FieldId,
        block: Range<usize>,
        item: impl Fn(&'r ArrayValue) -> Item<'r>,
    ) -> Result<Vec<Item<'r>>, FilterError>
    where
        'a: 'r,
    {
        let Some(column) = self.column(field, DataType::Array)? else {
            return Ok(vec![Item::Null; block.len()]);
        };
        let ColumnData::Array(values) = &column.data else {
            return Err(FilterError::Column { field });
        };
        Ok(block
            .map(|row| {
                if column.is_valid(row) {
                    item(&values[row])
                } else {
                    Item::Null
                }
            })
            .collect())
    }
}

/// The elements of an array.
pub(crate) fn array_items(value: &ArrayValue) -> Box<dyn Iterator<Item = Item<'_>> + '_> {
    match value {
        ArrayValue::Bool(values) => Box::new(values.iter().map(|value| Item::Bool(*value))),
        ArrayValue::Int32(values) => Box::new(values.iter().map(|value| Item::Int(i64::from(*value)))),
        ArrayValue::Int64(values) => Box::new(values.iter().map(|value| Item::Int(*value))),
        ArrayValue::Float(values) => Box::new(values.iter().map(|value| Item::Double(f64::from(*value)))),
        ArrayValue::Double(values) => Box::new(values.iter().map(|value| Item::Double(*value))),
        ArrayValue::Text(values) => Box::new(values.iter().map(|value| Item::Text(value.as_str().into()))),
    }
}

fn lane<T, R>(column: &Column, values: &[T], block: Range<usize>, number: impl Fn(&T) -> R) -> Lane<R> {
    Lane(
        block
            .map(|row| column.is_valid(row).then(|| number(&values[row])))
            .collect(),
    )
}

fn item_arithmetic(operator: Arithmetic, left: &Item<'_>, right: &Item<'_>) -> Item<'static> {
    let double = |item: &Item<'_>| match item {
        Item::Int(value) => Some(as_double(*value)),
        Item::Double(value) => Some(*value),
        _ => None,
    };
    match (left, right) {
        (Item::Null, _) | (_, Item::Null) => Item::Null,
        (Item::Int(left), Item::Int(right)) if operator != Arithmetic::Power || *right >= 0 => {
            int_arithmetic(operator, *left, *right).map_or(Item::Null, Item::Int)
        }
        _ => match (double(left), double(right)) {
            (Some(left), Some(right)) => double_arithmetic(operator, left, right).map_or(Item::Null, Item::Double),
            _ => Item::Absent,
        },
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "arithmetic with a float is float arithmetic, as in SQL"
)]
const fn as_double(value: i64) -> f64 {
    value as f64
}
