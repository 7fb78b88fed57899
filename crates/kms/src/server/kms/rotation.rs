//! Rotation on demand: new material encrypts, every older material goes on decrypting.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Paging, must_be_enabled, page, paged, read, required, seconds};
use crate::server::{
    core::{Asked, Call},
    fault::Fault,
};

/// Most rotations on demand of one key over its life (AWS).
const ROTATIONS_MAX: usize = 25;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct OneKey {
    key_id: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

pub(super) fn rotate(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: OneKey = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    let mut records = call.core.write();
    let key = call.find_key(&records, named, false)?;
    call.authorise(
        &records,
        key,
        "kms:RotateKeyOnDemand",
        &Asked {
            named: Some(named),
            ..Asked::default()
        },
    )?;
    must_be_enabled(&call.core.names, key)?;
    if key.materials.len() > ROTATIONS_MAX {
        return Err(Fault::limit(format!(
            "A key can be rotated on demand at most {ROTATIONS_MAX} times."
        )));
    }
    let key = key.clone();
    let next = key
        .materials
        .last()
        .map_or(1, |material| material.version.saturating_add(1));
    let arn = call.core.names.key_arn(&key.id);
    call.core
        .put_key_with_new_material(&mut records, key, next, call.now_ms)?;
    Ok(json!({ "KeyId": arn }))
}

pub(super) fn list(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: OneKey = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    let records = call.core.read();
    let key = call.find_key(&records, named, false)?;
    call.authorise(
        &records,
        key,
        "kms:ListKeyRotations",
        &Asked {
            named: Some(named),
            ..Asked::default()
        },
    )?;
    let arn = call.core.names.key_arn(&key.id);
    // The first material was made with the key; only those after it are rotations.
    let rotations: Vec<(String, Value)> = key
        .materials
        .iter()
        .skip(1)
        .map(|material| {
            let entry = json!({
                "KeyId": arn, "RotationDate": seconds(material.made_ms), "RotationType": "ON_DEMAND",
            });
            (format!("{:010}", material.version), entry)
        })
        .collect();
    let named = rotations.iter().map(|(name, entry)| (name.as_str(), entry.clone()));
    let (found, next) = page(named, &request.paging, 100, 1_000)?;
    Ok(paged(
        Map::from_iter([("Rotations".to_owned(), Value::Array(found))]),
        next,
    ))
}

pub(super) fn status(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: OneKey = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    let records = call.core.read();
    let key = call.find_key(&records, named, false)?;
    call.authorise(
        &records,
        key,
        "kms:GetKeyRotationStatus",
        &Asked {
            named: Some(named),
            ..Asked::default()
        },
    )?;
    // Rotation happens when it is asked for; there is none on a schedule.
    Ok(json!({ "KeyId": call.core.names.key_arn(&key.id), "KeyRotationEnabled": false }))
}
