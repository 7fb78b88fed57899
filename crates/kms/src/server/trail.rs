//! The log of every call, as CloudTrail writes KMS events: JSON lines in `cloudtrail.jsonl`.
//!
//! What it is for: seeing which service used a key, when and why. A line is in the file before its call is answered,
//! and a call whose line cannot be written is answered with an error. What it deliberately does not do: it holds no
//! plaintext, no ciphertext and no secrets, and it is not cut or rotated; that is the operator's.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Mutex,
};

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{fault::Fault, names::Names, records::Milliseconds};

/// File name inside the server's directory.
pub(super) const FILE_NAME: &str = "cloudtrail.jsonl";
/// Longest user agent that is kept, in bytes (CloudTrail: about 1 KB).
const USER_AGENT_BYTES_MAX: usize = 1_024;

/// The open log.
pub(super) struct Trail {
    file: Mutex<File>,
}

/// One call, as far as it got.
pub(super) struct Event<'a> {
    pub(super) names: &'a Names,
    pub(super) at_ms: Milliseconds,
    pub(super) service: &'a str,
    pub(super) operation: &'a str,
    pub(super) identity: Value,
    pub(super) source: IpAddr,
    pub(super) user_agent: &'a str,
    pub(super) request_id: &'a str,
    pub(super) read_only: bool,
    pub(super) parameters: Option<Value>,
    pub(super) response: Option<Value>,
    /// ARN and CloudTrail type of each thing that was used.
    pub(super) resources: &'a [(String, &'static str)],
    pub(super) fault: Option<&'a Fault>,
}

impl Trail {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE_NAME);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Appends one line, in one write.
    pub(super) fn record(&self, event: &Event<'_>) -> io::Result<()> {
        let mut line = event.json().to_string();
        line.push('\n');
        self.file
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .write_all(line.as_bytes())
    }
}

impl Event<'_> {
    fn json(&self) -> Value {
        let resources: Vec<Value> = self
            .resources
            .iter()
            .map(|(arn, kind)| json!({ "accountId": self.names.account, "type": kind, "ARN": arn }))
            .collect();
        let mut event = json!({
            "eventVersion": "1.08",
            "userIdentity": self.identity,
            "eventTime": rfc3339(self.at_ms),
            "eventSource": format!("{}.amazonaws.com", self.service),
            "eventName": self.operation,
            "awsRegion": self.names.region,
            "sourceIPAddress": self.source.to_string(),
            "userAgent": self.user_agent.chars().take(USER_AGENT_BYTES_MAX).collect::<String>(),
            "requestParameters": self.parameters,
            "responseElements": self.response,
            "requestID": self.request_id,
            "eventID": uuid::Uuid::new_v4().to_string(),
            "readOnly": self.read_only,
            "resources": resources,
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": self.names.account,
            "eventCategory": "Management",
        });
        if let Some(fault) = self.fault {
            event["errorCode"] = json!(fault.code);
            event["errorMessage"] = json!(fault.message);
        }
        event
    }
}

/// A time as CloudTrail and IAM write it: whole seconds, UTC.
pub(super) fn rfc3339(at_ms: Milliseconds) -> String {
    OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1_000))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// Request parameters that may be logged. What is not listed (plaintext, ciphertext, anything new) is left out.
const PARAMETERS: &[&str] = &[
    "AliasName",
    "AliasPrefix",
    "BypassPolicyLockoutSafetyCheck",
    "CustomerMasterKeySpec",
    "Description",
    "DestinationEncryptionContext",
    "DestinationKeyId",
    "DryRun",
    "EncryptionAlgorithm",
    "EncryptionContext",
    "KeyId",
    "KeySpec",
    "KeyUsage",
    "Limit",
    "Marker",
    "MultiRegion",
    "NumberOfBytes",
    "Origin",
    "PendingWindowInDays",
    "Policy",
    "PolicyName",
    "SourceEncryptionContext",
    "SourceKeyId",
    "TagKeys",
    "Tags",
    "TargetKeyId",
];

/// The part of a KMS request that CloudTrail shows, with its way of writing names.
pub(super) fn kms_parameters(request: &Map<String, Value>) -> Option<Value> {
    let shown: Map<String, Value> = request
        .iter()
        .filter(|(name, _)| PARAMETERS.contains(&name.as_str()))
        .map(|(name, value)| (lower_first(name), value.clone()))
        .collect();
    (!shown.is_empty()).then_some(Value::Object(shown))
}

/// A KMS answer as CloudTrail shows it: only of calls that change something, which return no key bytes.
pub(super) fn kms_response(answer: &Value) -> Option<Value> {
    answer
        .as_object()
        .filter(|fields| !fields.is_empty())
        .map(|_| lowered(answer))
}

fn lowered(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (lower_first(name), lowered(value)))
            .collect(),
        Value::Array(values) => values.iter().map(lowered).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn lower_first(name: &str) -> String {
    let mut letters = name.chars();
    letters
        .next()
        .map(|first| first.to_ascii_lowercase().to_string() + letters.as_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_parameters_are_logged() {
        let request = json!({ "KeyId": "k", "Plaintext": "c2VjcmV0", "CiphertextBlob": "AA==", "New": 1,
            "EncryptionContext": { "saker:database": "d" } });
        let Value::Object(request) = request else {
            panic!("an object")
        };
        let shown = kms_parameters(&request).unwrap();
        assert_eq!(
            shown,
            json!({ "keyId": "k", "encryptionContext": { "saker:database": "d" } })
        );
    }

    #[test]
    fn times_are_whole_seconds_in_utc() {
        assert_eq!(rfc3339(1_440_938_160_999), "2015-08-30T12:36:00Z");
    }
}
