//! Which place in the layout of a data directory a name has (`docs/formats.md`, data directory).

use crate::{LogSequence, ObjectPath, StreamId};

/// What a file of a data directory is, by its name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `SAKER`: says whose directory this is. Not sealed, holds no data.
    Marker,
    /// `LOCK`: the process id of who uses it. Not sealed, holds no data.
    Lock,
    /// `meta.redb`: a library's file whose values are sealed one by one.
    Metadata,
    /// A sealed object.
    Object(ObjectPath),
    /// A log segment.
    LogSegment {
        /// Its stream.
        stream: StreamId,
        /// Its number.
        sequence: LogSequence,
    },
    /// An empty file that keeps numbers of the log from being used again.
    LogFloor,
    /// The journal of a store's header replacements: nothing but zeros unless one was interrupted.
    HeaderJournal,
    /// What an interrupted call leaves; the next start finishes or removes it.
    Unfinished(&'static str),
    /// A directory that the layout has.
    Directory,
    /// The data directory of another cluster of the same server, which is looked at by itself.
    Cluster,
    /// Nothing that the layout has.
    Foreign,
}

/// Digits of a segment's number in its name.
const SEQUENCE_DIGITS: usize = 20;
/// Directory of the server's other clusters.
const CLUSTERS: &str = "clusters";
/// The journal's name in the directories of objects and log.
const JOURNAL: &str = ".headers";

impl Place {
    /// The place of a file with this path, relative to the data directory.
    pub(super) fn of_file(path: &str) -> Self {
        match path {
            "SAKER" => return Self::Marker,
            "LOCK" => return Self::Lock,
            "meta.redb" => return Self::Metadata,
            "SAKER.new" => return Self::Unfinished("a first start that was interrupted"),
            "meta.redb.new" => return Self::Unfinished("a rewrite of the metadata that was interrupted"),
            _ => {}
        }
        match path.split_once('/') {
            Some(("objects" | "log", JOURNAL)) => Self::HeaderJournal,
            Some(("objects", name)) => object(name),
            Some(("log", name)) => log(name),
            _ => Self::Foreign,
        }
    }

    /// The place of a directory with this path.
    pub(super) fn of_directory(path: &str) -> Self {
        let known = match path.split_once('/') {
            None => matches!(path, "objects" | "log" | CLUSTERS),
            Some((CLUSTERS, name)) if StreamId::new(name).is_ok() => return Self::Cluster,
            Some(("objects", name)) => ObjectPath::new(name).is_ok(),
            Some(("log", name)) => StreamId::new(name).is_ok(),
            Some(_) => false,
        };
        if known { Self::Directory } else { Self::Foreign }
    }
}

fn object(name: &str) -> Place {
    if let Some((before, number)) = name.rsplit_once('#')
        && is_number(number)
        && ObjectPath::new(before).is_ok()
    {
        return Place::Unfinished("a write of an object that was interrupted");
    }
    ObjectPath::new(name).map_or(Place::Foreign, Place::Object)
}

fn log(name: &str) -> Place {
    let Some((stream, file)) = name.split_once('/') else {
        return Place::Foreign;
    };
    let (Ok(stream), Some((number, kind))) = (StreamId::new(stream), file.split_once('.')) else {
        return Place::Foreign;
    };
    let Some(sequence) = number
        .parse()
        .ok()
        .filter(|_| number.len() == SEQUENCE_DIGITS && is_number(number))
        .map(LogSequence)
    else {
        return Place::Foreign;
    };
    match kind {
        "log" => Place::LogSegment { stream, sequence },
        "floor" => Place::LogFloor,
        "log.new" => Place::Unfinished("a log segment whose making was interrupted"),
        "log.gone" => Place::Unfinished("a log segment whose shredding was interrupted"),
        _ => Place::Foreign,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_one_place() {
        let object = |path: &str| Place::Object(ObjectPath::new(path).unwrap());
        for (path, place) in [
            ("SAKER", Place::Marker),
            ("LOCK", Place::Lock),
            ("meta.redb", Place::Metadata),
            ("objects/collection/7/3/ab-1", object("collection/7/3/ab-1")),
            ("objects/plain.txt", object("plain.txt")),
            ("objects/.headers", Place::HeaderJournal),
            ("log/.headers", Place::HeaderJournal),
            ("log/collection-7/00000000000000000001.floor", Place::LogFloor),
            (
                "log/collection-7/00000000000000000012.log",
                Place::LogSegment {
                    stream: StreamId::new("collection-7").unwrap(),
                    sequence: LogSequence(12),
                },
            ),
        ] {
            assert_eq!(Place::of_file(path), place, "{path}");
        }
        for path in [
            "SAKER.new",
            "meta.redb.new",
            "objects/a/b#12",
            "log/s/00000000000000000001.log.new",
            "log/s/00000000000000000001.log.gone",
        ] {
            assert!(matches!(Place::of_file(path), Place::Unfinished(_)), "{path}");
        }
        for path in [
            "",
            "dump.csv",
            "x/SAKER",
            "objects",
            "objects/a b",
            "objects/.hidden",
            "objects/a/.headers",
            "objects/a#",
            "objects/a#x",
            "log/rows.csv",
            "log/s/1.log",
            "log/s/0000000000000000001x.log",
            "log/s/+0000000000000000001.log",
            "log/s/00000000000000000001.csv",
            "log/s/t/00000000000000000001.log",
        ] {
            assert_eq!(Place::of_file(path), Place::Foreign, "{path}");
        }
        for path in ["objects", "log", "objects/a/b", "log/s", "clusters"] {
            assert_eq!(Place::of_directory(path), Place::Directory, "{path}");
        }
        assert_eq!(Place::of_directory("clusters/c-1"), Place::Cluster);
        for path in ["x", "log/s/t", "objects/a b", "SAKER", "clusters/a/b", "clusters/.a"] {
            assert_eq!(Place::of_directory(path), Place::Foreign, "{path}");
        }
    }
}
