//! The metadata values: what they say of zones, databases and collections, and that each opens under its own key.

use saker_keyring::{FileIdentity, FileKind, Unverified, ZoneId, ZoneRecord};
use saker_model::{CollectionId, DatabaseId};
use saker_storage::MetaKey;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{
    BOOTSTRAP, Collection, CollectionReport, Database, DatabaseReport, FindingClass, Item, ItemKind, Key, REFUSED,
    Verdict, Walk, ZoneOwnerReport,
    form::{Claim, Shape},
    keys::{FoundZone, zone_records},
    no_claim, value_path,
};
use crate::{
    opened::prefix_of,
    records::{ClockRecord, ClusterRecord, CollectionBody, CollectionRecord, DatabaseRecord, Manifest, UserRecord},
};

/// A value that was looked at.
enum Opened {
    /// Its plaintext.
    Plain(Zeroizing<Vec<u8>>),
    /// Dark, or something is wrong with it; that is noted.
    Nothing,
}

impl Walk {
    /// Reads the platform zone's record, the one value that is not sealed.
    pub(super) fn bootstrap(&mut self) -> Option<ZoneRecord> {
        let path = value_path(BOOTSTRAP);
        let value = match self.stores.metadata_value(BOOTSTRAP) {
            Ok(Some(value)) => value,
            Ok(None) => {
                self.out.finding(
                    &path,
                    FindingClass::Missing,
                    "it is missing: nothing can be opened without it; restore the metadata file from a backup",
                );
                return None;
            }
            // Said of the file already.
            Err(_) => return None,
        };
        let record = ZoneRecord::from_bootstrap_value(&value);
        let verdict = match &record {
            Ok(_) => Verdict::Open,
            Err(error) => {
                self.out.finding(&path, FindingClass::Damage, error.to_string());
                Verdict::Refused
            }
        };
        self.out.items.push(Item {
            path,
            kind: ItemKind::Bootstrap,
            collection: None,
            zone: record.as_ref().ok().map(|record| record.zone),
            version: None,
            bytes: value.len() as u64,
            frames: 0,
            verdict,
        });
        record.ok()
    }

    /// Every value under the platform zone. Gives the zones that they name.
    pub(super) fn catalog(&mut self) -> Vec<FoundZone> {
        let mut found = Vec::new();
        for key in std::mem::take(&mut self.keys) {
            match key.split('/').next().unwrap_or_default() {
                _ if key == BOOTSTRAP => {}
                // Under the collections' zones, which are not all known yet.
                "body" | "manifest" => self.keys.push(key),
                kind => self.platform_value(kind, &key, &mut found),
            }
        }
        found
    }

    fn platform_value(&mut self, kind: &str, key: &str, found: &mut Vec<FoundZone>) {
        let allowed = self.platform.iter().map(|record| record.zone).collect();
        let Opened::Plain(plain) = self.value(key, &allowed, None) else {
            return;
        };
        let id = || key.split('/').nth(1).and_then(|id| id.parse::<i64>().ok());
        let mut owner = ZoneOwnerReport::Other;
        let zones = self.zones_in(&plain);
        match kind {
            "cluster" if key == "cluster/record" => {
                let cluster = self.platform.as_ref().map(|record| record.context.cluster.clone());
                if let Some(record) = self.decode::<ClusterRecord>(key, &plain)
                    && Some(&record.cluster) != cluster.as_ref()
                {
                    let problem = "it belongs to another cluster than the platform zone";
                    self.out.finding(&value_path(key), FindingClass::Damage, problem);
                }
            }
            "cluster" if key == "cluster/clock" => {
                self.decode::<ClockRecord>(key, &plain);
            }
            "user" => {
                self.decode::<UserRecord>(key, &plain);
            }
            "database" => {
                if let Some(record) = self.decode::<DatabaseRecord>(key, &plain) {
                    owner = ZoneOwnerReport::Database(record.id);
                    let zones = zones.iter().map(|(_, record)| record.zone).collect();
                    self.database(record, zones);
                }
            }
            "collection" => {
                if let Some(record) = self.decode::<CollectionRecord>(key, &plain) {
                    owner = ZoneOwnerReport::Collection(record.id);
                    let zones = zones.iter().map(|(_, record)| record.zone).collect();
                    self.collection(&record, zones);
                }
            }
            "move" => {
                if let Some(collection) = id().and_then(|id| self.collections.get_mut(&CollectionId(id))) {
                    collection.moving = true;
                }
            }
            // A kind that this version does not interpret: it opened under the platform zone.
            _ => {}
        }
        for (role, record) in zones {
            // A database without a key of its own names the platform's zone.
            let again = self
                .zones
                .of(record.zone)
                .iter()
                .any(|zone| zone.found.record == record)
                || found.iter().any(|zone| zone.record == record);
            if again {
                continue;
            }
            let cluster = self.platform.as_ref().map(|platform| &platform.context.cluster);
            if cluster.is_some_and(|cluster| *cluster != record.context.cluster) {
                let problem = "a zone in it belongs to another cluster";
                self.out.finding(&value_path(key), FindingClass::Damage, problem);
            }
            found.push(FoundZone {
                record,
                owner,
                role,
                place: value_path(key),
            });
        }
    }

