"""A small client for the control plane, over HTTP and over the command line."""

from __future__ import annotations

import json
import logging
import subprocess
from urllib.parse import quote

import pytest
import requests
from conftest import binary

SECONDS_MAX = 120


@pytest.fixture(autouse=True)
def quiet_client():
    """pymilvus writes a stack trace for every refusal."""
    logger = logging.getLogger("pymilvus")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


class Control:
    """Requests to /v2 as one caller."""

    def __init__(self, uri: str, secret: str | None = None) -> None:
        self.uri = uri
        self.headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def ask(self, method: str, path: str, body=None, **options) -> requests.Response:
        return requests.request(
            method, self.uri + path, json=body, headers=self.headers, timeout=SECONDS_MAX, **options
        )

    def do(self, method: str, path: str, body=None):
        """The data of an answer that has to be a good one."""
        answer = self.ask(method, path, body)
        assert answer.status_code == 200, answer.text
        content = answer.json()
        assert content["code"] == 0, content
        return content["data"]

    def refused(self, status: int, method: str, path: str, body=None) -> str:
        """The message of a refusal with this HTTP status, which is also its code."""
        answer = self.ask(method, path, body)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/json"
        content = answer.json()
        assert content["code"] == (1800 if status == 401 else status), content
        assert set(content) == {"code", "message"} and content["message"]
        return content["message"]

    def project(self, name: str) -> dict:
        return self.do("POST", "/v2/projects", {"name": name})

    def add_key(self, project: str, arn: str, **more) -> dict:
        return self.do("POST", f"/v2/projects/{project}/keys", {"key": arn, **more})

    def cluster(self, project: str, name: str, **more) -> dict:
        return self.do("POST", "/v2/clusters", {"project": project, "name": name, **more})

    def drop_cluster(self, cluster: str) -> None:
        self.do("DELETE", f"/v2/clusters/{cluster}")


def key_path(project: str, arn: str) -> str:
    return f"/v2/projects/{project}/keys/{quote(arn, safe='')}"


@pytest.fixture
def control(saker) -> Control:
    return Control(saker.uri)


def run(uri: str, *arguments: str, secret: str | None = None) -> subprocess.CompletedProcess:
    """A `saker` command against a running server."""
    command = [binary(), *arguments, "--url", uri]
    if secret:
        command += ["--api-key", secret]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)


def run_json(uri: str, *arguments: str, secret: str | None = None):
    """What it writes with --json."""
    done = run(uri, *arguments, "--json", secret=secret)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def short(name: str) -> str:
    """A name for things of the control plane that no other test has."""
    return name.split("_")[0]
