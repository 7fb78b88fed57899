"""Projects and the root keys registered with them."""

from __future__ import annotations

import pytest
from conftest import Process, eventually, free_port
from pymilvus import MilvusClient, MilvusException

from .conftest import Control, key_path, run, run_json


def new_key(saker) -> str:
    return saker.kms().create_key()["KeyMetadata"]["Arn"]


def test_projects_are_made_listed_and_shown(control: Control, saker, short: str) -> None:
    made = control.project(short)
    assert made["name"] == short and made["keys"] == 0 and made["keysMax"] == 20 and made["clusters"] == []
    assert made["externalId"].startswith("saker-") and len(made["externalId"]) > 30
    assert control.do("GET", f"/v2/projects/{short}") == made == control.do("GET", f"/v2/projects/{made['id']}")
    default = control.do("GET", "/v2/projects/default")
    assert default["externalId"] != made["externalId"]
    standalone = next(one for one in control.do("GET", "/v2/clusters") if one["standalone"])
    assert default["clusters"][0] == standalone["id"] and standalone["uri"] == saker.uri
    assert {short, "default"} <= {one["name"] for one in control.do("GET", "/v2/projects")}

    assert short in control.refused(409, "POST", "/v2/projects", {"name": short})
    assert "lowercase" in control.refused(400, "POST", "/v2/projects", {"name": "Not A Name"})
    assert "saker project list" in control.refused(404, "GET", "/v2/projects/nobody")

    other = run_json(saker.uri, "project", "create", f"{short}-cli")
    assert run_json(saker.uri, "project", "show", f"{short}-cli") == other
    assert other in run_json(saker.uri, "project", "list")
    assert other["id"] in run(saker.uri, "project", "list").stdout
    again = run(saker.uri, "project", "create", f"{short}-cli")
    assert again.returncode == 1 and "choose another name" in again.stderr


def test_a_key_is_tried_before_it_is_registered(control: Control, saker, short: str) -> None:
    control.project(short)
    good = new_key(saker)
    made = control.add_key(short, good)
    assert made["key"] == good and made["provider"] == "aws" and made["region"] == "us-east-1"
    assert made["state"] == "idle" and made["usedBy"] == [] and made["roleArn"] is None

    disabled = new_key(saker)
    saker.kms().disable_key(KeyId=disabled)
    path = f"/v2/projects/{short}/keys"
    assert "disabled" in control.refused(400, "POST", path, {"key": disabled})
    # The customer lets Saker make keys and not open them: half of a yes is a no.
    half = new_key(saker)
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/customer"},'
        '"Action":"kms:*","Resource":"*"},{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/saker"},'
        '"Action":"kms:GenerateDataKey","Resource":"*"}]}'
    )
    saker.kms().put_key_policy(KeyId=half, Policy=policy)
    refused = control.refused(400, "POST", path, {"key": half})
    assert "(Decrypt)" in refused and "saker key policy" in refused
    missing = good[:-12] + "0" * 12
    assert "does not exist" in control.refused(400, "POST", path, {"key": missing})
    alias = "arn:aws:kms:us-east-1:000000000000:alias/mine"
    assert "alias" in control.refused(400, "POST", path, {"key": alias})
    assert "malformed key name" in control.refused(400, "POST", path, {"key": "mine"})
    assert "kms.vault" in control.refused(400, "POST", path, {"key": "vault://transit/mine"})
    assert "platform key" in control.refused(400, "POST", path, {"key": "file:platform"})
    assert "roleArn" in control.refused(400, "POST", path, {"key": half, "roleArn": "admin"})
    assert [one["key"] for one in control.do("GET", path)] == [good]


def test_twenty_keys_none_twice_and_a_place_is_free_again(control: Control, saker, short: str) -> None:
    project = control.project(short)
    arns = [new_key(saker) for _ in range(21)]
    for arn in arns[:20]:
        control.add_key(short, arn)
    path = f"/v2/projects/{short}/keys"
    full = control.refused(409, "POST", path, {"key": arns[20]})
    assert "20 registered keys, the limit" in full and "saker key remove" in full and project["id"] in full
    twice = control.refused(409, "POST", path, {"key": arns[0]})
    assert "already" in twice and arns[0] in twice and "as many databases as you like" in twice
    assert control.do("GET", f"/v2/projects/{short}")["keys"] == 20
    # Another project has room, also for a key that this one has.
    control.project(f"{short}-b")
    control.add_key(f"{short}-b", arns[0])
    added = run(saker.uri, "key", "add", "--project", short, "--key", arns[20])
    assert added.returncode == 1 and "the limit" in added.stderr
    removed = run(saker.uri, "key", "remove", "--project", short, "--key", arns[7])
    assert removed.returncode == 0, removed.stderr
    assert run_json(saker.uri, "key", "add", "--project", short, "--key", arns[20])["key"] == arns[20]
    listed = run_json(saker.uri, "key", "list", "--project", short)
    assert {one["key"] for one in listed} == {*arns} - {arns[7]}
    assert "not registered" in control.refused(404, "GET", key_path(short, arns[7]))
    assert "not registered" in control.refused(404, "DELETE", key_path(short, arns[7]))


