"""Do a thousand databases notice when one key of twenty is denied and its fifty databases go dark?

One client searches the others' collections in turn, one request at a time, without a pause. The time is cut into rounds of
three windows: calm, from the moment the key is disabled, and from the moment it is enabled again. So whatever else the
machine does falls on all three alike. Beside it, a client of the denied key goes on asking, as one that does not
understand would. Prints p50 and p99 of each kind of window, how much p99 moved against the calm windows with a 95 %
interval (from drawing rounds again and again), errors, the calls of each key and interval, and the time to make the
databases.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import boto3
import numpy as np
from pymilvus import MilvusClient, MilvusException

from running_saker import RunningSaker

COLLECTION, DIM, INTERVAL_S = "c", 32, 5
WINDOWS = ("calm", "denied", "restored")


def name_of(number: int) -> str:
    return f"d{number:04}"


def fill(uri: str, number: int) -> tuple[MilvusClient, list[float]]:
    client = MilvusClient(uri, db_name=name_of(number), dedicated=True)
    client.create_collection(COLLECTION, dimension=DIM, metric_type="COSINE")
    vectors = np.random.default_rng(number).standard_normal((500, DIM)).astype(np.float32)
    client.insert(COLLECTION, [{"id": row, "vector": vector} for row, vector in enumerate(vectors)])
    client.flush(COLLECTION)
    return client, vectors[0].tolist()


def ask_on(uri: str, number: int, per_second: float) -> None:
    """A client of the denied key: goes on asking, whatever it is told."""
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    client = MilvusClient(uri, db_name=name_of(number), dedicated=True)
    while True:
        try:
            client.search(COLLECTION, data=[[0.5] * DIM], limit=3)
        except MilvusException:
            pass
        time.sleep(1 / per_second)


def window(others: list[tuple[MilvusClient, list[float]]], seconds: float) -> np.ndarray:
    """Milliseconds of every search in this time. One that fails ends the measurement."""
    times, number, until = [], 0, time.monotonic() + seconds
    while time.monotonic() < until:
        client, query = others[number % len(others)]
        began = time.perf_counter()
        found = client.search(COLLECTION, data=[query], limit=3)
        times.append((time.perf_counter() - began) * 1_000)
        if len(found[0]) != 3:
            raise SystemExit("FAILED: another database gave a wrong answer")
        number += 1
    return np.array(times)


def moved(calm: list[np.ndarray], other: list[np.ndarray]) -> tuple[float, float, float]:
    """By how many percent p99 of the other windows lies above that of the calm ones, and a 95 % interval."""

    def p99(windows: list[np.ndarray]) -> float:
        return float(np.percentile(np.concatenate(windows), 99))

    source, drawn = np.random.default_rng(1), []
    for _ in range(500):
        rounds = source.integers(0, len(calm), len(calm))
        drawn.append(p99([other[r] for r in rounds]) / p99([calm[r] for r in rounds]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return (p99(other) / p99(calm) - 1) * 100, (low - 1) * 100, (high - 1) * 100


def calls_of_keys(log: Path, since: int, seconds: float) -> str:
    counts: collections.Counter[str] = collections.Counter()
    for line in log.read_text().splitlines()[since:]:
        event = json.loads(line)
        if event["eventName"] in ("Decrypt", "GenerateDataKey"):
            counts[event["requestParameters"]["keyId"]] += 1
    rates = sorted(count / (seconds / INTERVAL_S) for count in counts.values())
    return f"calls of a key in an interval: median {np.median(rates):.2f}, least {rates[0]:.2f}, most {rates[-1]:.2f}"


def measure(saker: RunningSaker, arguments: argparse.Namespace) -> None:
    kms = boto3.client("kms", **saker.kms_options("customer"))
    keys = [kms.create_key()["KeyMetadata"]["Arn"] for _ in range(arguments.keys)]
    client = MilvusClient(saker.uri, dedicated=True)
    began = time.monotonic()
    for number in range(arguments.databases):
        properties = {"cipher.enabled": "true", "cipher.key": keys[number % arguments.keys]}
        client.create_database(name_of(number), properties=properties)
    print(f"{arguments.databases:,} databases under {arguments.keys} keys made in {time.monotonic() - began:.1f} s", flush=True)
    # The denied key is the first: its first database and two of each other key have rows.
    fill(saker.uri, 0)
    others = [fill(saker.uri, number) for number in range(2 * arguments.keys) if number % arguments.keys != 0]
    stranger = multiprocessing.get_context("spawn").Process(target=ask_on, args=(saker.uri, 0, 50.0), daemon=True)
    stranger.start()
    # A while for gRPC, caches and the allocator to settle.
    window(others, 10)
    log = saker.directory / "kms" / "cloudtrail.jsonl"
    lines, began = len(log.read_text().splitlines()), time.monotonic()
    window(others, 6 * INTERVAL_S)
    print(calls_of_keys(log, lines, time.monotonic() - began), flush=True)

    seen: dict[str, list[np.ndarray]] = {kind: [] for kind in WINDOWS}
    for number in range(arguments.rounds):
        seen["calm"].append(window(others, arguments.seconds))
        kms.disable_key(KeyId=keys[0])
        seen["denied"].append(window(others, arguments.seconds))
        kms.enable_key(KeyId=keys[0])
        seen["restored"].append(window(others, arguments.seconds))
        print(f"round {number + 1}: {', '.join(f'{kind} {np.percentile(seen[kind][-1], 99):.2f} ms' for kind in WINDOWS)}", flush=True)
    stranger.terminate()
    for kind in WINDOWS:
        times = np.concatenate(seen[kind])
        p50, p99 = np.percentile(times, [50, 99])
        print(f"{kind}: {len(times):,} searches of others, p50 {p50:.3f} ms, p99 {p99:.3f} ms, max {times.max():.1f} ms, 0 errors")
    for kind in WINDOWS[1:]:
        middle, low, high = moved(seen["calm"], seen[kind])
        print(f"p99 {kind} against calm: {middle:+.1f} % (95 %: {low:+.1f} to {high:+.1f})")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--databases", type=int, default=1_000)
    options.add_argument("--keys", type=int, default=20)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--seconds", type=float, default=10.0, help="of a window: longer than an interval of the probe")
    options.add_argument("--saker", default=os.environ.get("SAKER_BIN", "target/release/saker"))
    arguments = options.parse_args()
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch, RunningSaker(arguments.saker, Path(scratch)) as saker:
        measure(saker, arguments)


if __name__ == "__main__":
    main()
