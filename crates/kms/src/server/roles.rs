//! The part of IAM and STS that roles need: who may assume one, what a session of it may do.
//!
//! Reference: AWS IAM and STS API references. Only inline policies; no groups, no paths, no managed policies.

use std::collections::BTreeMap;

use super::{
    callers::Session,
    core::Call,
    credentials::{random_id, random_secret},
    fault::Fault,
    names::printable,
    policy::{Decision, Kind, Policy, PolicyFault, identity_allows, trust_allows},
    query::{Form, element, percent_encoded},
    records::{Records, Role},
    store::{Change, hashed},
    trail::rfc3339,
};

/// Most roles that this server holds; bounds its memory and start-up time.
const ROLES_MAX: usize = 1_000;
/// Most inline policies of one role; AWS bounds their total size instead.
const ROLE_POLICIES_MAX: usize = 20;
/// Length of a session, in seconds (AWS).
const SESSION_SECONDS_MIN: i64 = 900;
const SESSION_SECONDS_DEFAULT: i64 = 3_600;
const SESSION_SECONDS_MAX: i64 = 43_200;

type Run = fn(&mut Call<'_>, &Form) -> Result<String, Fault>;

/// One operation of IAM or STS.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    pub(super) service: &'static str,
    pub(super) name: &'static str,
    pub(super) read_only: bool,
    run: Run,
}

const fn operation_of(service: &'static str, name: &'static str, read_only: bool, run: Run) -> Operation {
    Operation {
        service,
        name,
        read_only,
        run,
    }
}

const OPERATIONS: &[Operation] = &[
    operation_of("sts", "AssumeRole", true, assume_role),
    operation_of("sts", "GetCallerIdentity", true, caller_identity),
    operation_of("iam", "CreateRole", false, create_role),
    operation_of("iam", "GetRole", true, read_role),
    operation_of("iam", "ListRoles", true, list_roles),
    operation_of("iam", "DeleteRole", false, delete_role),
    operation_of("iam", "UpdateAssumeRolePolicy", false, update_trust),
    operation_of("iam", "PutRolePolicy", false, put_policy),
    operation_of("iam", "GetRolePolicy", true, read_policy),
    operation_of("iam", "DeleteRolePolicy", false, delete_policy),
    operation_of("iam", "ListRolePolicies", true, list_policies),
];

/// The operation of this name at this service.
pub(super) fn operation(service: &str, name: &str) -> Option<Operation> {
    OPERATIONS
        .iter()
        .find(|operation| operation.service == service && operation.name == name)
        .copied()
}

/// Runs an operation; the answer is the XML inside its result element.
pub(super) fn run(operation: Operation, call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    (operation.run)(call, form)
}

/// Form fields that the call log shows, and how it writes them.
pub(super) const LOGGED: &[(&str, &str)] = &[
    ("RoleName", "roleName"),
    ("RoleArn", "roleArn"),
    ("RoleSessionName", "roleSessionName"),
    ("ExternalId", "externalId"),
    ("DurationSeconds", "durationSeconds"),
    ("PolicyName", "policyName"),
    ("PolicyDocument", "policyDocument"),
    ("AssumeRolePolicyDocument", "assumeRolePolicyDocument"),
];

