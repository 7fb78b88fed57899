//! Any bytes as a sealed value: refused, or exactly the golden value. Anything else that opens is a forgery.
#![no_main]

#[path = "golden.rs"]
mod golden;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if golden::lease().open_value("cluster/golden/value", &golden::unverified(data)).is_ok() {
        assert!(data == include_bytes!("../../crates/keyring/tests/golden/value-v1.sealed"), "a forged value opened");
    }
});
