"""Running servers for the acceptance tests: the built binary, free ports, own directories, stopped by process id.

`SAKER_BIN` names the binary (default: target/debug/saker). Tests use unmodified clients only.
"""

from __future__ import annotations

import configparser
import itertools
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import boto3
import pytest
from pymilvus import DataType, MilvusClient

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 60


def binary() -> str:
    path = os.environ.get("SAKER_BIN", str(ROOT / "target" / "debug" / "saker"))
    if not Path(path).exists():
        pytest.fail(f"{path} is not there: cargo build -p saker-server")
    return path


def free_port() -> int:
    """Below the range from which the system gives ports to outgoing connections, so that none takes it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Process:
    """One `saker` command that says `ready` once it answers."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.command = [binary(), *command]
        self.log = log
        self._environment = {**os.environ, **(environment or {})}
        self.process: subprocess.Popen | None = None
        self.ready_line = ""

    def start(self) -> str:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        timer = threading.Timer(START_SECONDS_MAX, self.process.kill)
        timer.start()
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("ready"):
                self.ready_line = line.strip()
                break
        timer.cancel()
        if not self.ready_line or self.process.poll() is not None:
            code = self.process.wait(STOP_SECONDS_MAX)
            pytest.fail(f"ended with {code} before it was ready: {self.log_text()}")
        # What it says later must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        return self.ready_line

    def stop(self) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_SECONDS_MAX)
        self.process, self.ready_line = None, ""
        return code

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(STOP_SECONDS_MAX)
        self.process, self.ready_line = None, ""

    def log_text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


class Saker(Process):
    """`saker dev` under `directory`. With `kms_endpoint`, another server takes the local key server's place."""

    def __init__(self, directory: Path, *options: str, kms_endpoint: str | None = None) -> None:
        self.directory = directory
        self.port, self.kms_port, self.console_port = free_port(), free_port(), free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._kms_endpoint = kms_endpoint
        command = ["dev", "--dir", str(directory), "--port", str(self.port), "--console-port", str(self.console_port)]
        environment = {}
        if kms_endpoint:
            command += ["--kms-endpoint", kms_endpoint]
            environment = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        else:
            command += ["--kms-port", str(self.kms_port)]
        super().__init__([*command, *options], directory.with_suffix(".log"), environment)

    def kms_options(self, profile: str = "customer") -> dict:
        """What boto3 needs to speak to the key server as this user."""
        if self._kms_endpoint:
            keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
            return {"endpoint_url": self._kms_endpoint, "region_name": "us-east-1", **keys}
        credentials = configparser.ConfigParser()
        credentials.read(self.directory / "aws-credentials")
        return {
            "endpoint_url": f"http://127.0.0.1:{self.kms_port}",
            "region_name": "us-east-1",
            "aws_access_key_id": credentials[profile]["aws_access_key_id"],
            "aws_secret_access_key": credentials[profile]["aws_secret_access_key"],
        }

    def kms(self, profile: str = "customer"):
        return boto3.client("kms", **self.kms_options(profile))

    def client(self, **options) -> MilvusClient:
        # `dedicated`: a client of an earlier server on the same address must not be used again.
        return MilvusClient(self.uri, dedicated=True, **options)


@pytest.fixture(scope="session")
def saker(tmp_path_factory):
    """One running `saker dev` for tests that leave it as it was but for names of their own."""
    server = Saker(tmp_path_factory.mktemp("shared") / "saker")
    server.start()
    yield server
    assert server.stop() == 0, server.log_text()


@pytest.fixture
def stopped_saker(tmp_path):
    """A `saker dev` of the test's own, not started yet."""
    server = Saker(tmp_path / "saker")
    yield server
    server.stop()


@pytest.fixture
def own_saker(stopped_saker):
    """A running `saker dev` of the test's own."""
    stopped_saker.start()
    return stopped_saker


@pytest.fixture
def client(saker):
    client = saker.client()
    yield client
    client.close()


_numbers = itertools.count()


@pytest.fixture
def name(request) -> str:
    """A name that no other test has."""
    return re.sub(r"\W", "_", f"t{next(_numbers)}_{request.node.name}")[:60]


def eventually(condition, seconds: float = 20, interval: float = 0.1):
    """The first true value of `condition`, or a failure."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            pytest.fail(f"not within {seconds} s")
        time.sleep(interval)


def simple_collection(client: MilvusClient, name: str, dim: int = 4, metric: str = "L2", rows: int = 0) -> None:
    """Int64 key, a short text, a vector whose first element is the key; loaded."""
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="HNSW", metric_type=metric, params={"M": 16, "efConstruction": 64})
    client.create_collection(name, schema=schema, index_params=index)
    if rows:
        client.insert(name, [row(key, dim) for key in range(rows)])


def row(key: int, dim: int = 4) -> dict:
    return {"id": key, "text": f"row {key}", "vector": [float(key)] + [0.5] * (dim - 1)}
