"""CyborgDB in process: encrypted, its only index (DISK_IVF), everything cached in memory."""

from __future__ import annotations

import secrets
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import cyborgdb_core
import numpy as np

from side_by_side.data import COLUMNS, K, Data
from side_by_side.peers.engine import Engine

ROWS_A_CALL = 5_000


class CyborgDb(Engine):
    about = "encrypted; DISK_IVF on disk with every cache on, as many lists as the root of the rows, cosine, query_numpy (its fast path); filter: metadata `$lt`"
    parameter = "n_probes"
    sweep = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 340)

    def prepare(self, data: Data, scratch: Path) -> None:
        vectors = data.vectors
        self._path = scratch / "cyborgdb"
        caches = {"cache_vectors": True, "cache_metadata": True, "cache_ids": True, "cache_metadata_index": True}
        client = cyborgdb_core.Client(storage_config=cyborgdb_core.StorageConfig.disk(str(self._path), **caches))
        self._key = secrets.token_bytes(32)
        self._index = client.create_index("bench", self._key, metric="cosine", dimension=vectors.shape[1])
        columns = {name: data.column(name).tolist() for name in COLUMNS}
        self._rows = len(vectors)
        self._items = [{"id": str(row), "vector": vector, "metadata": {name: columns[name][row] for name in COLUMNS}} for row, vector in enumerate(vectors)]

    def ingest(self) -> None:
        items, self._items = self._items, []
        for start in range(0, len(items), ROWS_A_CALL):
            self._index.upsert(items[start : start + ROWS_A_CALL], index_key=self._key)

    def index(self) -> None:
        lists = max(8, int(self._rows**0.5))
        self._index.train(n_lists=lists, index_key=self._key)
        time.sleep(0.2)
        while self._index.is_training():
            time.sleep(0.1)

    def passing(self, column: str, permille: int) -> Any:
        return {column: {"$lt": permille}}

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        if passing is None:
            return self._index.query_numpy(query, top_k=K, n_probes=parameter, index_key=self._key)
        found = self._index.query(query, top_k=K, n_probes=parameter, filters=passing, index_key=self._key)
        return [int(hit["id"]) for hit in found]

    def disk_folder(self) -> Path:
        return self._path

    def version(self) -> str:
        return metadata.version("cyborgdb-core")


ENGINE = CyborgDb
