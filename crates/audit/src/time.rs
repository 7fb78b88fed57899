//! Times as they stand in records: UTC with milliseconds.

use time::{
    OffsetDateTime,
    format_description::{BorrowedFormatItem, well_known::Rfc3339},
    macros::format_description,
};

/// Milliseconds since the Unix epoch.
pub type UnixMs = u64;

const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const SECONDS: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

fn moment(at_ms: UnixMs) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `2026-01-31T12:00:00.000Z`; a time after the year 9999 becomes the epoch.
#[must_use]
pub fn to_text(at_ms: UnixMs) -> String {
    moment(at_ms).format(FORMAT).unwrap_or_default()
}

/// As CloudTrail writes it: `2026-01-31T12:00:00Z`.
#[must_use]
pub fn to_seconds_text(at_ms: UnixMs) -> String {
    moment(at_ms).format(SECONDS).unwrap_or_default()
}

/// Any RFC 3339 time.
#[must_use]
pub fn from_text(text: &str) -> Option<UnixMs> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back() {
        for at in [0, 1, 1_768_000_000_123, 253_402_300_799_999] {
            assert_eq!(from_text(&to_text(at)), Some(at));
        }
        assert_eq!(to_text(1_440_938_160_999), "2015-08-30T12:36:00.999Z");
        assert_eq!(to_seconds_text(1_440_938_160_999), "2015-08-30T12:36:00Z");
        assert_eq!(from_text("2015-08-30T12:36:00Z"), Some(1_440_938_160_000));
        assert_eq!(from_text("yesterday"), None);
    }
}