    fn zones_in(&self, plain: &[u8]) -> Vec<(String, ZoneRecord)> {
        let value: Option<serde_json::Value> = serde_json::from_slice(plain).ok();
        value.as_ref().map(zone_records).unwrap_or_default()
    }

    fn database(&mut self, record: DatabaseRecord, zones: Vec<ZoneId>) {
        let report = DatabaseReport {
            id: record.id,
            name: record.name,
            customer_key: record.customer_key,
        };
        self.databases.insert(record.id, Database { report, zones });
    }

    fn collection(&mut self, record: &CollectionRecord, zones: Vec<ZoneId>) {
        let report = CollectionReport {
            id: record.id,
            database: record.database,
            name: record.name.clone(),
        };
        let collection = Collection {
            report,
            zones,
            dropping: record.dropping,
            moving: false,
            expected: None,
            flushed: None,
        };
        self.collections.insert(record.id, collection);
    }

    /// The values under the collections' zones.
    pub(super) fn definitions(&mut self) {
        let strays: Vec<(CollectionId, DatabaseId)> = self
            .collections
            .values()
            .filter(|collection| !self.databases.contains_key(&collection.report.database))
            .map(|collection| (collection.report.id, collection.report.database))
            .collect();
        for (collection, database) in strays {
            let path = value_path(&format!("collection/{collection}"));
            self.out.finding(
                &path,
                FindingClass::Damage,
                format!("its database {database} is not there"),
            );
        }
        for key in std::mem::take(&mut self.keys) {
            let id = key.split('/').nth(1).and_then(|id| id.parse().ok()).map(CollectionId);
            let known = id.filter(|id| self.collections.contains_key(id));
            if known.is_none() && self.has_catalog() {
                let problem = "it belongs to no collection of the catalog; the next start removes it";
                self.out.finding(&value_path(&key), FindingClass::Stray, problem);
            }
            let allowed = match id {
                Some(id) => self.zones_of(id),
                None => Default::default(),
            };
            let Opened::Plain(plain) = self.value(&key, &allowed, id) else {
                continue;
            };
            if key.starts_with("body/") {
                self.decode::<CollectionBody>(&key, &plain);
            } else if let Some(manifest) = self.decode::<Manifest>(&key, &plain)
                && let Some(collection) = known.and_then(|id| self.collections.get_mut(&id))
            {
                collection.flushed = manifest.flushed;
                collection.expected = Some(expected_files(collection.report.id, &manifest));
            }
        }
        self.definitions_missing();
    }

    fn definitions_missing(&mut self) {
        let there: std::collections::BTreeSet<String> = self
            .out
            .items
            .iter()
            .filter(|item| item.kind == ItemKind::MetadataValue)
            .map(|item| item.path.clone())
            .collect();
        let wanted: Vec<(String, bool)> = self
            .collections
            .values()
            .flat_map(|collection| {
                ["body", "manifest"].map(|kind| {
                    (
                        value_path(&format!("{kind}/{}", collection.report.id)),
                        collection.dropping,
                    )
                })
            })
            .filter(|(path, _)| !there.contains(path))
            .collect();
        for (path, dropping) in wanted {
            let (class, problem) = if dropping {
                (
                    FindingClass::Leftover,
                    "it is gone: a drop of its collection was interrupted",
                )
            } else {
                (
                    FindingClass::Missing,
                    "it is missing; restore the metadata file from a backup",
                )
            };
            self.out.finding(&path, class, problem);
        }
    }

