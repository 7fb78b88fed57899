"""Measures Saker beside its peers and writes docs/benchmarks.md and its pictures. See `--help`."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from side_by_side.crew import BENCHES
from side_by_side.data import dataset
from side_by_side.machine import machine, others_load
from side_by_side.peers import PEERS, SAKERS, Entry
from side_by_side.results import Results
from side_by_side.turns import Clock, Turns, say

RESULTS = BENCHES / "target/results"
INSTALL_SECONDS_MAX = 600


def installed(entry: Entry) -> str | None:
    """Installs what the engine needs into this environment; returns why it could not."""
    stamp = Path(sys.prefix) / "done" / entry.name.replace(" ", "-")
    wanted = " ".join(entry.packages)
    if not wanted or (stamp.exists() and stamp.read_text() == wanted):
        return None
    say(f"installing with pip: {wanted}")
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *entry.packages, "-c", str(BENCHES / "requirements.txt")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        return f"pip took longer than {INSTALL_SECONDS_MAX} s"
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return f"pip: {(errors or ['failed'])[-1]}"[:200]
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(wanted)
    return None


def chosen(only: list[str] | None, quick: bool) -> list[Entry]:
    every = [*SAKERS, *PEERS]
    if only is None:
        return [entry for entry in every if entry.quick or not quick]
    lowered = [name.lower() for name in only]
    found = [entry for entry in every if entry is SAKERS[0] or any(entry.name.lower().startswith(name) for name in lowered)]
    return found


def main() -> None:
    # A run that is told to end ends its engines, which may be stopped at the moment.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = argparse.ArgumentParser(prog="side_by_side", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--data", choices=["minilm", "glove"], default="minilm")
    options.add_argument("--rows", type=int, help="fewer rows than the data set has: a quick look, not a figure")
    options.add_argument("--only", action="append", metavar="NAME", help="only engines whose name begins so, beside Saker; may be given again")
    options.add_argument("--phases", default="search,filtered", help="of search, filtered, sealing; parted by commas")
    options.add_argument("--quick", action="store_true", help="fewer settings, shorter measurements, the most important peers")
    options.add_argument("--minutes", type=float, help="time for all of it; measurements become as short as needed")
    options.add_argument("--resume", action="store_true", help="keep what earlier runs measured, do what is missing or failed")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, help="of one measurement")
    options.add_argument("--build-seconds-max", type=float, default=300.0, help="after which an engine's build is given up")
    options.add_argument("--setup", action="store_true", help="install everything and make the data, measure nothing")
    options.add_argument("--report", action="store_true", help="only write tables and pictures from what was measured")
    options.add_argument("--page", type=Path, default=BENCHES.parent / "docs/benchmarks.md")
    arguments = options.parse_args()
    if not arguments.report:
        measure(arguments)
    if not arguments.setup:
        from side_by_side.page import write

        write(arguments.page, RESULTS)


def measure(arguments: argparse.Namespace) -> None:
    quick = arguments.quick or arguments.minutes is not None
    data = dataset(arguments.data, arguments.rows)
    suffix = f"-{arguments.rows}" if arguments.rows else ""
    entries, phases = chosen(arguments.only, quick), arguments.phases.split(",")
    engines_asked = bool({"search", "filtered"} & set(phases))
    results = Results(RESULTS / f"{arguments.data}{suffix}.json", keep=arguments.resume or arguments.only is not None or not engines_asked)
    if arguments.resume:
        missing = [entry for entry in entries if not results.complete(entry.name, phases)]
        entries = [entry for entry in entries if entry in missing or (missing and entry is SAKERS[0])]
    ready = []
    for entry in entries if engines_asked or arguments.setup else []:
        why = installed(entry)
        if why is None:
            ready.append(entry)
        elif not arguments.setup:
            results.put(entry.name, "failure", why)
    if arguments.setup:
        return
    seconds = arguments.seconds or (1.5 if quick else 3.0)
    results.all["data"], results.all["machine"] = data.about(), machine()
    results.describe(quick=quick, rounds=arguments.rounds, seconds=seconds, load_before=others_load(), phases=phases)
    clock = Clock(arguments.minutes)
    if ready:
        turns = Turns(data, results, clock, quick=quick, rounds=arguments.rounds, seconds=seconds, build_seconds_max=arguments.build_seconds_max)
        turns.run(ready, phases)
    if "sealing" in phases:
        from side_by_side.sealing import measure_sealing

        measure_sealing(data, results, clock, quick=quick)
    say(f"results are in {results.path.relative_to(BENCHES.parent)}")


if __name__ == "__main__":
    main()
