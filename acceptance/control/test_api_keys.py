"""API keys: who may do what with one, and that a revoked one does nothing."""

from __future__ import annotations

import base64

import pytest
from conftest import Saker, eventually
from pymilvus import MilvusClient

from .conftest import Control, key_path, run, run_json
from .test_projects import new_key


@pytest.fixture
def guarded(tmp_path):
    """A running `saker dev` of the test's own that asks who one is."""
    server = Saker(tmp_path / "saker", "--auth")
    server.start()
    yield server
    server.stop()


def test_without_saying_who_one_is_nothing_is_told(guarded: Saker) -> None:
    anybody, root = Control(guarded.uri), Control(guarded.uri, "root:Milvus")
    for method, path in (
        ("GET", "/v2/projects"), ("POST", "/v2/projects"), ("GET", "/v2/projects/default/keys"),
        ("GET", "/v2/clusters"), ("GET", "/v2/api-keys"), ("GET", "/v2/cmek/keys"),
        ("POST", "/v2/cmek/keys/check"), ("POST", "/v2/cmek/keys/check/webhook"),
    ):
        assert "API key" in anybody.refused(401, method, path)
        for wrong in ("root:wrong", "sk-" + "A" * 43, "sk-", "nobody"):
            Control(guarded.uri, wrong).refused(401, method, path)
    assert root.do("GET", "/v2/projects")[0]["name"] == "default"
    # A user of the database who is not root.
    client = MilvusClient(guarded.uri, token="root:Milvus", dedicated=True)
    client.create_user("ann", "Secret-123")
    assert "only root" in Control(guarded.uri, "ann:Secret-123").refused(403, "GET", "/v2/projects")


def test_scopes(guarded: Saker) -> None:
    root = Control(guarded.uri, "root:Milvus")
    mine, other = root.project("mine"), root.project("other")
    arn = new_key(guarded)
    admin_key = root.do("POST", "/v2/api-keys", {"name": "admin"})
    mine_key = root.do("POST", "/v2/api-keys", {"name": "ci", "project": "mine"})
    assert admin_key["scope"] == "admin" and (mine_key["scope"], mine_key["projectId"]) == ("project", mine["id"])
    admin, ci = Control(guarded.uri, admin_key["apiKey"]), Control(guarded.uri, mine_key["apiKey"])
    assert len(base64.urlsafe_b64decode(mine_key["apiKey"].removeprefix("sk-") + "=")) == 32

    # Its own project: everything but making clusters, which takes of what all share.
    ci.add_key("mine", arn)
    assert [one["id"] for one in ci.do("GET", "/v2/projects")] == [mine["id"]]
    assert ci.do("GET", key_path("mine", arn))["key"] == arn
    assert ci.do("GET", f"/v2/projects/mine/policy?key={arn}")["externalId"] == mine["externalId"]
    cluster = admin.cluster("mine", "a")
    elsewhere = admin.cluster("other", "b")
    assert [one["id"] for one in ci.do("GET", "/v2/clusters")] == [cluster["id"]]
    assert ci.do("POST", f"/v2/clusters/{cluster['id']}/stop")["state"] == "stopped"
    assert ci.do("POST", f"/v2/clusters/{cluster['id']}/start")["state"] == "running"
    # On the port of its own project's cluster as well.
    assert Control(cluster["uri"], mine_key["apiKey"]).do("GET", "/v2/cmek/keys")
    assert Control(cluster["uri"], "root:Milvus").do("GET", "/v2/cmek/keys")

    # Other projects: nothing, and no word of which there are.
    for method, path in (
        ("GET", "/v2/projects/other"), ("GET", "/v2/projects/nobody"), ("GET", f"/v2/projects/{other['id']}/keys"),
        ("POST", "/v2/projects/other/keys"), ("DELETE", key_path("other", arn)), ("GET", "/v2/projects/other/policy"),
        ("GET", f"/v2/clusters/{elsewhere['id']}"), ("DELETE", f"/v2/clusters/{elsewhere['id']}"),
        ("POST", f"/v2/clusters/{elsewhere['id']}/stop"), ("GET", "/v2/clusters/nobody"),
        ("POST", "/v2/projects"), ("GET", "/v2/api-keys"), ("POST", "/v2/api-keys"),
        ("DELETE", f"/v2/api-keys/{mine_key['id']}"), ("GET", "/v2/cmek/keys"), ("POST", "/v2/cmek/keys/check"),
        ("GET", "/v2/audit/head"),
    ):
        body = {"name": "x"} if path in ("/v2/projects", "/v2/api-keys") else {"key": arn}
        answer = ci.ask(method, path, body if method == "POST" else None)
        assert answer.status_code == 403 and mine["id"] in answer.json()["message"], (method, path, answer.text)
        assert "nobody" not in answer.text and "other" not in answer.json()["message"].replace("the other project", "")
    assert Control(elsewhere["uri"], mine_key["apiKey"]).ask("GET", "/v2/cmek/keys").status_code == 403
    body = {"project": "mine", "name": "c"}
    assert ci.ask("POST", "/v2/clusters", body).status_code == 403

    # The server's own audit log tells of all projects; a cluster's is its project's, and has what was done to it.
    own = root.do("POST", "/v2/api-keys", {"name": "own", "project": "default"})
    assert Control(guarded.uri, own["apiKey"]).do("GET", "/v2/cmek/keys")
    assert Control(guarded.uri, own["apiKey"]).ask("GET", "/v2/audit/tail").status_code == 403
    assert "key-registered" in admin.ask("GET", "/v2/audit/tail").text
    there = Control(cluster["uri"], mine_key["apiKey"])
    ci.do("DELETE", key_path("mine", arn))
    told = eventually(lambda: "key-removed" in (answer := there.ask("GET", "/v2/audit/tail")).text and answer)
    assert arn in told.text and other["id"] not in told.text

    # The command line takes them from the environment's variable or the flag.
    assert run(guarded.uri, "project", "list").returncode == 1
    assert run_json(guarded.uri, "project", "list", secret=mine_key["apiKey"])[0]["id"] == mine["id"]


