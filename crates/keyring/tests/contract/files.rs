//! Sealed files against everybody who can write to storage.

use saker_keyring::{FileId, FileIdentity, FileKind, HEADER_BYTES, OpenError};

use crate::fixtures::{FRAME, SEALED_FRAME, for_every_bit_flip, identity, lease, open, pattern, seal, unverified};

/// Three frames, the last one short.
const PLAIN: usize = 2 * FRAME + 100;

#[expect(clippy::needless_pass_by_value, reason = "reads better at the many calls")]
fn refused<T: std::fmt::Debug>(opened: Result<T, OpenError>, what: impl std::fmt::Display) {
    assert!(matches!(opened, Err(OpenError::Refused)), "{what}: {opened:?}");
}

#[test]
fn what_was_sealed_comes_back() {
    for bytes in [0, 1, FRAME - 1, FRAME, FRAME + 1, PLAIN, 3 * FRAME] {
        let plain = pattern(bytes);
        let file = seal(&lease(1), identity(1), &plain);
        assert_eq!(open(&lease(1), identity(1), &file).unwrap(), plain);
    }
}

#[test]
fn every_bit_flip_in_the_header_is_refused() {
    let file = seal(&lease(1), identity(1), &pattern(PLAIN));
    let lease = lease(1);
    for_every_bit_flip(&file[..HEADER_BYTES], |header, byte, bit| {
        let altered = [header, &file[HEADER_BYTES..]].concat();
        refused(
            open(&lease, identity(1), &altered),
            format_args!("bit {bit} of byte {byte}"),
        );
    });
}

#[test]
fn every_bit_flip_in_the_frames_is_refused() {
    let file = seal(&lease(1), identity(1), &pattern(PLAIN));
    let lease = lease(1);
    let header = unverified(&file[..HEADER_BYTES]);
    // As `fixtures::open`, but the frames that are not altered need not be opened for every bit again.
    let mut starts: Vec<usize> = (HEADER_BYTES..file.len()).step_by(SEALED_FRAME).collect();
    let last_start = starts.pop().unwrap();
    let opener = || lease.open_file(identity(1), &header, file.len() as u64).unwrap();
    for_every_bit_flip(&file[last_start..], |last, byte, bit| {
        refused(
            opener().verify_last(&unverified(last)),
            format_args!("bit {bit} of byte {byte} of the last frame"),
        );
    });
    let opener = opener().verify_last(&unverified(&file[last_start..])).unwrap();
    for (frame, start) in (0..).zip(starts) {
        for_every_bit_flip(&file[start..start + SEALED_FRAME], |sealed, byte, bit| {
            let opened = opener.open_frame(frame, &unverified(sealed));
            refused(opened, format_args!("bit {bit} of byte {byte} of frame {frame}"));
        });
    }
    // And in one go, one bit of every byte.
    for byte in HEADER_BYTES..file.len() {
        let mut altered = file.clone();
        altered[byte] ^= 1 << (byte % 8);
        refused(
            lease.open_whole_file(identity(1), &unverified(&altered)),
            format_args!("byte {byte}"),
        );
    }
}

#[test]
fn every_truncation_is_refused() {
    for bytes in [0, 100, 2 * FRAME, PLAIN] {
        let file = seal(&lease(1), identity(1), &pattern(bytes));
        let lease = lease(1);
        for length in 0..file.len() {
            refused(
                open(&lease, identity(1), &file[..length]),
                format_args!("cut to {length} bytes"),
            );
        }
    }
}

#[test]
fn every_extension_is_refused() {
    for bytes in [0, 100, 2 * FRAME, PLAIN] {
        let file = seal(&lease(1), identity(1), &pattern(bytes));
        let lease = lease(1);
        // Zeros, and the file's own bytes again.
        for more in (1..200).chain([SEALED_FRAME - 1, SEALED_FRAME, SEALED_FRAME + 1, 2 * SEALED_FRAME]) {
            let zeros = vec![0; more];
            let own: Vec<u8> = file[HEADER_BYTES..].iter().copied().cycle().take(more).collect();
            for tail in [zeros, own] {
                let extended = [&file[..], &tail].concat();
                refused(open(&lease, identity(1), &extended), format_args!("{more} bytes more"));
            }
        }
    }
}

fn frames(file: &[u8]) -> Vec<&[u8]> {
    file[HEADER_BYTES..].chunks(SEALED_FRAME).collect()
}

#[test]
fn reordered_repeated_and_missing_frames_are_refused() {
    let file = seal(&lease(1), identity(1), &pattern(3 * FRAME));
    let (header, frames) = (&file[..HEADER_BYTES], frames(&file));
    let with = |order: &[usize]| {
        let body: Vec<&[u8]> = order.iter().map(|&frame| frames[frame]).collect();
        open(&lease(1), identity(1), &[header, &body.concat()].concat())
    };
    assert!(with(&[0, 1, 2]).is_ok());
    for first in 0..3 {
        for second in 0..3 {
            refused(with(&[first, second]), format_args!("frames {first} and {second}"));
            for third in 0..3 {
                if [first, second, third] != [0, 1, 2] {
                    refused(
                        with(&[first, second, third]),
                        format_args!("frames {first}, {second} and {third}"),
                    );
                }
            }
        }
        refused(with(&[first]), format_args!("frame {first} alone"));
    }
    refused(with(&[0, 1, 1, 2]), "a frame twice");
}

