"""The audit log as its customer uses it: read, exported, checked, and compared with the key server's own record."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import boto3
import pytest
import requests
from conftest import Saker, binary, eventually
from promise.canary import Canaries
from promise.steps import Library, connect, new_key, sealed_database, wait_until_back, wait_until_dark
from pymilvus import MilvusException

PROBE = ["--probe-interval-ms", "1000"]
USES = {"Decrypt", "GenerateDataKey"}


def audit(saker: Saker, *arguments: str | Path) -> subprocess.CompletedProcess:
    command = [binary(), "--log-level", "error", "audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "SAKER_URL": saker.uri})


def good(saker: Saker, *arguments: str | Path) -> str:
    done = audit(saker, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records_of(export: Path) -> list[dict]:
    return [json.loads(line) for line in export.read_text().splitlines()[:-1]]


def trail_of(saker: Saker) -> Path:
    return saker.directory / "kms" / "cloudtrail.jsonl"


def copies(saker: Saker, folder: Path, name: str) -> tuple[Path, Path]:
    """The key server's record as it is now, then the audit log: that has every call that the record has."""
    folder.mkdir(exist_ok=True)
    trail, export = folder / f"{name}-trail.jsonl", folder / f"{name}-audit.jsonl"
    shutil.copy(trail_of(saker), trail)
    good(saker, "export", "--output", export)
    return trail, export


def uses_in(trail: Path, principal: str) -> list[dict]:
    events = [json.loads(line) for line in trail.read_text().splitlines()]
    return [e for e in events if e["eventName"] in USES and e["userIdentity"].get("arn", "").endswith(principal)]


@pytest.fixture
def watched(tmp_path):
    """A `saker dev` that probes every second and records requests."""
    server = Saker(tmp_path / "saker", *PROBE, "--access-log")
    server.start()
    yield server
    server.stop()


def test_a_whole_life_is_on_both_records_and_a_strangers_use_is_on_one(watched, tmp_path):
    kms = watched.kms()
    arn, other_arn = new_key(watched), new_key(watched)
    client = sealed_database(watched, "sealed", arn)
    library = Library(client)
    library.check(client)
    other = sealed_database(watched, "other", other_arn)
    Library(other, "papers", rows=20, flushed=20)

    kms.disable_key(KeyId=arn)
    wait_until_dark(library, client)
    kms.enable_key(KeyId=arn)
    wait_until_back(library, client)
    # The next probes open what newer material wrapped, and what older did.
    kms.rotate_key_on_demand(KeyId=arn)
    client.create_collection("by_the_way", dimension=4)
    client.drop_collection("by_the_way")
    client.close()
    other.close()

    head = good(watched, "head").strip()
    assert watched.stop() == 0
    watched.start()
    client = connect(watched, db_name="sealed")
    wait_until_back(library, client)
    library.check(client)
    client.close()
    dropper = connect(watched, db_name="other")
    dropper.drop_collection("papers")
    dropper.use_database("default")
    dropper.drop_database("other")
    dropper.close()

    trail, export = copies(watched, tmp_path / "before", "clean")
    assert "the chain is whole" in good(watched, "verify", export, "--head", head)
    report = json.loads(good(watched, "reconcile", trail, "--audit", export, "--json"))
    assert report["ok"] and report["onlyTheirs"] == [] and report["onlyOurs"] == [] and report["different"] == []
    # Call by call: as many as the key server says that this principal made.
    assert report["matched"] == report["matchedByRequestId"] == len(uses_in(trail, "user/saker")) > 10
    assert set(report["matchedByKey"]) == {arn, other_arn}

    events = {record["event"] for record in records_of(export)}
    assert {
        "log-opened", "log-closed", "key-calls", "probe-changed", "zone-locked", "zone-unlocked", "requests-refused",
        "database-created", "database-dropped", "collection-created", "collection-dropped", "keys-destroyed",
    } <= events, events
    assert "audit-gap" not in events

    # As CloudTrail delivers it: packed, and all in one object.
    packed = tmp_path / "trail.json.gz"
    lines = [json.loads(line) for line in trail.read_text().splitlines()]
    packed.write_bytes(gzip.compress(json.dumps({"Records": lines}).encode()))
    good(watched, "reconcile", packed, "--audit", export)

    # Somebody who may use the key takes the wrapped key's context for himself.
    context = {"saker:cluster": "c", "saker:database": "d", "saker:purpose": "zone-key"}
    made = kms.generate_data_key(KeyId=arn, KeySpec="AES_256", EncryptionContext=context)
    kms.decrypt(KeyId=arn, CiphertextBlob=made["CiphertextBlob"], EncryptionContext=context)
    trail, export = copies(watched, tmp_path / "after", "stranger")
    found = audit(watched, "reconcile", trail, "--audit", export, "--json", "--html", tmp_path / "page.html")
    assert found.returncode == 1
    report = json.loads(found.stdout)
    assert not report["ok"] and report["onlyOurs"] == []
    assert [call["operation"] for call in report["onlyTheirs"]] == ["GenerateDataKey", "Decrypt"]
    for call in report["onlyTheirs"]:
        assert call["identity"]["arn"].endswith("user/customer")
        assert call["source"] == "127.0.0.1" and call["key"] == arn and call["userAgent"].startswith("Boto3")
    text = audit(watched, "reconcile", trail, "--audit", export).stdout
    assert text.count("ONLY IN THE KEY SERVICE'S RECORD") == 2 and "user/customer from 127.0.0.1" in text
    assert "user/customer" in (tmp_path / "page.html").read_text()

    # A call that the key server's record lacks shows from the other side.
    lines = trail.read_text().splitlines(keepends=True)
    missing = next(line for line in lines if '"Decrypt"' in line and "user/saker" in line)
    shorter = tmp_path / "shorter.jsonl"
    shorter.write_text("".join(line for line in lines if line != missing and "user/customer" not in line))
    found = audit(watched, "reconcile", shorter, "--audit", export, "--json")
    assert found.returncode == 1
    report = json.loads(found.stdout)
    assert [call["requestId"] for call in report["onlyOurs"]] == [json.loads(missing)["requestID"]]


