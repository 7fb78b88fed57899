//! The key service's own record of calls: CloudTrail's files, the local key server's, or OpenBao's audit file.
//!
//! Only what uses a key is of interest; who administers it is its owner's affair.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::time::{self, UnixMs};

/// One use of a key as the key service recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TheirCall {
    /// The key service's name for the request.
    pub request_id: Option<String>,
    /// The caller's own name for it, where that is recorded: OpenBao tells its name in no refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_id: Option<String>,
    /// The key: its ARN, or `vault://MOUNT/NAME`. `None` if the record names none, as when access was denied.
    pub key: Option<String>,
    /// `Decrypt`, `GenerateDataKey`, `Encrypt` ...
    pub operation: String,
    /// Encryption context, where it is recorded in the clear.
    pub context: BTreeMap<String, String>,
    /// When.
    pub time_ms: UnixMs,
    /// When, as text.
    pub time: String,
    /// Who.
    pub identity: Value,
    /// From where.
    pub source: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// What the service refused it with, if it did.
    pub error: Option<String>,
    /// File and line or index in it.
    pub found: String,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub struct TheirRecords {
    /// Uses of keys.
    pub calls: Vec<TheirCall>,
    /// First and last time of any record, of keys or not.
    pub span_ms: Option<(UnixMs, UnixMs)>,
    /// Records of other kinds.
    pub others: u64,
}

/// Why a file is no record of calls.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TrailError {
    /// Not JSON.
    #[error("{name} line {line}: it is no JSON; give CloudTrail's files (unpacked or .gz), or JSON lines of them")]
    Json {
        /// Which file.
        name: String,
        /// Which line.
        line: usize,
    },
    /// JSON, but no record.
    #[error("{found}: it is neither a record of CloudTrail nor of OpenBao's audit file: {missing} is missing")]
    Shape {
        /// Which file, and where in it.
        found: String,
        /// Which field.
        missing: &'static str,
    },
}

/// What uses a key at KMS; everything else is administration.
const USES: &[&str] = &[
    "Decrypt",
    "DeriveSharedSecret",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateDataKeyWithoutPlaintext",
    "GenerateMac",
    "ReEncrypt",
    "Sign",
    "Verify",
    "VerifyMac",
];

impl TheirRecords {
    /// Reads one file: `{"Records": [...]}`, one record, or records as JSON lines.
    ///
    /// # Errors
    /// [`TrailError`]; nothing of a file is passed over in silence.
    pub fn read(&mut self, name: &str, bytes: &[u8]) -> Result<(), TrailError> {
        if let Ok(Value::Object(whole)) = serde_json::from_slice::<Value>(bytes) {
            return match whole.get("Records") {
                Some(Value::Array(records)) => {
                    for (index, record) in records.iter().enumerate() {
                        self.take(&format!("{name} record {}", index + 1), record)?;
                    }
                    Ok(())
                }
                _ => self.take(name, &Value::Object(whole)),
            };
        }
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line_number = index + 1;
            let record = serde_json::from_slice(line).map_err(|_| TrailError::Json {
                name: name.to_owned(),
                line: line_number,
            })?;
            self.take(&format!("{name} line {line_number}"), &record)?;
        }
        Ok(())
    }

    fn take(&mut self, found: &str, record: &Value) -> Result<(), TrailError> {
        let missing = |missing| TrailError::Shape {
            found: found.to_owned(),
            missing,
        };
        let fields = record.as_object().ok_or_else(|| missing("eventName"))?;
        if fields.contains_key("eventName") {
            let time = text(fields, "eventTime").ok_or_else(|| missing("eventTime"))?;
            let time_ms = time::from_text(&time).ok_or_else(|| missing("eventTime"))?;
            self.saw(time_ms);
            match cloudtrail_call(fields, found.to_owned(), time, time_ms) {
                Some(call) => self.calls.push(call),
                None => self.others += 1,
            }
            return Ok(());
        }
        if fields.get("request").is_some_and(Value::is_object) {
            let time = text(fields, "time").ok_or_else(|| missing("time"))?;
            let time_ms = time::from_text(&time).ok_or_else(|| missing("time"))?;
            self.saw(time_ms);
            match transit_call(fields, found.to_owned(), time, time_ms) {
                Some(call) => self.calls.push(call),
                None => self.others += 1,
            }
            return Ok(());
        }
        Err(missing("eventName"))
    }

    fn saw(&mut self, at: UnixMs) {
        self.span_ms = Some(self.span_ms.map_or((at, at), |(from, to)| (from.min(at), to.max(at))));
    }
}

