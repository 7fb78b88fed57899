"""The graph index alone beside hnswlib, both in process, one thread, in turns: what a search costs without server and sealing.

Takes a folder with vectors.npy, queries.npy and truth.npy (rows in the order of their nearness), as `make bench` keeps
them. Figures are queries per second of processor time, so that other programs on the machine disturb less; medians of the
rounds. hnswlib: M = 16, efConstruction = 128, normalised vectors and inner product, which saves it work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import hnswlib
import numpy as np

K = 10
HERE = Path(__file__).resolve().parent


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--binary", type=Path, default=HERE / "target/release/saker-index-bench")
    options.add_argument("--saved", type=Path, help="where the index is kept between runs")
    options.add_argument("--peer-saved", type=Path, help="where hnswlib's index is kept between runs")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=1.0)
    options.add_argument("--ef", type=int, nargs="+", default=[15, 20, 30, 40, 60, 80, 120, 160])
    options.add_argument("--peer-ef", type=int, nargs="+", default=[20, 30, 40, 60, 100, 150, 200, 300])
    arguments = options.parse_args()

    vectors, queries, truth = (np.load(arguments.folder / f"{name}.npy") for name in ("vectors", "queries", "truth"))
    truth = truth[:, :K]
    unit, unit_queries = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (vectors, queries))
    with tempfile.TemporaryDirectory() as scratch:
        files = {"rows": vectors.astype("<f4"), "queries": queries.astype("<f4"), "truth": truth.astype("<u4")}
        command = [str(arguments.binary), "--dim", str(vectors.shape[1])]
        for name, values in files.items():
            values.tofile(Path(scratch) / name)
            command += [f"--{name}", str(Path(scratch) / name)]
        if arguments.saved:
            command += ["--saved", str(arguments.saved)]
        saker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        print("saker:", saker.stdout.readline().strip(), flush=True)

        peer = hnswlib.Index(space="ip", dim=vectors.shape[1])
        if arguments.peer_saved and arguments.peer_saved.exists():
            peer.load_index(str(arguments.peer_saved))
        else:
            began, cpu = time.monotonic(), time.process_time()
            peer.init_index(max_elements=len(unit), M=16, ef_construction=128)
            peer.add_items(unit, num_threads=2)
            print(f"hnswlib: built in {time.monotonic() - began:.1f} s, {time.process_time() - cpu:.1f} s of processor time", flush=True)
            if arguments.peer_saved:
                peer.save_index(str(arguments.peer_saved))

        def ask(ef: int) -> tuple[float, float]:
            saker.stdin.write(f"{ef} 1 {arguments.seconds}\n")
            saker.stdin.flush()
            answer = json.loads(saker.stdout.readline())
            return answer["recall"], answer["cpu_qps"]

        def ask_peer(ef: int) -> tuple[float, float]:
            peer.set_ef(ef)
            found, done, cpu = None, 0, time.process_time()
            while time.process_time() - cpu < arguments.seconds:
                found, _ = peer.knn_query(unit_queries, k=K, num_threads=1)
                done += len(queries)
            qps = done / (time.process_time() - cpu)
            hits = sum(len(set(row) & set(true)) for row, true in zip(found.tolist(), truth.tolist()))
            return hits / truth.size, qps

        results: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(arguments.rounds):
            for ef in arguments.ef:
                results.setdefault(("saker", ef), []).append(ask(ef))
            for ef in arguments.peer_ef:
                results.setdefault(("hnswlib", ef), []).append(ask_peer(ef))
        saker.stdin.close()
        saker.wait()

    curves: dict[str, list[tuple[float, float]]] = {"saker": [], "hnswlib": []}
    for (name, ef), rounds in results.items():
        recall, qps = rounds[0][0], statistics.median(qps for _, qps in rounds)
        curves[name].append((recall, qps))
        print(f"{name:8} ef {ef:4} recall {recall:.4f} {qps:8,.0f} queries/s")
    for wanted in (0.95, 0.99):
        best = {name: max((qps for recall, qps in curve if recall >= wanted), default=0.0) for name, curve in curves.items()}
        if best["hnswlib"]:
            print(f"recall >= {wanted}: saker {best['saker']:,.0f}, hnswlib {best['hnswlib']:,.0f}, ratio {best['saker'] / best['hnswlib']:.2f}")


if __name__ == "__main__":
    main()
