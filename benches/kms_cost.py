"""How often is a key service asked for one key in an hour, and what does that cost at AWS's price?

Default settings. Counts the calls in the key server's own log over some minutes and scales them to an hour: with nothing
to do, with searches and inserts as fast as they go, with as many databases under one key as under ten, and while the key
is disabled. The price is AWS KMS's list price (aws.amazon.com/kms/pricing): 1 USD for a key and month, 0.03 USD for 10,000
requests; the 20,000 requests a month that an account has for nothing are left out. One node; each more node asks as often.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import os
import tempfile
import threading
import time
from pathlib import Path

import boto3
import numpy as np
from pymilvus import MilvusClient, MilvusException

from running_saker import RunningSaker

COLLECTION, DIM = "c", 32
HOURS_A_MONTH = 730
USD_A_KEY, USD_A_REQUEST = 1.0, 0.03 / 10_000


class Load:
    """Searches and inserts without a pause, until it is ended."""

    def __init__(self, uri: str, databases: list[str]) -> None:
        self.requests, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._work, args=(uri, databases), daemon=True)
        self._thread.start()

    def _work(self, uri: str, databases: list[str]) -> None:
        clients = [MilvusClient(uri, db_name=name, dedicated=True) for name in databases]
        vector, number = [0.5] * DIM, 1_000_000
        while not self._stop.is_set():
            client = clients[number % len(clients)]
            try:
                client.search(COLLECTION, data=[vector], limit=3)
                if number % 10 == 0:
                    client.insert(COLLECTION, [{"id": number, "vector": vector}])
            except MilvusException:
                pass
            self.requests, number = self.requests + 1, number + 1

    def end(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.requests


def make(uri: str, name: str, key: str) -> None:
    MilvusClient(uri, dedicated=True).create_database(name, properties={"cipher.enabled": "true", "cipher.key": key})
    client = MilvusClient(uri, db_name=name, dedicated=True)
    client.create_collection(COLLECTION, dimension=DIM, metric_type="COSINE")
    vectors = np.random.default_rng(5).standard_normal((500, DIM)).astype(np.float32)
    client.insert(COLLECTION, [{"id": row, "vector": vector} for row, vector in enumerate(vectors)])


def calls(log: Path, since: int) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    for line in log.read_text().splitlines()[since:]:
        event = json.loads(line)
        if event["eventName"] in ("Decrypt", "GenerateDataKey"):
            counts[event["requestParameters"]["keyId"]] += 1
    return counts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=3.0, help="of each of the four measurements")
    options.add_argument("--saker", default=os.environ.get("SAKER_BIN", "target/release/saker"))
    arguments = options.parse_args()
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch, RunningSaker(arguments.saker, Path(scratch)) as saker:
        kms = boto3.client("kms", **saker.kms_options("customer"))
        one, ten = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
        make(saker.uri, "alone", one)
        crowd = [f"crowd{number}" for number in range(10)]
        for name in crowd:
            make(saker.uri, name, ten)
        log = saker.directory / "kms" / "cloudtrail.jsonl"

        def count(key: str) -> float:
            """Calls in an hour."""
            lines, began = len(log.read_text().splitlines()), time.monotonic()
            time.sleep(arguments.minutes * 60)
            return calls(log, lines)[key] / (time.monotonic() - began) * 3_600

        rows = [("idle", 1, 0, count(one))]
        for what, databases, key in [("under load", ["alone"], one), ("under load", crowd, ten), ("disabled, asked on", crowd, ten)]:
            if what.startswith("disabled"):
                kms.disable_key(KeyId=ten)
            load = Load(saker.uri, databases)
            hourly = count(key)
            rows.append((what, len(databases), load.end(), hourly))
    print("| key | databases | requests of clients | KMS calls per hour | USD per month |")
    print("|---|---|---|---|---|")
    for what, databases, requests, hourly in rows:
        month = USD_A_KEY + hourly * HOURS_A_MONTH * USD_A_REQUEST
        print(f"| {what} | {databases} | {requests:,} | {hourly:.0f} | {month:.2f} |")


if __name__ == "__main__":
    main()
