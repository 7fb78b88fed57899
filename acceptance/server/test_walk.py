"""The life of a collection through pymilvus's MilvusClient."""

from __future__ import annotations

import random

import numpy as np
import pytest
from conftest import eventually, row, simple_collection
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.client.types import LoadState


def test_quick_setup(client: MilvusClient, name: str) -> None:
    client.create_collection(name, dimension=8)
    rows = [{"id": key, "vector": np.random.rand(8).tolist(), "colour": "red", "size": key} for key in range(100)]
    answer = client.insert(name, rows)
    assert answer["insert_count"] == 100 and list(answer["ids"]) == list(range(100))
    hits = client.search(name, data=[rows[7]["vector"]], limit=3, output_fields=["colour", "size"])[0]
    assert hits[0]["id"] == 7 and hits[0]["entity"] == {"colour": "red", "size": 7}
    assert hits[0]["distance"] == pytest.approx(1.0, abs=1e-5)
    assert client.get(name, ids=[3])[0]["size"] == 3
    client.drop_collection(name)
    assert not client.has_collection(name)


def full_schema(client: MilvusClient):
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True, description="all of P0")
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=32)
    schema.add_field("bool", DataType.BOOL)
    schema.add_field("int8", DataType.INT8)
    schema.add_field("int16", DataType.INT16)
    schema.add_field("int32", DataType.INT32)
    schema.add_field("int64", DataType.INT64, nullable=True)
    schema.add_field("float", DataType.FLOAT)
    schema.add_field("double", DataType.DOUBLE, default_value=0.25)
    schema.add_field("text", DataType.VARCHAR, max_length=100, nullable=True)
    schema.add_field("json", DataType.JSON, nullable=True)
    schema.add_field("numbers", DataType.ARRAY, element_type=DataType.INT64, max_capacity=8)
    schema.add_field("words", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=8, max_length=16)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=6)
    return schema


def full_row(number: int) -> dict:
    return {
        "key": f"k{number:04}",
        "bool": number % 2 == 0,
        "int8": number % 100,
        "int16": -number,
        "int32": number * 1000,
        "int64": None if number % 5 == 0 else number * 10**12,
        "float": number / 2,
        "double": number / 8,
        "text": None if number % 3 == 0 else f"text number {number}",
        "json": {"n": number, "deep": {"list": [1, 2, number]}},
        "numbers": [number, number + 1],
        "words": ["even" if number % 2 == 0 else "odd", f"w{number}"],
        "vector": [float(number), 1.0, 0.0, 0.0, 0.0, 0.5],
        "extra": {"a": number},
        "tag": f"t{number % 4}",
    }


@pytest.fixture
def full(client: MilvusClient, name: str):
    index = client.prepare_index_params()
    index.add_index("vector", index_type="HNSW", metric_type="L2", params={"M": 8, "efConstruction": 100})
    index.add_index("text", index_type="INVERTED")
    client.create_collection(name, schema=full_schema(client), index_params=index, consistency_level="Strong")
    client.insert(name, [full_row(number) for number in range(200)])
    yield name
    client.drop_collection(name)


def test_describe(client: MilvusClient, full: str) -> None:
    shown = client.describe_collection(full)
    assert shown["collection_name"] == full and shown["description"] == "all of P0"
    assert shown["enable_dynamic_field"] and shown["consistency_level_name"] == "Strong"
    fields = {field["name"]: field for field in shown["fields"]}
    assert "$meta" not in fields and len(fields) == 13
    assert fields["key"]["is_primary"] and fields["key"]["params"] == {"max_length": 32}
    assert fields["vector"]["params"] == {"dim": 6}
    assert fields["numbers"]["element_type"] == DataType.INT64 and fields["int64"]["nullable"]
    assert full in client.list_collections()
    assert client.get_load_state(full)["state"] == LoadState.Loaded
    assert client.get_load_state("nothing_of_this_name")["state"] == LoadState.NotExist


