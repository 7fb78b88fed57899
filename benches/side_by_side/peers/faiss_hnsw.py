"""faiss-cpu's HNSW in process: M = 16, efConstruction = 128, inner product of normalised vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from side_by_side.data import K, Data
from side_by_side.peers.engine import BatchEngine


class Faiss(BatchEngine):
    about = "IndexHNSWFlat, M=16, efConstruction=128, inner product, many queries a call; filter: bitmap made beforehand (IDSelectorBitmap)"

    def prepare(self, data: Data, scratch: Path) -> None:
        self._data = data

    def index(self) -> None:
        vectors = self._data.vectors
        faiss.omp_set_num_threads(2)
        self._index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = 128
        self._index.add(vectors)
        self._bitmaps: list[np.ndarray] = []

    def batch(self, queries: np.ndarray, parameter: int, threads: int) -> np.ndarray:
        faiss.omp_set_num_threads(threads)
        self._index.hnsw.efSearch = parameter
        return self._index.search(queries, K)[1]

    def passing(self, column: str, permille: int) -> Any:
        bits = np.packbits(self._data.column(column) < permille, bitorder="little")
        # The selector points into the array.
        self._bitmaps.append(bits)
        return faiss.IDSelectorBitmap(bits)

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        faiss.omp_set_num_threads(1)
        more = {} if passing is None else {"sel": passing}
        return self._index.search(query[None, :], K, params=faiss.SearchParametersHNSW(efSearch=parameter, **more))[1][0]

    def version(self) -> str:
        return faiss.__version__


ENGINE = Faiss
