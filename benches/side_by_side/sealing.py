"""What sealing costs: a sealed and a null-cipher server with the same data, each thing measured in short turns.

Both binaries come from null_cipher/build.py. A server of each serves at the same time; in every turn one is asked, then the
other, the first to be asked changing, so that what else the machine does hits both.
"""

from __future__ import annotations

from collections.abc import Callable

from side_by_side.crew import Crew
from side_by_side.data import Data
from side_by_side.peers import BUILDS
from side_by_side.results import Results
from side_by_side.turns import Clock, say

ENTRIES = dict(zip(("sealed", "null"), BUILDS))
EF = 64
SINGLE, BATCH = "2 clients", "2 clients, 100 queries a request"
# Shares of the budget.
LIMITS = {"search": 0.5, "ingest": 0.8, "load": 1.0}


def measure_sealing(data: Data, results: Results, clock: Clock, *, quick: bool) -> None:
    figures: dict[str, dict[str, list[float]]] = {}
    turns = 10 if quick else 30
    whole = clock.left()
    with Crew(ENTRIES["sealed"], data) as sealed, Crew(ENTRIES["null"], data) as null:
        crews = {"sealed": sealed, "null": null}
        for name, crew in crews.items():
            built = crew.ask("build", 600)
            say(f"{name}: ingest {built['ingest_seconds']:.1f} s, index {built['index_seconds']:.1f} s")

        def in_turns(what: str, count: int, until: str, measure: Callable[[Crew], float]) -> None:
            for number in range(count):
                if whole != float("inf") and clock.left() < whole * (1 - LIMITS[until]) and number >= 3:
                    break
                for name in ("sealed", "null") if number % 2 == 0 else ("null", "sealed"):
                    figures.setdefault(what, {}).setdefault(name, []).append(measure(crews[name]))
            results.all["sealing"] = {"turns": turns, "figures": figures}
            results.save()
            say(f"sealing: {what} done")

        in_turns("search, 1 query a request, queries/s", turns, "search", lambda crew: crew.ask("rate", 60, lane=SINGLE, parameter=EF, seconds=1.0)["qps"])
        in_turns("search, 100 queries a request, queries/s", turns, "search", lambda crew: crew.ask("rate", 60, lane=BATCH, parameter=EF, seconds=1.0)["qps"])
        in_turns("ingest, rows/s", max(3, turns // 4), "ingest", lambda crew: crew.ask("timed_ingest", 120)["rows_per_second"])
        rows = data.about()["rows"]
        in_turns("cold load after a restart to the first answer, rows/s", max(4, turns // 3), "load", lambda crew: rows / crew.ask("cold_load", 120)["seconds"])
