#!/usr/bin/env bash
# All checks: repository rules, Rust tests, and the product through its real clients. Run as `make test`.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

scratch=$(mktemp -d)
servers=()
finish() {
    end "${servers[@]}"
    # The one line that sums up all runners, also when one of them stopped the run.
    scripts/count-tests.sh "$scratch"/*.log
    rm -rf "$scratch"
}
trap finish EXIT

need_system softhsm2
need_python acceptance/requirements.txt
need_openbao
need_softhsm "$scratch/softhsm"

say "format, lint, repository rules"
cargo run -q --locked -p xtask -- ci

say "starting moto and ministack, two AWS emulators that we did not write"
export SAKER_TEST_MOTO SAKER_TEST_MINISTACK
moto_port=$(free_port)
SAKER_TEST_MOTO=http://127.0.0.1:$moto_port
.venv/bin/moto_server -H 127.0.0.1 -p "$moto_port" >"$scratch/moto.txt" 2>&1 &
servers+=($!)
wait_for_port $! "$moto_port" "$scratch/moto.txt"
ministack_port=$(free_port)
SAKER_TEST_MINISTACK=http://127.0.0.1:$ministack_port
(cd "$scratch" && BIND_HOST=127.0.0.1 GATEWAY_PORT=$ministack_port CLOUDTRAIL_RECORDING=1 exec "$OLDPWD/.venv/bin/ministack") \
    >"$scratch/ministack.txt" 2>&1 &
servers+=($!)
wait_for_port $! "$ministack_port" "$scratch/ministack.txt"

# Always the whole workspace: cargo builds libraries once more for each other choice of packages. The binary that the
# acceptance tests run is built on the way.
say "Rust tests"
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace --no-fail-fast 2>&1 | tee "$scratch/nextest.log"
    # nextest does not run the examples in the docs.
    cargo test --locked --workspace --doc -q 2>&1 | tee "$scratch/doc.log"
    cargo nextest run --locked --workspace --run-ignored only -E 'binary(emulators) or binary(key_services)' 2>&1 | tee "$scratch/emulators.log"
else
    cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$scratch/cargo.log"
    cargo test --locked --workspace --test emulators --test key_services -- --ignored 2>&1 | tee "$scratch/emulators.log"
fi

say "acceptance: real clients against the built binary"
export SAKER_BIN=$PWD/target/debug/saker
.venv/bin/python -m pytest acceptance 2>&1 | tee "$scratch/pytest.log"
