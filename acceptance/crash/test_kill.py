"""`kill -9` at random moments under insert load: no acknowledged row lost, none doubled, no sealed file written twice.

The seed is printed; `SAKER_SEED` replays it. Three writers insert, upsert and delete without pause. After each kill the
directory is looked at before anything is started again, then the server starts and every row is read back.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from pathlib import Path

import pytest
from pymilvus import DataType, MilvusClient, MilvusException

COLLECTION, DATABASE, DIM, WRITERS = "rows", "crash", 8, 3
HEADER_BYTES = 256
# Every row is read back after each crash; more rows would only take more time.
ROWS_A_WRITER_MAX = 50_000


class Writer(threading.Thread):
    """Owns the keys that are equal to its number modulo WRITERS, so that it alone knows what each must hold."""

    def __init__(self, number: int, uri: str, state: State, seed: int) -> None:
        super().__init__(daemon=True)
        self._number, self._uri, self._state, self._random = number, uri, state, random.Random(seed)
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            client = MilvusClient(self._uri, db_name=DATABASE, timeout=10, dedicated=True)
            while not self.stopping.is_set():
                self._write(client)
        except Exception:  # noqa: BLE001: the server is killed under us; what was not acknowledged stays in doubt
            return

    def _write(self, client: MilvusClient) -> None:
        state, mine = self._state, self._number
        choice = self._random.random()
        rows = len(state.certain[mine])
        if rows < 100 or (choice < 0.7 and rows < ROWS_A_WRITER_MAX):
            count = self._random.randint(1, 400)
            keys = [(state.next_key[mine] + step) * WRITERS + mine for step in range(count)]
            state.next_key[mine] += count
            version, call = 0, client.insert
        elif choice < 0.85:
            keys = self._random.sample(sorted(state.certain[mine]), 50)
            version, call = self._random.randint(1, 10**9), client.upsert
        else:
            keys = self._random.sample(sorted(state.certain[mine]), 20)
            version, call = None, None
        for key in keys:
            state.doubtful[mine].setdefault(key, {state.certain[mine].get(key)}).add(version)
        if call is None:
            client.delete(COLLECTION, ids=keys, timeout=10)
        else:
            rows = [{"id": key, "version": version, "vector": [float(key % 97)] * DIM} for key in keys]
            call(COLLECTION, rows, timeout=10)
        for key in keys:
            del state.doubtful[mine][key]
            if version is None:
                state.certain[mine].pop(key, None)
            else:
                state.certain[mine][key] = version


class State:
    """What each key must hold (`certain`), and what it may hold because a call was cut off (`doubtful`)."""

    def __init__(self) -> None:
        self.certain: list[dict[int, int]] = [{} for _ in range(WRITERS)]
        self.doubtful: list[dict[int, set[int | None]]] = [{} for _ in range(WRITERS)]
        self.next_key = [0] * WRITERS

    def settle(self, found: dict[int, int]) -> None:
        """Checks what the server holds, and takes it as certain from now on."""
        for number in range(WRITERS):
            for key, allowed in self.doubtful[number].items():
                assert found.get(key) in allowed, f"key {key} holds {found.get(key)}, allowed {allowed}"
                self.certain[number].pop(key, None)
                if key in found:
                    self.certain[number][key] = found[key]
            self.doubtful[number].clear()
        expected = {key: version for part in self.certain for key, version in part.items()}
        lost = [key for key in expected if key not in found]
        assert not lost, f"{len(lost)} acknowledged rows lost, such as {lost[:5]}"
        extra = [key for key in found if key not in expected]
        assert not extra, f"{len(extra)} rows that nobody wrote or that were deleted, such as {extra[:5]}"
        wrong = [key for key, version in expected.items() if found[key] != version]
        assert not wrong, f"{len(wrong)} rows hold another version, such as {wrong[:5]}"


def read_back(client: MilvusClient) -> dict[int, int]:
    found: dict[int, int] = {}
    rows = client.query_iterator(COLLECTION, batch_size=5_000, output_fields=["id", "version"])
    while batch := rows.next():
        for row in batch:
            assert row["id"] not in found, f"key {row['id']} is there twice"
            found[row["id"]] = row["version"]
    rows.close()
    count = client.query(COLLECTION, filter="", output_fields=["count(*)"])[0]["count(*)"]
    assert count == len(found), f"count(*) is {count}, the rows are {len(found)}"
    return found


class Files:
    """Remembers every sealed file ever seen, to notice one that is written again or goes on after a crash."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._headers: dict[Path, bytes] = {}
        self._bodies: dict[bytes, Path] = {}
        self._sizes_at_crash: dict[Path, int] = {}

    def _sealed(self) -> list[Path]:
        return [path for part in ("objects", "log") for path in (self._root / part).rglob("*") if path.is_file()]

    def after_crash(self) -> None:
        self._sizes_at_crash = {path: path.stat().st_size for path in self._sealed()}
        self._look()

    def after_restart(self) -> None:
        for path, size in self._sizes_at_crash.items():
            if path.exists():
                assert path.stat().st_size <= size, f"{path.name} was open at the crash and was written to after it"
        self._look()

    def _look(self) -> None:
        for path in self._sealed():
            try:
                header = path.open("rb").read(HEADER_BYTES)
            except FileNotFoundError:
                continue
            if len(header) < HEADER_BYTES:
                continue
            # A log file that is no longer needed gets another name first, then its wrapped key is overwritten, then it is deleted.
            if path.suffix == ".gone" and not any(header):
                continue
            # An object being written has a number after its name until all of it is there.
            name = path.with_name(re.sub(r"(\.gone|#\d+)$", "", path.name))
            assert self._headers.setdefault(name, header) == header, f"{path.name} has another header than before"
            assert self._bodies.setdefault(header, name) == name, f"{path.name} has the header of another file"


