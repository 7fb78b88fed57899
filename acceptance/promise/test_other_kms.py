"""Key services that we did not write in place of the local key server: the walk, and the switch where they have one."""

from __future__ import annotations

import time

import pytest
from conftest import Saker
from pymilvus import MilvusClient, MilvusException

from .steps import REFUSAL, Library, connect, count, new_key, sealed_database, wait_until_back, wait_until_dark

MOTO, MINISTACK = "SAKER_TEST_MOTO", "SAKER_TEST_MINISTACK"


def walk(saker: Saker) -> tuple[str, Library, MilvusClient]:
    """Key, database, rows, answers, restart, the same answers."""
    arn = new_key(saker)
    client = sealed_database(saker, "mine", arn)
    shown = client.describe_database("mine")
    assert (shown["cipher.enabled"], shown["cipher.key"]) == ("true", arn)
    library = Library(client)
    library.check(client)
    client.close()
    assert saker.stop() == 0
    saker.start()
    client = connect(saker, db_name="mine")
    wait_until_back(library, client)
    library.check(client)
    client.insert(library.name, [{**library.row(0), "id": 9_000, "vector": [50.0] * 16}])
    client.delete(library.name, ids=[9_000])
    library.check(client)
    return arn, library, client


def nothing_is_answered(library: Library, client: MilvusClient, seconds: float) -> None:
    until = time.monotonic() + seconds
    refused = 0
    while time.monotonic() < until:
        for call in (
            lambda: client.search(library.name, [library.vectors[1].tolist()], limit=1),
            lambda: client.query(library.name, filter="id >= 0", output_fields=["text"], limit=1),
            lambda: client.get(library.name, ids=[1]),
            lambda: count(client, library.name),
            lambda: client.insert(library.name, [library.row(0)]),
            lambda: client.delete(library.name, ids=[1]),
        ):
            with pytest.raises(MilvusException, match=REFUSAL):
                call()
            refused += 1
        time.sleep(0.05)
    assert refused > 30


@pytest.mark.parametrize("variable", [MOTO, MINISTACK])
def test_walk(elsewhere, variable: str) -> None:
    saker = elsewhere(variable)
    arn, library, client = walk(saker)
    # A second key and database beside the first.
    other = new_key(saker)
    assert other != arn
    second = sealed_database(saker, "second", other)
    another = Library(second, "films", seed=2)
    another.check(second)
    library.check(client)
    second.drop_collection("films")
    second.use_database("default")
    second.drop_database("second")
    library.check(client)
    # A key that this service does not have.
    with pytest.raises(MilvusException, match="does not exist") as refusal:
        sealed_database(saker, "third", arn[:-12] + "0" * 12)
    assert refusal.value.code == 1100 and "third" not in client.list_databases()


def test_switch_of_ministack(elsewhere) -> None:
    saker = elsewhere(MINISTACK)
    arn, library, client = walk(saker)
    kms = saker.kms()

    kms.disable_key(KeyId=arn)
    error = wait_until_dark(library, client)
    assert arn in error.message and "mine" in error.message
    nothing_is_answered(library, client, seconds=6)
    assert client.list_collections() == [library.name]
    kms.enable_key(KeyId=arn)
    wait_until_back(library, client)
    library.check(client)

    kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    wait_until_dark(library, client)
    nothing_is_answered(library, client, seconds=2)
    kms.cancel_key_deletion(KeyId=arn)
    kms.enable_key(KeyId=arn)
    wait_until_back(library, client)
    library.check(client)


def test_a_restart_in_the_dark_with_ministack(elsewhere) -> None:
    saker = elsewhere(MINISTACK)
    arn, library, client = walk(saker)
    client.close()
    saker.kms().disable_key(KeyId=arn)
    assert saker.stop() == 0
    saker.start()
    client = connect(saker, db_name="mine")
    wait_until_dark(library, client)
    nothing_is_answered(library, client, seconds=2)
    saker.kms().enable_key(KeyId=arn)
    wait_until_back(library, client)
    library.check(client)
