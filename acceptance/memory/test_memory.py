"""What is left in the database's memory once its key was switched off: nothing that an attacker could use.

The test reads every readable page of the server's process, as root on the host could, and searches it for the zone's keys
(as the key server gave them out), for the data keys of every file and log segment (which it opens itself), and for rows,
queries and filters. Each search is made before the lock as well, when it has to find them: a search that can find nothing
proves nothing.
"""

from __future__ import annotations

import configparser
import os
import resource
import secrets
import signal
import subprocess
import time
from pathlib import Path

import boto3
import numpy as np
import pytest
from conftest import Process, binary, eventually, free_port
from pymilvus import DataType, MilvusClient, MilvusException

from .by_the_book import open_all
from .process_memory import Hit, Secrets, outside_locked_memory, summary
from .recording_proxy import RecordingProxy

DIM = 24
REFUSED = 9
SECONDS_MAX = 30
"""What the product promises: so long after the first refusal nothing is left."""


class Served:
    """`saker kms serve`, the recording proxy before it, and `saker serve`, each a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        kms_port, self.port = free_port(), free_port()
        self.credentials = directory / "aws-credentials"
        self.key_server = Process(
            ["kms", "serve", "--dir", str(directory / "kms"), "--port", str(kms_port), "--credentials", str(self.credentials)],
            directory / "kms.log",
        )
        self.key_server.start()
        self.kms_endpoint = f"http://127.0.0.1:{kms_port}"
        self.proxy = RecordingProxy(kms_port)
        config = directory / "saker.toml"
        config.write_text(f"""
