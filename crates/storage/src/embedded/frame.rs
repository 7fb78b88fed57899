//! How a log segment lies in its file. Pure encoding and scanning, no I/O. Integers are little endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `SAKERLOG` |
//! | 8..12 | version, 1 |
//! | 12..16 | length of the sealed header, H |
//! | 16..32 | file id |
//! | 32..36 | CRC-32 of the sealed header |
//! | 36..40 | CRC-32 of bytes 0..36 |
//! | 40..40+H | the sealed header |
//! | then | groups, one after another |
//!
//! A group is what one sync made durable: it is there whole, or a crash cut it. Its 20 bytes of head are `SLG1`, length
//! of the body, number of records, CRC-32 of the body, CRC-32 of the 16 bytes before; its body is the records, each
//! with its length (4 bytes) before it.
//!
//! A group is written only after the one before it is durable. So a group that does not check is a torn tail if no
//! whole group follows it, and damage if one does.

use bytes::Bytes;
use saker_keyring::FileId;

/// Longest sealed header, in bytes: several times what `keyring` makes.
pub(super) const HEADER_BYTES_MAX: usize = 4_096;
/// Bytes before the sealed header.
pub(super) const PREAMBLE_BYTES: usize = 40;
/// Bytes before the body of a group.
pub(super) const GROUP_HEAD_BYTES: usize = 20;
/// Bytes before each record.
pub(super) const RECORD_HEAD_BYTES: usize = 4;

const MAGIC: &[u8; 8] = b"SAKERLOG";
const VERSION: u32 = 1;
const GROUP_MAGIC: &[u8; 4] = b"SLG1";

/// What stands before the groups.
#[derive(Debug)]
pub(super) struct Preamble {
    pub(super) file: FileId,
    pub(super) header_bytes: usize,
    header_crc: u32,
}

/// What a scan of a whole segment found.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) records: Vec<Bytes>,
    /// Where the last whole group ends.
    pub(super) end: usize,
    /// Why the bytes from `end` are not a group, if there are any.
    pub(super) broken: Option<Broken>,
}

/// Bytes that are not a whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) reason: &'static str,
    /// Whether a whole group follows later.
    pub(super) followed: bool,
}

/// The preamble and header of a new segment.
pub(super) fn begin(file: FileId, header: &[u8]) -> Option<Vec<u8>> {
    let header_bytes = u32::try_from(header.len())
        .ok()
        .filter(|_| header.len() <= HEADER_BYTES_MAX)?;
    let mut bytes = Vec::with_capacity(PREAMBLE_BYTES + header.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&header_bytes.to_le_bytes());
    bytes.extend_from_slice(file.as_bytes());
    bytes.extend_from_slice(&crc32fast::hash(header).to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(header);
    Some(bytes)
}

/// Reads the first bytes of a segment; the reason if they make no sense.
pub(super) fn preamble(bytes: &[u8]) -> Result<Preamble, &'static str> {
    let Some(bytes) = bytes.first_chunk::<PREAMBLE_BYTES>() else {
        return Err("it ends before the sealed header");
    };
    if word(bytes, 36) != Some(crc32fast::hash(&bytes[..36])) {
        return Err("the first 40 bytes do not match their checksum");
    }
    if &bytes[..8] != MAGIC || word(bytes, 8) != Some(VERSION) {
        return Err("it is not a log segment of a version that is known here");
    }
    let header_bytes = word(bytes, 12).map_or(usize::MAX, |bytes| bytes as usize);
    if header_bytes > HEADER_BYTES_MAX {
        return Err("the sealed header is too long");
    }
    let mut file = [0; 16];
    file.copy_from_slice(&bytes[16..32]);
    Ok(Preamble {
        file: FileId::from_bytes(file),
        header_bytes,
        header_crc: word(bytes, 32).unwrap_or_default(),
    })
}

