"""Nothing that was inserted can be read on the disk: looked for in every byte of everything that the product writes."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from conftest import Process, Saker, binary, eventually, free_port
from pymilvus import DataType, MilvusClient, MilvusException

from .canary import Canaries
from .steps import connect, count, new_key

DIM, ROWS = 8, 60


@pytest.fixture
def guarded(tmp_path):
    """A `saker dev` that asks for passwords and logs more than it does by default."""
    saker = Saker(tmp_path / "saker", "--auth", "--log-level", "debug")
    saker.start()
    yield saker
    saker.stop()


def collection_of_canaries(client: MilvusClient, canaries: Canaries) -> tuple[str, dict[str, str]]:
    """A collection of which every name is a canary, too."""
    name = canaries.word("collection name")
    fields = {kind: canaries.word(f"name of the field for {kind}") for kind in ("text", "json", "words", "vector")}
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True, description=canaries.word("description"))
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field(fields["text"], DataType.VARCHAR, max_length=200, description=canaries.word("field description"))
    schema.add_field(fields["json"], DataType.JSON)
    schema.add_field(fields["words"], DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=64)
    schema.add_field(fields["vector"], DataType.FLOAT_VECTOR, dim=DIM)
    index = client.prepare_index_params()
    index.add_index(fields["vector"], index_name=canaries.word("index name"), index_type="HNSW", metric_type="COSINE")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
    client.create_alias(name, canaries.word("alias"))
    client.create_partition(name, canaries.word("partition name"))
    return name, fields


def row_of_canaries(canaries: Canaries, fields: dict[str, str]) -> dict:
    return {
        "id": canaries.word("primary key"),
        fields["text"]: f"before {canaries.word('text')} after",
        fields["json"]: {canaries.word("JSON key"): [canaries.word("JSON value")]},
        fields["words"]: [canaries.word("array element"), canaries.word("array element")],
        fields["vector"]: canaries.vector(DIM),
        canaries.word("dynamic key"): canaries.word("dynamic value"),
    }


def use_everything(client: MilvusClient, collection: str, fields: dict[str, str], rows: list[dict], canaries: Canaries) -> None:
    """Requests that carry canaries: those that are answered, and those that are refused."""
    text, vector = fields["text"], fields["vector"]
    condition = f'{text} == "{rows[7][text]}"'
    assert len(client.query(collection, filter=condition, output_fields=["*"])) == 1
    assert client.query(collection, filter=f'{text} like "%{canaries.word("filter")}%"') == []
    assert client.search(collection, [rows[3][vector]], limit=1)[0][0]["id"] == rows[3]["id"]
    client.search(collection, [canaries.vector(DIM)], limit=3, filter=f'{text} != "{canaries.word("search filter")}"')
    assert client.query(collection, filter=f'{canaries.word("unknown dynamic key")} > 3') == []
    template = {"wanted": [canaries.word("filter template")]}
    client.query(collection, filter=f"{text} in {{wanted}}", filter_params=template)
    client.upsert(collection, [{**rows[9], text: canaries.word("upserted text")}])
    client.delete(collection, ids=[rows[1]["id"], canaries.word("deleted key that is not there")])
    client.delete(collection, filter=f'{text} == "{rows[2][text]}"')
    for refused in (
        lambda: client.query(collection, filter=f'{text} === "{canaries.word("bad filter")}"'),
        lambda: client.delete(collection, filter=f'{text} and "{canaries.word("bad delete")}"'),
        lambda: client.insert(collection, [{**rows[0], text: canaries.word("too long text") * 20}]),
        lambda: client.search(collection, [[*canaries.vector(DIM), 1.0]], limit=1),
    ):
        with pytest.raises(MilvusException):
            refused()


def test_nothing_inserted_is_readable(guarded: Saker) -> None:
    canaries = Canaries()
    root = connect(guarded, token="root:Milvus")
    password = canaries.word("password")
    root.update_password("root", "Milvus", password)
    root = connect(guarded, token=f"root:{password}")
    user, user_password = canaries.word("user name"), canaries.word("password of the user")
    root.create_user(user, user_password)
    with pytest.raises(MilvusException):
        guarded.client(user=user, password=canaries.word("wrong password"), timeout=5)
    arn = new_key(guarded)
    root.create_database("mine", properties={"cipher.enabled": "true", "cipher.key": arn})
    # The platform's own databases are sealed just the same.
    for database in ("mine", "default"):
        client = connect(guarded, user=user, password=user_password, db_name=database)
        collection, fields = collection_of_canaries(client, canaries)
        rows = [row_of_canaries(canaries, fields) for _ in range(ROWS)]
        client.insert(collection, rows)
        assert canaries.found(guarded.directory, guarded.log) == []
        use_everything(client, collection, fields, rows, canaries)
        assert canaries.found(guarded.directory, guarded.log) == []
        client.flush(collection)
        client.delete(collection, ids=[rows[4]["id"]])
        client.flush(collection)
        assert count(client, collection) == ROWS - 3
        assert any((guarded.directory / "data" / "objects").rglob("*-*"))
        client.insert(collection, [row_of_canaries(canaries, fields)])
    guarded.kms().disable_key(KeyId=arn)
    assert canaries.found(guarded.directory, guarded.log) == []
    guarded.kill()
    assert canaries.found(guarded.directory, guarded.log) == []
    guarded.start()
    assert guarded.stop() == 0
    assert canaries.found(guarded.directory, guarded.log) == []
    assert " DEBUG " in guarded.log_text()


def saker_says(saker: Saker, *arguments: str) -> str:
    """What a command that asks the running server prints."""
    command = [binary(), *arguments, "--url", saker.uri]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout + outcome.stderr


def evidence_of(saker: Saker, target: Path) -> str:
    """An evidence report on the stopped server's directory; what the command prints."""
    port, directory = free_port(), saker.directory
    options = ["--dir", str(directory / "kms"), "--port", str(port), "--credentials", str(directory / "aws-credentials")]
    key_server = Process(["kms", "serve", *options], directory.with_suffix(".kms.log"))
    key_server.start()
    try:
        command = [binary(), "verify", "--dir", str(directory / "data"), "--evidence", str(target), "--names"]
        command += ["--kms-endpoint", f"http://127.0.0.1:{port}"]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout + outcome.stderr
    finally:
        assert key_server.stop() == 0