def crash_run(saker, crashes: int, seed: int, moment_max_s: float) -> None:
    print(f"seed {seed}, {crashes} crashes")
    # pymilvus writes a stack trace for every call that a kill cuts off.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    source = random.Random(seed)
    saker.start()
    arn = saker.kms().create_key()["KeyMetadata"]["Arn"]
    client = saker.client()
    client.create_database(DATABASE, properties={"cipher.enabled": "true", "cipher.key": arn})
    client.use_database(DATABASE)
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("version", DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="AUTOINDEX", metric_type="L2")
    client.create_collection(COLLECTION, schema=schema, index_params=index)
    client.close()
    state, files = State(), Files(saker.directory / "data")
    for number in range(crashes):
        writers = [Writer(writer, saker.uri, state, source.getrandbits(64)) for writer in range(WRITERS)]
        for writer in writers:
            writer.start()
        flusher = threading.Timer(source.uniform(0, moment_max_s), flush_quietly, [saker.uri])
        if source.random() < 0.5:
            flusher.start()
        time.sleep(source.uniform(0.05, moment_max_s))
        saker.kill()
        flusher.cancel()
        for writer in writers:
            writer.stopping.set()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive(), "a client call hangs after the server is gone"
        files.after_crash()
        saker.start()
        client = connect(saker)
        wait_until_loaded(client)
        found = read_back(client)
        state.settle(found)
        files.after_restart()
        client.close()
        print(f"crash {number + 1}: {len(found)} rows as they must be", flush=True)
    assert sum(len(part) for part in state.certain) > 100 * crashes // 10, "the writers hardly wrote: nothing was tested"
    saker.stop()


def connect(saker) -> MilvusClient:
    """gRPC in this process may still hold back from the address at which nothing answered a moment ago."""
    until = time.monotonic() + 20
    while True:
        try:
            return saker.client(db_name=DATABASE)
        except MilvusException:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def flush_quietly(uri: str) -> None:
    try:
        MilvusClient(uri, db_name=DATABASE, timeout=10, dedicated=True).flush(COLLECTION, timeout=10)
    except Exception:  # noqa: BLE001: the kill cuts it off
        return


def wait_until_loaded(client: MilvusClient) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            client.query(COLLECTION, filter="id == 0", output_fields=["id"])
            return
        except MilvusException:
            time.sleep(0.1)
    raise AssertionError("the collection was not loaded again within 60 s of the start")


def seed() -> int:
    return int(os.environ.get("SAKER_SEED", random.SystemRandom().getrandbits(32)))


def test_kill_nine_loses_and_doubles_nothing(stopped_saker) -> None:
    crash_run(stopped_saker, crashes=5, seed=seed(), moment_max_s=2.0)


@pytest.mark.soak
def test_kill_nine_a_hundred_times(stopped_saker) -> None:
    crash_run(stopped_saker, crashes=100, seed=seed(), moment_max_s=4.0)
