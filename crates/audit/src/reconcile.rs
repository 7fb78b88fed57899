//! Saker's record of its calls beside the key service's, call by call: what only one side has shows.
//!
//! A call is matched by the name that the key service gave it. A call that got no answer has no name: it is matched by
//! key, operation, context and time, and it is no discrepancy if the key service never saw it.
//!
//! What is a discrepancy: a use of a key that only the key service has (somebody else used it), and an answered call that
//! only Saker has (its record, or the key service's, is not complete).
//!
//! Start reading at [`reconcile`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use saker_keyring::KeyProvider;
use serde::Serialize;

use crate::{
    calls::{CallOutcome, CallsDetails, KEY_CALLS},
    log::GAP,
    record::Record,
    theirs::{TheirCall, TheirRecords},
    time::{self, UnixMs},
};

/// One call as Saker recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OurCall {
    /// The key service's name for the request; `None` if no answer came.
    pub request_id: Option<String>,
    /// The key.
    pub key: String,
    /// `Decrypt` or `GenerateDataKey`.
    pub operation: String,
    /// Encryption context.
    pub context: BTreeMap<String, String>,
    /// When it was sent.
    pub sent_ms: UnixMs,
    /// When it was sent, as text.
    pub time: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What came of it.
    pub outcome: CallOutcome,
    /// What the key service said, if it was no key.
    pub error: Option<String>,
    /// What it was for.
    pub reason: String,
    /// Number of the record.
    pub sequence: u64,
}

/// A call that both sides have, and not alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// As Saker recorded it.
    pub ours: OurCall,
    /// As the key service recorded it.
    pub theirs: TheirCall,
    /// In what they differ.
    pub what: &'static str,
}

/// A time in which Saker's own record is not complete, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedGap {
    /// Start.
    pub from_ms: UnixMs,
    /// End.
    pub to_ms: UnixMs,
    /// Why.
    pub why: String,
    /// Number of the record that says so.
    pub sequence: u64,
}

/// What a comparison found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciliation {
    /// Calls that both have, by name.
    pub matched_by_request_id: u64,
    /// Calls that both have, by key, operation, context and time.
    pub matched_by_time: u64,
    /// Calls matched, by key.
    pub matched_by_key: BTreeMap<String, u64>,
    /// Uses of a key that only the key service has: somebody else used it.
    pub only_theirs: Vec<TheirCall>,
    /// Of them, those in a time for which Saker's own record is not complete, with the identity and program of calls that
    /// were matched. They may be Saker's; nobody can tell.
    pub only_theirs_in_gaps: Vec<TheirCall>,
    /// Answered calls that only Saker has.
    pub only_ours: Vec<OurCall>,
    /// Calls that both have by name, and not alike.
    pub different: Vec<Difference>,
    /// Calls that only Saker has, and of which the key service need not have a record: no answer came, access was denied
    /// (KMS records that with the caller's account), or they are newer than the newest of its records.
    pub unconfirmed: Vec<OurCall>,
    /// Calls to key services that keep no record: the platform key file, a PKCS#11 token.
    pub without_record: u64,
    /// Uses of keys that Saker never used, in the key service's record.
    pub of_other_keys: u64,
    /// Uses of Saker's keys from before Saker's record begins.
    pub before_our_record: u64,
    /// Times in which Saker's own record is not complete.
    pub gaps: Vec<RecordedGap>,
}

impl Reconciliation {
    /// Nobody else used the keys, and nothing is missing on either side.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.only_theirs.is_empty()
            && self.only_theirs_in_gaps.is_empty()
            && self.only_ours.is_empty()
            && self.different.is_empty()
    }
    /// Calls that both have.
    #[must_use]
    pub fn matched(&self) -> u64 {
        self.matched_by_request_id + self.matched_by_time
    }
}

/// How far the clocks of both sides may differ, and CloudTrail's whole seconds with them.
const SLACK_MS: u64 = 5_000;
/// Time before a start that is counted as not recorded when the process before was killed: what its records wait for
/// at most, and its clock's slack.
const BEFORE_START_MS: u64 = crate::calls::PROBES_WITHIN_MS + SLACK_MS;

