//! `Condition` elements: which operators and keys there are, and whether one holds.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{PolicyFault, fault, pattern::Pattern, shown, texts};

/// What a request says under each condition key (names in lower case). A key without entry is absent.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Values(BTreeMap<String, Vec<String>>);

impl Values {
    pub(in super::super) fn set(&mut self, key: &str, value: impl Into<String>) {
        self.set_all(key, vec![value.into()]);
    }

    /// For keys with several values; none at all means that the key is absent.
    pub(in super::super) fn set_all(&mut self, key: &str, values: Vec<String>) {
        if !values.is_empty() {
            self.0.insert(key.to_ascii_lowercase(), values);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    One,
    ForAllValues,
    ForAnyValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals,
    EqualsIgnoreCase,
    Like,
    Bool,
    Null,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    quantifier: Quantifier,
    operator: Operator,
    negated: bool,
    if_exists: bool,
    key: String,
    wanted: Vec<String>,
}

/// Keys that a request to this server can have (or that are always absent here, such as `kms:ViaService`).
const KEYS: &[&str] = &[
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principaltype",
    "aws:securetransport",
    "aws:userid",
    "aws:username",
    "kms:bypasspolicylockoutsafetycheck",
    "kms:calleraccount",
    "kms:encryptionalgorithm",
    "kms:encryptioncontextkeys",
    "kms:grantisforawsresource",
    "kms:keyorigin",
    "kms:keyspec",
    "kms:keyusage",
    "kms:requestalias",
    "kms:resourcealiases",
    "kms:viaservice",
    "sts:externalid",
    "sts:rolesessionname",
];

/// Key families: a prefix and any name after it.
const KEY_FAMILIES: &[&str] = &["kms:encryptioncontext:", "aws:resourcetag/"];

/// Most conditions in a statement: bounds the work of one decision.
const CONDITIONS_MAX: usize = 64;

pub(super) fn parse(operators: &Map<String, Value>) -> Result<Vec<Condition>, PolicyFault> {
    let mut conditions = Vec::new();
    for (operator, keys) in operators {
        let Value::Object(keys) = keys else {
            return fault("each condition operator needs an object of keys");
        };
        for (key, value) in keys {
            conditions.push(Condition::parse(operator, key, value)?);
        }
    }
    if conditions.len() > CONDITIONS_MAX {
        return fault(format!("a statement has at most {CONDITIONS_MAX} conditions"));
    }
    Ok(conditions)
}

impl Condition {
    fn parse(operator: &str, key: &str, value: &Value) -> Result<Self, PolicyFault> {
        let (quantifier, name) = match operator.split_once(':') {
            None => (Quantifier::One, operator),
            Some(("ForAllValues", name)) => (Quantifier::ForAllValues, name),
            Some(("ForAnyValue", name)) => (Quantifier::ForAnyValue, name),
            Some(_) => return fault(format!("unknown condition operator {}", shown(operator))),
        };
        let (name, if_exists) = match name.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (operator, negated) = match name {
            "StringEquals" => (Operator::Equals, false),
            "StringNotEquals" => (Operator::Equals, true),
            "StringEqualsIgnoreCase" => (Operator::EqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (Operator::EqualsIgnoreCase, true),
            "StringLike" | "ArnLike" | "ArnEquals" => (Operator::Like, false),
            "StringNotLike" | "ArnNotLike" | "ArnNotEquals" => (Operator::Like, true),
            "Bool" => (Operator::Bool, false),
            "Null" if !if_exists && quantifier == Quantifier::One => (Operator::Null, false),
            _ => {
                return fault(format!(
                    "condition operator {} is not supported by this key server",
                    shown(operator)
                ));
            }
        };
        let lower = key.to_ascii_lowercase();
        let family = KEY_FAMILIES
            .iter()
            .any(|prefix| lower.len() > prefix.len() && lower.starts_with(prefix));
        if !family && !KEYS.contains(&lower.as_str()) {
            return fault(format!(
                "condition key {} is not supported by this key server",
                shown(key)
            ));
        }
        let wanted: Vec<String> = match value {
            Value::Bool(truth) => vec![truth.to_string()],
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                texts(value, "Condition")?.into_iter().map(str::to_owned).collect()
            }
        };
        let truths = matches!(operator, Operator::Bool | Operator::Null);
        if wanted.is_empty() || (truths && !wanted.iter().all(|text| matches!(text.as_str(), "true" | "false"))) {
            return fault(format!(
                "condition key {} has no value that its operator can compare",
                shown(key)
            ));
        }
        Ok(Self {
            quantifier,
            operator,
            negated,
            if_exists,
            key: lower,
            wanted,
        })
    }

    /// Whether the condition holds, with AWS's rules for keys that a request does not have.
    pub(super) fn holds(&self, values: &Values) -> bool {
        let given = values.0.get(&self.key);
        if self.operator == Operator::Null {
            let absent = given.is_none();
            return self.wanted.iter().any(|text| (text == "true") == absent);
        }
        let Some(given) = given else {
            return match self.quantifier {
                _ if self.if_exists => true,
                Quantifier::ForAllValues => true,
                Quantifier::ForAnyValue => false,
                Quantifier::One => self.negated,
            };
        };
        let fits = |value: &String| self.wanted.iter().any(|wanted| self.same(wanted, value)) != self.negated;
        match self.quantifier {
            Quantifier::ForAllValues => given.iter().all(fits),
            Quantifier::ForAnyValue => given.iter().any(fits),
            // With several values and no quantifier: a positive operator wants one that fits, a negated one wants none
            // that is excluded.
            Quantifier::One if self.negated => given.iter().all(fits),
            Quantifier::One => given.iter().any(fits),
        }
    }

    fn same(&self, wanted: &str, value: &str) -> bool {
        match self.operator {
            Operator::Equals | Operator::Bool | Operator::Null => wanted == value,
            Operator::EqualsIgnoreCase => wanted.to_lowercase() == value.to_lowercase(),
            Operator::Like => Pattern::exact_case(wanted).matches(value),
        }
    }
}
