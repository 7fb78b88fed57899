//! Where the system allows no locked memory, keys are kept all the same, and the status says so. In a file of its own,
//! because the limit counts for the whole process.

use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, capabilities, set_capabilities},
};
use saker_arena::{SLOT_BYTES, Slot, status};

#[test]
fn it_goes_on_unlocked_and_says_so() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Memlock, none).unwrap();
    // Root may lock whatever the limit is; this thread then may not.
    let mut own = capabilities(None).unwrap();
    own.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, own).unwrap();
    let mut slot = Slot::zeroed();
    slot.bytes_mut().fill(1);
    assert_eq!(slot.bytes(), &[1; SLOT_BYTES]);
    let status = status();
    assert_eq!(status.slots_used, 1);
    assert!(status.locked_bytes == 0 && status.unlocked_bytes > 0, "{status:?}");
}
