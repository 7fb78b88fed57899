//! The record limit, which only this crate can lower.

use crate::{FileId, Lease, OpenError, PlainKey, SealError, Zone, ZoneId, ZoneKeyVersion};

fn lease() -> Lease {
    let zone = Zone::locked(ZoneId::from_bytes([1; 16]));
    zone.unlock(vec![(ZoneKeyVersion::FIRST, PlainKey::take(&mut [2; 32]).unwrap())])
        .unwrap();
    zone.lease().unwrap()
}

#[test]
fn a_key_seals_no_more_than_its_records_and_the_last_is_kept_for_closing() {
    let lease = lease();
    let segment = FileId::random();
    let (header, mut sealer) = lease.log_sealer(segment).unwrap();
    sealer.records_max = 3;
    let mut records = vec![sealer.seal(b"one").unwrap(), sealer.seal(b"two").unwrap()];
    assert_eq!(
        sealer.seal(b"three").unwrap_err(),
        SealError::FrameLimit { frames_max: 3 }
    );
    records.push(sealer.close().unwrap());
    assert_eq!(sealer.close().unwrap_err(), SealError::Closed);
    assert_eq!(sealer.records(), 3);

    let mut opener = lease.open_log(segment, &header.into_unverified()).unwrap();
    for record in records {
        opener.open(&record.into_unverified()).unwrap();
    }
    assert!(opener.is_closed());
}

/// A closing record that counts wrongly can only come from a writer with the key; it is refused all the same.
#[test]
fn a_closing_record_that_counts_wrongly_is_refused() {
    let lease = lease();
    let segment = FileId::random();
    let (header, mut sealer) = lease.log_sealer(segment).unwrap();
    let wrong = sealer
        .seal_record(super::RecordType::Closing, &7_u64.to_le_bytes())
        .unwrap();
    let mut opener = lease.open_log(segment, &header.into_unverified()).unwrap();
    assert_eq!(opener.open(&wrong.into_unverified()).unwrap_err(), OpenError::Refused);
    assert!(!opener.is_closed());
}
