"""Work beside which keys change, jobs over REST and the command line, and the look at the directory afterwards."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.request

from conftest import Process, Saker, binary, eventually, free_port, row, simple_collection
from pymilvus import MilvusException

from promise.steps import connect, count, new_key, sealed_database

__all__ = ["Busy", "ask", "command", "connect", "count", "filled", "job_of", "look", "new_key", "sealed_database", "wait_done"]

COLLECTION = "books"


def filled(client, parts: int = 4, rows: int = 30) -> int:
    """A collection with files, deletes, and rows that are in no file; how many rows it has."""
    simple_collection(client, COLLECTION)
    for part in range(parts):
        client.insert(COLLECTION, [row(key) for key in range(part * rows, (part + 1) * rows)])
        client.flush(COLLECTION)
    client.insert(COLLECTION, [row(key) for key in range(parts * rows, parts * rows + 5)])
    return parts * rows + 5


class Busy:
    """Inserts and searches until told to stop. Any request that fails is remembered."""

    def __init__(self, saker: Saker, database: str, first: int) -> None:
        self.saker, self.database = saker, database
        self.rows, self.searches, self.failures = first, 0, []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._search)]
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        client = connect(self.saker, db_name=self.database)
        while not self._stop.is_set():
            try:
                client.insert(COLLECTION, [row(self.rows + offset) for offset in range(5)])
                self.rows += 5
                if self.rows % 200 < 5:
                    client.flush(COLLECTION)
            except MilvusException as error:
                self.failures.append(("write", str(error)))
                return
            time.sleep(0.01)
        client.close()

    def _search(self) -> None:
        client = connect(self.saker, db_name=self.database)
        while not self._stop.is_set():
            try:
                found = client.search(COLLECTION, [row(7)["vector"]], limit=1, output_fields=["text"])
                assert found[0][0]["entity"]["text"] == "row 7", found
                self.searches += 1
            except (MilvusException, AssertionError) as error:
                self.failures.append(("search", str(error)))
                return
        client.close()

    def go_on(self) -> None:
        """Until both did something since."""
        rows, searches = self.rows, self.searches
        eventually(lambda: self.failures or (self.rows > rows and self.searches > searches), seconds=60)
        assert not self.failures, self.failures

    def end(self) -> int:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not self.failures, self.failures
        assert self.searches > 0
        return self.rows


def ask(saker: Saker, path: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{saker.uri}{path}", data=data, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def command(saker: Saker, *arguments: str) -> tuple[int, str, str]:
    outcome = subprocess.run(
        [binary(), *arguments, "--url", saker.uri], capture_output=True, text=True, timeout=180, check=False
    )
    return outcome.returncode, outcome.stdout, outcome.stderr


def job_of(saker: Saker, job: str) -> dict:
    jobs = ask(saker, "/v2/cmek/jobs")["data"]
    return next(found for found in jobs if found["id"] == job)


def wait_done(saker: Saker, job: str, seconds: float = 120) -> dict:
    def done() -> dict | None:
        found = job_of(saker, job)
        assert found["state"] != "failed", found
        return found if found["state"] == "done" else None

    return eventually(done, seconds=seconds)


def look(saker: Saker) -> dict:
    """`saker verify` of a stopped server's directory, which must find nothing; its report."""
    port = free_port()
    directory = saker.directory
    options = ["--dir", str(directory / "kms"), "--port", str(port), "--credentials", str(directory / "aws-credentials")]
    key_server = Process(["kms", "serve", *options], directory.with_suffix(".kms.log"))
    key_server.start()
    try:
        arguments = [binary(), "verify", "--json", "--dir", str(directory / "data")]
        arguments += ["--kms-endpoint", f"http://127.0.0.1:{port}"]
        outcome = subprocess.run(arguments, capture_output=True, text=True, timeout=180, check=False)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        report = json.loads(outcome.stdout)
        assert report["findings"] == [], report["findings"]
        return report
    finally:
        assert key_server.stop() == 0
