//! A file that moves to another zone or key version by a new header alone.

use saker_keyring::{
    AddKeyError, FileId, FileIdentity, FileKind, HEADER_BYTES, OpenError, RewrapError, ZoneKeyVersion, wrapping_version,
};

use crate::fixtures::{FRAME, for_every_bit_flip, identity, key, lease, open, pattern, seal, unverified, zone};

#[test]
fn a_file_moves_to_another_zone_and_its_body_stays() {
    let plain = pattern(2 * FRAME + 10);
    let file = seal(&lease(1), identity(1), &plain);
    let header = unverified(&file[..HEADER_BYTES]);
    let moved = lease(2).rewrap_header(&lease(1), identity(1), &header).unwrap();
    // Only the key slot is new.
    assert_eq!(moved.as_bytes()[..112], file[..112]);
    assert_ne!(moved.as_bytes()[112..], file[112..HEADER_BYTES]);
    let moved_file = [moved.as_bytes(), &file[HEADER_BYTES..]].concat();
    assert_eq!(open(&lease(2), identity(1), &moved_file).unwrap(), plain);
    assert_eq!(
        open(&lease(1), identity(1), &moved_file).unwrap_err(),
        OpenError::Refused
    );

    // And on, and back.
    let moved = unverified(moved.as_bytes());
    let third = lease(3).rewrap_header(&lease(2), identity(1), &moved).unwrap();
    let back = lease(1)
        .rewrap_header(&lease(3), identity(1), &third.into_unverified())
        .unwrap();
    assert_eq!(
        open(
            &lease(1),
            identity(1),
            &[back.as_bytes(), &file[HEADER_BYTES..]].concat()
        )
        .unwrap(),
        plain
    );
}

#[test]
fn every_bit_flip_in_a_moved_header_is_refused() {
    let file = seal(&lease(1), identity(1), b"a small file");
    let header = unverified(&file[..HEADER_BYTES]);
    let moved = lease(2).rewrap_header(&lease(1), identity(1), &header).unwrap();
    let lease = lease(2);
    for_every_bit_flip(moved.as_bytes(), |header, byte, bit| {
        let altered = [header, &file[HEADER_BYTES..]].concat();
        let opened = lease.open_whole_file(identity(1), &unverified(&altered));
        assert_eq!(opened.unwrap_err(), OpenError::Refused, "bit {bit} of byte {byte}");
    });
}

#[test]
fn a_file_gets_the_newest_key_version() {
    let zone = zone(1);
    let lease = zone.lease().unwrap();
    let file = seal(&lease, identity(1), b"a small file");
    let header = unverified(&file[..HEADER_BYTES]);
    zone.unlock(vec![(ZoneKeyVersion::FIRST, key(1)), (ZoneKeyVersion::new(2), key(2))])
        .unwrap();
    let fresh = lease.rewrap_header(&lease, identity(1), &header).unwrap();
    // The old version is not needed any more.
    zone.unlock(vec![(ZoneKeyVersion::new(2), key(2))]).unwrap();
    assert_eq!(open(&lease, identity(1), &file).unwrap_err(), OpenError::Refused);
    let file = [fresh.as_bytes(), &file[HEADER_BYTES..]].concat();
    assert_eq!(open(&lease, identity(1), &file).unwrap(), b"a small file");
}

#[test]
fn values_and_logs_move_too() {
    let (old, new) = (lease(1), lease(2));
    let value = old.seal_value("path", b"seven").unwrap();
    let file = FileId::from_bytes(value.as_bytes()[16..32].try_into().unwrap());
    let header = unverified(&value.as_bytes()[..HEADER_BYTES]);
    let moved = new
        .rewrap_header(
            &old,
            FileIdentity {
                file,
                kind: FileKind::Metadata,
            },
            &header,
        )
        .unwrap();
    let moved = unverified(&[moved.as_bytes(), &value.as_bytes()[HEADER_BYTES..]].concat());
    assert_eq!(new.open_value("path", &moved).unwrap()[..], *b"seven");
    assert!(new.open_value("other", &moved).is_err());

    let (header, mut sealer) = old.log_sealer(identity(1).file).unwrap();
    let record = sealer.seal(b"seven").unwrap().into_unverified();
    let log = FileIdentity {
        kind: FileKind::Log,
        ..identity(1)
    };
    let moved = new
        .rewrap_header(&old, log, &header.into_unverified())
        .unwrap()
        .into_unverified();
    assert_eq!(
        new.open_log(log.file, &moved).unwrap().open(&record).unwrap().unwrap()[..],
        *b"seven"
    );
}

