//! How fast sealed files, values and records are sealed and opened on this machine, on one core.
//!
//! `cargo run --release -p saker-keyring --example throughput`

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "prints what it measured, and ends if it cannot"
)]

use std::time::{Duration, Instant};

use saker_keyring::{
    FileId, FileIdentity, FileKind, FrameSize, HEADER_BYTES, Zone, ZoneId, ZoneKeyVersion, random_key,
};

// Short enough to be done within one time slice of a busy machine.
const PLAIN_BYTES: usize = 32 << 20;
const ROUNDS: usize = 40;

fn main() {
    let zone = Zone::locked(ZoneId::random());
    zone.unlock(vec![(ZoneKeyVersion::FIRST, random_key())]).unwrap();
    let lease = zone.lease().unwrap();
    let plain = vec![0x5a; PLAIN_BYTES];
    let mut out = vec![1; PLAIN_BYTES];

    for frame in [FrameSize::Sequential, FrameSize::Random] {
        let identity = FileIdentity {
            file: FileId::random(),
            kind: FileKind::Column,
        };
        let mut file = None;
        let sealing = best(|| {
            let mut sealer = lease.file_sealer(identity.file, identity.kind, frame).unwrap();
            sealer.write(&plain).unwrap();
            file = Some(sealer.finish().unwrap());
        });
        let file = file.unwrap().to_unverified();
        let header = file.slice(0..HEADER_BYTES).unwrap();
        let opening = best(|| {
            let opener = lease.open_file(identity, &header, file.len() as u64).unwrap();
            opener.open_into(&file, &mut out).unwrap();
        });
        assert!(out == plain);
        println!("{frame:?} frames: sealed {}, opened {}", rate(sealing), rate(opening));
    }
    let copying = best(|| out.copy_from_slice(&plain));
    println!("for comparison, a copy: {}", rate(copying));

    let value = lease.seal_value("path", &[7; 500]).unwrap().into_unverified();
    let sealing = best(|| (0..1_000).for_each(|_| drop(lease.seal_value("path", &[7; 500]).unwrap())));
    let opening = best(|| (0..1_000).for_each(|_| drop(lease.open_value("path", &value).unwrap())));
    println!(
        "a value of 500 bytes: sealed in {:?}, opened in {:?}",
        sealing / 1_000,
        opening / 1_000
    );

    let (header, mut sealer) = lease.log_sealer(FileId::random()).unwrap();
    let mut opener = lease.open_log(sealer.file(), &header.into_unverified()).unwrap();
    let mut records = Vec::new();
    let sealing = best(|| {
        records.extend((0..1_000).map(|_| sealer.seal(&[7; 1_000]).unwrap().into_unverified()));
    });
    let mut rest = records.iter();
    let opening = best(|| {
        rest.by_ref()
            .take(1_000)
            .for_each(|record| drop(opener.open(record).unwrap()))
    });
    println!(
        "a record of 1,000 bytes: sealed in {:?}, opened in {:?}",
        sealing / 1_000,
        opening / 1_000
    );
}

fn best(mut work: impl FnMut()) -> Duration {
    (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn rate(time: Duration) -> String {
    format!(
        "{:.2} GB/s",
        f64::from(u32::try_from(PLAIN_BYTES).unwrap_or(u32::MAX)) / time.as_secs_f64() / 1e9
    )
}
