#!/usr/bin/env bash
# The long forms of the crash and revocation tests. Run as `make soak`.
# In Rust they are ignored tests with `soak` in their name, in acceptance/ those marked `soak`.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

need_system
need_python acceptance/requirements.txt

say "Rust soak tests"
cargo test --locked --workspace -- --ignored soak

say "acceptance soak tests, against a release build"
cargo build --release --locked -p saker-server
export SAKER_BIN=$PWD/target/release/saker
.venv/bin/python -m pytest acceptance -m soak
