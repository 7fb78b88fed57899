"""What only the tests of the promise need. They start from the fixtures of the conftest.py above."""

from __future__ import annotations

import logging
import os

import pytest
from conftest import Saker


@pytest.fixture(autouse=True)
def quiet_client():
    """pymilvus writes a stack trace for every refusal, and these tests provoke thousands."""
    logger = logging.getLogger("pymilvus")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


@pytest.fixture
def elsewhere(tmp_path):
    """A running `saker dev` whose keys are with the AWS emulator that this environment variable names."""
    servers: list[Saker] = []

    def start(variable: str) -> Saker:
        endpoint = os.environ.get(variable)
        if not endpoint:
            pytest.fail(f"{variable} is not set: give the address of the emulator, as scripts/test.sh does")
        servers.append(Saker(tmp_path / "saker", kms_endpoint=endpoint))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
