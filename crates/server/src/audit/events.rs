//! What each event of the engine becomes in the audit log.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "events that are no matter of keys are many, and new ones are not audited unasked"
)]

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use saker_audit::{Draft, UnixMs};
use saker_engine::Event;
use saker_keyring::RootKeyId;
use serde_json::{Value, json};

/// The record of an event, and whether it is written at once. `None`: it is no matter of keys, or is recorded as a call
/// of a key service.
pub(super) fn draft_of(now_ms: UnixMs, event: &Event) -> Option<(Draft, bool)> {
    let (name, urgent, details) = match event {
        Event::DatabaseCreated { database, root } => (
            "database-created",
            false,
            json!({ "database": database, "key": root.as_str() }),
        ),
        Event::DatabaseDropped { database } => ("database-dropped", true, json!({ "database": database })),
        Event::CollectionCreated { database, collection } => (
            "collection-created",
            false,
            json!({ "database": database, "collection": collection }),
        ),
        Event::CollectionDropped { database, collection } => (
            "collection-dropped",
            true,
            json!({ "database": database, "collection": collection }),
        ),
        Event::CollectionMoved {
            from_database,
            from_collection,
            database,
            collection,
            headers,
        } => (
            "collection-moved",
            true,
            json!({
                "fromDatabase": from_database,
                "fromCollection": from_collection,
                "database": database,
                "collection": collection,
                "headersRewrapped": headers,
            }),
        ),
        Event::Shredded { receipt } => (
            "keys-destroyed",
            true,
            json!({ "receipt": serde_json::to_value(receipt).unwrap_or(Value::Null) }),
        ),
        Event::ZoneLocked {
            database,
            collection,
            root,
            reason,
        } => (
            "zone-locked",
            true,
            named(
                database,
                collection.as_deref(),
                json!({ "key": root.as_str(), "reason": reason }),
            ),
        ),
        Event::ZoneUnlocked {
            database,
            collection,
            root,
        } => (
            "zone-unlocked",
            false,
            named(database, collection.as_deref(), json!({ "key": root.as_str() })),
        ),
        Event::RotationStarted {
            job,
            kind,
            database,
            collection,
            root,
            from,
            key_version,
        } => (
            "rotation-started",
            true,
            named(
                database,
                collection.as_deref(),
                json!({
                    "job": job,
                    "kind": kind,
                    "key": root.as_str(),
                    "from": from.as_ref().map(RootKeyId::as_str),
                    "keyVersion": key_version,
                }),
            ),
        ),
        Event::RotationFinished {
            job,
            kind,
            database,
            collection,
            root,
            key_version,
            total,
        } => (
            "rotation-finished",
            true,
            named(
                database,
                collection.as_deref(),
                json!({
                    "job": job,
                    "kind": kind,
                    "key": root.as_str(),
                    "keyVersion": key_version,
                    "total": total,
                }),
            ),
        ),
        Event::KeyJobFailed {
            job,
            database,
            collection,
            reason,
        } => (
            "key-job-failed",
            true,
            named(database, collection.as_deref(), json!({ "job": job, "reason": reason })),
        ),
        Event::KeyVersionDestroyed {
            database,
            collection,
            zone,
            key_version,
            root,
            wrapped_sha256,
        } => (
            "key-version-destroyed",
            true,
            named(
                database,
                collection.as_deref(),
                json!({
                    "zone": zone,
                    "keyVersion": key_version,
                    "key": root.as_str(),
                    "wrappedSha256": wrapped_sha256,
                }),
            ),
        ),
        Event::RootChanged {
            database,
            collection,
            from,
            to,
        } => (
            "root-changed",
            true,
            named(
                database,
                collection.as_deref(),
                json!({ "from": from.as_str(), "to": to.as_str() }),
            ),
        ),
        Event::VerificationFailed { database, object } => (
            "verification-failed",
            true,
            json!({ "database": database, "object": object }),
        ),
        // Calls are recorded by who makes them, refusals below, and the rest is no matter of keys.
        _ => return None,
    };
    Some((Draft::new(now_ms, name, details), urgent))
}

fn named(database: &str, collection: Option<&str>, mut details: Value) -> Value {
    details["database"] = json!(database);
    if let Some(collection) = collection {
        details["collection"] = json!(collection);
    }
    details
}

/// Requests that were refused because their zone is locked: the first is recorded, those after it are counted, so that
/// clients that keep asking do not fill the log.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<(String, Option<String>), Refused>>);

#[derive(Debug)]
struct Refused {
    count: u64,
    since_ms: UnixMs,
}

