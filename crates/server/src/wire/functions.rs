//! Functions of a schema: Milvus's to ours and back. Whether they fit the fields is the model's knowledge.

use saker_model::{CollectionSchema, FunctionKind, FunctionSchema, Limits};
use saker_proto::schema::{FunctionSchema as WireFunction, FunctionType};

use super::{Failure, pairs};

/// The functions of a schema.
///
/// # Errors
/// [`Failure`] for a type of function that is not here, for parameters, and for too many of them.
pub fn functions_in(wire: Vec<WireFunction>) -> Result<Vec<FunctionSchema>, Failure> {
    if wire.len() > Limits::FIELDS_MAX {
        return Err(Failure::invalid(format_args!(
            "maximum function's number should be limited to {}",
            Limits::FIELDS_MAX
        )));
    }
    wire.into_iter().map(function_in).collect()
}

fn function_in(wire: WireFunction) -> Result<FunctionSchema, Failure> {
    let kind = match FunctionType::try_from(wire.r#type) {
        Ok(FunctionType::Bm25) => FunctionKind::Bm25,
        Ok(FunctionType::Unknown) | Err(_) => {
            return Err(Failure::invalid("check input field with unknown function type"));
        }
        Ok(other) => {
            return Err(Failure::unsupported(format_args!(
                "function type {} of function {}",
                other.as_str_name(),
                pairs::shorten(&wire.name)
            )));
        }
    };
    if !wire.params.is_empty() {
        return Err(Failure::invalid("BM25 function accepts no params"));
    }
    Ok(FunctionSchema {
        id: 0,
        name: wire.name,
        description: wire.description,
        kind,
        inputs: wire.input_field_names,
        outputs: wire.output_field_names,
    })
}

/// The functions as Describe shows them.
#[must_use]
pub fn functions_out(schema: &CollectionSchema) -> Vec<WireFunction> {
    let ids = |names: &[String]| {
        let fields = names.iter().filter_map(|name| schema.field(name));
        fields.map(|field| field.id.0).collect()
    };
    let function = |function: &FunctionSchema| WireFunction {
        name: function.name.clone(),
        id: function.id,
        description: function.description.clone(),
        r#type: match function.kind {
            FunctionKind::Bm25 => FunctionType::Bm25,
        } as i32,
        input_field_names: function.inputs.clone(),
        input_field_ids: ids(&function.inputs),
        output_field_names: function.outputs.clone(),
        output_field_ids: ids(&function.outputs),
        params: Vec::new(),
    };
    schema.functions.iter().map(function).collect()
}
