"""Steps that several of these tests take: the command line, REST, collections with a key of their own."""

from __future__ import annotations

import json
import subprocess
import urllib.request

import numpy as np
from conftest import binary
from promise.steps import DIM, Library
from pymilvus import DataType, MilvusClient

COMMAND_SECONDS_MAX = 120


def saker_command(server, *arguments: str) -> subprocess.CompletedProcess:
    """One `saker` command against this server, whatever it ends with."""
    command = [binary(), *arguments, "--url", server.uri]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False)


def command(server, *arguments: str):
    """What a command that succeeds writes with `--json`."""
    done = saker_command(server, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rest(server, path: str, body: dict | None = None) -> dict:
    """One REST request's whole answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.uri + path, data=data, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=COMMAND_SECONDS_MAX) as answer:
        return json.load(answer)


def check_now(server) -> None:
    """A change of a key takes effect at once."""
    assert rest(server, "/v2/cmek/keys/check", {})["code"] == 0


class OwnLibrary(Library):
    """As a Library, in a collection under a key of its own."""

    def __init__(self, client: MilvusClient, arn: str, name: str = "own", rows: int = 120, seed: int = 7) -> None:
        self.name, self.rows = name, rows
        self.vectors = np.random.default_rng(seed).standard_normal((rows, DIM)).astype("<f4")
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("text", DataType.VARCHAR, max_length=64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="L2")
        client.create_collection(
            name,
            schema=schema,
            index_params=index,
            consistency_level="Strong",
            properties={"cipher.enabled": "true", "cipher.key": arn},
        )
        client.insert(name, [self.row(key) for key in range(rows - 20)])
        client.flush(name)
        client.insert(name, [self.row(key) for key in range(rows - 20, rows)])