/// Compares the audit log's records with what was read of the key services' records.
#[must_use]
pub fn reconcile(records: &[Record], theirs: TheirRecords) -> Reconciliation {
    let mut result = Reconciliation {
        gaps: gaps(records),
        ..Reconciliation::default()
    };
    let mut ours = Vec::new();
    for call in records.iter().flat_map(our_calls) {
        if has_record(&call.key) {
            ours.push(call);
        } else {
            result.without_record += 1;
        }
    }
    let keys: BTreeSet<String> = ours.iter().map(|call| call.key.clone()).collect();
    let (our_begin, their_end) = (
        records.iter().map(|record| record.time_ms).min().unwrap_or(u64::MAX),
        theirs.span_ms.map_or(0, |(_, to)| to),
    );

    let mut matching = Matching::new(ours, theirs.calls);
    matching.by_request_id(&mut result);
    matching.by_time(&mut result);

    let voices: BTreeSet<String> = matching.voices.clone();
    for call in matching.theirs.into_iter().flatten() {
        match &call.key {
            // Somebody else's refused attempt, on whatever: KMS does not say on which key.
            None => result.of_other_keys += 1,
            Some(key) if !keys.iter().any(|ours| same_key(ours, key)) => result.of_other_keys += 1,
            Some(_) if call.time_ms.saturating_add(SLACK_MS) < our_begin => result.before_our_record += 1,
            Some(_) => {
                let in_gap = result
                    .gaps
                    .iter()
                    .any(|gap| call.time_ms + SLACK_MS >= gap.from_ms && call.time_ms <= gap.to_ms + SLACK_MS);
                if in_gap && voices.contains(&voice(&call)) {
                    result.only_theirs_in_gaps.push(call);
                } else {
                    result.only_theirs.push(call);
                }
            }
        }
    }
    for call in matching.ours.into_iter().flatten() {
        let needs_no_record = match call.outcome {
            CallOutcome::Unavailable | CallOutcome::Unsupported => true,
            CallOutcome::Denied => call.error.as_deref() == Some(ACCESS_DENIED),
            CallOutcome::Ok => false,
        };
        // A trail in whole seconds may have the call under the second in which it began.
        if needs_no_record || call.sent_ms.saturating_add(1_000) > their_end {
            result.unconfirmed.push(call);
        } else {
            result.only_ours.push(call);
        }
    }
    result.only_theirs.sort_by_key(|call| call.time_ms);
    result.only_ours.sort_by_key(|call| call.sent_ms);
    result
}

/// What keyring says for a denial of access.
const ACCESS_DENIED: &str = "access to the key is denied";

fn our_calls(record: &Record) -> Vec<OurCall> {
    if record.event != KEY_CALLS {
        return Vec::new();
    }
    let Ok(details) = serde_json::from_value::<CallsDetails>(record.details.clone().into()) else {
        return Vec::new();
    };
    let calls = details.calls.iter().map(|call| OurCall {
        request_id: call.0.clone(),
        key: details.key.as_str().to_owned(),
        operation: details.operation.as_str().to_owned(),
        context: details.context.clone(),
        sent_ms: call.1,
        time: time::to_text(call.1),
        took_ms: call.2,
        outcome: details.outcome.clone(),
        error: details.error.clone(),
        reason: details.reason.as_str().to_owned(),
        sequence: record.sequence,
    });
    calls.collect()
}

fn has_record(key: &str) -> bool {
    key.parse::<saker_keyring::RootKeyId>()
        .is_ok_and(|root| matches!(root.provider(), KeyProvider::Aws | KeyProvider::Vault))
}

/// Records of losses, and starts after an end that was none.
fn gaps(records: &[Record]) -> Vec<RecordedGap> {
    let mut gaps = Vec::new();
    for record in records {
        let at = |name: &str| {
            record
                .details
                .get(name)
                .and_then(|value| time::from_text(value.as_str()?))
        };
        if record.event == GAP {
            let why = record
                .details
                .get("why")
                .and_then(|why| why.as_str())
                .unwrap_or_default();
            gaps.push(RecordedGap {
                from_ms: at("from").unwrap_or(record.time_ms.saturating_sub(BEFORE_START_MS)),
                to_ms: at("to").unwrap_or(record.time_ms),
                why: why.to_owned(),
                sequence: record.sequence,
            });
        }
    }
    gaps
}

/// Who a call came from, with which program.
fn voice(call: &TheirCall) -> String {
    let arn = call.identity["arn"]
        .as_str()
        .or_else(|| call.identity["display_name"].as_str());
    format!(
        "{}\n{}",
        arn.unwrap_or_default(),
        call.user_agent.as_deref().unwrap_or_default()
    )
}

