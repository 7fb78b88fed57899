"""What was measured, kept as JSON and written after each step, so that a run that was stopped loses nothing."""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any


class Results:
    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self.all: dict[str, Any] = {"engines": {}, "runs": {}}
        if keep and path.exists():
            self.all = json.loads(path.read_text())
        self.run = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def describe(self, **about: Any) -> None:
        self.all["runs"][self.run] = about
        self.save()

    def begin(self, name: str) -> None:
        """Forgets what an earlier run saw of the engine."""
        self.all["engines"][name] = {"run": self.run}
        self.save()

    def put(self, name: str, what: str, value: Any, key: str | None = None) -> None:
        engine = self.all["engines"].setdefault(name, {"run": self.run})
        if key is None:
            engine[what] = value
        else:
            engine.setdefault(what, {})[key] = value
        self.save()

    def get(self, name: str, what: str) -> Any:
        return self.all["engines"].get(name, {}).get(what)

    def points(self, name: str) -> dict[str, dict]:
        return self.get(name, "points") or {}

    def add_rate(self, name: str, target: str, lane: str, rate: dict) -> None:
        self.all["engines"][name].setdefault("rates", {}).setdefault(target, {}).setdefault(lane, []).append(rate)
        # What is compared must come from one run: Saker's figures are kept for each.
        if name.startswith("Saker"):
            run = self.all["runs"].setdefault(self.run, {})
            run.setdefault("saker", {}).setdefault(name, {}).setdefault(target, {}).setdefault(lane, []).append(rate["qps"])
        self.save()

    def complete(self, name: str, phases: list[str]) -> bool:
        engine = self.all["engines"].get(name, {})
        wanted = {"search": "rates", "filtered": "filtered"}
        if engine.get("filters") is False:
            del wanted["filtered"]
        return "failure" not in engine and all(wanted[phase] in engine for phase in phases if phase in wanted)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(self.all, indent=1))
        os.replace(unfinished, self.path)


def median(engine: dict, target: str, lane: str, what: str = "qps") -> float | None:
    seen = [rate[what] for rate in engine.get("rates", {}).get(target, {}).get(lane, []) if what in rate]
    return statistics.median(seen) if seen else None
