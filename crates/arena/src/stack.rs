//! The stack below the caller: where calls that are over have left what they worked on, until other calls happen to write
//! there. Compilers spill registers to the stack and copy what is moved, so whatever works on keys or rows leaves some.

/// Bytes of stack that a search, a decoder or a task uses: more than they were seen to use in builds without
/// optimisation. Overwriting them takes about 2 microseconds.
pub const STACK_BYTES: usize = 64 << 10;

/// Runs `work`, then overwrites the `BYTES` of stack below the caller, which it used.
pub fn leaving_no_trace<const BYTES: usize, T>(work: impl FnOnce() -> T) -> T {
    // Both are calls from here, so that the second one's room lies where the first one's was.
    let done = on_its_own_stack(work);
    overwrite_stack::<BYTES>();
    done
}

/// Overwrites the `BYTES` of stack below the caller: for a thread that waits for work.
#[inline(never)]
pub fn overwrite_stack<const BYTES: usize>() {
    let mut room = [0_u8; BYTES];
    // The compiler may not leave out the zeros of something that is looked at.
    std::hint::black_box(&mut room);
}

#[inline(never)]
pub(crate) fn on_its_own_stack<T>(work: impl FnOnce() -> T) -> T {
    work()
}
