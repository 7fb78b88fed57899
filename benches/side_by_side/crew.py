"""The side of a worker that gives it orders: starts its process, asks with a time limit, keeps it still, ends it."""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from side_by_side.data import Data
from side_by_side.peers import Entry
from side_by_side.worker import children

BENCHES = Path(__file__).resolve().parents[1]


def die_with_parent() -> None:
    """Of a run that was killed nothing shall be left standing."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """The engine could not do what it was asked, or not in time."""


class Crew:
    """One engine in a process of its own, with a folder of its own."""

    def __init__(self, entry: Entry, data: Data) -> None:
        self.entry = entry
        self.name = entry.name
        self._scratch = tempfile.mkdtemp(prefix="saker-bench-", dir=os.environ.get("BENCH_SCRATCH"))
        logs = BENCHES / "target/logs"
        logs.mkdir(parents=True, exist_ok=True)
        if entry.module == "saker_engine":
            command = [str(BENCHES / "target/release/saker-engine-bench"), str(data.folder), self._scratch]
        else:
            command = [sys.executable, "-m", "side_by_side.worker", self.name, str(data.folder), self._scratch]
        log = open(logs / f"{self.name.replace(' ', '-').replace(',', '')}.log", "wb")
        # OPENBLAS_CORETYPE and the like would keep NumPy from its best kernels, for some peers' sake as well.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=BENCHES, env=environment, start_new_session=True, preexec_fn=die_with_parent
            )
        except OSError:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        self._frozen = False
        self._may_be_frozen = True
        self._buffer = b""

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self.end()

    def ask(self, what: str, within: float, **more: object) -> dict:
        self.wake()
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed("its process ended") from None
        answer = json.loads(self._line(what, within))
        if "failure" in answer:
            raise Failed(answer["failure"])
        if what == "about":
            self._may_be_frozen = answer["may_be_frozen"]
        return answer

    def _line(self, what: str, seconds_max: float) -> bytes:
        assert self._process.stdout
        until = time.monotonic() + seconds_max
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                left = until - time.monotonic()
                if left <= 0:
                    raise Failed(f"{what} took longer than {seconds_max:.0f} s")
                if selector.select(left):
                    part = os.read(self._process.stdout.fileno(), 1 << 16)
                    if not part:
                        raise Failed(f"its process ended during {what}")
                    self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def freeze(self) -> None:
        """Lets it use no processor while others are measured."""
        if self._may_be_frozen and not self._frozen:
            os.killpg(self._process.pid, signal.SIGSTOP)
            self._frozen = True

    def wake(self) -> None:
        if self._frozen:
            os.killpg(self._process.pid, signal.SIGCONT)
            self._frozen = False

    def end(self) -> None:
        if self._process.poll() is None:
            try:
                self.ask("stop", 20)
            except Failed:
                pass
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                pass
        # Servers that it started and did not stop, and itself if it hangs.
        descendants = children(self._process.pid) if self._process.poll() is None else []
        for process in [*descendants, self._process.pid]:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        shutil.rmtree(self._scratch, ignore_errors=True)