/// KMS's record may name a key by its ARN or by its id alone.
fn same_key(ours: &str, theirs: &str) -> bool {
    ours == theirs || ours.rsplit_once(":key/").is_some_and(|(_, id)| id == theirs)
}

/// Both sides, and what of them is not matched yet.
struct Matching {
    ours: Vec<Option<OurCall>>,
    theirs: Vec<Option<TheirCall>>,
    voices: BTreeSet<String>,
}

impl Matching {
    fn new(ours: Vec<OurCall>, theirs: Vec<TheirCall>) -> Self {
        Self {
            ours: ours.into_iter().map(Some).collect(),
            theirs: theirs.into_iter().map(Some).collect(),
            voices: BTreeSet::new(),
        }
    }

    fn by_request_id(&mut self, result: &mut Reconciliation) {
        let mut named: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, call) in self.theirs.iter().enumerate() {
            let names = call.iter().flat_map(|call| [&call.request_id, &call.caller_id]);
            for id in names.flatten() {
                named.entry(id.clone()).or_default().push(index);
            }
        }
        for slot in &mut self.ours {
            let Some(id) = slot.as_ref().and_then(|call| call.request_id.as_ref()) else {
                continue;
            };
            // A trail that was delivered twice has a call twice: each of ours takes one, the others are duplicates.
            let Some(indexes) = named.get(id) else { continue };
            let mut copies = indexes.iter().filter_map(|&index| self.theirs[index].take());
            let (Some(theirs), Some(ours)) = (copies.next(), slot.take()) else {
                continue;
            };
            copies.for_each(drop);
            match difference(&ours, &theirs) {
                Some(what) => result.different.push(Difference { ours, theirs, what }),
                None => {
                    result.matched_by_request_id += 1;
                    *result.matched_by_key.entry(ours.key).or_default() += 1;
                    self.voices.insert(voice(&theirs));
                }
            }
        }
    }

    /// Matches calls of which one side has no name, the nearest in time first come.
    fn by_time(&mut self, result: &mut Reconciliation) {
        for slot in &mut self.ours {
            let Some(ours) = slot.as_ref() else { continue };
            let nearest = self
                .theirs
                .iter()
                .enumerate()
                .filter_map(|(index, theirs)| Some((index, theirs.as_ref()?)))
                .filter(|(_, theirs)| may_be(ours, theirs))
                .min_by_key(|(_, theirs)| theirs.time_ms.abs_diff(ours.sent_ms + ours.took_ms))
                .map(|(index, _)| index);
            if let Some(index) = nearest {
                if let Some(theirs) = self.theirs[index].take() {
                    self.voices.insert(voice(&theirs));
                }
                result.matched_by_time += 1;
                *result.matched_by_key.entry(ours.key.clone()).or_default() += 1;
                *slot = None;
            }
        }
    }
}

/// What a name starts with that Saker gave a request itself.
const OWN_NAME: &str = "saker-";

/// Whether two calls, not both of them named, may be one.
fn may_be(ours: &OurCall, theirs: &TheirCall) -> bool {
    let theirs_for_it = match ours.request_id.as_deref() {
        // Saker's own name, of a refusal in which the service told none.
        Some(id) if id.starts_with(OWN_NAME) => &theirs.caller_id,
        _ => &theirs.request_id,
    };
    let both_named = ours.request_id.is_some() && theirs_for_it.is_some();
    let (from, to) = (
        ours.sent_ms.saturating_sub(SLACK_MS),
        ours.sent_ms + ours.took_ms + SLACK_MS,
    );
    !both_named
        && (from..=to).contains(&theirs.time_ms)
        && ours.operation == theirs.operation
        && theirs.key.as_ref().is_none_or(|key| same_key(&ours.key, key))
        && (theirs.context.is_empty() || ours.context == theirs.context)
}

/// In what two calls of one name differ. A refused call may be recorded without its details.
fn difference(ours: &OurCall, theirs: &TheirCall) -> Option<&'static str> {
    if ours.operation != theirs.operation {
        return Some("operation");
    }
    if theirs.key.as_ref().is_some_and(|key| !same_key(&ours.key, key)) {
        return Some("key");
    }
    if !theirs.context.is_empty() && ours.context != theirs.context {
        return Some("encryption context");
    }
    if ours.outcome == CallOutcome::Ok && theirs.error.is_some() {
        return Some("outcome");
    }
    None
}

#[cfg(test)]
mod tests;
