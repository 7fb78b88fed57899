"""Keys change while a writer and a searcher work: no request fails, every row is there, nothing is under an older key."""

from __future__ import annotations

import json

import pytest
from conftest import Saker, eventually
from pymilvus import MilvusException

from .steps import COLLECTION, Busy, ask, command, connect, count, filled, job_of, look, new_key, sealed_database, wait_done


def zone_of(saker: Saker, database: str) -> dict:
    keys = ask(saker, "/v2/cmek/keys")["data"]
    return next(zone for key in keys for zone in key["zones"] if zone["database"] == database)


def is_whole(saker: Saker, database: str, rows: int) -> None:
    client = connect(saker, db_name=database)
    eventually(lambda: count(client, COLLECTION) == rows, seconds=60)
    keys = client.query(COLLECTION, filter="id >= 0", output_fields=["id"], limit=16_000)
    assert sorted(found["id"] for found in keys) == list(range(rows))
    client.close()


def test_rotation_rewrap_and_change_of_key_beside_work(own_saker: Saker) -> None:
    saker = own_saker
    arn = new_key(saker)
    client = sealed_database(saker, "ours", arn)
    busy = Busy(saker, "ours", filled(client))
    before = zone_of(saker, "ours")

    # The zone key, by the command line.
    busy.go_on()
    code, out, err = command(saker, "key", "rotate", "--database", "ours", "--wait", "--json")
    assert code == 0, err
    [job] = json.loads(out)
    assert (job["state"], job["keyVersion"], job["percent"]) == ("done", 2, 100), job
    assert job["destroyed"][0]["wrappedSha256"] == before["wrappedSha256"]
    now = zone_of(saker, "ours")
    assert (now["version"], now["versions"]) == (2, 1)

    # The root key's material: the customer rotates it at the key service, then everything moves to the new material.
    busy.go_on()
    saker.kms().rotate_key_on_demand(KeyId=arn)
    code, out, err = command(saker, "key", "rewrap", "--key", arn, "--wait")
    assert code == 0, err
    assert "done" in out and "zone key 3" in out, out

    # Another root key, with both up; by REST.
    busy.go_on()
    second = new_key(saker)
    answer = ask(saker, "/v2/cmek/databases/change-key", {"dbName": "ours", "to": second})
    assert answer["code"] == 0, answer
    assert client.describe_database("ours")["cipher.key"] == second
    wait_done(saker, answer["data"]["id"])
    busy.go_on()
    # The first key matters no more.
    saker.kms().disable_key(KeyId=arn)
    ask(saker, "/v2/cmek/keys/check", {})
    busy.go_on()
    rows = busy.end()
    is_whole(saker, "ours", rows)
    code, out, _ = command(saker, "key", "jobs", "--json")
    kinds = [job["kind"] for job in json.loads(out)]
    assert (code, kinds) == (0, ["rotate", "rewrap", "change-key"])
    # And the second one rules.
    saker.kms().disable_key(KeyId=second)
    ask(saker, "/v2/cmek/keys/check", {})
    with pytest.raises(MilvusException, match="revoked or disabled"):
        client.query(COLLECTION, filter="id == 7", output_fields=["id"])
    saker.kms().enable_key(KeyId=second)
    ask(saker, "/v2/cmek/keys/check", {})
    eventually(lambda: answers(client), seconds=60)
    client.close()
    assert saker.stop() == 0
    look(saker)


def answers(client) -> bool:
    try:
        return count(client, COLLECTION) > 0
    except MilvusException:
        return False


def test_a_platform_database_goes_under_a_customers_key(own_saker: Saker) -> None:
    saker = own_saker
    client = connect(saker)
    busy = Busy(saker, "default", filled(client))
    busy.go_on()
    arn = new_key(saker)
    code, out, err = command(saker, "key", "change", "--database", "default", "--to", arn, "--wait", "--json")
    assert code == 0, err
    assert json.loads(out)[0]["key"] == arn
    busy.go_on()
    is_whole(saker, "default", busy.end())
    described = client.describe_database("default")
    assert (described["cipher.enabled"], described["cipher.key"]) == ("true", arn)
    # Not back again.
    code, _, err = command(saker, "key", "change", "--database", "default", "--to", "file:platform")
    assert code == 1 and "platform key" in err, err
    client.close()
    assert saker.stop() == 0
    look(saker)


def test_all_rows_are_written_again_beside_work(own_saker: Saker) -> None:
    saker = own_saker
    client = sealed_database(saker, "ours", new_key(saker))
    rows = filled(client)
    objects = saker.directory / "data" / "objects"
    before = {path for path in objects.rglob("*") if path.is_file()}
    busy = Busy(saker, "ours", rows)
    busy.go_on()
    code, out, err = command(saker, "key", "reencrypt", "--database", "ours", "--wait", "--json")
    assert code == 0, err
    assert json.loads(out)[0]["state"] == "done"
    after = {path for path in objects.rglob("*") if path.is_file()}
    assert {path.name for path in before & after} <= {".headers"}
    is_whole(saker, "ours", busy.end())
    client.close()
    assert saker.stop() == 0
    look(saker)


def test_a_killed_server_goes_on_with_the_job(own_saker: Saker) -> None:
    saker = own_saker
    client = sealed_database(saker, "ours", new_key(saker))
    rows = filled(client, parts=12, rows=10)
    client.close()
    second = new_key(saker)
    for path, extra in [
        ("rotate", {}),
        ("change-key", {"to": second}),
        ("reencrypt", {}),
    ]:
        answer = ask(saker, f"/v2/cmek/databases/{path}", {"dbName": "ours", **extra})
        assert answer["code"] == 0, answer
        # Somewhere in the middle, or at its end: all of it must do.
        saker.kill()
        saker.start()
        job = wait_done(saker, answer["data"]["id"])
        assert job["percent"] == 100
        is_whole(saker, "ours", rows)
    zone = zone_of(saker, "ours")
    assert (zone["version"], zone["versions"]) == (3, 1)
    assert saker.stop() == 0
    look(saker)


def test_refusals_say_what_to_do(own_saker: Saker) -> None:
    saker = own_saker
    arn = new_key(saker)
    client = sealed_database(saker, "ours", arn)
    filled(client, parts=1)
    client.close()
    for arguments, said in [
        (["rotate", "--database", "nowhere"], "nowhere"),
        (["rotate", "--database", "ours", "--collection", COLLECTION], "under the key of its database"),
        (["change", "--database", "ours", "--to", "alias/mine"], "cannot be used"),
        (["change", "--database", "ours", "--to", arn], "already"),
        (["change", "--database", "ours", "--to", arn[:-4] + "ffff"], "check that the key exists"),
        (["rewrap", "--key", arn[:-4] + "ffff"], "nothing is encrypted under"),
        (["retry", "1"], "no job"),
    ]:
        code, out, err = command(saker, "key", *arguments)
        assert code == 1 and said in err and not out, (arguments, err)
    assert ask(saker, "/v2/cmek/jobs")["data"] == []
    # A job whose key is locked waits, and goes on by itself.
    saker.kms().disable_key(KeyId=arn)
    ask(saker, "/v2/cmek/keys/check", {})
    job = ask(saker, "/v2/cmek/databases/rotate", {"dbName": "ours"})["data"]["id"]
    eventually(lambda: job_of(saker, job)["state"] == "waiting", seconds=60)
    code, out, _ = command(saker, "key", "jobs", "--active", "--wait", "--timeout", "1")
    assert code == 3 and "waiting" in out, out
    saker.kms().enable_key(KeyId=arn)
    ask(saker, "/v2/cmek/keys/check", {})
    wait_done(saker, job)
