//! Which schemas a collection may have. Messages follow Milvus's, as its clients match on them.

use std::collections::BTreeSet;

use crate::{CollectionSchema, DataType, FieldSchema, Limits, Scalar, SchemaError};

impl CollectionSchema {
    /// Checks names, types, parameters, and that there is one primary key and a vector field. Whatever is stored or
    /// searched has a schema that passed this.
    ///
    /// # Errors
    /// [`SchemaError`] for the first rule that is broken.
    pub fn validate(&self) -> Result<(), SchemaError> {
        Self::check_name("collection", &self.name)?;
        let fields = self.fields.iter().filter(|field| !field.is_dynamic).count();
        if fields > Limits::FIELDS_MAX {
            return invalid(format!(
                "maximum field's number should be limited to {}",
                Limits::FIELDS_MAX
            ));
        }
        let vectors = self.vectors().count();
        if vectors > Limits::VECTOR_FIELDS_MAX {
            let limit = Limits::VECTOR_FIELDS_MAX;
            return invalid(format!("maximum vector field's number should be limited to {limit}"));
        }
        if vectors == 0 {
            return invalid("schema does not contain vector field");
        }
        self.check_unique()?;
        self.check_primary()?;
        self.check_partition_key()?;
        self.check_dynamic()?;
        self.fields.iter().try_for_each(|field| self.check_field(field))?;
        self.check_functions()
    }

    fn check_unique(&self) -> Result<(), SchemaError> {
        let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for field in &self.fields {
            if !names.insert(&field.name) {
                return invalid(format!("duplicated field name {} found", cut(&field.name)));
            }
            if !ids.insert(field.id) {
                return invalid(format!("duplicate field ids: {}", field.id));
            }
        }
        Ok(())
    }

    fn check_primary(&self) -> Result<(), SchemaError> {
        let mut keys = self.fields.iter().filter(|field| field.is_primary);
        let Some(key) = keys.next() else {
            return invalid("primary key is not specified");
        };
        if let Some(other) = keys.next() {
            let (first, second) = (cut(&key.name), cut(&other.name));
            return invalid(format!(
                "there are more than one primary key, field name = {first}, {second}"
            ));
        }
        if !matches!(key.data_type, DataType::Int64 | DataType::VarChar) {
            return invalid("the data type of primary key should be Int64 or VarChar");
        }
        if key.nullable {
            return invalid("primary field not support null");
        }
        if key.default_value.is_some() {
            return invalid("primary field not support default_value");
        }
        match self.fields.iter().find(|field| field.auto_id && !field.is_primary) {
            Some(field) => invalid(format!(
                "only primary field can speficy AutoID with true, field name = {}",
                cut(&field.name)
            )),
            None => Ok(()),
        }
    }

    fn check_partition_key(&self) -> Result<(), SchemaError> {
        let mut keys = self.fields.iter().filter(|field| field.is_partition_key);
        let Some(key) = keys.next() else {
            return Ok(());
        };
        if let Some(other) = keys.next() {
            let (first, second) = (cut(&key.name), cut(&other.name));
            return invalid(format!(
                "there are more than one partition key, field name = {first}, {second}"
            ));
        }
        if key.is_primary {
            return invalid("the partition key field must not be primary field");
        }
        if !matches!(key.data_type, DataType::Int64 | DataType::VarChar) {
            return invalid("the data type of partition key should be Int64 or VarChar");
        }
        if key.nullable {
            return invalid(format!(
                "partition key field not support nullable: name = {}",
                cut(&key.name)
            ));
        }
        Ok(())
    }

    fn check_dynamic(&self) -> Result<(), SchemaError> {
        let dynamic: Vec<_> = self.fields.iter().filter(|field| field.is_dynamic).collect();
        match dynamic.as_slice() {
            [] if !self.enable_dynamic_field => Ok(()),
            [field] if self.enable_dynamic_field => {
                if field.name != Self::DYNAMIC_FIELD_NAME || field.data_type != DataType::Json {
                    return invalid("cannot explicitly set a field as a dynamic field");
                }
                Ok(())
            }
            _ => invalid("a dynamic field must be there exactly if enable_dynamic_field is set"),
        }
    }

    fn check_field(&self, field: &FieldSchema) -> Result<(), SchemaError> {
        if !field.is_dynamic {
            Self::check_name("field", &field.name)?;
        }
        let name = cut(&field.name);
        if field.data_type.is_vector() {
            check_dimension(field)?;
            if field.nullable {
                return invalid(format!("vector type not support null, field name = {name}"));
            }
        }
        let holds_text =
            field.data_type == DataType::VarChar || field.element_type == Some(DataType::VarChar) && is_array(field);
        if holds_text {
            if field.max_length == 0 {
                let collection = &self.name;
                return invalid(format!(
                    "type param(max_length) should be specified for varChar field({name}) of collection {collection}"
                ));
            }
            if field.max_length > Limits::VARCHAR_BYTES_MAX {
                let (limit, length) = (Limits::VARCHAR_BYTES_MAX, field.max_length);
                return invalid(format!(
                    "the maximum length specified for a VarChar field({name}) should be in (0, {limit}], but got {length} instead"
                ));
            }
        }
        if is_array(field) {
            check_array(field, &self.name)?;
        }
        check_default(field)
    }
}