[server]
listen = "127.0.0.1:{self.port}"
[data]
dir = "{self.data}"
[kms]
platform_key_file = "{directory}/platform.key"
probe_interval_ms = 1000
grace_ms = 10000
[kms.aws]
endpoint_url = "http://127.0.0.1:{self.proxy.port}"
region = "us-east-1"
profile = "saker"
credentials_file = "{self.credentials}"
[engine]
index_rows_min = 32
""")
        command = ["serve", "--config", str(config), "--log-level", "debug"]
        if os.geteuid() != 0:
            # Only root may read the memory of a process that is not debuggable.
            command.append("--dangerous-allow-debugger")
        self.server = Process(command, directory / "saker.log")
        self.server.start()
        assert self.server.process
        self.process = self.server.process.pid

    def kms(self):
        credentials = configparser.ConfigParser()
        credentials.read(self.credentials)
        customer = credentials["customer"]
        return boto3.client(
            "kms",
            endpoint_url=self.kms_endpoint,
            region_name="us-east-1",
            aws_access_key_id=customer["aws_access_key_id"],
            aws_secret_access_key=customer["aws_secret_access_key"],
        )

    def stop(self) -> None:
        self.server.stop()
        self.proxy.stop()
        self.key_server.stop()


@pytest.fixture
def served(tmp_path, quiet_client):
    served = Served(tmp_path)
    yield served
    served.stop()


class Diary:
    """A collection whose every value is a canary: texts, JSON, dynamic fields and vectors; flushed, indexed and loaded rows,
    rows in the log only, an upsert, a delete, and queries about them."""

    FLUSHED, GROWING = 120, 40

    def __init__(self, client: MilvusClient, name: str) -> None:
        self.client, self.name = client, name
        self.texts: dict[str, str] = {}
        self.rng = np.random.default_rng()
        self.vectors = self.rng.standard_normal((self.FLUSHED + self.GROWING, DIM)).astype("<f4")
        self.queries = self.rng.standard_normal((8, DIM)).astype("<f4")
        schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("note", DataType.VARCHAR, max_length=200)
        schema.add_field("document", DataType.JSON)
        schema.add_field("words", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=200)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="L2", params={"M": 8, "efConstruction": 64})
        client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
        rows = [self.row(key) for key in range(self.FLUSHED + self.GROWING)]
        self.notes = [row["note"] for row in rows]
        client.insert(name, rows[: self.FLUSHED])
        client.flush(name)
        client.insert(name, rows[self.FLUSHED :])
        changed = self.row(0)
        self.notes[0] = changed["note"]
        client.upsert(name, [changed])
        client.delete(name, filter=f'note == "{self.notes[1]}"')
        eventually(lambda: client.describe_index(name, "vector")["pending_index_rows"] == 0, seconds=60)
        self.use()

    def text(self, what: str) -> str:
        # Nothing but chance, so that no piece of it is a piece of another's.
        text = secrets.token_hex(20)
        self.texts[text] = what
        return text

    def row(self, key: int) -> dict:
        return {
            "id": key,
            "note": self.text("note"),
            "document": {self.text("name in JSON"): self.text("JSON")},
            "words": [self.text("array"), self.text("array")],
            "vector": self.vectors[key].tolist(),
            self.text("dynamic name"): self.text("dynamic value"),
        }

    def use(self) -> None:
        """Searches and queries, with filters; all answers are right."""
        hits = self.client.search(
            self.name, self.queries.tolist(), limit=5, filter=f'note != "{self.text("filter")}"', output_fields=["*"]
        )
        for query, found in zip(self.queries, hits, strict=True):
            distances = ((self.vectors - query) ** 2).sum(axis=1)
            best = [key for key in np.argsort(distances).tolist() if key != 1][:5]
            assert {hit["id"] for hit in found} == set(best)
        rows = self.client.query(self.name, filter=f'note == "{self.notes[-1]}"', output_fields=["*"])
        assert [row["id"] for row in rows] == [len(self.notes) - 1]
        first = self.client.get(self.name, [0, 2], output_fields=["note", "document"])
        assert [row["note"] for row in first] == [self.notes[0], self.notes[2]]

    def refusal(self) -> MilvusException | None:
        try:
            self.client.search(self.name, [self.queries[0].tolist()], limit=1)
        except MilvusException as error:
            return error
        return None

    def secrets(self) -> Secrets:
        sought = Secrets()
        for text, what in self.texts.items():
            sought.text(text, what)
        for vector in self.vectors:
            sought.vector(vector, "vector")
        for vector in self.queries:
            sought.vector(vector, "query vector")
        return sought


def keys_of(served: Served, arn: str) -> Secrets:
    """The zone's key and every key below it."""
    sought = Secrets()
    for key in served.proxy.keys[arn]:
        sought.key(key, "zone key")
    opened = open_all(served.data, served.proxy.keys[arn])
    # Columns, an index, log segments and metadata values of one collection, at least.
    assert {header.kind for header in opened} >= {1, 2, 5, 6}, "the second reader misses files"
    for header in opened:
        for name, key in header.keys.items():
            sought.key(key, f"{name} of a file of kind {header.kind}")
    return sought


def kinds(hits: list[Hit]) -> set[str]:
    return {hit.what for hit in hits}


def becomes_empty(served: Served, *sought: Secrets) -> None:
    """Nothing of it is left soon enough."""
    until = time.monotonic() + SECONDS_MAX
    while True:
        is_last = time.monotonic() > until
        left = [hit for secrets in sought for hit in secrets.found_in(served.process)]
        if not left:
            return
        assert not is_last, f"{SECONDS_MAX} s after the lock: {summary(left)}"
        time.sleep(0.5)


