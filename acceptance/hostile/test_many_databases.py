"""Many databases under many keys, over the wire and with a real key server: one key's trouble is its own databases'.

`make test` takes 200 databases, `make soak` 1,000.
"""

from __future__ import annotations

import time

import pytest
from conftest import Saker, eventually
from pymilvus import MilvusException

from .steps import INTERVAL_S, Library, calls_since, connect, new_key, now

KEYS = 20
#: Databases per key that have rows.
FILLED = 2


class World:
    """Databases `d0000` and on; the key of a database is the one with its number, modulo `KEYS`."""

    def __init__(self, saker: Saker, databases: int) -> None:
        self.saker, self.databases = saker, databases
        self.keys = [new_key(saker) for _ in range(KEYS)]
        client = connect(saker)
        for number in range(databases):
            arn = self.keys[number % KEYS]
            client.create_database(self.name(number), properties={"cipher.enabled": "true", "cipher.key": arn})
        self.filled = range(KEYS * FILLED)
        self.libraries = {}
        for number in self.filled:
            own = connect(saker, db_name=self.name(number))
            self.libraries[number] = (Library(own, rows=30, flushed=20, seed=number), own)
        self.client = client

    @staticmethod
    def name(number: int) -> str:
        return f"d{number:04}"

    def of_key(self, key: int) -> list[int]:
        return [number for number in range(self.databases) if number % KEYS == key]

    def connect_again(self) -> None:
        self.client = connect(self.saker)
        for number, (library, _) in self.libraries.items():
            self.libraries[number] = (library, connect(self.saker, db_name=self.name(number)))

    def check_others(self, dark: int | None) -> int:
        """Every database that has rows and is not under the key `dark` gives right answers."""
        checked = 0
        for number, (library, client) in self.libraries.items():
            if number % KEYS != dark:
                library.check(client)
                checked += 1
        return checked

    def refused(self, number: int) -> bool:
        """Whether a database without rows refuses: what is asked for needs its key."""
        own = connect(self.saker, db_name=self.name(number))
        try:
            own.create_collection("probe", dimension=4)
        except MilvusException as error:
            assert "kms key revoked or disabled" in error.message, str(error)
            return True
        finally:
            own.close()
        return False


def go_through(saker: Saker, databases: int) -> None:
    world = World(saker, databases)
    place = now(saker)
    until = time.monotonic() + 4 * INTERVAL_S
    while time.monotonic() < until:
        world.check_others(None)
    for arn in world.keys:
        calls, intervals = calls_since(saker, place, arn)
        assert intervals * 0.75 - 2 <= calls <= intervals * 1.25 + 2, f"{calls} calls in {intervals:.1f} intervals"

    denied = 7
    saker.kms().disable_key(KeyId=world.keys[denied])
    for number, (library, client) in world.libraries.items():
        if number % KEYS == denied:
            eventually(lambda library=library, client=client: library.refusal(client), seconds=10)
    dark = world.of_key(denied)
    assert len(dark) == databases // KEYS
    assert all(world.refused(number) for number in dark if number not in world.filled)
    for _ in range(3):
        assert world.check_others(denied) == (KEYS - 1) * FILLED

    # A start with all of them and the one key still disabled.
    saker.kill()
    saker.start()
    world.connect_again()
    place = now(saker)
    for number, (library, client) in world.libraries.items():
        if number % KEYS != denied:
            eventually(lambda library=library, client=client: library.refusal(client) is None, seconds=60)
    assert world.check_others(denied) == (KEYS - 1) * FILLED
    assert all(library.refusal(client) for number, (library, client) in world.libraries.items() if number % KEYS == denied)
    saker.kms().enable_key(KeyId=world.keys[denied])
    for number, (library, client) in world.libraries.items():
        if number % KEYS == denied:
            eventually(lambda library=library, client=client: library.refusal(client) is None, seconds=60)
            library.check(client)
    # The key's databases are unlocked by a call each, and that is all that the return costs.
    calls, intervals = calls_since(saker, place, world.keys[denied])
    assert calls <= len(dark) + intervals * 1.25 + 2, f"{calls} calls to bring back {len(dark)} databases"
    assert saker.stop() == 0


def test_two_hundred_databases_under_twenty_keys(own_saker: Saker) -> None:
    go_through(own_saker, 200)


@pytest.mark.soak
def test_a_thousand_databases_under_twenty_keys(own_saker: Saker) -> None:
    go_through(own_saker, 1_000)
