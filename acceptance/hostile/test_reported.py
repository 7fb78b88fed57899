"""What users of other databases with customer-managed keys ran into, as tests: each is named for what must not happen."""

from __future__ import annotations

import shutil
import time

import pytest
from conftest import Saker, eventually
from promise.steps import REFUSAL
from pymilvus import MilvusException

from .steps import (
    Library,
    calls_since,
    connect,
    key_policy,
    new_key,
    now,
    sealed_database,
    wait_until_back,
    wait_until_dark,
)


def refused(work) -> None:
    with pytest.raises(MilvusException) as error:
        work()
    assert REFUSAL in error.value.message, str(error.value)


def test_search_does_not_go_on_after_decrypt_was_taken_out_of_the_policy(own_saker: Saker) -> None:
    """Not a disabled key: the policy lost one of its two actions, and the other one goes on working."""
    arn = new_key(own_saker)
    client = sealed_database(own_saker, "mine", arn)
    library = Library(client)
    key_policy(own_saker, arn, ["kms:GenerateDataKey"])
    wait_until_dark(library, client)
    for _ in range(10):
        assert library.refusal(client)
        refused(lambda: client.query("books", filter="id == 1", output_fields=["*"]))
        refused(lambda: client.get("books", ids=[1]))
        refused(lambda: client.insert("books", [{**library.row(0), "id": 9_000}]))
        refused(lambda: client.delete("books", ids=[1]))
        time.sleep(0.2)
    # A client that connects only now is told the same.
    late = connect(own_saker, db_name="mine")
    assert library.refusal(late)
    key_policy(own_saker, arn, ["kms:GenerateDataKey", "kms:Decrypt"])
    wait_until_back(library, client, seconds=40)
    library.check(client)


def test_a_policy_that_denies_one_database_is_not_missed_and_not_for_all(own_saker: Saker) -> None:
    """The key's owner takes one database away by its encryption context; the others under the key go on."""
    arn = new_key(own_saker)
    names = ("first", "second", "third")
    clients = {name: sealed_database(own_saker, name, arn) for name in names}
    libraries = {name: Library(client, rows=60, flushed=50) for name, client in clients.items()}
    both = ["kms:GenerateDataKey", "kms:Decrypt"]
    for denied in ("second", "first"):
        zone = clients[denied].describe_database(denied)["cipher.ezID"]
        condition = {"StringEquals": {"kms:EncryptionContext:saker:database": zone}}
        deny = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "kms:Decrypt", "Resource": "*"}
        key_policy(own_saker, arn, both, deny | {"Condition": condition})
        # Each of the three is asked about in turn.
        wait_until_dark(libraries[denied], clients[denied], seconds=30)
        time.sleep(6)
        for name in names:
            if name == denied:
                assert libraries[name].refusal(clients[name])
            else:
                libraries[name].check(clients[name])
        key_policy(own_saker, arn, both)
        wait_until_back(libraries[denied], clients[denied], seconds=60)
        libraries[denied].check(clients[denied])


@pytest.mark.parametrize("state", ["disabled", "pending deletion", "denied"])
def test_one_tenants_key_does_not_keep_a_shared_node_from_starting(own_saker: Saker, state: str) -> None:
    arns = {name: new_key(own_saker) for name in ("ours", "theirs")}
    clients = {name: sealed_database(own_saker, name, arn) for name, arn in arns.items()}
    libraries = {name: Library(client, rows=60, flushed=50) for name, client in clients.items()}
    kms = own_saker.kms()
    if state == "disabled":
        kms.disable_key(KeyId=arns["ours"])
    elif state == "pending deletion":
        kms.schedule_key_deletion(KeyId=arns["ours"], PendingWindowInDays=7)
    else:
        key_policy(own_saker, arns["ours"], ["kms:GenerateDataKey"])
    # Not even the first time that the server hears of it.
    own_saker.kill()
    own_saker.start()
    theirs, ours = connect(own_saker, db_name="theirs"), connect(own_saker, db_name="ours")
    eventually(lambda: libraries["theirs"].refusal(theirs) is None, seconds=30)
    libraries["theirs"].check(theirs)
    error = libraries["ours"].refusal(ours)
    assert error and arns["ours"] in error.message
    assert "ours" in theirs.list_databases()
    # It comes back by itself, with everything in it.
    kms = own_saker.kms()
    if state == "pending deletion":
        kms.cancel_key_deletion(KeyId=arns["ours"])
    if state == "denied":
        key_policy(own_saker, arns["ours"], ["kms:GenerateDataKey", "kms:Decrypt"])
    else:
        kms.enable_key(KeyId=arns["ours"])
    wait_until_back(libraries["ours"], ours, seconds=40)
    libraries["ours"].check(ours)