fn cloudtrail_call(event: &Map<String, Value>, found: String, time: String, time_ms: UnixMs) -> Option<TheirCall> {
    let operation = text(event, "eventName")?;
    if text(event, "eventSource")? != "kms.amazonaws.com" || !USES.contains(&operation.as_str()) {
        return None;
    }
    let parameters = event.get("requestParameters").and_then(Value::as_object);
    let resource = event.get("resources").and_then(Value::as_array).and_then(|resources| {
        let arns = resources.iter().filter_map(|resource| resource["ARN"].as_str());
        arns.into_iter().find(|arn| arn.contains(":key/"))
    });
    let named = parameters.and_then(|parameters| text(parameters, "keyId"));
    let context = parameters.and_then(|parameters| parameters.get("encryptionContext"));
    Some(TheirCall {
        request_id: text(event, "requestID"),
        caller_id: None,
        // What was really used, before the name that the caller had for it.
        key: resource.map(str::to_owned).or(named),
        operation,
        context: context.map(pairs).unwrap_or_default(),
        time_ms,
        time,
        identity: event.get("userIdentity").cloned().unwrap_or_default(),
        source: text(event, "sourceIPAddress"),
        user_agent: text(event, "userAgent"),
        error: text(event, "errorCode"),
        found,
    })
}

