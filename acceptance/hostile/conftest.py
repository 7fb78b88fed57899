"""Fixtures of the tests that repeat what users of other products ran into."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def quiet_client():
    """pymilvus writes a stack trace for every refusal, and these tests provoke many."""
    logger = logging.getLogger("pymilvus")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