/// The preamble and the sealed header of a whole segment.
pub(super) fn header(bytes: &Bytes) -> Result<(Preamble, Bytes), &'static str> {
    let found = preamble(bytes)?;
    let end = PREAMBLE_BYTES + found.header_bytes;
    if bytes.len() < end {
        return Err("it ends inside the sealed header");
    }
    let header = bytes.slice(PREAMBLE_BYTES..end);
    if crc32fast::hash(&header) != found.header_crc {
        return Err("the sealed header does not match its checksum");
    }
    Ok((found, header))
}

/// What stands before the records of a group; `None` if they are 4 GiB or more.
pub(super) fn group_head(records: &[&[u8]]) -> Option<[u8; GROUP_HEAD_BYTES]> {
    let count = u32::try_from(records.len()).ok()?;
    let (mut body_bytes, mut body_crc) = (0_usize, crc32fast::Hasher::new());
    for record in records {
        body_bytes += RECORD_HEAD_BYTES + record.len();
        body_crc.update(&record_head(record)?);
        body_crc.update(record);
    }
    let mut head = [0; GROUP_HEAD_BYTES];
    head[..4].copy_from_slice(GROUP_MAGIC);
    head[4..8].copy_from_slice(&u32::try_from(body_bytes).ok()?.to_le_bytes());
    head[8..12].copy_from_slice(&count.to_le_bytes());
    head[12..16].copy_from_slice(&body_crc.finalize().to_le_bytes());
    let head_crc = crc32fast::hash(&head[..16]);
    head[16..].copy_from_slice(&head_crc.to_le_bytes());
    Some(head)
}

/// What stands before a record.
pub(super) fn record_head(record: &[u8]) -> Option<[u8; RECORD_HEAD_BYTES]> {
    u32::try_from(record.len()).ok().map(u32::to_le_bytes)
}

/// Reads all groups from `start`.
pub(super) fn scan(bytes: &Bytes, start: usize) -> Scan {
    let mut records = Vec::new();
    let mut end = start;
    while end < bytes.len() {
        match group_at(bytes, end) {
            Ok((count, body)) => {
                let next = body.end;
                if let Err(reason) = split(bytes, count, body, &mut records) {
                    let followed = find_group(bytes, end + 1);
                    return Scan {
                        records,
                        end,
                        broken: Some(Broken { reason, followed }),
                    };
                }
                end = next;
            }
            Err(reason) => {
                let followed = find_group(bytes, end + 1);
                return Scan {
                    records,
                    end,
                    broken: Some(Broken { reason, followed }),
                };
            }
        }
    }
    Scan {
        records,
        end,
        broken: None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

/// The number of records and the body of the group that starts at `at`, checked against both checksums.
fn group_at(bytes: &[u8], at: usize) -> Result<(usize, std::ops::Range<usize>), &'static str> {
    let Some(head) = bytes.get(at..at + GROUP_HEAD_BYTES) else {
        return Err("the file ends inside the head of a group of records");
    };
    if &head[..4] != GROUP_MAGIC || word(head, 16) != Some(crc32fast::hash(&head[..16])) {
        return Err("the head of a group of records does not match its checksum");
    }
    let number = |at| word(head, at).unwrap_or_default();
    let start = at + GROUP_HEAD_BYTES;
    let body = start..start.saturating_add(number(4) as usize);
    let Some(content) = bytes.get(body.clone()) else {
        return Err("the file ends inside a group of records");
    };
    if crc32fast::hash(content) != number(12) {
        return Err("a group of records does not match its checksum");
    }
    Ok((number(8) as usize, body))
}

/// Adds the records of a group's body, all or none.
fn split(
    bytes: &Bytes,
    count: usize,
    body: std::ops::Range<usize>,
    records: &mut Vec<Bytes>,
) -> Result<(), &'static str> {
    const REASON: &str = "the records of a group do not fill it";
    let before = records.len();
    let mut at = body.start;
    let fail = |records: &mut Vec<Bytes>| {
        records.truncate(before);
        Err(REASON)
    };
    for _ in 0..count {
        let Some(length) = word(bytes, at) else {
            return fail(records);
        };
        let start = at + RECORD_HEAD_BYTES;
        let end = start.saturating_add(length as usize);
        if end > body.end {
            return fail(records);
        }
        records.push(bytes.slice(start..end));
        at = end;
    }
    if at == body.end { Ok(()) } else { fail(records) }
}

