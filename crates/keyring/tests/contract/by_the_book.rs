//! A second reader of the golden files, written from the tables in `docs/formats.md` alone: other types of the
//! cryptographic library, HKDF spelled out as RFC 5869 has it, offsets as numbers. If it disagrees with the crate, one of
//! the two left the format.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};

use crate::{
    fixtures::pattern,
    golden::{FILE_PLAIN_BYTES, IDENTITY, RECORDS, VALUE, read, records},
};

/// RFC 5869 with SHA-512, to the 32 bytes that one round of expansion gives at most 64 of.
fn hkdf(secret: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let extracted = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, salt), secret);
    let expanded = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA512, extracted.as_ref()),
        &[info, &[1]].concat(),
    );
    expanded.as_ref()[..32].try_into().unwrap()
}

/// Nonce, ciphertext, tag.
fn gcm_open(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&sealed[..12]).unwrap();
    let mut body = sealed[12..].to_vec();
    key.open_in_place(nonce, Aad::from(aad), &mut body).unwrap().to_vec()
}

/// Checks a header field by field and gives the key of its frames.
fn header(header: &[u8], zone_key: &[u8; 32], kind: u8, shape: u8, frame_log2: u8, slot_zone: u8) -> [u8; 32] {
    assert_eq!(header[0..8], *b"\x93SAKER\r\n");
    assert_eq!(header[8..10], [1, 0], "format version");
    assert_eq!(header[10..12], [1, 0], "suite");
    assert_eq!(header[12..14], [kind, 0]);
    assert_eq!(header[14..16], [shape, frame_log2]);
    let file = &header[16..32];
    assert_eq!(header[32..48], [0x21; 16], "birth zone");
    assert_eq!(header[112..128], [slot_zone; 16], "the zone that wraps the key");
    assert_eq!(header[128..132], [2, 0, 0, 0], "version of its key");

    let info = [b"saker/v1/wrap".as_slice(), &header[112..128], &header[128..132]].concat();
    let data_key = gcm_open(&hkdf(zone_key, file, &info), &header[..132], &header[132..192]);
    assert_eq!(header[48..80], hkdf(&data_key, file, b"saker/v1/commitment"));
    let header_key = hmac::Key::new(hmac::HMAC_SHA256, &hkdf(&data_key, file, b"saker/v1/header"));
    assert_eq!(header[80..112], *hmac::sign(&header_key, &header[..80]).as_ref());
    hkdf(&data_key, file, b"saker/v1/frames")
}

/// Associated data of a frame, value or record.
fn aad(label: &[u8; 16], header: &[u8], index: u64, last: u8) -> Vec<u8> {
    let (birth, file, kind, frame_log2) = (&header[32..48], &header[16..32], &header[12..14], header[15]);
    [label, birth, file, kind, &[frame_log2, last], &index.to_le_bytes()].concat()
}

#[test]
fn files_are_as_documented() {
    for (name, zone_key, slot_zone) in [("file-v1.sealed", 0x22, 0x21), ("file-moved-v1.sealed", 0x42, 0x41)] {
        let file = read(name);
        let frames_key = header(&file[..192], &[zone_key; 32], 1, 1, 12, slot_zone);
        let mut plain = Vec::new();
        for (index, last, frame) in [
            (0, 0, &file[192..192 + 4_124]),
            (1, 0, &file[192 + 4_124..192 + 8_248]),
            (2, 1, &file[192 + 8_248..]),
        ] {
            let aad = aad(b"saker/v1/frame\0\0", &file, index, last);
            assert_eq!(aad.len(), 60);
            plain.extend(gcm_open(&frames_key, &aad, frame));
        }
        assert_eq!(plain, pattern(FILE_PLAIN_BYTES), "{name}");
    }
}

#[test]
fn values_are_as_documented() {
    let value = read("value-v1.sealed");
    let key = header(&value[..192], &[0x22; 32], 6, 2, 0, 0x21);
    let aad = [aad(b"saker/v1/value\0\0", &value, 0, 1), IDENTITY.as_bytes().to_vec()].concat();
    assert_eq!(gcm_open(&key, &aad, &value[192..]), VALUE);
}

#[test]
fn logs_are_as_documented() {
    let log = read("log-v1.sealed");
    let key = header(&log[..192], &[0x22; 32], 5, 3, 0, 0x21);
    let sealed = records(&log);
    assert_eq!(sealed.len(), 4);
    for (index, record) in (0..).zip(&sealed[..3]) {
        assert_eq!(record[0], 1, "a data record");
        let aad = aad(b"saker/v1/record\0", &log, index, 0);
        assert_eq!(
            gcm_open(&key, &aad, &record[1..]),
            RECORDS[usize::try_from(index).unwrap()]
        );
    }
    assert_eq!(sealed[3][0], 2, "the closing record");
    assert_eq!(
        gcm_open(&key, &aad(b"saker/v1/record\0", &log, 3, 1), &sealed[3][1..]),
        3_u64.to_le_bytes()
    );
}

#[test]
fn zone_records_are_as_documented() {
    zone_record("zone-record-v1", 1, [None, None]);
    // Of the first version's key no check value was kept; that of the second is checked with the key.
    let message = [&b"saker zone key check 1"[..], &[0x21; 16], &[2, 0, 0, 0]].concat();
    let check = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[0x22; 32]), &message);
    zone_record("zone-record-v2", 2, [Some(&[]), Some(check.as_ref())]);
}

/// `checks`: the check value of each key version, where the format has them.
fn zone_record(name: &str, format: u8, checks: [Option<&[u8]>; 2]) {
    let record = read(name);
    let checksum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &record[..record.len() - 32]);
    assert_eq!(record[record.len() - 32..], *checksum.as_ref());
    assert_eq!(record[..7], *b"SAKERZR");
    assert_eq!(record[7], format);
    assert_eq!(record[8..24], [0x21; 16]);
    let mut rest = &record[24..record.len() - 32];
    let mut take = |bytes: usize| {
        let (part, after) = rest.split_at(bytes);
        rest = after;
        part
    };
    for text in [
        "arn:aws:kms:us-east-1:000000000000:key/0e5f2f6a-0000-4000-8000-000000000001",
        "golden",
        "21212121-2121-2121-2121-212121212121",
        "zone-key",
    ] {
        let length = take(2);
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        assert_eq!(take(length), text.as_bytes());
    }
    assert_eq!(take(2), [2, 0], "two versions");
    for (version, check) in [1, 2].into_iter().zip(checks) {
        assert_eq!(take(4), [version, 0, 0, 0]);
        assert_eq!(take(2), [184, 0]);
        assert_eq!(take(184), [version; 184]);
        if let Some(check) = check {
            assert_eq!(usize::from(take(2)[0]), check.len());
            assert_eq!(take(check.len()), check);
        }
    }
    assert!(rest.is_empty());
}