def test_a_database_under_a_deleted_key_harms_nobody_and_can_be_dropped(own_saker: Saker) -> None:
    """The key is gone for good: its database stays dark and says why, also after a restart, until it is dropped."""
    arn = new_key(own_saker)
    client = sealed_database(own_saker, "lost", arn)
    library = Library(client, rows=60, flushed=50)
    plain = connect(own_saker)
    kept = Library(plain, "kept", rows=60, flushed=50)
    assert own_saker.stop() == 0
    # Another key server in the old one's place knows nothing of the key.
    shutil.rmtree(own_saker.directory / "kms")
    (own_saker.directory / "aws-credentials").unlink()
    own_saker.start()
    plain, client = connect(own_saker), connect(own_saker, db_name="lost")
    eventually(lambda: kept.refusal(plain) is None, seconds=30)
    kept.check(plain)
    error = eventually(lambda: library.refusal(client), seconds=30)
    assert "does not exist" in error.message and arn in error.message, str(error)
    place = now(own_saker)
    time.sleep(20)
    calls, intervals = calls_since(own_saker, place, arn)
    assert calls <= intervals * 1.2 + 2, f"{calls} calls in {intervals:.1f} intervals"
    # A second database under the name of the deleted key is refused at once.
    with pytest.raises(MilvusException, match="does not exist"):
        plain.create_database("more", properties={"cipher.enabled": "true", "cipher.key": arn})
    client.drop_collection("books")
    plain.drop_database("lost")
    assert "lost" not in plain.list_databases()
    kept.check(plain)


@pytest.mark.parametrize("state", ["disabled", "denied"])
def test_a_key_that_may_not_be_used_is_not_asked_for_in_an_endless_loop(own_saker: Saker, state: str) -> None:
    arn = new_key(own_saker)
    clients = [sealed_database(own_saker, f"mine{number}", arn) for number in range(6)]
    libraries = [Library(client, rows=30, flushed=20) for client in clients[:2]]
    if state == "disabled":
        own_saker.kms().disable_key(KeyId=arn)
    else:
        key_policy(own_saker, arn, ["kms:GenerateDataKey"])
    for library, client in zip(libraries, clients, strict=False):
        wait_until_dark(library, client)
    place = now(own_saker)
    until = time.monotonic() + 12
    attempts = 0
    while time.monotonic() < until:
        # What a client does that does not understand: it tries again, and again.
        for library, client in zip(libraries, clients, strict=False):
            assert library.refusal(client)
            attempts += 1
    calls, intervals = calls_since(own_saker, place, arn)
    print(f"{attempts} refused requests, {calls} calls in {intervals:.1f} intervals")
    assert attempts > 50
    assert 1 <= calls <= intervals * 1.25 + 2
    # One that asks for new databases all the time costs one refused call each, no more.
    place = now(own_saker)
    for number in range(5):
        with pytest.raises(MilvusException):
            clients[0].create_database(f"new{number}", properties={"cipher.enabled": "true", "cipher.key": arn})
    calls, intervals = calls_since(own_saker, place, arn)
    assert calls <= 2 * 5 + intervals * 1.25 + 2, f"{calls} calls for five refused databases"


def test_encryption_that_is_switched_off_is_never_given_a_key_in_silence(own_saker: Saker) -> None:
    """`cipher.enabled=false` and a key contradict each other: refused, rather than decided for the customer."""
    arn = new_key(own_saker)
    client = connect(own_saker)
    place = now(own_saker)
    with pytest.raises(MilvusException, match="cipher.enabled"):
        client.create_database("both", properties={"cipher.enabled": "false", "cipher.key": arn})
    assert "both" not in client.list_databases()
    client.create_database("off", properties={"cipher.enabled": "false"})
    shown = client.describe_database("off")
    assert "cipher.key" not in shown and shown.get("cipher.enabled", "false") == "false"
    assert calls_since(own_saker, place, arn)[0] == 0, "the key was used although encryption with it was switched off"


def test_an_answer_is_never_empty_where_it_should_be_a_refusal(own_saker: Saker) -> None:
    """A dark database says that it is dark: no empty list of hits, no count of 0 that somebody takes for the truth."""
    arn = new_key(own_saker)
    client = sealed_database(own_saker, "mine", arn)
    library = Library(client)
    own_saker.kms().disable_key(KeyId=arn)
    until = time.monotonic() + 20
    dark = 0
    while time.monotonic() < until and dark < 20:
        try:
            found = client.search("books", [library.vectors[0].tolist()], limit=3)
            assert len(found[0]) == 3, "an answer without rows"
        except MilvusException as error:
            assert REFUSAL in error.message, str(error)
            dark += 1
        try:
            counted = client.query("books", filter="", output_fields=["count(*)"])
            assert counted[0]["count(*)"] == library.rows, "a count of rows that are not there"
        except MilvusException as error:
            assert REFUSAL in error.message, str(error)
    assert dark == 20
