"""How long after a key is disabled is the first search refused, and how long after it is enabled are answers back?

Default settings, for each number of databases under the key: one, a hundred, a thousand. The first has `--rows` rows, up
to twenty spread over the others a few each; refused is when the last of these refuses, back is when the last of them
answers. Each try: wait up to an interval of the probe, disable the key, search in turn until all are refused, go on
searching for `--watch` seconds (one answer in that time is a failure), enable the key, search until all answer. Prints
every try and the percentiles, and counts the KMS's Decrypt calls during 10,000 searches where the KMS keeps a log of calls.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import tempfile
import time
from pathlib import Path

import boto3
import numpy as np
from pymilvus import MilvusClient, MilvusException

from running_saker import RunningSaker

COLLECTION, DIM, WATCHED_MAX = "c", 32, 20
PATIENCE_SECONDS = 120


class Watched:
    """A database whose answers are looked at."""

    def __init__(self, uri: str, database: str, vectors: np.ndarray) -> None:
        self.client = MilvusClient(uri, db_name=database, dedicated=True)
        self.client.create_collection(COLLECTION, dimension=DIM, metric_type="COSINE")
        for start in range(0, len(vectors), 5_000):
            part = range(start, min(start + 5_000, len(vectors)))
            self.client.insert(COLLECTION, [{"id": row, "vector": vectors[row]} for row in part])
        self.client.flush(COLLECTION)
        self.query = vectors[0].tolist()
        until = time.monotonic() + PATIENCE_SECONDS
        while not self.answers():
            if time.monotonic() > until:
                raise SystemExit(f"{database} never answers")

    def answers(self) -> bool:
        try:
            return len(self.client.search(COLLECTION, data=[self.query], limit=3)[0]) == 3
        except MilvusException:
            return False


def seconds_until_all(wanted: bool, watched: list[Watched]) -> float:
    """Until each was seen to answer, or to refuse, once."""
    began, left = time.monotonic(), list(watched)
    while time.monotonic() - began < PATIENCE_SECONDS:
        left = [one for one in left if one.answers() != wanted]
        if not left:
            return time.monotonic() - began
        time.sleep(0.01)
    raise SystemExit(f"no {'answer' if wanted else 'refusal'} within {PATIENCE_SECONDS} s")


def decrypt_calls(log: Path) -> int:
    return sum(json.loads(line)["eventName"] == "Decrypt" for line in log.read_text().splitlines())


def calls_during_searches(watched: Watched, log: Path, searches: int) -> None:
    before, began = decrypt_calls(log), time.monotonic()
    for _ in range(searches):
        watched.client.search(COLLECTION, data=[watched.query], limit=3)
    seconds = time.monotonic() - began
    calls = decrypt_calls(log) - before
    print(f"{searches:,} searches in {seconds:.1f} s: {calls} Decrypt calls at the KMS; the probe's own in that time: about {seconds / 5:.1f}")


def percentiles(name: str, values: list[float]) -> str:
    p50, p99 = np.percentile(values, [50, 99])
    return f"{name}: p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(values):.2f} s of {len(values)}"


def measure(saker: RunningSaker, databases: int, arguments: argparse.Namespace) -> None:
    kms = boto3.client("kms", **saker.kms_options("customer"))
    key = kms.create_key()["KeyMetadata"]
    client = MilvusClient(saker.uri, dedicated=True)
    names = [f"dark_{databases}_{number}" for number in range(databases)]
    began = time.monotonic()
    for name in names:
        client.create_database(name, properties={"cipher.enabled": "true", "cipher.key": key["Arn"]})
    print(f"{databases:,} databases made in {time.monotonic() - began:.1f} s", flush=True)
    source = np.random.default_rng(3)
    step = max(1, databases // WATCHED_MAX)
    watched = [
        Watched(saker.uri, name, source.standard_normal((arguments.rows if number == 0 else 200, DIM)).astype(np.float32))
        for number, name in enumerate(names[::step][:WATCHED_MAX])
    ]
    log = saker.directory / "kms" / "cloudtrail.jsonl"
    if log.exists() and databases == 1:
        calls_during_searches(watched[0], log, arguments.searches)
    dark, back = [], []
    for number in range(arguments.tries):
        time.sleep(random.uniform(0, 5))
        kms.disable_key(KeyId=key["KeyId"])
        dark.append(seconds_until_all(False, watched))
        watch_until = time.monotonic() + arguments.watch
        while time.monotonic() < watch_until:
            if any(one.answers() for one in watched):
                raise SystemExit("FAILED: answered after the first refusal")
        kms.enable_key(KeyId=key["KeyId"])
        back.append(seconds_until_all(True, watched))
        print(f"try {number + 1}: refused after {dark[-1]:.2f} s, back after {back[-1]:.2f} s", flush=True)
    print(f"{databases:,} databases under the key; {percentiles('refused', dark)}; {percentiles('back', back)}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tries", type=int, default=50)
    options.add_argument("--databases", type=int, nargs="+", default=[1, 100, 1_000])
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--watch", type=float, default=1.0)
    options.add_argument("--searches", type=int, default=10_000)
    options.add_argument("--kms-endpoint", help="another KMS, such as ministack, instead of the local key server")
    options.add_argument("--saker", default=os.environ.get("SAKER_BIN", "target/release/saker"))
    arguments = options.parse_args()
    # pymilvus writes a stack trace for every refused call.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    for databases in arguments.databases:
        with (
            tempfile.TemporaryDirectory() as scratch,
            RunningSaker(arguments.saker, Path(scratch), arguments.kms_endpoint) as saker,
        ):
            measure(saker, databases, arguments)


if __name__ == "__main__":
    main()
