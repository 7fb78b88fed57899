"""What is not a request gets an answer that says what is wrong with it, and the server goes on."""

from __future__ import annotations

import pytest
import requests

from .conftest import Control

PATHS = ["/v2/projects", "/v2/projects/default/keys", "/v2/clusters", "/v2/api-keys", "/v2/cmek/keys/check/webhook"]


def post(control: Control, path: str, data: bytes, **headers) -> requests.Response:
    return requests.post(control.uri + path, data=data, headers=headers, timeout=60)


@pytest.mark.parametrize("path", PATHS)
def test_bodies(control: Control, path: str) -> None:
    for body in (
        b"", b"{", b"[]", b"null", b"1", b'"x"', b'{"name":', b"\xff\xfe", b'{"name":7}', b"name=x", b"{}",
        b'{"name":"a","nonsense":1}', b'{"key":["a"]}', b"[" * 10_000, b'{"a":' * 5_000, b'{"name":"\\ud800"}',
    ):
        answer = post(control, path, body)
        assert answer.status_code == 400, (path, body[:40], answer.text)
        content = answer.json()
        assert content["code"] == 400 and content["message"], content
    unknown = post(control, path, b'{"nonsense": 1}').json()["message"]
    assert "nonsense" in unknown or "EventBridge" in unknown
    huge = post(control, path, b'{"name": "' + b"x" * (256 << 10) + b'"}')
    assert huge.status_code == 413 and "262144 bytes" in huge.json()["message"], huge.text
    assert control.ask("GET", "/v2/projects").status_code == 200


def test_the_kind_of_content_does_not_matter(control: Control, short: str) -> None:
    answer = post(control, "/v2/projects", b'{"name": "%s"}' % short.encode(), **{"Content-Type": "text/plain"})
    assert answer.status_code == 200 and answer.json()["data"]["name"] == short


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v2/projects"), ("DELETE", "/v2/projects"), ("PATCH", "/v2/projects/default"),
        ("POST", "/v2/projects/default"), ("POST", "/v2/projects/default/policy"), ("PUT", "/v2/clusters"),
        ("GET", "/v2/clusters/standalone/stop"), ("GET", "/v2/api-keys/key-1"), ("POST", "/v2/cmek/keys"),
        ("GET", "/v2/cmek/keys/check"), ("GET", "/v2/cmek/keys/check/webhook"),
    ],
)
def test_methods(control: Control, method: str, path: str) -> None:
    answer = control.ask(method, path)
    assert answer.status_code == 405 and answer.headers["allow"], answer.text
    assert "does not take this method" in answer.json()["message"] and answer.json()["code"] == 405


def test_paths_and_parameters(control: Control) -> None:
    assert control.refused(404, "GET", "/v2/nothing") == "no such path"
    for path in ("/v2/projects/%ff", "/v2/projects/%2e%2e", "/v2/projects/a%00b", "/v2/projects/" + "x" * 5_000):
        answer = control.ask("GET", path)
        assert answer.status_code in (400, 404), answer.text
        assert answer.json()["message"]
        assert len(answer.text) < 1_000
    assert "nonsense" in control.refused(400, "GET", "/v2/clusters?nonsense=1")
    assert control.refused(400, "GET", "/v2/projects/default/policy?format=xml")
    assert "malformed key name" in control.refused(400, "GET", "/v2/projects/default/keys/not-a-key")
    names = ["", " ", "-a", "a-", "A", "a/b", "a" * 41, "ä", "a\nb", "a'b"]
    for name in names:
        assert "lowercase" in control.refused(400, "POST", "/v2/projects", {"name": name}), name
        assert control.refused(400, "POST", "/v2/api-keys", {"name": name})
        assert control.refused(400, "POST", "/v2/clusters", {"project": "default", "name": name})
    for port in (-1, 65_536, "19530", 1.5):
        control.refused(400, "POST", "/v2/clusters", {"project": "default", "name": "a", "port": port})
