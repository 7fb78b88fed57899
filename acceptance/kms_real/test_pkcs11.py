"""Databases under keys in an HSM (SoftHSM): the owner disables the key, takes it away, gives it back."""

from __future__ import annotations

from promise.steps import Library, connect, sealed_database, wait_until_back, wait_until_dark

from .conftest import PIN


def test_the_switch_of_an_hsm(hsm_saker, softhsm) -> None:
    mine, theirs = softhsm.new_key("mine"), softhsm.new_key("theirs")
    client = sealed_database(hsm_saker, "mine", mine)
    assert client.describe_database("mine")["cipher.key"] == mine
    library = Library(client)
    library.check(client)
    other = sealed_database(hsm_saker, "theirs", theirs)
    films = Library(other, "films", seed=2)

    # CKA_DECRYPT is false.
    softhsm.act("disable", "mine")
    error = wait_until_dark(library, client)
    assert mine in error.message and "disabled" in error.message
    films.check(other)
    softhsm.act("enable", "mine")
    wait_until_back(library, client)
    library.check(client)

    # The key object is gone.
    softhsm.act("remove", "mine")
    assert "does not exist" in wait_until_dark(library, client).message
    films.check(other)

    # A restart in the dark, and light without one.
    client.close()
    other.close()
    assert hsm_saker.stop() == 0
    hsm_saker.start()
    client, other = connect(hsm_saker, db_name="mine"), connect(hsm_saker, db_name="theirs")
    wait_until_dark(library, client)
    wait_until_back(films, other)
    softhsm.act("restore", "mine")
    wait_until_back(library, client)
    library.check(client)
    films.check(other)
    assert PIN not in hsm_saker.log_text()
