//! Zones with fixed keys, sealed files to tamper with, and the tampering.

use std::sync::Arc;

use bytes::Bytes;
use saker_keyring::{
    FileId, FileIdentity, FileKind, FrameSize, HEADER_BYTES, Lease, OpenError, PlainKey, Unverified, Zone, ZoneId,
    ZoneKeyVersion,
};

/// Plaintext bytes of a frame of the files here.
pub(crate) const FRAME: usize = 4_096;
/// Bytes of a sealed frame.
pub(crate) const SEALED_FRAME: usize = FRAME + 28;

pub(crate) fn zone(number: u8) -> Arc<Zone> {
    let zone = Zone::locked(ZoneId::from_bytes([number; 16]));
    zone.unlock(vec![(ZoneKeyVersion::FIRST, key(number))]).unwrap();
    zone
}

pub(crate) fn lease(number: u8) -> Lease {
    zone(number).lease().unwrap()
}

pub(crate) fn key(number: u8) -> PlainKey {
    PlainKey::take(&mut [number; 32]).unwrap()
}

pub(crate) fn identity(number: u8) -> FileIdentity {
    FileIdentity {
        file: FileId::from_bytes([number; 16]),
        kind: FileKind::Column,
    }
}

pub(crate) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

pub(crate) fn seal(lease: &Lease, identity: FileIdentity, plain: &[u8]) -> Vec<u8> {
    let mut sealer = lease
        .file_sealer(identity.file, identity.kind, FrameSize::Random)
        .unwrap();
    sealer.write(plain).unwrap();
    sealer.finish().unwrap().into_chunks().concat()
}

pub(crate) fn unverified(bytes: &[u8]) -> Unverified {
    Unverified::new(Bytes::copy_from_slice(bytes))
}

/// Opens a file in every way there is. All ways must agree.
pub(crate) fn open(lease: &Lease, expected: FileIdentity, file: &[u8]) -> Result<Vec<u8>, OpenError> {
    let whole = lease
        .open_whole_file(expected, &unverified(file))
        .map(|plain| plain.to_vec());

    // As if by one read of everything, into a buffer that shows every byte that is written to it.
    let mut out = vec![0; file.len().saturating_sub(HEADER_BYTES)];
    let into = open_into(lease, expected, file, &mut out);
    match (&whole, into) {
        (Ok(plain), Ok(bytes)) => assert_eq!(out[..bytes], plain[..]),
        (Err(error), Err(into_error)) => {
            assert_eq!(*error, into_error);
            assert!(
                out.iter().all(|&byte| byte == 0),
                "plaintext came out of a refused file"
            );
        }
        (whole, into) => panic!("two ways to open a file disagree: {whole:?}, {into:?}"),
    }

    let by_frames = open_by_frames(lease, expected, file);
    assert_eq!(whole, by_frames, "whole and by frames disagree");
    let kept = open_kept(lease, expected, file);
    assert_eq!(whole, kept, "whole and kept open disagree");
    whole
}

/// Keeps the file open and reads it twice: each frame alone, and all frames as one run.
fn open_kept(lease: &Lease, expected: FileIdentity, file: &[u8]) -> Result<Vec<u8>, OpenError> {
    let header = unverified(&file[..file.len().min(HEADER_BYTES)]);
    let bytes_at = |range: std::ops::Range<u64>| {
        file[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
    };
    let opener = lease.open_file(expected, &header, file.len() as u64)?;
    let last = unverified(&bytes_at(opener.last_frame_range()));
    let kept = opener.verify_last(&last)?.keep();
    let mut plain = Vec::new();
    let alone = (0..kept.frame_count()).try_for_each(|frame| {
        let mut sealed = bytes_at(kept.frames_range(frame..frame + 1));
        match kept.open_in_place(frame, &mut sealed) {
            Ok(part) => plain.extend_from_slice(&sealed[part]),
            Err(error) => {
                assert!(sealed.iter().all(|&byte| byte == 0), "a refused frame left something");
                return Err(error);
            }
        }
        Ok(())
    });
    let mut run = bytes_at(kept.frames_range(0..kept.frame_count()));
    let mut at_once = Vec::new();
    let opened = kept.open_run(0, &mut run, |part| at_once.extend_from_slice(part));
    assert_eq!(alone, opened, "frames alone and in a run disagree");
    if opened.is_err() {
        assert!(run.iter().all(|&byte| byte == 0), "a refused run left something");
    } else {
        assert_eq!(plain, at_once);
    }
    opened.map(|()| plain)
}

fn open_into(lease: &Lease, expected: FileIdentity, file: &[u8], out: &mut [u8]) -> Result<usize, OpenError> {
    let header = unverified(&file[..file.len().min(HEADER_BYTES)]);
    let opener = lease.open_file(expected, &header, file.len() as u64)?;
    let bytes = usize::try_from(opener.plain_bytes()).unwrap();
    opener.open_into(&unverified(file), &mut out[..bytes])?;
    Ok(bytes)
}

fn open_by_frames(lease: &Lease, expected: FileIdentity, file: &[u8]) -> Result<Vec<u8>, OpenError> {
    let header = unverified(&file[..file.len().min(HEADER_BYTES)]);
    let at = |range: std::ops::Range<u64>| {
        unverified(&file[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()])
    };
    let opener = lease.open_file(expected, &header, file.len() as u64)?;
    let last = at(opener.last_frame_range());
    let opener = opener.verify_last(&last)?;
    let mut plain = Vec::new();
    for frame in 0..opener.frame_count() {
        plain.extend_from_slice(&opener.open_frame(frame, &at(opener.frame_range(frame)))?);
    }
    Ok(plain)
}

/// Calls `check` with `bytes` in which one bit is flipped, for every bit.
pub(crate) fn for_every_bit_flip(bytes: &[u8], mut check: impl FnMut(&[u8], usize, u32)) {
    let mut altered = bytes.to_vec();
    for byte in 0..altered.len() {
        for bit in 0..8 {
            altered[byte] ^= 1 << bit;
            check(&altered, byte, bit);
            altered[byte] ^= 1 << bit;
        }
    }
}
