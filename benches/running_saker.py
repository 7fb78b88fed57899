"""A `saker dev` of its own for one measurement: free ports, own directory, stopped by process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RunningSaker:
    def __init__(self, binary: str, directory: Path) -> None:
        self.directory = directory / "saker"
        self.port, self.kms_port, self.console_port = free_port(), free_port(), free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._binary = binary
        self._process: subprocess.Popen | None = None

    def kms_options(self, profile: str) -> dict:
        import configparser

        credentials = configparser.ConfigParser()
        credentials.read(self.directory / "aws-credentials")
        return {
            "endpoint_url": f"http://127.0.0.1:{self.kms_port}",
            "region_name": "us-east-1",
            "aws_access_key_id": credentials[profile]["aws_access_key_id"],
            "aws_secret_access_key": credentials[profile]["aws_secret_access_key"],
        }

    def __enter__(self) -> RunningSaker:
        command = [self._binary, "dev", "--dir", str(self.directory), "--port", str(self.port)]
        command += ["--kms-port", str(self.kms_port), "--console-port", str(self.console_port)]
        log = open(f"{self.directory}.log", "ab")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env={**os.environ}, text=True)
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("ready"):
                return self
        raise RuntimeError(f"the server did not start; see {self.directory}.log")

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