/// Whether a whole group starts anywhere from `from`.
fn find_group(bytes: &[u8], from: usize) -> bool {
    let Some(rest) = bytes.get(from..) else { return false };
    rest.windows(GROUP_MAGIC.len())
        .enumerate()
        .filter(|(_, window)| window == GROUP_MAGIC)
        .any(|(at, _)| group_at(bytes, from + at).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(records: &[&[u8]]) -> Vec<u8> {
        let mut bytes = group_head(records).unwrap().to_vec();
        for record in records {
            bytes.extend_from_slice(&record_head(record).unwrap());
            bytes.extend_from_slice(record);
        }
        bytes
    }

    /// Written down by the tables of `docs/formats.md`, not by the code. The checksums are those of `zlib.crc32`.
    #[test]
    fn bytes_are_as_the_formats_page_says() {
        let start = begin(FileId::from_bytes([7; 16]), b"header").unwrap();
        let mut expected = b"SAKERLOG\x01\0\0\0\x06\0\0\0".to_vec();
        expected.extend_from_slice(&[7; 16]);
        expected.extend_from_slice(&HEADER_CRC.to_le_bytes());
        expected.extend_from_slice(&START_CRC.to_le_bytes());
        expected.extend_from_slice(b"header");
        assert_eq!(start, expected);

        let records: [&[u8]; 2] = [b"one", b""];
        let body = b"\x03\0\0\0one\0\0\0\0";
        let mut expected = b"SLG1\x0b\0\0\0\x02\0\0\0".to_vec();
        expected.extend_from_slice(&BODY_CRC.to_le_bytes());
        expected.extend_from_slice(&HEAD_CRC.to_le_bytes());
        expected.extend_from_slice(body);
        assert_eq!(group(&records), expected);
    }

    const HEADER_CRC: u32 = 0x6E72_A8C1;
    const START_CRC: u32 = 0x7DF6_BA60;
    const BODY_CRC: u32 = 0xECB7_7DF6;
    const HEAD_CRC: u32 = 0xB214_0BE6;

    #[test]
    fn any_bytes_scan_without_panic() {
        let mut whole = begin(FileId::from_bytes([7; 16]), b"header").unwrap();
        let start = whole.len();
        for records in [&[&b"one"[..], b""][..], &[], &[b"two"]] {
            whole.extend(group(records));
        }
        let scanned = scan(&Bytes::from(whole.clone()), start);
        assert_eq!(scanned.records, [&b"one"[..], b"", b"two"]);
        assert_eq!((scanned.end, scanned.broken), (whole.len(), None));
        for position in 0..whole.len() {
            for value in 0..=255 {
                let mut bytes = whole.clone();
                bytes[position] = value;
                let bytes = Bytes::from(bytes);
                let found = scan(&bytes, start);
                assert!(found.end <= bytes.len() && found.records.len() <= 3);
                let same = bytes[position] == whole[position];
                assert_eq!(header(&bytes).is_ok(), same || position >= start, "byte {position}");
                assert_eq!(found.broken.is_none(), same || position < start, "byte {position}");
            }
        }
        // Right checksums over records that do not fill the body.
        for body in [
            &b"\x04\0\0\0one"[..],
            b"\xff\xff\xff\xffone",
            b"\x01\0\0\0one",
            b"\x03\0",
        ] {
            let mut bytes = b"SLG1".to_vec();
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&1u32.to_le_bytes());
            bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
            let crc = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
            bytes.extend_from_slice(body);
            let found = scan(&Bytes::from(bytes), 0);
            assert!(found.records.is_empty() && found.broken.is_some());
        }
    }
}
