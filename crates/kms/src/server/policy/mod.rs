//! The subset of AWS's policy language that this server enforces.
//!
//! What it is for: key policies, trust policies of roles, and identity policies of users and roles, decided as AWS
//! decides within one account. What it deliberately does not do: anything by half. A document that uses an operator,
//! key or form outside the subset is refused when it is put, never stored and ignored.
//!
//! Start reading at [`Policy::parse`], then [`evaluate`].

mod condition;
mod evaluate;
mod pattern;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use condition::Condition;
pub(super) use condition::Values;
pub(super) use evaluate::{Asker, Decision, identity_allows, key_allows, trust_allows};
use pattern::Pattern;

/// Largest policy document, in bytes (AWS: 32 KiB).
pub(super) const POLICY_BYTES_MAX: usize = 32 * 1024;
/// Most statements in a document; AWS has only the size limit, which this stays well within.
const STATEMENTS_MAX: usize = 256;

/// What a document is attached to; decides which elements it must and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key's own policy: principals, `kms:` actions.
    Key,
    /// Who may assume a role: principals, `sts:` actions, no resource.
    Trust,
    /// What a user or role may do: resources, no principal.
    Identity,
}

/// A policy document that was understood in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    statements: Vec<Statement>,
}

/// Why a document was not understood. The text goes into AWS's `MalformedPolicyDocumentException`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PolicyFault(pub(super) String);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Statement {
    deny: bool,
    principals: Vec<Principal>,
    actions: Selection,
    resources: Selection,
    conditions: Vec<Condition>,
}

/// Patterns, or (`NotAction`, `NotResource`) everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selection {
    except: bool,
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Principal {
    /// `*`.
    Anyone,
    /// An account: its identity policies decide.
    Account(String),
    /// One user, role or session.
    Arn(String),
    /// An AWS service; none ever calls this server.
    Service,
}

fn fault<T>(text: impl Into<String>) -> Result<T, PolicyFault> {
    Err(PolicyFault(text.into()))
}

impl Policy {
    /// Reads a document of this kind.
    pub(super) fn parse(text: &str, kind: Kind) -> Result<Self, PolicyFault> {
        if text.len() > POLICY_BYTES_MAX {
            return fault(format!(
                "the policy has {} bytes, at most {POLICY_BYTES_MAX} are allowed",
                text.len()
            ));
        }
        let Ok(Value::Object(document)) = serde_json::from_str(text) else {
            return fault("the policy is not a JSON object");
        };
        for (name, value) in &document {
            match name.as_str() {
                "Version" if matches!(value.as_str(), Some("2012-10-17" | "2008-10-17")) => {}
                "Version" => return fault("Version must be 2012-10-17 or 2008-10-17"),
                "Id" if value.is_string() => {}
                "Statement" => {}
                _ => return fault(format!("unknown policy element {}", shown(name))),
            }
        }
        let statements = match document.get("Statement") {
            Some(Value::Array(statements)) => statements.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => return fault("Statement is missing"),
        };
        if statements.is_empty() || statements.len() > STATEMENTS_MAX {
            return fault(format!("a policy has 1 to {STATEMENTS_MAX} statements"));
        }
        let statements = statements
            .into_iter()
            .map(|value| Statement::parse(value, kind))
            .collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// ARNs of users, roles and sessions that the document names.
    pub(super) fn principal_arns(&self) -> impl Iterator<Item = &str> {
        self.statements
            .iter()
            .flat_map(|statement| &statement.principals)
            .filter_map(|principal| match principal {
                Principal::Arn(arn) => Some(arn.as_str()),
                Principal::Anyone | Principal::Account(_) | Principal::Service => None,
            })
    }
}

impl Statement {
    fn parse(value: &Value, kind: Kind) -> Result<Self, PolicyFault> {
        let Value::Object(fields) = value else {
            return fault("each statement must be an object");
        };
        for name in fields.keys() {
            let allowed = match name.as_str() {
                "Sid" | "Effect" | "Action" | "NotAction" | "Condition" => true,
                "Principal" => kind != Kind::Identity,
                "Resource" | "NotResource" => kind != Kind::Trust,
                "NotPrincipal" => return fault("NotPrincipal is not supported by this key server"),
                _ => false,
            };
            if !allowed {
                return fault(format!("element {} may not stand in a statement here", shown(name)));
            }
        }
        let deny = match fields.get("Effect").and_then(Value::as_str) {
            Some("Allow") => false,
            Some("Deny") => true,
            _ => return fault("Effect must be Allow or Deny"),
        };
        let principals = match (kind, fields.get("Principal")) {
            (Kind::Identity, _) => Vec::new(),
            (_, None) => return fault("Principal is missing"),
            (_, Some(value)) => parse_principals(value)?,
        };
        let actions = Selection::parse(fields, "Action", "NotAction", Pattern::ignoring_case)?;
        let services: &[&str] = match kind {
            Kind::Key => &["kms:"],
            Kind::Trust => &["sts:"],
            Kind::Identity => &["kms:", "sts:", "iam:"],
        };
        if let Some(odd) = actions
            .patterns
            .iter()
            .find(|pattern| !pattern.may_start_with_any(services))
        {
            return fault(format!(
                "action {} is of no service that this policy can speak of",
                shown(odd.as_str())
            ));
        }
        let resources = match kind {
            Kind::Trust => Selection {
                except: false,
                patterns: vec![Pattern::exact_case("*")],
            },
            Kind::Key | Kind::Identity => Selection::parse(fields, "Resource", "NotResource", Pattern::exact_case)?,
        };
        if let Some(odd) = resources
            .patterns
            .iter()
            .find(|p| p.as_str() != "*" && !p.as_str().starts_with("arn:"))
        {
            return fault(format!("resource {} must be * or an ARN", shown(odd.as_str())));
        }
        let conditions = match fields.get("Condition") {
            None => Vec::new(),
            Some(Value::Object(operators)) => condition::parse(operators)?,
            Some(_) => return fault("Condition must be an object"),
        };
        Ok(Self {
            deny,
            principals,
            actions,
            resources,
            conditions,
        })
    }
}

impl Selection {
    fn parse(
        fields: &Map<String, Value>,
        positive: &str,
        negative: &str,
        pattern: fn(&str) -> Pattern,
    ) -> Result<Self, PolicyFault> {
        let (except, value) = match (fields.get(positive), fields.get(negative)) {
            (Some(value), None) => (false, value),
            (None, Some(value)) => (true, value),
            (None, None) => return fault(format!("{positive} is missing")),
            (Some(_), Some(_)) => return fault(format!("{positive} and {negative} exclude each other")),
        };
        let patterns: Vec<Pattern> = texts(value, positive)?.into_iter().map(pattern).collect();
        if patterns.is_empty() {
            return fault(format!("{positive} is empty"));
        }
        Ok(Self { except, patterns })
    }