def test_nothing_inserted_is_readable_after_all_that_keys_can_do(tmp_path: Path) -> None:
    """Own keys, moves, rotation, a change of root key, re-encryption, receipts, audit log, log of requests, evidence.

    `names` may be told to whoever is allowed to ask, `rows` to nobody but the client that asks for rows."""
    saker = Saker(tmp_path / "saker", "--access-log", "--log-level", "debug")
    saker.start()
    names, rows = Canaries(), Canaries()
    said: list[str] = []

    def nothing_leaked() -> None:
        for canaries in (names, rows):
            assert canaries.found(saker.directory, saker.log) == []

    try:
        arns = [new_key(saker) for _ in range(3)]
        root = connect(saker)
        for database, arn in zip(("ours", "theirs"), arns, strict=False):
            root.create_database(database, properties={"cipher.enabled": "true", "cipher.key": arn})
        client = connect(saker, db_name="ours")
        collection, fields = collection_of_canaries(client, names)
        written = [row_of_canaries(rows, fields) for _ in range(ROWS)]
        client.insert(collection, written[: ROWS // 2])
        client.flush(collection)
        client.insert(collection, written[ROWS // 2 :])
        client.delete(collection, ids=[written[0]["id"]])
        # One with a key of its own beside it.
        schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="L2")
        own = names.word("collection with a key of its own")
        client.create_collection(own, schema=schema, index_params=index, properties={"cipher.key": arns[2]})
        own_rows = [
            {"id": rows.word("own key"), "vector": rows.vector(DIM), rows.word("own dynamic key"): rows.word("own value")}
            for _ in range(ROWS)
        ]
        client.insert(own, own_rows)
        client.flush(own)
        nothing_leaked()

        for arguments in (
            ("key", "rotate", "--database", "ours", "--wait"),
            ("key", "rewrap", "--key", arns[0], "--wait"),
            ("key", "reencrypt", "--database", "ours", "--wait"),
            ("key", "change", "--database", "theirs", "--to", arns[2], "--wait"),
        ):
            said.append(saker_says(saker, *arguments))
            client.insert(collection, [row_of_canaries(rows, fields)])
            nothing_leaked()
        for alias in client.list_aliases(collection)["aliases"]:
            client.drop_alias(alias)
        moved = names.word("name after the move")
        said.append(saker_says(saker, "collection", "move", f"ours.{collection}", "--to", "theirs", "--name", moved))
        there = connect(saker, db_name="theirs")
        assert count(there, moved) == ROWS - 1 + 4
        there.flush(moved)
        nothing_leaked()

        # Refusals, with rows in the request and with the key away.
        with pytest.raises(MilvusException) as refusal:
            there.insert(moved, [{**row_of_canaries(rows, fields), fields["text"]: rows.word("too long") * 20}])
        said.append(str(refusal.value))
        with pytest.raises(MilvusException) as refusal:
            there.query(moved, filter=f'{fields["text"]} === "{rows.word("bad filter")}"')
        said.append(str(refusal.value))
        saker.kms().disable_key(KeyId=arns[2])

        def refused() -> str | None:
            try:
                there.query(moved, filter=f'{fields["text"]} == "{rows.word("filter in the dark")}"')
            except MilvusException as error:
                return str(error)
            return None

        said.append(eventually(refused, seconds=30))
        nothing_leaked()
        saker.kms().enable_key(KeyId=arns[2])
        eventually(lambda: refused() is None, seconds=60)

        client.drop_collection(own)
        there.drop_collection(moved)
        for arguments in (("audit", "tail"), ("audit", "access"), ("key", "list"), ("key", "jobs"), ("receipt", "list")):
            said.append(saker_says(saker, *arguments))
        for path in ("/metrics", "/v2/cmek/keys", "/v2/cmek/jobs"):
            with urllib.request.urlopen(f"{saker.uri}{path}", timeout=30) as answer:
                said.append(answer.read().decode())
        nothing_leaked()
        saker.kill()
        saker.start()
        assert saker.stop() == 0
        nothing_leaked()
        said.append(evidence_of(saker, tmp_path / "evidence"))
        # A backup of the metadata, as an operator would make one.
        backup = tmp_path / "backup.redb"
        shutil.copy(saker.directory / "data" / "meta.redb", backup)
        assert backup.stat().st_size > 10_000
    finally:
        saker.stop()
    for canaries in (names, rows):
        assert canaries.found(backup) == []
    said_file = tmp_path / "said"
    said_file.write_text("\n".join(said))
    assert said_file.stat().st_size > 2_000
    assert rows.found(tmp_path) == []


def test_a_word_in_the_clear_is_found(guarded: Saker) -> None:
    """The search above is worth something only if it finds what is there."""
    arn = new_key(guarded)
    canaries = Canaries()
    canaries.words[arn] = "the ARN"
    # The key server's log of calls has it in the clear, as it should.
    assert any("the ARN in " in hit and "cloudtrail.jsonl" in hit for hit in canaries.found(guarded.directory))
    canaries = Canaries()
    word, vector = canaries.word("text"), canaries.vector(DIM)
    planted = guarded.directory / "data" / "objects" / "planted"
    planted.parent.mkdir(exist_ok=True)
    assert canaries.found(guarded.directory) == []
    for needle in canaries.needles():
        planted.write_bytes(os.urandom(1001) + needle + os.urandom(77))
        assert len(canaries.found(guarded.directory)) == 1
    for text in (word, f"ab{word}", f"a{word}bc"):
        planted.write_bytes(base64.b64encode(text.encode()))
        assert canaries.found(guarded.directory) == [f"text in base64 in {planted}"]
    planted.write_bytes(b"abc" + canaries.vectors[0].tobytes())
    assert len(canaries.found(guarded.directory)) == DIM // 2
    assert len(vector) == DIM
    planted.unlink()
    named = planted.with_name(word)
    named.write_bytes(b"")
    assert len(canaries.found(guarded.directory)) == 1
    named.unlink()
