"""A file system in memory that is small enough to fill, and can grow.

Mounted directly where that is allowed; else in a user and mount namespace of its own, which ordinary users may make on
Debian. Where neither works, the tests fail and say so.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


class SmallDisk:
    """`directory` is how programs started with `prefix` name it, `outside` how this process does."""

    def __init__(self, directory: Path, size_mib: int) -> None:
        directory.mkdir()
        self.directory = self.outside = directory
        self.prefix: list[str] = []
        self._holder: subprocess.Popen | None = None
        self._mounted = self._mount(f"size={size_mib}m") == ""
        if not self._mounted:
            self._mount_in_a_namespace(size_mib)

    def _mount(self, options: str) -> str:
        command = [*self.prefix, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.directory)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    def _mount_in_a_namespace(self, size_mib: int) -> None:
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo here && exec cat"]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout
        if self._holder.stdout.readline() != "here\n":
            pytest.fail("cannot mount a small file system: run as root, or allow user namespaces to this user")
        self.prefix = ["nsenter", f"--target={self._holder.pid}", "--user", "--mount", "--preserve-credentials"]
        error = self._mount(f"size={size_mib}m")
        if error:
            pytest.fail(f"cannot mount a small file system, not even in a namespace: {error}")
        self.outside = Path(f"/proc/{self._holder.pid}/root{self.directory}")

    def grow(self, size_mib: int) -> None:
        options = f"remount,size={size_mib}m"
        subprocess.run([*self.prefix, "mount", "-o", options, str(self.directory)], check=True, capture_output=True)

    def free_bytes(self) -> int:
        status = os.statvfs(self.outside)
        return status.f_bavail * status.f_frsize

    def fill(self) -> None:
        """Takes all space that is left, to the last byte."""
        with (self.outside / "ballast").open("ab", buffering=0) as file:
            for block_bytes in (1 << 20, 4096, 1):
                try:
                    while file.write(bytes(block_bytes)) == block_bytes:
                        pass
                except OSError:
                    continue

    def make_space(self) -> None:
        (self.outside / "ballast").unlink()

    def close(self) -> None:
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self.directory)], check=False, capture_output=True)
        if self._holder:
            self._holder.communicate(timeout=30)
