"""hnswlib in process: M = 16, ef_construction = 128, inner product of normalised vectors, one call for many queries."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from side_by_side.data import K, Data
from side_by_side.peers.engine import BatchEngine


class Hnswlib(BatchEngine):
    about = "M=16, ef_construction=128, inner product, compiled for this processor, many queries a call; filter: Python function a row, one query a call"

    def prepare(self, data: Data, scratch: Path) -> None:
        self._data = data

    def index(self) -> None:
        vectors = self._data.vectors
        self._index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self._index.init_index(max_elements=len(vectors), M=16, ef_construction=128)
        self._index.add_items(vectors, num_threads=2)

    def batch(self, queries: np.ndarray, parameter: int, threads: int) -> np.ndarray:
        self._index.set_ef(parameter)
        return self._index.knn_query(queries, k=K, num_threads=threads)[0].astype(np.int64)

    def passing(self, column: str, permille: int) -> Any:
        allowed = set(np.flatnonzero(self._data.column(column) < permille).tolist())
        return allowed.__contains__

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        self._index.set_ef(parameter)
        if passing is None:
            return self._index.knn_query(query, k=K, num_threads=1)[0][0]
        try:
            return self._index.knn_query(query, k=K, num_threads=1, filter=passing)[0][0]
        except RuntimeError:
            # Fewer than K were found, and it returns nothing then.
            return []

    def version(self) -> str:
        return metadata.version("hnswlib")


ENGINE = Hnswlib