def test_a_key_of_another_region_or_provider_is_refused(control: Control, saker) -> None:
    west = "arn:aws:kms:us-west-2:000000000000:key/00000000-0000-4000-8000-000000000000"
    refused = control.refused(400, "POST", "/v2/projects/default/keys", {"key": west})
    assert "us-west-2" in refused and "us-east-1" in refused and "standalone" in refused


def test_a_key_in_use_stays_and_is_shown_with_its_user(control: Control, saker, client: MilvusClient, short: str) -> None:
    arn = new_key(saker)
    control.add_key("default", arn)
    client.create_database(short, properties={"cipher.key": arn})
    shown = control.do("GET", key_path("default", arn))
    assert shown["state"] == "active" and shown["calls"] > 0
    [user] = shown["usedBy"]
    assert user["clusterName"] == "standalone" and user["database"] == short and user["asDefaultKey"] is False
    [cluster] = shown["clusters"]
    assert cluster["zones"][0]["version"] == 1 and cluster["zones"][0]["database"] == short
    refused = control.refused(409, "DELETE", key_path("default", arn))
    assert "in use" in refused and "cluster standalone" in refused and f"database {short}" in refused
    line = run(saker.uri, "key", "show", "--key", arn)
    assert line.returncode == 0 and f"standalone/{short}" in line.stdout
    client.drop_database(short)
    control.do("DELETE", key_path("default", arn))
    # The server's own cluster does not ask for registration unless it is set up to.
    client.create_database(short, properties={"cipher.key": arn})
    client.drop_database(short)


def test_a_server_that_takes_registered_keys_only(saker, tmp_path) -> None:
    """`[control] registered_keys_only`: the server's own cluster asks for registration as well, its default key included."""
    first, second, default = new_key(saker), new_key(saker), new_key(saker)
    port = free_port()
    endpoint = f"http://127.0.0.1:{saker.kms_port}"
    config = tmp_path / "saker.toml"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:{port}"\n[data]\ndir = "data"\n'
        f'[control]\nregistered_keys_only = true\n'
        f'[kms]\nplatform_key_file = "platform.key"\ndefault_key = "{default}"\n'
        f'[kms.aws]\nendpoint_url = "{endpoint}"\nsts_endpoint_url = "{endpoint}"\nregion = "us-east-1"\n'
        f'profile = "saker"\ncredentials_file = "{saker.directory / "aws-credentials"}"\n'
    )
    server = Process(["serve", "--config", str(config)], tmp_path / "log")
    server.start()
    try:
        control = Control(f"http://127.0.0.1:{port}")
        client = MilvusClient(control.uri, dedicated=True)
        with pytest.raises(MilvusException, match=f"saker key add --project .* --key {first}"):
            client.create_database("mine", properties={"cipher.key": first})
        with pytest.raises(MilvusException, match=f"key {default} is not registered"):
            client.create_database("mine")
        client.create_database("plain", properties={"cipher.enabled": "false"})
        for arn in (first, default):
            control.add_key("default", arn)
        client.create_database("mine", properties={"cipher.key": first})
        client.create_database("inherits")
        assert client.describe_database("inherits")["cipher.key"] == default
        # A change of root goes under registered keys only, too.
        change = {"dbName": "mine", "to": second}
        refused = control.ask("POST", "/v2/cmek/databases/change-key", change).json()
        assert refused["code"] == 1100 and "is not registered" in refused["message"]
        control.add_key("default", second)
        control.do("POST", "/v2/cmek/databases/change-key", change)
        eventually(lambda: client.describe_database("mine")["cipher.key"] == second, 60)
        assert "as default key" in control.refused(409, "DELETE", key_path("default", default))
        eventually(lambda: control.ask("DELETE", key_path("default", first)).status_code == 200, 60)
    finally:
        server.stop()


@pytest.mark.parametrize("path", ["/v2/projects/nobody/keys", "/v2/projects/nobody/policy", "/v2/projects/nobody"])
def test_unknown_projects(control: Control, path: str) -> None:
    assert "saker project list" in control.refused(404, "GET", path)
