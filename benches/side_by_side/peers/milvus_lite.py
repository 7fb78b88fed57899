"""Milvus Lite, the server that pymilvus starts for a local file: HNSW, M = 16, efConstruction = 128."""

from __future__ import annotations

import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from side_by_side.data import COLUMNS, K, Data
from side_by_side.peers.engine import Engine, Lane

ROWS_A_CALL = 5_000


class MilvusLite(Engine):
    about = "MilvusClient on a local file, HNSW, M=16, efConstruction=128, inner product, ids only; filter: expression"
    sweep = (10, 16, 32, 64, 128, 256, 512, 1024)

    def prepare(self, data: Data, scratch: Path) -> None:
        vectors = data.vectors
        self._path = scratch / "milvus"
        self._path.mkdir()
        self._client = MilvusClient(str(self._path / "bench.db"))
        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        for name in COLUMNS:
            schema.add_field(name, DataType.INT32)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        self._client.create_collection("bench", schema=schema)
        columns = {name: data.column(name).tolist() for name in COLUMNS}
        self._rows = [{"id": row, "vector": vector, **{name: columns[name][row] for name in COLUMNS}} for row, vector in enumerate(vectors)]

    def ingest(self) -> None:
        rows, self._rows = self._rows, []
        for start in range(0, len(rows), ROWS_A_CALL):
            self._client.insert("bench", rows[start : start + ROWS_A_CALL])

    def index(self) -> None:
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 128})
        self._client.create_index("bench", index)
        self._client.flush("bench")
        self._client.load_collection("bench")
        time.sleep(0.5)

    def passing(self, column: str, permille: int) -> Any:
        return f"{column} < {permille}"

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        found = self._client.search(
            "bench", data=[query.tolist()], anns_field="vector", limit=K, filter=passing or "", search_params={"metric_type": "IP", "params": {"ef": parameter}}
        )
        return [hit["id"] for hit in found[0]]

    def lanes(self) -> list[Lane]:
        return [Lane("1 thread", 1), Lane("2 threads", 2)]

    def processes(self) -> list[int]:
        return []

    def disk_folder(self) -> Path:
        return self._path

    def version(self) -> str:
        return metadata.version("milvus-lite")


ENGINE = MilvusLite
