"""`saker serve` with keys at a real OpenBao or behind PKCS#11, and their owners' hands on the keys."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Process, eventually, free_port
from pymilvus import MilvusClient

from . import hsm

PIN = "31415926"
ROOT_TOKEN = "root-token-of-the-test"
POLICY = """
path "transit/datakey/plaintext/{key}" {{ capabilities = ["update"] }}
path "transit/decrypt/{key}" {{ capabilities = ["update"] }}
"""


def needed(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"{variable} is not set: do as scripts/test.sh does")
    return value


@pytest.fixture(autouse=True)
def quiet_client():
    """pymilvus writes a stack trace for every refusal."""
    logger = logging.getLogger("pymilvus")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


class Served(Process):
    """`saker serve` with a configuration of its own."""

    def __init__(self, directory: Path, kms: str, environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        directory.mkdir()
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        config = directory / "saker.toml"
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:{self.port}"\n[data]\ndir = "data"\n'
            f'[kms]\nplatform_key_file = "platform.key"\nprobe_interval_ms = 1000\ngrace_ms = 3000\n{kms}'
        )
        super().__init__(["serve", "--config", str(config)], directory.with_suffix(".log"), environment)

    def client(self, **options) -> MilvusClient:
        return MilvusClient(self.uri, dedicated=True, **options)


class Bao:
    """A real OpenBao in development mode, with a policy for Saker and an AppRole."""

    def __init__(self, directory: Path) -> None:
        self.binary, self.directory, self.port = needed("SAKER_TEST_BAO"), directory, free_port()
        (directory / "tls").mkdir(parents=True)
        self.audit, self.ca_file = directory / "audit.log", directory / "tls" / "vault-ca.pem"
        config = directory / "audit.hcl"
        config.write_text(f'audit "file" "to-file" {{ options {{ file_path = "{self.audit}" }} }}')
        self.address = f"https://127.0.0.1:{self.port}"
        self.environment = {**os.environ, "HOME": str(directory), "BAO_ADDR": self.address, "BAO_TOKEN": ROOT_TOKEN}
        self.environment["BAO_CACERT"] = str(self.ca_file)
        command = [self.binary, "server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={directory / 'tls'}", f"-config={config}"]
        command += [f"-dev-root-token-id={ROOT_TOKEN}", f"-dev-listen-address=127.0.0.1:{self.port}", "-dev-no-store-token"]
        self.log = directory / "bao.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        self.unseal_key = eventually(self._said("Unseal Key: "), seconds=60)
        eventually(self._said("Root Token: "), seconds=60)
        self.run("secrets", "enable", "transit")
        self.run("auth", "enable", "approle")
        self.run("write", "auth/approle/role/saker", "token_policies=saker", "token_ttl=1h")
        self.role_id = self.run("read", "-field=role_id", "auth/approle/role/saker/role-id")
        self.secret_id = self.run("write", "-f", "-field=secret_id", "auth/approle/role/saker/secret-id")

    def _said(self, start: str):
        def look() -> str | None:
            assert self.process.poll() is None, self.log.read_text()
            return next((line[len(start) :] for line in self.log.read_text().splitlines() if line.startswith(start)), None)

        return look

    def run(self, *arguments: str, text: str | None = None) -> str:
        command = [self.binary, *arguments]
        done = subprocess.run(command, env=self.environment, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"bao {arguments}: {done.stderr}"
        return done.stdout.strip()

    def new_key(self, name: str) -> str:
        self.run("write", "-f", f"transit/keys/{name}")
        return f"vault://transit/{name}"

    def allow(self, *keys: str) -> None:
        policy = "".join(POLICY.format(key=key) for key in keys) or "# nothing is allowed"
        self.run("policy", "write", "saker", "-", text=policy)

    def requests(self) -> list[dict]:
        """What the server was asked with a key, as its audit log has it."""
        records = [json.loads(line) for line in self.audit.read_text().splitlines()]
        is_use = ("transit/datakey/", "transit/decrypt/")
        return [r for r in records if r["type"] == "response" and r["request"].get("path", "").startswith(is_use)]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def bao(tmp_path):
    server = Bao(tmp_path / "bao")
    yield server
    server.stop()


@pytest.fixture
def vault_saker(tmp_path, bao):
    directory = tmp_path / "saker"
    kms = f'[kms.vault]\naddress = "{bao.address}"\nca_file = "{bao.ca_file}"\nrole_id = "{bao.role_id}"\n'
    server = Served(directory, kms + 'secret_id_file = "secret-id"\nnode = "n1"\n')
    (directory / "secret-id").write_text(bao.secret_id)
    server.start()
    yield server
    server.stop()


class Hsm:
    """A SoftHSM token. Every step of its owner is a process of its own."""

    TOKEN = "acceptance"

    def __init__(self, directory: Path) -> None:
        needed("SAKER_TEST_PKCS11")
        (directory / "tokens").mkdir(parents=True)
        config = directory / "softhsm2.conf"
        config.write_text(f"directories.tokendir = {directory / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(config)}
        self.act("make-token")

    def act(self, action: str, *rest: str) -> None:
        command = [sys.executable, hsm.__file__, action, self.TOKEN, PIN, *rest]
        done = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def new_key(self, label: str) -> str:
        self.act("make-key", label)
        return f"pkcs11:token={self.TOKEN};object={label}"


@pytest.fixture
def softhsm(tmp_path):
    return Hsm(tmp_path / "hsm")


@pytest.fixture
def hsm_saker(tmp_path, softhsm):
    directory = tmp_path / "saker"
    kms = f'[kms.pkcs11]\nmodule = "{needed("SAKER_TEST_PKCS11")}"\npin_file = "pin"\n'
    server = Served(directory, kms, softhsm.environment)
    (directory / "pin").write_text(PIN + "\n")
    server.start()
    yield server
    server.stop()