#[test]
fn a_frame_of_another_file_is_refused() {
    let one = seal(&lease(1), identity(1), &pattern(3 * FRAME));
    let two = seal(&lease(1), identity(2), &pattern(3 * FRAME));
    // The same file written a second time has another data key, too.
    let again = seal(&lease(1), identity(1), &pattern(3 * FRAME));
    for other in [&two, &again] {
        for frame in 0..3 {
            let at = HEADER_BYTES + frame * SEALED_FRAME..HEADER_BYTES + (frame + 1) * SEALED_FRAME;
            let mut mixed = one.clone();
            mixed[at.clone()].copy_from_slice(&other[at]);
            refused(
                open(&lease(1), identity(1), &mixed),
                format_args!("frame {frame} of another file"),
            );
        }
    }
}

#[test]
fn another_file_in_its_place_is_refused() {
    let two = seal(&lease(1), identity(2), &pattern(PLAIN));
    assert!(open(&lease(1), identity(2), &two).is_ok());
    refused(open(&lease(1), identity(1), &two), "a file under another's name");
    // Nor if it claims to be the file that is expected.
    let mut claims = two;
    claims[16..32].copy_from_slice(identity(1).file.as_bytes());
    refused(
        open(&lease(1), identity(1), &claims),
        "a file that claims to be another",
    );
}

#[test]
fn another_kind_in_its_place_is_refused() {
    let index = FileIdentity {
        kind: FileKind::Index,
        ..identity(1)
    };
    let mut file = seal(&lease(1), index, &pattern(PLAIN));
    assert!(open(&lease(1), index, &file).is_ok());
    refused(open(&lease(1), identity(1), &file), "an index as a column");
    file[12..14].copy_from_slice(&FileKind::Column.code().to_le_bytes());
    refused(
        open(&lease(1), identity(1), &file),
        "an index that claims to be a column",
    );
}

#[test]
fn a_file_of_another_zone_is_refused() {
    let mut file = seal(&lease(2), identity(1), &pattern(PLAIN));
    assert!(open(&lease(2), identity(1), &file).is_ok());
    refused(open(&lease(1), identity(1), &file), "a file of another zone");
    file[112..128].copy_from_slice(lease(1).zone().as_bytes());
    refused(
        open(&lease(1), identity(1), &file),
        "a file that claims to be of this zone",
    );
    file[32..48].copy_from_slice(lease(1).zone().as_bytes());
    refused(
        open(&lease(1), identity(1), &file),
        "a file that claims to be born in this zone",
    );
}

#[test]
fn another_header_is_refused() {
    let plain = pattern(PLAIN);
    let one = seal(&lease(1), identity(1), &plain);
    let again = seal(&lease(1), identity(1), &plain);
    let of_two = seal(&lease(1), identity(2), &plain);
    for other in [&again, &of_two] {
        let swapped = [&other[..HEADER_BYTES], &one[HEADER_BYTES..]].concat();
        refused(open(&lease(1), identity(1), &swapped), "another file's header");
        refused(
            open(&lease(1), identity(2), &swapped),
            "another file's header, under its name",
        );
        // Only the key slot, or all but the key slot.
        let slot = [&one[..112], &other[112..HEADER_BYTES], &one[HEADER_BYTES..]].concat();
        refused(open(&lease(1), identity(1), &slot), "another file's key slot");
        let fixed = [&other[..112], &one[112..]].concat();
        refused(open(&lease(1), identity(1), &fixed), "another file's fixed part");
    }
}

#[test]
fn a_value_or_a_log_is_not_a_file() {
    let lease = lease(1);
    let value = lease.seal_value("a", &pattern(100)).unwrap();
    let file = FileId::from_bytes(value.as_bytes()[16..32].try_into().unwrap());
    let claimed = FileIdentity {
        file,
        kind: FileKind::Metadata,
    };
    refused(
        lease.open_whole_file(claimed, &unverified(value.as_bytes())),
        "a value as a file",
    );
    let (header, mut sealer) = lease.log_sealer(identity(1).file).unwrap();
    let record = sealer.seal(b"record").unwrap();
    let log = [header.as_bytes(), &record.as_bytes()[1..]].concat();
    let claimed = FileIdentity {
        kind: FileKind::Log,
        ..identity(1)
    };
    refused(lease.open_whole_file(claimed, &unverified(&log)), "a log as a file");
    // Nor the other way around.
    let file = seal(&lease, claimed, b"record");
    refused(
        lease.open_log(claimed.file, &unverified(&file[..HEADER_BYTES])),
        "a file as a log",
    );
    let metadata = FileIdentity {
        kind: FileKind::Metadata,
        ..identity(1)
    };
    refused(
        lease.open_value("", &unverified(&seal(&lease, metadata, b"v"))),
        "a file as a value",
    );
}

#[test]
fn nothing_and_garbage_are_refused() {
    for bytes in (0..=300).chain([10_000]) {
        refused(
            open(&lease(1), identity(1), &vec![0; bytes]),
            format_args!("{bytes} zeros"),
        );
        refused(
            open(&lease(1), identity(1), &vec![0xff; bytes]),
            format_args!("{bytes} ones"),
        );
    }
}
