"""A stopped server's directory whose files can be harmed and mended."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from conftest import Saker, eventually
from pymilvus import MilvusClient, MilvusException

from .steps import Library, connect, new_key, sealed_database


class Vault:
    """A stopped server with two databases under two keys, and one under the platform's, each with files of every kind."""

    NAMES = ("ours", "theirs", "default")

    def __init__(self, saker: Saker) -> None:
        self.saker, self.data = saker, saker.directory / "data"
        self.libraries: dict[str, Library] = {}
        self.arns: dict[str, str] = {}
        self.files: dict[str, dict[str, list[Path]]] = {}
        seen: set[Path] = set()
        for seed, name in enumerate(self.NAMES):
            if name == "default":
                client = connect(saker)
            else:
                self.arns[name] = new_key(saker)
                client = sealed_database(saker, name, self.arns[name])
            self.libraries[name] = Library(client, seed=seed)
            new = {path for part in ("objects", "log") for path in (self.data / part).rglob("*") if self._is_rows(path)} - seen
            seen |= new
            # In order of size, so that what stands for the same column of two databases has the same place.
            by_size = sorted(new, key=lambda path: path.stat().st_size)
            self.files[name] = {
                part: [path for path in by_size if path.relative_to(self.data).parts[0] == part] for part in ("objects", "log")
            }
            assert self.files[name]["objects"] and self.files[name]["log"]
            client.close()
        assert saker.stop() == 0
        self.whole = saker.directory / "whole"
        shutil.copytree(self.data, self.whole)

    @staticmethod
    def _is_rows(path: Path) -> bool:
        """Not the server's own log streams, nor the journals of headers."""
        return path.is_file() and not path.name.startswith(".") and path.parent.name not in ("audit", "access")

    def mend(self) -> None:
        shutil.rmtree(self.data)
        shutil.copytree(self.whole, self.data)

    def is_refused(self, *harmed: str) -> None:
        """The harmed databases refuse by name of what failed, the others answer; nothing answers wrongly."""
        self.saker.start()
        try:
            for name, library in self.libraries.items():
                client = connect(self.saker, db_name=name)
                if name in harmed:
                    error = settled_refusal(library, client)
                    assert error.code == 1001 and "verification" in error.message, str(error)
                else:
                    eventually(lambda library=library, client=client: library.refusal(client) is None)
                    library.check(client)
                client.close()
        finally:
            assert self.saker.stop() == 0, self.saker.log_text()


def settled_refusal(library: Library, client: MilvusClient) -> MilvusException:
    """What a search says once loading has come to an end. An answer at any moment is a failure."""
    until = time.monotonic() + 20
    while True:
        error = library.refusal(client)
        assert error is not None, "a search is answered from files that were tampered with"
        if error.code == 1001 or time.monotonic() > until:
            return error
        time.sleep(0.1)
