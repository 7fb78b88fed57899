//! Pages from the system: mapped for this process alone, locked if the system allows it, with a forbidden page on either
//! side. They are never given back, so an address in them stays good for the process's whole life.

use std::{ffi::c_void, io, ptr::NonNull};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mlock, mmap_anonymous, mprotect};

/// Pages that were mapped, zeroed by the system.
pub(crate) struct Pages {
    /// First usable byte; aligned to a page.
    pub(crate) base: NonNull<u8>,
    /// Usable bytes: a whole number of pages.
    pub(crate) bytes: usize,
    /// Why the pages are not locked in memory; `None`: they are.
    pub(crate) unlocked: Option<io::Error>,
}

impl Pages {
    /// Maps `count` pages.
    ///
    /// # Errors
    /// What the system said if there is no memory.
    #[expect(unsafe_code, reason = "system calls on a mapping that only this function knows yet")]
    pub(crate) fn map(count: usize) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        let bytes = count * page_bytes;
        // SAFETY: a new private mapping at an address of the kernel's choice; no memory in use changes.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes + 2 * page_bytes,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )
        }?;
        let usable = start.wrapping_byte_add(page_bytes);
        // SAFETY: the pages between the two outer ones of the mapping above, which nobody else knows.
        unsafe { mprotect(usable, bytes, MprotectFlags::READ | MprotectFlags::WRITE) }?;
        let unlocked = keep_in_memory(usable, bytes).err();
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: the same pages. Neither advice changes what this process reads in them.
            if let Err(error) = unsafe { madvise(usable, bytes, advice) } {
                tracing::warn!(%error, "the system does not leave the pages of keys out of core dumps and forks");
            }
        }
        let base = NonNull::new(usable.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes, unlocked })
    }
}

#[expect(unsafe_code, reason = "a system call on a mapping that only the caller knows yet")]
fn keep_in_memory(usable: *mut c_void, bytes: usize) -> io::Result<()> {
    // SAFETY: pages that the caller has just mapped; locking them changes nothing that is read in them.
    Ok(unsafe { mlock(usable, bytes) }?)
}