def test_every_kind_of_tampering_with_an_export_is_found(watched, tmp_path):
    sealed_database(watched, "sealed", new_key(watched)).close()
    _, export = copies(watched, tmp_path, "whole")
    good(watched, "verify", export)
    head = good(watched, "head").strip()
    lines = export.read_bytes().splitlines(keepends=True)
    assert len(lines) > 8
    tampered = tmp_path / "tampered.jsonl"

    def bad(text: list[bytes] | bytes, says: str, *options: str) -> None:
        tampered.write_bytes(text if isinstance(text, bytes) else b"".join(text))
        found = audit(watched, "verify", tampered, *options)
        assert found.returncode == 1, found.stdout
        assert "BAD" in found.stdout and says in found.stdout, found.stdout

    bad([line.replace(b"zone-key", b"zone-kez") if number == 2 else line for number, line in enumerate(lines)], "record 3 was altered")
    bad(lines[:3] + lines[4:], "record 4 is missing")
    bad(lines[:3] + [lines[4], lines[3]] + lines[5:], "record 4 stands after record 5")
    bad(lines[:4] + [lines[3]] + lines[4:], "record 4 stands twice")
    bad(lines[1:], "record 1 is missing")
    bad(lines[:-1], "closing line is missing")
    bad(lines[:-3], "closing line is missing")
    bad(export.read_bytes()[:-5], "closing line is missing")
    bad(lines[:-2] + lines[-1:], "closing line says")
    # Cut and closed anew by somebody who knows the format: only a head that was kept shows it.
    last = json.loads(lines[-4])
    before = json.loads(lines[-3])["previous"]
    closed_anew = [*lines[:-3], f'{{"head":"{last["seq"]}:{before}"}}\n'.encode()]
    tampered.write_bytes(b"".join(closed_anew))
    good(watched, "verify", tampered)
    bad(closed_anew, "were cut off", "--head", head)
    # Every single byte of one record, and of the closing line.
    target = json.loads(good(watched, "verify", export, "--json"))
    assert target["ok"]
    start = sum(map(len, lines[:2]))
    whole = export.read_bytes()
    for place in [*range(start, start + len(lines[2]), 17), *range(len(whole) - len(lines[-1]), len(whole), 5)]:
        bad(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], "")


