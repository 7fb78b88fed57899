//! Log streams: the records of each segment are opened in order, and segments that are missing or were cut are missed.

use std::collections::{BTreeMap, BTreeSet};

use saker_keyring::{FileKind, Lease, LogOpener};
use saker_model::CollectionId;
use saker_storage::{LogSequence, ReadOnlySegment, StoredEntry};

use super::{
    FindingClass, Found, Item, ItemKind, Key, REFUSED, Verdict, Walk,
    form::{Claim, Shape},
    no_claim,
};
use crate::codec;

/// Whose a stream is.
#[derive(Clone, Copy)]
enum StreamOwner {
    Collection(CollectionId),
    /// Under the platform zone.
    Platform,
}

/// A stream on the way through its segments.
struct Stream<'a> {
    name: &'a str,
    owner: StreamOwner,
    allowed: BTreeSet<saker_keyring::ZoneId>,
    /// Data records of the segments so far.
    records: BTreeMap<u64, u64>,
    /// Whether the owner is in the catalog.
    known: bool,
}

impl Walk {
    pub(super) fn stream(&self, name: &str, segments: &[(LogSequence, &StoredEntry)], out: &mut Found) {
        let collection = name
            .strip_prefix("collection-")
            .and_then(|id| id.parse().ok())
            .map(CollectionId);
        let owner = collection.map_or(StreamOwner::Platform, StreamOwner::Collection);
        let mut stream = Stream {
            name,
            owner,
            allowed: match owner {
                StreamOwner::Collection(id) => self.zones_of(id),
                StreamOwner::Platform => self.platform.iter().map(|record| record.zone).collect(),
            },
            records: BTreeMap::new(),
            known: collection.is_none_or(|id| self.collections.contains_key(&id)) || !self.has_catalog(),
        };
        let mut segments = segments.to_vec();
        segments.sort_unstable_by_key(|(sequence, _)| *sequence);
        let mut before: Option<LogSequence> = None;
        for (index, (sequence, entry)) in segments.iter().enumerate() {
            if let Some(before) = before
                && before.0.checked_add(1) != Some(sequence.0)
            {
                let what = format!("log/{name}/{:020}.log", before.0 + 1);
                let problem =
                    format!("log segments between {before} and {sequence} are missing; restore them from a backup");
                out.finding(&what, FindingClass::Missing, problem);
            }
            before = Some(*sequence);
            let last = index + 1 == segments.len();
            self.segment(&mut stream, *sequence, entry, last, out);
        }
    }

    fn segment(
        &self,
        stream: &mut Stream<'_>,
        sequence: LogSequence,
        entry: &StoredEntry,
        last: bool,
        out: &mut Found,
    ) {
        let mut item = Item {
            path: entry.path.clone(),
            kind: ItemKind::LogSegment,
            collection: match stream.owner {
                StreamOwner::Collection(id) => Some(id),
                StreamOwner::Platform => None,
            },
            zone: None,
            version: None,
            bytes: entry.bytes,
            frames: 0,
            verdict: Verdict::Refused,
        };
        // One that cannot be read is a finding of its own, and none of the next one.
        stream.records.insert(sequence.0, u64::MAX);
        match self.open_segment(stream, sequence, entry, last, &mut item, out) {
            Ok(verdict) => item.verdict = verdict,
            Err((class, problem)) => {
                if class == FindingClass::Unsealed {
                    item.verdict = Verdict::Unsealed;
                }
                out.finding(&item.path, class, problem);
            }
        }
        if !stream.known {
            if matches!(item.verdict, Verdict::Verified | Verdict::Dark) {
                let problem = "it belongs to no collection of the catalog; the next start removes it";
                out.finding(&item.path, FindingClass::Stray, problem);
            }
            if item.verdict != Verdict::Unsealed {
                item.verdict = Verdict::Refused;
            }
        }
        self.step(entry.bytes);
        out.items.push(item);
    }

