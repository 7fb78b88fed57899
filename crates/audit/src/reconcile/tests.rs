//! Whatever one side has alone is found, whichever side it is.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::record::{Draft, Head};

const KEY: &str = "arn:aws:kms:us-east-1:000000000000:key/aaaa";
const START: UnixMs = 1_768_000_000_000;

fn chained(drafts: &[Draft]) -> Vec<Record> {
    let mut head = Head::NONE;
    let mut records = Vec::new();
    for draft in drafts {
        let (line, next) = draft.chained(head);
        records.push(Record::parse(&line).unwrap());
        head = next;
    }
    records
}

fn ours(operation: &str, outcome: &str, error: Option<&str>, calls: &[(Option<&str>, u64)]) -> Draft {
    let calls: Vec<Value> = calls.iter().map(|(id, at)| json!([id, START + at, 20])).collect();
    let details = json!({
        "operation": operation,
        "key": KEY,
        "context": { "saker:database": "d" },
        "reason": "probe",
        "outcome": outcome,
        "error": error,
        "calls": calls,
    });
    Draft::new(START, KEY_CALLS, details)
}

fn event(operation: &str, id: Option<&str>, at: u64, arn: &str) -> Value {
    json!({
        "eventName": operation,
        "eventSource": "kms.amazonaws.com",
        "eventTime": time::to_seconds_text(START + at),
        "userIdentity": { "arn": arn },
        "sourceIPAddress": "192.0.2.1",
        "userAgent": "saker/0.1.0 node/a",
        "requestParameters": { "keyId": KEY, "encryptionContext": { "saker:database": "d" } },
        "requestID": id,
        "resources": [{ "ARN": KEY }],
    })
}

const SAKER: &str = "arn:aws:iam::000000000000:user/saker";
const OTHER: &str = "arn:aws:iam::000000000000:user/mallory";

fn theirs(events: &[Value]) -> TheirRecords {
    let mut records = TheirRecords::default();
    records
        .read("trail", json!({ "Records": events }).to_string().as_bytes())
        .unwrap();
    records
}

#[test]
fn calls_are_matched_by_their_names() {
    let records = chained(&[
        ours("Decrypt", "ok", None, &[(Some("r1"), 0), (Some("r2"), 5_000)]),
        ours("GenerateDataKey", "ok", None, &[(Some("r3"), 6_000)]),
    ]);
    let trail = [
        event("GenerateDataKey", Some("r3"), 6_000, SAKER),
        event("Decrypt", Some("r2"), 5_000, SAKER),
        event("Decrypt", Some("r1"), 0, SAKER),
    ];
    let result = reconcile(&records, theirs(&trail));
    assert!(result.agrees(), "{result:?}");
    assert_eq!((result.matched_by_request_id, result.matched_by_time), (3, 0));
    assert_eq!(result.matched_by_key[KEY], 3);
}

#[test]
fn somebody_elses_use_of_the_key_shows() {
    let records = chained(&[ours("Decrypt", "ok", None, &[(Some("r1"), 0)])]);
    let trail = [
        event("Decrypt", Some("r1"), 0, SAKER),
        event("Decrypt", Some("x1"), 1_000, OTHER),
        event("ReEncrypt", Some("x2"), 2_000, OTHER),
    ];
    let result = reconcile(&records, theirs(&trail));
    assert!(!result.agrees());
    let strangers: Vec<_> = result
        .only_theirs
        .iter()
        .map(|call| call.identity["arn"].as_str())
        .collect();
    assert_eq!(strangers, [Some(OTHER), Some(OTHER)]);
    assert!(result.only_ours.is_empty());
}

#[test]
fn an_answered_call_that_the_key_service_does_not_know_shows() {
    let records = chained(&[ours("Decrypt", "ok", None, &[(Some("r1"), 0), (Some("r2"), 1_000)])]);
    let trail = [
        event("Decrypt", Some("r1"), 0, SAKER),
        event("DescribeKey", Some("x"), 9_000, OTHER),
    ];
    let result = reconcile(&records, theirs(&trail));
    assert!(!result.agrees());
    assert_eq!(result.only_ours.len(), 1);
    assert_eq!(result.only_ours[0].request_id.as_deref(), Some("r2"));
}

#[test]
fn a_call_newer_than_the_trail_is_unconfirmed() {
    let records = chained(&[ours("Decrypt", "ok", None, &[(Some("r1"), 0), (Some("r2"), 60_000)])]);
    let result = reconcile(&records, theirs(&[event("Decrypt", Some("r1"), 0, SAKER)]));
    assert!(result.agrees());
    assert_eq!(result.unconfirmed.len(), 1);
}

