"""`saker verify --evidence`: what an auditor keeps. The report is right, it stands alone, it was made without a change to what
it is about and with Decrypt only, and no tampering goes unnoticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from conftest import Saker, binary
from pymilvus import MilvusClient

from .evidence_page import Page, check_sums, visible
from .steps import Library, connect
from .test_verify import Inspector, flipped, write
from .vault import Vault

LISTED = {"totals.items", "totals.bytes", "totals.findings", "totals.frames", "keyCalls.total", "totals.zones", "totals.darkZones"}


@pytest.fixture
def inspector(own_saker: Saker):
    inspector = Inspector(Vault(own_saker))
    yield inspector
    inspector.close()


class Report:
    """Runs `saker verify --evidence` and reads both files."""

    def __init__(self, inspector: Inspector, into: Path, *options: str) -> None:
        self.code, self.said = inspector.look(None, "--evidence", str(into), *options)
        path = into / "evidence.json"
        self.document = json.loads(path.read_text())
        assert self.said["evidence"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        self.page = Page(into / "evidence.html")
        assert self.page.of("code", id="json-sha256") == [self.said["evidence"]["sha256"]]
        check_sums(self.document)
        self.page.check_alone()
        self.where = self.page.check_numbers(self.document)
        assert self.where >= LISTED
        for file in into.iterdir():
            assert file.stat().st_mode & 0o077 == 0
        rows = self.page.rows()
        shown = [(row[0], rows["kinds"][row[1]], row[4], row[5], row[6], rows["verdicts"][row[7]]) for row in rows["rows"]]
        kept = self.document["files"]
        assert shown == [(visible(f["path"]), f["kind"], f["version"], f["bytes"], f["frames"], f["verdict"]) for f in kept]

    def verdicts(self) -> Counter:
        return Counter(file["verdict"] for file in self.document["files"])


def snapshot(root: Path) -> dict:
    state = {}
    for path in sorted(root.rglob("*")):
        found = path.lstat()
        state[path] = (found.st_mode, found.st_mtime_ns, found.st_size, path.read_bytes() if path.is_file() else b"")
    return state


def test_the_report_of_a_whole_directory(inspector: Inspector, tmp_path: Path) -> None:
    vault = inspector.vault
    trail = vault.saker.directory / "kms" / "cloudtrail.jsonl"
    before, calls_before = snapshot(vault.data), len(trail.read_text().splitlines())
    report = Report(inspector, tmp_path / "evidence")
    document = report.document
    assert report.code == 0 and document["verdict"] == "verified" and document["findings"] == []
    assert snapshot(vault.data) == before, "the walk changed something"
    # Every file of the disk is in it once, with its length; values of the metadata file are parts of it.
    kept = {file["path"]: file for file in document["files"]}
    assert len(kept) == len(document["files"])
    on_disk = {str(path.relative_to(vault.data)): path.stat().st_size for path in vault.data.rglob("*") if path.is_file()}
    values = {path: file for path, file in kept.items() if path.startswith("meta.redb:")}
    assert set(on_disk) == set(kept) - set(values)
    assert sum(on_disk.values()) == document["totals"]["bytes"]
    for path, size in on_disk.items():
        inside = sum(file["bytes"] for file in values.values()) if path == "meta.redb" else 0
        assert kept[path]["bytes"] == size - inside, path
    # Only these are not sealed.
    assert {path for path, file in kept.items() if file["verdict"] == "open"} <= {
        *("SAKER", "LOCK", "meta.redb", "meta.redb:cluster/platform", "objects/.headers", "log/.headers")
    }
    assert report.verdicts()["verified"] > 30 and set(report.verdicts()) == {"verified", "open"}
    # The keys: two customers' and the platform's, each with what lies under it.
    assert {root["key"] for root in document["roots"]} == {"file:platform", *vault.arns.values()}
    assert all(root["items"] > 0 and root["state"] == "usable" for root in document["roots"])
    # The key service has the same calls, and no other, under the same ids.
    theirs = [json.loads(line) for line in trail.read_text().splitlines()[calls_before:]]
    ours = [call for call in document["keyCalls"]["calls"] if call["root"] != "file:platform"]
    assert {call["operation"] for call in document["keyCalls"]["calls"]} == {"Decrypt"}
    assert Counter(call["requestId"] for call in ours) == Counter(event["requestID"] for event in theirs)
    assert len(ours) == 2 and all(call["outcome"] == "ok" and call["requestId"] for call in ours)
    for call in ours:
        (event,) = [event for event in theirs if event["requestID"] == call["requestId"]]
        assert event["requestParameters"]["encryptionContext"] == call["context"]
    # The audit log's chain.
    chain = document["auditChain"]
    assert chain["whole"] and chain["records"] > 0 and chain["head"] in report.page.text
    # Names are told on request only.
    both = (tmp_path / "evidence" / "evidence.json").read_text() + report.page.text
    assert "ours" not in both and "theirs" not in both and "books" not in both and not document["names"]
    named = Report(inspector, tmp_path / "named", "--names")
    assert {database["name"] for database in named.document["databases"]} == {"default", "ours", "theirs"}
    assert "database ours" in named.page.text and "ours / books" in named.page.text


def test_a_report_is_never_put_over_another_or_into_the_data(inspector: Inspector, tmp_path: Path) -> None:
    data = inspector.vault.data
    Report(inspector, tmp_path / "evidence")
    before = snapshot(tmp_path / "evidence")
    for place, words in ((tmp_path / "evidence", "holds a report already"), (data / "evidence", "lies in the data directory")):
        command = [binary(), "verify", "--dir", str(data), "--evidence", str(place)]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert outcome.returncode == 1 and words in outcome.stderr
    assert snapshot(tmp_path / "evidence") == before and not (data / "evidence").exists()


def test_keys_that_may_not_be_used_are_dark_and_not_corrupt(inspector: Inspector, tmp_path: Path) -> None:
    vault, kms = inspector.vault, inspector.kms()
    kms.disable_key(KeyId=vault.arns["ours"])
    report = Report(inspector, tmp_path / "dark")
    assert report.code == 3 and report.document["verdict"] == "incomplete" and report.document["findings"] == []
    dark = {file["path"] for file in report.document["files"] if file["verdict"] == "dark"}
    assert {str(path.relative_to(vault.data)) for path in vault.files["ours"]["objects"]} <= dark
    (zone,) = [zone for zone in report.document["zones"] if zone["state"] == "dark"]
    assert zone["root"] == vault.arns["ours"] and "disabled" in zone["reason"] and zone["items"] == len(dark)
    # One root key that is off is asked once.
    assert [call["outcome"] == "ok" for call in report.document["keyCalls"]["calls"] if call["root"] == zone["root"]] == [False]
    # Damage beside it is damage.
    flipped(vault.files["theirs"]["objects"][0], 300)
    report = Report(inspector, tmp_path / "both")
    assert report.code == 1 and report.document["verdict"] == "findings" and report.verdicts()["dark"] == len(dark)


def test_decrypt_is_all_that_it_needs(inspector: Inspector, tmp_path: Path) -> None:
    vault, kms = inspector.vault, inspector.kms()
    account = vault.arns["ours"].split(":")[4]
    user = f"arn:aws:iam::{account}:user"
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": f"{user}/customer"}, "Action": "kms:*", "Resource": "*"},
            {"Effect": "Allow", "Principal": {"AWS": f"{user}/saker"}, "Action": "kms:Decrypt", "Resource": "*"},
        ],
    }
    for arn in vault.arns.values():
        kms.put_key_policy(KeyId=arn, Policy=json.dumps(policy))
    report = Report(inspector, tmp_path / "evidence")
    assert report.code == 0 and report.document["verdict"] == "verified"
    policy["Statement"][1]["Action"] = "kms:GenerateDataKey"
    kms.put_key_policy(KeyId=vault.arns["ours"], Policy=json.dumps(policy))
    assert Report(inspector, tmp_path / "without").code == 3


def test_left_overs_stay_and_are_told(inspector: Inspector, tmp_path: Path) -> None:
    vault = inspector.vault
    object_ = vault.files["ours"]["objects"][0]
    stream = vault.files["ours"]["log"][0].parent
    for path, content in (
        (object_.with_name(f"{object_.name}#7"), object_.read_bytes()[:200]),
        (stream / "00000000000000000077.log.new", b"SAKERLOG"),
        (stream / "00000000000000000076.log.gone", bytes(300)),
        (vault.data / "meta.redb.new", b""),
    ):
        write(path, content)
    before = snapshot(vault.data)
    report = Report(inspector, tmp_path / "evidence")
    assert snapshot(vault.data) == before
    assert report.code == 1 and {finding["class"] for finding in report.document["findings"]} == {"leftover"}
    assert len(report.document["findings"]) == 4 and report.verdicts()["unfinished"] == 4
    # A start clears them away.
    inspector.close()
    vault.saker.start()
    connect(vault.saker).close()
    assert vault.saker.stop() == 0
    inspector.open()
    inspector.is_whole()


def test_a_copy_on_a_disk_without_writing_will_do(inspector: Inspector, tmp_path: Path) -> None:
    # Beside the original, where the credentials for the keys are.
    copy = inspector.vault.data.with_name("copy")
    shutil.copytree(inspector.vault.data, copy)
    (copy / "LOCK").unlink()
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = snapshot(copy)
    code, report = inspector.look(copy, "--evidence", str(tmp_path / "evidence"))
    assert code == 0 and report["ok"] and snapshot(copy) == before
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o700)


def test_hostile_names_stay_text(inspector: Inspector, tmp_path: Path) -> None:
    data = inspector.vault.data
    names = [
        "<script>alert(1)<%2fscript>",
        '"><img src=x onerror=alert(1)>',
        "'-alert(1)-'",
        "</title><svg onload=alert(1)>".replace("/", "%2f"),
        "&lt;b&gt;",
        "\u202egpj.exe",
        "line\nbreak",
        "${7*7}{{7*7}}",
    ]
    for name in names:
        write(data / name, b"x")
    write(Path(os.fsdecode(os.fsencode(data) + b"/not-utf8-\xff")), b"x")
    report = Report(inspector, tmp_path / "evidence", "--names")
    assert report.code == 1
    assert {finding["what"] for finding in report.document["findings"]} >= set(names)
    shown = " ".join(report.page.of("td", **{"class": "mono"}))
    for name in names:
        assert visible(name) in shown, name
    assert "\u202e" not in report.page.text
    plain = subprocess.run([binary(), "verify", "--dir", str(data)], capture_output=True, text=True, timeout=120, check=False)
    assert plain.returncode == 1 and "\u202e" not in plain.stdout and "BAD line\\u{a}break" in plain.stdout


def test_damage_never_ends_the_walk(inspector: Inspector, tmp_path: Path) -> None:
    """What ended it once: the first bytes of a stream's newest log segment. And what could: the metadata file."""
    vault = inspector.vault
    newest = max(vault.files["ours"]["log"], key=lambda path: path.name)
    objects = sum(len(files["objects"]) for files in vault.files.values())
    before = flipped(newest, 3)
    report = Report(inspector, tmp_path / "log")
    assert report.code == 1 and [finding["what"] for finding in report.document["findings"]] == [str(newest.relative_to(vault.data))]
    assert report.said["objects"] == objects
    write(newest, before)
    meta = vault.data / "meta.redb"
    whole = meta.read_bytes()
    for number, content in enumerate((b"", b"rows", whole[: len(whole) // 2], bytes(len(whole)))):
        write(meta, content)
        report = Report(inspector, tmp_path / f"meta{number}")
        assert report.code == 1 and any(finding["what"].startswith("meta.redb") for finding in report.document["findings"])
        assert len(report.document["files"]) > objects
    meta.unlink()
    assert Report(inspector, tmp_path / "gone").code == 1
    write(meta, whole)
    inspector.is_whole()


def test_each_cluster_of_a_server_has_a_report_of_its_own(inspector: Inspector, tmp_path: Path) -> None:
    vault = inspector.vault
    inspector.close()
    vault.saker.start()
    command = [binary(), "cluster", "create", "second", "--project", "default", "--json", "--url", vault.saker.uri]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert made.returncode == 0, made.stderr
    cluster = json.loads(made.stdout)
    client = MilvusClient(cluster["uri"], dedicated=True)
    library = Library(client, "elsewhere")
    library.check(client)
    client.close()
    assert vault.saker.stop() == 0
    inspector.open()
    report = Report(inspector, tmp_path / "evidence")
    assert report.code == 0 and report.document["verdict"] == "verified"
    (inside,) = report.said["clusters"]
    assert inside == cluster["id"] and report.said["clusters"][inside]["ok"]
    assert not any(file["path"].startswith("clusters/") for file in report.document["files"])
    place = tmp_path / "evidence" / "clusters" / inside
    document = json.loads((place / "evidence.json").read_text())
    check_sums(document)
    page = Page(place / "evidence.html")
    page.check_alone()
    page.check_numbers(document)
    assert document["directory"]["cluster"] != report.document["directory"]["cluster"]
    # What is wrong in one of them is said of the server.
    victim = next(path for path in (vault.data / "clusters" / inside / "objects").rglob("*") if path.is_file())
    flipped(victim, 200)
    code, said = inspector.look()
    assert code == 1 and said["ok"] and not said["clusters"][inside]["ok"]


class Matrix:
    """Counts what was tampered with, and what was noticed."""

    def __init__(self, inspector: Inspector) -> None:
        self.inspector, self.data = inspector, inspector.vault.data
        self.tried: Counter = Counter()
        self.caught: Counter = Counter()
        self.missed: list[str] = []

    def noticed(self, kind: str, path: Path, at: str | None = None) -> None:
        code, report = self.inspector.look()
        what = str(path.relative_to(self.data)) if at is None else at
        self.tried[kind] += 1
        if code == 1 and any(finding["what"].startswith(what) for finding in report["findings"]):
            self.caught[kind] += 1
        else:
            self.missed.append(f"{kind}: {what}: {report['findings']}")

    def content(self, kind: str, path: Path, content: bytes, at: str | None = None) -> None:
        before = path.read_bytes()
        assert before != content, f"{kind}: no change"
        write(path, content)
        self.noticed(kind, path, at)
        write(path, before)

    def bit(self, kind: str, path: Path, at: int) -> None:
        whole = path.read_bytes()
        self.content(kind, path, whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])


def test_tampering_matrix(inspector: Inspector) -> None:
    vault = inspector.vault
    ours, theirs = vault.files["ours"], vault.files["theirs"]
    matrix = Matrix(inspector)
    inspector.is_whole()
    old = {path: path.read_bytes() for path in ours["objects"]}
    # A rotation: what was there before it must not be taken any more.
    inspector.close()
    vault.saker.start()
    client = connect(vault.saker)
    command = [binary(), "key", "rotate", "--database", "ours", "--wait", "--url", vault.saker.uri]
    rotated = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert rotated.returncode == 0, rotated.stderr + rotated.stdout
    client.close()
    assert vault.saker.stop() == 0
    inspector.open()
    whole = inspector.is_whole()
    for path, before in old.items():
        now = path.read_bytes()
        assert now != before and now[192:] == before[192:]
        matrix.content("header from before the rotation", path, before[:192] + now[192:])
    for number, path in enumerate(ours["objects"]):
        content = path.read_bytes()
        for at in (0, 14, 20, 60, 100, 120, 130, 150, 191):
            matrix.bit("bit in a header", path, at)
        for at in (192, 200, (192 + len(content)) // 2):
            matrix.bit("bit in a frame", path, at)
        matrix.bit("bit in the last frame", path, len(content) - 1)
        for length in (0, 191, 192, len(content) - 1):
            matrix.content("cut", path, content[:length])
        for more in (b"\0", content, b"\0" * 65_564):
            matrix.content("extended", path, content + more)
        other = ours["objects"][(number + 1) % len(ours["objects"])].read_bytes()
        matrix.content("another file of the collection", path, other)
        foreign = theirs["objects"][number].read_bytes()
        matrix.content("file from another zone", path, foreign)
        matrix.content("header of another file", path, other[:192] + content[192:])
        matrix.content("key slot of another zone", path, content[:112] + foreign[112:192] + content[192:])
        path.unlink()
        matrix.noticed("removed", path)
        write(path, content)
        path.chmod(0o644)
        matrix.noticed("wider access mode", path)
        path.chmod(0o600)
        beside = path.with_name(f"rows-{number}.parquet")
        write(beside, b"PAR1 rows in the clear")
        matrix.noticed("plaintext beside", beside)
        beside.unlink()
    for path in (path for path in ours["log"] if path.suffix == ".log"):
        content = path.read_bytes()
        for at in (0, 20, 39, 60, 200, 231, 240, len(content) // 2, len(content) - 1):
            matrix.bit("bit in the log", path, at)
        for length in (0, 100, len(content) // 2, len(content) - 1):
            matrix.content("log segment cut", path, content[:length])
        matrix.content("log segment extended", path, content + b"rows")
        other = next(path for path in theirs["log"] if path.suffix == ".log")
        matrix.content("log segment from another zone", path, other.read_bytes())
    meta = vault.data / "meta.redb"
    content = meta.read_bytes()
    matrix.content("metadata cut", meta, content[: len(content) // 2])
    # Consistent in itself, but the files are under a key that it does not have.
    matrix.content("metadata from before the rotation", meta, (vault.whole / "meta.redb").read_bytes(), at="objects/")
    # All sealed values at once: which of them are live is the library's matter.
    altered = bytearray(content)
    at = content.find(b"\x93SAKER\r\n")
    while at >= 0:
        altered[at + 150] ^= 1
        at = content.find(b"\x93SAKER\r\n", at + 1)
    matrix.content("bits in metadata values", meta, bytes(altered))
    for directory in (vault.data, vault.data / "objects", vault.data / "log"):
        mode = directory.stat().st_mode
        directory.chmod(0o755)
        matrix.tried["wider access mode"] += 1
        code, report = inspector.look()
        matrix.caught["wider access mode"] += int(code == 1 and report["findings"][0]["class"] == "mode")
        directory.chmod(mode)
    assert inspector.is_whole() == whole
    tried, caught = sum(matrix.tried.values()), sum(matrix.caught.values())
    print(f"tamper cases: {tried} tried, {caught} caught")
    for kind, count in matrix.tried.items():
        print(f"  {kind}: {count} tried, {matrix.caught[kind]} caught")
    assert tried >= 120 and matrix.missed == []
    assert caught == tried
