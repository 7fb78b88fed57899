//! Reading the log back, a segment at a time.

use std::collections::VecDeque;

use saker_storage::LogSequence;
use zeroize::Zeroizing;

use crate::{
    journal::{JournalError, Place},
    record::{Head, Record},
};

/// A walk over all lines, oldest first. Holds one segment in memory at a time.
#[derive(Debug)]
pub struct Walk {
    place: Place,
    left: VecDeque<LogSequence>,
}

impl Walk {
    /// A walk over what is durable now.
    ///
    /// # Errors
    /// [`JournalError::Log`].
    pub async fn begin(place: Place) -> Result<Self, JournalError> {
        let segments = place.segments().await?;
        let left = segments.into_iter().map(|(sequence, _)| sequence).collect();
        Ok(Self { place, left })
    }

    /// Lines of the next segment; `None` at the end. After an error the walk can go on with the segment behind.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn next_lines(&mut self) -> Option<Result<Vec<Zeroizing<Vec<u8>>>, JournalError>> {
        let sequence = self.left.pop_front()?;
        Some(self.place.read(sequence).await.map(|segment| segment.lines))
    }
}

impl Place {
    /// The newest lines, at most `count`, oldest first.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn newest_lines(&self, count: usize) -> Result<Vec<Zeroizing<Vec<u8>>>, JournalError> {
        let mut newest: VecDeque<Zeroizing<Vec<u8>>> = VecDeque::new();
        for (sequence, _) in self.segments().await?.into_iter().rev() {
            let mut lines = self.read(sequence).await?.lines;
            while newest.len() < count
                && let Some(line) = lines.pop()
            {
                newest.push_front(line);
            }
            if newest.len() >= count {
                break;
            }
        }
        Ok(newest.into())
    }
}

/// Turns lines into an export: leaves out what stands before it, and knows the head for the closing line.
#[derive(Debug)]
pub struct Exported {
    after: u64,
    head: Head,
}

impl Exported {
    /// An export of what comes after record `after` (0: everything).
    #[must_use]
    pub fn after(after: u64) -> Self {
        Self {
            after,
            head: Head::NONE,
        }
    }
    /// Whether this line is in the export. Lines that are no records are: a check has to find them.
    pub fn takes(&mut self, line: &[u8]) -> bool {
        let Ok(record) = Record::parse(line) else {
            return true;
        };
        self.head = record.head();
        record.sequence > self.after
    }
    /// The head so far.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }
}
