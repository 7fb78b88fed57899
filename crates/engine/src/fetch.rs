//! The values of output fields, for rows spread over segments.

use saker_model::{CollectionSchema, Column, ColumnData, FieldId};
use saker_query::{DynamicKeys, OutputFields};

use crate::{
    error::{Error, ErrorKind, Result},
    opened::Pinned,
    types::OutputColumn,
};

/// Where a row is: index of its segment among those pinned, and its number in it.
pub(crate) type Place = (usize, usize);

/// Resolves names of output fields.
///
/// # Errors
/// [`ErrorKind::FieldNotFound`], [`ErrorKind::InvalidParameter`].
pub(crate) fn resolve(names: &[String], schema: &CollectionSchema) -> Result<OutputFields> {
    OutputFields::resolve(names, schema).map_err(|error| match error {
        saker_query::OutputError::FieldNotFound { .. } => Error::new(ErrorKind::FieldNotFound, error.to_string()),
        saker_query::OutputError::CountNotAlone
        | saker_query::OutputError::TooMany { .. }
        | saker_query::OutputError::NotShown { .. }
        | saker_query::OutputError::Document => Error::invalid(error.to_string()),
    })
}

/// The output columns, values in the order of `places`.
///
/// # Errors
/// If the rows do not have the fields: a bug.
pub(crate) fn fetch(
    pinned: &[Pinned],
    places: &[Place],
    output: &OutputFields,
    schema: &CollectionSchema,
) -> Result<Vec<OutputColumn>> {
    let mut fields: Vec<FieldId> = output.fields().to_vec();
    let dynamic = schema.dynamic().filter(|_| *output.dynamic() != DynamicKeys::None);
    fields.extend(dynamic.map(|field| field.id));
    if fields.is_empty() {
        return Ok(Vec::new());
    }
    let columns = take(pinned, places, &fields, schema)?;
    let mut named = Vec::with_capacity(columns.len());
    for mut column in columns {
        let field = schema
            .field_by_id(column.field)
            .ok_or_else(|| Error::internal("an output field without schema"))?;
        if field.is_dynamic {
            project(&mut column, output.dynamic())?;
        }
        named.push(OutputColumn {
            name: field.name.clone(),
            column,
            is_dynamic: field.is_dynamic,
        });
    }
    Ok(named)
}

fn take(pinned: &[Pinned], places: &[Place], fields: &[FieldId], schema: &CollectionSchema) -> Result<Vec<Column>> {
    // Rows by segment, and where each of them belongs in the answer.
    let mut rows: Vec<(Vec<usize>, Vec<usize>)> = vec![(Vec::new(), Vec::new()); pinned.len()];
    for (position, &(segment, row)) in places.iter().enumerate() {
        let (rows, positions) = rows
            .get_mut(segment)
            .ok_or_else(|| Error::internal("a row of no segment"))?;
        rows.push(row);
        positions.push(position);
    }
    let mut joined: Option<Vec<Column>> = None;
    let mut order = vec![0; places.len()];
    let mut at = 0;
    for (pin, (rows, positions)) in pinned.iter().zip(&rows).filter(|(_, (rows, _))| !rows.is_empty()) {
        let columns = pin.view.take(fields, rows)?;
        for &position in positions {
            order[position] = at;
            at += 1;
        }
        match &mut joined {
            None => joined = Some(columns),
            Some(joined) => {
                for (column, more) in joined.iter_mut().zip(columns) {
                    column
                        .append(more)
                        .map_err(|error| Error::internal(error.to_string()))?;
                }
            }
        }
    }
    let empty = |field: &FieldId| {
        let field = schema
            .field_by_id(*field)
            .ok_or_else(|| Error::internal("an output field without schema"))?;
        Ok(Column::full(field.id, ColumnData::empty(field.data_type, field.dim)))
    };
    match joined {
        None => fields.iter().map(empty).collect(),
        Some(columns) if order.is_sorted() => Ok(columns),
        Some(columns) => Ok(columns.iter().map(|column| column.take(&order)).collect()),
    }
}

fn project(column: &mut Column, keys: &DynamicKeys) -> Result<()> {
    if let ColumnData::Json(documents) = &mut column.data {
        for document in documents {
            if let Some(part) = keys
                .project(document)
                .map_err(|error| Error::internal(error.to_string()))?
            {
                *document = part;
            }
        }
    }
    Ok(())
}
