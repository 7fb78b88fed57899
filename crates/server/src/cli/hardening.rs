//! What the process does at its start so that keys and rows in its memory reach nobody else.
//!
//! Start reading at [`harden`].

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::output;

/// Switches core dumps off and, unless `debuggable`, closes the process's memory to everybody but root.
pub(super) fn harden(debuggable: bool) {
    forbid_core_dumps();
    if !debuggable && let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        output::error(format_args!("debuggers cannot be shut out: {error}"));
    }
}

/// A core dump would put keys and rows on disk in the clear. The limit alone does not hold where the system hands dumps to
/// a program (`core_pattern` with a pipe); a process that is not dumpable is left out there as well.
fn forbid_core_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        output::error(format_args!("core dumps cannot be switched off: {error}"));
    }
}
