"""Qdrant Edge in process: HNSW over f32, or over 8-bit scalar codes with exact distances at the end."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from side_by_side.data import COLUMNS, K, Data
from side_by_side.peers.engine import Engine

ROWS_A_CALL = 1_000


class QdrantEdge(Engine):
    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name)
        self._quantized = kind == "int8"
        self.about = "HNSW, m=16, ef_construct=128, dot product, one segment, everything in memory; integer payload index for the filter"
        if self._quantized:
            self.about = "scalar quantization int8 in memory, rescored; otherwise as f32"

    def prepare(self, data: Data, scratch: Path) -> None:
        vectors = data.vectors
        self._path = scratch / "qdrant"
        self._path.mkdir()
        hnsw = qdrant.HnswIndexConfig(m=16, ef_construct=128, full_scan_threshold=10, max_indexing_threads=2)
        quantization = qdrant.ScalarQuantizationConfig(type=qdrant.ScalarType.Int8, memory=qdrant.Memory.Pinned) if self._quantized else None
        config = qdrant.EdgeConfig(
            vectors=qdrant.EdgeVectorParams(size=vectors.shape[1], distance=qdrant.Distance.Dot),
            hnsw_config=hnsw,
            quantization_config=quantization,
            optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=10, max_segment_size=10_000_000),
            max_search_threads=2,
        )
        self._shard = qdrant.EdgeShard.create(str(self._path), config)
        for name in COLUMNS:
            self._shard.update(qdrant.UpdateOperation.create_field_index(name, qdrant.PayloadSchemaType.Integer))
        columns = {name: data.column(name).tolist() for name in COLUMNS}
        self._points = [qdrant.Point(row, vector.tolist(), {name: columns[name][row] for name in COLUMNS}) for row, vector in enumerate(vectors)]

    def ingest(self) -> None:
        points, self._points = self._points, []
        for start in range(0, len(points), ROWS_A_CALL):
            self._shard.update(qdrant.UpdateOperation.upsert_points(points[start : start + ROWS_A_CALL]))
        self._shard.flush()

    def index(self) -> None:
        while self._shard.optimize():
            pass
        self._shard.flush()

    def passing(self, column: str, permille: int) -> Any:
        return qdrant.Filter(must=[qdrant.FieldCondition(column, range=qdrant.RangeFloat(lt=float(permille)))])

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        quantization = qdrant.QuantizationSearchParams(rescore=True) if self._quantized else None
        found = self._shard.search(
            qdrant.SearchRequest(
                query=qdrant.Query.Nearest(query.tolist()), limit=K, filter=passing,
                params=qdrant.SearchParams(hnsw_ef=parameter, quantization=quantization), with_payload=False, with_vector=False,
            )
        )
        return [point.id for point in found]

    def disk_folder(self) -> Path:
        return self._path

    def version(self) -> str:
        return metadata.version("qdrant-edge-py")


ENGINE = QdrantEdge