    /// Opens a value under one of the zones that it may be under, and notes what came of it.
    fn value(
        &mut self,
        key: &str,
        allowed: &std::collections::BTreeSet<ZoneId>,
        collection: Option<CollectionId>,
    ) -> Opened {
        let path = value_path(key);
        let value = match self.stores.metadata_value(key) {
            Ok(Some(value)) => value,
            Ok(None) => {
                self.out.finding(
                    &path,
                    FindingClass::Damage,
                    "it is listed and not there; the metadata file is damaged",
                );
                return Opened::Nothing;
            }
            Err(reason) => {
                self.out
                    .finding(&path, FindingClass::Damage, format!("it cannot be read: {reason}"));
                return Opened::Nothing;
            }
        };
        let mut item = Item {
            path,
            kind: ItemKind::MetadataValue,
            collection,
            zone: None,
            version: None,
            bytes: value.len() as u64,
            frames: 0,
            verdict: Verdict::Refused,
        };
        let outcome = self.open_value(key, &value, allowed, &mut item);
        let opened = match outcome {
            Ok(Some(plain)) => {
                item.verdict = Verdict::Verified;
                item.frames = 1;
                Opened::Plain(plain)
            }
            Ok(None) => {
                item.verdict = Verdict::Dark;
                Opened::Nothing
            }
            Err((class, problem)) => {
                if class == FindingClass::Unsealed {
                    item.verdict = Verdict::Unsealed;
                }
                self.out.finding(&item.path, class, problem);
                Opened::Nothing
            }
        };
        self.out.items.push(item);
        opened
    }

    /// `None` if it is dark.
    fn open_value(
        &self,
        key: &str,
        value: &Unverified,
        allowed: &std::collections::BTreeSet<ZoneId>,
        item: &mut Item,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, (FindingClass, String)> {
        let damage = |problem: &str| (FindingClass::Damage, problem.to_owned());
        let claim = Claim::read(value).map_err(|reason| {
            let (class, _, problem) = no_claim(reason);
            (class, problem.to_owned())
        })?;
        (item.zone, item.version) = (Some(claim.zone), Some(claim.version));
        if claim.shape != Shape::Value || claim.kind != FileKind::Metadata || !claim.fits(value.len() as u64) {
            return Err(damage("it is not sealed as a metadata value"));
        }
        if MetaKey::new(key).is_err() {
            return Err(damage("its key is none that Saker writes"));
        }
        match self.key(&claim, allowed) {
            Key::Dark => Ok(None),
            Key::Wrong(problem) => Err((FindingClass::Damage, problem)),
            Key::Leases(leases) => leases
                .iter()
                .find_map(|lease| lease.open_value(key, value).ok())
                .map(Some)
                .ok_or_else(|| damage(REFUSED)),
        }
    }

    fn decode<T: DeserializeOwned>(&mut self, key: &str, plain: &[u8]) -> Option<T> {
        let decoded = serde_json::from_slice(plain).ok();
        if decoded.is_none() {
            let problem = "it is authentic but of another version; use the version that wrote it";
            self.out.finding(&value_path(key), FindingClass::Damage, problem);
        }
        decoded
    }
}

/// The objects that a manifest names.
fn expected_files(collection: CollectionId, manifest: &Manifest) -> std::collections::BTreeMap<String, FileIdentity> {
    let prefix = prefix_of(collection);
    let segments = manifest.segments.iter().flat_map(|segment| {
        let prefix = &prefix;
        segment.files().map(move |entry| {
            let identity = FileIdentity {
                file: entry.file,
                kind: entry.kind,
            };
            (format!("{prefix}/{}/{}", segment.segment, entry.name), identity)
        })
    });
    let deletes = manifest.key_deletes.iter().map(|entry| {
        let identity = FileIdentity {
            file: entry.file,
            kind: FileKind::Deletes,
        };
        (crate::flush::key_deletes_path(collection, entry.file), identity)
    });
    segments.chain(deletes).collect()
}
