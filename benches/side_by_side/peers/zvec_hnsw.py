"""zvec in process: HNSW over f32, or over 8-bit vectors with its refiner."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import zvec

from side_by_side.data import COLUMNS, K, Data
from side_by_side.peers.engine import Engine

ROWS_A_CALL = 1_000


class Zvec(Engine):
    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name)
        self._quantized = kind == "int8"
        self.about = "HNSW, m=16, ef_construction=128, inner product, contiguous memory, read-only, internal ids; inverted index on the filtered column"
        if self._quantized:
            self.about = f"INT8 with refiner (exact distances at the end); otherwise as f32"

    def prepare(self, data: Data, scratch: Path) -> None:
        zvec.init(log_level=zvec.LogLevel.ERROR, query_threads=2, optimize_threads=2)
        vectors = data.vectors
        self._path = scratch / "zvec"
        fields = [zvec.FieldSchema(name, zvec.DataType.INT32, index_param=zvec.InvertIndexParam(enable_range_optimization=True)) for name in COLUMNS]
        self._index = zvec.HnswIndexParam(
            metric_type=zvec.MetricType.IP, m=16, ef_construction=128, use_contiguous_memory=True,
            quantize_type=zvec.QuantizeType.INT8 if self._quantized else zvec.QuantizeType.UNDEFINED,
        )
        vector = zvec.VectorSchema("vector", zvec.DataType.VECTOR_FP32, vectors.shape[1], index_param=self._index)
        schema = zvec.CollectionSchema("bench", fields=fields, vectors=vector)
        self._collection = zvec.create_and_open(str(self._path), schema, zvec.CollectionOption(read_only=False, enable_mmap=True))
        columns = {name: data.column(name).tolist() for name in COLUMNS}
        self._documents = [
            zvec.Doc(id=str(row), vectors={"vector": vector}, fields={name: columns[name][row] for name in COLUMNS}) for row, vector in enumerate(vectors)
        ]

    def ingest(self) -> None:
        documents_of_all, self._documents = self._documents, []
        for start in range(0, len(documents_of_all), ROWS_A_CALL):
            documents = documents_of_all[start : start + ROWS_A_CALL]
            failed = [status for status in self._collection.insert(documents) if not status.ok()]
            if failed:
                raise RuntimeError(f"{len(failed)} rows were refused: {failed[0]}")
        self._collection.flush()

    def index(self) -> None:
        self._collection.optimize(zvec.OptimizeOption(concurrency=2))
        self._collection.flush()

    def settle(self) -> None:
        self._collection.close()
        self._collection = zvec.open(str(self._path), zvec.CollectionOption(read_only=True, enable_mmap=True))
        rows = int(self._collection.stats.doc_count)
        # Its internal ids need not be the rows' numbers.
        self._rows = np.full(rows, -1, dtype=np.int64)
        for start in range(0, rows, 10_000):
            internal = np.arange(start, min(start + 10_000, rows))
            self._rows[internal] = [int(key) for key in self._collection.resolve_internal_ids(internal)]

    def passing(self, column: str, permille: int) -> Any:
        return f"{column} < {permille}"

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        how = zvec.HnswQueryParam(ef=parameter, is_using_refiner=self._quantized)
        ids = self._collection.query_internal_ids(zvec.Query("vector", vector=query, param=how), topk=K, filter=passing)
        return self._rows[ids[ids >= 0]]

    def disk_folder(self) -> Path:
        return self._path

    def version(self) -> str:
        return metadata.version("zvec")


ENGINE = Zvec