#[test]
fn only_an_authentic_header_of_the_expected_file_is_rewrapped() {
    let file = seal(&lease(1), identity(1), b"a small file");
    let header = unverified(&file[..HEADER_BYTES]);
    let refused = RewrapError::Open(OpenError::Refused);
    let (old, new) = (lease(1), lease(2));
    assert_eq!(new.rewrap_header(&old, identity(2), &header).unwrap_err(), refused);
    assert_eq!(new.rewrap_header(&lease(3), identity(1), &header).unwrap_err(), refused);
    assert_eq!(
        new.rewrap_header(&old, identity(1), &unverified(&file)).unwrap_err(),
        refused
    );
    for_every_bit_flip(header.as_bytes(), |altered, _, _| {
        assert_eq!(
            new.rewrap_header(&old, identity(1), &unverified(altered)).unwrap_err(),
            refused
        );
    });
}

#[test]
fn both_zones_must_be_unlocked() {
    let file = seal(&lease(1), identity(1), b"a small file");
    let header = unverified(&file[..HEADER_BYTES]);
    let (old_zone, new_zone) = (zone(1), zone(2));
    let (old, new) = (old_zone.lease().unwrap(), new_zone.lease().unwrap());
    new_zone.lock();
    assert!(matches!(
        new.rewrap_header(&old, identity(1), &header),
        Err(RewrapError::Seal(_))
    ));
    let new = lease(2);
    old_zone.lock();
    assert!(matches!(
        new.rewrap_header(&old, identity(1), &header),
        Err(RewrapError::Open(OpenError::Locked(_)))
    ));
}

#[test]
fn a_key_is_added_and_old_ones_dropped_while_the_zone_is_in_use() {
    let zone = zone(1);
    let lease = zone.lease().unwrap();
    let second = ZoneKeyVersion::new(2);
    let old = seal(&lease, identity(1), b"old");
    lease.add_key(second, key(2)).unwrap();
    assert_eq!(lease.current_version(), Ok(second));
    assert!(matches!(
        lease.add_key(second, key(3)),
        Err(AddKeyError::DuplicateVersion { .. })
    ));
    let new = seal(&lease, identity(2), b"new");
    let claim = |file: &[u8]| wrapping_version(&unverified(&file[..HEADER_BYTES])).unwrap();
    assert_eq!(claim(&old), (zone.id(), ZoneKeyVersion::FIRST));
    assert_eq!(claim(&new), (zone.id(), second));
    assert_eq!(open(&lease, identity(1), &old).unwrap(), b"old");
    assert!(
        lease.drop_keys_below(ZoneKeyVersion::new(3)).is_err(),
        "it would have none left"
    );
    lease.drop_keys_below(second).unwrap();
    assert_eq!(open(&lease, identity(1), &old).unwrap_err(), OpenError::Refused);
    assert_eq!(open(&lease, identity(2), &new).unwrap(), b"new");
}

#[test]
fn a_dead_lease_adds_drops_and_rewraps_nothing_even_after_an_unlock() {
    let zone = zone(1);
    let dead = zone.lease().unwrap();
    let file = seal(&dead, identity(1), b"a small file");
    let header = unverified(&file[..HEADER_BYTES]);
    zone.lock();
    for unlocked_again in [false, true] {
        if unlocked_again {
            zone.unlock(vec![(ZoneKeyVersion::FIRST, key(1)), (ZoneKeyVersion::new(2), key(2))])
                .unwrap();
        }
        let third = ZoneKeyVersion::new(3);
        assert!(matches!(dead.add_key(third, key(3)), Err(AddKeyError::Locked(_))));
        assert!(dead.drop_keys_below(ZoneKeyVersion::new(2)).is_err());
        assert!(dead.rewrap_header(&dead, identity(1), &header).is_err());
    }
    let alive = zone.lease().unwrap();
    assert!(dead.rewrap_header(&alive, identity(1), &header).is_err());
    assert!(alive.rewrap_header(&dead, identity(1), &header).is_err());
    assert_eq!(alive.current_version(), Ok(ZoneKeyVersion::new(2)));
    assert_eq!(open(&alive, identity(1), &file).unwrap(), b"a small file");
}
