"""Databases under keys of a real OpenBao: rows, answers, and every way in which its owner takes a key away."""

from __future__ import annotations

import subprocess

import pytest
from conftest import binary
from promise.steps import Library, connect, sealed_database, wait_until_back, wait_until_dark
from pymilvus import MilvusException

from .conftest import ROOT_TOKEN


def test_the_switch_of_openbao(vault_saker, bao) -> None:
    mine, theirs = bao.new_key("mine"), bao.new_key("theirs")
    bao.allow("mine", "theirs")
    client = sealed_database(vault_saker, "mine", mine)
    assert client.describe_database("mine")["cipher.key"] == mine
    library = Library(client)
    library.check(client)
    other = sealed_database(vault_saker, "theirs", theirs)
    films = Library(other, "films", seed=2)

    # The policy no longer allows this key.
    bao.allow("theirs")
    error = wait_until_dark(library, client)
    assert mine in error.message and "denied" in error.message
    films.check(other)
    bao.allow("mine", "theirs")
    wait_until_back(library, client)
    library.check(client)

    # The key itself is taken away, and given back.
    bao.run("delete", "transit/keys/mine/soft-delete")
    assert "disabled" in wait_until_dark(library, client).message
    films.check(other)
    bao.run("write", "-f", "transit/keys/mine/soft-delete-restore")
    wait_until_back(library, client)
    library.check(client)

    # New material; the old is ruled out before the zone's key was wrapped anew, and allowed again.
    bao.run("write", "-f", "transit/keys/mine/rotate")
    library.check(client)
    bao.run("write", "transit/keys/mine/config", "min_decryption_version=2")
    wait_until_dark(library, client)
    films.check(other)
    bao.run("write", "transit/keys/mine/config", "min_decryption_version=1")
    wait_until_back(library, client)
    library.check(client)

    # All of the server is sealed: served for the grace period, then dark; and back.
    bao.run("operator", "seal")
    wait_until_dark(library, client, seconds=30)
    wait_until_dark(films, other, seconds=30)
    bao.run("operator", "unseal", bao.unseal_key)
    wait_until_back(library, client, seconds=40)
    wait_until_back(films, other, seconds=40)
    library.check(client)
    films.check(other)

    # A restart in the dark, and light without one.
    client.close()
    other.close()
    bao.allow("theirs")
    assert vault_saker.stop() == 0
    vault_saker.start()
    client, other = connect(vault_saker, db_name="mine"), connect(vault_saker, db_name="theirs")
    wait_until_dark(library, client)
    wait_until_back(films, other)
    bao.allow("mine", "theirs")
    wait_until_back(library, client)
    library.check(client)

    # Offline, with the same settings: every byte is under the two keys, the platform's aside.
    client.close()
    other.close()
    assert vault_saker.stop() == 0
    command = [binary(), "verify", "--config", str(vault_saker.directory / "saker.toml"), "--json"]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr

    # Nothing but the two operations was asked, and no secret stands in a log.
    log = vault_saker.log_text()
    assert bao.secret_id not in log and ROOT_TOKEN not in log and "vault:v1:" not in log
    paths = {record["request"]["path"] for record in bao.requests()}
    assert paths == {f"transit/{what}/{key}" for what in ("datakey/plaintext", "decrypt") for key in ("mine", "theirs")}


def test_keys_that_cannot_be_used_are_refused(vault_saker, bao) -> None:
    bao.allow("mine", "signing")
    client = connect(vault_saker)
    bao.run("write", "transit/keys/signing", "type=ed25519")
    bao.new_key("unlisted")
    for key, reason in [("mine", "exist"), ("unlisted", "denied"), ("signing", "state"), ("../mine", "malformed")]:
        with pytest.raises(MilvusException, match=reason):
            client.create_database("refused", properties={"cipher.enabled": "true", "cipher.key": f"vault://transit/{key}"})
    with pytest.raises(MilvusException, match="kms.pkcs11"):
        properties = {"cipher.enabled": "true", "cipher.key": "pkcs11:token=t;object=o"}
        client.create_database("refused", properties=properties)
    assert "refused" not in client.list_databases()
