"""Clusters: ports and directories of their own, default keys, restarts, drops."""

from __future__ import annotations

import shutil
import socket

import pytest
from conftest import Saker, eventually, free_port, simple_collection
from pymilvus import MilvusClient, MilvusException

from .conftest import Control, key_path, run, run_json
from .test_projects import new_key


def connect(uri: str, **options) -> MilvusClient:
    def attempt():
        try:
            return MilvusClient(uri, dedicated=True, **options)
        except MilvusException:
            return None

    return eventually(attempt, seconds=60)


def test_clusters_are_apart_and_come_back(own_saker: Saker) -> None:
    saker, control = own_saker, Control(own_saker.uri)
    control.project("tenant")
    first, second = new_key(saker), new_key(saker)
    control.add_key("tenant", first)
    control.add_key("tenant", second)
    port = free_port()
    one = control.cluster("tenant", "one", port=port, defaultKey=first)
    two = run_json(saker.uri, "cluster", "create", "two", "--project", "tenant")
    assert one["port"] == port and two["port"] not in (port, 0) and one["state"] == two["state"] == "running"
    assert one["region"] == "us-east-1" and one["provider"] == "aws" and one["defaultKey"] == first
    assert one["id"].startswith(one["projectId"] + "-")

    # Names in one are not names in the other; a new database inherits the default key.
    a, b = connect(one["uri"]), connect(two["uri"])
    a.create_database("shop")
    assert a.describe_database("shop")["cipher.key"] == first
    b.create_database("shop")
    assert "cipher.key" not in b.describe_database("shop")
    b.create_database("archive", properties={"cipher.key": second})
    a.create_database("open", properties={"cipher.enabled": "false"})
    assert "cipher.key" not in a.describe_database("open")
    for client, rows in ((a, 5), (b, 7)):
        client.use_database("shop")
        simple_collection(client, "items", rows=rows)
        assert client.query("items", filter="", output_fields=["count(*)"])[0]["count(*)"] == rows
    assert "shop" not in connect(saker.uri).list_databases()

    # Each has a directory of its own, and its own id in the encryption context.
    clusters = saker.directory / "data" / "clusters"
    assert {path.name for path in clusters.iterdir()} == {one["id"], two["id"]}
    trail = (saker.directory / "kms" / "cloudtrail.jsonl").read_text()
    assert one["id"] in trail and two["id"] in trail

    # A key in use lists all of its users.
    refused = control.refused(409, "DELETE", key_path("tenant", first))
    assert "cluster one" in refused and "as default key" in refused and "database shop" in refused
    refused = control.refused(409, "DELETE", key_path("tenant", second))
    assert "cluster two" in refused and "database archive" in refused

    # The kill switch reaches every cluster, and no further than it should.
    saker.kms().disable_key(KeyId=first)
    run(saker.uri, "key", "check")
    eventually(lambda: control.do("GET", key_path("tenant", first))["state"] == "locked", seconds=30)
    with pytest.raises(MilvusException, match="disabled by the administrator"):
        a.query("items", filter="", output_fields=["count(*)"])
    assert b.query("items", filter="", output_fields=["count(*)"])[0]["count(*)"] == 7
    saker.kms().enable_key(KeyId=first)
    eventually(lambda: control.do("GET", key_path("tenant", first))["state"] == "active", seconds=30)

    a.close(), b.close()
    before = control.do("GET", "/v2/clusters?project=tenant")
    assert saker.stop() == 0
    saker.start()
    eventually(lambda: {one["state"] for one in control.do("GET", "/v2/clusters?project=tenant")} == {"running"}, 60)
    assert control.do("GET", "/v2/clusters?project=tenant") == before
    for cluster, rows in ((one, 5), (two, 7)):
        client = connect(cluster["uri"], db_name="shop")

        def counted(client=client):
            try:
                return client.query("items", filter="", output_fields=["count(*)"])[0]["count(*)"]
            except MilvusException:
                return None

        assert eventually(counted, seconds=60) == rows
        client.close()


def test_in_a_made_cluster_keys_have_to_be_registered(control: Control, saker, short: str) -> None:
    project = control.project(short)
    registered, stranger = new_key(saker), new_key(saker)
    control.add_key(short, registered)
    cluster = control.cluster(short, "a")
    client = connect(cluster["uri"])
    with pytest.raises(MilvusException) as refusal:
        client.create_database("mine", properties={"cipher.key": stranger})
    assert f"saker key add --project {project['id']} --key {stranger}" in refusal.value.message
    assert "mine" not in client.list_databases()
    client.create_database("mine", properties={"cipher.key": registered})
    client.use_database("mine")
    with pytest.raises(MilvusException, match="is not registered"):
        client.create_collection("own", dimension=4, properties={"cipher.key": stranger})
    # Default keys as well, and at the right place.
    body = {"project": short, "name": "b", "defaultKey": stranger}
    assert "not registered" in control.refused(404, "POST", "/v2/clusters", body)
    west = {"project": short, "name": "b", "region": "us-west-2", "defaultKey": registered}
    refused = control.refused(400, "POST", "/v2/clusters", west)
    assert "us-west-2" in refused and "us-east-1" in refused
    # A cluster elsewhere does not take this project's keys.
    far = control.cluster(short, "far", region="eu-central-1")
    abroad = connect(far["uri"])
    with pytest.raises(MilvusException, match="eu-central-1"):
        abroad.create_database("mine", properties={"cipher.key": registered})
    control.drop_cluster(far["id"])
    client.use_database("default")
    client.drop_database("mine")
    control.drop_cluster(cluster["id"])


