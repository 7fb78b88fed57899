"""Requests never call the key service: every call is counted where it arrives, in the key server's own log."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import eventually

from .steps import DIM, Library, new_key, sealed_database

PROBE_INTERVAL_S = 5
SEARCHES = 10_000
IN_BATCHES_OF_100 = 50


class Trail:
    """The calls that reached the key server since this was made."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "kms" / "cloudtrail.jsonl"
        self._start = self._path.stat().st_size
        self._begun = time.monotonic()

    def events(self) -> list[dict]:
        with self._path.open("rb") as file:
            file.seek(self._start)
            # The last line may be in the middle of being written.
            return [json.loads(line) for line in file.read().split(b"\n")[:-1]]

    def names(self) -> list[str]:
        return [event["eventName"] for event in self.events()]

    def probes_max(self) -> float:
        """Of one key. Probes are spread by a jitter of up to a quarter of the interval."""
        return (time.monotonic() - self._begun) / PROBE_INTERVAL_S * 1.25 + 1


@pytest.fixture
def books(own_saker):
    arn = new_key(own_saker)
    client = sealed_database(own_saker, "mine", arn)
    return own_saker, arn, client, Library(client, rows=2_000, flushed=1_800)


def test_ten_thousand_searches_cost_no_call(books) -> None:
    saker, arn, client, library = books
    source = np.random.default_rng(3)
    trail = Trail(saker.directory)
    answered = 0
    for _ in range(IN_BATCHES_OF_100):
        queries = source.standard_normal((100, DIM)).astype("<f4").tolist()
        answered += sum(len(hits) == 3 for hits in client.search(library.name, queries, limit=3, output_fields=["text"]))
    for number in range(SEARCHES - answered):
        query = source.standard_normal(DIM).astype("<f4").tolist()
        condition = "id < 1000" if number % 10 == 0 else ""
        (hits,) = client.search(library.name, [query], limit=3, filter=condition)
        answered += len(hits) == 3
    allowed = trail.probes_max()
    names = trail.names()
    print(f"{answered} searches, {len(names)} calls, up to {allowed:.1f} allowed")
    assert answered == SEARCHES
    assert set(names) <= {"Decrypt"}
    assert len(names) <= allowed
    # The count is worth something only if calls do show up in it: the next probe, and the key of a next database.
    seen = len(names)
    eventually(lambda: len(trail.names()) > seen, seconds=2 * PROBE_INTERVAL_S)
    client.create_database("next", properties={"cipher.enabled": "true", "cipher.key": arn})
    assert "GenerateDataKey" in trail.names()


def test_writing_costs_no_call(books) -> None:
    saker, _, client, library = books
    trail = Trail(saker.directory)
    for key in range(10_000, 10_200):
        client.insert(library.name, [{**library.row(0), "id": key}])
    client.delete(library.name, ids=list(range(10_000, 10_100)))
    client.flush(library.name)
    client.query(library.name, filter="id >= 10000", output_fields=["vector"])
    client.release_collection(library.name)
    client.load_collection(library.name)
    client.drop_collection(library.name)
    allowed = trail.probes_max()
    assert set(trail.names()) <= {"Decrypt"} and len(trail.names()) <= allowed


def test_databases_under_one_key_share_its_probe(own_saker) -> None:
    arn = new_key(own_saker)
    clients = [sealed_database(own_saker, f"mine{number}", arn) for number in range(4)]
    trail = Trail(own_saker.directory)
    time.sleep(3 * PROBE_INTERVAL_S)
    allowed = trail.probes_max()
    assert 1 <= len(trail.names()) <= allowed
    assert len(clients) == 4


def test_each_call_says_who_made_it_and_why(books) -> None:
    saker, arn, client, _ = books
    trail = Trail(saker.directory)
    (probe,) = eventually(lambda: trail.events()[:1], seconds=2 * PROBE_INTERVAL_S)
    everything = [json.loads(line) for line in (saker.directory / "kms" / "cloudtrail.jsonl").open()]
    (made,) = [event for event in everything if event["eventName"] == "GenerateDataKey"]
    assert probe["eventName"] == "Decrypt" and "errorCode" not in probe
    for event in (made, probe):
        assert event["requestParameters"]["keyId"] == arn and event["resources"][0]["ARN"] == arn
        context = event["requestParameters"]["encryptionContext"]
        assert set(context) == {"saker:cluster", "saker:database", "saker:purpose"}
        assert all(context.values()) and context["saker:purpose"] == "zone-key"
        assert re.match(r"saker/\d+\.\d+\.\d+ node/\S+ ", event["userAgent"]), event["userAgent"]
        assert event["userIdentity"]["userName"] == "saker"
    assert probe["requestParameters"]["encryptionContext"] == made["requestParameters"]["encryptionContext"]
    # The customer finds the database of a call by what the client shows of it.
    shown = client.describe_database("mine")
    assert shown["cipher.ezID"] == made["requestParameters"]["encryptionContext"]["saker:database"]
    # Neither plaintext nor wrapped keys are in the log.
    assert not re.search(r"(?i)plaintext|ciphertextblob", json.dumps(everything))
