"""Saker's engine crate as a library: a worker of its own, in Rust. Only its command is here."""

from __future__ import annotations

from pathlib import Path

BENCHES = Path(__file__).resolve().parents[2]
PROGRAM = BENCHES / "target/release/saker-engine-bench"
