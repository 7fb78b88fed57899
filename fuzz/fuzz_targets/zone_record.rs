//! Any bytes as a zone record: refused, or encoded to the same bytes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use saker_keyring::ZoneRecord;

fuzz_target!(|data: &[u8]| {
    if let Ok(record) = ZoneRecord::decode(data) {
        assert!(record.encode().is_ok_and(|bytes| bytes == data), "a record is not encoded as it was decoded");
    }
});
