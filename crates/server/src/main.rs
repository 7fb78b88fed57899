//! The `saker` command, and the allocator that it runs on: whatever is freed anywhere in the process (decoded rows,
//! requests, the key service's answers in a library's buffers) is overwritten first, so that nothing stays behind in
//! memory that is free. It holds for what is dropped; what is kept has an owner that must drop it.
//!
//! Start reading at [`saker_server::cli::run`].

use std::{alloc::System, process::ExitCode};

use zeroizing_alloc::ZeroAlloc;

#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    saker_server::cli::run()
}
