"""Keys of the customer's and what became of them, and the calls that reached the key server."""

from __future__ import annotations

import json
import time

from conftest import Saker
from promise.steps import Library, connect, new_key, sealed_database, wait_until_back, wait_until_dark

__all__ = [
    "INTERVAL_S",
    "Library",
    "calls_since",
    "connect",
    "key_policy",
    "new_key",
    "now",
    "sealed_database",
    "trail",
    "wait_until_back",
    "wait_until_dark",
]

SAKER = "arn:aws:iam::000000000000:user/saker"
OWNER = "arn:aws:iam::000000000000:user/customer"
INTERVAL_S = 5


def key_policy(saker: Saker, arn: str, actions: list[str], *more: dict) -> None:
    """The key's owner may do everything, Saker these, and what `more` says."""
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": OWNER}, "Action": "kms:*", "Resource": "*"},
        {"Effect": "Allow", "Principal": {"AWS": SAKER}, "Action": actions, "Resource": "*"},
        *more,
    ]
    saker.kms().put_key_policy(KeyId=arn, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements}))


def trail(saker: Saker) -> list[dict]:
    """Every call so far, as the key server has it."""
    path = saker.directory / "kms" / "cloudtrail.jsonl"
    # The last line may be in the middle of being written.
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def now(saker: Saker) -> tuple[int, float]:
    """A place in the trail, for `calls_since`."""
    return len(trail(saker)), time.monotonic()


def calls_since(saker: Saker, place: tuple[int, float], arn: str) -> tuple[int, float]:
    """Saker's calls for this key since then, and how many intervals of a probe that were."""
    start, begun = place
    events = trail(saker)[start:]
    made = [
        event
        for event in events
        if event["eventName"] in ("Decrypt", "GenerateDataKey")
        and (event.get("requestParameters") or {}).get("keyId") == arn
    ]
    return len(made), (time.monotonic() - begun) / INTERVAL_S
