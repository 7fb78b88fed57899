//! What the customer's AWS account has to allow, written out: who may take on the role, what the role may do, what the
//! key lets the role do. Nothing in it is left to be filled in.
//!
//! Only `kms:Decrypt` and `kms:GenerateDataKey`, only on the keys named, only with the encryption context of the
//! project's clusters, only for Saker's own identity, and only with the project's external id.
//!
//! Reference: AWS IAM and KMS developer guides (trust policies with external ids, key policies, encryption context
//! condition keys).

use std::collections::BTreeMap;

use saker_keyring::{KeyProvider, RootKeyId};
use serde_json::{Value, json};

use crate::{ControlError, ProjectRecord, Registry, script};

/// The condition key that every call of Saker carries.
const CONTEXT_KEY: &str = "kms:EncryptionContext:saker:cluster";
/// All names that a context of Saker's has ([`EncryptionContext`](saker_keyring::EncryptionContext)).
const CONTEXT_NAMES: [&str; 3] = ["saker:cluster", "saker:database", "saker:purpose"];
/// Name of the role's inline policy.
pub(crate) const ROLE_POLICY_NAME: &str = "saker";

/// What has to be allowed in one AWS account.
#[derive(Clone, Debug, PartialEq)]
pub struct AccountPolicy {
    /// The account that the keys are in.
    pub account: String,
    /// Name of the role that Saker takes on there.
    pub role_name: String,
    /// Its ARN.
    pub role_arn: String,
    /// Who may take it on.
    pub trust_policy: Value,
    /// What it may do.
    pub role_policy: Value,
    /// For each key, the statement that its policy gets.
    pub key_statements: Vec<(RootKeyId, Value)>,
}

/// All that a project needs.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectPolicy {
    /// The project's name.
    pub project: String,
    /// Saker's own identity.
    pub principal: String,
    /// What the roles ask for.
    pub external_id: String,
    /// One for each account that has keys.
    pub accounts: Vec<AccountPolicy>,
}

impl ProjectPolicy {
    /// Everything as commands for bash and the AWS CLI, with what each is for.
    #[must_use]
    pub fn script(&self) -> String {
        script::write(self)
    }
}

/// Name of the role for a project. Holds a part of the project's id, so that two servers' projects of one name do not meet
/// in one account.
#[must_use]
pub fn role_name(project: &ProjectRecord) -> String {
    let id = project.id.as_str();
    let end: String = id.chars().skip(id.len().saturating_sub(8)).collect();
    format!("saker-{}-{end}", project.name)
}

impl Registry {
    /// What has to be allowed so that `principal` can use the project's registered AWS keys, and `extra`, which is not
    /// registered yet.
    ///
    /// # Errors
    /// [`ControlError::ProjectNotFound`]; [`ControlError::NoPolicy`] if there is no key, or `extra` is not AWS's.
    pub fn policy(
        &self,
        project: &str,
        extra: Option<&RootKeyId>,
        principal: &str,
    ) -> Result<ProjectPolicy, ControlError> {
        let project = self.project(project)?;
        if let Some(root) = extra.filter(|root| root.provider() != KeyProvider::Aws) {
            return Err(ControlError::NoPolicy(format!(
                "policies are written for AWS keys, and {root} is with {}",
                root.provider()
            )));
        }
        let registered = project
            .keys
            .iter()
            .map(|key| (key.root.clone(), key.role_arn.as_deref()));
        let mut keys: Vec<_> = registered
            .filter(|(root, _)| root.provider() == KeyProvider::Aws)
            .collect();
        let new = extra.filter(|extra| !keys.iter().any(|(root, _)| root == *extra));
        keys.extend(new.map(|root| (root.clone(), None)));
        if keys.is_empty() {
            return Err(ControlError::NoPolicy(format!(
                "project {} has no registered AWS key; name the key that it will use: --key ARN",
                project.name
            )));
        }
        let mut by_account: BTreeMap<(String, String), Vec<_>> = BTreeMap::new();
        for (root, role_arn) in keys {
            let account = account_of(&root).ok_or_else(|| ControlError::NoPolicy(format!("{root} is no ARN")))?;
            by_account.entry(account).or_default().push((root, role_arn));
        }
        let patterns = self.context_patterns(&project.id);
        let accounts = by_account
            .into_iter()
            .map(|((partition, account), keys)| {
                let role_name = role_name(&project);
                let role_arn = format!("arn:{partition}:iam::{account}:role/{role_name}");
                // The keys whose own policy is to change: the one asked about, or all.
                let is_changed = |root: &RootKeyId| extra.is_none_or(|extra| extra == root);
                // The role is put as a whole: for them, and for those that are used with it already.
                let granted = keys
                    .iter()
                    .filter(|(root, used_with)| is_changed(root) || *used_with == Some(role_arn.as_str()));
                let granted: Vec<_> = granted.map(|(root, _)| root.clone()).collect();
                let changed = granted.iter().filter(|root| is_changed(root));
                let statements = changed.map(|root| (root.clone(), key_statement(&role_name, &role_arn, &patterns)));
                AccountPolicy {
                    trust_policy: trust_policy(principal, &project.external_id),
                    role_policy: role_policy(&granted, &patterns),
                    key_statements: statements.collect(),
                    account,
                    role_name,
                    role_arn,
                }
            })
            .filter(|account| !account.key_statements.is_empty())
            .collect();
        Ok(ProjectPolicy {
            project: project.name,
            principal: principal.to_owned(),
            external_id: project.external_id,
            accounts,
        })
    }
}

