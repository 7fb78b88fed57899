//! Sealed log segments.

use proptest::prelude::*;
use saker_keyring::{FileId, Lease, LogOpener, OpenError, RECORD_BYTES_MAX, SealError, Unverified};

use crate::fixtures::{for_every_bit_flip, lease, unverified};

const SEGMENT: FileId = FileId::from_bytes([5; 16]);

fn seal(lease: &Lease, segment: FileId, records: &[&[u8]]) -> (Unverified, Vec<Unverified>) {
    let (header, mut sealer) = lease.log_sealer(segment).unwrap();
    let mut sealed: Vec<Unverified> = records
        .iter()
        .map(|record| sealer.seal(record).unwrap().into_unverified())
        .collect();
    sealed.push(sealer.close().unwrap().into_unverified());
    (header.into_unverified(), sealed)
}

fn opener(lease: &Lease, header: &Unverified) -> LogOpener {
    lease.open_log(SEGMENT, header).unwrap()
}

proptest! {
    #[test]
    fn records_come_back_in_order(
        records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..500), 0..20)
    ) {
        let lease = lease(1);
        let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let (header, sealed) = seal(&lease, SEGMENT, &slices);
        let mut opener = opener(&lease, &header);
        for (record, sealed) in records.iter().zip(&sealed) {
            prop_assert!(!opener.is_closed());
            prop_assert_eq!(&opener.open(sealed).unwrap().unwrap()[..], &record[..]);
        }
        prop_assert!(opener.open(sealed.last().unwrap()).unwrap().is_none());
        prop_assert!(opener.is_closed());
        prop_assert_eq!(opener.records(), records.len() as u64 + 1);
    }
}

#[test]
fn every_bit_flip_truncation_and_extension_is_refused() {
    let lease = lease(1);
    let (header, sealed) = seal(&lease, SEGMENT, &[b"", b"a record"]);
    for_every_bit_flip(header.as_bytes(), |altered, byte, bit| {
        let opened = lease.open_log(SEGMENT, &unverified(altered));
        assert_eq!(
            opened.unwrap_err(),
            OpenError::Refused,
            "bit {bit} of byte {byte} of the header"
        );
    });
    for length in 0..header.len() {
        assert!(
            lease
                .open_log(SEGMENT, &unverified(&header.as_bytes()[..length]))
                .is_err()
        );
    }
    let mut opener = opener(&lease, &header);
    for (number, record) in sealed.iter().enumerate() {
        for_every_bit_flip(record.as_bytes(), |altered, byte, bit| {
            let opened = opener.open(&unverified(altered));
            assert_eq!(
                opened.unwrap_err(),
                OpenError::Refused,
                "bit {bit} of byte {byte} of record {number}"
            );
        });
        for length in 0..record.len() {
            assert!(
                opener.open(&unverified(&record.as_bytes()[..length])).is_err(),
                "record {number}, {length}"
            );
        }
        for more in 1..100 {
            let extended = [record.as_bytes(), &vec![0; more]].concat();
            assert!(
                opener.open(&unverified(&extended)).is_err(),
                "record {number}, {more} more"
            );
        }
        // What was refused did not move the opener on.
        opener.open(record).unwrap();
    }
}

#[test]
fn reorder_replay_and_a_gap_are_refused() {
    let lease = lease(1);
    let (header, sealed) = seal(&lease, SEGMENT, &[b"zero", b"one", b"two"]);
    let mut opener = opener(&lease, &header);
    for (number, record) in (1..).zip(&sealed[1..]) {
        assert_eq!(
            opener.open(record).unwrap_err(),
            OpenError::Refused,
            "{number} before 0"
        );
    }
    opener.open(&sealed[0]).unwrap();
    assert_eq!(opener.open(&sealed[0]).unwrap_err(), OpenError::Refused, "0 again");
    assert_eq!(opener.open(&sealed[2]).unwrap_err(), OpenError::Refused, "2 before 1");
    assert_eq!(
        opener.open(&sealed[3]).unwrap_err(),
        OpenError::Refused,
        "closed before 1"
    );
    opener.open(&sealed[1]).unwrap();
    opener.open(&sealed[2]).unwrap();
    opener.open(&sealed[3]).unwrap();
    for record in &sealed {
        assert_eq!(
            opener.open(record).unwrap_err(),
            OpenError::Refused,
            "after the closing record"
        );
    }
}

/// By design: this is what a crash leaves. What tells it from a segment that was finished is the closing record.
#[test]
fn a_cut_between_records_is_seen_by_the_missing_closing_record() {
    let lease = lease(1);
    let (header, sealed) = seal(&lease, SEGMENT, &[b"zero", b"one"]);
    let mut opener = opener(&lease, &header);
    opener.open(&sealed[0]).unwrap();
    assert!(!opener.is_closed());
}

#[test]
fn records_of_another_segment_are_refused() {
    let lease = lease(1);
    let (header, sealed) = seal(&lease, SEGMENT, &[b"zero"]);
    let (other_header, other) = seal(&lease, FileId::from_bytes([6; 16]), &[b"zero"]);
    let (again_header, again) = seal(&lease, SEGMENT, &[b"zero"]);
    assert!(opener(&lease, &header).open(&other[0]).is_err());
    assert!(opener(&lease, &header).open(&again[0]).is_err());
    assert!(opener(&lease, &again_header).open(&sealed[0]).is_err());
    assert!(lease.open_log(SEGMENT, &other_header).is_err());
}

#[test]
fn a_segment_of_another_zone_is_refused() {
    let (header, _) = seal(&lease(2), SEGMENT, &[]);
    assert_eq!(lease(1).open_log(SEGMENT, &header).unwrap_err(), OpenError::Refused);
}

#[test]
fn the_record_limit_holds() {
    let lease = lease(1);
    let (header, mut sealer) = lease.log_sealer(SEGMENT).unwrap();
    let header = header.into_unverified();
    let longest = vec![0; RECORD_BYTES_MAX + 1];
    let record = sealer.seal(&longest[1..]).unwrap().into_unverified();
    assert!(matches!(sealer.seal(&longest), Err(SealError::TooLong { .. })));
    assert_eq!(sealer.records(), 1);
    assert_eq!(
        opener(&lease, &header).open(&record).unwrap().unwrap().len(),
        RECORD_BYTES_MAX
    );
    // A record that is longer than any that is sealed is refused before a buffer is made for it.
    let too_long = unverified(&[record.as_bytes(), &[0]].concat());
    assert_eq!(opener(&lease, &header).open(&too_long).unwrap_err(), OpenError::Refused);
}
