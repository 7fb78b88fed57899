"""Saker: the server binary, a database under a customer key in the local key server, over gRPC on the loopback."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from pymilvus import DataType, MilvusClient

from side_by_side.data import COLUMNS, K, Data
from side_by_side.peers.engine import Engine, Lane, Rate

BENCHES = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(BENCHES))
from running_saker import RunningSaker  # noqa: E402

BINARIES = {
    "saker": BENCHES.parent / "target/release/saker",
    "sealed": BENCHES / "target/saker-sealed",
    "null": BENCHES / "target/saker-null",
}
PROGRAMS = BENCHES / "target/release"
DATABASE, COLLECTION = "bench", "bench"
PYMILVUS = "pymilvus"
# What Saker's key server is asked for as long as it serves: one probe of each root key (its own and the customer's).
PROBES_A_SECOND = 2 / 5


class Saker(Engine):
    about = "database under a customer key, AUTOINDEX, cosine; gRPC on the loopback, client and server share the processors; filter: expression on a column with an INVERTED index"
    sweep = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
    # Recall is asked for with pymilvus, in large requests.
    recall_is_not_speed = True
    # Its leases live on probes.
    may_be_frozen = False

    def __init__(self, name: str, binary: str) -> None:
        super().__init__(name)
        self._binary = BINARIES[binary]

    def lanes(self) -> list[Lane]:
        return [
            Lane("1 client", 1),
            Lane("2 clients", 2),
            Lane("2 clients, 100 queries a request", 2, batch=100),
            Lane("1 pymilvus client", 1, client=PYMILVUS),
        ]

    def prepare(self, data: Data, scratch: Path) -> None:
        self._data, self._scratch, self._dim = data, scratch, data.about()["dim"]
        self._server = RunningSaker(str(self._binary), scratch)
        self._server.__enter__()
        self._key = self.new_key()
        MilvusClient(self._server.uri, dedicated=True).create_database(DATABASE, properties={"cipher.enabled": "true", "cipher.key": self._key})
        self._client = MilvusClient(self._server.uri, db_name=DATABASE, dedicated=True)
        self.create(COLLECTION)
        self._log_lines, self._log_began = len(self._key_server_log()), time.monotonic()

    def ingest(self) -> float:
        return self.insert(COLLECTION)["seconds"]

    def new_key(self) -> str:
        return boto3.client("kms", **self._server.kms_options("customer")).create_key()["KeyMetadata"]["Arn"]

    def create(self, collection: str) -> None:
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        for name in COLUMNS:
            schema.add_field(name, DataType.INT32)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._dim)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        for name in COLUMNS:
            index.add_index(name, index_type="INVERTED")
        self._client.create_collection(collection, schema=schema, index_params=index)

    def insert(self, collection: str) -> dict:
        """All rows, each request acknowledged when it is on the disk; a client in Rust."""
        command = [PROGRAMS / "saker-ingest", "--uri", self._server.uri, "--database", DATABASE, "--collection", collection]
        command += ["--folder", self._data.folder, "--columns", ",".join(COLUMNS)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def index(self) -> None:
        self.finish(COLLECTION)

    def finish(self, collection: str) -> None:
        self._client.flush(collection)
        while True:
            about = self._client.describe_index(collection, "vector")
            if about["state"] == "Finished" and int(about["pending_index_rows"]) == 0:
                return
            time.sleep(0.05)

    def settle(self) -> None:
        self._client.load_collection(COLLECTION)
        self._files: dict[int, Path] = {}

    def passing(self, column: str, permille: int) -> Any:
        return f"{column} < {permille}"

    def many(self, queries: np.ndarray, parameter: int, passing: Any = None) -> np.ndarray:
        found = np.full((len(queries), K), -1, dtype=np.int64)
        for start in range(0, len(queries), 100):
            part = queries[start : start + 100].tolist()
            answers = self._client.search(COLLECTION, data=part, anns_field="vector", limit=K, filter=passing or "", search_params={"params": {"ef": parameter}})
            for number, hits in enumerate(answers):
                found[start + number, : len(hits)] = [hit["id"] for hit in hits]
        return found

    def rate(self, lane: Lane, queries: np.ndarray, parameter: int, seconds: float, passing: Any = None) -> Rate:
        if lane.client == PYMILVUS:
            return self._pymilvus_rate(queries, parameter, seconds, passing)
        command = [PROGRAMS / "saker-load", "--uri", self._server.uri, "--database", DATABASE, "--collection", COLLECTION]
        command += ["--queries", self._raw(queries), "--dim", str(self._dim), "--ef", str(parameter), "--limit", str(K)]
        command += ["--clients", str(lane.threads), "--batch", str(lane.batch), "--seconds", str(seconds)]
        if passing is not None:
            command += ["--filter", passing]
        seen = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if seen["failures"]:
            raise RuntimeError(f"{seen['failures']} searches failed")
        latencies = {name: value for name, value in seen.items() if name.startswith("p") and name.endswith("_ms")} if lane.batch == 1 else {}
        return Rate(seen["requests"] * lane.batch, seen["seconds"], more=latencies)

    def _raw(self, queries: np.ndarray) -> Path:
        key = hash(queries.tobytes())
        if key not in self._files:
            self._files[key] = self._scratch / f"queries-{len(self._files)}.f32"
            self._files[key].write_bytes(np.ascontiguousarray(queries, dtype=np.float32).tobytes())
        return self._files[key]

    def _pymilvus_rate(self, queries: np.ndarray, parameter: int, seconds: float, passing: Any) -> Rate:
        rows, latencies, began = queries.tolist(), [], time.perf_counter()
        while (asked := time.perf_counter()) < began + seconds:
            vector = rows[len(latencies) % len(rows)]
            self._client.search(COLLECTION, data=[vector], anns_field="vector", limit=K, filter=passing or "", search_params={"params": {"ef": parameter}})
            latencies.append((time.perf_counter() - asked) * 1e3)
        return Rate(len(latencies), time.perf_counter() - began, latencies)

    def latency(self, queries: np.ndarray, parameter: int, seconds: float) -> Rate:
        return self.rate(self.lanes()[0], queries, parameter, seconds)

    def cold_load(self, query: np.ndarray) -> float:
        """Seconds from a restarted server's load of the collection to its first answer."""
        self._client.release_collection(COLLECTION)
        self._server.__exit__()
        self._server.__enter__()
        self._client = MilvusClient(self._server.uri, db_name=DATABASE, dedicated=True)
        began = time.perf_counter()
        self._client.load_collection(COLLECTION)
        self._client.search(COLLECTION, data=[query.tolist()], anns_field="vector", limit=K)
        return time.perf_counter() - began

    def timed_ingest(self) -> float:
        """Rows a second into a collection of its own, which is dropped again."""
        name = f"ingest{time.monotonic_ns()}"
        self.create(name)
        seconds = self.insert(name)["seconds"]
        self._client.drop_collection(name)
        return len(self._data.column(COLUMNS[0])) / seconds

    def _key_server_log(self) -> list[str]:
        return (self._server.directory / "kms/cloudtrail.jsonl").read_text().splitlines()

    def report(self) -> dict:
        """Calls of the key service since the first row came, by what they were for."""
        calls: collections.Counter[str] = collections.Counter(json.loads(line)["eventName"] for line in self._key_server_log()[self._log_lines :])
        seconds = time.monotonic() - self._log_began
        return {"key_service": {"calls": dict(calls), "seconds": seconds, "probes_expected": seconds * PROBES_A_SECOND}}

    def processes(self) -> list[int]:
        return [self._server.process_id]

    def disk_folder(self) -> Path:
        return self._server.directory / "data"

    def version(self) -> str:
        return subprocess.run([self._binary, "--version"], capture_output=True, text=True).stdout.strip().removeprefix("saker ")

    def stop(self) -> None:
        self._server.__exit__()


ENGINE = Saker
