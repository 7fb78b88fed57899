"""A `saker dev` of its own for one measurement: free ports, own directory, stopped by process id."""

from __future__ import annotations

import configparser
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
    """With `kms_endpoint`, another server that speaks the AWS KMS protocol takes the local key server's place."""

    def __init__(self, binary: str, directory: Path, kms_endpoint: str | None = None) -> None:
        self._kms_endpoint = kms_endpoint
        self.directory = directory / "saker"
        self.port, self.kms_port, self.console_port = free_port(), free_port(), free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._binary = binary
        self._process: subprocess.Popen | None = None

    def kms_options(self, profile: str) -> dict:
        if self._kms_endpoint:
            return {
                "endpoint_url": self._kms_endpoint,
                "region_name": "us-east-1",
                "aws_access_key_id": "test",
                "aws_secret_access_key": "test",
            }
        credentials = configparser.ConfigParser()
        credentials.read(self.directory / "aws-credentials")
        return {
            "endpoint_url": f"http://127.0.0.1:{self.kms_port}",
            "region_name": "us-east-1",
            "aws_access_key_id": credentials[profile]["aws_access_key_id"],
            "aws_secret_access_key": credentials[profile]["aws_secret_access_key"],
        }

    @property
    def process_id(self) -> int:
        assert self._process
        return self._process.pid

    def __enter__(self) -> RunningSaker:
        command = [self._binary, "dev", "--dir", str(self.directory), "--port", str(self.port)]
        command += ["--console-port", str(self.console_port)]
        environment = {**os.environ}
        if self._kms_endpoint:
            command += ["--kms-endpoint", self._kms_endpoint]
            environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        else:
            command += ["--kms-port", str(self.kms_port)]
        log = open(f"{self.directory}.log", "ab")
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, text=True)
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("ready"):
                return self
        raise RuntimeError(f"the server did not start; see {self.directory}.log")

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
