"""Builds `saker` twice in release mode: as it is, and with a null cipher. Prints both paths.

The product has no switch for this. The committed sources are copied to benches/target/null, the one type that calls
AES-GCM is replaced there by the one in aead.rs, and that copy is built. The two binaries differ in nothing else.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
COPY = PROJECT / "benches/target/null"
OUT = PROJECT / "benches/target"

REAL_TYPE = re.compile(r"\n(?:///[^\n]*\n)*pub\(crate\) struct AeadKey\(.*?\n(impl AeadKey \{.*?\n\}\n)", re.DOTALL)
REAL_IMPORT = re.compile(r"    aead::\{AES_256_GCM, [^\n]*\},\n")


def copy_sources() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    archive = subprocess.run(["git", "-C", PROJECT, "archive", "HEAD"], check=True, capture_output=True).stdout
    # With the present as their time, or cargo would take what the last run built with the null cipher for these sources.
    subprocess.run(["tar", "-x", "-m", "-C", COPY], input=archive, check=True)


def replace_cipher() -> None:
    source = COPY / "crates/keyring/src/cipher.rs"
    text, count = REAL_TYPE.subn(lambda _: (HERE / "aead.rs").read_text(), source.read_text())
    assert count == 1, "cipher.rs has changed its shape: adapt this script"
    text, count = REAL_IMPORT.subn("", text)
    assert count == 1, "cipher.rs has changed its imports: adapt this script"
    text = text.replace("= NONCE_LEN;", "= aws_lc_rs::aead::NONCE_LEN;")
    source.write_text(text)


def build(folder: Path, name: str) -> Path:
    # One target directory: the two share all third-party libraries.
    command = ["cargo", "build", "--release", "--locked", "-p", "saker-server", "--bin", "saker"]
    subprocess.run([*command, "--target-dir", PROJECT / "target"], cwd=folder, check=True)
    binary = OUT / name
    shutil.copy2(PROJECT / "target/release/saker", binary)
    return binary


def main() -> None:
    copy_sources()
    null_copy = COPY
    print(build(null_copy, "saker-sealed"), flush=True)
    replace_cipher()
    print(build(null_copy, "saker-null"), flush=True)
    # Nobody shall take the null cipher's for the product that they built.
    shutil.copy2(OUT / "saker-sealed", PROJECT / "target/release/saker")


if __name__ == "__main__":
    sys.exit(main())
