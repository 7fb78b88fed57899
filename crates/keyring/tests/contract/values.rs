//! Sealed metadata values.

use proptest::prelude::*;
use saker_keyring::{
    OpenError, SealError, VALUE_BYTES_MAX, VALUE_IDENTITY_BYTES_MAX, VALUE_OVERHEAD_BYTES, ZoneKeyVersion,
};

use crate::fixtures::{for_every_bit_flip, key, lease, pattern, unverified, zone};

const PATH: &str = "cluster/7/database/3";

proptest! {
    #[test]
    fn what_was_sealed_comes_back(identity in ".{0,40}", plain in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        let lease = lease(1);
        let value = lease.seal_value(&identity, &plain).unwrap();
        prop_assert_eq!(value.as_bytes().len(), plain.len() + VALUE_OVERHEAD_BYTES);
        let opened = lease.open_value(&identity, &value.into_unverified()).unwrap();
        prop_assert_eq!(&opened[..], &plain[..]);
    }
}

#[test]
fn every_bit_flip_truncation_and_extension_is_refused() {
    for bytes in [0, 60] {
        let value = lease(1).seal_value(PATH, &pattern(bytes)).unwrap();
        let value = value.as_bytes();
        let lease = lease(1);
        for_every_bit_flip(value, |altered, byte, bit| {
            let opened = lease.open_value(PATH, &unverified(altered));
            assert_eq!(opened.unwrap_err(), OpenError::Refused, "bit {bit} of byte {byte}");
        });
        for length in 0..value.len() {
            let opened = lease.open_value(PATH, &unverified(&value[..length]));
            assert_eq!(opened.unwrap_err(), OpenError::Refused, "cut to {length} bytes");
        }
        for more in 1..300 {
            let opened = lease.open_value(PATH, &unverified(&[value, &vec![0; more]].concat()));
            assert_eq!(opened.unwrap_err(), OpenError::Refused, "{more} bytes more");
        }
    }
}

#[test]
fn a_value_stands_under_its_own_path_alone() {
    let lease = lease(1);
    let value = lease.seal_value(PATH, b"seven").unwrap().into_unverified();
    for other in [
        "",
        "cluster/7/database/4",
        "cluster/7/database/",
        "cluster/7/database/33",
        "Cluster/7/database/3",
    ] {
        assert_eq!(
            lease.open_value(other, &value).unwrap_err(),
            OpenError::Refused,
            "{other}"
        );
    }
}

#[test]
fn a_value_of_another_zone_is_refused() {
    let value = lease(2).seal_value(PATH, b"seven").unwrap().into_unverified();
    assert_eq!(lease(1).open_value(PATH, &value).unwrap_err(), OpenError::Refused);
    let mut claims = value.as_bytes().to_vec();
    claims[112..128].copy_from_slice(lease(1).zone().as_bytes());
    assert_eq!(
        lease(1).open_value(PATH, &unverified(&claims)).unwrap_err(),
        OpenError::Refused
    );
}

#[test]
fn parts_of_two_values_do_not_fit_together() {
    let lease = lease(1);
    let one = lease.seal_value(PATH, b"seven").unwrap();
    let two = lease.seal_value(PATH, b"eight").unwrap();
    for border in [48, 80, 112, 132, 192] {
        let mixed = [&one.as_bytes()[..border], &two.as_bytes()[border..]].concat();
        assert_eq!(
            lease.open_value(PATH, &unverified(&mixed)).unwrap_err(),
            OpenError::Refused,
            "{border}"
        );
    }
}

#[test]
fn a_value_opens_after_a_rotation_until_its_key_version_is_gone() {
    let zone = zone(1);
    let lease = zone.lease().unwrap();
    let old = lease.seal_value(PATH, b"seven").unwrap().into_unverified();
    zone.unlock(vec![(ZoneKeyVersion::new(2), key(20)), (ZoneKeyVersion::FIRST, key(1))])
        .unwrap();
    assert_eq!(lease.current_version().unwrap(), ZoneKeyVersion::new(2));
    assert_eq!(lease.open_value(PATH, &old).unwrap()[..], *b"seven");
    let new = lease.seal_value(PATH, b"eight").unwrap().into_unverified();
    zone.unlock(vec![(ZoneKeyVersion::new(2), key(20))]).unwrap();
    assert_eq!(lease.open_value(PATH, &old).unwrap_err(), OpenError::Refused);
    assert_eq!(lease.open_value(PATH, &new).unwrap()[..], *b"eight");
}

#[test]
fn limits_hold() {
    let lease = lease(1);
    let longest = vec![0; VALUE_BYTES_MAX + 1];
    for bytes in [VALUE_BYTES_MAX - 1, VALUE_BYTES_MAX] {
        assert!(lease.seal_value(PATH, &longest[..bytes]).is_ok());
    }
    let too_long = SealError::TooLong {
        bytes: VALUE_BYTES_MAX as u64 + 1,
        bytes_max: VALUE_BYTES_MAX as u64,
    };
    assert_eq!(lease.seal_value(PATH, &longest).unwrap_err(), too_long);
    let identity = "x".repeat(VALUE_IDENTITY_BYTES_MAX + 1);
    assert!(lease.seal_value(&identity[1..], b"").is_ok());
    assert!(matches!(
        lease.seal_value(&identity, b""),
        Err(SealError::TooLong { .. })
    ));
}
