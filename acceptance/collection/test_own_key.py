"""A collection with a key of its own beside its database's."""

from __future__ import annotations

import pytest
from conftest import Saker
from promise.steps import (
    REFUSAL,
    Library,
    connect,
    new_key,
    sealed_database,
    wait_until_back,
    wait_until_dark,
)
from pymilvus import DataType, MilvusException

from .steps import OwnLibrary, check_now, command, rest


def test_each_key_darkens_its_own_data_alone(own_saker: Saker) -> None:
    kms = own_saker.kms()
    database_key, own_key = new_key(own_saker), new_key(own_saker)
    client = sealed_database(own_saker, "mine", database_key)
    plain, own = Library(client), OwnLibrary(client, own_key)
    for dark, bright, arn in ((own, plain, own_key), (plain, own, database_key)):
        kms.disable_key(KeyId=arn)
        check_now(own_saker)
        error = wait_until_dark(dark, client)
        assert arn in error.message and "[database=mine]" in error.message
        assert ("[collection=own]" in error.message) == (dark is own)
        bright.check(client)
        client.upsert(bright.name, [bright.row(0)])
        bright.check(client)
        # What reads names alone works.
        assert sorted(client.list_collections()) == ["books", "own"]
        assert client.get_load_state(dark.name)["state"].name == "NotLoad"
        assert client.get_load_state(bright.name)["state"].name == "Loaded"
        kms.enable_key(KeyId=arn)
        check_now(own_saker)
        wait_until_back(dark, client)
        dark.check(client)
    # After a restart under a disabled key, too.
    kms.disable_key(KeyId=own_key)
    assert own_saker.stop() == 0
    own_saker.start()
    client = connect(own_saker, db_name="mine")
    wait_until_back(plain, client)
    plain.check(client)
    assert own_key in wait_until_dark(own, client).message
    own_saker.kms().enable_key(KeyId=own_key)
    check_now(own_saker)
    wait_until_back(own, client)
    own.check(client)


def test_what_is_shown_and_what_is_refused(own_saker: Saker) -> None:
    database_key, own_key = new_key(own_saker), new_key(own_saker)
    client = sealed_database(own_saker, "mine", database_key)
    own = OwnLibrary(client, own_key)
    shown = client.describe_collection(own.name)["properties"]
    assert shown["cipher.enabled"] == "true" and shown["cipher.key"] == own_key
    assert shown["cipher.ezID"] != client.describe_database("mine")["cipher.ezID"]
    users = {key["key"]: key["databases"] for key in command(own_saker, "key", "list")}
    assert users[own_key] == ["mine/own"] and users[database_key] == ["mine"]

    def create(name: str, **properties: str) -> None:
        schema = client.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
        client.create_collection(name, schema=schema, properties={key.replace("_", "."): value for key, value in properties.items()})

    refused = [
        {"cipher_enabled": "false", "cipher_key": own_key},
        {"cipher_enabled": "true"},
        {"cipher_key": "alias/mine"},
        {"cipher_key": own_key[:-1] + "0" if own_key[-1] != "0" else own_key[:-1] + "1"},
    ]
    for properties in refused:
        with pytest.raises(MilvusException) as error:
            create("refused", **properties)
        assert error.value.code == 1100, str(error.value)
        assert "cipher" in error.value.message or "root key" in error.value.message
    assert client.list_collections() == ["own"]
    create("under_the_database", cipher_enabled="false")
    assert not any(key.startswith("cipher.") for key in client.describe_collection("under_the_database").get("properties", {}))

    with pytest.raises(MilvusException, match="can not alter cipher"):
        client.alter_collection_properties(own.name, properties={"cipher.key": database_key})
    with pytest.raises(MilvusException, match="can not alter cipher"):
        client.drop_collection_properties(own.name, property_keys=["cipher.enabled"])


def test_names_work_while_a_database_is_locked(own_saker: Saker) -> None:
    arn = new_key(own_saker)
    client = sealed_database(own_saker, "mine", arn)
    library = Library(client)
    own_saker.kms().disable_key(KeyId=arn)
    check_now(own_saker)
    error = wait_until_dark(library, client)
    assert client.list_databases() == ["default", "mine"]
    assert client.describe_database("mine")["cipher.key"] == arn
    assert client.list_collections() == [library.name]
    # pymilvus asks for the whole description here, which is sealed: it is told so, and not that there is nothing.
    with pytest.raises(MilvusException) as sealed:
        client.has_collection(library.name)
    assert sealed.value.code == 9 and REFUSAL in sealed.value.message
    assert not client.has_collection("none")
    assert client.get_load_state(library.name)["state"].name == "NotLoad"
    assert arn in error.message
    # Nothing of a definition is in the answer's place.
    states = rest(own_saker, "/v2/cmek/keys")["data"]
    assert next(state for state in states if state["key"] == arn)["state"] == "locked"
    client.drop_collection(library.name)
    assert client.list_collections() == [] and not client.has_collection(library.name)
    client.use_database("default")
    client.drop_database("mine")
    assert client.list_databases() == ["default"]
