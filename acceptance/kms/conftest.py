"""A real `saker kms serve` per test module, driven by unmodified AWS clients.

SAKER_BIN names the binary (default: target/debug/saker). Everything the server writes is under a temporary directory; it is stopped by its process id.
"""

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

import boto3
import botocore.config
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class KeyServer:
    """A running `saker kms serve` and the ways to reach it."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory
        self.kms_directory = directory / "kms"
        self.credentials = directory / "aws-credentials"
        self.process = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        binary = os.environ.get("SAKER_BIN", str(ROOT / "target" / "debug" / "saker"))
        if not pathlib.Path(binary).exists():
            pytest.fail(f"{binary} is not there: cargo build -p saker-server")
        command = [binary, "kms", "serve", "--dir", str(self.kms_directory), "--port", str(self.port)]
        command += ["--credentials", str(self.credentials)]
        log = open(self.directory / "server.log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        timer = threading.Timer(60, self.process.kill)
        timer.start()
        for line in self.process.stdout:
            if line.startswith("ready"):
                break
        else:
            pytest.fail("the server ended before it was ready: " + (self.directory / "server.log").read_text())
        timer.cancel()

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(timeout=30)
        self.process.stdout.close()
        return code

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=30)
        self.process.stdout.close()

    def session(self, profile: str) -> boto3.Session:
        previous = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(self.credentials)
        try:
            session = boto3.Session(profile_name=profile)
            # Credentials are read lazily; have them read while the file is named.
            session.get_credentials().get_frozen_credentials()
            return session
        finally:
            if previous is None:
                del os.environ["AWS_SHARED_CREDENTIALS_FILE"]
            else:
                os.environ["AWS_SHARED_CREDENTIALS_FILE"] = previous

    def client(self, profile: str, service: str = "kms"):
        config = botocore.config.Config(retries={"max_attempts": 1})
        return self.session(profile).client(service, endpoint_url=self.url, config=config)

    def role_client(self, credentials: dict, service: str = "kms"):
        """A client that uses what AssumeRole gave."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
        )

    def aws(self, profile: str, *arguments: str) -> subprocess.CompletedProcess:
        """Runs the aws command line as its users do."""
        beside_python = pathlib.Path(sys.executable).parent / "aws"
        program = str(beside_python) if beside_python.exists() else shutil.which("aws")
        if program is None:
            pytest.skip("the aws command line is not installed")
        environment = dict(os.environ, AWS_SHARED_CREDENTIALS_FILE=str(self.credentials), AWS_PROFILE=profile)
        environment.update(AWS_CONFIG_FILE=str(self.directory / "no-config"), AWS_PAGER="", AWS_EC2_METADATA_DISABLED="true")
        command = [program, "--endpoint-url", self.url, "--output", "json", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def trail(self) -> str:
        return (self.kms_directory / "cloudtrail.jsonl").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def no_outer_aws_configuration(monkeypatch, tmp_path):
    """The machine's own AWS settings must not reach these tests."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def server(tmp_path):
    running = KeyServer(tmp_path)
    running.start()
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0