def test_a_data_directory_at_rest_tells_the_same(watched, tmp_path):
    client = sealed_database(watched, "sealed", new_key(watched))
    client.close()
    _, online = copies(watched, tmp_path, "online")
    head = good(watched, "head").strip()
    assert audit(watched, "verify", "--dir", watched.directory / "data").returncode == 1, "it is in use"
    assert watched.stop() == 0
    data = ["--dir", watched.directory / "data"]
    assert "the chain is whole" in good(watched, "verify", *data, "--head", head)
    offline = tmp_path / "offline.jsonl"
    good(watched, "export", *data, "--output", offline)
    begun = online.read_text().splitlines()[:-1]
    assert offline.read_text().splitlines()[: len(begun)] == begun
    assert records_of(offline)[-1]["event"] == "log-closed"
    good(watched, "reconcile", trail_of(watched), *data)
    trails = json.loads(good(watched, "export", *data, "--format", "cloudtrail"))["Records"]
    calls = [event for event in trails if event["eventSource"] == "kms.amazonaws.com"]
    known = {event["requestID"] for event in uses_in(trail_of(watched), "user/saker")}
    assert known <= {event["requestID"] for event in calls}
    for event in calls:
        assert event["eventType"] == "AwsApiCall" and event["eventName"] in USES
        assert {"saker:cluster", "saker:database", "saker:purpose"} == set(event["requestParameters"]["encryptionContext"])
    # What follows a head that was kept can be checked alone.
    kept = records_of(offline)[4]
    with_hash = records_of(offline)[5]["previous"]
    rest = tmp_path / "rest.jsonl"
    good(watched, "export", *data, "--after", str(kept["seq"]), "--output", rest)
    assert audit(watched, "verify", rest).returncode == 1
    good(watched, "verify", rest, "--after", f"{kept['seq']}:{with_hash}")


def test_a_kill_leaves_a_chain_that_goes_on_and_says_so(watched, tmp_path):
    client = sealed_database(watched, "sealed", new_key(watched))
    library = Library(client, rows=20, flushed=20)
    client.close()
    head = good(watched, "head").strip()
    watched.kill()
    # The key server of `saker dev` ends with its parent.
    eventually(lambda: not server_answers(watched.kms_port), seconds=30)
    watched.start()
    client = connect(watched, db_name="sealed")
    wait_until_back(library, client)
    client.close()
    trail, export = copies(watched, tmp_path, "killed")
    good(watched, "verify", export, "--head", head)
    records = records_of(export)
    gap = next(record for record in records if record["event"] == "audit-gap")
    assert "without closing" in gap["details"]["why"]
    # Calls since the last record may be missing: they are set apart, and nothing else is.
    report = json.loads(audit(watched, "reconcile", trail, "--audit", export, "--json").stdout)
    assert report["onlyTheirs"] == [] and report["onlyOurs"] == []
    assert all(call["identity"]["arn"].endswith("user/saker") for call in report["onlyTheirsInGaps"])
    good(watched, "reconcile", trail, "--audit", export, "--accept-gaps")


def server_answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/", timeout=2) is not None
    except requests.RequestException:
        return False


def test_requests_are_on_record_by_name_and_count_and_nothing_of_what_they_hold(watched, tmp_path):
    canaries = Canaries()
    secret = canaries.word("filter or row")
    client = sealed_database(watched, "sealed", new_key(watched))
    library = Library(client, rows=20, flushed=10)
    client.insert(library.name, [{"id": 100, "text": secret, "vector": canaries.vector(16)}])
    client.query(library.name, filter=f"text == '{secret}'", output_fields=["text"])
    client.search(library.name, [canaries.vector(16)], limit=3, filter=f"text != '{secret}'", output_fields=["text"])
    client.delete(library.name, filter=f"text == '{secret}'")
    with pytest.raises(MilvusException):
        client.search("no_such_collection", [[0.5] * 16], limit=1)
    client.close()
    lines = [json.loads(line) for line in good(watched, "access").splitlines()]
    fields = ["date", "action", "cluster_id", "database", "interface", "log_type", "params", "result", "status", "time", "trace_id", "user"]
    assert all(list(line) == fields for line in lines)
    assert {line["log_type"] for line in lines} == {"AUDIT"}
    searched = next(line for line in lines if line["action"] == "Search" and line["status"] == "Success")
    assert searched["database"] == "sealed" and searched["interface"] == "Grpc" and searched["result"] == 0
    assert searched["params"]["collection"] == library.name and searched["params"]["nq"] == 1
    assert searched["params"]["output_fields"] == ["text"]
    inserted = [line for line in lines if line["action"] == "Insert"]
    assert sum(line["params"]["rows"] for line in inserted) == 21
    failed = next(line for line in lines if line["params"].get("collection") == "no_such_collection")
    assert failed["status"] == "Failed" and failed["result"] != 0
    assert len({line["trace_id"] for line in lines}) == len(lines)
    said = tmp_path / "access.jsonl"
    said.write_text("\n".join(json.dumps(line) for line in lines))
    _, export = copies(watched, tmp_path, "canary")
    assert watched.stop() == 0
    assert canaries.found(said, export, watched.directory, watched.log) == []


