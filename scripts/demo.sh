#!/usr/bin/env bash
# The whole promise on real data, then a clean machine again. Run as `make demo`.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

dir=$PWD/.demo
# A demo that was killed leaves its folder behind; one that runs has its process id there.
if [ -e "$dir" ]; then
    ! kill -0 "$(cat "$dir/pid" 2>/dev/null)" 2>/dev/null || stop "another demo is running in $dir"
    rm -rf "$dir"
fi
saker=
finish() {
    [ -z "$saker" ] || end "$saker"
    rm -rf "$dir"
}

# The demo brings its own credentials; those of a real account must not be in its way.
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN

need_system
need_python demo/requirements.txt

say "building saker in release mode (the first time takes a while)"
cargo build --release --locked -p saker-server

say "starting saker dev: a local key server and the database, all its files under .demo"
mkdir "$dir"
trap finish EXIT
echo $$ >"$dir/pid"
trap 'exit 130' INT
trap 'exit 143' TERM
target/release/saker dev --dir "$dir" >"$dir/saker.log" 2>&1 &
saker=$!
for ((tries = 0; tries < 300; tries++)); do
    grep -q '^ready' "$dir/saker.log" && break
    kill -0 "$saker" 2>/dev/null || break
    sleep 0.2
done
grep -q '^ready' "$dir/saker.log" || { cat "$dir/saker.log" >&2; stop "saker dev did not start"; }

export AWS_SHARED_CREDENTIALS_FILE=$dir/aws-credentials AWS_PROFILE=customer AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1
.venv/bin/python demo/demo.py --data "$dir/data" "$@"
say "stopping saker and removing .demo"
