"""What the tests of changing keys need: quiet refusals, and a writer and a searcher that never fail."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet_client():
    """pymilvus writes a stack trace for every refusal."""
    logger = logging.getLogger("pymilvus")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
