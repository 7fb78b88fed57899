//! Functions of a schema: fields whose values the server makes of other fields.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{CollectionSchema, DataType, FieldSchema, SchemaError};

/// A function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionSchema {
    /// Its id in the schema, from 100 on.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// What users wrote about it.
    pub description: String,
    /// What it does.
    pub kind: FunctionKind,
    /// Names of the fields that it reads.
    pub inputs: Vec<String>,
    /// Names of the fields that it makes.
    pub outputs: Vec<String>,
}

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FunctionKind {
    /// Counts the terms of a text: a sparse vector for searches by metric BM25.
    Bm25,
}

impl FieldSchema {
    /// The type parameter that says whether its text is cut into terms.
    pub const ENABLE_ANALYZER: &'static str = "enable_analyzer";
    /// The type parameter that says whether filters may look for words in it.
    pub const ENABLE_MATCH: &'static str = "enable_match";
    /// The type parameter that says how.
    pub const ANALYZER_PARAMS: &'static str = "analyzer_params";

    /// Whether its text is cut into terms.
    #[must_use]
    pub fn is_analyzed(&self) -> bool {
        self.data_type == DataType::VarChar && self.is_set(Self::ENABLE_ANALYZER)
    }
    /// Whether filters may look for words in it.
    #[must_use]
    pub fn is_matched(&self) -> bool {
        self.is_analyzed() && self.is_set(Self::ENABLE_MATCH)
    }
    fn is_set(&self, parameter: &str) -> bool {
        let value = self.type_params.get(parameter);
        value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

impl CollectionSchema {
    /// The function that makes the values of a field.
    #[must_use]
    pub fn function_of(&self, field: &FieldSchema) -> Option<&FunctionSchema> {
        self.functions
            .iter()
            .find(|function| function.outputs.contains(&field.name))
    }
    /// Whether the server makes the values of a field; clients neither send nor get them.
    #[must_use]
    pub fn is_function_output(&self, field: &FieldSchema) -> bool {
        self.function_of(field).is_some()
    }

    /// Checks the functions against the fields.
    pub(crate) fn check_functions(&self) -> Result<(), SchemaError> {
        let (mut names, mut made) = (BTreeSet::new(), BTreeSet::new());
        for function in &self.functions {
            let name = shorten(&function.name);
            if function.name.is_empty() {
                return invalid("function name cannot be empty");
            }
            Self::check_name("function", &function.name)?;
            if !names.insert(&function.name) {
                return invalid(format!("duplicate function name {name}"));
            }
            if function.inputs.is_empty() {
                return invalid(format!("function input field names cannot be empty, function: {name}"));
            }
            if function.outputs.is_empty() {
                return invalid(format!("function output field names cannot be empty, function: {name}"));
            }
            let inputs = self.named(&function.inputs, "input")?;
            let outputs = self.named(&function.outputs, "output")?;
            for field in &outputs {
                check_output(&name, field)?;
                if !made.insert(field.id) {
                    let field = &field.name;
                    return invalid(format!(
                        "duplicate function output field: function {name}, field {field}"
                    ));
                }
            }
            match function.kind {
                FunctionKind::Bm25 => check_bm25(&inputs, &outputs)?,
            }
        }
        Ok(())
    }

    fn named(&self, names: &[String], side: &str) -> Result<Vec<&FieldSchema>, SchemaError> {
        let found = names.iter().map(|name| {
            self.field(name)
                .ok_or_else(|| SchemaError::Invalid(format!("function {side} field not found: {}", shorten(name))))
        });
        found.collect()
    }
}

fn check_output(function: &str, field: &FieldSchema) -> Result<(), SchemaError> {
    let name = &field.name;
    let wrong = match () {
        () if field.is_primary => "primary key",
        () if field.is_partition_key => "partition key or clustering key",
        () if field.nullable => "nullable",
        () => return Ok(()),
    };
    invalid(format!(
        "function output field cannot be {wrong}: function {function}, field {name}"
    ))
}

fn check_bm25(inputs: &[&FieldSchema], outputs: &[&FieldSchema]) -> Result<(), SchemaError> {
    let [input] = inputs else {
        let (count, name) = (
            inputs.len(),
            inputs.first().map_or("None", |field| field.data_type.name()),
        );
        return invalid(format!(
            "BM25 function input field must be a VARCHAR/TEXT field, got {count} field with type {name}"
        ));
    };
    if input.data_type != DataType::VarChar {
        let name = input.data_type.name();
        return invalid(format!(
            "BM25 function input field must be a VARCHAR/TEXT field, got 1 field with type {name}"
        ));
    }
    if !input.is_analyzed() {
        return invalid("BM25 function input field must set enable_analyzer to true");
    }
    let [output] = outputs else {
        let count = outputs.len();
        return invalid(format!("BM25 function only need 1 output field, but got {count}"));
    };
    if output.data_type != DataType::SparseFloatVector {
        let name = output.data_type.name();
        return invalid(format!(
            "BM25 function output field must be a SparseFloatVector field, but got {name}"
        ));
    }
    Ok(())
}

/// Names are repeated in messages before they are checked.
fn shorten(name: &str) -> String {
    name.chars().take(64).collect()
}

fn invalid<T>(message: impl Into<String>) -> Result<T, SchemaError> {
    Err(SchemaError::Invalid(message.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldId, sample};

    fn with(change: impl FnOnce(&mut CollectionSchema)) -> Result<(), SchemaError> {
        let mut schema = sample::schema();
        let template = schema.fields[0].clone();
        let next = schema.fields.iter().map(|field| field.id.0).max().unwrap_or(0) + 1;
        let field = |id: i64, name: &str, data_type: DataType| FieldSchema {
            id: FieldId(id),
            name: name.to_owned(),
            data_type,
            is_primary: false,
            auto_id: false,
            max_length: if data_type == DataType::VarChar { 100 } else { 0 },
            ..template.clone()
        };
        let mut body = field(next, "body", DataType::VarChar);
        body.type_params
            .insert(FieldSchema::ENABLE_ANALYZER.to_owned(), "True".to_owned());
        // The dynamic field, if there is one, stays the last.
        schema.fields.insert(1, body);
        schema
            .fields
            .insert(2, field(next + 1, "terms", DataType::SparseFloatVector));
        schema.fields.insert(3, field(next + 2, "plain", DataType::VarChar));
        schema.functions.push(FunctionSchema {
            id: 100,
            name: "bm25".to_owned(),
            description: String::new(),
            kind: FunctionKind::Bm25,
            inputs: vec!["body".to_owned()],
            outputs: vec!["terms".to_owned()],
        });
        change(&mut schema);
        schema.validate()
    }

    #[test]
    fn rules_are_kept() {
        assert_eq!(with(|_| ()), Ok(()));
        let refused = |change: &dyn Fn(&mut CollectionSchema), part: &str| {
            let reason = with(change).unwrap_err().to_string();
            assert!(reason.contains(part), "{reason} lacks {part}");
        };
        refused(&|s| s.functions[0].name.clear(), "function name cannot be empty");
        refused(&|s| s.functions[0].name = "9".to_owned(), "Invalid function name");
        refused(
            &|s| s.functions.push(s.functions[0].clone()),
            "duplicate function name bm25",
        );
        refused(
            &|s| {
                let mut other = s.functions[0].clone();
                other.name = "other".to_owned();
                s.functions.push(other);
            },
            "duplicate function output field: function other, field terms",
        );
        refused(&|s| s.functions[0].inputs.clear(), "input field names cannot be empty");
        refused(
            &|s| s.functions[0].outputs.clear(),
            "output field names cannot be empty",
        );
        refused(
            &|s| s.functions[0].inputs[0] = "x".to_owned(),
            "function input field not found: x",
        );
        refused(
            &|s| s.functions[0].outputs[0] = "x".to_owned(),
            "function output field not found: x",
        );
        refused(
            &|s| s.functions[0].inputs[0] = "terms".to_owned(),
            "got 1 field with type SparseFloatVector",
        );
        refused(&|s| s.functions[0].inputs.push("plain".to_owned()), "got 2 field");
        refused(
            &|s| s.functions[0].inputs[0] = "plain".to_owned(),
            "must set enable_analyzer to true",
        );
        refused(
            &|s| s.functions[0].outputs[0] = "plain".to_owned(),
            "must be a SparseFloatVector field, but got VarChar",
        );
        refused(
            &|s| s.functions[0].outputs.push("plain".to_owned()),
            "only need 1 output field, but got 2",
        );
        refused(&|s| s.fields[2].is_partition_key = true, "partition key");
    }

    #[test]
    fn an_output_is_known_as_one() {
        let check = |schema: &mut CollectionSchema| {
            assert!(schema.is_function_output(&schema.fields[2]) && !schema.is_function_output(&schema.fields[1]));
            assert!(schema.fields[1].is_analyzed() && !schema.fields[3].is_analyzed());
        };
        assert_eq!(with(check), Ok(()));
    }
}
