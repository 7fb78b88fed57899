//! Files that were sealed once, by the first build that had the format, and must open for ever.
//!
//! Zone keys and ids are fixed and written below; data keys and nonces were random when the files were made, so these
//! tests open. `make_golden` makes files for a new format; it never overwrites one.

use std::{collections::BTreeMap, fs, path::PathBuf};

use saker_keyring::{
    EncryptionContext, FileId, FileIdentity, FileKind, KeyCheck, KeyPurpose, Lease, Unverified, WrappedKey, Zone,
    ZoneId, ZoneKeyVersion, ZoneRecord,
};

use crate::fixtures::{FRAME, key, pattern, seal, unverified};

/// Two full frames and a short one.
pub(crate) const FILE_PLAIN_BYTES: usize = 2 * FRAME + 100;
pub(crate) const FILE: FileIdentity = FileIdentity {
    file: FileId::from_bytes([0x31; 16]),
    kind: FileKind::Column,
};
pub(crate) const SEGMENT: FileId = FileId::from_bytes([0x32; 16]);
pub(crate) const IDENTITY: &str = "cluster/golden/value";
pub(crate) const VALUE: &[u8] = b"a value that was sealed with the first version of the format";
pub(crate) const RECORDS: [&[u8]; 3] = [b"", b"one record", &[0xab; 300]];

/// The zone that the files were made in, and the zone that one of them was moved to.
pub(crate) fn golden_lease(zone: u8) -> Lease {
    let keys = vec![
        (ZoneKeyVersion::FIRST, key(zone)),
        (ZoneKeyVersion::new(2), key(zone + 1)),
    ];
    let zone = Zone::locked(ZoneId::from_bytes([zone; 16]));
    zone.unlock(keys).unwrap();
    zone.lease().unwrap()
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

/// A log as it is kept here: the header, then each record behind its length (32 bits, little endian).
pub(crate) fn records(log: &[u8]) -> Vec<&[u8]> {
    let mut rest = &log[saker_keyring::HEADER_BYTES..];
    let mut records = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (record, after) = after.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
        records.push(record);
        rest = after;
    }
    records
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn zone_record() -> ZoneRecord {
    ZoneRecord {
        zone: ZoneId::from_bytes([0x21; 16]),
        root: "arn:aws:kms:us-east-1:000000000000:key/0e5f2f6a-0000-4000-8000-000000000001"
            .parse()
            .unwrap(),
        context: EncryptionContext {
            cluster: "golden".into(),
            database: ZoneId::from_bytes([0x21; 16]).to_string(),
            purpose: KeyPurpose::ZoneKey,
        },
        versions: vec![
            (ZoneKeyVersion::FIRST, WrappedKey::new(vec![1; 184]).unwrap()),
            (ZoneKeyVersion::new(2), WrappedKey::new(vec![2; 184]).unwrap()),
        ],
        checks: BTreeMap::new(),
    }
}

/// The same with check values, as far as the first version's keys are known.
fn checked_zone_record() -> ZoneRecord {
    let record = zone_record();
    let (zone, version) = (record.zone, ZoneKeyVersion::new(2));
    ZoneRecord {
        checks: [(version, KeyCheck::of(&key(0x22), zone, version))].into(),
        ..record
    }
}

#[test]
fn a_file_of_version_1_opens() {
    let opened = golden_lease(0x21)
        .open_whole_file(FILE, &unverified(&read("file-v1.sealed")))
        .unwrap();
    assert_eq!(opened[..], pattern(FILE_PLAIN_BYTES));
}

#[test]
fn a_moved_file_of_version_1_opens_in_its_new_zone() {
    let file = unverified(&read("file-moved-v1.sealed"));
    assert_eq!(
        golden_lease(0x41).open_whole_file(FILE, &file).unwrap()[..],
        pattern(FILE_PLAIN_BYTES)
    );
    assert!(golden_lease(0x21).open_whole_file(FILE, &file).is_err());
}

#[test]
fn a_value_of_version_1_opens() {
    let opened = golden_lease(0x21)
        .open_value(IDENTITY, &unverified(&read("value-v1.sealed")))
        .unwrap();
    assert_eq!(opened[..], *VALUE);
}

#[test]
fn a_log_of_version_1_opens() {
    let log = read("log-v1.sealed");
    let header = unverified(&log[..saker_keyring::HEADER_BYTES]);
    let mut opener = golden_lease(0x21).open_log(SEGMENT, &header).unwrap();
    let mut opened = Vec::new();
    for record in records(&log) {
        opened.extend(opener.open(&unverified(record)).unwrap().map(|plain| plain.to_vec()));
    }
    assert_eq!(opened, RECORDS);
    assert!(opener.is_closed());
}

#[test]
fn a_zone_record_of_version_1_opens_and_is_written_the_same() {
    let bytes = read("zone-record-v1");
    assert_eq!(
        ZoneRecord::from_bootstrap_value(&unverified(&bytes)).unwrap(),
        zone_record()
    );
    assert_eq!(zone_record().encode().unwrap(), bytes);
}

#[test]
fn a_zone_record_of_version_2_opens_and_is_written_the_same() {
    let bytes = read("zone-record-v2");
    let record = ZoneRecord::from_bootstrap_value(&unverified(&bytes)).unwrap();
    assert_eq!(record, checked_zone_record());
    assert_eq!(record.encode().unwrap(), bytes);
    record.recognise(ZoneKeyVersion::new(2), &key(0x22)).unwrap();
    assert!(record.recognise(ZoneKeyVersion::new(2), &key(0x21)).is_err());
}

/// For a format that has no golden files yet: `cargo test -p saker-keyring --test contract make_golden -- --ignored`.
#[test]
#[ignore = "writes files into the source tree"]
fn make_golden() {
    let lease = golden_lease(0x21);
    let file = seal(&lease, FILE, &pattern(FILE_PLAIN_BYTES));
    let header = unverified(&file[..saker_keyring::HEADER_BYTES]);
    let moved = golden_lease(0x41).rewrap_header(&lease, FILE, &header).unwrap();
    let moved = [moved.as_bytes(), &file[saker_keyring::HEADER_BYTES..]].concat();
    let value = lease.seal_value(IDENTITY, VALUE).unwrap();
    let (header, mut sealer) = lease.log_sealer(SEGMENT).unwrap();
    let mut log = header.as_bytes().to_vec();
    let mut put = |record: &Unverified| {
        log.extend_from_slice(&u32::try_from(record.len()).unwrap().to_le_bytes());
        log.extend_from_slice(record.as_bytes());
    };
    for record in RECORDS {
        put(&sealer.seal(record).unwrap().into_unverified());
    }
    put(&sealer.close().unwrap().into_unverified());
    for (name, bytes) in [
        ("file-v1.sealed", &file[..]),
        ("file-moved-v1.sealed", &moved),
        ("value-v1.sealed", value.as_bytes()),
        ("log-v1.sealed", &log),
        ("zone-record-v1", &zone_record().encode().unwrap()),
        ("zone-record-v2", &checked_zone_record().encode().unwrap()),
    ] {
        let made = fs::OpenOptions::new().write(true).create_new(true).open(path(name));
        let mut golden = match made {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            made => made.unwrap(),
        };
        std::io::Write::write_all(&mut golden, bytes).unwrap();
    }
}
