"""Wrong requests: a clear error each, the server stays up, nothing is lost."""

from __future__ import annotations

import grpc
import pytest
from conftest import row, simple_collection
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2


@pytest.fixture
def books(client: MilvusClient, name: str):
    simple_collection(client, name, rows=10)
    yield name
    # Whatever was sent before, the rows are there and the server answers.
    assert client.query(name, filter="", output_fields=["count(*)"])[0]["count(*)"] == 10
    client.drop_collection(name)


@pytest.fixture
def stub(saker):
    with grpc.insecure_channel(f"127.0.0.1:{saker.port}") as channel:
        yield milvus_pb2_grpc.MilvusServiceStub(channel)


def refused(code: int, part: str):
    class Refused:
        def __enter__(self):
            self._raises = pytest.raises(MilvusException, match=part)
            self.info = self._raises.__enter__()
            return self.info

        def __exit__(self, *details):
            caught = self._raises.__exit__(*details)
            assert self.info.value.code == code, str(self.info.value)
            return caught

    return Refused()


def test_missing_collection(client: MilvusClient) -> None:
    with refused(100, "can't find collection.*collection not found"):
        client.describe_collection("nothing")
    for call in (
        lambda: client.search("nothing", data=[[1.0]], limit=1),
        lambda: client.query("nothing", filter="id > 0"),
        lambda: client.insert("nothing", [{"id": 1}]),
        lambda: client.delete("nothing", filter="id > 0"),
        lambda: client.load_collection("nothing"),
    ):
        with pytest.raises(MilvusException, match="nothing"):
            call()
    client.drop_collection("nothing")


def test_wrong_dimension(client: MilvusClient, stub, books: str) -> None:
    with refused(1100, "dimension"):
        client.search(books, data=[[1.0, 2.0]], limit=1)
    # The client checks rows itself; this is what another client might send.
    answer = stub.Insert(insert_request(books, vectors(3, [0.5] * 3)))
    assert answer.status.code == 1100 and "dim" in answer.status.reason
    answer = stub.Insert(insert_request(books, vectors(4, [0.5] * 3)))
    assert answer.status.code == 1100 and "divide the dim" in answer.status.reason


def test_nan_and_infinity(client: MilvusClient, books: str) -> None:
    for value in (float("nan"), float("inf")):
        with refused(1100, "NaN or Inf"):
            client.search(books, data=[[value, 0, 0, 0]], limit=1)
        with refused(1100, "NaN or Inf"):
            client.insert(books, [{**row(77), "vector": [0, 0, value, 0]}])


def test_unknown_and_missing_fields(client: MilvusClient, stub, books: str) -> None:
    extra = schema_pb2.FieldData(type=schema_pb2.Int64, field_name="pages")
    extra.scalars.long_data.data.append(1)
    answer = stub.Insert(insert_request(books, vectors(4, [0.5] * 4), extra))
    assert answer.status.code == 1100 and "field pages does not exist" in answer.status.reason
    request = milvus_pb2.InsertRequest(collection_name=books, num_rows=1, fields_data=[vectors(4, [0.5] * 4)])
    answer = stub.Insert(request)
    assert answer.status.code == 1100 and "fieldSchema(id)" in answer.status.reason
    with pytest.raises(MilvusException, match="pages"):
        client.query(books, filter="pages > 3")
    with pytest.raises(MilvusException, match="pages"):
        client.query(books, filter="id > 3", output_fields=["pages"])
    with pytest.raises(MilvusException, match="pages"):
        client.search(books, data=[[0.0] * 4], limit=1, anns_field="pages")


def test_too_long_text(client: MilvusClient, books: str) -> None:
    with refused(1100, "exceeds max length"):
        client.insert(books, [{**row(77), "text": "x" * 65}])


@pytest.mark.parametrize("condition", ["id >", "id == 'one", "id = 1", "text + 3 > 1", "(" * 200 + "id", "id in {missing}"])
def test_bad_filter(client: MilvusClient, books: str, condition: str) -> None:
    for call in (
        lambda: client.query(books, filter=condition),
        lambda: client.delete(books, filter=condition),
        lambda: client.search(books, data=[[0.0] * 4], limit=1, filter=condition),
    ):
        with pytest.raises(MilvusException) as refusal:
            call()
        assert refusal.value.code == 1100, str(refusal.value)
        assert condition not in str(refusal.value) or len(condition) < 6


