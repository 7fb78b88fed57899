#!/usr/bin/env bash
# The tests of the distance kernels, compiled for 64-bit ARM and run under an emulator. Run as `make neon`.
# Needs the Rust standard library for that processor; with rustup: `rustup target add aarch64-unknown-linux-gnu`.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

target=aarch64-unknown-linux-gnu
need_system qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross
[ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] || stop "Rust's standard library for $target is missing: rustup target add $target"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
say "kernels, against their scalar twins, on an emulated 64-bit ARM processor"
cargo test --locked -p saker-index --lib --target "$target" kernel
