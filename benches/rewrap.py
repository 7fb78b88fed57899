"""How long does it take to give a database with 10,000 files a new zone key, while it is searched and written to?

Ten collections of sixty-four columns in sixteen partitions, one small segment each: many files and few bytes, since the
time goes by files. Rotates by REST as `saker key rotate` does, several times; beside it a searcher and a writer count what
they did and what failed. Prints files, seconds and files a second of every rotation.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import boto3
from pymilvus import DataType, MilvusClient, MilvusException

from running_saker import RunningSaker

DATABASE, PARTITIONS, FILES_EACH = "many", 16, 64
# Beside the columns: the key, the vector, the timestamps.
COLUMNS = FILES_EACH - 3


def row(key: int) -> dict:
    return {"id": key, "vector": [float(key), 0.5, 0.5, 0.5]} | {f"c{number}": key for number in range(COLUMNS)}


def make_collection(client: MilvusClient, name: str) -> None:
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    for number in range(COLUMNS):
        schema.add_field(f"c{number}", DataType.INT64)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=index)
    for partition in range(PARTITIONS):
        client.create_partition(name, f"p{partition}")
        client.insert(name, [row(partition)], partition_name=f"p{partition}")
    client.flush(name)


class Work:
    """Searches and inserts until told to stop."""

    def __init__(self, uri: str, written: str) -> None:
        self._uri, self._written, self._stop = uri, written, threading.Event()
        self.failed, self.inserted, self.search_ms = 0, 0, []
        self._threads = [threading.Thread(target=work) for work in (self._search, self._insert)]
        for thread in self._threads:
            thread.start()

    def _search(self) -> None:
        client = MilvusClient(self._uri, db_name=DATABASE)
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                client.search("c0", data=[[3.0, 0.5, 0.5, 0.5]], limit=1)
                self.search_ms.append((time.monotonic() - began) * 1000)
            except MilvusException:
                self.failed += 1

    def _insert(self) -> None:
        client = MilvusClient(self._uri, db_name=DATABASE)
        while not self._stop.is_set():
            try:
                client.insert(self._written, [row(1_000 + self.inserted)])
                self.inserted += 1
            except MilvusException:
                self.failed += 1
            time.sleep(0.005)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def ask(uri: str, path: str, body: dict | None = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(uri + path, data=data, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    if found["code"] != 0:
        raise SystemExit(found["message"])
    return found["data"]


def rotate(uri: str) -> tuple[float, int]:
    began = time.monotonic()
    job = ask(uri, "/v2/cmek/databases/rotate", {"dbName": DATABASE})["id"]
    while True:
        found = next(one for one in ask(uri, "/v2/cmek/jobs") if one["id"] == job)
        if found["state"] == "done":
            return time.monotonic() - began, found["total"]
        if found["state"] == "failed":
            raise SystemExit(found["reason"])
        time.sleep(0.02)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--binary", default="target/release/saker")
    options.add_argument("--collections", type=int, default=10)
    options.add_argument("--rotations", type=int, default=3)
    options = options.parse_args()
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, RunningSaker(options.binary, Path(folder)) as saker:
        key = boto3.client("kms", **saker.kms_options("customer")).create_key()["KeyMetadata"]["Arn"]
        MilvusClient(saker.uri).create_database(DATABASE, properties={"cipher.enabled": "true", "cipher.key": key})
        client = MilvusClient(saker.uri, db_name=DATABASE)
        for number in range(options.collections):
            make_collection(client, f"c{number}")
        objects = saker.directory / "data" / "objects" / "collection"
        files = [path for path in objects.rglob("*") if path.is_file()]
        print(f"{len(files):,} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")
        print("idle:")
        for _ in range(options.rotations):
            seconds, total = rotate(saker.uri)
            print(f"  {total:,} data keys in {seconds:.2f} s, {total / seconds:,.0f} a second")
        print("beside a searcher and a writer:")
        work = Work(saker.uri, f"c{options.collections - 1}")
        time.sleep(2)
        before = len(work.search_ms)
        for _ in range(options.rotations):
            seconds, total = rotate(saker.uri)
            print(f"  {total:,} data keys in {seconds:.2f} s, {total / seconds:,.0f} a second")
        after = len(work.search_ms)
        work.end()
        for name, found in [("before", work.search_ms[:before]), ("during", work.search_ms[before:after])]:
            found.sort()
            print(f"  search {name}: p50 {statistics.median(found):.2f} ms, p99 {found[int(len(found) * 0.99)]:.2f} ms, {len(found):,} searches")
        print(f"  {work.inserted:,} inserts, {work.failed} failed requests")


if __name__ == "__main__":
    main()