def test_limits(client: MilvusClient, books: str) -> None:
    with refused(1100, r"topk \[16385\].*\[1, 16384\]"):
        client.search(books, data=[[0.0] * 4], limit=16385)
    with refused(1100, "offset"):
        client.search(books, data=[[0.0] * 4], limit=16384, search_params={"offset": 1})
    with refused(1100, "limit"):
        client.query(books, filter="", limit=0)
    with refused(1100, "empty expression"):
        client.query(books, filter="")
    with refused(1100, "group_by_field in a search is not supported"):
        client.search(books, data=[[0.0] * 4], limit=1, group_by_field="text")
    with refused(1100, "metric"):
        client.search(books, data=[[0.0] * 4], limit=1, search_params={"metric_type": "COSINE"})


def test_bad_schemas(client: MilvusClient, stub, name: str) -> None:
    def create(fields: list[schema_pb2.FieldSchema], collection: str = name) -> str:
        schema = schema_pb2.CollectionSchema(name=collection, fields=fields)
        request = milvus_pb2.CreateCollectionRequest(collection_name=collection, schema=schema.SerializeToString())
        status = stub.CreateCollection(request)
        assert status.code == 1100 and status.error_code != 0
        return status.reason

    key = schema_pb2.FieldSchema(name="id", data_type=schema_pb2.Int64, is_primary_key=True)
    dim = common_pb2.KeyValuePair(key="dim", value="4")
    vector = schema_pb2.FieldSchema(name="vector", data_type=schema_pb2.FloatVector, type_params=[dim])
    assert "primary key is not specified" in create([vector])
    assert "vector field" in create([key])
    assert "Invalid collection name" in create([key, vector], "1-2")
    binary = schema_pb2.FieldSchema(name="binary", data_type=schema_pb2.BinaryVector, type_params=[dim])
    assert "multiple of 8" in create([key, binary])
    status = stub.CreateCollection(milvus_pb2.CreateCollectionRequest(collection_name=name, schema=b"\xff\xff"))
    assert status.code == 1100
    assert not client.has_collection(name)


def test_same_name_with_other_fields(client: MilvusClient, books: str) -> None:
    schema = client.create_schema()
    schema.add_field("other", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    with pytest.raises(MilvusException, match="create duplicate collection with different parameters"):
        client.create_collection(books, schema=schema)


def test_oversized_batch(client: MilvusClient, books: str, saker) -> None:
    """Over 64 MiB in one message: refused once and for all, by a status that the client does not retry."""
    rows = [{**row(100 + key), "text": "x" * (1 << 20)} for key in range(65)]
    with pytest.raises((grpc.RpcError, MilvusException)) as refusal:
        client.insert(books, rows)
    assert "RESOURCE_EXHAUSTED" in str(refusal.value) and "67108864" in str(refusal.value)
    assert saker.process.poll() is None


def test_oversized_answer(client: MilvusClient, name: str) -> None:
    client.create_collection(name, dimension=2048)
    for start in range(0, 9000, 1500):
        client.insert(name, [{"id": key, "vector": [0.5] * 2048} for key in range(start, start + 1500)])
    with pytest.raises((grpc.RpcError, MilvusException), match="67108864"):
        client.query(name, filter="id >= 0", output_fields=["vector"])
    assert len(client.query(name, filter="id >= 0", output_fields=["vector"], limit=100)) == 100
    client.drop_collection(name)


def test_unimplemented_rpcs_say_their_name(stub) -> None:
    for call, request in [
        (stub.HybridSearch, milvus_pb2.HybridSearchRequest()),
        (stub.Import, milvus_pb2.ImportRequest()),
        (stub.CreateRole, milvus_pb2.CreateRoleRequest()),
    ]:
        with pytest.raises(grpc.RpcError) as refusal:
            call(request)
        assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert type(request).__name__.removesuffix("Request") in refusal.value.details()


def test_random_bytes_in_every_bytes_field(stub, books: str) -> None:
    for junk in (b"", b"\x00", b"\xff" * 40, b"\x0a\x05\x0a\x02$0\x10\x65"):
        params = [common_pb2.KeyValuePair(key="topk", value="3"), common_pb2.KeyValuePair(key="params", value="{}")]
        request = milvus_pb2.SearchRequest(collection_name=books, placeholder_group=junk, search_params=params, nq=1)
        assert stub.Search(request).status.code == 1100


def vectors(dim: int, values: list[float]) -> schema_pb2.FieldData:
    data = schema_pb2.FieldData(type=schema_pb2.FloatVector, field_name="vector")
    data.vectors.dim = dim
    data.vectors.float_vector.data.extend(values)
    return data


def insert_request(collection: str, *fields: schema_pb2.FieldData) -> milvus_pb2.InsertRequest:
    key = schema_pb2.FieldData(type=schema_pb2.Int64, field_name="id")
    key.scalars.long_data.data.append(1)
    text = schema_pb2.FieldData(type=schema_pb2.VarChar, field_name="text")
    text.scalars.string_data.data.append("one")
    return milvus_pb2.InsertRequest(collection_name=collection, num_rows=1, fields_data=[key, text, *fields])
