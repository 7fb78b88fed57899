"""Searches every readable page of a process for thousands of secrets at once."""

from __future__ import annotations

import base64
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

WINDOW = 16
"""Bytes that are looked for at a time: half a key, 4 elements of a vector, 16 characters of a text."""
_CHUNK = 8 << 20
_PAGE = 4096


@dataclasses.dataclass(frozen=True)
class Hit:
    what: str
    mapping: str
    address: int

    def __str__(self) -> str:
        return f"{self.what} at {self.address:#x} in {self.mapping}"


class Secrets:
    """What is looked for. Every secret is looked for in pieces of 16 bytes, so that a torn rest of it counts as well."""

    def __init__(self) -> None:
        self._windows: dict[bytes, str] = {}

    def _add(self, secret: bytes, what: str, step: int) -> None:
        assert len(secret) >= WINDOW, f"{what} is too short to be told from chance"
        for start in range(0, len(secret) - WINDOW + 1, step):
            self._windows.setdefault(secret[start : start + WINDOW], what)

    def key(self, key: bytes, what: str) -> None:
        """A key as it is, as ciphers and hashes hold it (words with their bytes swapped, the pads of HMAC), in hex and in
        base64."""
        self._add(key, what, 4)
        words = np.frombuffer(key, dtype=">u8")
        self._add(words.astype("<u8").tobytes(), f"{what}, 64-bit words swapped", 8)
        self._add(words.view(">u4").astype("<u4").tobytes(), f"{what}, 32-bit words swapped", 4)
        for pad in (0x36, 0x5C):
            self._add(bytes(byte ^ pad for byte in key), f"{what} in a pad of HMAC", 8)
        for form in (key.hex(), key.hex().upper()):
            self._add(form.encode(), f"{what} in hex", 2)
        for before in range(3):
            text = base64.b64encode(b"\0" * before + key)
            # Only the characters that depend on the key alone.
            self._add(text[(before * 8 + 5) // 6 : (before + len(key)) * 8 // 6], f"{what} in base64", 4)

    def text(self, text: str, what: str) -> None:
        self._add(text.encode(), what, 1)

    def vector(self, vector: np.ndarray, what: str) -> None:
        self._add(vector.astype("<f4").tobytes(), what, 4)

    def found_in(self, process: int) -> list[Hit]:
        """Every place in the process's memory where a piece of a secret stands."""
        pieces = sorted(self._windows)
        starts = np.frombuffer(b"".join(piece[:8] for piece in pieces), dtype="<u8")
        starts = np.unique(starts)
        # Which three bytes any piece starts with: what does not pass here is no hit.
        sieve = np.zeros(1 << 24, dtype=bool)
        sieve[(starts & 0xFFFFFF).astype(np.int64)] = True
        hits = []
        for address, mapping, data in _memory(process):
            at = _candidates(data, sieve, starts)
            for offset in at.tolist():
                what = self._windows.get(data[offset : offset + WINDOW])
                if what:
                    hits.append(Hit(what, mapping, address + offset))
        return hits


def _candidates(data: bytes, sieve: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Offsets at which the first 8 bytes of some piece stand."""
    octets = np.frombuffer(data, dtype=np.uint8)
    if len(octets) < WINDOW:
        return np.empty(0, dtype=np.int64)
    index = octets[:-2].astype(np.int32)
    index |= octets[1:-1].astype(np.int32) << 8
    index |= octets[2:].astype(np.int32) << 16
    at = np.flatnonzero(sieve[index])
    at = at[at <= len(octets) - WINDOW]
    values = np.zeros(len(at), dtype="<u8")
    for byte in range(8):
        values |= octets[at + byte].astype("<u8") << np.uint64(8 * byte)
    place = np.minimum(np.searchsorted(starts, values), len(starts) - 1)
    return at[starts[place] == values]


def _memory(process: int):
    """All readable memory in pieces that overlap by what a hit may straddle, without pages that hold only zeros."""
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        span, rights, *rest = line.split(maxsplit=5)
        name = rest[3] if len(rest) > 3 else "anonymous"
        if not rights.startswith("r") or name in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
            continue
        start, end = (int(bound, 16) for bound in span.split("-"))
        with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
            for at in range(start, end, _CHUNK):
                try:
                    memory.seek(at)
                    data = memory.read(min(_CHUNK + WINDOW, end - at))
                except OSError:
                    # Unmapped or cut since the list was read.
                    continue
                if data:
                    yield from _runs(at, f"{rights} {name}", data)


def _runs(address: int, mapping: str, data: bytes):
    """The runs of pages that hold anything, each with the beginning of the page behind it."""
    whole = len(data) // _PAGE * _PAGE
    used = np.frombuffer(data[:whole], dtype="<u8").reshape(-1, _PAGE // 8).any(axis=1)
    bounds = np.flatnonzero(np.diff(np.concatenate(([False], used, [False])).astype(np.int8)))
    for first, behind in zip(bounds[::2].tolist(), bounds[1::2].tolist(), strict=True):
        start = first * _PAGE
        yield address + start, mapping, data[start : behind * _PAGE + WINDOW]
    if whole < len(data):
        yield address + whole, mapping, data[whole:]


def outside_locked_memory(process: int, hits: list[Hit]) -> list[Hit]:
    """The hits in memory that may reach swap space, a core dump or a child process."""
    kept = []
    span = (0, 0)
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        first = line.split(maxsplit=1)[0]
        if first == "VmFlags:" and {"lo", "dd", "dc"} <= set(line.split()):
            kept.append(span)
        elif "-" in first:
            start, end = first.split("-")
            span = (int(start, 16), int(end, 16))
    return [hit for hit in hits if not any(start <= hit.address < end for start, end in kept)]


def summary(hits: list[Hit]) -> str:
    """How often what was found where, for people."""
    counts = Counter((hit.what, hit.mapping) for hit in hits)
    lines = [f"{count} x {what} in {mapping}" for (what, mapping), count in counts.most_common(40)]
    return "\n".join([f"{len(hits)} places:", *lines, *(str(hit) for hit in hits[:20])])
