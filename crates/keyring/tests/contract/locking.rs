//! Locking takes effect at once, for everything that was opened before.

use std::sync::{
    Barrier,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use saker_keyring::{
    FileId, FileKind, FrameSize, HEADER_BYTES, OpenError, SealError, UnlockError, Zone, ZoneId, ZoneKeyVersion,
    ZoneLocked,
};

use crate::fixtures::{identity, key, pattern, seal, unverified, zone};

#[test]
fn a_zone_starts_locked_and_needs_keys() {
    let id = ZoneId::from_bytes([1; 16]);
    let zone = Zone::locked(id);
    assert!(!zone.is_unlocked());
    assert_eq!(zone.lease().unwrap_err(), ZoneLocked { zone: id });
    assert_eq!(zone.unlock(vec![]), Err(UnlockError::NoKeys { zone: id }));
    let twice = vec![(ZoneKeyVersion::FIRST, key(1)), (ZoneKeyVersion::FIRST, key(2))];
    let version = ZoneKeyVersion::FIRST;
    assert_eq!(
        zone.unlock(twice),
        Err(UnlockError::DuplicateVersion { zone: id, version })
    );
    assert!(!zone.is_unlocked());
    zone.unlock(vec![(version, key(1))]).unwrap();
    assert!(zone.is_unlocked() && zone.lease().is_ok());
}

#[test]
fn after_locking_nothing_works_even_after_unlocking_again() {
    let zone = zone(1);
    let lease = zone.lease().unwrap();
    let locked = ZoneLocked { zone: zone.id() };
    let file = unverified(&seal(&lease, identity(1), &pattern(10_000)));
    let value = lease.seal_value("path", b"seven").unwrap().into_unverified();
    let (header, mut log_sealer) = lease.log_sealer(FileId::from_bytes([9; 16])).unwrap();
    let header = header.into_unverified();
    let record = log_sealer.seal(b"record").unwrap().into_unverified();
    let mut log_opener = lease.open_log(log_sealer.file(), &header).unwrap();

    let file_header = file.slice(0..HEADER_BYTES).unwrap();
    let open_file = || lease.open_file(identity(1), &file_header, file.len() as u64);
    let unverified_file = open_file().unwrap();
    let into_file = open_file().unwrap();
    let last = unverified_file.last_frame_range();
    let last = file.slice(usize::try_from(last.start).unwrap()..file.len()).unwrap();
    let opener = open_file().unwrap().verify_last(&last).unwrap();
    let kept = open_file().unwrap().verify_last(&last).unwrap().keep();
    let new_sealer = || lease.file_sealer(FileId::random(), FileKind::Column, FrameSize::Random);
    let (mut writing, mut finishing) = (new_sealer().unwrap(), new_sealer().unwrap());
    writing.write(b"before").unwrap();
    finishing.write(b"before").unwrap();

    zone.lock();
    for unlocked_again in [false, true] {
        if unlocked_again {
            zone.unlock(vec![(ZoneKeyVersion::FIRST, key(1))]).unwrap();
        }
        assert_eq!(lease.check(), Err(locked));
        assert_eq!(lease.current_version(), Err(locked));
        assert_eq!(
            lease.seal_value("path", b"eight").unwrap_err(),
            SealError::Locked(locked)
        );
        assert_eq!(lease.open_value("path", &value).unwrap_err(), OpenError::Locked(locked));
        assert_eq!(open_file().unwrap_err(), OpenError::Locked(locked));
        assert_eq!(opener.open_frame(2, &last).unwrap_err(), OpenError::Locked(locked));
        assert_eq!(opener.open_all(&file).unwrap_err(), OpenError::Locked(locked));
        assert_eq!(kept.check(), Err(locked));
        let mut frame = last.as_bytes().to_vec();
        assert_eq!(
            kept.open_in_place(2, &mut frame).unwrap_err(),
            OpenError::Locked(locked)
        );
        assert!(frame.iter().all(|&byte| byte == 0));
        let mut out = vec![1; 10_000];
        assert_eq!(
            opener.open_into(&file, &mut out).unwrap_err(),
            OpenError::Locked(locked)
        );
        assert!(out.iter().all(|&byte| byte == 0));
        assert_eq!(
            lease.open_log(log_sealer.file(), &header).unwrap_err(),
            OpenError::Locked(locked)
        );
        assert_eq!(log_opener.open(&record).unwrap_err(), OpenError::Locked(locked));
        assert_eq!(log_sealer.seal(b"after").unwrap_err(), SealError::Locked(locked));
        assert_eq!(log_sealer.close().unwrap_err(), SealError::Locked(locked));
        assert_eq!(log_sealer.records(), 1);
        assert_eq!(new_sealer().unwrap_err(), SealError::Locked(locked));
        assert_eq!(writing.write(b"after").unwrap_err(), SealError::Locked(locked));
        // Enough to complete a frame.
        assert_eq!(writing.write(&[0; 10_000]).unwrap_err(), SealError::Locked(locked));
    }
    assert_eq!(finishing.finish().unwrap_err(), SealError::Locked(locked));
    assert_eq!(
        unverified_file.verify_last(&last).unwrap_err(),
        OpenError::Locked(locked)
    );
    assert_eq!(into_file.open_all(&file).unwrap_err(), OpenError::Locked(locked));

    // A new lease opens all of it.
    let lease = zone.lease().unwrap();
    kept.rebind(&lease);
    let mut frame = last.as_bytes().to_vec();
    let plain = kept.open_in_place(2, &mut frame).unwrap();
    assert_eq!(frame[plain], pattern(10_000)[8_192..]);
    assert_eq!(zone.generation(), 1);
    assert_eq!(lease.open_value("path", &value).unwrap()[..], *b"seven");
    assert_eq!(lease.open_whole_file(identity(1), &file).unwrap()[..], pattern(10_000));
}

/// A file that was moved while it was open: the zone that it is in now decides.
#[test]
fn a_kept_file_follows_the_zone_that_it_was_moved_to() {
    let (old, new) = (zone(1), zone(2));
    let file = unverified(&seal(&old.lease().unwrap(), identity(1), &pattern(5_000)));
    let header = file.slice(0..HEADER_BYTES).unwrap();
    let opener = old
        .lease()
        .unwrap()
        .open_file(identity(1), &header, file.len() as u64)
        .unwrap();
    let last = opener.last_frame_range();
    let last = file.slice(usize::try_from(last.start).unwrap()..file.len()).unwrap();
    let kept = opener.verify_last(&last).unwrap().keep();
    kept.rebind(&new.lease().unwrap());
    old.lock();
    let mut frame = last.as_bytes().to_vec();
    let plain = kept.open_in_place(1, &mut frame).unwrap();
    assert_eq!(frame[plain], pattern(5_000)[4_096..]);
    new.lock();
    let mut frame = last.as_bytes().to_vec();
    assert!(matches!(kept.open_in_place(1, &mut frame), Err(OpenError::Locked(locked)) if locked.zone == new.id()));
    assert!(frame.iter().all(|&byte| byte == 0));
}

#[test]
fn locking_one_zone_leaves_others_alone() {
    let (one, two) = (zone(1), zone(2));
    let lease = two.lease().unwrap();
    one.lock();
    assert!(lease.check().is_ok() && lease.seal_value("path", b"").is_ok());
}

/// Openings of 100 kB that a reader tries before it gives up: minutes.
const ROUNDS_MAX: usize = 1_000_000;

/// When `lock` has returned, no call that starts later succeeds, whatever runs beside it.
#[test]
fn locking_is_final_among_threads() {
    let zone = zone(1);
    let lease = zone.lease().unwrap();
    let file = unverified(&seal(&lease, identity(1), &pattern(100_000)));
    let (locked, start) = (AtomicBool::new(false), Barrier::new(4));
    let opened = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..ROUNDS_MAX {
                    let was_locked = locked.load(Ordering::SeqCst);
                    match lease.open_whole_file(identity(1), &file) {
                        Ok(_) => {
                            assert!(!was_locked, "opened after the zone was locked");
                            opened.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(error) => {
                            assert_eq!(error, OpenError::Locked(ZoneLocked { zone: zone.id() }));
                            if was_locked {
                                return;
                            }
                        }
                    }
                }
                panic!("never locked");
            });
        }
        start.wait();
        // A reader that failed opens nothing any more: the others must still be told to end.
        for _ in 0..60_000 {
            if opened.load(Ordering::SeqCst) >= 20 {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        zone.lock();
        locked.store(true, Ordering::SeqCst);
    });
}
