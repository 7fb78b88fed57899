"""Sparse vectors through a client: dicts, pairs, matrices; answers are those of going through all rows."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import eventually
from pymilvus import DataType, MilvusException
from scipy.sparse import csr_matrix

TERMS = 2_000


def vectors(random: np.random.Generator, rows: int) -> list[dict[int, float]]:
    """A few of many terms each, low numbers far more often."""
    made = []
    for _ in range(rows):
        terms = np.unique((random.random(random.integers(1, 20)) ** 3 * TERMS).astype(int))
        made.append({int(term): float(np.float32(value)) for term, value in zip(terms, random.random(len(terms)) + 0.1)})
    return made


def best(query: dict, rows: list[dict], limit: int, may=lambda key: True) -> list[tuple[int, float]]:
    scored = []
    for key, row in enumerate(rows):
        shared = query.keys() & row.keys()
        if shared and may(key):
            scored.append((key, sum(query[term] * row[term] for term in shared)))
    return sorted(scored, key=lambda hit: (-hit[1], hit[0]))[:limit]


def agree(hits, expected: list[tuple[int, float]]) -> None:
    assert [hit["distance"] for hit in hits] == pytest.approx([score for _, score in expected], rel=1e-5)
    assert {hit["id"] for hit in hits[:-1]} <= {key for key, _ in expected}


def sparse_collection(client, name: str, **index) -> None:
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("group", DataType.INT64)
    schema.add_field("weights", DataType.SPARSE_FLOAT_VECTOR)
    params = client.prepare_index_params()
    params.add_index("weights", **{"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP", **index})
    client.create_collection(name, schema=schema, index_params=params, consistency_level="Strong")


def rows_of(made: list[dict], first: int = 0) -> list[dict]:
    return [{"id": first + key, "group": key % 5, "weights": row} for key, row in enumerate(made)]


@pytest.mark.parametrize("algorithm", ["DAAT_MAXSCORE", "DAAT_WAND", "TAAT_NAIVE"])
def test_answers_are_exact_before_and_after_a_restart(own_saker, algorithm):
    client = own_saker.client()
    random = np.random.default_rng(3)
    made = vectors(random, 6_000)
    sparse_collection(client, "words", params={"inverted_index_algo": algorithm})
    client.insert("words", rows_of(made[:5_000]))
    client.flush("words")
    client.insert("words", rows_of(made[5_000:], 5_000))
    client.delete("words", ids=[17])
    queries = vectors(random, 12)

    def check(client) -> None:
        found = client.search("words", queries, anns_field="weights", limit=10, search_params={"metric_type": "IP"})
        for hits, query in zip(found, queries):
            agree(hits, best(query, made, 10, lambda key: key != 17))
        found = client.search("words", queries[:3], filter="group == 2", limit=10, output_fields=["weights"])
        for hits, query in zip(found, queries):
            agree(hits, best(query, made, 10, lambda key: key % 5 == 2 and key != 17))
            for hit in hits:
                assert hit["entity"]["weights"] == pytest.approx(made[hit["id"]])

    check(client)
    eventually(lambda: client.describe_index("words", "weights")["pending_index_rows"] == 0)
    check(client)
    client.flush("words")
    check(client)
    client.close()
    assert own_saker.stop() == 0
    own_saker.start()
    client = own_saker.client()
    eventually(lambda: str(client.get_load_state("words")["state"]) == "Loaded")
    check(client)
    got = client.get("words", ids=[5, 5_999])
    assert [entity["weights"] for entity in got] == [pytest.approx(made[5]), pytest.approx(made[5_999])]
    client.close()


def test_vectors_may_be_written_in_every_way(client, name):
    sparse_collection(client, name)
    client.insert(name, [{"id": 0, "group": 0, "weights": {9: 1.0, 3: 2.0}}])
    client.insert(name, [{"id": 1, "group": 0, "weights": [(3, 1.0), (100, 0.5)]}])
    client.insert(name, [{"id": 2, "group": 0, "weights": csr_matrix(([4.0], ([0], [3])), shape=(1, 50))}])
    client.insert(name, [{"id": 3, "group": 0, "weights": {}}])
    for query in [{3: 1.0}, [(3, 1.0)], csr_matrix(([1.0], ([0], [3])), shape=(1, 5))]:
        found = client.search(name, [query], anns_field="weights", limit=5)
        assert [(hit["id"], hit["distance"]) for hit in found[0]] == [(2, 4.0), (0, 2.0), (1, 1.0)]
    found = client.search(name, [{7: 1.0}], anns_field="weights", limit=5)
    assert len(found[0]) == 0
    kept = client.query(name, filter="id == 3", output_fields=["weights"])
    assert kept[0]["weights"] == {}


def test_a_part_of_the_values_finds_nearly_the_same(client, name):
    random = np.random.default_rng(5)
    made = vectors(random, 2_000)
    sparse_collection(client, name, index_type="SPARSE_WAND", params={"drop_ratio_build": 0.1})
    client.insert(name, rows_of(made))
    found = total = 0
    for query in vectors(random, 20):
        hits = client.search(name, [query], limit=10, search_params={"params": {"drop_ratio_search": 0.3}})[0]
        expected = best(query, made, 10)
        found += len({hit["id"] for hit in hits} & {key for key, _ in expected})
        total += len(expected)
        scores = dict(best(query, made, len(made)))
        assert all(hit["distance"] == pytest.approx(scores[hit["id"]], rel=1e-5) for hit in hits)
    assert found >= 0.8 * total


def test_mistakes_are_told(client, name):
    sparse_collection(client, name)
    with pytest.raises(Exception, match="must be positive and less than"):
        client.insert(name, [{"id": 0, "group": 0, "weights": {-1: 1.0}}])
    with pytest.raises(MilvusException, match="infinite value in sparse float vector"):
        client.insert(name, [{"id": 0, "group": 0, "weights": {1: float("inf")}}])
    with pytest.raises(MilvusException, match="vector type must be the same"):
        client.search(name, ["some words"], anns_field="weights", limit=3)
    with pytest.raises(MilvusException, match="metric type not match"):
        client.search(name, [{1: 1.0}], anns_field="weights", limit=3, search_params={"metric_type": "L2"})
    for wrong, said in [
        ({"metric_type": "L2"}, "only IP&BM25 is the supported metric type for sparse index"),
        ({"metric_type": "BM25"}, "only BM25 Function output field support BM25"),
        ({"index_type": "HNSW"}, "can't build with this index HNSW"),
        ({"params": {"drop_ratio_build": 1.5}}, "drop_ratio_build"),
        ({"params": {"inverted_index_algo": "X"}}, "sparse inverted index algo X not found"),
    ]:
        with pytest.raises(MilvusException, match=said):
            sparse_collection(client, f"{name}_wrong", **wrong)
        if client.has_collection(f"{name}_wrong"):
            client.drop_collection(f"{name}_wrong")
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("weights", DataType.SPARSE_FLOAT_VECTOR, dim=8)
    with pytest.raises(MilvusException, match="dim should not be specified for sparse vector field"):
        client.create_collection(f"{name}_wrong", schema=schema)
