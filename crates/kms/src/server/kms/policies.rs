//! Key policies: put, get, and the check that nobody locks everybody out by accident.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Paging, page, paged, read, required};
use crate::server::{
    core::{Asked, Call},
    fault::Fault,
    names::{Names, printable},
    policy::{Decision, Kind, Policy, PolicyFault, key_allows},
    records::{Key, Records},
};

/// The only policy name that a key has (AWS).
const NAME: &str = "default";

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Request {
    key_id: Option<String>,
    policy_name: Option<String>,
    policy: Option<String>,
    bypass_policy_lockout_safety_check: bool,
    #[serde(flatten)]
    paging: Paging,
}

/// The policy of a key that was made without one: the account's identity policies decide.
pub(super) fn default_policy(names: &Names) -> String {
    let policy = json!({
        "Version": "2012-10-17",
        "Id": "key-default-1",
        "Statement": [{
            "Sid": "Enable IAM User Permissions",
            "Effect": "Allow",
            "Principal": { "AWS": names.root_arn() },
            "Action": "kms:*",
            "Resource": "*",
        }],
    });
    policy.to_string()
}

/// Checks a policy before it becomes `key`'s: understood in full, names only principals that exist, and (unless the
/// caller waives it) lets the caller put another one later.
pub(super) fn check(call: &Call<'_>, records: &Records, key: &Key, text: &str, bypass: bool) -> Result<(), Fault> {
    let policy = Policy::parse(text, Kind::Key).map_err(malformed)?;
    let names = &call.core.names;
    let own = [
        format!("arn:aws:iam::{}:", names.account),
        format!("arn:aws:sts::{}:", names.account),
    ];
    let exists = |arn: &str| {
        let Some(resource) = own.iter().find_map(|prefix| arn.strip_prefix(prefix.as_str())) else {
            return true;
        };
        match resource.split('/').collect::<Vec<_>>()[..] {
            ["user", name] => records.users.contains_key(name),
            ["role", name] | ["assumed-role", name, _] => records.roles.contains_key(name),
            _ => false,
        }
    };
    if !policy.principal_arns().all(exists) {
        return Err(malformed(PolicyFault(
            "Policy contains a statement with one or more invalid principals.".to_owned(),
        )));
    }
    if bypass {
        return Ok(());
    }
    let arn = names.key_arn(&key.id);
    let values = call.values(
        records,
        Some(key),
        &Asked {
            bypass: Some(false),
            ..Asked::default()
        },
    );
    if key_allows(&policy, &call.caller.asker, "kms:PutKeyPolicy", &arn, &values) == Decision::Allowed {
        return Ok(());
    }
    Err(malformed(PolicyFault(
        "The new key policy will not allow you to update the key policy in the future.".to_owned(),
    )))
}

fn malformed(fault: PolicyFault) -> Fault {
    Fault::new("MalformedPolicyDocumentException", fault.0)
}

pub(super) fn put(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Request = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    let text = required(request.policy.as_ref(), "policy")?;
    check_name(request.policy_name.as_deref())?;
    let bypass = request.bypass_policy_lockout_safety_check;
    let mut records = call.core.write();
    let key = call.find_key(&records, named, false)?;
    call.authorise(
        &records,
        key,
        "kms:PutKeyPolicy",
        &Asked {
            named: Some(named),
            bypass: Some(bypass),
            ..Asked::default()
        },
    )?;
    check(call, &records, key, text, bypass)?;
    let mut key = key.clone();
    text.clone_into(&mut key.policy);
    call.core.put_key(&mut records, key)?;
    Ok(json!({}))
}

pub(super) fn get(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Request = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    check_name(request.policy_name.as_deref())?;
    let records = call.core.read();
    let key = call.find_key(&records, named, false)?;
    call.authorise(
        &records,
        key,
        "kms:GetKeyPolicy",
        &Asked {
            named: Some(named),
            ..Asked::default()
        },
    )?;
    Ok(json!({ "Policy": key.policy, "PolicyName": NAME }))
}

pub(super) fn list(call: &mut Call<'_>, request: Map<String, Value>) -> Result<Value, Fault> {
    let request: Request = read(request)?;
    let named = required(request.key_id.as_ref(), "keyId")?;
    let records = call.core.read();
    let key = call.find_key(&records, named, false)?;
    call.authorise(
        &records,
        key,
        "kms:ListKeyPolicies",
        &Asked {
            named: Some(named),
            ..Asked::default()
        },
    )?;
    let (found, next) = page([(NAME, json!(NAME))].into_iter(), &request.paging, 100, 1_000)?;
    Ok(paged(
        Map::from_iter([("PolicyNames".to_owned(), Value::Array(found))]),
        next,
    ))
}

fn check_name(name: Option<&str>) -> Result<(), Fault> {
    match name {
        None | Some(NAME) => Ok(()),
        Some(other) => Err(Fault::not_found(format!("No such policy exists: {}", printable(other)))),
    }
}