#[test]
fn a_call_without_an_answer_is_matched_by_time_or_unconfirmed() {
    let records = chained(&[ours(
        "Decrypt",
        "unavailable",
        Some("timeout"),
        &[(None, 0), (None, 100_000)],
    )]);
    let trail = [
        event("Decrypt", Some("r1"), 1_000, SAKER),
        event("DescribeKey", Some("x"), 200_000, OTHER),
    ];
    let result = reconcile(&records, theirs(&trail));
    assert!(result.agrees(), "{result:?}");
    assert_eq!((result.matched_by_time, result.unconfirmed.len()), (1, 1));
    // Another context, key, operation or time is another call.
    for (name, value) in [
        ("eventName", json!("GenerateDataKey")),
        ("eventTime", json!(time::to_seconds_text(START + 30_000))),
        (
            "requestParameters",
            json!({ "keyId": KEY, "encryptionContext": { "saker:database": "e" } }),
        ),
    ] {
        let mut other = event("Decrypt", Some("r1"), 1_000, SAKER);
        other[name] = value;
        let result = reconcile(&records, theirs(&[other]));
        assert_eq!(result.only_theirs.len(), 1, "{name}");
    }
}

#[test]
fn denied_access_need_not_be_in_the_owners_trail_and_other_denials_must() {
    let end = event("DescribeKey", Some("x"), 60_000, OTHER);
    let of = |error| {
        let records = chained(&[ours("Decrypt", "denied", Some(error), &[(Some("r1"), 0)])]);
        reconcile(&records, theirs(std::slice::from_ref(&end)))
    };
    let denial = saker_keyring::Denial::AccessDenied.to_string();
    assert_eq!(denial, ACCESS_DENIED);
    assert!(of(&denial).agrees());
    assert!(!of(&saker_keyring::Denial::Disabled.to_string()).agrees());
}

#[test]
fn a_call_that_both_have_and_not_alike_shows() {
    let records = chained(&[ours("Decrypt", "ok", None, &[(Some("r1"), 0)])]);
    for (name, value, what) in [
        ("eventName", json!("GenerateDataKey"), "operation"),
        (
            "resources",
            json!([{ "ARN": "arn:aws:kms:us-east-1:000000000000:key/b" }]),
            "key",
        ),
        (
            "requestParameters",
            json!({ "encryptionContext": { "saker:database": "e" } }),
            "encryption context",
        ),
        ("errorCode", json!("DisabledException"), "outcome"),
    ] {
        let mut altered = event("Decrypt", Some("r1"), 0, SAKER);
        altered[name] = value;
        let result = reconcile(&records, theirs(&[altered]));
        assert_eq!(result.different.len(), 1, "{name}");
        assert_eq!(result.different[0].what, what);
        assert!(!result.agrees());
    }
}

#[test]
fn other_keys_and_times_before_our_record_are_counted_only() {
    let records = chained(&[ours("Decrypt", "ok", None, &[(Some("r1"), 0)])]);
    let mut of_another = event("Decrypt", Some("x1"), 0, OTHER);
    of_another["resources"] = json!([{ "ARN": "arn:aws:kms:us-east-1:000000000000:key/b" }]);
    let mut before = event("Decrypt", Some("x2"), 0, OTHER);
    before["eventTime"] = json!(time::to_seconds_text(START - 3_600_000));
    let result = reconcile(
        &records,
        theirs(&[of_another, before, event("Decrypt", Some("r1"), 0, SAKER)]),
    );
    assert!(result.agrees());
    assert_eq!((result.of_other_keys, result.before_our_record), (1, 1));
}

#[test]
fn what_may_be_ours_in_a_gap_is_listed_apart_and_strangers_are_not() {
    let gap = Draft::new(
        START + 50_000,
        GAP,
        json!({ "why": "killed", "from": time::to_text(START + 20_000), "to": time::to_text(START + 50_000) }),
    );
    let records = chained(&[ours("Decrypt", "ok", None, &[(Some("r1"), 0)]), gap]);
    let trail = [
        event("Decrypt", Some("r1"), 0, SAKER),
        event("Decrypt", Some("r2"), 30_000, SAKER),
        event("Decrypt", Some("x1"), 30_000, OTHER),
        event("Decrypt", Some("r3"), 70_000, SAKER),
    ];
    let result = reconcile(&records, theirs(&trail));
    let ids =
        |calls: &[TheirCall]| -> Vec<String> { calls.iter().filter_map(|call| call.request_id.clone()).collect() };
    assert_eq!(ids(&result.only_theirs_in_gaps), ["r2"]);
    assert_eq!(ids(&result.only_theirs), ["x1", "r3"]);
    assert!(!result.agrees());
}

