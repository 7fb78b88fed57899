//! Calls of key services, gathered so that a key that is probed every few seconds does not fill the log: calls that are
//! alike become one record, which names each of them.
//!
//! What changes is recorded at once: a probe whose outcome is another than that of the probe before.

use std::collections::BTreeMap;

use saker_keyring::{CallReason, KeyCall, KeyOperation, KeyServiceError, RootKeyId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{record::Draft, time::UnixMs};

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallOutcome {
    /// A key.
    Ok,
    /// A definite no.
    Denied,
    /// No usable answer; whether the key service has a record of it is not known.
    Unavailable,
    /// It was never sent.
    Unsupported,
}

impl CallOutcome {
    /// Of a call.
    #[must_use]
    pub fn of(outcome: &Result<(), KeyServiceError>) -> Self {
        match outcome {
            Ok(()) => Self::Ok,
            Err(KeyServiceError::Denied { .. }) => Self::Denied,
            Err(KeyServiceError::Unavailable { .. }) => Self::Unavailable,
            Err(KeyServiceError::Unsupported { .. }) => Self::Unsupported,
        }
    }
    /// The word for it in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
        }
    }
}

/// One call in a record: the key service's name for it (`null` if none came), when it was sent in milliseconds since
/// 1970, and how many milliseconds it took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEntry(pub Option<String>, pub UnixMs, pub u64);

/// Details of the event `key-calls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallsDetails {
    /// What was asked.
    pub operation: KeyOperation,
    /// Of which key.
    pub key: RootKeyId,
    /// With which encryption context.
    pub context: BTreeMap<String, String>,
    /// What for.
    pub reason: CallReason,
    /// What came of it.
    pub outcome: CallOutcome,
    /// What the key service said, if it was no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Each call.
    pub calls: Vec<CallEntry>,
}

/// The event under which calls are recorded.
pub const KEY_CALLS: &str = "key-calls";
/// The event under which a change of a probe's outcome is recorded.
pub const PROBE_CHANGED: &str = "probe-changed";

/// Calls of one record at most: a record stays below 64 KiB.
pub const CALLS_PER_RECORD_MAX: usize = 1_000;
/// How long calls that repeat what is known wait for others like them. That many milliseconds of them are lost when the
/// process is killed.
pub const PROBES_WITHIN_MS: u64 = 30_000;
/// How long other calls wait.
pub const CALLS_WITHIN_MS: u64 = 500;

/// Batches at most: with as many, all become records.
const BATCHES_MAX: usize = 4_096;

