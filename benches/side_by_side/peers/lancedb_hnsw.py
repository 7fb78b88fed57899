"""LanceDB in process: IVF_HNSW_SQ in one partition, exact distances for a multiple of what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow

from side_by_side.data import COLUMNS, K, Data
from side_by_side.peers.engine import Engine


class Lance(Engine):
    about = "IVF_HNSW_SQ, 1 partition, m=16, ef_construction=128, dot product, refine_factor 3, row numbers only; BTREE on the filtered column, prefilter"
    sweep = (30, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

    def prepare(self, data: Data, scratch: Path) -> None:
        vectors = data.vectors
        self._path = scratch / "lance"
        self._path.mkdir()
        columns = {"id": pyarrow.array(np.arange(len(vectors)))}
        columns |= {name: pyarrow.array(data.column(name)) for name in COLUMNS}
        columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1])
        self._columns = columns

    def ingest(self) -> None:
        self._table = lancedb.connect(str(self._path)).create_table("bench", pyarrow.table(self._columns))
        del self._columns

    def index(self) -> None:
        from lancedb.index import HnswSq

        try:
            self._table.create_index(vector_column_name="vector", metric="dot", num_partitions=1, index_type="IVF_HNSW_SQ", m=16, ef_construction=128)
        except TypeError:
            self._table.create_index("vector", config=HnswSq(distance_type="dot", num_partitions=1, m=16, ef_construction=128))
        for name in COLUMNS:
            self._table.create_scalar_index(name)

    def passing(self, column: str, permille: int) -> Any:
        return f"{column} < {permille}"

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        search = self._table.search(query, vector_column_name="vector").limit(K).nprobes(1).ef(parameter).refine_factor(3).select(["id"])
        if passing is not None:
            search = search.where(passing, prefilter=True)
        return search.to_arrow()["id"].to_pylist()

    def disk_folder(self) -> Path:
        return self._path

    def version(self) -> str:
        return lancedb.__version__


ENGINE = Lance
