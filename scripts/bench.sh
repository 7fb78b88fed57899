#!/usr/bin/env bash
# Search speed beside faiss-cpu at the same recall, then kill switch times and KMS calls. Run as `make bench`.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

need_system
need_python benches/requirements.txt

say "building saker and its load client in release mode"
cargo build --release --locked -p saker-server
cargo build --release --locked --manifest-path benches/Cargo.toml
export SAKER_BIN=$PWD/target/release/saker

say "GloVe 400,000 x 50: Saker beside faiss-cpu"
.venv/bin/python benches/glove_faiss.py
say "kill switch"
.venv/bin/python benches/kill_switch.py