/// Calls that wait for their record.
#[derive(Debug, Default)]
pub(crate) struct CallBatches {
    waiting: BTreeMap<BatchKey, Batch>,
    /// Outcome of each key's last probe.
    probes: BTreeMap<RootKeyId, (CallOutcome, Option<String>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BatchKey {
    root: RootKeyId,
    operation: KeyOperation,
    reason: CallReason,
    outcome: CallOutcome,
    error: Option<String>,
    context: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Batch {
    since_ms: UnixMs,
    calls: Vec<CallEntry>,
}

/// Drafts that are due because of a call, and whether they are urgent.
pub(crate) type Due = (Vec<Draft>, bool);

impl CallBatches {
    /// Adds a call that was reported at `now_ms`. What it makes due at once comes back.
    pub(crate) fn add(&mut self, now_ms: UnixMs, call: &KeyCall) -> Due {
        let outcome = CallOutcome::of(&call.outcome);
        let error = call.outcome.as_ref().err().map(said);
        let key = BatchKey {
            root: call.root.clone(),
            operation: call.operation,
            reason: call.why,
            outcome: outcome.clone(),
            error: error.clone(),
            context: call.context.pairs(),
        };
        let batch = self.waiting.entry(key.clone()).or_insert_with(|| Batch {
            since_ms: now_ms,
            calls: Vec::new(),
        });
        batch.calls.push(CallEntry(
            call.request_id.clone(),
            now_ms.saturating_sub(call.sent_ms_ago),
            call.took_ms,
        ));
        let full = batch.calls.len() >= CALLS_PER_RECORD_MAX;
        let mut due = Vec::new();
        let mut urgent = outcome == CallOutcome::Denied && call.why != CallReason::Probe;
        if call.why == CallReason::Probe {
            let now = (outcome, error);
            let before = self.probes.insert(call.root.clone(), now.clone());
            if before.as_ref() != Some(&now) {
                urgent = true;
                due.extend(self.take(|key, _| key.root == call.root));
                due.push(changed(now_ms, &call.root, before, now));
            }
        }
        if urgent || full {
            due.extend(self.take(|other, _| *other == key));
        }
        if self.waiting.len() >= BATCHES_MAX {
            due.extend(self.all());
        }
        (due, urgent)
    }

    /// Takes what has waited long enough.
    pub(crate) fn due(&mut self, now_ms: UnixMs) -> Vec<Draft> {
        self.take(|key, batch| {
            let within_ms = match key.reason {
                CallReason::Probe => PROBES_WITHIN_MS,
                CallReason::Unlock
                | CallReason::CreateZone
                | CallReason::Rotate
                | CallReason::Validate
                | CallReason::Verify => CALLS_WITHIN_MS,
            };
            // A clock that was set back makes it due as well.
            now_ms
                .checked_sub(batch.since_ms)
                .is_none_or(|waited| waited >= within_ms)
        })
    }

    /// Takes everything.
    pub(crate) fn all(&mut self) -> Vec<Draft> {
        self.take(|_, _| true)
    }

    fn take(&mut self, due: impl Fn(&BatchKey, &Batch) -> bool) -> Vec<Draft> {
        let mut drafts: Vec<Draft> = self
            .waiting
            .extract_if(.., |key, batch| due(key, batch))
            .map(|(key, batch)| drafted(key, batch))
            .collect();
        drafts.sort_by_key(|draft| draft.time_ms);
        drafts
    }
}

/// The record of a batch has the time of its first call.
fn drafted(key: BatchKey, batch: Batch) -> Draft {
    let first_ms = batch.calls.iter().map(|call| call.1).min().unwrap_or(batch.since_ms);
    let details = CallsDetails {
        operation: key.operation,
        key: key.root,
        context: key.context,
        reason: key.reason,
        outcome: key.outcome,
        error: key.error,
        calls: batch.calls,
    };
    Draft::new(first_ms, KEY_CALLS, serde_json::to_value(details).unwrap_or_default())
}

fn changed(
    now_ms: UnixMs,
    root: &RootKeyId,
    before: Option<(CallOutcome, Option<String>)>,
    (outcome, error): (CallOutcome, Option<String>),
) -> Draft {
    let details = json!({
        "key": root.as_str(),
        "before": before.map(|(outcome, _)| outcome),
        "now": outcome,
        "error": error,
    });
    Draft::new(now_ms, PROBE_CHANGED, details)
}

/// What the key service said, without the key's name, which stands beside it.
fn said(error: &KeyServiceError) -> String {
    match error {
        KeyServiceError::Denied { denial, .. } => denial.to_string(),
        KeyServiceError::Unavailable { outage, .. } => outage.to_string(),
        KeyServiceError::Unsupported { reason, .. } => reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use saker_keyring::{Denial, EncryptionContext, KeyPurpose, Outage};

    use super::*;

    fn call(root: &str, why: CallReason, outcome: Result<(), KeyServiceError>, id: u64) -> KeyCall {
        KeyCall {
            operation: KeyOperation::Decrypt,
            root: root.parse().unwrap(),
            context: EncryptionContext {
                cluster: "c".into(),
                database: "d".into(),
                purpose: KeyPurpose::ZoneKey,
            },
            why,
            outcome,
            request_id: Some(format!("request-{id}")),
            sent_ms_ago: 5,
            took_ms: 5,
        }
    }

    const ROOT: &str = "arn:aws:kms:us-east-1:000000000000:key/a";

    fn denied() -> Result<(), KeyServiceError> {
        Err(KeyServiceError::Denied {
            root: ROOT.parse().unwrap(),
            denial: Denial::Disabled,
        })
    }

    fn events(drafts: &[Draft]) -> Vec<&str> {
        drafts.iter().map(|draft| draft.event.as_str()).collect()
    }

    fn ids(draft: &Draft) -> Vec<String> {
        let details: CallsDetails = serde_json::from_value(draft.details.clone().into()).unwrap();
        details.calls.into_iter().filter_map(|call| call.0).collect()
    }

    #[test]
    fn probes_that_say_the_same_become_one_record() {
        let mut batches = CallBatches::default();
        let (due, urgent) = batches.add(1_000, &call(ROOT, CallReason::Probe, Ok(()), 0));
        assert!(urgent, "the first answer is a change");
        assert_eq!(events(&due), [KEY_CALLS, PROBE_CHANGED]);
        for number in 1..7 {
            let now = 1_000 + number * 5_000;
            let (due, urgent) = batches.add(now, &call(ROOT, CallReason::Probe, Ok(()), number));
            assert!(due.is_empty() && !urgent);
        }
        assert!(batches.due(6_000 + PROBES_WITHIN_MS - 1).is_empty());
        let due = batches.due(6_000 + PROBES_WITHIN_MS);
        assert_eq!(events(&due), [KEY_CALLS]);
        assert_eq!(due[0].time_ms, 6_000 - 5);
        assert_eq!(ids(&due[0]).len(), 6);
        assert!(batches.all().is_empty());
    }

    #[test]
    fn a_change_is_due_at_once_with_what_was_before_it() {
        let mut batches = CallBatches::default();
        batches.add(0, &call(ROOT, CallReason::Probe, Ok(()), 0));
        batches.add(5_000, &call(ROOT, CallReason::Probe, Ok(()), 1));
        let (due, urgent) = batches.add(10_000, &call(ROOT, CallReason::Probe, denied(), 2));
        assert!(urgent);
        assert_eq!(events(&due), [KEY_CALLS, KEY_CALLS, PROBE_CHANGED]);
        assert_eq!(
            (ids(&due[0]), ids(&due[1])),
            (vec!["request-1".into()], vec!["request-2".into()])
        );
        assert_eq!(due[2].details["before"], "ok");
        assert_eq!(due[2].details["now"], "denied");
        // The same no again is no news.
        let (due, urgent) = batches.add(15_000, &call(ROOT, CallReason::Probe, denied(), 3));
        assert!(due.is_empty() && !urgent);
        let outage = Err(KeyServiceError::Unavailable {
            root: ROOT.parse().unwrap(),
            outage: Outage::Timeout,
        });
        let (due, _) = batches.add(20_000, &call(ROOT, CallReason::Probe, outage, 4));
        assert_eq!(events(&due), [KEY_CALLS, KEY_CALLS, PROBE_CHANGED]);
    }

    #[test]
    fn a_refused_use_is_due_at_once_and_others_soon() {
        let mut batches = CallBatches::default();
        let (due, urgent) = batches.add(0, &call(ROOT, CallReason::CreateZone, denied(), 0));
        assert!(urgent);
        assert_eq!(events(&due), [KEY_CALLS]);
        let (due, urgent) = batches.add(0, &call(ROOT, CallReason::Unlock, Ok(()), 1));
        assert!(due.is_empty() && !urgent);
        assert!(batches.due(CALLS_WITHIN_MS - 1).is_empty());
        assert_eq!(batches.due(CALLS_WITHIN_MS).len(), 1);
    }

    #[test]
    fn a_record_holds_a_bounded_number_of_calls() {
        let mut batches = CallBatches::default();
        for number in 0..CALLS_PER_RECORD_MAX as u64 - 1 {
            assert!(
                batches
                    .add(0, &call(ROOT, CallReason::Unlock, Ok(()), number))
                    .0
                    .is_empty()
            );
        }
        let (due, _) = batches.add(0, &call(ROOT, CallReason::Unlock, Ok(()), 0));
        assert_eq!(ids(&due[0]).len(), CALLS_PER_RECORD_MAX);
        assert!(batches.add(0, &call(ROOT, CallReason::Unlock, Ok(()), 0)).0.is_empty());
        assert_eq!(batches.all().len(), 1);
    }
}
