//! Whether lines are one unbroken chain of records: nothing edited, left out, put elsewhere, repeated or cut off.
//!
//! What it deliberately does not promise: without a head that was kept elsewhere, whoever can write the whole file can
//! write another history, or leave out the newest records together with the closing line.
//!
//! Start reading at [`ChainCheck`].

use std::fmt;

use crate::{
    record::{Head, Record, RecordError},
    time::{self, UnixMs},
};

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line of the file, from 1; 0 if it is about the whole.
    pub line: u64,
    /// What is wrong there.
    pub kind: FaultKind,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Not a record.
    Malformed(RecordError),
    /// A record was altered, or its successor's link to it.
    Edited {
        /// Number of the record.
        sequence: u64,
    },
    /// Records are missing.
    Gap {
        /// First number that is missing.
        from: u64,
        /// Last number that is missing.
        to: u64,
    },
    /// A record stands twice.
    Repeated {
        /// Its number.
        sequence: u64,
    },
    /// A record stands after one with a greater number.
    OutOfOrder {
        /// Its number.
        sequence: u64,
        /// The greater number.
        after: u64,
    },
    /// The closing line is missing, or something stands after it.
    NoClosingLine,
    /// The closing line names another head than that of the last record.
    ClosingLineDiffers {
        /// What it says.
        says: String,
        /// What the last record makes.
        found: Head,
    },
    /// The log ends before a head that was kept.
    Cut {
        /// The head that was kept.
        kept: Head,
        /// Number of the last record that is there.
        last: u64,
    },
    /// The record of a head that was kept is another one now.
    OtherHistory {
        /// The head that was kept.
        kept: Head,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        match &self.kind {
            FaultKind::Malformed(error) => write!(f, "{error}"),
            FaultKind::Edited { sequence } => write!(
                f,
                "record {sequence} was altered, or the link to it in record {}",
                sequence + 1
            ),
            FaultKind::Gap { from, to } if from == to => write!(f, "record {from} is missing"),
            FaultKind::Gap { from, to } => write!(f, "records {from} to {to} are missing"),
            FaultKind::Repeated { sequence } => write!(f, "record {sequence} stands twice"),
            FaultKind::OutOfOrder { sequence, after } => write!(f, "record {sequence} stands after record {after}"),
            FaultKind::NoClosingLine => f.write_str("the closing line is missing: the file was cut at its end"),
            FaultKind::ClosingLineDiffers { says, found } => write!(
                f,
                "the closing line says {says}, the last record makes {found}: the last record was altered or cut off"
            ),
            FaultKind::Cut { kept, last } => write!(
                f,
                "the log ends with record {last}, and its head was {kept} once: records {} to {} were cut off",
                last + 1,
                kept.sequence
            ),
            FaultKind::OtherHistory { kept } => write!(
                f,
                "record {} is not the one that was there when the head {kept} was kept: the history was rewritten",
                kept.sequence
            ),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReport {
    /// Records read.
    pub records: u64,
    /// First and last time in them.
    pub times_ms: Option<(UnixMs, UnixMs)>,
    /// The newest record.
    pub head: Head,
    /// What is wrong; at most [`FAULTS_MAX`], and more may be wrong then.
    pub faults: Vec<Fault>,
}

/// More faults than this are not listed.
pub const FAULTS_MAX: usize = 1_000;

/// Reads lines in order and finds what is wrong with them.
#[derive(Debug)]
pub struct ChainCheck {
    line: u64,
    records: u64,
    times_ms: Option<(UnixMs, UnixMs)>,
    head: Head,
    kept: Vec<Head>,
    closed: Option<u64>,
    faults: Vec<Fault>,
}

impl ChainCheck {
    /// A check of lines that go on after `after` ([`Head::NONE`]: from the first record), with heads that were kept.
    #[must_use]
    pub fn new(after: Head, kept: Vec<Head>) -> Self {
        Self {
            line: 0,
            records: 0,
            times_ms: None,
            head: after,
            kept,
            closed: None,
            faults: Vec::new(),
        }
    }

    /// The next line, without its line feed. Gives the record if it is one.
    pub fn feed(&mut self, line: &[u8]) -> Option<Record> {
        self.line += 1;
        if self.closed.is_some() {
            self.fault(FaultKind::NoClosingLine);
            self.closed = None;
        }
        if line.starts_with(CLOSING_START) {
            let closing = closing_line(self.head);
            if line != closing.as_bytes() {
                let says: String = String::from_utf8_lossy(line).chars().take(120).collect();
                let found = self.head;
                self.fault(FaultKind::ClosingLineDiffers { says, found });
            }
            self.closed = Some(self.line);
            return None;
        }
        match Record::parse(line) {
            Ok(record) => {
                self.record(&record);
                Some(record)
            }
            Err(error) => {
                self.fault(FaultKind::Malformed(error));
                None
            }
        }
    }

    fn record(&mut self, record: &Record) {
        let (last, sequence) = (self.head, record.sequence);
        self.records += 1;
        self.times_ms = Some(self.times_ms.map_or((record.time_ms, record.time_ms), |(from, to)| {
            (from.min(record.time_ms), to.max(record.time_ms))
        }));
        if sequence == last.sequence.saturating_add(1) {
            if record.previous != last.hash {
                self.fault(FaultKind::Edited {
                    sequence: last.sequence,
                });
            }
        } else if sequence == last.sequence && record.hash == last.hash {
            return self.fault(FaultKind::Repeated { sequence });
        } else if sequence <= last.sequence {
            let after = last.sequence;
            return self.fault(FaultKind::OutOfOrder { sequence, after });
        } else {
            let (from, to) = (last.sequence + 1, sequence - 1);
            self.fault(FaultKind::Gap { from, to });
        }
        self.head = record.head();
        let rewritten = |kept: &&Head| kept.sequence == sequence && kept.hash != record.hash;
        if let Some(kept) = self.kept.iter().find(rewritten).copied() {
            self.fault(FaultKind::OtherHistory { kept });
        }
    }

    fn fault(&mut self, kind: FaultKind) {
        if self.faults.len() < FAULTS_MAX {
            let line = self.line;
            self.faults.push(Fault { line, kind });
        }
    }

    /// The end of an export: the closing line has to be there.
    #[must_use]
    pub fn finish_export(mut self) -> ChainReport {
        if self.closed.is_none() {
            self.line += 1;
            self.fault(FaultKind::NoClosingLine);
        }
        self.finish()
    }

    /// The end of the log itself, which has no closing line.
    #[must_use]
    pub fn finish(mut self) -> ChainReport {
        self.line = 0;
        for kept in std::mem::take(&mut self.kept) {
            if kept.sequence > self.head.sequence {
                let last = self.head.sequence;
                self.fault(FaultKind::Cut { kept, last });
            }
        }
        ChainReport {
            records: self.records,
            times_ms: self.times_ms,
            head: self.head,
            faults: self.faults,
        }
    }
}

impl ChainReport {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }
    /// First and last time as text.
    #[must_use]
    pub fn span(&self) -> Option<(String, String)> {
        self.times_ms.map(|(from, to)| (time::to_text(from), time::to_text(to)))
    }
}

const CLOSING_START: &[u8] = b"{\"head\":";

/// The last line of an export, by which a cut at its end shows.
#[must_use]
pub fn closing_line(head: Head) -> String {
    format!("{{\"head\":\"{head}\"}}")
}

/// Checks a whole export: lines that each end in a line feed, the last being the closing line.
#[must_use]
pub fn check_export(bytes: &[u8], after: Head, kept: Vec<Head>) -> ChainReport {
    let mut check = ChainCheck::new(after, kept);
    let Some(lines) = bytes.strip_suffix(b"\n") else {
        // The last line may be half a line that happens to make sense.
        for line in bytes.split(|&byte| byte == b'\n') {
            check.feed(line);
        }
        check.closed = None;
        return check.finish_export();
    };
    for line in lines.split(|&byte| byte == b'\n') {
        check.feed(line);
    }
    check.finish_export()
}

#[cfg(test)]
mod tests;
