"""Receipts of drops, checked against the bytes that were on the disk before."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from conftest import Saker
from promise.steps import Library, connect, new_key, sealed_database
from promise.test_drop import header

from .steps import OwnLibrary, command, rest, saker_command

SLOT = slice(112, 192)


def slots(data: Path) -> list[bytes]:
    """SHA-256 of the key slot of every sealed file and log segment of collections."""
    files = [path for part in ("objects", "log") for path in (data / part).rglob("*") if path.is_file()]
    sealed = [path for path in files if not path.name.startswith(".") and "collection" in str(path.relative_to(data))]
    return [hashlib.sha256(header(path)[SLOT]).digest() for path in sealed]


def test_a_dropped_collection_leaves_a_receipt(own_saker: Saker) -> None:
    arn = new_key(own_saker)
    client = sealed_database(own_saker, "mine", arn)
    Library(client)
    before = slots(own_saker.directory / "data")
    begun = time.time() * 1_000
    client.drop_collection("books")
    (receipt,) = command(own_saker, "receipt", "list")
    assert receipt["kind"] == "collection" and (receipt["database"], receipt["collection"]) == ("mine", "books")
    assert receipt["root"] == arn and receipt["zoneKeys"] == []
    assert receipt["zone"] == client.describe_database("mine")["cipher.ezID"]
    assert receipt["files"] + receipt["logSegments"] == len(before)
    assert receipt["dataKeys"] == len(before) + receipt["values"] and receipt["values"] == 2
    assert begun - 60_000 < receipt["begunMs"] <= receipt["finishedMs"]
    assert len(receipt["dataKeysSha256"]) == 64
    # One by its id, and for people; the same over REST; the same after a restart.
    assert command(own_saker, "receipt", "show", receipt["id"]) == receipt
    assert rest(own_saker, "/v2/cmek/receipts")["data"] == [receipt]
    shown = saker_command(own_saker, "receipt", "show", receipt["id"]).stdout
    assert receipt["dataKeysSha256"] in shown and "mine.books" in shown
    assert saker_command(own_saker, "receipt", "show", "none").returncode == 1

    client.use_database("default")
    client.drop_database("mine")
    newest, older = command(own_saker, "receipt", "list")
    assert older == receipt
    assert newest["kind"] == "database" and newest["database"] == "mine" and newest["collection"] is None
    (key,) = newest["zoneKeys"]
    assert key["root"] == arn and key["zone"] == receipt["zone"] and key["version"] == 1
    assert len(key["wrappedSha256"]) == 64
    assert own_saker.stop() == 0
    own_saker.start()
    connect(own_saker)
    assert command(own_saker, "receipt", "list") == [newest, older]


def test_no_two_drops_have_the_same_hashes(own_saker: Saker) -> None:
    """A second collection, identical in content, has other keys, and so other hashes."""
    arn, own_key = new_key(own_saker), new_key(own_saker)
    client = sealed_database(own_saker, "mine", arn)
    hashes = set()
    for _ in range(2):
        OwnLibrary(client, own_key)
        client.drop_collection("own")
        receipt = command(own_saker, "receipt", "list")[0]
        assert receipt["root"] == own_key
        (key,) = receipt["zoneKeys"]
        assert key["root"] == own_key and key["zone"] == receipt["zone"]
        hashes |= {receipt["dataKeysSha256"], key["wrappedSha256"]}
    assert len(hashes) == 4
    # Nobody uses that key any more.
    assert own_key not in [key["key"] for key in command(own_saker, "key", "list")]
