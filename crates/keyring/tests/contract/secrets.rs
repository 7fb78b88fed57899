//! Types that hold keys cannot be copied, printed or serialised, and their debug output shows nothing.

use std::fmt::Debug;

use saker_keyring::{
    BlobKey, FileOpener, FileSealer, GeneratedKey, KeptFile, LogOpener, LogSealer, PlainKey, UnverifiedFile,
    WrappedKey, Zone,
};

use crate::fixtures::{identity, key, lease, pattern, seal, unverified, zone};

/// Compiles only if the type does not implement the trait: else two implementations fit, and the call is ambiguous.
macro_rules! implements_not {
    ($type:ty: $($trait:path),+) => {$(
        const _: fn() = || {
            trait AmbiguousIfImplemented<T> {
                fn call() {}
            }
            impl<T: ?Sized> AmbiguousIfImplemented<()> for T {}
            struct Implemented;
            impl<T: ?Sized + $trait> AmbiguousIfImplemented<Implemented> for T {}
            let _ = <$type as AmbiguousIfImplemented<_>>::call;
        };
    )+};
}
macro_rules! guarded {
    ($($type:ty),+) => {$(
        implements_not!($type: Clone, std::fmt::Display, serde::Serialize, AsRef<[u8]>);
    )+};
}
guarded!(
    PlainKey,
    GeneratedKey,
    BlobKey,
    Zone,
    FileSealer,
    FileOpener,
    UnverifiedFile,
    KeptFile,
    LogSealer,
    LogOpener
);

/// Neither as numbers nor as hexadecimal digits: the key bytes are all 0xA7 (167).
fn shows_nothing(thing: &impl Debug) {
    for text in [format!("{thing:?}"), format!("{thing:#?}")] {
        let digits = text.to_lowercase();
        assert!(!digits.contains("a7a7") && !digits.contains("167"), "{text}");
    }
}

#[test]
fn debug_output_shows_no_key() {
    const SECRET: u8 = 0xa7;
    let zone = zone(1);
    zone.unlock(vec![(saker_keyring::ZoneKeyVersion::FIRST, key(SECRET))])
        .unwrap();
    let lease = zone.lease().unwrap();
    shows_nothing(&key(SECRET));
    shows_nothing(&BlobKey::new(&key(SECRET), "purpose"));
    let wrapped = WrappedKey::new(vec![SECRET; 10]).unwrap();
    shows_nothing(&wrapped);
    shows_nothing(&GeneratedKey {
        plain: key(SECRET),
        wrapped,
    });
    shows_nothing(&zone);
    shows_nothing(&lease);

    // The plaintext is the same byte, too.
    let plain = [SECRET; 5_000];
    let mut sealer = lease
        .file_sealer(identity(1).file, identity(1).kind, saker_keyring::FrameSize::Random)
        .unwrap();
    sealer.write(&plain).unwrap();
    shows_nothing(&sealer);
    let object = sealer.finish().unwrap();
    shows_nothing(&object);
    let file = object.to_unverified();
    let header = file.slice(0..saker_keyring::HEADER_BYTES).unwrap();
    let opener = lease.open_file(identity(1), &header, file.len() as u64).unwrap();
    shows_nothing(&opener);
    let last = file
        .slice(usize::try_from(opener.last_frame_range().start).unwrap()..file.len())
        .unwrap();
    shows_nothing(&opener.verify_last(&last).unwrap());
    let (header, mut log) = lease.log_sealer(identity(1).file).unwrap();
    shows_nothing(&log.seal(&plain).unwrap());
    shows_nothing(&log);
    shows_nothing(&lease.open_log(identity(1).file, &header.into_unverified()).unwrap());
    shows_nothing(&lease.seal_value("path", &plain).unwrap());
    shows_nothing(&unverified(&plain));
}

/// Errors that come out of a refused file say the same thing whatever was wrong.
#[test]
fn a_refusal_says_nothing() {
    let lease = lease(1);
    let file = seal(&lease, identity(1), &pattern(5_000));
    let mut messages = std::collections::BTreeSet::new();
    for byte in 0..file.len() {
        let mut altered = file.clone();
        altered[byte] ^= 1;
        messages.insert(
            lease
                .open_whole_file(identity(1), &unverified(&altered))
                .unwrap_err()
                .to_string(),
        );
    }
    assert_eq!(
        messages.into_iter().collect::<Vec<_>>(),
        ["sealed data failed verification"]
    );
}