fn account_of(root: &RootKeyId) -> Option<(String, String)> {
    let mut parts = root.as_str().split(':').skip(1);
    let partition = parts.next()?;
    let account = parts.nth(2)?;
    Some((partition.to_owned(), account.to_owned()))
}

fn trust_policy(principal: &str, external_id: &str) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "SakerAssumesThisRole",
            "Effect": "Allow",
            "Principal": { "AWS": principal },
            "Action": "sts:AssumeRole",
            "Condition": { "StringEquals": { "sts:ExternalId": external_id } },
        }],
    })
}

fn role_policy(roots: &[RootKeyId], patterns: &[String]) -> Value {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "SakerUsesTheseKeys",
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": roots,
            "Condition": condition(patterns),
        }],
    })
}

fn key_statement(role_name: &str, role_arn: &str, patterns: &[String]) -> Value {
    json!({
        "Sid": key_statement_id(role_name),
        "Effect": "Allow",
        "Principal": { "AWS": role_arn },
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        // In a key's policy, the key itself.
        "Resource": "*",
        "Condition": condition(patterns),
    })
}

/// Names of context keys are compared without regard to case by the first and with it by the second, so that nothing but
/// Saker's own context passes both.
fn condition(patterns: &[String]) -> Value {
    json!({
        "StringLike": { CONTEXT_KEY: patterns },
        "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": CONTEXT_NAMES },
    })
}

/// By which the statement is found again, so that a second run replaces it. Letters and digits only (AWS).
fn key_statement_id(role_name: &str) -> String {
    let plain: String = role_name.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("Use{plain}")
}

/// The principal of a policy for a caller as STS names it: of a role's session, the role.
#[must_use]
pub fn principal_of(caller_arn: &str) -> String {
    let session = caller_arn.split_once(":sts::").and_then(|(partition, rest)| {
        let (account, role) = rest.split_once(":assumed-role/")?;
        let (role, _session) = role.rsplit_once('/')?;
        Some(format!("{partition}:iam::{account}:role/{role}"))
    });
    session.unwrap_or_else(|| caller_arn.to_owned())
}

/// Whether a text is a principal that a policy can name: a user or a role.
#[must_use]
pub fn is_principal(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/_+=,.@-".contains(&byte);
    let named = [":user/", ":role/"].iter().any(|kind| text.contains(kind));
    text.starts_with("arn:aws") && text.contains(":iam::") && named && text.len() <= 2_048 && text.bytes().all(plain)
}

/// Whether a text is a role's ARN.
#[must_use]
pub fn is_role_arn(text: &str) -> bool {
    is_principal(text) && text.contains(":role/")
}