#[test]
fn a_refusal_that_has_only_our_own_name_is_matched_by_it_or_by_time() {
    let mut refused = ours(
        "Decrypt",
        "denied",
        Some("the key is disabled"),
        &[(Some("saker-1"), 0), (Some("saker-2"), 60_000)],
    );
    refused.details.insert("key".into(), json!("vault://transit/k"));
    let records = chained(&[refused]);
    let entry = |id: &str, at: u64, headers: Value| {
        let request = json!({ "id": id, "path": "transit/decrypt/k", "headers": headers });
        json!({ "type": "response", "time": time::to_text(START + at), "error": "no", "request": request })
    };
    let trail = |entries: [Value; 2]| {
        let mut records = TheirRecords::default();
        for entry in entries {
            records.read("audit", entry.to_string().as_bytes()).unwrap();
        }
        records
    };
    let named = |id: &str| json!({ "x-correlation-id": [id] });
    // Named, wherever in time; not named, or only as an HMAC: by time alone.
    let result = reconcile(
        &records,
        trail([
            entry("a", 900_000, named("saker-1")),
            entry("b", 61_000, named("saker-2")),
        ]),
    );
    assert!(result.agrees(), "{result:?}");
    assert_eq!((result.matched_by_request_id, result.matched_by_time), (2, 0));
    let result = reconcile(
        &records,
        trail([
            entry("a", 1_000, Value::Null),
            entry("b", 61_000, named("hmac-sha256:00")),
        ]),
    );
    assert!(result.agrees(), "{result:?}");
    assert_eq!((result.matched_by_request_id, result.matched_by_time), (0, 2));
    // Another one's name, or another time: another call.
    for other in [entry("b", 61_000, named("saker-3")), entry("b", 90_000, Value::Null)] {
        let result = reconcile(&records, trail([entry("a", 1_000, named("saker-1")), other]));
        assert_eq!(result.only_theirs.len(), 1, "{result:?}");
    }
}

#[test]
fn a_trail_delivered_twice_is_no_discrepancy() {
    let records = chained(&[ours("Decrypt", "ok", None, &[(Some("r1"), 0)])]);
    let twice = event("Decrypt", Some("r1"), 0, SAKER);
    assert!(reconcile(&records, theirs(&[twice.clone(), twice])).agrees());
}

#[test]
fn key_services_without_a_record_are_counted_only() {
    let mut draft = ours("Decrypt", "ok", None, &[(None, 0)]);
    draft.details.insert("key".into(), json!("file:platform"));
    let result = reconcile(&chained(&[draft]), TheirRecords::default());
    assert!(result.agrees());
    assert_eq!(result.without_record, 1);
}

proptest! {
    /// Any set of calls, some left out on either side: exactly those are found.
    #[test]
    fn exactly_what_one_side_lacks_is_found(sides in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..40)) {
        let ids: Vec<String> = (0..sides.len()).map(|number| format!("r{number}")).collect();
        let known: Vec<(Option<&str>, u64)> = sides
            .iter()
            .zip(&ids)
            .enumerate()
            .filter(|(_, ((ours, _), _))| *ours)
            .map(|(at, (_, id))| (Some(id.as_str()), at as u64 * 1_000))
            .collect();
        let mut trail: Vec<Value> = sides
            .iter()
            .zip(&ids)
            .enumerate()
            .filter(|(_, ((_, theirs), _))| *theirs)
            .map(|(at, (_, id))| event("Decrypt", Some(id), at as u64 * 1_000, SAKER))
            .collect();
        // The trail goes on after the last call, so that nothing is too new for it.
        trail.push(event("DescribeKey", Some("end"), 1_000_000, OTHER));
        // The key is known from one matched call.
        trail.push(event("Decrypt", Some("first"), 0, SAKER));
        let records = chained(&[
            ours("Decrypt", "ok", None, &[(Some("first"), 0)]),
            ours("Decrypt", "ok", None, &known),
        ]);
        let result = reconcile(&records, theirs(&trail));
        let both = sides.iter().filter(|(ours, theirs)| *ours && *theirs).count();
        prop_assert_eq!(result.matched_by_request_id, both as u64 + 1);
        let alone = |ours: bool| sides.iter().filter(|side| **side == (ours, !ours)).count();
        prop_assert_eq!(result.only_ours.len(), alone(true));
        prop_assert_eq!(result.only_theirs.len(), alone(false));
    }
}
