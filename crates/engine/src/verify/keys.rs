//! The zones that a walk meets, and their keys as far as the key services give them. Only `Decrypt` is asked for.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use futures::{StreamExt, stream};
use saker_keyring::{
    CallReason, Denial, KeyService, KeyServiceError, Lease, Outage, RootKeyId, UnlockError, Zone, ZoneId,
    ZoneKeyVersion, ZoneRecord,
};

use super::report::{Finding, FindingClass, KeyVersionReport, ZoneOwnerReport, ZoneReport};
use crate::zones::decrypt_all;

/// Root keys that are asked for at the same time, and zones of one root key.
const ROOTS_AT_ONCE: usize = 4;
const UNLOCKS_AT_ONCE: usize = 4;

/// A zone that some record names.
#[derive(Clone, Debug)]
pub(super) struct FoundZone {
    pub(super) record: ZoneRecord,
    pub(super) owner: ZoneOwnerReport,
    /// The member of the record that holds it.
    pub(super) role: String,
    /// The key of the metadata value that it was found in.
    pub(super) place: String,
}

/// A zone and its key, if it may be used.
#[derive(Debug)]
pub(super) struct KnownZone {
    pub(super) found: FoundZone,
    pub(super) lease: Result<Lease, String>,
}

/// All zones by id.
#[derive(Debug, Default)]
pub(super) struct Zones(pub(super) BTreeMap<ZoneId, Vec<KnownZone>>);

impl Zones {
    /// The records of a zone: two during a change of root.
    pub(super) fn of(&self, zone: ZoneId) -> &[KnownZone] {
        self.0.get(&zone).map_or(&[], Vec::as_slice)
    }

    /// Gets the keys of these zones and adds them.
    pub(super) async fn unlock(&mut self, keys: &dyn KeyService, found: Vec<FoundZone>, findings: &mut Vec<Finding>) {
        let mut by_root: BTreeMap<RootKeyId, Vec<FoundZone>> = BTreeMap::new();
        for zone in found {
            by_root.entry(zone.record.root.clone()).or_default().push(zone);
        }
        let unlocking = by_root.into_values().map(|zones| unlock_root(keys, zones));
        let mut unlocked = stream::iter(unlocking).buffered(ROOTS_AT_ONCE);
        while let Some(zones) = unlocked.next().await {
            for (found, lease) in zones {
                let lease = lease.map_err(|locked| {
                    if locked.is_finding {
                        findings.push(Finding {
                            what: found.place.clone(),
                            class: FindingClass::Key,
                            problem: format!("the key of zone {}: {}", found.record.zone, locked.reason),
                        });
                    }
                    locked.reason
                });
                let known = self.0.entry(found.record.zone).or_default();
                known.push(KnownZone { found, lease });
            }
        }
    }

    /// The zones for the report, the platform's first.
    pub(super) fn report(&self) -> Vec<ZoneReport> {
        let mut zones: Vec<ZoneReport> = self.0.values().flatten().map(report).collect();
        zones.sort_by(|a, b| (a.owner, &a.role, a.zone).cmp(&(b.owner, &b.role, b.zone)));
        zones
    }
}

impl KnownZone {
    /// Whether the zone has this version of its key.
    pub(super) fn has_version(&self, version: u32) -> bool {
        let wanted = ZoneKeyVersion::new(version);
        self.found.record.versions.iter().any(|(version, _)| *version == wanted)
    }
}

