"""Vectors of 16-bit floats, bytes and bits, through a client: answers are those of comparing with everything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from conftest import Saker, eventually
from pymilvus import DataType, MilvusClient, MilvusException

DIM, BITS = 16, 128


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper halves of 32-bit floats."""
    return (np.ascontiguousarray(values, dtype="<f4").view("<u4") >> 16).astype("<u2")


def raw(shown: bytes | list[bytes]) -> bytes:
    """A vector of an answer: searches show its bytes, queries a list of them."""
    return shown if isinstance(shown, bytes) else shown[0]


@dataclass
class Kind:
    """How a type of vector is made, sent, and understood when it comes back."""

    data_type: DataType
    dim: int
    metrics: tuple[str, ...]
    index: str
    make: Callable[[np.random.Generator, int], np.ndarray]
    """Rows as they are sent."""
    sent: Callable[[np.ndarray], object]
    numbers: Callable[[np.ndarray], np.ndarray]
    """Rows as 64-bit floats; bits one by one."""

    def scores(self, metric: str, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Smaller is nearer."""
        q, all_rows = self.numbers(query[None])[0], self.numbers(rows)
        match metric:
            case "L2":
                return ((all_rows - q) ** 2).sum(axis=1)
            case "IP":
                return -(all_rows @ q)
            case "COSINE":
                return -(all_rows @ q) / (np.linalg.norm(all_rows, axis=1) * np.linalg.norm(q))
            case "HAMMING":
                return np.abs(all_rows - q).sum(axis=1)
            case _:
                shared = np.minimum(all_rows, q).sum(axis=1)
                return 1 - shared / np.maximum(all_rows, q).sum(axis=1)


KINDS = {
    "float16": Kind(
        DataType.FLOAT16_VECTOR,
        DIM,
        ("L2", "IP", "COSINE"),
        "HNSW",
        lambda random, rows: random.standard_normal((rows, DIM)).astype("<f2"),
        lambda row: row,
        lambda rows: rows.astype("f8"),
    ),
    "bfloat16": Kind(
        DataType.BFLOAT16_VECTOR,
        DIM,
        ("L2", "IP", "COSINE"),
        "IVF_FLAT",
        lambda random, rows: bfloat16(random.standard_normal((rows, DIM))),
        lambda row: row.tobytes(),
        lambda rows: (rows.astype("<u4") << 16).view("<f4").astype("f8"),
    ),
    "int8": Kind(
        DataType.INT8_VECTOR,
        DIM,
        ("L2", "IP", "COSINE"),
        "DISKANN",
        lambda random, rows: random.integers(-128, 128, (rows, DIM)).astype("i1"),
        lambda row: row,
        lambda rows: rows.astype("f8"),
    ),
    "binary": Kind(
        DataType.BINARY_VECTOR,
        BITS,
        ("HAMMING", "JACCARD"),
        "BIN_IVF_FLAT",
        lambda random, rows: random.integers(0, 256, (rows, BITS // 8)).astype("u1"),
        lambda row: row.tobytes(),
        lambda rows: np.unpackbits(rows, axis=1).astype("f8"),
    ),
}


def make(client: MilvusClient, name: str, kind: Kind, metric: str, index_type: str | None = None, **params) -> None:
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", kind.data_type, dim=kind.dim)
    index = client.prepare_index_params()
    index.add_index("vector", index_type=index_type or kind.index, metric_type=metric, params=params)
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


def insert(client: MilvusClient, name: str, kind: Kind, rows: np.ndarray, keys: range) -> None:
    data = [{"id": key, "vector": kind.sent(rows[key])} for key in keys]
    assert client.insert(name, data)["insert_count"] == len(keys)


def check(client: MilvusClient, name: str, kind: Kind, metric: str, rows: np.ndarray, keys: np.ndarray, **options) -> None:
    """The hits for a few queries are the nearest of `keys`, with the right scores, their vectors as they were sent."""
    for query in rows[::37]:
        # With the field's name the client knows what the bytes of a query are.
        found = client.search(name, [kind.sent(query)], anns_field="vector", limit=10, output_fields=["vector"], **options)[0]
        scores = kind.scores(metric, query, rows)
        nearest = np.sort(scores[keys])[:10]
        sign = -1 if metric in ("IP", "COSINE") else 1
        assert [sign * hit["distance"] for hit in found] == pytest.approx(nearest.tolist(), rel=1e-4, abs=1e-4)
        for hit in found:
            assert hit["id"] in keys
            assert sign * hit["distance"] == pytest.approx(scores[hit["id"]], rel=1e-4, abs=1e-4)
            assert raw(hit["entity"]["vector"]) == rows[hit["id"]].tobytes()


@pytest.mark.parametrize("type_name", KINDS)
def test_life_of_a_collection(own_saker: Saker, type_name: str) -> None:
    kind, random = KINDS[type_name], np.random.default_rng(5)
    rows = kind.make(random, 400)
    client = own_saker.client()
    for metric in kind.metrics:
        name = f"{type_name}_{metric}".lower()
        make(client, name, kind, metric)
        field = client.describe_collection(name)["fields"][1]
        assert (field["type"], field["params"]["dim"]) == (kind.data_type, kind.dim)
        shown = client.describe_index(name, "vector")
        assert (shown["index_type"], shown["metric_type"]) == (kind.index, metric)
        insert(client, name, kind, rows, range(250))
        client.flush(name)
        insert(client, name, kind, rows, range(250, 400))
        everything = np.arange(400)
        check(client, name, kind, metric, rows, everything)
        check(client, name, kind, metric, rows, everything[::3], filter="id % 3 == 0")
        got = client.query(name, filter="id in [3, 260]", output_fields=["vector"])
        assert [raw(row["vector"]) for row in got] == [rows[3].tobytes(), rows[260].tobytes()]
        client.delete(name, ids=list(range(0, 400, 5)))
        left = everything[everything % 5 != 0]
        check(client, name, kind, metric, rows, left)

    assert own_saker.stop() == 0
    own_saker.start()
    client = own_saker.client()
    changed = kind.make(random, 1)[0]
    for metric in kind.metrics:
        name = f"{type_name}_{metric}".lower()
        eventually(lambda: client.get_load_state(name)["state"].name == "Loaded")
        check(client, name, kind, metric, rows, left)
        client.upsert(name, [{"id": 7, "vector": kind.sent(changed)}])
        now = rows.copy()
        now[7] = changed
        check(client, name, kind, metric, now, left)
        client.flush(name)
        check(client, name, kind, metric, now, left)


@pytest.mark.parametrize("type_name", ["float16", "bfloat16", "int8"])
def test_a_graph_finds_what_is_near(client: MilvusClient, name: str, type_name: str) -> None:
    """Enough rows for a graph: it finds nearly all of the nearest, and scores them exactly."""
    kind, random = KINDS[type_name], np.random.default_rng(6)
    rows = kind.make(random, 6_000)
    make(client, name, kind, "COSINE", "HNSW", M=16, efConstruction=100)
    for first in range(0, 6_000, 2_000):
        insert(client, name, kind, rows, range(first, first + 2_000))
    client.flush(name)
    eventually(lambda: client.describe_index(name, "vector")["pending_index_rows"] == 0, seconds=120)
    found_best = 0
    queries = kind.make(random, 50)
    sent = [kind.sent(query) for query in queries]
    answers = client.search(name, sent, anns_field="vector", limit=10, search_params={"params": {"ef": 200}})
    for query, hits in zip(queries, answers, strict=True):
        scores = kind.scores("COSINE", query, rows)
        found_best += len(set(np.argsort(scores, kind="stable")[:10].tolist()) & {hit["id"] for hit in hits})
        for hit in hits:
            assert -hit["distance"] == pytest.approx(scores[hit["id"]], rel=1e-4, abs=1e-4)
    assert found_best >= 475
    client.drop_collection(name)


def test_iterators_go_over_every_row(client: MilvusClient, name: str) -> None:
    for type_name, kind in KINDS.items():
        collection = f"{name}_{type_name}"
        rows = kind.make(np.random.default_rng(8), 300)
        metric = kind.metrics[0]
        make(client, collection, kind, metric)
        insert(client, collection, kind, rows, range(300))
        seen = {}
        iterator = client.query_iterator(collection, batch_size=70, output_fields=["id", "vector"])
        while batch := iterator.next():
            seen |= {row["id"]: raw(row["vector"]) for row in batch}
        iterator.close()
        assert seen == {key: rows[key].tobytes() for key in range(300)}
        found = []
        searches = client.search_iterator(collection, [kind.sent(rows[5])], batch_size=50, limit=300, anns_field="vector")
        while batch := searches.next():
            found += [hit["id"] for hit in batch]
        searches.close()
        assert found[0] == 5 and len(found) == len(set(found))
        # Ties of many at one score may end a batch early, as with any iterator over scores.
        assert len(found) >= 250
        client.drop_collection(collection)


def test_lists_of_numbers_are_rounded(client: MilvusClient, name: str) -> None:
    """What a client sends as plain numbers for a field of 16-bit floats."""
    values = np.random.default_rng(9).standard_normal((20, DIM)).astype("<f4")
    for type_name in ("float16", "bfloat16"):
        kind, collection = KINDS[type_name], f"{name}_{type_name}"
        make(client, collection, kind, "L2")
        client.insert(collection, [{"id": key, "vector": values[key].tolist()} for key in range(20)])
        got = client.query(collection, filter="id >= 0", output_fields=["vector"])
        for row in got:
            bits = np.frombuffer(raw(row["vector"]), dtype="<u2")
            kept = kind.numbers(bits.view("<f2") if type_name == "float16" else bits)
            assert kept == pytest.approx(values[row["id"]], rel=2**-8)
        hits = client.search(collection, [values[4].tolist()], limit=1)[0]
        assert (hits[0]["id"], hits[0]["distance"]) == (4, 0.0)
        with pytest.raises(MilvusException, match="not a number or infinite"):
            client.insert(collection, [{"id": 99, "vector": [float("nan")] * DIM}])
        client.drop_collection(collection)


def test_ten_vector_fields(client: MilvusClient, name: str) -> None:
    random = np.random.default_rng(10)
    kinds = [*KINDS.values(), *KINDS.values(), KINDS["int8"], KINDS["binary"]]
    fields = {f"v{place}": kind for place, kind in enumerate(kinds)}
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    index = client.prepare_index_params()
    for field, kind in fields.items():
        schema.add_field(field, kind.data_type, dim=kind.dim)
        index.add_index(field, index_type="AUTOINDEX", metric_type=kind.metrics[0])
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
    rows = {field: kind.make(random, 100) for field, kind in fields.items()}
    data = [{"id": key, **{field: kind.sent(rows[field][key]) for field, kind in fields.items()}} for key in range(100)]
    client.insert(name, data[:60])
    client.flush(name)
    client.insert(name, data[60:])
    for field, kind in fields.items():
        for key in (3, 77):
            hits = client.search(name, [kind.sent(rows[field][key])], anns_field=field, limit=5, output_fields=["*"])[0]
            best = np.sort(kind.scores(kind.metrics[0], rows[field][key], rows[field]))[:5]
            assert hits[0]["id"] == key
            assert [hit["distance"] for hit in hits] == pytest.approx(best.tolist(), rel=1e-4, abs=1e-4)
            assert all(raw(hits[0]["entity"][other]) == rows[other][key].tobytes() for other in fields)
    with pytest.raises(MilvusException, match="multiple anns_fields exist"):
        client.search(name, [KINDS["int8"].sent(rows["v2"][0])], limit=1)
    client.drop_collection(name)
    schema.add_field("v10", DataType.INT8_VECTOR, dim=4)
    with pytest.raises(MilvusException, match="maximum vector field's number should be limited to 10"):
        client.create_collection(name, schema=schema)


def test_refusals(client: MilvusClient, name: str) -> None:
    def refused(action: Callable[[], object], said: str) -> None:
        with pytest.raises(MilvusException, match=said) as error:
            action()
        assert error.value.code == 1100

    bits = KINDS["binary"]
    odd = Kind(**{**bits.__dict__, "dim": 12})
    refused(lambda: make(client, name, odd, "HAMMING"), "binary vector dimension should be multiple of 8")
    refused(lambda: make(client, name, bits, "L2"), "binary vector index does not support metric type: L2")
    client.drop_collection(name)
    refused(lambda: make(client, name, bits, "HAMMING", "HNSW"), "data type BinaryVector can't build with this index HNSW")
    client.drop_collection(name)
    refused(lambda: make(client, name, KINDS["int8"], "HAMMING"), "int vector index does not support metric type: HAMMING")
    client.drop_collection(name)
    refused(lambda: make(client, name, KINDS["float16"], "L2", "BIN_FLAT"), "data type Float16Vector can't build with")
    client.drop_collection(name)
    refused(lambda: make(client, name, KINDS["int8"], "L2", "GPU_CAGRA"), "invalid index type: GPU_CAGRA")
    client.drop_collection(name)

    kind = KINDS["int8"]
    make(client, name, kind, "L2", "HNSW", M=8, efConstruction=64)
    row = kind.make(np.random.default_rng(1), 1)[0]
    client.insert(name, [{"id": 1, "vector": row}])
    shorter = row[:-1].copy()
    with pytest.raises(MilvusException):
        client.insert(name, [{"id": 2, "vector": shorter}])
    refused(lambda: client.search(name, [shorter], limit=1), "vector dimension mismatch")
    refused(lambda: client.search(name, [row.astype("<f2")], limit=1), "vector type must be the same, field vector")
    refused(lambda: client.search(name, [row], limit=1, search_params={"metric_type": "IP"}), "metric type not match")
    refused(
        lambda: client.search(name, [row], limit=5, search_params={"params": {"ef": 4}}),
        r"ef\(4\) should be larger than k\(5\)",
    )
    assert len(client.search(name, [row], limit=5, search_params={"params": {"ef": 5}})[0]) == 1
    client.drop_collection(name)
    ranges = [
        ("HNSW", {"M": 1}, r"param 'M' \(1\) should be in range \[2, 2048\]"),
        ("HNSW", {"efConstruction": 0}, r"param 'efConstruction' \(0\) should be in range"),
        ("IVF_FLAT", {"nlist": 65_537}, r"param 'nlist' \(65537\) should be in range \[1, 65536\]"),
        ("IVF_PQ", {"nlist": 8, "m": 3}, "should be a multiple of the number of subquantizers"),
        ("HNSW_SQ", {"sq_type": "SQ5"}, "invalid scalar quantizer type"),
    ]
    for index_type, params, said in ranges:
        refused(lambda: make(client, name, kind, "L2", index_type, **params), said)
        client.drop_collection(name)


def test_index_types_answer_under_their_names(client: MilvusClient, name: str) -> None:
    """Every name, with parameters of creation and of search, on 32-bit vectors; what is shown is what was given."""
    random = np.random.default_rng(12)
    rows = random.standard_normal((500, DIM)).astype("<f4")
    types = [
        ("FLAT", {}, {}),
        ("HNSW", {"M": 16, "efConstruction": 100}, {"ef": 64}),
        ("HNSW_SQ", {"M": 16, "efConstruction": 100, "sq_type": "SQ8", "refine": True, "refine_type": "FP32"}, {"ef": 64, "refine_k": 2}),
        ("HNSW_PQ", {"M": 16, "efConstruction": 100, "m": 8, "nbits": 8}, {"ef": 64}),
        ("HNSW_PRQ", {"M": 16, "efConstruction": 100, "m": 4, "nrq": 2}, {"ef": 64}),
        ("IVF_FLAT", {"nlist": 16}, {"nprobe": 16}),
        ("IVF_SQ8", {"nlist": 16}, {"nprobe": 4}),
        ("IVF_PQ", {"nlist": 16, "m": 8, "nbits": 8}, {"nprobe": 4}),
        ("IVF_RABITQ", {"nlist": 16, "refine": True, "refine_type": "SQ8"}, {"nprobe": 4, "rbq_query_bits": 4, "refine_k": 3}),
        ("SCANN", {"nlist": 16, "with_raw_data": True}, {"nprobe": 4, "reorder_k": 40}),
        ("DISKANN", {}, {"search_list": 40}),
        ("AUTOINDEX", {}, {"level": 2}),
    ]
    query = random.standard_normal(DIM).astype("<f4")
    nearest = np.argsort(((rows - query) ** 2).sum(axis=1))[:10].tolist()
    for index_type, built, searched in types:
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        index = client.prepare_index_params()
        index.add_index("vector", index_type=index_type, metric_type="L2", params=built)
        client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
        client.insert(name, [{"id": key, "vector": rows[key].tolist()} for key in range(500)])
        client.flush(name)
        hits = client.search(name, [query.tolist()], limit=10, search_params={"metric_type": "L2", "params": searched})[0]
        assert [hit["id"] for hit in hits] == nearest, index_type
        shown = client.describe_index(name, "vector")
        assert shown["index_type"] == index_type
        assert {key: shown[key] for key in built} == {key: str(value) for key, value in built.items()}
        client.drop_collection(name)


@pytest.mark.parametrize("type_name", KINDS)
def test_vectors_are_sealed(own_saker: Saker, type_name: str) -> None:
    """Eight neighbouring bytes of any vector stand in no file, before and after a flush."""
    kind = KINDS[type_name]
    rows = kind.make(np.random.default_rng(13), 200)
    needles = [rows[key].tobytes()[start : start + 8] for key in range(0, 200, 7) for start in (0, 8)]
    # Rows widened to 32 bits would be a leak, too.
    if kind.data_type != DataType.BINARY_VECTOR:
        needles += [kind.numbers(rows[key : key + 1])[0, 2:6].astype("<f4").tobytes() for key in range(0, 200, 7)]

    def leaks() -> list[Path]:
        files = [file for file in own_saker.directory.rglob("*") if file.is_file()]
        contents = {file: file.read_bytes() for file in [*files, own_saker.log]}
        return [file for file, data in contents.items() if any(needle in data for needle in needles)]

    client = own_saker.client()
    make(client, "sealed", kind, kind.metrics[0])
    insert(client, "sealed", kind, rows, range(200))
    assert leaks() == []
    client.flush("sealed")
    check(client, "sealed", kind, kind.metrics[0], rows, np.arange(200))
    assert leaks() == []
    own_saker.kill()
    assert leaks() == []
