//! Any bytes as a sealed file: refused, or exactly the golden file. Anything else that opens is a forgery.
#![no_main]

#[path = "golden.rs"]
mod golden;

use libfuzzer_sys::fuzz_target;
use saker_keyring::{FileIdentity, FileKind};

fuzz_target!(|data: &[u8]| {
    let expected = FileIdentity { file: golden::FILE, kind: FileKind::Column };
    if golden::lease().open_whole_file(expected, &golden::unverified(data)).is_ok() {
        assert!(data == include_bytes!("../../crates/keyring/tests/golden/file-v1.sealed"), "a forged file opened");
    }
});