def test_the_log_of_requests_is_off_unless_asked_for(own_saker):
    connect(own_saker).close()
    assert good(own_saker, "access") == ""


def test_only_root_reads_the_audit_log(tmp_path):
    server = Saker(tmp_path / "saker", "--auth", "--access-log")
    server.start()
    try:
        root = connect(server, token="root:Milvus")
        root.create_user("ann", "secret-1")
        root.close()
        for path in ["head", "tail", "export", "access"]:
            address = f"{server.uri}/v2/audit/{path}"
            assert requests.get(address, timeout=30).status_code == 401
            as_ann = requests.get(address, timeout=30, headers={"Authorization": "Bearer ann:secret-1"})
            assert as_ann.status_code == 403, as_ann.text
            as_root = requests.get(address, timeout=30, headers={"Authorization": "Bearer root:Milvus"})
            assert as_root.status_code == 200
        lines = [json.loads(line) for line in as_root.text.splitlines()]
        created = next(line for line in lines if line["action"] == "CreateCredential")
        assert created["user"] == "root" and created["params"]["username"] == "ann" and "secret-1" not in as_root.text
        rest = {(line["action"], line["user"], line["status"]) for line in lines if line["interface"] == "Restful"}
        assert {
            ("GET /v2/audit/head", "", "Failed"),
            ("GET /v2/audit/head", "root", "Success"),
        } <= rest, rest
        assert audit(server, "tail").returncode == 1
        assert "log-opened" in good(server, "tail", "--token", "root:Milvus")
    finally:
        server.stop()


def test_every_kind_of_call_is_counted_by_key(watched):
    arn = new_key(watched)
    sealed_database(watched, "sealed", arn).close()

    def counted() -> dict[str, float]:
        text = requests.get(f"{watched.uri}/metrics", timeout=30).text
        lines = [line for line in text.splitlines() if line.startswith("saker_key_calls_total") and arn in line]
        return {line.split("{")[1].split("}")[0]: float(line.split()[-1]) for line in lines}

    probes = f'key="{arn}",operation="Decrypt",outcome="ok",reason="probe"'
    eventually(lambda: counted().get(probes, 0) >= 2)
    assert counted()[f'key="{arn}",operation="GenerateDataKey",outcome="ok",reason="create-zone"'] == 1
    watched.kms().disable_key(KeyId=arn)
    eventually(lambda: any('outcome="denied"' in labels for labels in counted()))


def test_a_refused_attempt_by_a_stranger_shows_too(watched, tmp_path):
    arn = new_key(watched)
    sealed_database(watched, "sealed", arn).close()
    saker_user = boto3.client("kms", **watched.kms_options("saker"))
    # With Saker's own credentials, outside Saker: not on Saker's record either.
    with pytest.raises(saker_user.exceptions.ClientError):
        saker_user.decrypt(KeyId=arn, CiphertextBlob=b"nonsense")
    trail, export = copies(watched, tmp_path, "attempt")
    found = audit(watched, "reconcile", trail, "--audit", export, "--json")
    assert found.returncode == 1
    only = json.loads(found.stdout)["onlyTheirs"]
    assert len(only) == 1 and only[0]["error"] == "InvalidCiphertextException"
