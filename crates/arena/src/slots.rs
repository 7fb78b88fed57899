//! Which slot is free. Grows by a few pages at a time, never shrinks: an installation's keys are some thousand slots.

use std::{alloc::Layout, ptr::NonNull};

use crate::{SLOT_BYTES, Status, pages::Pages};

/// Pages by which the arena grows: 512 keys with pages of 4 KiB, and a quarter of the 64 KiB that the strictest systems
/// let a process lock.
const PAGES_PER_GROWTH: usize = 4;

/// All slots.
pub(crate) struct Slots {
    /// Zeroed slots that nobody holds.
    free: Vec<Place>,
    status: Status,
    warned: bool,
}

/// One slot's address. Whoever holds the value is the only one to touch the bytes.
pub(crate) struct Place(NonNull<[u8; SLOT_BYTES]>);

impl Slots {
    pub(crate) const fn new() -> Self {
        Self {
            free: Vec::new(),
            status: Status {
                locked_bytes: 0,
                unlocked_bytes: 0,
                slots_used: 0,
            },
            warned: false,
        }
    }

    pub(crate) const fn status(&self) -> Status {
        self.status
    }

    /// Takes a slot of zeros, from new pages if none is free.
    pub(crate) fn take(&mut self) -> Place {
        loop {
            if let Some(place) = self.free.pop() {
                self.status.slots_used += 1;
                return place;
            }
            self.grow();
        }
    }

    /// Takes a slot back that the caller has zeroed and will not touch again.
    pub(crate) fn give_back(&mut self, place: &mut Place) {
        self.free.push(Place(place.0));
        self.status.slots_used -= 1;
    }

    fn grow(&mut self) {
        let pages = match Pages::map(PAGES_PER_GROWTH) {
            Ok(pages) => pages,
            Err(error) => {
                tracing::error!(%error, "the system gives no memory for keys");
                std::alloc::handle_alloc_error(Layout::new::<[u8; SLOT_BYTES]>());
            }
        };
        match &pages.unlocked {
            None => self.status.locked_bytes += pages.bytes,
            Some(error) => {
                self.status.unlocked_bytes += pages.bytes;
                if !self.warned {
                    self.warned = true;
                    tracing::warn!(
                        %error,
                        "keys are in memory that is not locked and may reach swap space: raise RLIMIT_MEMLOCK \
                         (ulimit -l, LimitMEMLOCK) or turn swap off"
                    );
                }
            }
        }
        let slots = pages.bytes / SLOT_BYTES;
        self.free.reserve(slots);
        // Backwards, so that the lowest address is given out first.
        for index in (0..slots).rev() {
            self.free.push(Place::in_pages(&pages, index));
        }
    }
}

impl Place {
    #[expect(unsafe_code, reason = "an address within pages that are never given back")]
    fn in_pages(pages: &Pages, index: usize) -> Self {
        debug_assert!(
            (index + 1) * SLOT_BYTES <= pages.bytes,
            "the slot lies within the pages"
        );
        // SAFETY: the caller's `index` is less than `pages.bytes / SLOT_BYTES`, so the slot lies within one mapping.
        Self(unsafe { pages.base.byte_add(index * SLOT_BYTES) }.cast())
    }

    #[expect(unsafe_code, reason = "memory of this crate's own mapping")]
    pub(crate) fn bytes(&self) -> &[u8; SLOT_BYTES] {
        // SAFETY: the pages are mapped for reading and writing as long as the process lives.
        // SAFETY: any 32 bytes are a value, and bytes have no alignment.
        // SAFETY: each slot is in one `Place` at a time, so nobody writes while `self` is borrowed.
        unsafe { self.0.as_ref() }
    }

    #[expect(unsafe_code, reason = "memory of this crate's own mapping")]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; SLOT_BYTES] {
        // SAFETY: as for `bytes`; nobody else reads or writes while `self` is borrowed mutably.
        unsafe { self.0.as_mut() }
    }
}

// SAFETY: a place is an owned piece of memory that no thread has any other way to.
#[expect(unsafe_code, reason = "owned memory, like a box")]
unsafe impl Send for Place {}
// SAFETY: through `&Place` the bytes can only be read.
#[expect(unsafe_code, reason = "owned memory, like a box")]
unsafe impl Sync for Place {}
