"""One key's trouble is not another's, and bytes of one database are worth nothing in another one or without the keys."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import Saker, binary, eventually, free_port
from pymilvus import MilvusClient, MilvusException

from .steps import Library, connect, new_key, sealed_database, wait_until_back, wait_until_dark
from .vault import Vault


class Reader(threading.Thread):
    """Searches without pause and checks every answer; remembers the first one that was not right."""

    def __init__(self, library: Library, client: MilvusClient) -> None:
        super().__init__(daemon=True)
        self._library, self._client = library, client
        self.answers, self.failure = 0, None
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set() and self.failure is None:
            try:
                self._library.check(self._client)
                self.answers += 1
            except BaseException as error:  # noqa: BLE001: whatever it is, the test has to hear of it
                self.failure = error

    def stop(self) -> int:
        self._stopping.set()
        self.join(30)
        assert not self.is_alive()
        if self.failure:
            raise self.failure
        return self.answers


def test_a_locked_key_is_not_noticed_elsewhere(own_saker: Saker) -> None:
    arns = [new_key(own_saker), new_key(own_saker)]
    ours, theirs = (sealed_database(own_saker, name, arn) for name, arn in zip(("ours", "theirs"), arns, strict=True))
    plain = connect(own_saker)
    libraries = [Library(client, seed=seed) for seed, client in enumerate((ours, theirs, plain))]
    readers = [
        Reader(library, connect(own_saker, db_name=name))
        for library, name in zip(libraries[1:], ("theirs", "default"), strict=True)
    ]
    for reader in readers:
        reader.start()
    time.sleep(2)
    own_saker.kms().disable_key(KeyId=arns[0])
    wait_until_dark(libraries[0], ours)
    time.sleep(4)
    assert libraries[0].refusal(ours)
    own_saker.kms().enable_key(KeyId=arns[0])
    wait_until_back(libraries[0], ours)
    libraries[0].check(ours)
    time.sleep(2)
    answers = [reader.stop() for reader in readers]
    print(f"{answers} checked answers beside")
    assert min(answers) > 50


def test_names_and_drops_work_in_the_dark(own_saker: Saker) -> None:
    arn = new_key(own_saker)
    client = sealed_database(own_saker, "dark", arn)
    library = Library(client)
    Library(client, "films", rows=50, flushed=40)
    own_saker.kms().disable_key(KeyId=arn)
    wait_until_dark(library, client)
    assert sorted(client.list_collections()) == ["books", "films"]
    assert not client.has_collection("nothing")
    # What fields there are is the customer's data, so it is sealed; `has_collection` asks for it.
    with pytest.raises(MilvusException, match="kms key revoked or disabled"):
        client.has_collection("books")
    assert "state" in client.get_load_state("books")
    shown = client.describe_database("dark")
    assert (shown["cipher.enabled"], shown["cipher.key"]) == ("true", arn)
    client.drop_collection("films")
    assert client.list_collections() == ["books"]
    with pytest.raises(MilvusException, match="kms key revoked or disabled"):
        client.create_collection("more", dimension=4)
    # Dropped in the dark is dropped for good, also after a restart in the dark.
    assert own_saker.stop() == 0
    own_saker.start()
    client = connect(own_saker, db_name="dark")
    assert client.list_collections() == ["books"]
    own_saker.kms().enable_key(KeyId=arn)
    wait_until_back(library, client)
    library.check(client)
    assert client.list_collections() == ["books"]
    own_saker.kms().disable_key(KeyId=arn)
    wait_until_dark(library, client)
    client.drop_collection("books")
    client.use_database("default")
    client.drop_database("dark")
    assert "dark" not in client.list_databases()
    # The audit log stays when what it tells of is gone.
    left = [
        path
        for part in ("objects", "log")
        for path in (own_saker.directory / "data" / part).rglob("*")
        if path.is_file() and "audit" not in path.parts
    ]
    assert left == []


@pytest.fixture
def vault(own_saker: Saker) -> Vault:
    return Vault(own_saker)


def swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def test_swapped_files_are_refused(vault: Vault) -> None:
    ours, theirs = vault.files["ours"], vault.files["theirs"]
    # The same column of two databases.
    swap(ours["objects"][-1], theirs["objects"][-1])
    vault.is_refused("ours", "theirs")
    vault.mend()
    # A file over another one of the same collection, which has the same zone and kind.
    shutil.copy(ours["objects"][0], ours["objects"][1])
    vault.is_refused("ours")
    vault.mend()
    # From a customer's database to the platform's, under the name of a file there.
    shutil.copy(ours["objects"][-1], vault.files["default"]["objects"][-1])
    vault.is_refused("default")
    vault.mend()
    vault.is_refused()


def test_swapped_logs_are_refused(vault: Vault) -> None:
    ours, theirs = vault.files["ours"], vault.files["theirs"]
    swap(ours["log"][-1], theirs["log"][-1])
    vault.is_refused("ours", "theirs")
    vault.mend()
    vault.is_refused()


def test_damaged_and_missing_files_are_refused(vault: Vault) -> None:
    for file in vault.files["ours"]["objects"]:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        vault.is_refused("ours")
        vault.mend()
    file = vault.files["theirs"]["objects"][0]
    file.write_bytes(file.read_bytes()[:-1])
    vault.is_refused("theirs")
    vault.mend()
    vault.is_refused()


def test_a_stolen_copy_stays_shut(vault: Vault, tmp_path: Path) -> None:
    stolen = tmp_path / "stolen"
    shutil.copytree(vault.data, stolen / "data")
    # The data directory alone: no platform key, so not even names can be read.
    config = tmp_path / "saker.toml"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:{free_port()}"\n[data]\ndir = "{stolen}/data"\n'
        f'[kms]\nplatform_key_file = "{tmp_path}/new.key"\n'
    )
    outcome = subprocess.run([binary(), "serve", "--config", str(config)], capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 1 and "another" in outcome.stderr, outcome.stderr

    # With the platform key, but keys of the thief's own in place of the customer's: the customers' databases stay shut.
    shutil.copy(vault.saker.directory / "platform.key", stolen / "platform.key")
    thief = Saker(stolen)
    thief.start()
    try:
        client = connect(thief)
        assert sorted(client.list_databases()) == sorted(vault.NAMES)
        eventually(lambda: vault.libraries["default"].refusal(client) is None)
        for name in ("ours", "theirs"):
            inside = connect(thief, db_name=name)
            assert inside.list_collections() == ["books"]
            wait_until_dark(vault.libraries[name], inside)
            with pytest.raises(MilvusException, match="kms key revoked or disabled"):
                inside.describe_collection("books")
            with pytest.raises(MilvusException, match="kms key revoked or disabled"):
                inside.load_collection("books")
    finally:
        assert thief.stop() == 0
    vault.is_refused()