def test_stop_start_and_drop(control: Control, saker, short: str) -> None:
    control.project(short)
    arn = new_key(saker)
    control.add_key(short, arn)
    cluster = control.cluster(short, short)
    client = connect(cluster["uri"])
    client.create_database("kept", properties={"cipher.key": arn})
    path = f"/v2/clusters/{cluster['id']}"

    stopped = run_json(saker.uri, "cluster", "stop", cluster["id"])
    assert stopped["state"] == "stopped" and stopped["databases"] is None
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", cluster["port"]), timeout=5):
        pass
    # It is known who uses a key although nobody can look: nothing changes in a stopped cluster.
    assert "database kept" in control.refused(409, "DELETE", key_path(short, arn))
    assert "start it first" in control.refused(409, "DELETE", path)
    started = run_json(saker.uri, "cluster", "start", short)
    assert started["state"] == "running" and started["port"] == cluster["port"]
    assert control.do("POST", f"{path}/start")["state"] == "running"
    client.close()
    client = connect(cluster["uri"])
    assert "kept" in client.list_databases()

    refused = control.refused(409, "DELETE", path)
    assert "kept" in refused and "drop those first" in refused
    client.drop_database("kept")
    simple_collection(client, "items")
    assert "1 collections in database default" in control.refused(409, "DELETE", path)
    client.drop_collection("items")
    client.close()
    directory = saker.directory / "data" / "clusters" / cluster["id"]
    assert directory.is_dir()
    dropped = run(saker.uri, "cluster", "drop", cluster["id"])
    assert dropped.returncode == 0, dropped.stderr
    assert not directory.exists()
    assert "saker cluster list" in control.refused(404, "GET", path)
    control.do("DELETE", key_path(short, arn))


def test_what_clusters_may_not(control: Control, saker, short: str) -> None:
    control.project(short)
    cluster = control.cluster(short, short)
    body = {"project": short, "name": short}
    assert "choose another name" in control.refused(409, "POST", "/v2/clusters", body)
    taken = control.refused(409, "POST", "/v2/clusters", {**body, "name": "b", "port": cluster["port"]})
    assert cluster["id"] in taken and "another port" in taken
    own = control.refused(400, "POST", "/v2/clusters", {**body, "name": "b", "port": saker.port})
    assert "another program has this port" in own
    assert "project" in control.refused(404, "POST", "/v2/clusters", {**body, "project": "nobody"})
    assert "unknown variant" in control.refused(400, "POST", "/v2/clusters", {**body, "name": "b", "provider": "gcp"})
    vault = {**body, "name": "b", "provider": "vault", "region": "x"}
    assert "only AWS keys have a region" in control.refused(400, "POST", "/v2/clusters", vault)
    standalone = next(one["id"] for one in control.do("GET", "/v2/clusters") if one["standalone"])
    for method, path in (("DELETE", ""), ("POST", "/stop"), ("POST", "/start")):
        assert "server's own" in control.refused(409, method, f"/v2/clusters/{standalone}{path}")
    assert control.do("GET", "/v2/clusters/standalone")["id"] == standalone
    # The control plane is on the server's own port alone.
    there = Control(cluster["uri"])
    assert there.ask("GET", "/v2/projects").status_code == 404
    assert there.do("GET", "/v2/cmek/keys")[0]["platform"] is True
    control.drop_cluster(short)


def test_a_cluster_that_cannot_start_keeps_nobody_else_from_it(own_saker: Saker) -> None:
    saker, control = own_saker, Control(own_saker.uri)
    cluster = control.cluster("default", "a")
    other = control.cluster("default", "b")
    assert saker.stop() == 0
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", cluster["port"]))
        squatter.listen()
        saker.start()
        failed = eventually(
            lambda: next((one for one in control.do("GET", "/v2/clusters") if one["state"] == "failed"), None), 60
        )
        assert failed["id"] == cluster["id"] and "another program has this port" in failed["reason"]
        eventually(lambda: control.do("GET", f"/v2/clusters/{other['id']}")["state"] == "running", 60)
        # Nobody knows what it keeps under a key now, so none is removed; stopping it changes nothing about that.
        arn = new_key(saker)
        control.add_key("default", arn)
        for stopped in (False, True):
            if stopped:
                control.do("POST", f"/v2/clusters/{cluster['id']}/stop")
            refused = control.refused(409, "DELETE", key_path("default", arn))
            assert cluster["id"] in refused and "start it and try again" in refused
        assert "another program has this port" in control.refused(409, "POST", f"/v2/clusters/{cluster['id']}/start")
    # It is tried again by itself.
    eventually(lambda: control.do("GET", f"/v2/clusters/{cluster['id']}")["state"] == "running", 60)
    control.do("DELETE", key_path("default", arn))
    # Data that was put in the place of another cluster's is not taken for its own.
    assert saker.stop() == 0
    clusters = saker.directory / "data" / "clusters"
    shutil.rmtree(clusters / other["id"])
    shutil.copytree(clusters / cluster["id"], clusters / other["id"])
    saker.start()
    failed = eventually(
        lambda: next((one for one in control.do("GET", "/v2/clusters") if one["state"] == "failed"), None), 60
    )
    assert failed["id"] == other["id"] and f"belongs to cluster {cluster['id']}" in failed["reason"]
