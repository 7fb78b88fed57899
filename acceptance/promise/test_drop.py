"""Dropping destroys the keys: on the disk itself, and for copies that somebody took before."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest
from conftest import Saker
from pymilvus import MilvusException

from .steps import Library, connect, new_key, sealed_database, wait_until_back

HEADER_BYTES = 192
MAGIC = b"\x93SAKER\r\n"
PAGE_BYTES = 4096


def sealed_files(data: Path) -> set[Path]:
    """Files of collections. (The audit log stays when they go.)"""
    return {path for part in ("objects", "log") for path in (data / part).rglob("*") if path.is_file() and "audit" not in path.parts}


def header(path: Path) -> bytes:
    """The sealed header with the wrapped data key, wherever in the file it starts."""
    content = path.read_bytes()
    start = content.find(MAGIC)
    assert 0 <= start < PAGE_BYTES, path
    return content[start : start + HEADER_BYTES]


def records(metadata: Path, prefix: bytes) -> dict[bytes, bytes]:
    """Keys and sealed values in the leaf pages of a redb file (its format for keys and values of any length), whether
    the pages are in use or were given up."""
    content, found = metadata.read_bytes(), {}
    for page in range(0, len(content), PAGE_BYTES):
        kind, _, entries = struct.unpack_from("<BBH", content, page)
        keys_start = page + 4 + 8 * entries
        if kind != 1 or not 0 < entries < 500 or keys_start > len(content):
            continue
        ends = struct.unpack_from(f"<{2 * entries}I", content, page + 4)
        starts = [keys_start - page, *ends[:-1]]
        parts = [content[page + start : page + end] for start, end in zip(starts, ends, strict=True)]
        for key, value in zip(parts[:entries], parts[entries:], strict=True):
            if key.startswith(prefix) and value.startswith(MAGIC):
                found[key] = value
    return found


@pytest.fixture
def kept(tmp_path: Path):
    """Keeps hold of files beyond their removal: their bytes as they were, and a link that shows what became of them."""

    def keep(files: set[Path]) -> tuple[dict[Path, bytes], dict[Path, Path]]:
        folder = tmp_path / "links"
        folder.mkdir()
        links = {}
        for number, path in enumerate(sorted(files)):
            links[path] = folder / str(number)
            os.link(path, links[path])
        return {path: path.read_bytes() for path in files}, links

    return keep


def test_a_dropped_collection_is_shredded(own_saker: Saker, kept) -> None:
    data = own_saker.directory / "data"
    client = sealed_database(own_saker, "mine", new_key(own_saker))
    library = Library(client)
    staying = sealed_files(data)
    Library(client, "films", seed=2)
    going = sealed_files(data) - staying
    assert {path.relative_to(data).parts[0] for path in going} == {"objects", "log"}
    copies, links = kept(going)
    headers = {path: header(path) for path in going}
    client.drop_collection("films")
    assert sealed_files(data) == staying
    for path, link in links.items():
        assert headers[path] not in link.read_bytes(), f"{path.name} was removed, but its key was not overwritten"

    # Whoever puts the copies back gets nothing for it; not even a new collection of that name takes them.
    assert own_saker.stop() == 0
    for path, content in copies.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    own_saker.start()
    client = connect(own_saker, db_name="mine")
    assert client.list_collections() == ["books"]
    with pytest.raises(MilvusException, match="collection not found"):
        client.describe_collection("films")
    wait_until_back(library, client)
    library.check(client)
    films = Library(client, "films", seed=3)
    films.check(client)


def test_a_dropped_database_has_no_keys_left(own_saker: Saker) -> None:
    data = own_saker.directory / "data"
    metadata = data / "meta.redb"
    arn = new_key(own_saker)
    assert own_saker.stop() == 0
    before = records(metadata, b"database/")
    assert len(before) == 1
    own_saker.start()
    client = sealed_database(own_saker, "mine", arn)
    Library(client)
    assert own_saker.stop() == 0
    (record,) = (value for key, value in records(metadata, b"database/").items() if key not in before)
    assert record in metadata.read_bytes()
    copies = {path: path.read_bytes() for path in sealed_files(data)}
    own_saker.start()
    client = connect(own_saker, db_name="mine")
    client.drop_collection("books")
    client.use_database("default")
    client.drop_database("mine")
    assert client.list_databases() == ["default"] and not sealed_files(data)
    assert own_saker.stop() == 0
    # The wrapped zone key, made unreachable, must also be unreadable: not even in a page that was given up.
    lingers = record[:HEADER_BYTES] in metadata.read_bytes()
    assert not lingers, "the wrapped zone key is still in the metadata file"

    # The copies with the metadata of after the drop: there is no such database, and one made anew is another zone.
    for path, content in copies.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    own_saker.start()
    client = connect(own_saker)
    assert client.list_databases() == ["default"]
    client = sealed_database(own_saker, "mine", arn)
    assert client.list_collections() == []
    library = Library(client, seed=5)
    library.check(client)


def test_a_new_collection_does_not_take_files_of_the_old(own_saker: Saker) -> None:
    data = own_saker.directory / "data"
    client = sealed_database(own_saker, "mine", new_key(own_saker))
    Library(client, rows=250)
    old = sorted(path for path in sealed_files(data) if path.relative_to(data).parts[0] == "objects")
    copies = [path.read_bytes() for path in old]
    client.drop_collection("books")
    library = Library(client, rows=250, seed=2)
    new = sorted(path for path in sealed_files(data) if path.relative_to(data).parts[0] == "objects")
    assert len(new) == len(old)
    assert own_saker.stop() == 0
    whole = own_saker.directory / "whole"
    shutil.copytree(data, whole)
    for target in new:
        for content in copies:
            if len(content) == target.stat().st_size:
                target.write_bytes(content)
    own_saker.start()
    client = connect(own_saker, db_name="mine")
    for _ in range(20):
        assert library.refusal(client), "a search is answered from files of a dropped collection"
    assert own_saker.stop() == 0
    shutil.rmtree(data)
    shutil.copytree(whole, data)
    own_saker.start()
    client = connect(own_saker, db_name="mine")
    wait_until_back(library, client)
    library.check(client)
