"""A database under a customer's key: the switch that turns it dark, and what a key may be."""

from __future__ import annotations

import time

import pytest
import requests
from conftest import eventually, row, simple_collection
from pymilvus import MilvusClient, MilvusException

REFUSAL = "access has been disabled by the administrator: kms key revoked or disabled"


def new_key(saker) -> str:
    return saker.kms().create_key()["KeyMetadata"]["Arn"]


def encrypted(client: MilvusClient, name: str, arn: str) -> None:
    client.create_database(name, properties={"cipher.enabled": "true", "cipher.key": arn})


def search(client: MilvusClient):
    return client.search("books", data=[row(3)["vector"]], limit=1)[0][0]["id"]


def is_dark(client: MilvusClient):
    try:
        search(client)
    except MilvusException as error:
        return error
    return None


def test_properties(client: MilvusClient, saker, name: str) -> None:
    arn = new_key(saker)
    encrypted(client, name, arn)
    shown = client.describe_database(name)
    assert (shown["cipher.enabled"], shown["cipher.key"]) == ("true", arn) and shown["cipher.ezID"]
    for change in ({"cipher.key": new_key(saker)}, {"cipher.enabled": "false"}):
        with pytest.raises(MilvusException):
            client.alter_database_properties(name, change)
    client.drop_database(name)


def test_kill_switch(client: MilvusClient, saker, name: str) -> None:
    arn = new_key(saker)
    encrypted(client, name, arn)
    inside = saker.client(db_name=name)
    simple_collection(inside, "books", rows=50)
    inside.flush("books")
    inside.insert("books", [row(50)])
    other = f"{name}_other"
    simple_collection(client, other, rows=5)

    saker.kms().disable_key(KeyId=arn)
    disabled = time.monotonic()
    error = eventually(lambda: is_dark(inside), seconds=10)
    assert time.monotonic() - disabled < 10
    assert error.code == 9 and error.compatible_code == 48 and REFUSAL in error.message
    assert name in error.message and arn in error.message
    for call in (
        lambda: inside.query("books", filter="id > 0"),
        lambda: inside.insert("books", [row(99)]),
        lambda: inside.delete("books", ids=[1]),
        lambda: inside.flush("books"),
    ):
        with pytest.raises(MilvusException, match=REFUSAL):
            call()
    # Names can be read, other databases do not notice.
    assert inside.list_collections() == ["books"] and name in client.list_databases()
    assert client.search(other, data=[row(3)["vector"]], limit=1)[0][0]["id"] == 3
    states = {key["key"]: key["state"] for key in requests.get(f"{saker.uri}/v2/cmek/keys", timeout=10).json()["data"]}
    assert states[arn] == "locked"

    saker.kms().enable_key(KeyId=arn)
    eventually(lambda: is_dark(inside) is None, seconds=20)
    assert search(inside) == 3
    assert inside.query("books", filter="", output_fields=["count(*)"])[0]["count(*)"] == 51
    client.drop_collection(other)


def test_a_check_takes_effect_at_once(client: MilvusClient, saker, name: str) -> None:
    arn = new_key(saker)
    encrypted(client, name, arn)
    inside = saker.client(db_name=name)
    simple_collection(inside, "books", rows=5)
    saker.kms().disable_key(KeyId=arn)
    answer = requests.post(f"{saker.uri}/v2/cmek/keys/check", timeout=30).json()
    assert {key["key"]: key["state"] for key in answer["data"]}[arn] == "locked"
    assert REFUSAL in is_dark(inside).message
    saker.kms().enable_key(KeyId=arn)
    answer = requests.post(f"{saker.uri}/v2/cmek/keys/check", timeout=30).json()
    assert {key["key"]: key["state"] for key in answer["data"]}[arn] == "active"
    eventually(lambda: is_dark(inside) is None, seconds=10)


def test_keys_that_cannot_be_used(client: MilvusClient, saker, name: str) -> None:
    disabled = new_key(saker)
    saker.kms().disable_key(KeyId=disabled)
    unknown = "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-4000-8000-000000000000"
    for arn in (disabled, unknown, "arn:aws:kms:nonsense", "not a key", "arn:aws:kms:us-east-1:000000000000:alias/a"):
        with pytest.raises(MilvusException) as refusal:
            encrypted(client, name, arn)
        assert refusal.value.code == 1100, str(refusal.value)
        assert name not in client.list_databases()
    with pytest.raises(MilvusException):
        client.create_database(name, properties={"cipher.enabled": "perhaps"})
    assert name not in client.list_databases()


def test_a_key_that_will_be_deleted(client: MilvusClient, saker, name: str) -> None:
    arn = new_key(saker)
    encrypted(client, name, arn)
    inside = saker.client(db_name=name)
    simple_collection(inside, "books", rows=5)
    saker.kms().schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    eventually(lambda: is_dark(inside), seconds=10)
    saker.kms().cancel_key_deletion(KeyId=arn)
    saker.kms().enable_key(KeyId=arn)
    eventually(lambda: is_dark(inside) is None, seconds=20)


def test_a_restart_while_the_key_is_disabled(own_saker) -> None:
    client = own_saker.client()
    arn = new_key(own_saker)
    encrypted(client, "dark", arn)
    inside = own_saker.client(db_name="dark")
    simple_collection(inside, "books", rows=20)
    simple_collection(client, "open", rows=5)
    own_saker.kms().disable_key(KeyId=arn)
    assert own_saker.stop() == 0
    own_saker.start()
    client, inside = own_saker.client(), own_saker.client(db_name="dark")
    client.load_collection("open")
    eventually(lambda: client.search("open", data=[row(3)["vector"]], limit=1)[0][0]["id"] == 3)
    assert REFUSAL in is_dark(inside).message
    own_saker.kms().enable_key(KeyId=arn)
    eventually(lambda: is_dark(inside) is None, seconds=20)
    assert search(inside) == 3
