"""A full disk: the client is told what to do, the server stays up and answers, and nothing acknowledged is lost."""

from __future__ import annotations

import numpy as np
import pytest
import requests
from conftest import Saker, eventually
from pymilvus import DataType, MilvusClient, MilvusException

from .small_disk import SmallDisk
from .steps import connect, count, new_key, sealed_database

DIM, BATCH, TEXT_BYTES = 64, 400, 1_000
SMALL_MIB, LARGE_MIB = 32, 96


class Shelf:
    """Rows that can be told from their key, and which of them were acknowledged."""

    def __init__(self, client: MilvusClient) -> None:
        self.client, self.acknowledged = client, 0
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("text", DataType.VARCHAR, max_length=TEXT_BYTES)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="L2")
        client.create_collection("books", schema=schema, index_params=index, consistency_level="Strong")

    def insert(self) -> None:
        start = self.acknowledged
        rows = [
            {"id": key, "text": text(key), "vector": vector(key)} for key in range(start, start + BATCH)
        ]
        assert self.client.insert("books", rows, timeout=60)["insert_count"] == BATCH
        self.acknowledged += BATCH

    def fill(self) -> MilvusException:
        """Inserts until it is refused."""
        try:
            for _ in range(2 * LARGE_MIB):
                self.insert()
        except MilvusException as error:
            return error
        pytest.fail("the disk never filled")

    def check(self, doubtful: bool = False) -> None:
        """All that was acknowledged is there; with `doubtful`, rows of one cut-off call may be, too, but all or none."""
        client = self.client
        found = count(client, "books")
        assert found == self.acknowledged or (doubtful and found == self.acknowledged + BATCH)
        self.acknowledged = found
        seen = 0
        rows = client.query_iterator("books", batch_size=2_000, output_fields=["id", "text"])
        while batch := rows.next():
            for row in batch:
                assert (row["id"], row["text"]) == (seen, text(seen))
                seen += 1
        rows.close()
        assert seen == self.acknowledged
        for key in (0, self.acknowledged // 2, self.acknowledged - 1):
            assert client.search("books", [vector(key)], limit=1)[0][0]["id"] == key


def text(key: int) -> str:
    return f"row {key} ".ljust(TEXT_BYTES, "x")


def vector(key: int) -> list[float]:
    return [float(key), *np.random.default_rng(key).random(DIM - 1, dtype="f4").tolist()]


@pytest.fixture
def disk(tmp_path):
    disk = SmallDisk(tmp_path / "disk", SMALL_MIB)
    yield disk
    disk.close()


@pytest.fixture
def cramped(disk: SmallDisk, tmp_path):
    """A `saker dev` with all its files on the small disk."""
    saker = Saker(disk.directory / "saker")
    saker.command = [*disk.prefix, *saker.command]
    saker.directory, saker.log = disk.outside / "saker", tmp_path / "log"
    saker.start()
    yield saker
    saker.stop()


@pytest.fixture
def shelf(cramped: Saker) -> Shelf:
    return Shelf(sealed_database(cramped, "mine", new_key(cramped)))


def says_what_to_do(error: MilvusException) -> None:
    assert error.code == 1001, str(error)
    assert "no space left" in error.message and "free space in the data directory and try again" in error.message


def is_up(saker: Saker) -> None:
    assert saker.process.poll() is None, saker.log_text()
    assert requests.get(f"{saker.uri}/healthz", timeout=10).text == "OK"


def test_it_goes_on_once_there_is_space(cramped: Saker, disk: SmallDisk, shelf: Shelf) -> None:
    says_what_to_do(shelf.fill())
    print(f"full after {shelf.acknowledged} rows, {disk.free_bytes()} bytes free")
    assert shelf.acknowledged > 10 * BATCH
    is_up(cramped)
    shelf.check()
    # Full to the last byte, whatever is tried. (A write that fails gives back what it took, as do other logs.)
    for name, attempt in {
        "insert": shelf.insert,
        "delete": lambda: shelf.client.delete("books", ids=[1]),
        "create collection": lambda: shelf.client.create_collection("more", dimension=4),
    }.items():
        disk.fill()
        print(f"{name}, with {disk.free_bytes()} bytes free")
        with pytest.raises(MilvusException) as refusal:
            attempt()
        says_what_to_do(refusal.value)
    # A small value may find room inside the metadata file. Refused or kept, nothing between.
    disk.fill()
    try:
        shelf.client.create_database("more")
        made = True
    except MilvusException as error:
        says_what_to_do(error)
        made = False
    assert ("more" in shelf.client.list_databases()) == made
    shelf.check()
    is_up(cramped)

    disk.grow(LARGE_MIB)
    # Not a matter of waiting: the next insert is taken.
    shelf.insert()
    shelf.check()
    shelf.client.flush("books", timeout=120)
    shelf.check()
    assert shelf.client.list_collections() == ["books"]

    says_what_to_do(shelf.fill())
    shelf.check()
    cramped.kill()
    cramped.start()
    shelf.client = connect(cramped, db_name="mine")
    assert ("more" in shelf.client.list_databases()) == made
    eventually(lambda: is_loaded(shelf.client), seconds=60)
    shelf.check()
    assert cramped.stop() == 0


def test_kill_nine_while_the_disk_is_full(cramped: Saker, disk: SmallDisk, shelf: Shelf) -> None:
    says_what_to_do(shelf.fill())
    disk.fill()
    cramped.kill()
    disk.grow(LARGE_MIB)
    disk.make_space()
    cramped.start()
    shelf.client = connect(cramped, db_name="mine")
    eventually(lambda: is_loaded(shelf.client), seconds=60)
    shelf.check(doubtful=True)
    shelf.insert()
    shelf.check()


def test_a_flush_without_space(cramped: Saker, disk: SmallDisk, shelf: Shelf) -> None:
    for _ in range(20):
        shelf.insert()
    disk.fill()
    with pytest.raises(MilvusException) as refusal:
        shelf.client.flush("books", timeout=30)
    says_what_to_do(refusal.value)
    is_up(cramped)
    shelf.check()
    disk.make_space()
    shelf.client.flush("books", timeout=60)
    shelf.insert()
    shelf.check()


def is_loaded(client: MilvusClient) -> bool:
    try:
        return count(client, "books") >= 0
    except MilvusException:
        return False
