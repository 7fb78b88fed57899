//! The life of a key: made, described, disabled, enabled, scheduled for deletion.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Paging, missing, must_not_be_pending, page, paged, policies, read, required, seconds, tags};
use crate::server::{
    core::{Asked, Call},
    fault::Fault,
    names::Names,
    policy::identity_allows,
    records::{Key, KeyState},
};

/// Most keys that this server holds, those waiting for deletion included; bounds its memory and start-up time.
pub(in crate::server) const KEYS_MAX: usize = 10_000;
/// Longest description, in characters (AWS).
const DESCRIPTION_CHARACTERS_MAX: usize = 8_192;
/// Waiting period of a deletion, in days (AWS).
const WINDOW_DAYS: std::ops::RangeInclusive<i64> = 7..=30;
const WINDOW_DAYS_DEFAULT: i64 = 30;
const DAY_MS: i64 = 86_400_000;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Create {
    policy: Option<String>,
    description: String,
    key_usage: Option<String>,
    key_spec: Option<String>,
    customer_master_key_spec: Option<String>,
    origin: Option<String>,
    multi_region: bool,
    tags: Vec<tags::Tag>,
    bypass_policy_lockout_safety_check: bool,
}

/// Requests that name a key and nothing else of interest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct OneKey {
    key_id: Option<String>,
}

