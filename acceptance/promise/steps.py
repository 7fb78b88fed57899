"""Steps that several of these tests take: keys, databases under them, rows with known answers, the switch."""

from __future__ import annotations

import time

import numpy as np
from conftest import eventually
from pymilvus import DataType, MilvusClient, MilvusException

REFUSAL = "access has been disabled by the administrator: kms key revoked or disabled"
DIM = 16


def new_key(saker) -> str:
    return saker.kms().create_key()["KeyMetadata"]["Arn"]


def connect(saker, **options) -> MilvusClient:
    """gRPC in this process may still hold back from an address at which nothing answered a moment ago."""
    until = time.monotonic() + 30
    while True:
        try:
            return saker.client(**options)
        except MilvusException:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def sealed_database(saker, name: str, arn: str) -> MilvusClient:
    """Makes a database under this key, and gives a client that uses it."""
    client = connect(saker)
    client.create_database(name, properties={"cipher.enabled": "true", "cipher.key": arn})
    client.use_database(name)
    return client


class Library:
    """A collection of random vectors whose right answers are known by brute force: `flushed` rows in sealed files, the
    others in the log only."""

    QUERIES = 5

    def __init__(self, client: MilvusClient, name: str = "books", rows: int = 300, flushed: int = 250, seed: int = 1) -> None:
        self.name, self.rows = name, rows
        self.vectors = np.random.default_rng(seed).standard_normal((rows, DIM)).astype("<f4")
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("text", DataType.VARCHAR, max_length=64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="L2", params={"M": 16, "efConstruction": 200})
        client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
        client.insert(name, [self.row(key) for key in range(flushed)])
        client.flush(name)
        if flushed < rows:
            client.insert(name, [self.row(key) for key in range(flushed, rows)])

    def row(self, key: int) -> dict:
        return {"id": key, "text": f"{self.name} {key}", "vector": self.vectors[key].tolist()}

    def check(self, client: MilvusClient, rows: int | None = None) -> None:
        """Every answer is right, or this raises."""
        queries = self.vectors[: self.QUERIES] + np.float32(0.01)
        found = client.search(
            self.name, queries.tolist(), limit=5, output_fields=["text"], search_params={"params": {"ef": 200}}
        )
        for query, hits in zip(queries, found, strict=True):
            best = np.argsort(((self.vectors - query) ** 2).sum(axis=1))[:5].tolist()
            assert [hit["id"] for hit in hits] == best
            assert [hit["entity"]["text"] for hit in hits] == [f"{self.name} {key}" for key in best]
        assert count(client, self.name) == (self.rows if rows is None else rows)

    def refusal(self, client: MilvusClient) -> MilvusException | None:
        """Why a search is not answered; `None` if it is."""
        try:
            client.search(self.name, [self.vectors[0].tolist()], limit=1)
        except MilvusException as error:
            return error
        return None


def count(client: MilvusClient, collection: str) -> int:
    return client.query(collection, filter="", output_fields=["count(*)"])[0]["count(*)"]


def wait_until_dark(library: Library, client: MilvusClient, seconds: float = 10) -> MilvusException:
    """The first refusal, which must come in time and for the right reason."""
    error = eventually(lambda: library.refusal(client), seconds=seconds)
    assert error.code == 9 and REFUSAL in error.message, str(error)
    return error


def wait_until_back(library: Library, client: MilvusClient, seconds: float = 20) -> None:
    """Until the database answers by itself: the probe's interval, and loading again."""
    eventually(lambda: library.refusal(client) is None, seconds=seconds)
