//! The sums over a walk's items: by verdict, kind, zone, key version and root key.

use std::collections::BTreeMap;

use saker_engine::{FindingClass, Verdict, Verification, ZoneOwnerReport, ZoneReport};
use saker_keyring::RootKeyId;
use serde::Serialize;

use super::Facts;

/// How many, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: u64) {
        self.items += 1;
        self.bytes += bytes;
    }
}

/// The report's verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Conclusion {
    /// Everything was opened, and nothing is wrong.
    Verified,
    /// Nothing is wrong, but not everything could be opened.
    Incomplete,
    /// Something is wrong.
    Findings,
}

#[derive(Debug)]
pub(super) struct Summary<'a> {
    pub(super) conclusion: Conclusion,
    pub(super) all: Tally,
    pub(super) frames: u64,
    /// Every verdict, whether or not it was given.
    pub(super) by_verdict: Vec<(Verdict, Tally)>,
    pub(super) by_kind: BTreeMap<&'static str, Tally>,
    pub(super) by_class: BTreeMap<FindingClass, u64>,
    pub(super) zones: Vec<ZoneSummary<'a>>,
    pub(super) roots: Vec<RootSummary<'a>>,
    /// What names no zone, or one that is not known.
    pub(super) without_zone: Tally,
}

#[derive(Debug)]
pub(super) struct ZoneSummary<'a> {
    pub(super) report: &'a ZoneReport,
    pub(super) all: Tally,
    pub(super) frames: u64,
    pub(super) by_verdict: BTreeMap<&'static str, Tally>,
    /// In the order of the report's versions.
    pub(super) by_version: Vec<Tally>,
}

#[derive(Debug)]
pub(super) struct RootSummary<'a> {
    pub(super) root: &'a RootKeyId,
    /// Places in `zones`.
    pub(super) zones: Vec<usize>,
    pub(super) dark_zones: u64,
    pub(super) all: Tally,
}

impl<'a> Summary<'a> {
    pub(super) fn of(facts: &Facts<'a>) -> Self {
        let verification = facts.verification;
        let mut summary = Self {
            conclusion: conclusion(verification),
            all: Tally::default(),
            frames: 0,
            by_verdict: Verdict::ALL.map(|verdict| (verdict, Tally::default())).to_vec(),
            by_kind: BTreeMap::new(),
            by_class: BTreeMap::new(),
            zones: verification.zones.iter().map(ZoneSummary::empty).collect(),
            roots: Vec::new(),
            without_zone: Tally::default(),
        };
        for finding in &verification.findings {
            *summary.by_class.entry(finding.class).or_default() += 1;
        }
        summary.add_items(verification);
        summary.add_roots();
        summary
    }

    fn add_items(&mut self, verification: &Verification) {
        // During a change of root a zone has two records, with different versions.
        let mut places = BTreeMap::new();
        for (place, zone) in self.zones.iter().enumerate() {
            for (index, version) in zone.report.versions.iter().enumerate() {
                places
                    .entry((zone.report.zone, version.version))
                    .or_insert((place, index));
            }
        }
        for item in &verification.items {
            self.all.add(item.bytes);
            self.frames += item.frames;
            self.by_kind.entry(item.kind.as_str()).or_default().add(item.bytes);
            for (verdict, tally) in &mut self.by_verdict {
                if *verdict == item.verdict {
                    tally.add(item.bytes);
                }
            }
            let place = item.zone.zip(item.version).and_then(|key| places.get(&key).copied());
            let zone = place.and_then(|(place, index)| Some((self.zones.get_mut(place)?, index)));
            let Some((zone, index)) = zone else {
                self.without_zone.add(item.bytes);
                continue;
            };
            zone.all.add(item.bytes);
            zone.frames += item.frames;
            zone.by_verdict
                .entry(item.verdict.as_str())
                .or_default()
                .add(item.bytes);
            if let Some(tally) = zone.by_version.get_mut(index) {
                tally.add(item.bytes);
            }
        }
    }

    fn add_roots(&mut self) {
        for (place, zone) in self.zones.iter().enumerate() {
            let root = &zone.report.root;
            let at = self
                .roots
                .iter()
                .position(|known| known.root == root)
                .unwrap_or_else(|| {
                    self.roots.push(RootSummary {
                        root,
                        zones: Vec::new(),
                        dark_zones: 0,
                        all: Tally::default(),
                    });
                    self.roots.len() - 1
                });
            if let Some(root) = self.roots.get_mut(at) {
                root.zones.push(place);
                root.dark_zones += u64::from(zone.report.dark.is_some());
                root.all.items += zone.all.items;
                root.all.bytes += zone.all.bytes;
            }
        }
    }

    pub(super) fn verdict(&self, verdict: Verdict) -> Tally {
        let found = self.by_verdict.iter().find(|(other, _)| *other == verdict);
        found.map_or_else(Tally::default, |(_, tally)| *tally)
    }
}

impl<'a> ZoneSummary<'a> {
    fn empty(report: &'a ZoneReport) -> Self {
        Self {
            report,
            all: Tally::default(),
            frames: 0,
            by_verdict: BTreeMap::new(),
            by_version: vec![Tally::default(); report.versions.len()],
        }
    }
}

impl RootSummary<'_> {
    pub(super) fn state(&self) -> &'static str {
        match self.dark_zones {
            0 => "usable",
            dark if dark == self.zones.len() as u64 => "dark",
            _ => "partly-dark",
        }
    }
}

fn conclusion(verification: &Verification) -> Conclusion {
    let dark =
        verification.dark().next().is_some() || verification.items.iter().any(|item| item.verdict == Verdict::Dark);
    match (verification.is_sound(), dark) {
        (false, _) => Conclusion::Findings,
        (true, true) => Conclusion::Incomplete,
        (true, false) => Conclusion::Verified,
    }
}

/// Whose a zone is: what kind, and which id or name.
pub(super) fn owner_label(facts: &Facts<'_>, owner: ZoneOwnerReport) -> String {
    let verification = facts.verification;
    match owner {
        ZoneOwnerReport::Platform => "platform".to_owned(),
        ZoneOwnerReport::Database(id) => match verification.database_name(id).filter(|_| facts.names) {
            Some(name) => format!("database {name}"),
            None => format!("database {id}"),
        },
        ZoneOwnerReport::Collection(id) => {
            let found = verification.collections.iter().find(|collection| collection.id == id);
            match found.filter(|_| facts.names) {
                Some(collection) => format!("collection {}", collection.name),
                None => format!("collection {id}"),
            }
        }
        ZoneOwnerReport::Other => "another record".to_owned(),
    }
}