    fn open_segment(
        &self,
        stream: &mut Stream<'_>,
        sequence: LogSequence,
        entry: &StoredEntry,
        last: bool,
        item: &mut Item,
        out: &mut Found,
    ) -> Result<Verdict, (FindingClass, String)> {
        let damage = |problem: String| (FindingClass::Damage, problem);
        let contents = self.stores.log_segment(entry).map_err(|problem| {
            // Damage to what a log segment begins with, or something else under its name.
            let begins = self.beginning(entry, 8).unwrap_or_default();
            let ours = begins == b"SAKERLOG" || begins.is_empty();
            (
                if ours {
                    FindingClass::Damage
                } else {
                    FindingClass::Unsealed
                },
                problem,
            )
        })?;
        let claim = Claim::read(&contents.header).map_err(|reason| {
            let (class, _, problem) = no_claim(reason);
            (class, problem.to_owned())
        })?;
        (item.zone, item.version) = (Some(claim.zone), Some(claim.version));
        if claim.shape != Shape::Log || claim.kind != FileKind::Log || claim.file != contents.file {
            return Err(damage("it is not sealed as this log segment".to_owned()));
        }
        if let Some(broken) = contents.broken
            && (broken.followed || !last)
        {
            return Err(damage(format!(
                "it is damaged at byte {}: {}; nothing after it can be trusted, restore it from a backup",
                broken.offset, broken.reason
            )));
        }
        let verdict = match self.key(&claim, &stream.allowed) {
            Key::Dark => Verdict::Dark,
            Key::Wrong(problem) => return Err(damage(problem)),
            Key::Leases(leases) => {
                let open = |lease: &&Lease| lease.open_log(contents.file, &contents.header).ok();
                let opener = leases.iter().find_map(open).ok_or_else(|| damage(REFUSED.to_owned()))?;
                item.frames = self.open_records(stream, sequence, &contents, opener)?;
                Verdict::Verified
            }
        };
        if let Some(broken) = contents.broken {
            let problem = format!(
                "it ends with {} bytes that are no whole group of records: a write that was interrupted and never \
                 acknowledged, or damage to the last one; the next start cuts them off",
                broken.bytes
            );
            out.finding(&entry.path, FindingClass::Leftover, problem);
        }
        Ok(verdict)
    }

    /// Opens all records; how many there are.
    fn open_records(
        &self,
        stream: &mut Stream<'_>,
        sequence: LogSequence,
        contents: &ReadOnlySegment,
        mut opener: LogOpener,
    ) -> Result<u64, (FindingClass, String)> {
        let damage = |problem: String| (FindingClass::Damage, problem);
        let mut data_records = 0;
        for (index, record) in contents.records.iter().enumerate() {
            let opened = opener
                .open(record)
                .map_err(|_| damage(format!("record {index} failed verification; restore it from a backup")))?;
            let Some(plain) = opened else { continue };
            match stream.owner {
                StreamOwner::Collection(collection) => {
                    let (link, _) =
                        codec::decode(&plain, collection, sequence.0).map_err(|error| damage(error.message))?;
                    if data_records == 0 {
                        self.check_link(stream, collection, link).map_err(damage)?;
                    }
                }
                StreamOwner::Platform => {
                    self.observer
                        .on_platform_record(stream.name, sequence.0, data_records, &plain);
                }
            }
            data_records += 1;
        }
        stream.records.insert(sequence.0, data_records);
        Ok(contents.records.len() as u64)
    }

    /// The rule of recovery: records that are in no file must be in the log.
    fn check_link(&self, stream: &Stream<'_>, collection: CollectionId, link: codec::LogLink) -> Result<(), String> {
        let flushed = self
            .collections
            .get(&collection)
            .and_then(|collection| collection.flushed);
        let needed = link.sequence != 0 && flushed.is_none_or(|flushed| link.sequence >= flushed.sequence);
        let there = stream.records.get(&link.sequence).copied().unwrap_or(0);
        if !needed || there >= link.records {
            return Ok(());
        }
        Err(format!(
            "log segment {} before it has {there} records and had at least {}; it was taken away, cut or replaced",
            link.sequence, link.records
        ))
    }
}
