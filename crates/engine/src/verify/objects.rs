//! Objects: every frame of each is opened, in parts, so that the longest file takes no more memory than another.

use saker_keyring::{FileIdentity, FileKind, HEADER_BYTES, Lease};
use saker_model::CollectionId;
use saker_storage::{Place, ReadOnlyFile, StoredEntry};

use super::{
    FindingClass, Found, Item, ItemKind, Key, REFUSED, Verdict, Walk,
    form::{Claim, Shape},
    no_claim,
};

/// Bytes of an object that are read at a time.
const READ_BYTES: u64 = 4 << 20;

/// Why an object is not as it should be.
type Problem = (FindingClass, String);

impl Walk {
    pub(super) fn object(&self, entry: &StoredEntry, out: &mut Found) {
        let Place::Object(path) = &entry.place else { return };
        let collection = collection_of(path.as_str());
        let known = collection.and_then(|id| self.collections.get(&id));
        let mut item = Item {
            path: entry.path.clone(),
            kind: ItemKind::OtherObject,
            collection,
            zone: None,
            version: None,
            bytes: entry.bytes,
            frames: 0,
            verdict: Verdict::Refused,
        };
        let expected = known.and_then(|collection| collection.expected.as_ref());
        let identity = expected.and_then(|expected| expected.get(path.as_str())).copied();
        let mut stepped = 0;
        match self.open_object(entry, identity, &mut item, &mut stepped) {
            Ok(verdict) => item.verdict = verdict,
            Err((class, problem)) => {
                if class == FindingClass::Unsealed {
                    item.verdict = Verdict::Unsealed;
                }
                out.finding(&item.path, class, problem);
            }
        }
        let good = matches!(item.verdict, Verdict::Verified | Verdict::Dark);
        if known.is_none() && self.has_catalog() {
            if good {
                let problem = "it belongs to no collection of the catalog; the next start removes it";
                out.finding(&item.path, FindingClass::Stray, problem);
            }
            if item.verdict != Verdict::Unsealed {
                item.verdict = Verdict::Refused;
            }
        } else if good && expected.is_some() && identity.is_none() {
            let problem =
                "no manifest names it: what an interruption left; it is shredded when its collection is opened";
            out.finding(&item.path, FindingClass::Leftover, problem);
            item.verdict = Verdict::Unfinished;
        }
        self.step(entry.bytes.saturating_sub(stepped));
        out.items.push(item);
    }

    /// Opens every frame, or looks at the form if the key may not be used.
    fn open_object(
        &self,
        entry: &StoredEntry,
        expected: Option<FileIdentity>,
        item: &mut Item,
        stepped: &mut u64,
    ) -> Result<Verdict, Problem> {
        let unreadable = |error: saker_storage::ReadError| (FindingClass::Unreadable, error.to_string());
        let damage = |problem: String| (FindingClass::Damage, problem);
        let file = self.stores.file(entry).map_err(unreadable)?;
        let header = file
            .read(0..file.bytes().min(HEADER_BYTES as u64))
            .map_err(unreadable)?;
        let claim = Claim::read(&header).map_err(|reason| {
            let (class, _, problem) = no_claim(reason);
            (class, problem.to_owned())
        })?;
        (item.zone, item.version) = (Some(claim.zone), Some(claim.version));
        let identity = expected.unwrap_or(FileIdentity {
            file: claim.file,
            kind: claim.kind,
        });
        item.kind = match identity.kind {
            FileKind::Column => ItemKind::Column,
            FileKind::Index => ItemKind::Index,
            FileKind::Deletes => ItemKind::Deletes,
            FileKind::Manifest | FileKind::Log | FileKind::Metadata | FileKind::Audit | FileKind::KeyMaterial => {
                ItemKind::OtherObject
            }
        };
        if !entry.path.ends_with(&format!("/{}", claim.file)) {
            return Err(damage(format!("it is file {} under another name", claim.file)));
        }
        if claim.shape != Shape::File || claim.kind != identity.kind || claim.file != identity.file {
            return Err(damage("it is not sealed as the file that the catalog names".to_owned()));
        }
        if !claim.fits(file.bytes()) {
            return Err(damage(
                "it was cut or extended: no sealed file has its length".to_owned(),
            ));
        }
        let allowed = item.collection.map_or_else(Default::default, |id| self.zones_of(id));
        match self.key(&claim, &allowed) {
            Key::Dark => Ok(Verdict::Dark),
            Key::Wrong(problem) => Err(damage(problem)),
            Key::Leases(leases) => {
                let opened = leases.iter().find_map(|lease| {
                    // Which of two keys it is shows in the header.
                    lease.open_file(identity, &header, file.bytes()).ok().map(|_| *lease)
                });
                let lease = opened.ok_or_else(|| damage(REFUSED.to_owned()))?;
                item.frames = self.open_frames(lease, identity, &file, stepped)?;
                Ok(Verdict::Verified)
            }
        }
    }

    fn open_frames(
        &self,
        lease: &Lease,
        identity: FileIdentity,
        file: &ReadOnlyFile<'_>,
        stepped: &mut u64,
    ) -> Result<u64, Problem> {
        let unreadable = |error: saker_storage::ReadError| (FindingClass::Unreadable, error.to_string());
        let refused = |_| (FindingClass::Damage, REFUSED.to_owned());
        let header = file.read(0..HEADER_BYTES as u64).map_err(unreadable)?;
        let opened = lease.open_file(identity, &header, file.bytes()).map_err(refused)?;
        let last = file.read(opened.last_frame_range()).map_err(unreadable)?;
        let opener = opened.verify_last(&last).map_err(refused)?;
        let per_read = (READ_BYTES / opener.frame_bytes().max(1)).max(1);
        let mut frame = 0;
        while frame < opener.frame_count() {
            let end = (frame + per_read).min(opener.frame_count());
            let range = opener.frame_range(frame).start..opener.frame_range(end - 1).end;
            let bytes = file.read(range.clone()).map_err(unreadable)?;
            for number in frame..end {
                let within = opener.frame_range(number);
                let sealed = bytes
                    .slice(offset(within.start, range.start)..offset(within.end, range.start))
                    .ok_or((FindingClass::Damage, REFUSED.to_owned()))?;
                opener.open_frame(number, &sealed).map_err(refused)?;
            }
            self.step(range.end - range.start);
            *stepped += range.end - range.start;
            frame = end;
        }
        Ok(opener.frame_count())
    }
}

/// The collection that a path of an object belongs to.
fn collection_of(path: &str) -> Option<CollectionId> {
    let mut parts = path.split('/');
    let owned = parts.next() == Some("collection");
    let id = parts.next().filter(|_| owned)?.parse().ok()?;
    Some(CollectionId(id))
}

fn offset(at: u64, start: u64) -> usize {
    usize::try_from(at - start).unwrap_or(usize::MAX)
}