def test_revocation_holds_at_once_and_over_restarts(guarded: Saker) -> None:
    root = Control(guarded.uri, "root:Milvus")
    made = run(guarded.uri, "api-key", "create", "ops", secret=None)
    assert made.returncode == 1
    first = root.do("POST", "/v2/api-keys", {"name": "first"})
    done = run(guarded.uri, "api-key", "create", "ops", secret=first["apiKey"])
    secret = done.stdout.strip()
    assert done.returncode == 0 and secret.startswith("sk-")
    listed = run_json(guarded.uri, "api-key", "list", secret=secret)
    assert {one["name"] for one in listed} == {"first", "ops"}
    assert all("apiKey" not in one for one in listed) and secret not in str(listed)
    assert next(one for one in listed if one["name"] == "ops")["lastUsedAtMs"]
    assert guarded.stop() == 0
    guarded.start()
    assert Control(guarded.uri, secret).do("GET", "/v2/api-keys")
    revoked = run(guarded.uri, "api-key", "revoke", first["id"], secret=secret)
    assert revoked.returncode == 0, revoked.stderr
    assert "revoked" in Control(guarded.uri, first["apiKey"]).refused(401, "GET", "/v2/projects")
    assert "saker api-key list" in root.refused(404, "DELETE", f"/v2/api-keys/{first['id']}")
    assert guarded.stop() == 0
    guarded.start()
    Control(guarded.uri, first["apiKey"]).refused(401, "GET", "/v2/projects")
    assert Control(guarded.uri, secret).do("GET", "/v2/projects")
    # Nobody finds a secret in anything that was written.
    raw = base64.urlsafe_b64decode(secret.removeprefix("sk-") + "=")
    for path in guarded.directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert secret.encode() not in content and raw not in content, path
    assert secret not in guarded.log_text()


def test_a_revoked_key_does_not_become_anybody(control: Control, saker, short: str) -> None:
    """Where nobody has to say who they are, a key that is sent still counts."""
    control.project(short)
    key = control.do("POST", "/v2/api-keys", {"name": short, "project": short})
    scoped = Control(saker.uri, key["apiKey"])
    assert [one["name"] for one in scoped.do("GET", "/v2/projects")] == [short]
    assert scoped.ask("GET", "/v2/cmek/keys").status_code == 403
    control.do("DELETE", f"/v2/api-keys/{key['id']}")
    scoped.refused(401, "GET", "/v2/projects")
