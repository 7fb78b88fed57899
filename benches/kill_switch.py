"""How long after a key is disabled is the first search refused, and how long after it is enabled are answers back?

Default settings. Each try: disable the key, search every 20 ms until refused, go on searching for `--watch` seconds (one
answer in that time is a failure), enable the key, search until answered. Prints every try and the percentiles, and
counts the KMS's Decrypt calls during 10,000 searches where the KMS keeps a log of calls.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import boto3
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from running_saker import RunningSaker

COLLECTION, DATABASE, DIM = "c", "dark", 32
PATIENCE_SECONDS = 60


def answered(client: MilvusClient, query: list[float]) -> bool:
    try:
        return len(client.search(COLLECTION, data=[query], limit=3)[0]) == 3
    except MilvusException:
        return False


def seconds_until(wanted: bool, client: MilvusClient, query: list[float]) -> float:
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_SECONDS:
        if answered(client, query) == wanted:
            return time.monotonic() - began
        time.sleep(0.02)
    raise SystemExit(f"no {'answer' if wanted else 'refusal'} within {PATIENCE_SECONDS} s")


def decrypt_calls(log: Path) -> int:
    return sum(json.loads(line)["eventName"] == "Decrypt" for line in log.read_text().splitlines())


def calls_during_searches(client: MilvusClient, query: list[float], log: Path, searches: int) -> None:
    before, began = decrypt_calls(log), time.monotonic()
    for _ in range(searches):
        client.search(COLLECTION, data=[query], limit=3)
    seconds = time.monotonic() - began
    calls = decrypt_calls(log) - before
    print(f"{searches:,} searches in {seconds:.1f} s: {calls} Decrypt calls at the KMS; the probe's own in that time: about {seconds / 5:.1f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tries", type=int, default=10)
    options.add_argument("--rows", type=int, default=20_000)
    options.add_argument("--watch", type=float, default=3.0)
    options.add_argument("--searches", type=int, default=10_000)
    options.add_argument("--kms-endpoint", help="another KMS, such as ministack, instead of the local key server")
    options.add_argument("--saker", default=os.environ.get("SAKER_BIN", "target/release/saker"))
    arguments = options.parse_args()
    # pymilvus writes a stack trace for every refused call.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

    with tempfile.TemporaryDirectory() as scratch, RunningSaker(arguments.saker, Path(scratch), arguments.kms_endpoint) as saker:
        kms = boto3.client("kms", **saker.kms_options("customer"))
        key = kms.create_key()["KeyMetadata"]
        client = MilvusClient(saker.uri)
        client.create_database(DATABASE, properties={"cipher.enabled": "true", "cipher.key": key["Arn"]})
        client.use_database(DATABASE)
        client.create_collection(COLLECTION, dimension=DIM, metric_type="COSINE")
        vectors = np.random.default_rng(3).standard_normal((arguments.rows, DIM)).astype(np.float32)
        for start in range(0, arguments.rows, 5_000):
            part = range(start, min(start + 5_000, arguments.rows))
            client.insert(COLLECTION, [{"id": row, "vector": vectors[row]} for row in part])
        client.flush(COLLECTION)
        query = vectors[0].tolist()
        assert answered(client, query)
        log = saker.directory / "kms" / "cloudtrail.jsonl"
        if log.exists():
            calls_during_searches(client, query, log, arguments.searches)
        dark, back = [], []
        for number in range(arguments.tries):
            time.sleep(random.uniform(0, 5))
            kms.disable_key(KeyId=key["KeyId"])
            dark.append(seconds_until(False, client, query))
            watch_until = time.monotonic() + arguments.watch
            while time.monotonic() < watch_until:
                if answered(client, query):
                    raise SystemExit("FAILED: answered after the first refusal")
            kms.enable_key(KeyId=key["KeyId"])
            back.append(seconds_until(True, client, query))
            print(f"try {number + 1}: refused after {dark[-1]:.2f} s, back after {back[-1]:.2f} s", flush=True)
        for name, values in (("refused", dark), ("back", back)):
            print(f"{name}: median {statistics.median(values):.2f} s, max {max(values):.2f} s of {len(values)}")


if __name__ == "__main__":
    main()
