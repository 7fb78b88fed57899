"""Words and vectors that stand nowhere else, and the search for them in every byte of files."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import numpy as np


class Canaries:
    """Makes canaries and remembers them. A canary is looked for as it is and in the forms that software likes to give
    to bytes: hex, base64 at each of the three alignments, UTF-16."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self.vectors: list[np.ndarray] = []

    def word(self, where: str) -> str:
        """A new word; `where` tells in a failure what leaked. Letters first, so that it can also be a name."""
        word = f"c{secrets.token_hex(10)}"
        self.words[word] = where
        return word

    def vector(self, dim: int) -> list[float]:
        vector = np.frombuffer(secrets.token_bytes(dim * 2), dtype="<u2").astype("<f4") / np.float32(7.0)
        self.vectors.append(vector)
        return vector.tolist()

    def needles(self) -> dict[bytes, str]:
        needles = {}
        for word, where in self.words.items():
            raw = word.encode()
            for kind, form in [("", raw), ("in UTF-16", word.encode("utf-16-le")), ("in hex", raw.hex().encode()), *in_base64(raw)]:
                needles[form] = f"{where} {kind}".strip()
        for vector in self.vectors:
            # Two elements anywhere in the middle of a vector are 8 bytes that nothing else has.
            for start in range(0, len(vector) - 1, 2):
                needles[vector[start : start + 2].tobytes()] = "a vector"
                needles[vector[start : start + 2].astype("<f8").tobytes()] = "a vector in double precision"
        return needles

    def found(self, *roots: Path) -> list[str]:
        """What leaked and where; empty if nothing did."""
        needles = self.needles()
        hits = []
        files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*")))]
        for file in files:
            hits += [f"{what} in the name {file}" for needle, what in needles.items() if needle in str(file).encode()]
            if file.is_file():
                data = file.read_bytes()
                hits += [f"{what} in {file}" for needle, what in needles.items() if needle in data]
        return hits


def in_base64(raw: bytes) -> list[tuple[str, bytes]]:
    """The characters that depend on `raw` alone, wherever it starts within the encoded bytes."""
    forms = []
    for before in range(3):
        text = base64.b64encode(b"\0" * before + raw)
        first = (before * 8 + 5) // 6
        last = (before + len(raw)) * 8 // 6
        forms.append(("in base64", text[first:last]))
    return forms
