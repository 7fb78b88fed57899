//! Any bytes as a log segment (a header, then records behind 32-bit lengths): what opens is a prefix of the golden log.
#![no_main]

#[path = "golden.rs"]
mod golden;

use libfuzzer_sys::fuzz_target;
use saker_keyring::HEADER_BYTES;

fuzz_target!(|data: &[u8]| {
    let Some((header, mut rest)) = data.split_at_checked(HEADER_BYTES) else { return };
    let Ok(mut opener) = golden::lease().open_log(golden::SEGMENT, &golden::unverified(header)) else { return };
    let mut opened = HEADER_BYTES;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let Some((record, after)) = after.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        if opener.open(&golden::unverified(record)).is_ok() {
            opened += 4 + record.len();
            let log = include_bytes!("../../crates/keyring/tests/golden/log-v1.sealed");
            assert!(opener.records() <= 4 && log.starts_with(header), "a forged record opened");
            assert!(opened <= log.len(), "more opened than was sealed");
        }
        rest = after;
    }
});
