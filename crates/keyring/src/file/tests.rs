//! Round trips around every border, the layout's arithmetic, and the frame limit.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::{Lease, OpenError, PlainKey, SealError, SealedObject, Unverified, Zone, ZoneId, ZoneKeyVersion};

fn lease() -> Lease {
    let zone = Zone::locked(ZoneId::from_bytes([1; 16]));
    zone.unlock(vec![(ZoneKeyVersion::FIRST, PlainKey::take(&mut [2; 32]).unwrap())])
        .unwrap();
    zone.lease().unwrap()
}

fn identity() -> FileIdentity {
    FileIdentity {
        file: FileId::from_bytes([3; 16]),
        kind: FileKind::Column,
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Seals `plain` in pieces of `piece` bytes.
fn seal(lease: &Lease, frame: FrameSize, plain: &[u8], piece: usize) -> SealedObject {
    let mut sealer = lease.file_sealer(identity().file, identity().kind, frame).unwrap();
    for part in plain.chunks(piece.max(1)) {
        sealer.write(part).unwrap();
    }
    sealer.finish().unwrap()
}

fn check_round_trip(frame: FrameSize, bytes: usize, piece: usize) {
    let lease = lease();
    let plain = pattern(bytes);
    let object = seal(&lease, frame, &plain, piece);
    let file = object.to_unverified();
    assert_eq!(file.len() as u64, object.len());
    assert_eq!(lease.open_whole_file(identity(), &file).unwrap()[..], plain[..]);

    let header = file.slice(0..HEADER_BYTES).unwrap();
    let unverified = lease.open_file(identity(), &header, object.len()).unwrap();
    assert_eq!(unverified.plain_bytes(), bytes as u64);
    let at = |range: std::ops::Range<u64>| {
        file.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
            .unwrap()
    };
    let last = at(unverified.last_frame_range());
    let opener = unverified.verify_last(&last).unwrap();
    let mut collected = Zeroizing::new(Vec::new());
    for frame in 0..opener.frame_count() {
        let sealed = at(opener.frame_range(frame));
        let opened = opener.open_frame(frame, &sealed).unwrap();
        let mut into = vec![0; opened.len()];
        opener.open_frame_into(frame, &sealed, &mut into).unwrap();
        assert_eq!(into[..], opened[..]);
        collected.extend_from_slice(&opened);
    }
    assert_eq!(collected[..], plain[..]);
    let mut out = vec![9; bytes];
    opener.open_into(&file, &mut out).unwrap();
    assert_eq!(out, plain);
}

#[test]
fn sizes_around_every_border_come_back() {
    for frame in [FrameSize::Random, FrameSize::Sequential] {
        let frame_bytes = frame.bytes();
        // The tag spills over into the last frame's place if that is shorter than a tag: 15, 16 and 17 behind a border.
        for frames in 0..=3 {
            for around in [0, 1, 2, 15, 16, 17, frame_bytes - 17, frame_bytes - 16, frame_bytes - 1] {
                check_round_trip(frame, frames * frame_bytes + around, frame_bytes);
            }
        }
    }
    // More than one chunk.
    check_round_trip(FrameSize::Random, (1 << 20) + 4_097, 100_000);
    check_round_trip(FrameSize::Sequential, (3 << 20) + 1, 1 << 20);
}

#[test]
fn an_empty_file_is_one_empty_frame() {
    let lease = lease();
    let object = seal(&lease, FrameSize::Sequential, b"", 1);
    assert_eq!(object.len(), 192 + 28);
    check_round_trip(FrameSize::Sequential, 0, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_size_in_any_pieces_comes_back(bytes in 0_usize..20_000, piece in 1_usize..9_000) {
        check_round_trip(FrameSize::Random, bytes, piece);
    }

    #[test]
    fn the_layout_is_the_inverse_of_sealing(log2 in 12_u8..=20, plain in 0_u64..1 << 40) {
        let frame = 1_u64 << log2;
        let frames = plain.div_ceil(frame).max(1);
        let layout = Layout::new(log2, HEADER_BYTES as u64 + plain + frames * OVERHEAD).unwrap();
        prop_assert_eq!(layout, Layout { frame_bytes: frame, frame_count: frames, plain_bytes: plain });
        prop_assert_eq!(layout.range(0).start, HEADER_BYTES as u64);
        prop_assert_eq!(layout.range(layout.last()).end, HEADER_BYTES as u64 + plain + frames * OVERHEAD);
    }

    #[test]
    fn no_length_upsets_the_layout(log2 in 12_u8..=20, file_bytes: u64) {
        if let Some(layout) = Layout::new(log2, file_bytes) {
            prop_assert_eq!(layout.range(layout.last()).end, file_bytes);
            prop_assert!(layout.frame_count <= FRAMES_MAX);
        }
    }

    #[test]
    fn frames_for_covers_exactly(bytes in 0_u64..20_000, start in 0_u64..21_000, length in 0_u64..21_000) {
        let lease = lease();
        let object = seal(&lease, FrameSize::Random, &pattern(usize::try_from(bytes).unwrap()), 4_096);
        let file = object.to_unverified();
        let header = file.slice(0..HEADER_BYTES).unwrap();
        let unverified = lease.open_file(identity(), &header, object.len()).unwrap();
        let range = unverified.last_frame_range();
        let last = file.slice(usize::try_from(range.start).unwrap()..file.len()).unwrap();
        let opener = unverified.verify_last(&last).unwrap();
        let frames = opener.frames_for(start..start + length);
        let end = (start + length).min(bytes);
        if start < end {
            prop_assert!(frames.start * 4_096 <= start && start < (frames.start + 1) * 4_096);
            prop_assert!((frames.end - 1) * 4_096 < end && end <= frames.end * 4_096);
            prop_assert!(frames.end <= opener.frame_count());
        } else {
            prop_assert!(frames.is_empty());
        }
    }
}

#[test]
fn lengths_that_no_file_has_are_refused() {
    let frame = 4_096 + 28;
    for body in [0, 27, frame + 1, frame + 28, 2 * frame + 27] {
        assert_eq!(Layout::new(12, 192 + body), None, "{body}");
    }
    for body in [28, 29, frame, frame + 29, 2 * frame] {
        assert!(Layout::new(12, 192 + body).is_some(), "{body}");
    }
    assert_eq!(Layout::new(12, 191), None);
    assert!(Layout::new(12, 192 + FRAMES_MAX * frame).is_some());
    assert_eq!(Layout::new(12, 192 + FRAMES_MAX * frame + 29), None);
    assert_eq!(Layout::new(12, u64::MAX), None);
}

#[test]
fn a_key_seals_no_more_than_its_frames() {
    let lease = lease();
    let seal = |frames: usize| {
        let FileIdentity { file, kind } = identity();
        let mut sealer = FileSealer::with_frames_max(&lease, file, kind, FrameSize::Random, 3)?;
        sealer.write(&pattern(frames * 4_096))?;
        sealer.finish()
    };
    assert!(seal(2).is_ok());
    assert!(seal(3).is_ok());
    assert_eq!(seal(4).unwrap_err(), SealError::FrameLimit { frames_max: 3 });
}

#[test]
fn a_wrong_buffer_gets_nothing() {
    let lease = lease();
    let plain = pattern(5_000);
    let file = seal(&lease, FrameSize::Random, &plain, 5_000).to_unverified();
    let header = file.slice(0..HEADER_BYTES).unwrap();
    for bytes in [0, 4_999, 5_001] {
        let mut out = vec![1; bytes];
        let opener = lease.open_file(identity(), &header, file.len() as u64).unwrap();
        assert_eq!(opener.open_into(&file, &mut out), Err(OpenError::Refused));
        assert!(out.iter().all(|&byte| byte == 0));
    }
}

#[test]
fn frames_that_do_not_exist_are_refused() {
    let lease = lease();
    let file = seal(&lease, FrameSize::Random, &pattern(5_000), 5_000).to_unverified();
    let header = file.slice(0..HEADER_BYTES).unwrap();
    let unverified = lease.open_file(identity(), &header, file.len() as u64).unwrap();
    let last = file.slice(HEADER_BYTES + 4_124..file.len()).unwrap();
    let opener = unverified.verify_last(&last).unwrap();
    for frame in [2, 3, u64::MAX] {
        assert_eq!(opener.frame_range(frame), 0..0);
        assert_eq!(opener.open_frame(frame, &last).unwrap_err(), OpenError::Refused);
        assert_eq!(
            opener
                .open_frame(frame, &Unverified::new(Vec::new().into()))
                .unwrap_err(),
            OpenError::Refused
        );
    }
}
