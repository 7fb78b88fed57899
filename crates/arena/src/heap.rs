//! The process's allocator: what is large comes from the system in blocks of its own and goes back to it, so that memory
//! which a large job was given does not stay with the process for the rest of its life.
//!
//! The system's own allocator keeps what is freed, for it takes more and more from its heaps as large buffers come and go,
//! and heaps only shrink at their end. Here only small allocations are left to it. Blocks of up to 8 MiB are
//! kept for a while, for those that the next request needs again; [`give_back`] lets them go, and the pages of the
//! system's heaps that are free.
//!
//! What it deliberately does not do: it wipes nothing by itself; whoever owns secrets or rows does, and the server's
//! allocator does so for all that is freed.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr::{NonNull, null_mut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// An allocator to be made the process's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heap;

#[expect(unsafe_code, reason = "the trait of allocators is unsafe")]
// SAFETY: small layouts are the system allocator's, from first to last. The others are mappings of at least their size, at
// page borders, that nobody else has; which of the two a layout is depends on the layout alone, so memory goes back to
// where it came from. Nothing here panics.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Block::of(layout) {
            // SAFETY: the caller keeps to the same contract.
            Block::Small => unsafe { System.alloc(layout) },
            Block::Kept(class) => match take(class) {
                Some(block) => block.as_ptr(),
                None => map(class_bytes(class)),
            },
            Block::Large(bytes) => map(bytes),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match Block::of(layout) {
            // SAFETY: the caller keeps to the same contract.
            Block::Small => unsafe { System.alloc_zeroed(layout) },
            Block::Kept(class) => match take(class) {
                Some(block) => {
                    // SAFETY: the block is at least as large as the layout, and nobody else's any more.
                    unsafe { block.write_bytes(0, layout.size()) };
                    block.as_ptr()
                }
                None => map(class_bytes(class)),
            },
            Block::Large(bytes) => map(bytes),
        }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        match Block::of(layout) {
            // SAFETY: the caller keeps to the same contract, and small layouts are allocated there.
            Block::Small => unsafe { System.dealloc(start, layout) },
            Block::Kept(class) => {
                let is_kept = NonNull::new(start).is_none_or(|block| give(class, block));
                if !is_kept {
                    unmap(start, class_bytes(class));
                }
            }
            Block::Large(bytes) => unmap(start, bytes),
        }
    }
}

/// Lets the system have what is free: blocks that are kept, free pages of its own heaps, and the program's code, which comes
/// back from its file as it is needed. For when a large job is over. Takes some milliseconds at most.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    crate::code::give_back();
    for class in 0..CLASSES {
        while let Some(block) = take(class) {
            unmap(block.as_ptr(), class_bytes(class));
        }
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "a call of the C library")]
    // SAFETY: it takes no pointer and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes of blocks that are kept for the next allocation.
#[must_use]
pub fn kept_bytes() -> usize {
    kept().bytes
}

/// How a layout is allocated.
enum Block {
    Small,
    /// By number of its class.
    Kept(usize),
    /// By its size.
    Large(usize),
}

impl Block {
    #[inline]
    fn of(layout: Layout) -> Self {
        if layout.size() <= SMALL_BYTES_MAX || layout.align() > ALIGN_MAX {
            return Self::Small;
        }
        if layout.size() <= KEPT_BYTES_MAX {
            return Self::Kept(class_of(layout.size()));
        }
        // A layout's size is below half of the address space.
        Self::Large(layout.size().next_multiple_of(ALIGN_MAX))
    }
}

/// Blocks that nobody uses, by class.
struct Kept {
    bytes: usize,
    blocks: [[Option<Free>; CLASS_BLOCKS_MAX]; CLASSES],
}

/// A block that nobody uses.
#[derive(Clone, Copy)]
struct Free(NonNull<u8>);

#[expect(unsafe_code, reason = "a pointer that its owner alone uses")]
// SAFETY: the block belongs to whoever has this, and memory may be used by any thread.
unsafe impl Send for Free {}

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    bytes: 0,
    blocks: [[None; CLASS_BLOCKS_MAX]; CLASSES],
});

// The lock is held for neither longer than it takes to look: not while the system is asked.
fn take(class: usize) -> Option<NonNull<u8>> {
    kept().take(class)
}

fn give(class: usize, block: NonNull<u8>) -> bool {
    kept().give(class, block)
}

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    fn take(&mut self, class: usize) -> Option<NonNull<u8>> {
        let places = self.blocks.get_mut(class)?;
        let Free(block) = places.iter_mut().rev().find_map(Option::take)?;
        self.bytes -= class_bytes(class);
        Some(block)
    }
    /// Whether it is kept.
    fn give(&mut self, class: usize, block: NonNull<u8>) -> bool {
        let bytes = class_bytes(class);
        if self.bytes + bytes > ALL_KEPT_BYTES_MAX {
            return false;
        }
        let mut places = self.blocks.get_mut(class).into_iter().flatten();
        let Some(place) = places.find(|place| place.is_none()) else {
            return false;
        };
        *place = Some(Free(block));
        self.bytes += bytes;
        true
    }
}

/// The class of blocks for a size above [`SMALL_BYTES_MAX`]: four for every doubling, so that a block is at most a quarter
/// larger than what it is for.
#[inline]
fn class_of(bytes: usize) -> usize {
    let doubling = (bytes - 1).ilog2();
    let step = doubling - 2;
    let fifths = (bytes - 1) >> step; // 4 to 7
    4 * (doubling - SMALL_BYTES_MAX.ilog2()) as usize + fifths - 4
}

