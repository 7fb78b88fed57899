//! Decoded columns that are overwritten with zeros when they are dropped.

use std::ops::Deref;

use saker_model::{ArrayValue, Column, ColumnData};
use zeroize::Zeroize;

/// A column of customer plaintext. Reads like a [`Column`]; its values are wiped on drop.
pub struct WipedColumn(Column);

impl WipedColumn {
    /// Takes a column over. Moving it here makes no copy of the values.
    #[must_use]
    pub fn new(column: Column) -> Self {
        Self(column)
    }

    /// Gives the column out; the new owner answers for its values.
    pub(crate) fn into_inner(mut self) -> Column {
        let (field, validity) = (self.0.field, self.0.validity.take());
        let data = std::mem::replace(&mut self.0.data, ColumnData::Bool(Vec::new()));
        Column { field, data, validity }
    }
}

impl From<Column> for WipedColumn {
    fn from(column: Column) -> Self {
        Self(column)
    }
}

impl Deref for WipedColumn {
    type Target = Column;
    fn deref(&self) -> &Column {
        &self.0
    }
}

impl std::fmt::Debug for WipedColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WipedColumn")
            .field("field", &self.0.field)
            .field("rows", &self.0.rows())
            .finish_non_exhaustive()
    }
}

impl Drop for WipedColumn {
    fn drop(&mut self) {
        wipe(&mut self.0.data);
    }
}

/// Overwrites all values with zeros and leaves no rows.
pub(crate) fn wipe(data: &mut ColumnData) {
    match data {
        ColumnData::Bool(values) => values.zeroize(),
        ColumnData::Int8(values) => values.zeroize(),
        ColumnData::Int16(values) => values.zeroize(),
        ColumnData::Int32(values) => values.zeroize(),
        ColumnData::Int64(values) => values.zeroize(),
        ColumnData::Float(values) | ColumnData::FloatVector { data: values, .. } => values.zeroize(),
        ColumnData::Double(values) => values.zeroize(),
        ColumnData::VarChar(values) => values.zeroize(),
        ColumnData::Json(values) => values.zeroize(),
        ColumnData::Array(values) => {
            values.iter_mut().for_each(wipe_array);
            values.clear();
        }
        ColumnData::Float16Vector { data, .. } | ColumnData::BFloat16Vector { data, .. } => data.zeroize(),
        ColumnData::Int8Vector { data, .. } => data.zeroize(),
        ColumnData::BinaryVector { data, .. } => data.zeroize(),
        ColumnData::SparseFloatVector { data } => {
            data.iter_mut().for_each(|vector| vector.pairs_mut().zeroize());
            data.clear();
        }
    }
}

fn wipe_array(value: &mut ArrayValue) {
    match value {
        ArrayValue::Bool(values) => values.zeroize(),
        ArrayValue::Int32(values) => values.zeroize(),
        ArrayValue::Int64(values) => values.zeroize(),
        ArrayValue::Float(values) => values.zeroize(),
        ArrayValue::Double(values) => values.zeroize(),
        ArrayValue::Text(values) => values.zeroize(),
    }
}
