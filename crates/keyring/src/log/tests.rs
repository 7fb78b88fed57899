//! The record limit, which only this crate can lower.

use zeroize::Zeroizing;

use crate::{
    FileId, Lease, OpenError, PlainKey, RECORD_OVERHEAD_BYTES, RECORD_ROOM_BYTES, SealError, Zone, ZoneId,
    ZoneKeyVersion,
};

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

#[test]
fn a_record_sealed_where_it_is_is_the_same_record() {
    let lease = lease();
    let segment = FileId::random();
    let (header, mut sealer) = lease.log_sealer(segment).unwrap();
    let room = |plain: &[u8]| Zeroizing::new([&[0xEE; RECORD_ROOM_BYTES], plain].concat());
    let records = [
        sealer.seal_in_place(room(b"one")).unwrap(),
        sealer.seal(b"two").unwrap(),
        sealer.seal_in_place(room(b"")).unwrap(),
    ];
    assert_eq!(records[0].as_bytes().len(), RECORD_OVERHEAD_BYTES + 3);
    let short = Zeroizing::new(vec![0; RECORD_ROOM_BYTES - 1]);
    assert_eq!(sealer.seal_in_place(short).unwrap_err(), SealError::Module);
    assert_eq!(sealer.records(), 3);
    let mut opener = lease.open_log(segment, &header.into_unverified()).unwrap();
    for (record, plain) in records.into_iter().zip([&b"one"[..], b"two", b""]) {
        assert_eq!(&opener.open(&record.into_unverified()).unwrap().unwrap()[..], plain);
    }
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