def test_every_type_comes_back(client: MilvusClient, full: str) -> None:
    for number in (0, 7, 15, 199):
        (found,) = client.query(full, filter=f'key == "k{number:04}"', output_fields=["*"])
        expected = full_row(number)
        assert {**found, "float": expected["float"]} == expected
        assert found["float"] == pytest.approx(expected["float"])
    (partly,) = client.get(full, ids="k0009", output_fields=["tag", "words"])
    assert partly == {"key": "k0009", "tag": "t1", "words": ["odd", "w9"]}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("int32 > 150000", lambda n: n > 150),
        ("int16 <= -198 or int8 == 3", lambda n: -n <= -198 or n % 100 == 3),
        ("bool and int32 < 10000", lambda n: n % 2 == 0 and n < 10),
        ("not bool and int32 < 5000", lambda n: n % 2 == 1 and n < 5),
        ('text like "text number 19%"', lambda n: n % 3 != 0 and str(n).startswith("19")),
        ("int64 is null", lambda n: n % 5 == 0),
        ("text is not null and int32 < 4000", lambda n: n % 3 != 0 and n < 4),
        ('key in ["k0001", "k0100", "nothing"]', lambda n: n in (1, 100)),
        ('json["n"] == 5', lambda n: n == 5),
        ('json["deep"]["list"][2] > 197', lambda n: n > 197),
        ('tag == "t3" and extra["a"] < 8', lambda n: n % 4 == 3 and n < 8),
        ('array_contains(words, "even") and int32 < 6000', lambda n: n % 2 == 0 and n < 6),
        ("numbers[0] == 9", lambda n: n == 9),
        ("array_length(numbers) == 2 and numbers[1] == 9", lambda n: n == 8),
        ("int32 + 1000 == 6000", lambda n: n == 5),
        ("double >= 24.5", lambda n: n / 8 >= 24.5),
        ("10000 < int32 < 13000", lambda n: 10 < n < 13),
    ],
)
def test_filters(client: MilvusClient, full: str, condition: str, expected) -> None:
    found = client.query(full, filter=condition, output_fields=["key"])
    assert [item["key"] for item in found] == [f"k{n:04}" for n in range(200) if expected(n)]


def test_filter_templates(client: MilvusClient, full: str) -> None:
    found = client.query(
        full,
        filter="key in {keys} and int32 > {least}",
        filter_params={"keys": ["k0001", "k0002", "k0003"], "least": 1500},
        output_fields=["key"],
    )
    assert [item["key"] for item in found] == ["k0002", "k0003"]


def test_count_limit_offset(client: MilvusClient, full: str) -> None:
    assert client.query(full, filter="", output_fields=["count(*)"])[0]["count(*)"] == 200
    assert client.query(full, filter="bool", output_fields=["count(*)"])[0]["count(*)"] == 100
    page = client.query(full, filter="", limit=3, offset=10, output_fields=["key"])
    assert [item["key"] for item in page] == ["k0010", "k0011", "k0012"]
    assert client.query(full, filter='key == "nothing"', output_fields=["*"]) == []


def test_search(client: MilvusClient, full: str) -> None:
    first, second = client.search(
        full,
        data=[full_row(50)["vector"], full_row(3)["vector"]],
        filter="int32 != 50000",
        limit=2,
        output_fields=["int64", "tag"],
        search_params={"metric_type": "L2", "params": {"ef": 64}},
    )
    assert [hit["key"] for hit in second] == ["k0003", "k0002"] or [hit["key"] for hit in second] == ["k0003", "k0004"]
    assert {hit["key"] for hit in first} == {"k0049", "k0051"}
    assert first[0]["distance"] == pytest.approx(1.0)
    assert second[0]["entity"] == {"int64": 3 * 10**12, "tag": "t3"}
    everything = client.search(full, data=[full_row(1)["vector"]], limit=1, output_fields=["*"])[0][0]
    assert everything["entity"] == full_row(1)
    paged = client.search(full, data=[full_row(0)["vector"]], limit=3, search_params={"offset": 2})[0]
    assert [hit["key"] for hit in paged] == ["k0002", "k0003", "k0004"]


def test_range_search(client: MilvusClient, full: str) -> None:
    near = client.search(
        full, data=[full_row(10)["vector"]], limit=50, search_params={"params": {"radius": 9.5, "range_filter": 1.0}}
    )[0]
    assert sorted(hit["key"] for hit in near) == ["k0007", "k0008", "k0009", "k0011", "k0012", "k0013"]
    assert all(1.0 <= hit["distance"] < 9.5 for hit in near)


