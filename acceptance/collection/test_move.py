"""Moving a collection to another database, under that one's key, while it is in use."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import Saker
from promise.steps import Library, connect, count, new_key, sealed_database, wait_until_back, wait_until_dark
from pymilvus import MilvusClient, MilvusException

from .steps import OwnLibrary, check_now, command, rest, saker_command

ROUNDS = 4


def gone(error: MilvusException) -> bool:
    return error.code == 100 or "collection not found" in error.message


class Traffic:
    """A searcher and a writer that follow a collection between two databases and note every failure."""

    def __init__(self, saker: Saker, library: Library, databases: tuple[str, str]) -> None:
        self.library = library
        self.stop = threading.Event()
        self.failures: list[str] = []
        self.answers, self.written = 0, []
        work = (self._search, self._write)
        self._threads = [
            threading.Thread(target=self._run, args=(step, [connect(saker, db_name=name) for name in databases])) for step in work
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(120)
        assert self.failures == []
        assert self.answers and self.written

    def _run(self, step, clients: list[MilvusClient]) -> None:
        try:
            while not self.stop.is_set() and not self.failures:
                # While the names change hands it may be missed in both once; not over and over.
                for attempt in range(8):
                    try:
                        step(clients[attempt % 2])
                        break
                    except MilvusException as error:
                        if not gone(error):
                            self.failures.append(str(error))
                            break
                else:
                    self.failures.append(f"{step.__name__}: in no database")
        except Exception as error:  # noqa: BLE001
            self.failures.append(repr(error))

    def _search(self, client: MilvusClient) -> None:
        library = self.library
        found = client.search(library.name, [library.vectors[3].tolist()], limit=1, search_params={"params": {"ef": 64}})
        if found[0][0]["id"] != 3:
            self.failures.append(f"wrong answer: {found}")
        self.answers += 1

    def _write(self, client: MilvusClient) -> None:
        key = 100_000 + len(self.written)
        row = {"id": key, "text": "new", "vector": [1_000.0 + len(self.written)] * len(self.library.vectors[0])}
        client.insert(self.library.name, [row])
        self.written.append(key)


def test_a_collection_moves_while_it_is_in_use(own_saker: Saker) -> None:
    keys = {name: new_key(own_saker) for name in ("ours", "theirs")}
    client = sealed_database(own_saker, "ours", keys["ours"])
    library = Library(client)
    there = sealed_database(own_saker, "theirs", keys["theirs"])
    objects = own_saker.directory / "data" / "objects"
    before = {path: path.read_bytes() for path in objects.rglob("*") if path.is_file()}
    traffic = Traffic(own_saker, library, ("ours", "theirs"))
    for number in range(ROUNDS):
        source, target = ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours")
        moved = command(own_saker, "collection", "move", f"{source}.books", "--to", target)
        assert moved["dbName"] == target and moved["headers"] > 0 and not moved["ownKey"]
    # And once more, so that it ends in the other database.
    answer = rest(own_saker, "/v2/cmek/collections/move", {"dbName": "ours", "collectionName": "books", "toDbName": "theirs"})
    assert answer["code"] == 0, answer
    traffic.end()
    rows = library.rows + len(traffic.written)
    library.check(there, rows=rows)
    assert client.list_collections() == [] and there.list_collections() == ["books"]
    # O(files): of what was there before, the bodies are the very same; the headers are not.
    kept = [path for path in before if path.exists()]
    assert kept
    for path in kept:
        now = path.read_bytes()
        assert now[192:] == before[path][192:] and now[:112] == before[path][:112] and now[112:192] != before[path][112:192]

    # The old key says nothing about it any more; the new one does, and after a restart, too.
    kms = own_saker.kms()
    kms.disable_key(KeyId=keys["ours"])
    check_now(own_saker)
    library.check(there, rows=rows)
    assert own_saker.stop() == 0
    own_saker.start()
    there = connect(own_saker, db_name="theirs")
    wait_until_back(library, there)
    library.check(there, rows=rows)
    own_saker.kms().disable_key(KeyId=keys["theirs"])
    check_now(own_saker)
    assert keys["theirs"] in wait_until_dark(library, there).message


def test_a_plain_rename_names_the_command_and_the_command_works(own_saker: Saker) -> None:
    client = sealed_database(own_saker, "ours", new_key(own_saker))
    library = Library(client, rows=60, flushed=60)
    there = sealed_database(own_saker, "theirs", new_key(own_saker))
    with pytest.raises(MilvusException) as error:
        client.rename_collection("books", "films", target_db="theirs")
    said = "saker collection move ours.books --to theirs --name films"
    assert said in error.value.message
    done = saker_command(own_saker, *said.split()[1:])
    assert done.returncode == 0, done.stderr
    assert "theirs.films" in done.stdout
    library.name = "films"
    assert count(there, "films") == library.rows
    assert there.get_load_state("films")["state"].name == "Loaded"


def test_what_cannot_be_moved(own_saker: Saker) -> None:
    key = new_key(own_saker)
    client = sealed_database(own_saker, "ours", key)
    library = Library(client, rows=60, flushed=60)
    there = sealed_database(own_saker, "theirs", new_key(own_saker))

    def refused(*arguments: str) -> str:
        done = saker_command(own_saker, "collection", "move", *arguments)
        assert done.returncode == 1, done.stdout
        return done.stderr

    client.create_alias("books", "shelf")
    assert "drop them first" in refused("ours.books", "--to", "theirs")
    client.drop_alias("shelf")
    assert "collection not found" in refused("ours.none", "--to", "theirs")
    assert "database not found" in refused("ours.books", "--to", "nowhere")
    assert "DATABASE.COLLECTION" in refused("books", "--to", "theirs")
    Library(there, rows=60, flushed=60)
    assert "duplicated" in refused("ours.books", "--to", "theirs")
    own_saker.kms().disable_key(KeyId=key)
    check_now(own_saker)
    assert key in refused("ours.books", "--to", "theirs", "--name", "films")
    own_saker.kms().enable_key(KeyId=key)
    check_now(own_saker)
    wait_until_back(library, client)
    assert count(client, "books") == library.rows


def test_a_collection_with_its_own_key_takes_it_along(own_saker: Saker) -> None:
    own_key = new_key(own_saker)
    client = sealed_database(own_saker, "ours", new_key(own_saker))
    own = OwnLibrary(client, own_key)
    there = sealed_database(own_saker, "theirs", new_key(own_saker))
    data: Path = own_saker.directory / "data" / "objects"
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    moved = command(own_saker, "collection", "move", "ours.own", "--to", "theirs")
    assert moved["ownKey"] and moved["headers"] == 0
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    own.check(there)
    assert there.describe_collection("own")["properties"]["cipher.key"] == own_key
    own_saker.kms().disable_key(KeyId=own_key)
    check_now(own_saker)
    error = wait_until_dark(own, there)
    assert "[database=theirs][collection=own]" in error.message
