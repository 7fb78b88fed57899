#!/usr/bin/env bash
# Search speed beside faiss-cpu at the same recall, then what keys cost: kill switch times, KMS calls, and what other
# databases notice. Run as `make bench`; takes about an hour and a half.
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
say "kill switch: 50 tries with 1, 100 and 1,000 databases"
.venv/bin/python benches/kill_switch.py
say "a thousand databases, one key of twenty denied: what the others notice"
.venv/bin/python benches/many_databases.py
say "KMS calls per key and hour, and their price"
.venv/bin/python benches/kms_cost.py
