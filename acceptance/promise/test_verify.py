"""`saker verify` against everything that may be done to a data directory, with the customers' keys at hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import boto3
import pytest
from conftest import Process, Saker, binary, free_port

from .steps import connect
from .vault import Vault


class Inspector:
    """Runs `saker verify`, with a key server of the vault's own in reach."""

    def __init__(self, vault: Vault) -> None:
        self.vault, self._directory = vault, vault.saker.directory
        self._port = free_port()
        command = ["kms", "serve", "--dir", str(self._directory / "kms"), "--port", str(self._port)]
        command += ["--credentials", str(self._directory / "aws-credentials")]
        self._key_server = Process(command, self._directory.with_suffix(".kms.log"))
        self.open()

    def open(self) -> None:
        self._key_server.start()

    def close(self) -> None:
        assert self._key_server.stop() == 0

    def kms(self):
        options = self.vault.saker.kms_options()
        return boto3.client("kms", **{**options, "endpoint_url": f"http://127.0.0.1:{self._port}"})

    def look(self, data: Path | None = None, *options: str) -> tuple[int, dict]:
        command = [binary(), "verify", "--json", "--dir", str(data or self.vault.data)]
        command += ["--kms-endpoint", f"http://127.0.0.1:{self._port}"]
        if data:
            command += ["--platform-key-file", str(self._directory / "platform.key")]
        outcome = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120, check=False)
        # Whatever is wrong with the data: the report is there, and it is whole.
        assert outcome.returncode in (0, 1, 3) and outcome.stdout, outcome.stderr
        return outcome.returncode, json.loads(outcome.stdout)

    def is_whole(self) -> dict:
        code, report = self.look()
        assert report["ok"] and report["findings"] == [], report
        assert code == (3 if report["locked"] else 0) and report["complete"] == (code == 0)
        return report

    def names(self, path: Path) -> None:
        """Says that something is wrong with this file, and with no other."""
        code, report = self.look()
        found = [finding["what"] for finding in report["findings"]]
        assert code == 1 and not report["ok"], f"{path.name}: nothing was noticed"
        # A log segment goes by its stream and number.
        wanted = path.parent.name if path.suffix == ".log" else path.name
        # A directory that is not Saker's is named too.
        strange = str(path.parent.relative_to(self.vault.data))
        assert found and all(wanted in what or what == strange for what in found), f"{path}: {report['findings']}"


@pytest.fixture
def inspector(own_saker: Saker):
    inspector = Inspector(Vault(own_saker))
    yield inspector
    inspector.close()


def write(path: Path, content: bytes) -> None:
    """As Saker would leave it: for its owner alone."""
    path.write_bytes(content)
    path.chmod(0o600)


def flipped(path: Path, at: int) -> bytes:
    """Flips a bit in the file; gives what it was before."""
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
    return whole


def test_every_changed_byte_is_noticed(inspector: Inspector) -> None:
    whole = inspector.is_whole()
    assert whole["locked"] == [] and whole["headerOnly"] == 0
    objects = [path for files in inspector.vault.files.values() for path in files["objects"]]
    assert whole["objects"] == len(objects)
    for path in objects:
        size = path.stat().st_size
        for at in (0, 20, 100, 150, 191, 192, size // 2, size - 1):
            before = flipped(path, at)
            inspector.names(path)
            path.write_bytes(before)
    assert inspector.is_whole() == whole


def test_shortened_lengthened_and_missing_files_are_noticed(inspector: Inspector) -> None:
    path = inspector.vault.files["ours"]["objects"][-1]
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:100], b"", whole + b"\0", whole + whole):
        path.write_bytes(content)
        inspector.names(path)
    path.unlink()
    inspector.names(path)
    write(path, whole)
    other = inspector.vault.files["ours"]["objects"][0]
    shutil.copy(other, path)
    inspector.names(path)
    path.write_bytes(whole)
    inspector.is_whole()


def test_a_damaged_log_is_noticed(inspector: Inspector) -> None:
    logs = [path for files in inspector.vault.files.values() for path in files["log"] if path.suffix == ".log"]
    noticed = 0
    for path in logs:
        for at in (0, 30, 45, 60, 140, 200):
            before = flipped(path, at)
            inspector.names(path)
            noticed += 1
            path.write_bytes(before)
    assert noticed >= 3 * 6
    inspector.is_whole()


def test_files_that_are_not_sealed_are_noticed(inspector: Inspector) -> None:
    data = inspector.vault.data
    near = inspector.vault.files["ours"]["objects"][0].parent
    for path in (data / "objects" / "rows.parquet", near / "plain", data / "log" / "rows.csv", data / "dump", data / "x" / "y"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"rows in the clear")
        inspector.names(path)
        path.unlink()
        if path.parent.name == "x":
            path.parent.rmdir()
    inspector.is_whole()
    # Begins as a sealed file does, but belongs to nothing.
    stray = near / "00000000-0000-4000-8000-000000000000"
    shutil.copy(inspector.vault.files["ours"]["objects"][0], stray)
    inspector.names(stray)


def test_a_disabled_key_leaves_the_header(inspector: Inspector) -> None:
    vault, kms = inspector.vault, inspector.kms()
    whole = inspector.is_whole()
    kms.disable_key(KeyId=vault.arns["ours"])
    report = inspector.is_whole()
    ((name, key),) = [(item["database"], item["key"]) for item in report["locked"]]
    assert (name, key) == ("ours", vault.arns["ours"]) and "disabled" in report["locked"][0]["reason"]
    assert report["headerOnly"] >= len(vault.files["ours"]["objects"]) > 0
    assert report["objects"] == whole["objects"] - len(vault.files["ours"]["objects"])
    # What it says of it: by header only. So damage in a body shows once the key is back.
    path = vault.files["ours"]["objects"][0]
    before = flipped(path, path.stat().st_size - 1)
    inspector.is_whole()
    kms.enable_key(KeyId=vault.arns["ours"])
    inspector.names(path)
    path.write_bytes(before)
    kms.disable_key(KeyId=vault.arns["ours"])
    before = flipped(path, 0)
    inspector.names(path)
    path.write_bytes(before)
    # The other customer's files are looked at as ever.
    path = vault.files["theirs"]["objects"][0]
    flipped(path, path.stat().st_size - 1)
    inspector.names(path)


def test_copies_of_what_was_dropped_cannot_be_opened(inspector: Inspector, tmp_path: Path) -> None:
    """Objects of before the drop, with the metadata of after it."""
    vault = inspector.vault
    inspector.is_whole()
    inspector.close()
    vault.saker.start()
    client = connect(vault.saker, db_name="ours")
    client.drop_collection("books")
    client.use_database("default")
    client.drop_database("ours")
    client.use_database("theirs")
    client.drop_collection("books")
    assert vault.saker.stop() == 0
    inspector.open()
    after = inspector.is_whole()
    assert after["objects"] == len(vault.files["default"]["objects"]) and after["locked"] == []
    # The directory as it was, but for the metadata.
    mixed = tmp_path / "mixed"
    shutil.copytree(vault.whole, mixed)
    shutil.copy(vault.data / "meta.redb", mixed / "meta.redb")
    code, report = inspector.look(mixed)
    found = " ".join(finding["what"] for finding in report["findings"])
    assert code == 1
    for name in ("ours", "theirs"):
        assert all(path.name in found for path in vault.files[name]["objects"]), report
    assert not any(path.name in found for path in vault.files["default"]["objects"])
    assert report["objects"] == after["objects"], "an object of a dropped collection was opened"