fn assume_role(call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    let role_arn = form.required("RoleArn")?;
    let session_name = form.required("RoleSessionName")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if !(2..=64).contains(&session_name.len()) || !session_name.bytes().all(plain) {
        return Err(validation(
            "RoleSessionName has 2 to 64 of the characters a-zA-Z0-9_+=,.@-",
        ));
    }
    for (field, name) in [
        ("Policy", "session policies"),
        ("PolicyArns.", "session policies"),
        ("Tags.", "session tags"),
    ] {
        if form.has_any(field) {
            return Err(validation(format!("{name} are not supported by this key server")));
        }
    }
    call.used.push((printable(role_arn), "AWS::IAM::Role"));
    let records = call.core.read();
    let asker = &call.caller.asker;
    let mut values = call.caller.values.clone();
    values.set("sts:RoleSessionName", session_name);
    if let Some(external_id) = form.text("ExternalId") {
        values.set("sts:ExternalId", external_id);
    }
    let named = role_arn.strip_prefix(&call.core.names.role_arn(""));
    let role = named
        .and_then(|name| records.roles.get_key_value(name))
        .filter(|(_, role)| {
            Policy::parse(&role.trust, Kind::Trust)
                .is_ok_and(|trust| trust_allows(&trust, asker, role_arn, &values) == Decision::Allowed)
        });
    // The same words whether there is no such role or it does not trust the caller.
    let Some((name, role)) = role else {
        let message = format!(
            "User: {} is not authorized to perform: sts:AssumeRole on resource: {}",
            asker.arn,
            printable(role_arn)
        );
        return Err(Fault::new("AccessDenied", message).with_status(403));
    };
    let seconds = match form.text("DurationSeconds") {
        None => SESSION_SECONDS_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|s| (SESSION_SECONDS_MIN..=role.session_seconds_max).contains(s))
            .ok_or_else(|| {
                validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
            })?,
    };
    let session = Session {
        access_key_id: random_id("ASIA"),
        secret: random_secret(),
        role: name.clone(),
        role_id: role.id.clone(),
        name: session_name.to_owned(),
        expires_ms: call.now_ms + seconds * 1_000,
    };
    let token = session.token(call.core);
    let credentials = [
        element("AccessKeyId", &session.access_key_id),
        element("SecretAccessKey", &session.secret),
        element("SessionToken", &token),
        element("Expiration", &rfc3339(session.expires_ms)),
    ]
    .concat();
    let user = [
        element("AssumedRoleId", &format!("{}:{session_name}", role.id)),
        element("Arn", &call.core.names.session_arn(name, session_name)),
    ]
    .concat();
    Ok(format!(
        "<Credentials>{credentials}</Credentials><AssumedRoleUser>{user}</AssumedRoleUser>"
    ))
}

fn caller_identity(call: &mut Call<'_>, _form: &Form) -> Result<String, Fault> {
    let parts = [
        element("Arn", &call.caller.asker.arn),
        element("UserId", &call.caller.user_id),
        element("Account", &call.core.names.account),
    ];
    Ok(parts.concat())
}

fn create_role(call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    let name = authorised(call, form, "iam:CreateRole")?;
    let trust = form.required("AssumeRolePolicyDocument")?;
    if form.text("Path").is_some_and(|path| path != "/") || form.has_any("PermissionsBoundary") {
        return Err(validation(
            "paths and permissions boundaries are not supported by this key server",
        ));
    }
    let session_seconds_max = match form.text("MaxSessionDuration") {
        None => SESSION_SECONDS_DEFAULT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|seconds| (SESSION_SECONDS_DEFAULT..=SESSION_SECONDS_MAX).contains(seconds))
            .ok_or_else(|| validation("MaxSessionDuration is from 3600 to 43200 seconds"))?,
    };
    let description = form.text("Description").unwrap_or_default();
    if description.len() > 1_000 {
        return Err(validation("Description has at most 1000 bytes"));
    }
    let mut records = call.core.write();
    check_trust(call, &records, trust)?;
    if records.roles.contains_key(name) {
        let message = format!("Role with name {name} already exists.");
        return Err(Fault::new("EntityAlreadyExists", message).with_status(409));
    }
    if records.roles.len() >= ROLES_MAX {
        let message = format!("This key server holds at most {ROLES_MAX} roles.");
        return Err(Fault::new("LimitExceeded", message).with_status(409));
    }
    let role = Role {
        name: name.to_owned(),
        id: random_id("AROA"),
        created_ms: call.now_ms,
        description: description.to_owned(),
        trust: trust.to_owned(),
        policies: BTreeMap::new(),
        session_seconds_max,
    };
    let shown = shown_role(call, &role);
    put(call, &mut records, role)?;
    Ok(shown)
}

fn read_role(call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    let name = authorised(call, form, "iam:GetRole")?;
    let records = call.core.read();
    Ok(shown_role(call, existing(&records, name)?))
}

fn list_roles(call: &mut Call<'_>, _form: &Form) -> Result<String, Fault> {
    allowed(call, "iam:ListRoles", "*")?;
    let records = call.core.read();
    let members: String = records
        .roles
        .values()
        .map(|role| {
            shown_role(call, role)
                .replace("<Role>", "<member>")
                .replace("</Role>", "</member>")
        })
        .collect();
    Ok(format!("<Roles>{members}</Roles><IsTruncated>false</IsTruncated>"))
}

fn delete_role(call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    let name = authorised(call, form, "iam:DeleteRole")?;
    let mut records = call.core.write();
    if !existing(&records, name)?.policies.is_empty() {
        let message = "Cannot delete entity, must delete policies first.";
        return Err(Fault::new("DeleteConflict", message).with_status(409));
    }
    call.core.commit(vec![Change::Remove(hashed("role", name))])?;
    records.roles.remove(name);
    Ok(String::new())
}

