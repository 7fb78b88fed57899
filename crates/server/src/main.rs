//! The `saker` command, and the allocator that it runs on: whatever is freed anywhere in the process (decoded rows,
//! requests, the key service's answers in a library's buffers) is overwritten first, so that nothing stays behind in
//! memory that is free. It holds for what is dropped; what is kept has an owner that must drop it. What is large and free goes
//! back to the system.
//!
//! Start reading at [`saker_server::cli::run`].

use std::process::ExitCode;

use saker_arena::Heap;
use zeroizing_alloc::ZeroAlloc;

#[global_allocator]
static ALLOCATOR: ZeroAlloc<Heap> = ZeroAlloc(Heap);

fn main() -> ExitCode {
    saker_server::cli::run()
}