/// Bytes of the blocks of a class.
#[inline]
fn class_bytes(class: usize) -> usize {
    (class % 4 + 5) << (SMALL_BYTES_MAX.ilog2() as usize - 2 + class / 4)
}

/// New zeroed pages, or null.
fn map(bytes: usize) -> *mut u8 {
    #[expect(unsafe_code, reason = "a system call")]
    // SAFETY: a new private mapping at an address of the kernel's choice; no memory in use changes.
    let mapped = unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
    mapped.map_or(null_mut(), |start| start.cast())
}

/// Gives pages back that [`map`] gave; nobody may use them any more.
fn unmap(start: *mut u8, bytes: usize) {
    #[expect(unsafe_code, reason = "a system call")]
    // SAFETY: both callers hand over a whole mapping of [`map`] that its last user has given up.
    let unmapped = unsafe { munmap(start.cast(), bytes) };
    // The system refuses only if it has no room for what it notes; then the pages stay with the process.
    let _ = unmapped;
}

/// Up to this size the system's allocator is the better one.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Blocks larger than this are not kept: they are rare, and getting their pages is little beside filling them.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// Bytes of blocks kept at most: some requests' worth.
const ALL_KEPT_BYTES_MAX: usize = 64 << 20;
/// Blocks kept of one class.
const CLASS_BLOCKS_MAX: usize = 32;
/// Classes of blocks that are kept.
const CLASSES: usize = 4 * (KEPT_BYTES_MAX.ilog2() - SMALL_BYTES_MAX.ilog2()) as usize;
/// Bytes of a page at least: mappings begin at multiples of it.
const ALIGN_MAX: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_are_for_and_waste_little() {
        let mut sizes: Vec<usize> = (0..CLASSES)
            .flat_map(|class| [class_bytes(class), class_bytes(class) - 1])
            .collect();
        sizes.extend([SMALL_BYTES_MAX + 1, KEPT_BYTES_MAX]);
        sizes.extend((SMALL_BYTES_MAX + 1..KEPT_BYTES_MAX).step_by(4_097));
        for size in sizes
            .into_iter()
            .filter(|size| (SMALL_BYTES_MAX + 1..=KEPT_BYTES_MAX).contains(size))
        {
            let class = class_of(size);
            let bytes = class_bytes(class);
            assert!(
                class < CLASSES && bytes >= size && 4 * bytes <= 5 * size + 4,
                "{size}: class {class}, {bytes}"
            );
            assert!(bytes.is_multiple_of(ALIGN_MAX));
        }
        assert_eq!(class_bytes(CLASSES - 1), KEPT_BYTES_MAX);
    }

    #[test]
    fn memory_of_every_size_is_usable_zeroed_if_asked_for_and_given_back() {
        let sizes = [
            1,
            SMALL_BYTES_MAX,
            SMALL_BYTES_MAX + 1,
            300_000,
            KEPT_BYTES_MAX,
            KEPT_BYTES_MAX + 1,
            20 << 20,
        ];
        for size in sizes {
            for align in [1, 64, ALIGN_MAX, 2 * ALIGN_MAX] {
                let layout = Layout::from_size_align(size, align).unwrap();
                #[expect(unsafe_code, reason = "the allocator's own face")]
                // SAFETY: the layout is not empty; each pointer is used within it and given back once, with the same layout.
                unsafe {
                    let first = Heap.alloc(layout);
                    assert!(!first.is_null() && first.addr().is_multiple_of(align));
                    first.write_bytes(0xa5, size);
                    let second = Heap.alloc(layout);
                    second.write_bytes(0x5a, size);
                    assert_eq!((first.read(), first.add(size - 1).read()), (0xa5, 0xa5));
                    Heap.dealloc(first, layout);
                    let zeroed = Heap.alloc_zeroed(layout);
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|byte| *byte == 0));
                    let larger = Heap.realloc(second, layout, size + 70_000);
                    assert_eq!((larger.read(), larger.add(size - 1).read()), (0x5a, 0x5a));
                    Heap.dealloc(zeroed, layout);
                    Heap.dealloc(larger, Layout::from_size_align(size + 70_000, align).unwrap());
                }
            }
        }
        assert!(kept_bytes() <= ALL_KEPT_BYTES_MAX);
    }

    #[test]
    fn what_is_kept_is_limited_and_goes_when_asked_to() {
        let mut kept = Kept {
            bytes: 0,
            blocks: [[None; CLASS_BLOCKS_MAX]; CLASSES],
        };
        let mut byte = 0_u8;
        let block = NonNull::from(&mut byte);
        let given = (0..100).filter(|_| kept.give(0, block)).count();
        assert_eq!(
            (given, kept.bytes),
            (CLASS_BLOCKS_MAX, CLASS_BLOCKS_MAX * class_bytes(0))
        );
        let given = (0..100).filter(|_| kept.give(CLASSES - 1, block)).count();
        assert!(given > 0 && kept.bytes <= ALL_KEPT_BYTES_MAX && kept.bytes + KEPT_BYTES_MAX > ALL_KEPT_BYTES_MAX);
        while kept.take(0).is_some() || kept.take(CLASSES - 1).is_some() {}
        assert_eq!(kept.bytes, 0);
        give_back();
    }
}
