//! A scalar column against constants: one typed loop, 64 rows to a word.

use std::cmp::Ordering;

use saker_model::{Bitmap, Column, ColumnData, DataType, FieldId};

use crate::ast::Comparison;
use crate::number::{compare_doubles, compare_int_double, whole};
use crate::plan::Set;
use crate::{FilterError, Literal};

use super::{Chunk, Truth};

impl Chunk<'_> {
    /// Compares a column with a constant; `None` if the column is not one that this handles.
    pub(super) fn scan(
        &self,
        field: FieldId,
        data_type: DataType,
        operator: Comparison,
        literal: &Literal,
    ) -> Result<Option<Truth>, FilterError> {
        Ok(Some(match (data_type, literal) {
            (DataType::Bool, Literal::Bool(wanted)) => self.scan_bools(field, *wanted)?,
            (DataType::VarChar, Literal::Text(wanted)) => {
                self.scan_texts(field, |text| operator.holds(Some(text.cmp(wanted.as_str()))))?
            }
            (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64, literal) => {
                match int_test(operator, literal) {
                    Some(IntTest::Compare(operator, wanted)) => self.scan_ints(field, data_type, operator, wanted)?,
                    Some(IntTest::Fixed(value)) => self.ints_that(field, data_type, |_| value)?,
                    None => return Ok(None),
                }
            }
            (DataType::Float | DataType::Double, Literal::Double(wanted)) => {
                self.doubles_that(field, data_type, |value| {
                    operator.holds(compare_doubles(value, *wanted))
                })?
            }
            (DataType::Float | DataType::Double, Literal::Int(wanted)) => {
                self.doubles_that(field, data_type, |value| {
                    operator.holds(compare_int_double(*wanted, value).map(Ordering::reverse))
                })?
            }
            _ => return Ok(None),
        }))
    }

    /// Looks a column's values up in a set; `None` if the two are not of the same type.
    pub(super) fn scan_set(
        &self,
        field: FieldId,
        data_type: DataType,
        set: &Set,
    ) -> Result<Option<Truth>, FilterError> {
        Ok(Some(match (data_type, set) {
            (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64, Set::Ints(values)) => {
                let (low, high) = (values.first().copied(), values.last().copied());
                let (Some(low), Some(high)) = (low, high) else {
                    return self.ints_that(field, data_type, |_| false).map(Some);
                };
                self.ints_that(field, data_type, |value| {
                    (low..=high).contains(&value) && values.binary_search(&value).is_ok()
                })?
            }
            (DataType::VarChar, Set::Texts(values)) => self.scan_texts(field, |text| {
                values.binary_search_by(|value| value.as_str().cmp(text)).is_ok()
            })?,
            (DataType::Float, Set::Floats(values)) =>
            {
                #[expect(clippy::cast_possible_truncation, reason = "the value was a 32-bit float before")]
                self.doubles_that(field, data_type, |value| {
                    values.binary_search(&(value as f32 + 0.0).to_bits()).is_ok()
                })?
            }
            _ => return Ok(None),
        }))
    }

    pub(super) fn scan_bools(&self, field: FieldId, wanted: bool) -> Result<Truth, FilterError> {
        self.with_column(field, DataType::Bool, |column| match &column.data {
            ColumnData::Bool(values) => Some(self.words(values, column, |value| *value == wanted)),
            _ => None,
        })
    }

    pub(super) fn scan_texts(&self, field: FieldId, test: impl Fn(&str) -> bool) -> Result<Truth, FilterError> {
        self.with_column(field, DataType::VarChar, |column| match &column.data {
            ColumnData::VarChar(values) => Some(self.words(values, column, |value| test(value))),
            _ => None,
        })
    }

    /// The operator is matched outside the loop, so that each loop is one comparison.
    fn scan_ints(
        &self,
        field: FieldId,
        data_type: DataType,
        operator: Comparison,
        wanted: i64,
    ) -> Result<Truth, FilterError> {
        match operator {
            Comparison::Equal => self.ints_that(field, data_type, |value| value == wanted),
            Comparison::NotEqual => self.ints_that(field, data_type, |value| value != wanted),
            Comparison::Less => self.ints_that(field, data_type, |value| value < wanted),
            Comparison::LessOrEqual => self.ints_that(field, data_type, |value| value <= wanted),
            Comparison::Greater => self.ints_that(field, data_type, |value| value > wanted),
            Comparison::GreaterOrEqual => self.ints_that(field, data_type, |value| value >= wanted),
        }
    }

    fn ints_that(&self, field: FieldId, data_type: DataType, test: impl Fn(i64) -> bool) -> Result<Truth, FilterError> {
        self.with_column(field, data_type, |column| {
            Some(match &column.data {
                ColumnData::Int8(values) => self.words(values, column, |value| test(i64::from(*value))),
                ColumnData::Int16(values) => self.words(values, column, |value| test(i64::from(*value))),
                ColumnData::Int32(values) => self.words(values, column, |value| test(i64::from(*value))),
                ColumnData::Int64(values) => self.words(values, column, |value| test(*value)),
                _ => return None,
            })
        })
    }

    fn doubles_that(
        &self,
        field: FieldId,
        data_type: DataType,
        test: impl Fn(f64) -> bool,
    ) -> Result<Truth, FilterError> {
        self.with_column(field, data_type, |column| {
            Some(match &column.data {
                ColumnData::Float(values) => self.words(values, column, |value| test(f64::from(*value))),
                ColumnData::Double(values) => self.words(values, column, |value| test(*value)),
                _ => return None,
            })
        })
    }

    fn with_column(
        &self,
        field: FieldId,
        data_type: DataType,
        answer: impl FnOnce(&Column) -> Option<Truth>,
    ) -> Result<Truth, FilterError> {
        match self.column(field, data_type)? {
            None => Ok(Truth::same(self.rows, None)),
            Some(column) => answer(column).ok_or(FilterError::Column { field }),
        }
    }

    fn words<T>(&self, values: &[T], column: &Column, test: impl Fn(&T) -> bool) -> Truth {
        let mut yes = Vec::with_capacity(self.rows.div_ceil(64));
        for block in values[..self.rows].chunks(64) {
            let mut word = 0u64;
            for (bit, value) in block.iter().enumerate() {
                word |= u64::from(test(value)) << bit;
            }
            yes.push(word);
        }
        let mut yes = Bitmap::from_words(yes, self.rows);
        let mut no = yes.clone();
        no.negate();
        if let Some(validity) = &column.validity {
            yes.and(validity);
            no.and(validity);
        }
        Truth { yes, no }
    }
}

