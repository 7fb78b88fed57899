"""usearch in process, with f32 vectors, or with 8-bit ones and exact distances for the nearest of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import usearch
from usearch.index import Index

from side_by_side.data import K, Data
from side_by_side.peers.engine import BatchEngine

RERANKED = 30


class Usearch(BatchEngine):
    filters = False

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name)
        self._kind = kind
        self.about = "M=16, expansion_add=128, inner product, many queries a call; its Python interface has no filter"
        if kind == "i8":
            self.about = f"8-bit vectors, cosine, exact distances for the nearest {RERANKED} of them; otherwise as f32"

    def prepare(self, data: Data, scratch: Path) -> None:
        self._data = data

    def index(self) -> None:
        vectors = self._data.vectors
        metric = "ip" if self._kind == "f32" else "cos"
        self._index = Index(ndim=vectors.shape[1], metric=metric, dtype=self._kind, connectivity=16, expansion_add=128)
        self._index.add(np.arange(len(vectors)), vectors, threads=2)
        self._exact = vectors if self._kind == "i8" else None

    def batch(self, queries: np.ndarray, parameter: int, threads: int) -> np.ndarray:
        self._index.expansion_search = parameter
        if self._exact is None:
            # A single query gives one row of keys, many give a table.
            return np.asarray(self._index.search(queries, K, threads=threads).keys, dtype=np.int64).reshape(len(queries), -1)
        if threads == 1 or len(queries) < threads:
            return self._reranked(queries)
        parts = np.array_split(queries, threads)
        found: list[Any] = [None] * len(parts)

        def work(number: int) -> None:
            found[number] = self._reranked(parts[number])

        workers = [threading.Thread(target=work, args=(number,)) for number in range(len(parts))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return np.concatenate(found)

    def _reranked(self, queries: np.ndarray) -> np.ndarray:
        near = np.asarray(self._index.search(queries, RERANKED, threads=1).keys, dtype=np.int64).reshape(len(queries), -1)
        scores = np.einsum("qrd,qd->qr", self._exact[near], queries)
        best = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        return np.take_along_axis(near, best, axis=1)

    def version(self) -> str:
        return usearch.__version__


ENGINE = Usearch
