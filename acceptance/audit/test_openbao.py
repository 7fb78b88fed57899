"""Saker's record beside that of a real OpenBao: the file that its own audit device writes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess

from conftest import binary
from kms_real.conftest import bao, vault_saker  # noqa: F401
from promise.steps import Library, sealed_database, wait_until_back, wait_until_dark


def audit(server, *arguments) -> subprocess.CompletedProcess:
    command = [binary(), "--log-level", "error", "audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "SAKER_URL": server.uri})


def test_openbaos_record_agrees_until_somebody_else_uses_the_key(vault_saker, bao, tmp_path):  # noqa: F811
    key = bao.new_key("mine")
    bao.allow("mine")
    client = sealed_database(vault_saker, "mine", key)
    library = Library(client, rows=20, flushed=20)
    bao.allow()
    wait_until_dark(library, client)
    bao.allow("mine")
    wait_until_back(library, client)
    # Asked to record Saker's own name of a request, OpenBao has one for refusals too.
    bao.run("write", "sys/config/auditing/request-headers/x-correlation-id", "hmac=false")
    bao.allow()
    wait_until_dark(library, client)
    bao.allow("mine")
    wait_until_back(library, client)
    client.close()

    def compared() -> tuple[int, dict]:
        trail = tmp_path / "trail.jsonl"
        shutil.copy(bao.audit, trail)
        done = audit(vault_saker, "reconcile", trail, "--json")
        return done.returncode, json.loads(done.stdout)

    uses = len(bao.requests())
    code, report = compared()
    assert code == 0, report
    assert report["onlyTheirs"] == [] and report["onlyOurs"] == [] and report["different"] == []
    # What OpenBao refused has no name on Saker's side that OpenBao would record unasked: it is matched by time.
    assert report["matched"] >= uses > 4 and report["matchedByTime"] >= 1
    assert set(report["matchedByKey"]) == {key}

    # Its administrator unwraps something with the key.
    made = bao.run("write", "-field=ciphertext", "transit/encrypt/mine", f"plaintext={base64.b64encode(b'x').decode()}")
    bao.run("write", "transit/decrypt/mine", f"ciphertext={made}")
    code, report = compared()
    assert code == 1
    assert [call["operation"] for call in report["onlyTheirs"]] == ["Encrypt", "Decrypt"]
    assert {call["identity"]["display_name"] for call in report["onlyTheirs"]} == {"token"}
    assert report["onlyOurs"] == []
