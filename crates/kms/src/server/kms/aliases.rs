//! Aliases: names for keys that can be pointed at another key.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Paging, must_not_be_pending, page, paged, read, required, seconds};
use crate::server::{
    core::{Asked, Call},
    fault::Fault,
    names::valid_alias,
    policy::identity_allows,
    records::{Alias, Records},
    store::{Change, hashed},
};

/// Most aliases of one key (AWS).
const ALIASES_PER_KEY_MAX: usize = 50;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Named {
    alias_name: Option<String>,
    target_key_id: Option<String>,
}

pub(super) fn create(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Named = read(request)?;
    let name = own_alias(request.alias_name.as_ref())?;
    let target = required(request.target_key_id.as_ref(), "targetKeyId")?;
    let mut records = call.core.write();
    let id = target_of(call, &records, name, target, "kms:CreateAlias")?;
    if records.aliases.contains_key(name) {
        let arn = call.core.names.alias_arn(name);
        return Err(Fault::new(
            "AlreadyExistsException",
            format!("An alias with the name {arn} already exists"),
        ));
    }
    if records.aliases.values().filter(|alias| alias.key == id).count() >= ALIASES_PER_KEY_MAX {
        return Err(Fault::limit(format!(
            "A key has at most {ALIASES_PER_KEY_MAX} aliases."
        )));
    }
    put(
        call,
        &mut records,
        Alias {
            name: name.to_owned(),
            key: id,
            created_ms: call.now_ms,
            updated_ms: call.now_ms,
        },
    )
}

pub(super) fn update(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Named = read(request)?;
    let name = own_alias(request.alias_name.as_ref())?;
    let target = required(request.target_key_id.as_ref(), "targetKeyId")?;
    let mut records = call.core.write();
    let old = existing(call, &records, name)?;
    authorise_both(call, &records, name, &old.key, "kms:UpdateAlias")?;
    let id = target_of(call, &records, name, target, "kms:UpdateAlias")?;
    if id != old.key && records.aliases.values().filter(|alias| alias.key == id).count() >= ALIASES_PER_KEY_MAX {
        return Err(Fault::limit(format!(
            "A key has at most {ALIASES_PER_KEY_MAX} aliases."
        )));
    }
    put(
        call,
        &mut records,
        Alias {
            name: name.to_owned(),
            key: id,
            created_ms: old.created_ms,
            updated_ms: call.now_ms,
        },
    )
}

pub(super) fn delete(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Named = read(request)?;
    let name = own_alias(request.alias_name.as_ref())?;
    let mut records = call.core.write();
    let old = existing(call, &records, name)?;
    authorise_both(call, &records, name, &old.key, "kms:DeleteAlias")?;
    call.core.commit(vec![Change::Remove(hashed("alias", name))])?;
    records.aliases.remove(name);
    Ok(json!({}))
}

pub(super) fn list(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let named = request.get("KeyId").and_then(Value::as_str).map(str::to_owned);
    let paging: Paging = read(request)?;
    let records = call.core.read();
    let values = call.values(&records, None, &Asked::default());
    call.refuse(
        "kms:ListAliases",
        "*",
        identity_allows(&call.caller.asker, "kms:ListAliases", "*", &values),
    )?;
    let only = match &named {
        Some(named) => Some(call.find_key(&records, named, false)?.id.clone()),
        None => None,
    };
    let aliases = records
        .aliases
        .iter()
        .filter(|(_, alias)| only.as_ref().is_none_or(|id| *id == alias.key));
    let shown = aliases.map(|(name, alias)| {
        let entry = json!({
            "AliasName": name,
            "AliasArn": call.core.names.alias_arn(name),
            "TargetKeyId": alias.key,
            "CreationDate": seconds(alias.created_ms),
            "LastUpdatedDate": seconds(alias.updated_ms),
        });
        (name.as_str(), entry)
    });
    let (found, next) = page(shown, &paging, 50, 100)?;
    Ok(paged(
        Map::from_iter([("Aliases".to_owned(), Value::Array(found))]),
        next,
    ))
}

/// An alias name that a caller may give: well-formed and not AWS's own.
fn own_alias(name: Option<&String>) -> Result<&str, Fault> {
    let name = valid_alias(required(name, "aliasName")?)?;
    if name.starts_with("alias/aws/") {
        let message = "The alias prefix alias/aws/ is reserved.";
        return Err(Fault::new("NotAuthorizedException", message));
    }
    Ok(name)
}

fn existing(call: &Call<'_>, records: &Records, name: &str) -> Result<Alias, Fault> {
    let missing = || Fault::not_found(format!("Alias {} is not found.", call.core.names.alias_arn(name)));
    records.aliases.get(name).cloned().ok_or_else(missing)
}

/// The target's id, if the caller may point `name` at it and it takes aliases.
fn target_of(call: &mut Call<'_>, records: &Records, name: &str, target: &str, action: &str) -> Result<String, Fault> {
    let id = call.find_key(records, target, false)?.id.clone();
    authorise_both(call, records, name, &id, action)?;
    if let Some(key) = records.keys.get(&id) {
        must_not_be_pending(&call.core.names, key)?;
    }
    Ok(id)
}

/// An alias operation needs permission on the key (its policy) and on the alias (the caller's own policies).
fn authorise_both(call: &Call<'_>, records: &Records, name: &str, key: &str, action: &str) -> Result<(), Fault> {
    let key = records.keys.get(key).ok_or_else(Fault::internal)?;
    call.authorise(records, key, action, &Asked::default())?;
    let arn = call.core.names.alias_arn(name);
    let values = call.values(records, Some(key), &Asked::default());
    call.refuse(action, &arn, identity_allows(&call.caller.asker, action, &arn, &values))
}

fn put(call: &mut Call<'_>, records: &mut Records, alias: Alias) -> Result<Value, Fault> {
    call.core
        .commit(vec![Change::put(hashed("alias", &alias.name), &alias)])?;
    call.used
        .push((call.core.names.alias_arn(&alias.name), "AWS::KMS::Alias"));
    records.aliases.insert(alias.name.clone(), alias);
    Ok(json!({}))
}
