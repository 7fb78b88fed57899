"""The order of things: each engine is built and swept alone, then all are measured in turns, round after round.

An engine that is not measured is stopped (SIGSTOP) meanwhile, so that nobody pays for another's background work; Saker is not,
since its keys' leases live on probes. What fails is written down and the run goes on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from side_by_side.crew import Crew, Failed
from side_by_side.data import COLUMNS, PERMILLES, Data
from side_by_side.peers import Entry
from side_by_side.results import Results

TARGETS = (0.95, 0.99)
FILTER_TARGET = 0.95
# Beyond this no more recall is looked for.
ENOUGH = 0.995


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class Clock:
    """A budget of time; without one there is always enough."""

    def __init__(self, minutes: float | None) -> None:
        self._began = time.monotonic()
        self._seconds = None if minutes is None else minutes * 60

    def left(self) -> float:
        return float("inf") if self._seconds is None else self._seconds - (time.monotonic() - self._began)

    def left_for_builds(self) -> float:
        """A third of the budget is for what comes after them."""
        return self.left() - (0.0 if self._seconds is None else self._seconds / 3)


class Turns:
    def __init__(self, data: Data, results: Results, clock: Clock, *, quick: bool, rounds: int, seconds: float, build_seconds_max: float) -> None:
        self._data, self._results, self._clock = data, results, clock
        self._quick, self._rounds, self._seconds = quick, rounds, seconds
        self._build_seconds_max = build_seconds_max
        self._crews: list[Crew] = []

    def run(self, entries: list[Entry], phases: list[str]) -> None:
        try:
            for number, entry in enumerate(entries):
                self._start(entry, len(entries) - number)
            if "search" in phases:
                self._rates(filtered="filtered" in phases)
            if "filtered" in phases:
                self._filtered()
            for crew in self._crews:
                self._guarded(crew, lambda crew: self._results.put(crew.name, "report", crew.ask("report", 10)))
        finally:
            for crew in self._crews:
                crew.end()

    def _guarded(self, crew: Crew, work: Callable[[Crew], None]) -> bool:
        try:
            work(crew)
            return True
        except Failed as failure:
            say(f"{crew.name}: {failure}")
            self._results.put(crew.name, "failure", str(failure))
            crew.end()
            self._crews = [one for one in self._crews if one is not crew]
            return False
        finally:
            if crew in self._crews:
                crew.freeze()

    def _start(self, entry: Entry, left: int) -> None:
        if self._clock.left_for_builds() < 20:
            self._results.put(entry.name, "failure", "not measured: the time was up")
            return
        self._results.begin(entry.name)
        try:
            crew = Crew(entry, self._data)
        except OSError as error:
            self._results.put(entry.name, "failure", f"its program did not start: {error.strerror}")
            return
        self._crews.append(crew)
        if self._guarded(crew, self._built):
            say(f"{entry.name}: ready, {left - 1} more")

    def _built(self, crew: Crew) -> None:
        about = crew.ask("about", 60)
        for name in ("settings", "parameter", "filters", "lanes"):
            self._results.put(crew.name, name, about[name])
        built = crew.ask("build", min(self._build_seconds_max, max(30.0, self._clock.left_for_builds())))
        self._results.put(crew.name, "build", built)
        self._sweep(crew, about["sweep"])
        # After searches, so that what is read when first used is in memory.
        self._results.put(crew.name, "memory", crew.ask("memory", 30))
        points = self._results.points(crew.name)
        for target, point in points.items():
            self._results.put(crew.name, "latency", crew.ask("latency", 30, parameter=point["parameter"], seconds=1.0), target)
        shown = ", ".join(f"{target}: {crew_point['parameter']} ({crew_point['recall']:.4f}, {crew_point['qps']:,.0f}/s)" for target, crew_point in points.items())
        say(f"{crew.name}: ingest {built['ingest_seconds']:.1f} s, index {built['index_seconds']:.1f} s; {shown or 'no setting reaches the recall'}")

    def _sweep(self, crew: Crew, sweep: list[int]) -> None:
        """Recall over the parameter, and for each target the lowest setting that reaches it."""
        seen: dict[int, dict] = {}

        def at(parameter: int) -> dict:
            if parameter not in seen:
                seen[parameter] = crew.ask("recall", 120, parameter=parameter, seconds_max=2.0 if self._quick else 4.0)
            return seen[parameter]

        if not self._quick:
            for parameter in sweep:
                if at(parameter)["recall"] >= ENOUGH:
                    break
        for target in TARGETS:
            found = lowest(at, sweep, target)
            if found is not None:
                self._results.put(crew.name, "points", {"parameter": found, **at(found)}, str(target))
        curve = [{"parameter": parameter, **point} for parameter, point in sorted(seen.items())]
        self._results.put(crew.name, "curve", curve)

    def _rates(self, *, filtered: bool) -> None:
        measured = [(crew, target, lane["name"]) for crew in self._crews for target in self._results.points(crew.name) for lane in self._results.get(crew.name, "lanes")]
        if not measured:
            return
        seconds = self._seconds
        if self._clock.left() != float("inf"):
            share = 0.6 if filtered else 0.9
            seconds = min(seconds, max(0.4, self._clock.left() * share / (len(measured) * self._rounds) - 0.05))
        say(f"{self._rounds} rounds of {len(measured)} measurements of {seconds:.1f} s")
        for number in range(self._rounds):
            for crew, target, lane in measured if number % 2 == 0 else reversed(measured):
                if crew not in self._crews:
                    continue
                parameter = self._results.points(crew.name)[target]["parameter"]
                self._guarded(
                    crew,
                    lambda crew: self._results.add_rate(crew.name, target, lane, crew.ask("rate", seconds + 60, lane=lane, parameter=parameter, seconds=seconds)),
                )
            say(f"round {number + 1} of {self._rounds} done")

    def _filtered(self) -> None:
        crews = [crew for crew in self._crews if self._results.get(crew.name, "filters")]
        total = len(COLUMNS) * len(PERMILLES) * len(crews)
        say(f"filtered searches: {total} points")
        for column in COLUMNS:
            for permille in PERMILLES:
                for crew in crews:
                    if crew in self._crews:
                        self._guarded(crew, lambda crew, left=total: self._filtered_point(crew, column, permille, left))
                    total -= 1
                say(f"filtered: {column}, {permille / 10} % done")

    def _filtered_point(self, crew: Crew, column: str, permille: int, left: int) -> None:
        budget = min(4.0, self._clock.left() * 0.8 / max(1, left))
        if budget < 0.1:
            return
        sweep = [32, 64, 128, 256, 512, 1000]
        if self._results.get(crew.name, "parameter") == "n_probes":
            sweep = [8, 16, 32, 64, 128, 256]
        best: dict | None = None
        until = time.monotonic() + budget * 0.7
        for parameter in sweep:
            seen = {"parameter": parameter, **crew.ask("recall", 60, parameter=parameter, seconds_max=budget / 4, column=column, permille=permille)}
            if best is None or seen["recall"] > best["recall"] + 0.002:
                best = seen
            if seen["recall"] >= FILTER_TARGET or time.monotonic() > until:
                break
        assert best
        lane = self._results.get(crew.name, "lanes")[0]["name"]
        rate = crew.ask("rate", 60, lane=lane, parameter=best["parameter"], seconds=budget / 3, column=column, permille=permille)
        self._results.put(crew.name, "filtered", {**best, **rate}, f"{column}-{permille}")


def lowest(at: Callable[[int], dict], sweep: list[int], target: float) -> int | None:
    """The lowest parameter whose recall reaches the target: by halves over the sweep, then between its neighbours."""
    low, high = -1, len(sweep)
    while high - low > 1:
        middle = (low + high) // 2
        if at(sweep[middle])["recall"] >= target:
            high = middle
        else:
            low = middle
    if high == len(sweep):
        return None
    under, found = sweep[low] if low >= 0 else sweep[0] - 1, sweep[high]
    # A setting that takes seconds is not worth fine-tuning.
    for _ in range(3):
        middle = (under + found) // 2
        if middle in (under, found) or middle < sweep[0] or at(found)["qps"] < 100:
            break
        if at(middle)["recall"] >= target:
            found = middle
        else:
            under = middle
    return found