/// OpenBao's and Vault's audit file has a line for each request and one for each answer; the answer's is complete.
fn transit_call(entry: &Map<String, Value>, found: String, time: String, time_ms: UnixMs) -> Option<TheirCall> {
    if text(entry, "type")? != "response" {
        return None;
    }
    let request = entry.get("request")?.as_object()?;
    let path = text(request, "path")?;
    let mut parts: Vec<&str> = path.split('/').collect();
    let name = parts.pop()?;
    let (operation, depth) = match parts[..] {
        [.., "datakey", "plaintext"] => ("GenerateDataKey", 2),
        [.., "datakey", "wrapped"] => ("GenerateDataKeyWithoutPlaintext", 2),
        [.., "decrypt"] => ("Decrypt", 1),
        [.., "encrypt"] => ("Encrypt", 1),
        [.., "rewrap"] => ("ReEncrypt", 1),
        [.., "export" | "backup"] | [.., "export", _] => ("Export", 1),
        _ => return None,
    };
    let mount = parts.get(..parts.len().checked_sub(depth)?)?.join("/");
    let headers = request.get("headers").and_then(Value::as_object);
    let caller_id = headers
        .and_then(|headers| headers.get("x-correlation-id")?.as_array()?.first()?.as_str())
        // As an HMAC it tells nothing.
        .filter(|id| !id.starts_with("hmac-"));
    Some(TheirCall {
        request_id: text(request, "id"),
        caller_id: caller_id.map(str::to_owned),
        key: Some(format!("vault://{mount}/{name}")),
        operation: operation.to_owned(),
        // Values stand there as HMACs.
        context: BTreeMap::new(),
        time_ms,
        time,
        identity: entry.get("auth").cloned().unwrap_or_default(),
        source: text(request, "remote_address"),
        user_agent: None,
        error: text(entry, "error").filter(|error| !error.is_empty()),
        found,
    })
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn pairs(value: &Value) -> BTreeMap<String, String> {
    let fields = value.as_object().into_iter().flatten();
    fields
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decrypt(id: &str) -> Value {
        json!({
            "eventVersion": "1.11",
            "userIdentity": { "type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/Alice" },
            "eventTime": "2026-01-31T12:00:00Z",
            "eventSource": "kms.amazonaws.com",
            "eventName": "Decrypt",
            "sourceIPAddress": "192.0.2.7",
            "userAgent": "aws-cli/2",
            "requestParameters": { "encryptionContext": { "a": "b" }, "keyId": "alias/x" },
            "requestID": id,
            "resources": [{ "ARN": "arn:aws:kms:us-east-1:111122223333:key/abc" }],
        })
    }

    #[test]
    fn all_three_shapes_of_a_file_are_read() {
        let (one, two) = (decrypt("r1"), decrypt("r2"));
        for bytes in [
            json!({ "Records": [one.clone(), two.clone()] }).to_string(),
            format!("{one}\n\n{two}\n"),
            format!("{one}\n{two}"),
        ] {
            let mut records = TheirRecords::default();
            records.read("f", bytes.as_bytes()).unwrap();
            let ids: Vec<_> = records
                .calls
                .iter()
                .filter_map(|call| call.request_id.as_deref())
                .collect();
            assert_eq!(ids, ["r1", "r2"]);
            assert_eq!(
                records.calls[0].key.as_deref(),
                Some("arn:aws:kms:us-east-1:111122223333:key/abc")
            );
            assert_eq!(records.calls[0].context["a"], "b");
        }
        let mut records = TheirRecords::default();
        records.read("f", one.to_string().as_bytes()).unwrap();
        assert_eq!(records.calls.len(), 1);
    }

    #[test]
    fn what_is_no_use_of_a_key_is_counted_only() {
        let mut other = decrypt("r");
        other["eventName"] = json!("DescribeKey");
        let mut sts = decrypt("r");
        sts["eventSource"] = json!("sts.amazonaws.com");
        let mut records = TheirRecords::default();
        records.read("f", format!("{other}\n{sts}\n").as_bytes()).unwrap();
        assert!(records.calls.is_empty());
        assert_eq!(records.others, 2);
    }

    #[test]
    fn nothing_is_passed_over_in_silence() {
        let mut records = TheirRecords::default();
        let json = |line| TrailError::Json { name: "f".into(), line };
        assert_eq!(
            records.read("f", format!("{}\n{{", decrypt("r")).as_bytes()),
            Err(json(2))
        );
        assert!(matches!(records.read("f", b"{}"), Err(TrailError::Shape { .. })));
        assert!(matches!(records.read("f", b"[1]\n"), Err(TrailError::Shape { .. })));
        assert!(matches!(
            records.read("f", br#"{"eventName": "Decrypt", "eventTime": "soon"}"#),
            Err(TrailError::Shape {
                missing: "eventTime",
                ..
            })
        ));
    }

    #[test]
    fn openbao_answers_are_calls() {
        let entry = |kind: &str, path: &str| {
            json!({
                "time": "2026-01-31T12:00:00.5Z",
                "type": kind,
                "auth": { "display_name": "token-saker" },
                "request": { "id": "r1", "path": path, "remote_address": "192.0.2.9" },
            })
            .to_string()
        };
        let mut records = TheirRecords::default();
        for line in [
            entry("request", "transit/decrypt/one"),
            entry("response", "transit/decrypt/one"),
            entry("response", "team/a/datakey/plaintext/two"),
            entry("response", "sys/health"),
        ] {
            records.read("f", line.as_bytes()).unwrap();
        }
        let seen: Vec<_> = records
            .calls
            .iter()
            .map(|call| (call.operation.as_str(), call.key.as_deref().unwrap_or_default()))
            .collect();
        assert_eq!(
            seen,
            [
                ("Decrypt", "vault://transit/one"),
                ("GenerateDataKey", "vault://team/a/two")
            ]
        );
        assert_eq!(records.others, 2);
    }
}
