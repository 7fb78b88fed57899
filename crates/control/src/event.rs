//! Events of a key's owner, as AWS EventBridge delivers them: which keys they are about.
//!
//! An event is never believed. It only says which keys to ask about now, so a forged or a repeated one costs a call and
//! changes nothing.

use saker_keyring::RootKeyId;
use serde_json::Value;
use thiserror::Error;

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    /// What happened at the key service, such as `DisableKey`; for the log.
    pub name: String,
    /// The keys that it is about.
    pub roots: Vec<RootKeyId>,
}

/// Why a body is no event about keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// It is another kind of JSON.
    #[error(
        "not an EventBridge event of AWS KMS: {0}; send events with source aws.kms as EventBridge delivers them, without an \
         input transformer"
    )]
    Foreign(&'static str),
    /// It names more keys than one event can be about.
    #[error("the event names more than {} keys", KeyEvent::KEYS_MAX)]
    TooMany,
}

impl KeyEvent {
    /// Most keys that an event is about. AWS's are about one or two.
    pub const KEYS_MAX: usize = 20;

    /// Reads an EventBridge event with source `aws.kms`: `AWS API Call via CloudTrail` (DisableKey, EnableKey,
    /// ScheduleKeyDeletion, PutKeyPolicy, ...) or one of KMS's own (`KMS CMK Deletion`, `KMS CMK Rotation`).
    ///
    /// # Errors
    /// [`EventError`].
    pub fn parse(event: &Value) -> Result<Self, EventError> {
        let object = event.as_object().ok_or(EventError::Foreign("it is no object"))?;
        if object.get("source").and_then(Value::as_str) != Some("aws.kms") {
            return Err(EventError::Foreign("its source is not aws.kms"));
        }
        let detail = object.get("detail").filter(|detail| detail.is_object());
        let detail = detail.ok_or(EventError::Foreign("it has no detail"))?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let region = text(&detail["awsRegion"]).or_else(|| text(&event["region"]));
        let account = text(&detail["recipientAccountId"]).or_else(|| text(&event["account"]));
        let mut names: Vec<String> = Vec::new();
        names.extend(event["resources"].as_array().into_iter().flatten().filter_map(text));
        for resource in detail["resources"].as_array().into_iter().flatten() {
            names.extend(text(&resource["ARN"]).or_else(|| text(&resource["arn"])));
        }
        names.extend(text(&detail["requestParameters"]["keyId"]));
        names.extend(text(&detail["responseElements"]["keyId"]));
        names.extend(text(&detail["key-id"]));
        let mut roots: Vec<RootKeyId> = Vec::new();
        for name in names {
            let root = name.parse::<RootKeyId>().ok().or_else(|| {
                let (region, account) = (region.as_deref()?, account.as_deref()?);
                format!("arn:aws:kms:{region}:{account}:key/{name}").parse().ok()
            });
            let root = root.filter(|root| root.aws_region().is_some());
            roots.extend(root);
            roots.sort();
            roots.dedup();
            if roots.len() > Self::KEYS_MAX {
                return Err(EventError::TooMany);
            }
        }
        if roots.is_empty() {
            return Err(EventError::Foreign("it names no key by ARN or id"));
        }
        let name = text(&detail["eventName"]).or_else(|| text(&event["detail-type"]));
        let name = name
            .unwrap_or_default()
            .chars()
            .filter(|c| c.is_ascii_graphic() || *c == ' ')
            .take(64)
            .collect();
        Ok(Self { name, roots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ARN: &str = "arn:aws:kms:us-east-1:000000000000:key/abc-1";

    #[expect(clippy::needless_pass_by_value, reason = "callers make it in place")]
    fn cloudtrail(detail: Value) -> Value {
        json!({
            "version": "0", "id": "1", "detail-type": "AWS API Call via CloudTrail", "source": "aws.kms",
            "account": "000000000000", "region": "us-east-1", "resources": [], "detail": detail,
        })
    }

    #[test]
    fn keys_by_arn_and_by_id() {
        let by_arn = cloudtrail(json!({
            "eventName": "DisableKey", "requestParameters": {"keyId": ARN},
            "resources": [{"ARN": ARN, "type": "AWS::KMS::Key"}, {"ARN": "arn:aws:iam::1:role/x"}],
        }));
        let event = KeyEvent::parse(&by_arn).unwrap();
        assert_eq!(
            (event.name.as_str(), event.roots),
            ("DisableKey", vec![ARN.parse().unwrap()])
        );
        let by_id = cloudtrail(json!({"eventName": "PutKeyPolicy", "requestParameters": {"keyId": "abc-1"}}));
        assert_eq!(KeyEvent::parse(&by_id).unwrap().roots, vec![ARN.parse().unwrap()]);
        let own = json!({
            "source": "aws.kms", "detail-type": "KMS CMK Deletion", "account": "000000000000", "region": "us-east-1",
            "resources": [ARN], "detail": {"key-id": "abc-1"},
        });
        let event = KeyEvent::parse(&own).unwrap();
        assert_eq!((event.name.as_str(), event.roots.len()), ("KMS CMK Deletion", 1));
    }

    #[test]
    fn other_things_are_refused() {
        for (value, part) in [
            (json!([]), "no object"),
            (json!({}), "source"),
            (json!({"source": "aws.s3", "detail": {}}), "source"),
            (json!({"source": "aws.kms"}), "no detail"),
            (json!({"source": "aws.kms", "detail": "x"}), "no detail"),
            (cloudtrail(json!({"eventName": "CreateKey"})), "names no key"),
            (
                cloudtrail(json!({"requestParameters": {"keyId": "alias/x"}})),
                "names no key",
            ),
            (
                cloudtrail(json!({"requestParameters": {"keyId": "file:platform"}})),
                "names no key",
            ),
        ] {
            let error = KeyEvent::parse(&value).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        let many = |count: usize| {
            let arns: Vec<_> = (0..count).map(|number| format!("{ARN}{number}")).collect();
            let mut event = cloudtrail(json!({}));
            event["resources"] = json!(arns);
            KeyEvent::parse(&event)
        };
        assert_eq!(many(KeyEvent::KEYS_MAX).unwrap().roots.len(), KeyEvent::KEYS_MAX);
        assert_eq!(many(KeyEvent::KEYS_MAX + 1), Err(EventError::TooMany));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,40}", id in "\\PC{0,40}") {
            let _ = KeyEvent::parse(&cloudtrail(json!({"eventName": text, "requestParameters": {"keyId": id}, "awsRegion": text})));
        }
    }
}