pub(super) fn create(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Create = read(request)?;
    check_supported(&request)?;
    if request.description.chars().count() > DESCRIPTION_CHARACTERS_MAX {
        return Err(Fault::validation(format!(
            "A description has at most {DESCRIPTION_CHARACTERS_MAX} characters."
        )));
    }
    let tags = tags::merged(&BTreeMap::new(), request.tags)?;
    let mut records = call.core.write();
    let asked = Asked {
        bypass: Some(request.bypass_policy_lockout_safety_check),
        ..Asked::default()
    };
    let values = call.values(&records, None, &asked);
    call.refuse(
        "kms:CreateKey",
        "*",
        identity_allows(&call.caller.asker, "kms:CreateKey", "*", &values),
    )?;
    if records.keys.len() >= KEYS_MAX {
        return Err(Fault::limit(format!("This key server holds at most {KEYS_MAX} keys.")));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let policy = request
        .policy
        .unwrap_or_else(|| policies::default_policy(&call.core.names));
    let key = Key {
        materials: Vec::new(),
        id,
        created_ms: call.now_ms,
        description: request.description,
        state: KeyState::Enabled,
        policy,
        tags,
    };
    policies::check(
        call,
        &records,
        &key,
        &key.policy,
        request.bypass_policy_lockout_safety_check,
    )?;
    let answer = json!({ "KeyMetadata": metadata(&call.core.names, &key) });
    call.note_key(&key.id);
    call.core.put_key_with_new_material(&mut records, key, 1, call.now_ms)?;
    Ok(answer)
}

fn check_supported(request: &Create) -> Result<(), Fault> {
    let spec = request
        .key_spec
        .as_deref()
        .or(request.customer_master_key_spec.as_deref());
    for (field, value, only) in [
        ("KeySpec", spec, "SYMMETRIC_DEFAULT"),
        ("KeyUsage", request.key_usage.as_deref(), "ENCRYPT_DECRYPT"),
        ("Origin", request.origin.as_deref(), "AWS_KMS"),
    ] {
        if value.is_some_and(|value| value != only) {
            return Err(Fault::unsupported(format!(
                "This key server supports only {field} {only}."
            )));
        }
    }
    if request.multi_region {
        return Err(Fault::unsupported("This key server has no multi-region keys."));
    }
    Ok(())
}

pub(super) fn describe(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: OneKey = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    let records = call.core.read();
    let key = call.find_key(&records, named, true)?;
    call.authorise(
        &records,
        key,
        "kms:DescribeKey",
        &Asked {
            named: Some(named),
            ..Asked::default()
        },
    )?;
    Ok(json!({ "KeyMetadata": metadata(&call.core.names, key) }))
}

pub(super) fn list(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let paging: Paging = read(request)?;
    let records = call.core.read();
    let values = call.values(&records, None, &Asked::default());
    call.refuse(
        "kms:ListKeys",
        "*",
        identity_allows(&call.caller.asker, "kms:ListKeys", "*", &values),
    )?;
    let keys = records.keys.values().map(|key| {
        (
            key.id.as_str(),
            json!({ "KeyId": key.id, "KeyArn": call.core.names.key_arn(&key.id) }),
        )
    });
    let (found, next) = page(keys, &paging, 100, 1_000)?;
    Ok(paged(Map::from_iter([("Keys".to_owned(), Value::Array(found))]), next))
}

pub(super) fn enable(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    change(call, request, "kms:EnableKey", |call, key| {
        must_not_be_pending(&call.core.names, key)?;
        key.state = KeyState::Enabled;
        Ok(())
    })?;
    Ok(json!({}))
}

pub(super) fn disable(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    change(call, request, "kms:DisableKey", |call, key| {
        must_not_be_pending(&call.core.names, key)?;
        key.state = KeyState::Disabled;
        Ok(())
    })?;
    Ok(json!({}))
}

pub(super) fn schedule_deletion(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let days = match request.get("PendingWindowInDays") {
        None | Some(Value::Null) => WINDOW_DAYS_DEFAULT,
        Some(value) => value.as_i64().filter(|days| WINDOW_DAYS.contains(days)).ok_or_else(|| {
            Fault::validation(format!(
                "1 validation error detected: Value at 'pendingWindowInDays' failed to satisfy constraint: Member must \
                 have value between {} and {}",
                WINDOW_DAYS.start(),
                WINDOW_DAYS.end()
            ))
        })?,
    };
    let at_ms = call.now_ms + days * DAY_MS;
    let id = change(call, request, "kms:ScheduleKeyDeletion", |call, key| {
        must_not_be_pending(&call.core.names, key)?;
        key.state = KeyState::PendingDeletion { at_ms };
        Ok(())
    })?;
    Ok(json!({
        "KeyId": call.core.names.key_arn(&id),
        "DeletionDate": seconds(at_ms),
        "KeyState": "PendingDeletion",
        "PendingWindowInDays": days,
    }))
}

pub(super) fn cancel_deletion(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let id = change(call, request, "kms:CancelKeyDeletion", |call, key| match key.state {
        KeyState::PendingDeletion { .. } => {
            key.state = KeyState::Disabled;
            Ok(())
        }
        KeyState::Enabled | KeyState::Disabled => Err(Fault::new(
            "KMSInvalidStateException",
            format!("{} is not pending deletion.", call.core.names.key_arn(&key.id)),
        )),
    })?;
    Ok(json!({ "KeyId": call.core.names.key_arn(&id) }))
}

/// Changes one key, named by id or ARN, if the caller may do `action`. Returns its id.
fn change(
    call: &mut Call<'_>,
    request: Map<String, Value>,
    action: &str,
    change: impl FnOnce(&Call<'_>, &mut Key) -> Result<(), Fault>,
) -> Result<String, Fault> {
    let request: OneKey = read(request)?;
    let named = request.key_id.as_deref().ok_or_else(|| missing("keyId"))?;
    let mut records = call.core.write();
    let key = call.find_key(&records, named, false)?;
    call.authorise(
        &records,
        key,
        action,
        &Asked {
            named: Some(named),
            ..Asked::default()
        },
    )?;
    let mut key = key.clone();
    change(call, &mut key)?;
    let id = key.id.clone();
    call.core.put_key(&mut records, key)?;
    Ok(id)
}

/// A key as `DescribeKey` shows it.
pub(super) fn metadata(names: &Names, key: &Key) -> Value {
    let (state, deletion) = match key.state {
        KeyState::Enabled => ("Enabled", None),
        KeyState::Disabled => ("Disabled", None),
        KeyState::PendingDeletion { at_ms } => ("PendingDeletion", Some(at_ms)),
    };
    let mut metadata = json!({
        "AWSAccountId": names.account,
        "KeyId": key.id,
        "Arn": names.key_arn(&key.id),
        "CreationDate": seconds(key.created_ms),
        "Enabled": key.state == KeyState::Enabled,
        "Description": key.description,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": state,
        "Origin": "AWS_KMS",
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": false,
    });
    if let Some(at_ms) = deletion {
        metadata["DeletionDate"] = seconds(at_ms);
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{
        records::Records,
        testing::{names, with_call},
    };

    #[test]
    fn the_number_of_keys_is_limited() {
        let key = |number: usize| Key {
            id: format!("{number:05}"),
            created_ms: 0,
            description: String::new(),
            state: KeyState::Disabled,
            policy: policies::default_policy(&names()),
            tags: BTreeMap::new(),
            materials: Vec::new(),
        };
        let keys = (0..KEYS_MAX - 1).map(|number| (key(number).id, key(number))).collect();
        with_call(
            Records {
                keys,
                ..Records::default()
            },
            |call| {
                create(call, Map::new()).unwrap();
                assert_eq!(create(call, Map::new()).unwrap_err().code, "LimitExceededException");
                let listed = list(call, Map::from_iter([("Limit".to_owned(), json!(1_000))])).unwrap();
                assert_eq!(listed["Keys"].as_array().unwrap().len(), 1_000);
            },
        );
    }
}
