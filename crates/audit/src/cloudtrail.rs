//! Records in the shape of CloudTrail, for tools that read that.
//!
//! A record of calls becomes one event per call, as the key service's own trail has it; everything else becomes a service
//! event of `saker`. What CloudTrail fills with facts that only AWS knows is left out.

use aws_lc_rs::digest;
use serde_json::{Value, json};

use crate::{
    calls::{CallEntry, CallOutcome, CallsDetails, KEY_CALLS},
    record::Record,
    time::to_seconds_text,
};

/// Version of CloudTrail's record format that the shape follows.
const EVENT_VERSION: &str = "1.11";

/// The CloudTrail events of one record.
#[must_use]
pub fn cloudtrail_records(record: &Record) -> Vec<Value> {
    if record.event == KEY_CALLS
        && let Ok(details) = serde_json::from_value::<CallsDetails>(Value::Object(record.details.clone()))
    {
        let calls = details.calls.iter().enumerate();
        return calls
            .map(|(index, call)| call_event(record, &details, index, call))
            .collect();
    }
    vec![service_event(record)]
}

fn call_event(
    record: &Record,
    details: &CallsDetails,
    index: usize,
    CallEntry(id, sent_ms, took_ms): &CallEntry,
) -> Value {
    let key = details.key.as_str();
    let mut parameters = json!({ "encryptionContext": details.context, "keyId": key });
    if details.operation == saker_keyring::KeyOperation::GenerateDataKey {
        parameters["keySpec"] = json!("AES_256");
    }
    let mut event = common(record, index);
    event["eventTime"] = json!(to_seconds_text(sent_ms.saturating_add(*took_ms)));
    event["eventSource"] = json!("kms.amazonaws.com");
    event["eventName"] = json!(details.operation.as_str());
    event["awsRegion"] = json!(details.key.aws_region());
    event["requestParameters"] = parameters;
    event["requestID"] = json!(id);
    event["readOnly"] = json!(true);
    event["eventType"] = json!("AwsApiCall");
    event["managementEvent"] = json!(true);
    event["eventCategory"] = json!("Management");
    event["additionalEventData"]["reason"] = json!(details.reason);
    event["additionalEventData"]["tookMilliseconds"] = json!(took_ms);
    if let Some(account) = key.split(':').nth(4).filter(|_| key.starts_with("arn:")) {
        event["resources"] = json!([{ "accountId": account, "type": "AWS::KMS::Key", "ARN": key }]);
        event["recipientAccountId"] = json!(account);
    }
    if details.outcome != CallOutcome::Ok {
        event["errorCode"] = json!(error_code(details));
        event["errorMessage"] = json!(details.error);
    }
    event
}

/// The words are Saker's own; what AWS's were is in AWS's trail.
fn error_code(details: &CallsDetails) -> &'static str {
    match details.outcome {
        CallOutcome::Ok => "",
        CallOutcome::Denied => "Denied",
        CallOutcome::Unavailable => "Unavailable",
        CallOutcome::Unsupported => "Unsupported",
    }
}

fn service_event(record: &Record) -> Value {
    let mut event = common(record, 0);
    event["eventTime"] = json!(to_seconds_text(record.time_ms));
    event["eventSource"] = json!("saker");
    event["eventName"] = json!(camel(&record.event));
    event["readOnly"] = json!(false);
    event["eventType"] = json!("AwsServiceEvent");
    event["managementEvent"] = json!(true);
    event["eventCategory"] = json!("Management");
    event["serviceEventDetails"] = Value::Object(record.details.clone());
    event
}

fn common(record: &Record, index: usize) -> Value {
    json!({
        "eventVersion": EVENT_VERSION,
        "userIdentity": { "type": "AWSService", "invokedBy": "saker" },
        "sourceIPAddress": "saker",
        "userAgent": concat!("saker/", env!("CARGO_PKG_VERSION")),
        "requestParameters": null,
        "responseElements": null,
        "eventID": event_id(record, index),
        "additionalEventData": {
            "auditSequence": record.sequence,
            "auditHash": record.hash.to_string(),
            "auditPrevious": record.previous.to_string(),
        },
    })
}

/// The same for the same record, whenever it is exported: a UUID of the kind whose bits the maker defines.
fn event_id(record: &Record, index: usize) -> String {
    let text = format!("{}:{index}", record.hash);
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(hash.as_ref().get(..16).unwrap_or(&[0; 16]));
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}

/// `zone-locked` as `ZoneLocked`.
fn camel(event: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
            .unwrap_or_default()
    };
    event.split('-').map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Draft, Head};

    fn record(event: &str, details: Value) -> Record {
        Record::parse(&Draft::new(1_768_000_000_123, event, details).chained(Head::NONE).0).unwrap()
    }

    #[test]
    fn a_record_of_calls_becomes_an_event_for_each() {
        let record = record(
            KEY_CALLS,
            json!({
                "operation": "GenerateDataKey",
                "key": "arn:aws:kms:eu-west-1:111122223333:key/abc",
                "context": { "saker:database": "d" },
                "reason": "create-zone",
                "outcome": "denied",
                "error": "the key is disabled",
                "calls": [["r1", 1_768_000_000_000_u64, 7], [null, 1_768_000_001_000_u64, 3000]],
            }),
        );
        let events = cloudtrail_records(&record);
        assert_eq!(events.len(), 2);
        assert_eq!(events[0]["eventName"], "GenerateDataKey");
        assert_eq!(events[0]["eventSource"], "kms.amazonaws.com");
        assert_eq!(events[0]["awsRegion"], "eu-west-1");
        assert_eq!(events[0]["requestID"], "r1");
        assert_eq!(events[0]["requestParameters"]["keySpec"], "AES_256");
        assert_eq!(
            events[0]["requestParameters"]["encryptionContext"]["saker:database"],
            "d"
        );
        assert_eq!(events[0]["errorMessage"], "the key is disabled");
        assert_eq!(events[0]["recipientAccountId"], "111122223333");
        assert_eq!(events[1]["requestID"], Value::Null);
        assert_eq!(events[1]["eventTime"], to_seconds_text(1_768_000_004_000));
        assert_ne!(events[0]["eventID"], events[1]["eventID"]);
        assert_eq!(events, cloudtrail_records(&record));
    }

    #[test]
    fn everything_else_becomes_a_service_event() {
        let events = cloudtrail_records(&record("zone-locked", json!({ "database": "d" })));
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["eventName"], "ZoneLocked");
        assert_eq!(events[0]["eventSource"], "saker");
        assert_eq!(events[0]["serviceEventDetails"]["database"], "d");
        assert_eq!(events[0]["additionalEventData"]["auditSequence"], 1);
    }
}