def test_upsert_and_delete(client: MilvusClient, full: str) -> None:
    answer = client.upsert(full, [{**full_row(5), "text": "changed"}, full_row(500)])
    assert answer["upsert_count"] == 2
    assert client.get(full, ids="k0005")[0]["text"] == "changed"
    assert client.query(full, filter="", output_fields=["count(*)"])[0]["count(*)"] == 201
    assert client.delete(full, ids=["k0005", "k0500"])["delete_count"] == 2
    assert client.get(full, ids=["k0005", "k0500"]) == []
    client.delete(full, filter="int32 >= 100000")
    assert client.query(full, filter="", output_fields=["count(*)"])[0]["count(*)"] == 99
    hits = client.search(full, data=[full_row(150)["vector"]], limit=1)[0]
    assert hits[0]["key"] == "k0099"


def test_auto_id(client: MilvusClient, name: str) -> None:
    client.create_collection(name, dimension=4, auto_id=True)
    answer = client.insert(name, [{"vector": [1.0, 0, 0, 0]}, {"vector": [0, 1.0, 0, 0]}])
    first, second = answer["ids"]
    assert first != second
    assert client.search(name, data=[[0, 1.0, 0, 0]], limit=1)[0][0]["id"] == second
    client.drop_collection(name)


def test_flush_release_load(client: MilvusClient, name: str) -> None:
    simple_collection(client, name, rows=300)
    client.flush(name)
    assert client.get_collection_stats(name)["row_count"] == 300
    client.insert(name, [row(key) for key in range(300, 320)])
    assert client.search(name, data=[row(310)["vector"]], limit=1)[0][0]["id"] == 310
    client.release_collection(name)
    assert client.get_load_state(name)["state"] == LoadState.NotLoad
    with pytest.raises(MilvusException, match="not loaded") as refused:
        client.search(name, data=[row(1)["vector"]], limit=1)
    assert refused.value.code == 101
    client.load_collection(name)
    assert client.search(name, data=[row(310)["vector"]], limit=1)[0][0]["id"] == 310
    assert client.query(name, filter="", output_fields=["count(*)"])[0]["count(*)"] == 320
    client.drop_collection(name)


def test_indexes(client: MilvusClient, name: str) -> None:
    simple_collection(client, name, metric="COSINE")
    assert client.list_indexes(name) == ["vector"]
    shown = client.describe_index(name, "vector")
    assert (shown["index_type"], shown["metric_type"], shown["field_name"]) == ("HNSW", "COSINE", "vector")
    assert shown["state"] == "Finished"
    assert client.describe_index(name, "nothing") is None
    client.release_collection(name)
    client.drop_index(name, "vector")
    assert client.list_indexes(name) == []
    for kind, metric in [("FLAT", "IP"), ("IVF_FLAT", "L2"), ("AUTOINDEX", "COSINE"), ("DISKANN", "L2")]:
        index = client.prepare_index_params()
        index.add_index("vector", index_type=kind, metric_type=metric, params={"nlist": 8} if "IVF" in kind else {})
        client.create_index(name, index)
        assert client.describe_index(name, "vector")["index_type"] == kind
        client.drop_index(name, "vector")
    client.drop_collection(name)


def test_query_iterator(client: MilvusClient, name: str) -> None:
    simple_collection(client, name, rows=250)
    client.flush(name)
    client.insert(name, [row(key) for key in range(250, 400)])
    rows = client.query_iterator(name, batch_size=70, filter="id % 2 == 0", output_fields=["id", "text"])
    seen = []
    while batch := rows.next():
        assert len(batch) <= 70
        seen += [item["id"] for item in batch]
    rows.close()
    assert seen == list(range(0, 400, 2))


def test_search_iterator(client: MilvusClient, name: str) -> None:
    simple_collection(client, name, rows=500)
    client.flush(name)
    for limit in (-1, 333):
        hits = client.search_iterator(name, data=[row(0)["vector"]], batch_size=60, limit=limit, output_fields=["id"])
        seen: list[int] = []
        while batch := hits.next():
            seen += [hit["id"] for hit in batch]
        hits.close()
        assert seen == list(range(500 if limit == -1 else limit))