fn check_dimension(field: &FieldSchema) -> Result<(), SchemaError> {
    let (name, dim) = (cut(&field.name), field.dim);
    if field.data_type == DataType::SparseFloatVector {
        if dim == 0 {
            return Ok(());
        }
        return invalid(format!(
            "dim should not be specified for sparse vector field {name}({})",
            field.id
        ));
    }
    let binary = field.data_type == DataType::BinaryVector;
    let (kind, limit) = if binary {
        ("binary", Limits::BINARY_DIMENSION_MAX)
    } else {
        ("float", Limits::DIMENSION_MAX)
    };
    if dim == 0 {
        return invalid(format!(
            "dimension is not defined in field type params of field {name}, check type param `dim` for vector field"
        ));
    }
    if dim > limit {
        return invalid(format!(
            "invalid dimension: {dim} of field {name}. {kind} vector dimension should be in range 1 ~ {limit}"
        ));
    }
    if binary && !dim.is_multiple_of(8) {
        return invalid(format!(
            "invalid dimension: {dim} of field {name}. binary vector dimension should be multiple of 8. "
        ));
    }
    Ok(())
}

fn check_array(field: &FieldSchema, collection: &str) -> Result<(), SchemaError> {
    let name = cut(&field.name);
    match field.element_type {
        None => return invalid(format!("element data type None is not valid, field name = {name}")),
        Some(
            DataType::Array
            | DataType::Json
            | DataType::FloatVector
            | DataType::Float16Vector
            | DataType::BFloat16Vector
            | DataType::Int8Vector
            | DataType::BinaryVector
            | DataType::SparseFloatVector,
        ) => {
            let element = field.element_type.map_or("None", DataType::name);
            return invalid(format!("element type {element} is not supported"));
        }
        Some(
            DataType::Bool
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float
            | DataType::Double
            | DataType::VarChar,
        ) => {}
    }
    if field.max_capacity == 0 {
        return invalid(format!(
            "type param(max_capacity) should be specified for array field {name} of collection {collection}"
        ));
    }
    if field.max_capacity > Limits::ARRAY_CAPACITY_MAX {
        let limit = Limits::ARRAY_CAPACITY_MAX;
        return invalid(format!(
            "the maximum capacity specified for a Array should be in (0, {limit}]"
        ));
    }
    Ok(())
}

fn check_default(field: &FieldSchema) -> Result<(), SchemaError> {
    let Some(value) = &field.default_value else {
        return Ok(());
    };
    let (name, data_type) = (cut(&field.name), field.data_type.name());
    let range = match field.data_type {
        DataType::Int8 => Some((i64::from(i8::MIN), i64::from(i8::MAX))),
        DataType::Int16 => Some((i64::from(i16::MIN), i64::from(i16::MAX))),
        DataType::Int32 => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
        DataType::Int64 => Some((i64::MIN, i64::MAX)),
        DataType::Json
        | DataType::Array
        | DataType::FloatVector
        | DataType::Float16Vector
        | DataType::BFloat16Vector
        | DataType::Int8Vector
        | DataType::BinaryVector
        | DataType::SparseFloatVector => {
            return invalid(format!("type not support default_value, type:{data_type}, name:{name}"));
        }
        DataType::Bool | DataType::Float | DataType::Double | DataType::VarChar => None,
    };
    match (field.data_type, value, range) {
        (DataType::Bool, Scalar::Bool(_), _) => Ok(()),
        (_, Scalar::Int(value), Some((low, high))) => {
            if (low..=high).contains(value) {
                Ok(())
            } else {
                invalid(format!(
                    "default_value of field {name} is out of range: [{low}, {high}]"
                ))
            }
        }
        (DataType::Float | DataType::Double, Scalar::Double(value), _) => {
            // A 64-bit value past the 32-bit range would become an infinity.
            let largest = if field.data_type == DataType::Float {
                f64::from(f32::MAX)
            } else {
                f64::MAX
            };
            if value.abs() <= largest {
                Ok(())
            } else {
                invalid(format!(
                    "default_value of field {name} is not a number in the range of {data_type}"
                ))
            }
        }
        (DataType::VarChar, Scalar::Text(text), _) => {
            if text.len() <= field.max_length {
                Ok(())
            } else {
                let (length, limit) = (text.len(), field.max_length);
                invalid(format!("the length ({length}) of string exceeds max length ({limit})"))
            }
        }
        (_, value, _) => {
            let given = scalar_name(value);
            invalid(format!(
                "type ({data_type}) of field ({name}) is not equal to the type({given}) of default_value"
            ))
        }
    }
}

fn is_array(field: &FieldSchema) -> bool {
    field.data_type == DataType::Array
}

fn scalar_name(value: &Scalar) -> &'static str {
    match value {
        Scalar::Bool(_) => "Bool",
        Scalar::Int(_) => "Int64",
        Scalar::Double(_) => "Double",
        Scalar::Text(_) => "VarChar",
    }
}

/// Names are checked late; until then they may be of any length.
fn cut(name: &str) -> String {
    name.chars().take(Limits::NAME_BYTES_MAX).collect()
}

fn invalid<T>(message: impl Into<String>) -> Result<T, SchemaError> {
    Err(SchemaError::Invalid(message.into()))
}

#[cfg(test)]
mod tests;
