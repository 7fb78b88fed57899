"""Looks for inserted words and raw vector bytes at every byte offset of every file below a directory.

A word or vector counts as found where its first 8 bytes stand. Shorter words would turn up in random bytes by chance
and are left out; with 8 bytes the chance of one false hit in a gigabyte against a million needles is below 0.0001.
Words that stand in the files before any row was inserted (the storage format's own, such as "database") are left out too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

CHUNK_BYTES = 16 << 20


class LeakScanner:
    NEEDLE_BYTES = 8
    _FILTER_BITS = 24

    def __init__(self, words: list[str], vectors: np.ndarray) -> None:
        long_words = [word.encode()[: self.NEEDLE_BYTES] for word in words if len(word.encode()) >= self.NEEDLE_BYTES]
        starts = np.ascontiguousarray(vectors[:, :2], dtype="<f4").view("<u8").ravel()
        self.words, self.vectors = len(long_words), len(starts)
        self._clear = b"".join(long_words) + starts.tobytes()
        needles = np.concatenate([np.frombuffer(b"".join(long_words), dtype="<u8"), starts])
        # Eight equal bytes (zero padding, runs of one letter) are not evidence of anything.
        dull = np.array([byte * 0x0101010101010101 for byte in range(256)], dtype="<u8")
        self._needles = np.setdiff1d(np.unique(needles), dull)
        self._filter = np.zeros(1 << self._FILTER_BITS, dtype=bool)
        self._filter[self._slot(self._needles)] = True

    def _slot(self, values: np.ndarray) -> np.ndarray:
        mixed = values * np.uint64(0x9E3779B97F4A7C15)
        return (mixed >> np.uint64(64 - self._FILTER_BITS)).astype(np.int64)

    def _find(self, data: bytes) -> np.ndarray:
        found = []
        for offset in range(self.NEEDLE_BYTES):
            length = (len(data) - offset) // 8 * 8
            if length <= 0:
                break
            values = np.frombuffer(data, dtype="<u8", offset=offset, count=length // 8)
            likely = values[self._filter[self._slot(values)]]
            places = np.searchsorted(self._needles, likely)
            found.append(likely[self._needles[np.minimum(places, len(self._needles) - 1)] == likely])
        return np.concatenate(found) if found else np.empty(0, dtype="<u8")

    def control(self) -> int:
        """Scans a clear copy of the needles, shifted by an odd offset: shows that the scanner can find."""
        return len(self._find(b"\x01\x02\x03" + self._clear))

    def leave_out_present(self, root: Path) -> list[str]:
        """Stops looking for what stands in the files now; gives it as text. To be called before any row is inserted."""
        present = np.unique(self._scan(root)[0])
        self._needles = np.setdiff1d(self._needles, present)
        return [value.tobytes().decode(errors="replace") for value in present]

    def scan(self, root: Path) -> tuple[int, int, int]:
        """Needles found, files read, bytes read."""
        found, files, size = self._scan(root)
        return len(found), files, size

    def _scan(self, root: Path) -> tuple[np.ndarray, int, int]:
        found: list[np.ndarray] = []
        files = size = 0
        for path in sorted(root.rglob("*")):
            if not path.is_file():
                continue
            files += 1
            carry = b""
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    size += len(chunk)
                    found.append(self._find(carry + chunk))
                    carry = chunk[-(self.NEEDLE_BYTES - 1) :]
        return np.concatenate(found or [np.empty(0, dtype="<u8")]), files, size