/// How long refusals of one zone are counted before they become a record.
const COUNTED_FOR_MS: u64 = 60_000;

impl Refusals {
    /// Drafts that an event makes due.
    pub(super) fn heard(&self, now_ms: UnixMs, event: &Event) -> Vec<Draft> {
        let mut zones = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Refused { database, collection } => {
                let zone = (database.clone(), collection.clone());
                let Some(refused) = zones.get_mut(&zone) else {
                    let first = drafted(now_ms, &zone, 1, now_ms);
                    let since_ms = now_ms;
                    zones.insert(zone, Refused { count: 0, since_ms });
                    return vec![first];
                };
                refused.count += 1;
                // A clock that was set back makes it due as well.
                if now_ms
                    .checked_sub(refused.since_ms)
                    .is_some_and(|counted| counted < COUNTED_FOR_MS)
                {
                    return Vec::new();
                }
                let draft = drafted(now_ms, &zone, refused.count, refused.since_ms);
                *refused = Refused {
                    count: 0,
                    since_ms: now_ms,
                };
                vec![draft]
            }
            Event::ZoneUnlocked {
                database, collection, ..
            } => {
                let zone = (database.clone(), collection.clone());
                let counted = zones.remove(&zone).filter(|refused| refused.count > 0);
                counted
                    .map(|refused| drafted(now_ms, &zone, refused.count, refused.since_ms))
                    .into_iter()
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Everything that was counted.
    pub(super) fn all(&self, now_ms: UnixMs) -> Vec<Draft> {
        let zones = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let counted = zones.iter().filter(|(_, refused)| refused.count > 0);
        counted
            .map(|(zone, refused)| drafted(now_ms, zone, refused.count, refused.since_ms))
            .collect()
    }
}

fn drafted(now_ms: UnixMs, (database, collection): &(String, Option<String>), count: u64, since_ms: UnixMs) -> Draft {
    let details = json!({ "count": count, "since": saker_audit::to_text(since_ms) });
    Draft::new(
        now_ms,
        "requests-refused",
        named(database, collection.as_deref(), details),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(database: &str) -> Event {
        Event::Refused {
            database: database.into(),
            collection: None,
        }
    }

    fn unlocked(database: &str) -> Event {
        Event::ZoneUnlocked {
            database: database.into(),
            collection: None,
            root: RootKeyId::platform_file(),
        }
    }

    fn counts(drafts: &[Draft]) -> Vec<u64> {
        drafts
            .iter()
            .filter_map(|draft| draft.details["count"].as_u64())
            .collect()
    }

    #[test]
    fn refusals_are_recorded_once_and_then_counted() {
        let refusals = Refusals::default();
        assert_eq!(counts(&refusals.heard(0, &refused("a"))), [1]);
        for at in 1..50 {
            assert!(refusals.heard(at, &refused("a")).is_empty());
        }
        assert_eq!(counts(&refusals.heard(COUNTED_FOR_MS - 1, &refused("b"))), [1]);
        assert_eq!(counts(&refusals.heard(COUNTED_FOR_MS, &refused("a"))), [50]);
        assert!(refusals.heard(COUNTED_FOR_MS + 1, &refused("a")).is_empty());
        assert_eq!(counts(&refusals.heard(COUNTED_FOR_MS + 2, &unlocked("a"))), [1]);
        assert_eq!(counts(&refusals.heard(COUNTED_FOR_MS + 3, &refused("a"))), [1]);
        assert!(refusals.heard(0, &unlocked("b")).is_empty());
        refusals.heard(COUNTED_FOR_MS + 4, &refused("a"));
        assert_eq!(counts(&refusals.all(COUNTED_FOR_MS + 5)), [1]);
        assert!(refusals.all(0).is_empty());
    }

    #[test]
    fn what_concerns_keys_becomes_a_record() {
        let root = RootKeyId::platform_file();
        let locked = Event::ZoneLocked {
            database: "d".into(),
            collection: Some("c".into()),
            root,
            reason: "the key is disabled".into(),
        };
        let (draft, urgent) = draft_of(5, &locked).unwrap();
        assert!(urgent);
        assert_eq!((draft.event.as_str(), draft.time_ms), ("zone-locked", 5));
        let details = json!({
            "database": "d", "collection": "c", "key": "file:platform", "reason": "the key is disabled",
        });
        assert_eq!(Value::Object(draft.details), details);
        let searched = Event::Searched {
            database: "d".into(),
            queries: 1,
        };
        assert!(draft_of(0, &searched).is_none());
    }
}