/// What a comparison of an integer with a constant comes down to.
enum IntTest {
    Compare(Comparison, i64),
    /// The same for every integer.
    Fixed(bool),
}

/// Turns a float constant into the integer at which the comparison changes.
fn int_test(operator: Comparison, literal: &Literal) -> Option<IntTest> {
    let wanted = match literal {
        Literal::Int(wanted) => return Some(IntTest::Compare(operator, *wanted)),
        Literal::Double(wanted) => *wanted,
        Literal::Bool(_) | Literal::Text(_) | Literal::Ints(_) | Literal::List(_) => return None,
    };
    if let Some(wanted) = whole(wanted) {
        return Some(IntTest::Compare(operator, wanted));
    }
    let (floor, above) = (
        whole(wanted.floor()),
        compare_int_double(i64::MAX, wanted) == Some(Ordering::Less),
    );
    Some(match operator {
        Comparison::Equal => IntTest::Fixed(false),
        Comparison::NotEqual => IntTest::Fixed(true),
        // Between two integers, `<` and `<=` mean up to the lower one.
        Comparison::Less | Comparison::LessOrEqual => match floor {
            Some(floor) => IntTest::Compare(Comparison::LessOrEqual, floor),
            None => IntTest::Fixed(above),
        },
        Comparison::Greater | Comparison::GreaterOrEqual => match floor {
            Some(floor) => IntTest::Compare(Comparison::Greater, floor),
            None => IntTest::Fixed(!above && !wanted.is_nan()),
        },
    })
}