    fn matches(&self, text: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(text)) != self.except
    }
}

fn parse_principals(value: &Value) -> Result<Vec<Principal>, PolicyFault> {
    let Value::Object(kinds) = value else {
        return match value.as_str() {
            Some("*") => Ok(vec![Principal::Anyone]),
            _ => fault("Principal must be * or an object"),
        };
    };
    let mut principals = Vec::new();
    for (kind, value) in kinds {
        let named = texts(value, "Principal")?;
        match kind.as_str() {
            "AWS" => {
                for text in named {
                    principals.push(parse_aws_principal(text)?);
                }
            }
            "Service" => principals.extend(named.iter().map(|_| Principal::Service)),
            _ => {
                return fault(format!(
                    "principals of kind {} are not supported by this key server",
                    shown(kind)
                ));
            }
        }
    }
    if principals.is_empty() {
        fault("Principal is empty")
    } else {
        Ok(principals)
    }
}

fn parse_aws_principal(text: &str) -> Result<Principal, PolicyFault> {
    let account = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if text == "*" {
        return Ok(Principal::Anyone);
    }
    if account(text) {
        return Ok(Principal::Account(text.to_owned()));
    }
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    if let ["arn", _, service @ ("iam" | "sts"), "", owner, resource] = parts[..]
        && account(owner)
        && !text.contains(['*', '?'])
    {
        if service == "iam" && resource == "root" {
            return Ok(Principal::Account(owner.to_owned()));
        }
        if ["user/", "role/", "assumed-role/"]
            .iter()
            .any(|prefix| resource.starts_with(prefix))
        {
            return Ok(Principal::Arn(text.to_owned()));
        }
    }
    fault(format!(
        "Policy contains a statement with one or more invalid principals: {}",
        shown(text)
    ))
}

/// One text or a list of texts.
fn texts<'a>(value: &'a Value, element: &str) -> Result<Vec<&'a str>, PolicyFault> {
    let all: Option<Vec<&str>> = match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    };
    let Some(all) = all else {
        return fault(format!("{element} must be a text or a list of texts"));
    };
    if all.iter().any(|text| text.contains("${")) {
        return fault(format!(
            "policy variables are not supported by this key server ({element})"
        ));
    }
    Ok(all)
}

fn shown(text: &str) -> String {
    super::names::printable(text)
}
