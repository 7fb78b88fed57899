"""What an engine under measurement can do, and the parts that most share."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from side_by_side.data import K, Data


@dataclass
class Rate:
    """Searches that were answered in a while; latencies in milliseconds if each call was one search."""

    queries: int
    seconds: float
    latencies_ms: list[float] = field(default_factory=list)
    more: dict = field(default_factory=dict)

    def summary(self) -> dict:
        summary = {"qps": self.queries / self.seconds, **self.more}
        if self.latencies_ms:
            for share in (50, 90, 99, 99.9):
                summary[f"p{share}_ms"] = float(np.percentile(self.latencies_ms, share))
        return summary


@dataclass(frozen=True)
class Lane:
    """One way of asking: `threads` at once, `batch` queries in each request."""

    name: str
    threads: int
    batch: int = 1
    client: str = ""


class Engine:
    """Answers one query a call. An engine whose fastest way is another overrides `many` and `rate`."""

    about = ""
    # What is swept for recall, from fast to thorough.
    sweep: tuple[int, ...] = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
    parameter = "ef"
    # An engine that has no filter in its Python interface says so.
    filters = True
    # Whether `many` asks in another way than the first lane, so that its speed says nothing.
    recall_is_not_speed = False
    # Whether the process may be stopped while others are measured.
    may_be_frozen = True

    def __init__(self, name: str) -> None:
        self.name = name

    def lanes(self) -> list[Lane]:
        return [Lane("1 thread", 1), Lane("2 threads", 2)]

    def prepare(self, data: Data, scratch: Path) -> None:
        """Starts servers and brings rows into the form that the engine takes; not timed."""
        raise NotImplementedError

    def ingest(self) -> float | None:
        """Takes all rows; returns when they are acknowledged, with the seconds if it measured them itself. A library that takes
        rows only into its index has nothing to do here."""

    def index(self) -> None:
        """Builds the index."""

    def settle(self) -> None:
        """Makes ready for searches: what is neither ingest nor build."""

    def passing(self, column: str, permille: int) -> Any:
        """The filter `column < permille` as `one` and `many` take it."""
        raise NotImplementedError

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        """Ids of the K nearest, as a sequence."""
        raise NotImplementedError

    def many(self, queries: np.ndarray, parameter: int, passing: Any = None) -> np.ndarray:
        """Ids of the K nearest of each query by one thread; -1 where fewer were found."""
        found = np.full((len(queries), K), -1, dtype=np.int64)
        for number, query in enumerate(queries):
            ids = list(self.one(query, parameter, passing))[:K]
            found[number, : len(ids)] = ids
        return found

    def rate(self, lane: Lane, queries: np.ndarray, parameter: int, seconds: float, passing: Any = None) -> Rate:
        seen: list[list[float]] = [[] for _ in range(lane.threads)]

        def work(first: int) -> None:
            number = first
            while (asked := time.perf_counter()) < until:
                self.one(queries[number % len(queries)], parameter, passing)
                seen[first].append((time.perf_counter() - asked) * 1e3)
                number += lane.threads

        workers = [threading.Thread(target=work, args=(number,)) for number in range(lane.threads)]
        began = time.perf_counter()
        until = began + seconds
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        latencies = [latency for part in seen for latency in part]
        return Rate(len(latencies), time.perf_counter() - began, latencies)

    def latency(self, queries: np.ndarray, parameter: int, seconds: float) -> Rate:
        """One thread, one query a call."""
        return Engine.rate(self, Lane("1 thread", 1), queries, parameter, seconds)

    def processes(self) -> list[int]:
        """Process ids of its servers; empty if it lives in this process."""
        return []

    def disk_folder(self) -> Path | None:
        return None

    def version(self) -> str:
        return ""

    def report(self) -> dict:
        """What else is worth keeping, asked for at the end."""
        return {}

    def stop(self) -> None:
        """Ends what it started."""


class BatchEngine(Engine):
    """A library whose fastest way is one call for many queries, split over its own threads."""

    chunk = 250

    def batch(self, queries: np.ndarray, parameter: int, threads: int) -> np.ndarray:
        raise NotImplementedError

    def one(self, query: np.ndarray, parameter: int, passing: Any = None) -> Any:
        assert passing is None, "engines with a filter override this"
        return self.batch(query[None, :], parameter, 1)[0]

    def many(self, queries: np.ndarray, parameter: int, passing: Any = None) -> np.ndarray:
        if passing is not None:
            return Engine.many(self, queries, parameter, passing)
        return self.batch(queries, parameter, 1)

    def rate(self, lane: Lane, queries: np.ndarray, parameter: int, seconds: float, passing: Any = None) -> Rate:
        if passing is not None:
            return Engine.rate(self, lane, queries, parameter, seconds, passing)
        done, began, start = 0, time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            done += len(self.batch(queries[start : start + self.chunk], parameter, lane.threads))
            start = start + self.chunk if start + self.chunk < len(queries) else 0
        return Rate(done, time.perf_counter() - began)