fn report(zone: &KnownZone) -> ZoneReport {
    let record = &zone.found.record;
    let mut versions: Vec<KeyVersionReport> = record
        .versions
        .iter()
        .map(|(version, wrapped)| KeyVersionReport {
            version: version.number(),
            wrapped_sha256: sha256(wrapped.as_bytes()),
        })
        .collect();
    versions.sort_by_key(|version| version.version);
    ZoneReport {
        zone: record.zone,
        root: record.root.clone(),
        owner: zone.found.owner,
        role: zone.found.role.clone(),
        versions,
        dark: zone.lease.as_ref().err().cloned(),
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a zone's keys are not there.
#[derive(Clone, Debug)]
struct Locked {
    reason: String,
    /// It is neither a decision of the key's owner nor an outage.
    is_finding: bool,
    /// It holds for everything under that root key.
    of_root: bool,
}

type Unlocked = Vec<(FoundZone, Result<Lease, Locked>)>;

/// The zones of one root key. One that is disabled or out of reach is asked once and not once a zone.
async fn unlock_root(keys: &dyn KeyService, zones: Vec<FoundZone>) -> Unlocked {
    let mut zones = zones.into_iter();
    let Some(first) = zones.next() else { return Vec::new() };
    let lease = unlocked(keys, &first.record).await;
    let of_root = lease.as_ref().err().filter(|locked| locked.of_root).cloned();
    let mut all = vec![(first, lease)];
    if let Some(locked) = of_root {
        all.extend(zones.map(|zone| (zone, Err(locked.clone()))));
        return all;
    }
    let unlocking = zones.map(|zone| async move {
        let lease = unlocked(keys, &zone.record).await;
        (zone, lease)
    });
    let rest: Unlocked = stream::iter(unlocking).buffered(UNLOCKS_AT_ONCE).collect().await;
    all.extend(rest);
    all
}

async fn unlocked(keys: &dyn KeyService, record: &ZoneRecord) -> Result<Lease, Locked> {
    let refused = |error: UnlockError| Locked {
        reason: error.to_string(),
        is_finding: true,
        of_root: false,
    };
    let plain = decrypt_all(keys, record, CallReason::Verify)
        .await
        .map_err(|error| locked(&error))?;
    let zone = Zone::locked(record.zone);
    zone.unlock(plain).map_err(refused)?;
    zone.lease().map_err(|error| Locked {
        reason: error.to_string(),
        is_finding: true,
        of_root: false,
    })
}

fn locked(error: &KeyServiceError) -> Locked {
    let (is_finding, of_root) = match error {
        KeyServiceError::Denied { denial, .. } => match denial {
            Denial::InvalidCiphertext => (true, false),
            // May hold for one encryption context only.
            Denial::AccessDenied => (false, false),
            Denial::Disabled | Denial::PendingDeletion | Denial::NotFound | Denial::InvalidState => (false, true),
        },
        KeyServiceError::Unavailable { outage, .. } => match outage {
            Outage::WrongKey => (true, false),
            Outage::Timeout | Outage::Unreachable | Outage::Throttled | Outage::Failed | Outage::BadAnswer => {
                (false, true)
            }
        },
        KeyServiceError::Unsupported { .. } => (false, true),
    };
    let reason = if is_finding {
        format!("{error}: the wrapped key was altered or exchanged")
    } else {
        error.to_string()
    };
    Locked {
        reason,
        is_finding,
        of_root,
    }
}

/// Every zone record in a value of the catalog, with the name of the member that holds it: so that a zone is known
/// wherever a record of this or a later version keeps one.
pub(super) fn zone_records(value: &serde_json::Value) -> Vec<(String, ZoneRecord)> {
    let mut found = Vec::new();
    let mut waiting = vec![("record".to_owned(), value)];
    while let Some((name, value)) = waiting.pop() {
        match value {
            serde_json::Value::Object(members) => {
                let looks = ["zone", "root", "context", "versions"]
                    .iter()
                    .all(|name| members.contains_key(*name));
                match serde_json::from_value::<ZoneRecord>(value.clone()) {
                    Ok(record) if looks => found.push((name, record)),
                    _ => waiting.extend(members.iter().rev().map(|(name, member)| (name.clone(), member))),
                }
            }
            serde_json::Value::Array(members) => {
                waiting.extend(members.iter().rev().map(|member| (name.clone(), member)));
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => {}
        }
    }
    found
}
