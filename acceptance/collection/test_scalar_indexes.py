"""Indexes on scalar fields and JSON paths through pymilvus: made, described, used by filters, dropped."""

from __future__ import annotations

import random

import pytest
from conftest import eventually
from pymilvus import DataType, MilvusClient, MilvusException

ROWS = 5_000
INDEXES = [
    ("id", "STL_SORT", {}),
    ("age", "INVERTED", {}),
    ("city", "BITMAP", {}),
    ("name", "TRIE", {}),
    ("score", "AUTOINDEX", {}),
    ("tags", "INVERTED", {}),
    ("info", "INVERTED", {"json_path": "info['a']['b']", "json_cast_type": "double"}),
    ("info", "AUTOINDEX", {"json_path": "info['kind']", "json_cast_type": "varchar"}),
    ("colour", "INVERTED", {"json_path": "colour", "json_cast_type": "varchar"}),
]


def make(client: MilvusClient, name: str) -> list[dict]:
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=8)
    schema.add_field("age", DataType.INT32, nullable=True)
    schema.add_field("city", DataType.VARCHAR, max_length=20)
    schema.add_field("name", DataType.VARCHAR, max_length=40)
    schema.add_field("score", DataType.FLOAT)
    schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=8)
    schema.add_field("info", DataType.JSON)
    params = client.prepare_index_params()
    params.add_index("vector", index_type="HNSW", metric_type="L2", params={"M": 16, "efConstruction": 100})
    client.create_collection(name, schema=schema, index_params=params)
    chance = random.Random(3)
    rows = [
        {
            "id": key,
            "vector": [chance.random() for _ in range(8)],
            "age": None if key % 10 == 0 else chance.randrange(100),
            "city": chance.choice(["Lund", "Oslo", "Riga"]),
            "name": f"name-{key:05}",
            "score": chance.random(),
            "tags": chance.sample(["a", "b", "c"], chance.randrange(3)),
            "info": {"a": {"b": chance.randrange(50) / 2}, "kind": chance.choice(["x", "y", 7])},
            "colour": chance.choice(["red", "blue"]),
        }
        for key in range(ROWS)
    ]
    client.insert(name, rows)
    client.flush(name)
    return rows


def test_filters_select_the_same_with_every_index(client: MilvusClient, name: str) -> None:
    rows = make(client, name)
    checks = {
        "id in [1, 5, 2999, 9000]": lambda row: row["id"] in (1, 5, 2999),
        "age == 30": lambda row: row["age"] == 30,
        "age != 30": lambda row: row["age"] is not None and row["age"] != 30,
        "20 <= age < 25": lambda row: row["age"] is not None and 20 <= row["age"] < 25,
        "city in ['Lund', 'Riga']": lambda row: row["city"] != "Oslo",
        "name like 'name-001%'": lambda row: row["name"].startswith("name-001"),
        "name like '%7'": lambda row: row["name"].endswith("7"),
        "score > 0.9": lambda row: row["score"] > 0.9,
        "array_contains(tags, 'b')": lambda row: "b" in row["tags"],
        "array_contains_all(tags, ['a', 'c'])": lambda row: {"a", "c"} <= set(row["tags"]),
        "info['a']['b'] >= 20.5": lambda row: row["info"]["a"]["b"] >= 20.5,
        "info['kind'] == 'x' and not (city == 'Oslo')": lambda row: row["info"]["kind"] == "x" and row["city"] != "Oslo",
        "colour == 'red' or age is null": lambda row: row["colour"] == "red" or row["age"] is None,
    }

    def check_all() -> None:
        for expression, holds in checks.items():
            expected = {row["id"] for row in rows if holds(row)}
            found = client.query(name, filter=expression, output_fields=["id"])
            assert {row["id"] for row in found} == expected, expression
            hits = client.search(name, data=[rows[0]["vector"]], filter=expression, limit=10)[0]
            assert len(hits) == min(10, len(expected)) and {hit["id"] for hit in hits} <= expected, expression

    check_all()
    for field, kind, extra in INDEXES:
        params = client.prepare_index_params()
        params.add_index(field, index_type=kind, index_name=f"{field}_{kind}".lower(), params=extra)
        client.create_index(name, params)
    listed = client.list_indexes(name)
    assert len(listed) == 1 + len(INDEXES)
    for field, kind, extra in INDEXES:
        shown = client.describe_index(name, f"{field}_{kind}".lower())
        assert shown["index_type"] == kind and shown["state"] == "Finished", shown
        assert shown["field_name"] == ("$meta" if field == "colour" else field)
        assert shown["pending_index_rows"] == 0 and shown["total_rows"] == ROWS
        assert all(shown[key] == value for key, value in extra.items()), shown
    check_all()
    client.release_collection(name)
    client.load_collection(name)
    check_all()
    for field, kind, _ in INDEXES:
        client.drop_index(name, f"{field}_{kind}".lower())
    eventually(lambda: client.list_indexes(name) == ["vector"])
    check_all()


@pytest.mark.parametrize(
    ("field", "kind", "extra", "message"),
    [
        ("age", "TRIE", {}, "TRIE are only supported on varchar field"),
        ("score", "BITMAP", {}, "bitmap index are only supported on bool, int, string"),
        ("id", "BITMAP", {}, "create bitmap index on primary key not supported"),
        ("tags", "STL_SORT", {}, "STL_SORT are only supported on numeric"),
        ("info", "INVERTED", {}, "json index must specify cast type"),
        ("info", "INVERTED", {"json_cast_type": "INT8"}, "json_cast_type INT8 is not supported"),
        ("nowhere", "INVERTED", {}, "cannot create index on non-exist field: nowhere"),
    ],
)
def test_what_does_not_go_together_is_refused(
    client: MilvusClient, name: str, field: str, kind: str, extra: dict, message: str
) -> None:
    make(client, name)
    params = client.prepare_index_params()
    params.add_index(field, index_type=kind, params=extra)
    with pytest.raises(MilvusException, match=message):
        client.create_index(name, params)
