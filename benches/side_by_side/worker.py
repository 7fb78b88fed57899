"""The process that one engine lives in while it is measured. Reads commands as JSON lines, answers each with one line.

Its standard output carries the answers alone; what libraries print goes to the log that is its standard error.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from side_by_side.data import Data
from side_by_side.peers import entry
from side_by_side.peers.engine import Engine

# A setting is tried with this many queries at least, and with all of them if that takes no longer than it may.
RECALL_QUERIES_MIN, FILTERED_QUERIES_MIN = 100, 20


def resident_bytes(process: int | str = "self") -> int:
    """Memory that is the process's own, or its share of it where several have it (proportional set size)."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def children(process: int) -> list[int]:
    """All descendants."""
    found = []
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *children(child)]
    return found


def disk_bytes(folder: Path | None) -> int | None:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder else None


def give_back() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return sum(len(set(ids.tolist()) & set(row.tolist())) for ids, row in zip(found, truth)) / truth.size


class Worker:
    def __init__(self, name: str, folder: str, scratch: str) -> None:
        about = json.loads((Path(folder) / "about.json").read_text())
        self.data = Data(about["name"], Path(folder))
        self.scratch = Path(scratch)
        self.engine: Engine = entry(name).make()
        give_back()
        self._bytes_before = resident_bytes()
        self.queries, self.truth = self.data.queries, self.data.truth
        self._passing: dict[tuple[str, int], Any] = {}

    def about(self) -> dict:
        engine = self.engine
        return {
            "settings": engine.about,
            "parameter": engine.parameter,
            "sweep": engine.sweep,
            "filters": engine.filters,
            "may_be_frozen": engine.may_be_frozen,
            "lanes": [dataclasses.asdict(lane) for lane in engine.lanes()],
        }

    def build(self) -> dict:
        self.engine.prepare(self.data, self.scratch)
        began = time.perf_counter()
        measured = self.engine.ingest()
        ingested = time.perf_counter() - began if measured is None else measured
        began = time.perf_counter()
        self.engine.index()
        indexed = time.perf_counter() - began
        self.engine.settle()
        return {"ingest_seconds": ingested, "index_seconds": indexed, "version": self.engine.version()}

    def memory(self) -> dict:
        give_back()
        others = set(self.engine.processes()) | set(children(os.getpid()))
        resident = sum(resident_bytes(process) for process in others)
        # A library's memory is what this process grew by; a server's is all of its own.
        own = 0 if others else max(0, resident_bytes() - self._bytes_before)
        return {"resident_bytes": resident + own, "server": bool(others), "disk_bytes": disk_bytes(self.engine.disk_folder())}

    def recall(self, parameter: int, seconds_max: float, column: str | None = None, permille: int = 0) -> dict:
        """Recall at one setting, and the searches a second of one thread meanwhile."""
        queries, truth, passing, part = self.queries, self.truth, None, RECALL_QUERIES_MIN
        if column is not None:
            part = FILTERED_QUERIES_MIN
            queries, truth = self.data.filter_queries, self.data.filter_truth(column, permille)
            passing = self.passing(column, permille)
        self.engine.many(queries[:2], parameter, passing)
        found: list[np.ndarray] = []
        began = time.perf_counter()
        while sum(map(len, found)) < len(queries):
            done = sum(map(len, found))
            if done and time.perf_counter() - began > seconds_max:
                break
            found.append(self.engine.many(queries[done : done + part], parameter, passing))
        everything = np.concatenate(found)
        qps = len(everything) / (time.perf_counter() - began)
        if self.engine.recall_is_not_speed:
            qps = self.engine.rate(self.engine.lanes()[0], queries, parameter, min(0.5, seconds_max), passing).summary()["qps"]
        return {"recall": recall(everything, truth[: len(everything)]), "qps": qps, "queries": len(everything)}

    def passing(self, column: str, permille: int) -> Any:
        key = (column, permille)
        if key not in self._passing:
            self._passing[key] = self.engine.passing(column, permille)
        return self._passing[key]

    def rate(self, lane: str, parameter: int, seconds: float, column: str | None = None, permille: int = 0) -> dict:
        chosen = next(one for one in self.engine.lanes() if one.name == lane)
        if column is None:
            return self.engine.rate(chosen, self.queries, parameter, seconds).summary()
        return self.engine.rate(chosen, self.data.filter_queries, parameter, seconds, self.passing(column, permille)).summary()

    def latency(self, parameter: int, seconds: float) -> dict:
        return self.engine.latency(self.queries, parameter, seconds).summary()

    def cold_load(self) -> dict:
        return {"seconds": self.engine.cold_load(self.queries[0])}  # type: ignore[attr-defined]

    def timed_ingest(self) -> dict:
        return {"rows_per_second": self.engine.timed_ingest()}  # type: ignore[attr-defined]

    def report(self) -> dict:
        return self.engine.report()

    def stop(self) -> dict:
        self.engine.stop()
        return {}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, folder, scratch = sys.argv[1:]
    worker: Worker | None = None
    for line in sys.stdin:
        command = json.loads(line)
        what = command.pop("do")
        try:
            # The engine's library is loaded with the first command, so that its absence is an answer too.
            worker = worker or Worker(name, folder, scratch)
            answer = getattr(worker, what)(**command)
        except Exception as error:
            traceback.print_exc()
            answer = {"failure": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        print(json.dumps(answer), file=answers, flush=True)
        if what == "stop":
            break
    # Libraries with threads of their own may hang in their destructors.
    os._exit(0)


if __name__ == "__main__":
    main()
