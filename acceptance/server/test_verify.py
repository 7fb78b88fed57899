"""`saker verify`: finds every kind of damage, and says what it could not look into."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from conftest import Process, Saker, binary, free_port, row, simple_collection


def verify(data: Path, *options: str) -> tuple[int, dict]:
    outcome = subprocess.run(
        [binary(), "verify", "--json", "--dir", str(data), *options], capture_output=True, text=True, timeout=120
    )
    return outcome.returncode, json.loads(outcome.stdout) if outcome.stdout else {"error": outcome.stderr}


@pytest.fixture
def filled(own_saker: Saker):
    """A stopped server's directory with one database under the platform key and one under a customer's."""
    client = own_saker.client()
    arn = own_saker.kms().create_key()["KeyMetadata"]["Arn"]
    client.create_database("mine", properties={"cipher.enabled": "true", "cipher.key": arn})
    for inside in (client, own_saker.client(db_name="mine")):
        simple_collection(inside, "books", rows=200)
        inside.flush("books")
        inside.insert("books", [row(key) for key in range(200, 220)])
        inside.delete("books", ids=[3])
    assert own_saker.stop() == 0
    return own_saker, arn


def test_all_is_well(filled) -> None:
    saker, arn = filled
    data = saker.directory / "data"
    # Without the key server, the customer's database is looked at from outside.
    code, report = verify(data)
    assert code == 3 and report["ok"] and not report["complete"] and report["objects"] > 0 and report["logRecords"] > 0
    assert [(item["database"], item["key"]) for item in report["locked"]] == [("mine", arn)] and report["headerOnly"] > 0

    port = free_port()
    kms = Process(
        ["kms", "serve", "--dir", str(saker.directory / "kms"), "--port", str(port)]
        + ["--credentials", str(saker.directory / "aws-credentials")],
        saker.directory / "kms.log",
    )
    kms.start()
    trail = saker.directory / "kms" / "cloudtrail.jsonl"
    before = len(trail.read_text().splitlines())
    code, full = verify(data, "--kms-endpoint", f"http://127.0.0.1:{port}")
    calls = {json.loads(line)["eventName"] for line in trail.read_text().splitlines()[before:]}
    kms.stop()
    assert code == 0 and full["locked"] == [] and full["headerOnly"] == 0
    assert full["objects"] > report["objects"] and full["logRecords"] > report["logRecords"]
    assert calls == {"Decrypt"}


def test_damage_is_found(filled) -> None:
    saker, _ = filled
    data = saker.directory / "data"
    _, well = verify(data)
    files = sorted(path for path in (data / "objects").rglob("*") if path.stat().st_size > 400 and path.is_file() and path.name != ".headers")
    # A changed bit in each object, wherever it is: in a body only where the database is open.
    found = 0
    for number, path in enumerate(files):
        whole = path.read_bytes()
        at = (0, 200, len(whole) - 1)[number % 3]
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        code, report = verify(data)
        if code == 1:
            found += 1
            assert any(path.name in finding["what"] for finding in report["findings"]), report
        path.write_bytes(whole)
    assert found >= len(files) // 2
    assert verify(data) == (3, well)

    victim = files[0]
    whole = victim.read_bytes()
    victim.unlink()
    assert verify(data)[0] == 1 or "mine" in str(well["locked"])
    victim.write_bytes(whole)
    victim.chmod(0o600)

    (data / "objects" / "plain.txt").write_text("rows in the clear")
    code, report = verify(data)
    assert code == 1 and any("plain.txt" in finding["what"] for finding in report["findings"])
    (data / "objects" / "plain.txt").unlink()
    (data / "dump.csv").write_text("rows in the clear")
    code, report = verify(data)
    assert code == 1 and report["findings"][0]["what"] == "dump.csv"
    (data / "dump.csv").unlink()

    for path in sorted((data / "log").rglob("collection-*/*.log")):
        whole = path.read_bytes()
        if len(whole) < 600:
            continue
        path.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
        code, report = verify(data)
        path.write_bytes(whole)
        if code == 1:
            break
    else:
        pytest.fail("damage in no log segment was found")
    assert verify(data) == (3, well)


def test_it_needs_the_right_place(filled, tmp_path) -> None:
    saker, _ = filled
    code, report = verify(tmp_path)
    assert code == 1 and "no data directory" in report["error"]
    code, report = verify(saker.directory / "data", "--platform-key-file", str(tmp_path / "nothing"))
    assert code == 1 and "is not there" in report["error"] and not (tmp_path / "nothing").exists()
    saker.start()
    code, report = verify(saker.directory / "data")
    assert code == 1 and "in use by another server" in report["error"]