fn update_trust(call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    let name = authorised(call, form, "iam:UpdateAssumeRolePolicy")?;
    let trust = form.required("PolicyDocument")?;
    let mut records = call.core.write();
    check_trust(call, &records, trust)?;
    let role = Role {
        trust: trust.to_owned(),
        ..existing(&records, name)?.clone()
    };
    put(call, &mut records, role)
}

fn put_policy(call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    let name = authorised(call, form, "iam:PutRolePolicy")?;
    let policy_name = valid_name(form.required("PolicyName")?, 128)?;
    let document = form.required("PolicyDocument")?;
    Policy::parse(document, Kind::Identity).map_err(malformed)?;
    let mut records = call.core.write();
    let mut role = existing(&records, name)?.clone();
    role.policies.insert(policy_name.to_owned(), document.to_owned());
    if role.policies.len() > ROLE_POLICIES_MAX {
        let message = format!("A role has at most {ROLE_POLICIES_MAX} inline policies here.");
        return Err(Fault::new("LimitExceeded", message).with_status(409));
    }
    put(call, &mut records, role)
}

fn read_policy(call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    let name = authorised(call, form, "iam:GetRolePolicy")?;
    let policy_name = form.required("PolicyName")?;
    let records = call.core.read();
    let document = existing(&records, name)?
        .policies
        .get(policy_name)
        .ok_or_else(|| no_policy(policy_name))?;
    let parts = [
        element("RoleName", name),
        element("PolicyName", policy_name),
        element("PolicyDocument", &percent_encoded(document)),
    ];
    Ok(parts.concat())
}

fn delete_policy(call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    let name = authorised(call, form, "iam:DeleteRolePolicy")?;
    let policy_name = form.required("PolicyName")?;
    let mut records = call.core.write();
    let mut role = existing(&records, name)?.clone();
    role.policies
        .remove(policy_name)
        .ok_or_else(|| no_policy(policy_name))?;
    put(call, &mut records, role)
}

fn list_policies(call: &mut Call<'_>, form: &Form) -> Result<String, Fault> {
    let name = authorised(call, form, "iam:ListRolePolicies")?;
    let records = call.core.read();
    let members: String = existing(&records, name)?
        .policies
        .keys()
        .map(|policy| element("member", policy))
        .collect();
    Ok(format!(
        "<PolicyNames>{members}</PolicyNames><IsTruncated>false</IsTruncated>"
    ))
}

/// The role's name, if it is well-formed and the caller may do `action` to it.
fn authorised<'a>(call: &mut Call<'_>, form: &'a Form, action: &str) -> Result<&'a str, Fault> {
    let name = valid_name(form.required("RoleName")?, 64)?;
    let arn = call.core.names.role_arn(name);
    call.used.push((arn.clone(), "AWS::IAM::Role"));
    allowed(call, action, &arn)?;
    Ok(name)
}

fn allowed(call: &Call<'_>, action: &str, resource: &str) -> Result<(), Fault> {
    let decision = identity_allows(&call.caller.asker, action, resource, &call.caller.values);
    call.refuse(action, resource, decision).map_err(|fault| {
        Fault {
            code: "AccessDenied",
            ..fault
        }
        .with_status(403)
    })
}

fn valid_name(name: &str, bytes_max: usize) -> Result<&str, Fault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if name.len() > bytes_max || !name.bytes().all(plain) {
        return Err(validation(format!(
            "a name has 1 to {bytes_max} of the characters a-zA-Z0-9_+=,.@-"
        )));
    }
    Ok(name)
}

fn check_trust(call: &Call<'_>, records: &Records, text: &str) -> Result<(), Fault> {
    let trust = Policy::parse(text, Kind::Trust).map_err(malformed)?;
    let own = call.core.names.user_arn("");
    let unknown = trust.principal_arns().find(|arn| {
        arn.strip_prefix(own.as_str())
            .is_some_and(|user| !records.users.contains_key(user))
    });
    match unknown {
        Some(arn) => Err(malformed(PolicyFault(format!(
            "Invalid principal in policy: \"AWS\":\"{}\"",
            printable(arn)
        )))),
        None => Ok(()),
    }
}

