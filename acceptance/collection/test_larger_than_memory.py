"""Vectors that stay on disk, through a client: the names that users of Milvus give, and answers as in memory."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Saker, eventually
from pymilvus import DataType, MilvusClient, MilvusException

DIM, ROWS = 32, 6_000


def make(client: MilvusClient, name: str, index_type: str, **params: object) -> None:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    index = client.prepare_index_params()
    index.add_index("vector", index_type=index_type, metric_type="COSINE", params=params)
    client.create_collection(name, schema=schema, index_params=index)


def insert(client: MilvusClient, name: str, rows: np.ndarray) -> None:
    for first in range(0, ROWS, 2_000):
        batch = [{"id": first + at, "vector": row} for at, row in enumerate(rows[first : first + 2_000].tolist())]
        client.insert(name, batch)
    client.flush(name)
    eventually(lambda: client.describe_index(name, "vector")["pending_index_rows"] == 0, seconds=120)


def recall(client: MilvusClient, name: str, rows: np.ndarray, **options: object) -> float:
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = 0
    for query in range(0, ROWS, ROWS // 40):
        scores = unit @ unit[query]
        nearest = set(np.argsort(-scores, kind="stable")[:10].tolist())
        hits = client.search(name, [rows[query].tolist()], limit=10, output_fields=["vector"], **options)[0]
        found += len(nearest & {hit["id"] for hit in hits})
        for hit in hits:
            assert hit["distance"] == pytest.approx(float(scores[hit["id"]]), abs=1e-4)
            assert hit["entity"]["vector"] == rows[hit["id"]].tolist()
    return found / 400


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    random = np.random.default_rng(11)
    centers = random.normal(size=(40, DIM))
    return (centers[random.integers(0, 40, ROWS)] + 0.6 * random.normal(size=(ROWS, DIM))).astype("<f4")


def test_diskann_over_a_restart(own_saker: Saker, rows: np.ndarray) -> None:
    client = own_saker.client()
    make(client, "c", "DISKANN")
    insert(client, "c", rows)
    assert client.describe_index("c", "vector")["index_type"] == "DISKANN"
    assert recall(client, "c", rows, search_params={"params": {"search_list": 60}}) >= 0.95
    assert own_saker.stop() == 0
    own_saker.start()
    client = own_saker.client()
    eventually(lambda: client.get_load_state("c")["state"].name == "Loaded")
    assert recall(client, "c", rows, search_params={"params": {"search_list": 60}}) >= 0.95


def test_mmap_enabled_on_collection_index_and_field(client: MilvusClient, name: str, rows: np.ndarray) -> None:
    make(client, name, "HNSW", M=16, efConstruction=100)
    insert(client, name, rows)
    with pytest.raises(MilvusException, match="can not alter mmap properties if collection loaded"):
        client.alter_collection_properties(name, {"mmap.enabled": True})
    client.release_collection(name)
    client.alter_collection_properties(name, {"mmap.enabled": True})
    assert client.describe_collection(name)["properties"]["mmap.enabled"] == "True"
    changes = [
        lambda: None,
        lambda: client.alter_index_properties(name, "vector", {"mmap.enabled": False}),
        lambda: client.drop_index_properties(name, "vector", ["mmap.enabled"]),
        lambda: client.alter_collection_field(name, "vector", {"mmap.enabled": False}),
    ]
    for change in changes:
        change()
        client.load_collection(name)
        eventually(lambda: client.describe_index(name, "vector")["pending_index_rows"] == 0, seconds=120)
        assert recall(client, name, rows) >= 0.95
        client.release_collection(name)
    with pytest.raises(MilvusException, match="expected: true, false"):
        client.alter_index_properties(name, "vector", {"mmap.enabled": "sometimes"})
    client.drop_collection(name)