def test_partitions_and_aliases(client: MilvusClient, name: str) -> None:
    simple_collection(client, name)
    client.create_partition(name, "north")
    assert sorted(client.list_partitions(name)) == ["_default", "north"] and client.has_partition(name, "north")
    client.insert(name, [row(1)])
    client.insert(name, [row(2)], partition_name="north")
    assert [item["id"] for item in client.query(name, filter="id > 0", partition_names=["north"])] == [2]
    assert client.search(name, data=[row(1)["vector"]], limit=2, partition_names=["_default"])[0].ids == [1]
    alias = f"{name}_alias"
    client.create_alias(name, alias)
    assert client.describe_alias(alias)["collection_name"] == name
    assert client.get(alias, ids=[2])[0]["text"] == "row 2"
    assert alias in client.describe_collection(name)["aliases"]
    client.drop_alias(alias)
    client.release_collection(name)
    client.drop_partition(name, "north")
    assert client.list_partitions(name) == ["_default"]
    client.drop_collection(name)


def test_rename(client: MilvusClient, name: str) -> None:
    simple_collection(client, name, rows=5)
    client.rename_collection(name, f"{name}_new")
    assert not client.has_collection(name)
    assert len(client.query(f"{name}_new", filter="id >= 0")) == 5
    client.drop_collection(f"{name}_new")


def test_databases(client: MilvusClient, saker, name: str) -> None:
    client.create_database(name, properties={"database.max.collections": "10"})
    assert name in client.list_databases()
    shown = client.describe_database(name)
    assert shown["name"] == name and shown["database.max.collections"] == "10"
    inside = saker.client(db_name=name)
    simple_collection(inside, "books", rows=3)
    assert inside.list_collections() == ["books"] and "books" not in client.list_collections()
    assert client.has_collection("books") is False
    with pytest.raises(MilvusException, match="not empty"):
        client.drop_database(name)
    inside.drop_collection("books")
    client.alter_database_properties(name, {"database.replica.number": "1"})
    assert client.describe_database(name)["database.replica.number"] == "1"
    client.drop_database(name)
    assert name not in client.list_databases()
    with pytest.raises(MilvusException, match="database not found") as missing:
        saker.client(db_name=name).list_collections()
    assert missing.value.code == 800


def test_a_collection_made_again_is_seen_as_new(client: MilvusClient, name: str) -> None:
    """The client keeps the schema of the first; the server tells it that there is another one."""
    simple_collection(client, name, dim=4, rows=1)
    other = MilvusClient(client._config.uri, dedicated=True)  # noqa: SLF001
    other.drop_collection(name)
    other.create_collection(name, dimension=6)
    client.insert(name, [{"id": 1, "vector": [0.5] * 6}])
    assert len(client.get(name, ids=[1])[0]["vector"]) == 6


def test_version_and_handshake(client: MilvusClient) -> None:
    assert "saker" in client.get_server_version()
    detail = client.get_server_version(detail=True)
    assert detail["deploy_mode"] == "STANDALONE" and "saker" in detail["version"]


def test_many_rows_agree_with_brute_force(client: MilvusClient, name: str) -> None:
    source = random.Random(7)
    vectors = np.array([[source.gauss(0, 1) for _ in range(16)] for _ in range(3000)], dtype=np.float32)
    client.create_collection(name, dimension=16, metric_type="IP")
    for start in range(0, 3000, 1000):
        client.insert(name, [{"id": key, "vector": vectors[key].tolist()} for key in range(start, start + 1000)])
    client.flush(name)
    queries = vectors[:20] + 0.1
    found = client.search(name, data=queries.tolist(), limit=10)
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    agree = sum(len({hit["id"] for hit in hits} & set(want.tolist())) for hits, want in zip(found, best, strict=True))
    assert agree / 200 >= 0.95
    eventually(lambda: client.get_collection_stats(name)["row_count"] == 3000)
    client.drop_collection(name)
