//! A home for key bytes: 32-byte slots in a few pages that are locked in memory (`mlock`: they never reach swap space),
//! left out of core dumps (`MADV_DONTDUMP`) and of child processes (`MADV_DONTFORK`), and fenced by pages that nobody may
//! touch, so that no overrun of a neighbour reads into them. A slot is zeroed when it is given back.
//!
//! What it deliberately does not do: it knows nothing of what the bytes are for, encrypts nothing, and does not hide
//! them from whoever may read the process's memory. Where the system allows no more locked memory (`RLIMIT_MEMLOCK`), keys
//! are kept in pages that are not locked rather than not at all: that is logged once and stands in [`status`].
//!
//! Beside it, a way to overwrite what calls have left on the stack: [`leaving_no_trace`], and the process's allocator,
//! which gives back what is not used: [`Heap`].
//!
//! Start reading at [`Slot`]; `pages` has the system calls. Beside `index` this is the only crate of the workspace that
//! may contain `unsafe`.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod code;
mod heap;
mod pages;
mod slots;
mod stack;

pub use heap::{Heap, give_back, kept_bytes};
pub use stack::{STACK_BYTES, leaving_no_trace, overwrite_stack};

use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize as _;

use slots::{Place, Slots};

/// Bytes of a slot: one 256-bit key.
pub const SLOT_BYTES: usize = 32;

/// The process's slots.
static SLOTS: Mutex<Slots> = Mutex::new(Slots::new());

/// Room for 32 secret bytes, all zero at first. Zeroed on drop; can be neither copied nor printed.
pub struct Slot(Place);

/// What the process's arena holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes of pages that are locked in memory.
    pub locked_bytes: usize,
    /// Bytes of pages that the system refused to lock: more than 0 means that keys may reach swap space.
    pub unlocked_bytes: usize,
    /// Slots that hold something.
    pub slots_used: usize,
}

/// What the process's arena holds now, for metrics.
#[must_use]
pub fn status() -> Status {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner).status()
}

impl Slot {
    /// A slot of zeros.
    ///
    /// Ends the process if the system gives no memory at all, as any allocation does.
    #[must_use]
    pub fn zeroed() -> Self {
        Self(SLOTS.lock().unwrap_or_else(PoisonError::into_inner).take())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; SLOT_BYTES] {
        self.0.bytes()
    }

    /// The bytes, to be written in place: what is assembled elsewhere first leaves a copy there.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8; SLOT_BYTES] {
        self.0.bytes_mut()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Before the lock is taken: from here on the bytes are gone.
        self.0.bytes_mut().zeroize();
        SLOTS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .give_back(&mut self.0);
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Slot([redacted])")
    }
}

#[cfg(test)]
mod tests;
