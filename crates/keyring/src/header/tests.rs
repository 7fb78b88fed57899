//! Headers that an attacker who holds the zone key could make: the wrap is in order, so that the checks behind it are
//! what has to refuse.

use super::*;

const ZONE: ZoneId = ZoneId::from_bytes([1; 16]);
const FILE: FileId = FileId::from_bytes([2; 16]);
const EXPECTED: FileIdentity = FileIdentity {
    file: FILE,
    kind: FileKind::Column,
};

fn keys() -> ZoneKeys {
    ZoneKeys::for_test(vec![(ZoneKeyVersion::FIRST, PlainKey::take(&mut [3; 32]).unwrap())])
}

fn fixed() -> Fixed {
    Fixed {
        shape: Shape::File,
        kind: FileKind::Column,
        frame_log2: 12,
        file: FILE,
        birth: ZONE,
    }
}

fn open_file(header: &[u8]) -> Result<Opened, OpenError> {
    open(ZONE, &keys(), EXPECTED, Shape::File, header)
}

/// A header of which `alter` changed the fixed part, wrapped properly again.
fn altered(alter: impl FnOnce(&mut [u8; HEADER_BYTES])) -> [u8; HEADER_BYTES] {
    let (mut header, _) = seal(ZONE, &keys(), &fixed()).unwrap();
    let data_key = open_file(&header).unwrap().data_key;
    alter(&mut header);
    wrap(ZONE, &keys(), FILE, &data_key, &mut header).unwrap();
    header
}

#[test]
fn a_header_opens() {
    assert_eq!(open_file(&altered(|_| ())).unwrap().fixed, fixed());
}

#[test]
fn commitment_and_header_tag_hold_without_the_wrap() {
    for byte in 0..SLOT {
        for bit in 0..8 {
            let header = altered(|header| header[byte] ^= 1 << bit);
            assert!(open_file(&header).is_err(), "bit {bit} of byte {byte}");
        }
    }
}

/// A second data key under which the frames would open to something else: the commitment is to the first.
#[test]
fn another_data_key_is_refused() {
    let (mut header, _) = seal(ZONE, &keys(), &fixed()).unwrap();
    let other = random_key();
    wrap(ZONE, &keys(), FILE, &other, &mut header).unwrap();
    assert!(open_file(&header).is_err());
    // Even if the header tag is made to fit the other key.
    let derived = Derived::new(&other, FILE).unwrap();
    let tag = cipher::mac(derived.header.expose_bytes(), &header[..HEADER_TAG]);
    header[HEADER_TAG..SLOT].copy_from_slice(&tag);
    wrap(ZONE, &keys(), FILE, &other, &mut header).unwrap();
    assert!(open_file(&header).is_err());
    // With the commitment, too, it is simply another file.
    header[COMMITMENT..HEADER_TAG].copy_from_slice(&derived.commitment);
    let tag = cipher::mac(derived.header.expose_bytes(), &header[..HEADER_TAG]);
    header[HEADER_TAG..SLOT].copy_from_slice(&tag);
    wrap(ZONE, &keys(), FILE, &other, &mut header).unwrap();
    assert!(open_file(&header).is_ok());
}

#[test]
fn fields_outside_their_range_are_refused_even_if_authentic() {
    let authentic = |alter: &dyn Fn(&mut [u8; HEADER_BYTES])| {
        let (mut header, _) = seal(ZONE, &keys(), &fixed()).unwrap();
        let data_key = open_file(&header).unwrap().data_key;
        alter(&mut header);
        let derived = Derived::new(&data_key, FILE).unwrap();
        let tag = cipher::mac(derived.header.expose_bytes(), &header[..HEADER_TAG]);
        header[HEADER_TAG..SLOT].copy_from_slice(&tag);
        wrap(ZONE, &keys(), FILE, &data_key, &mut header).unwrap();
        open_file(&header).map(|opened| opened.fixed)
    };
    for frame_log2 in 0..=u8::MAX {
        let opened = authentic(&|header| header[15] = frame_log2);
        assert_eq!(
            opened.is_ok(),
            (FRAME_LOG2_MIN..=FRAME_LOG2_MAX).contains(&frame_log2),
            "{frame_log2}"
        );
    }
    for shape in 2..=u8::MAX {
        assert!(authentic(&|header| header[14] = shape).is_err(), "shape {shape}");
    }
    for kind in 2..20 {
        assert!(authentic(&|header| header[12] = kind).is_err(), "kind {kind}");
    }
    for at in [8, 10] {
        assert!(authentic(&|header| header[at] = 2).is_err(), "version or suite 2");
    }
}

#[test]
fn an_unknown_key_version_is_refused() {
    let newer = ZoneKeys::for_test(vec![(ZoneKeyVersion::new(2), PlainKey::take(&mut [4; 32]).unwrap())]);
    let (header, _) = seal(ZONE, &newer, &fixed()).unwrap();
    assert!(open_file(&header).is_err());
    assert!(open(ZONE, &newer, EXPECTED, Shape::File, &header).is_ok());
}

#[test]
fn every_wrap_key_is_of_one_file_zone_and_version() {
    let key = PlainKey::take(&mut [3; 32]).unwrap();
    let sealed = |key: &AeadKey| {
        let mut sealed = vec![0; OVERHEAD_BYTES];
        key.seal_in_place(b"", &mut sealed).unwrap();
        sealed
    };
    let one = wrap_key(&key, ZONE, ZoneKeyVersion::FIRST, FILE).unwrap();
    let sealed = sealed(&one);
    assert!(one.open(b"", &sealed).is_ok());
    let other_zone = wrap_key(&key, ZoneId::from_bytes([9; 16]), ZoneKeyVersion::FIRST, FILE).unwrap();
    let other_version = wrap_key(&key, ZONE, ZoneKeyVersion::new(2), FILE).unwrap();
    let other_file = wrap_key(&key, ZONE, ZoneKeyVersion::FIRST, FileId::from_bytes([9; 16])).unwrap();
    for other in [other_zone, other_version, other_file] {
        assert!(other.open(b"", &sealed).is_err());
    }
}