fn existing<'r>(records: &'r Records, name: &str) -> Result<&'r Role, Fault> {
    let missing = || {
        Fault::new(
            "NoSuchEntity",
            format!("The role with name {} cannot be found.", printable(name)),
        )
        .with_status(404)
    };
    records.roles.get(name).ok_or_else(missing)
}

fn no_policy(name: &str) -> Fault {
    let message = format!("The role policy with name {} cannot be found.", printable(name));
    Fault::new("NoSuchEntity", message).with_status(404)
}

fn put(call: &Call<'_>, records: &mut Records, role: Role) -> Result<String, Fault> {
    call.core.commit(vec![Change::put(hashed("role", &role.name), &role)])?;
    records.roles.insert(role.name.clone(), role);
    Ok(String::new())
}

fn shown_role(call: &Call<'_>, role: &Role) -> String {
    let parts = [
        element("Path", "/"),
        element("RoleName", &role.name),
        element("RoleId", &role.id),
        element("Arn", &call.core.names.role_arn(&role.name)),
        element("CreateDate", &rfc3339(role.created_ms)),
        element("AssumeRolePolicyDocument", &percent_encoded(&role.trust)),
        element("Description", &role.description),
        element("MaxSessionDuration", &role.session_seconds_max.to_string()),
    ];
    format!("<Role>{}</Role>", parts.concat())
}

fn validation(message: impl Into<String>) -> Fault {
    Fault::new("ValidationError", message)
}

fn malformed(fault: PolicyFault) -> Fault {
    Fault::new("MalformedPolicyDocument", fault.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{query::percent_encoded, testing::with_call};

    const TRUST: &str = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"}}"#;

    fn form(fields: &[(&str, &str)]) -> Form {
        let pairs: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", percent_encoded(value)))
            .collect();
        Form::parse(pairs.join("&").as_bytes()).unwrap()
    }

    fn role(name: &str, policies: usize) -> (String, Role) {
        let role = Role {
            name: name.to_owned(),
            id: random_id("AROA"),
            created_ms: 0,
            description: String::new(),
            trust: TRUST.to_owned(),
            policies: (0..policies)
                .map(|number| (format!("p{number}"), "{}".to_owned()))
                .collect(),
            session_seconds_max: SESSION_SECONDS_DEFAULT,
        };
        (name.to_owned(), role)
    }

    #[test]
    fn roles_and_their_policies_are_limited() {
        let mut roles: BTreeMap<String, Role> = (0..ROLES_MAX - 2)
            .map(|number| role(&format!("r{number}"), 0))
            .collect();
        roles.extend([role("full", ROLE_POLICIES_MAX - 1)]);
        with_call(
            Records {
                roles,
                ..Records::default()
            },
            |call| {
                let make = |name: &str| form(&[("RoleName", name), ("AssumeRolePolicyDocument", TRUST)]);
                create_role(call, &make("last")).unwrap();
                assert_eq!(create_role(call, &make("more")).unwrap_err().code, "LimitExceeded");
                assert_eq!(
                    create_role(call, &make("last")).unwrap_err().code,
                    "EntityAlreadyExists"
                );
                let may = r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#;
                let put = |name: &str| form(&[("RoleName", "full"), ("PolicyName", name), ("PolicyDocument", may)]);
                put_policy(call, &put("last")).unwrap();
                put_policy(call, &put("last")).unwrap();
                assert_eq!(put_policy(call, &put("more")).unwrap_err().code, "LimitExceeded");
            },
        );
    }

    #[test]
    fn sessions_have_a_length_and_a_name() {
        with_call(
            Records {
                roles: [role("r", 0)].into(),
                ..Records::default()
            },
            |call| {
                let mut code = |name: &str, seconds: &str| {
                    let arn = "arn:aws:iam::000000000000:role/r";
                    let fields = [
                        ("RoleArn", arn),
                        ("RoleSessionName", name),
                        ("DurationSeconds", seconds),
                    ];
                    assume_role(call, &form(&fields)).err().map(|fault| fault.code)
                };
                assert_eq!(code("ok", "900"), None);
                assert_eq!(code("ok", "3600"), None);
                for seconds in ["899", "3601", "-1", "x"] {
                    assert_eq!(code("ok", seconds), Some("ValidationError"), "{seconds}");
                }
                assert_eq!(code(&"n".repeat(64), "900"), None);
                for name in ["n", "a/b", &"n".repeat(65)] {
                    assert_eq!(code(name, "900"), Some("ValidationError"), "{name}");
                }
            },
        );
    }
}
