//! Buffers that searches read at random: in large pages where the system has them, for otherwise nearly every row read
//! costs a walk through page tables too.

/// Values of a fixed number that start at a cache line. Whoever drops it wipes it first.
pub(crate) struct Lined<T> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T> Lined<T> {
    /// `len` values that `value` gives.
    pub(crate) fn filled(len: usize, value: impl FnMut() -> T) -> Self {
        let spare = LINE_BYTES / size_of::<T>();
        let mut values = room_for_random_access(len + spare);
        values.resize_with(len + spare, value);
        // An offset that cannot be had (never on real machines) only costs speed.
        let start = values.as_ptr().align_offset(LINE_BYTES).min(spare);
        Self { values, start, len }
    }

    /// Bytes that they take, those before the first line included.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.values.capacity() * size_of::<T>()
    }
}

impl<T> std::ops::Deref for Lined<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.values[self.start..][..self.len]
    }
}

impl<T> std::ops::DerefMut for Lined<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..][..self.len]
    }
}

/// An empty vector with room for exactly `len` values, to be filled at once.
pub(crate) fn room_for_random_access<T>(len: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    prefer_large_pages(values.spare_capacity_mut());
    values
}

/// Asks for large pages under `memory`, which nobody may have touched yet; changes nothing but speed.
fn prefer_large_pages<T>(memory: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        let bytes = size_of_val(memory);
        let start = memory.as_mut_ptr().cast::<u8>();
        let skipped = start.align_offset(LARGE_PAGE_BYTES);
        let pages_bytes = bytes.saturating_sub(skipped) / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES;
        if pages_bytes == 0 {
            return;
        }
        #[expect(unsafe_code, reason = "the system call takes a raw pointer")]
        // SAFETY: `skipped + pages_bytes <= bytes`, so the range lies in `memory`, which this function borrows alone.
        // SAFETY: the advice leaves the content of the pages as it is.
        let advised = unsafe {
            rustix::mm::madvise(
                start.add(skipped).cast(),
                pages_bytes,
                rustix::mm::Advice::LinuxHugepage,
            )
        };
        // A system without large pages serves small ones.
        let _ = advised;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Bytes in one cache line.
pub(crate) const LINE_BYTES: usize = 64;
/// Size of a large page, and how they are aligned, on x86_64 and, with pages of 4 KiB, on aarch64.
#[cfg(target_os = "linux")]
const LARGE_PAGE_BYTES: usize = 2 << 20;
