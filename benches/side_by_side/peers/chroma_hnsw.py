"""Chroma in process, kept on disk: HNSW, M = 16, ef_construction = 128."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chromadb
import numpy as np

from side_by_side.data import COLUMNS, K, Data
from side_by_side.peers.engine import Engine

ROWS_A_CALL = 5_000


class Chroma(Engine):
    about = "PersistentClient, HNSW, max_neighbors=16, ef_construction=128, inner product, ids only; filter: metadata `$lt`"

    def prepare(self, data: Data, scratch: Path) -> None:
        vectors = data.vectors
        self._vectors = vectors
        self._path = scratch / "chroma"
        self._client = chromadb.PersistentClient(str(self._path), settings=chromadb.Settings(anonymized_telemetry=False))
        how = {"space": "ip", "max_neighbors": 16, "ef_construction": 128, "ef_search": 64, "num_threads": 2, "sync_threshold": len(vectors)}
        self._collection = self._client.create_collection("bench", configuration={"hnsw": how}, embedding_function=None)
        self._ef = 64
        columns = {name: data.column(name).tolist() for name in COLUMNS}
        self._metadatas = [{name: columns[name][row] for name in COLUMNS} for row in range(len(vectors))]

    def ingest(self) -> None:
        vectors = self._vectors
        rows_a_call = min(ROWS_A_CALL, self._client.get_max_batch_size())
        for start in range(0, len(vectors), rows_a_call):
            end = min(start + rows_a_call, len(vectors))
            self._collection.add(ids=[str(row) for row in range(start, end)], embeddings=vectors[start:end], metadatas=self._metadatas[start:end])

    def index(self) -> None:
        # The index grows with the rows; the first search takes in what is left.
        self._collection.query(query_embeddings=self._vectors[:1], n_results=1)
        del self._vectors, self._metadatas

    def passing(self, column: str, permille: int) -> Any:
        return {column: {"$lt": permille}}

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        if parameter != self._ef:
            self._collection.modify(configuration={"hnsw": {"ef_search": parameter}})
            self._ef = parameter
        found = self._collection.query(query_embeddings=query[None, :], n_results=K, where=passing, include=[])
        return [int(key) for key in found["ids"][0]]

    def disk_folder(self) -> Path:
        return self._path

    def version(self) -> str:
        return chromadb.__version__


ENGINE = Chroma