def test_a_lock_leaves_nothing_in_memory(served):
    kms = served.kms()
    arns = {name: kms.create_key()["KeyMetadata"]["Arn"] for name in ("ours", "theirs")}
    diaries = {}
    for name, arn in arns.items():
        client = MilvusClient(f"http://127.0.0.1:{served.port}", dedicated=True)
        client.create_database(name, properties={"cipher.enabled": "true", "cipher.key": arn})
        client.use_database(name)
        diaries[name] = Diary(client, "diary")
    ours, theirs = diaries["ours"], diaries["theirs"]
    assert len(served.proxy.keys[arns["ours"]]) == 1, "the database has one zone key"

    our_rows, their_rows = ours.secrets(), theirs.secrets()
    our_keys, their_keys = keys_of(served, arns["ours"]), keys_of(served, arns["theirs"])
    # What the search has to find while the key is on, or it could not find it afterwards.
    assert "zone key" in kinds(our_keys.found_in(served.process))
    assert {"note", "JSON", "dynamic value", "array", "vector"} <= kinds(our_rows.found_in(served.process))
    # Even then keys are nowhere but in locked memory, but for the moment in which one arrives.
    eventually(lambda: not outside_locked_memory(served.process, our_keys.found_in(served.process)), seconds=60)

    kms.disable_key(KeyId=arns["ours"])
    refusal = eventually(ours.refusal, seconds=60)
    assert refusal.code == REFUSED, str(refusal)
    becomes_empty(served, our_keys, our_rows)
    # The other tenant noticed nothing, and its keys and rows are where the same search finds them.
    theirs.use()
    assert "zone key" in kinds(their_keys.found_in(served.process))
    assert {"note", "vector"} <= kinds(their_rows.found_in(served.process))

    kms.enable_key(KeyId=arns["ours"])
    eventually(lambda: ours.refusal() is None, seconds=60)
    ours.use()
    assert "zone key" in kinds(our_keys.found_in(served.process))

    # A key server that cannot be reached locks as well, once the grace period is over, and after it nothing is left either.
    served.proxy.is_answering = False
    for diary in (ours, theirs):
        eventually(diary.refusal, seconds=90)
    # What was asked since, and the rows that came back, count as well.
    becomes_empty(served, our_keys, their_keys, ours.secrets(), theirs.secrets())
    served.proxy.is_answering = True
    for diary in (ours, theirs):
        eventually(lambda diary=diary: diary.refusal() is None, seconds=60)
        diary.use()


def allow_core_dumps() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


def killed_by_segv(process: subprocess.Popen) -> int:
    """The status that it ended with. The first signal goes to the handler that tells overflows of the stack from the rest,
    which gives way to the system's own for the next."""
    while True:
        process.send_signal(signal.SIGSEGV)
        for _ in range(20):
            ended, status = os.waitpid(process.pid, os.WNOHANG)
            if ended:
                process.returncode = -os.WTERMSIG(status)
                return status
            time.sleep(0.05)


def test_a_crash_leaves_no_core_dump(tmp_path):
    """Whatever the shell allows. The control is a process that may dump, and does."""
    control = subprocess.Popen(["sleep", "600"], cwd=tmp_path, preexec_fn=allow_core_dumps)
    if not os.WCOREDUMP(killed_by_segv(control)):
        pytest.skip("this system dumps no process at all, so nothing could be shown")
    for dump in tmp_path.glob("core*"):
        dump.unlink()
    for options in ([], ["--dangerous-allow-debugger"]):
        command = [binary(), "kms", "serve", "--dir", str(tmp_path / "kms"), "--port", str(free_port()), *options]
        server = subprocess.Popen(
            command, cwd=tmp_path, preexec_fn=allow_core_dumps, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert server.stdout and server.stdout.readline().startswith("ready")
        assert not os.WCOREDUMP(killed_by_segv(server))
        assert not list(tmp_path.glob("core*"))


NOBODY = 65534


def test_another_process_of_the_same_user_reads_nothing():
    """Unless the server was started for a debugger: the control."""
    as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    with open(binary(), "rb") as program:
        # By descriptor: the user need not be able to walk to where it lies.
        path = f"/proc/self/fd/{program.fileno()}"
        for options, is_readable in ([], False), (["--dangerous-allow-debugger"], True):
            directory = Path(subprocess.check_output(["mktemp", "-d"], text=True, **as_user).strip())
            command = [path, "kms", "serve", "--dir", str(directory / "kms"), "--port", str(free_port()), *options]
            server = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pass_fds=[program.fileno()], **as_user
            )
            try:
                assert server.stdout and server.stderr
                assert server.stdout.readline().startswith("ready"), server.stderr.read()
                # The list of its pages is behind the same door as the pages.
                reader = subprocess.run(["cat", f"/proc/{server.pid}/maps"], capture_output=True, text=True, **as_user)
                assert bool(reader.stdout) == is_readable, reader.stderr
                assert is_readable or "Permission denied" in reader.stderr, reader.stderr
            finally:
                server.terminate()
                server.wait(60)
                subprocess.run(["rm", "-r", str(directory)], check=True)
