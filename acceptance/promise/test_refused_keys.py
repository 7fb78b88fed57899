"""Keys that a database cannot be made under: each a clear error that says what to do, and no database of that name."""

from __future__ import annotations

import pytest
from conftest import Saker, free_port
from pymilvus import MilvusClient, MilvusException

from .steps import connect, new_key

ACCOUNT = "000000000000"
KEY_ID = "11111111-2222-4333-8444-555555555555"


def arn(region: str = "us-east-1", account: str = ACCOUNT, key: str = f"key/{KEY_ID}", partition: str = "aws") -> str:
    return f"arn:{partition}:kms:{region}:{account}:{key}"


def refused(client: MilvusClient, name: str, properties: dict[str, str]) -> str:
    with pytest.raises(MilvusException) as refusal:
        client.create_database(name, properties=properties)
    assert refusal.value.code == 1100, str(refusal.value)
    assert name not in client.list_databases()
    return refusal.value.message


@pytest.mark.parametrize(
    ("key", "part"),
    [
        (arn(), "does not exist"),
        (arn(account="999999999999"), "does not exist"),
        (arn(region="eu-central-1"), "region"),
        (arn(key=f"alias/{KEY_ID}"), "use the ARN of the key itself"),
        (arn(key="key/"), "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
        (arn(key="key/a/b"), "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
        (arn(key=KEY_ID), "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
        (arn(region=""), "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
        (arn(account="12345"), "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
        (arn().replace(":kms:", ":s3:"), "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
        # Spaces around are not part of a name.
        (f" {arn()}\n", "does not exist"),
        (f"{arn()} {arn()}", "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
        (KEY_ID, "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
        ("file:platform", "leave it out for the platform key"),
        ("ключ", "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
        ("x" * 100_000, "expected arn:aws:kms:REGION:ACCOUNT:key/KEY-ID"),
    ],
)
def test_keys(client: MilvusClient, name: str, key: str, part: str) -> None:
    message = refused(client, name, {"cipher.enabled": "true", "cipher.key": key})
    assert part in message
    assert len(message) < 2_000, "the message repeats what may be of any length"


@pytest.mark.parametrize("key", [None, ""])
def test_no_key(client: MilvusClient, name: str, key: str | None) -> None:
    given = {"cipher.enabled": "true"} | ({} if key is None else {"cipher.key": key})
    assert "give the key's ARN as cipher.key" in refused(client, name, given)


def test_contradictions(client: MilvusClient, saker: Saker, name: str) -> None:
    key = new_key(saker)
    assert "cipher.enabled" in refused(client, name, {"cipher.enabled": "false", "cipher.key": key})
    assert "cipher.enabled" in refused(client, name, {"cipher.enabled": "yes please", "cipher.key": key})
    assert "cipher.ezID" in refused(client, name, {"cipher.enabled": "true", "cipher.key": key, "cipher.ezID": "1"})
    assert "cipher.mode" in refused(client, name, {"cipher.enabled": "true", "cipher.key": key, "cipher.mode": "none"})


def test_a_key_is_never_ignored(client: MilvusClient, saker: Saker, name: str) -> None:
    """Whoever names a key means it, whatever else is left out or spelled otherwise."""
    key = new_key(saker)
    for number, properties in enumerate(({"cipher.key": key}, {"cipher.key": key, "cipher.enabled": "TRUE"})):
        client.create_database(f"{name}{number}", properties=properties)
        shown = client.describe_database(f"{name}{number}")
        assert (shown["cipher.enabled"], shown["cipher.key"]) == ("true", key)
        client.drop_database(f"{name}{number}")


@pytest.mark.parametrize("state", ["disabled", "pending deletion", "denied", "of another kind"])
def test_keys_in_a_state_of_no_use(client: MilvusClient, saker: Saker, name: str, state: str) -> None:
    kms = saker.kms()
    key = new_key(saker)
    if state == "disabled":
        kms.disable_key(KeyId=key)
    elif state == "pending deletion":
        kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    elif state == "denied":
        owner_only = (
            '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/customer"},'
            '"Action":"kms:*","Resource":"*"}]}'
        )
        kms.put_key_policy(KeyId=key, Policy=owner_only)
    else:
        kms.create_alias(AliasName=f"alias/{name}", TargetKeyId=key)
        key = f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/{name}"
    message = refused(client, name, {"cipher.enabled": "true", "cipher.key": key})
    assert key in message
    if state != "of another kind":
        assert "its policy allows this server GenerateDataKey and Decrypt" in message


def test_a_key_service_out_of_reach(tmp_path, name: str) -> None:
    saker = Saker(tmp_path / "saker", kms_endpoint=f"http://127.0.0.1:{free_port()}")
    saker.start()
    try:
        client = connect(saker)
        with pytest.raises(MilvusException) as refusal:
            client.create_database(name, properties={"cipher.enabled": "true", "cipher.key": arn()}, timeout=60)
        # Not the words of a refusal: nobody said no.
        assert "does not exist" not in refusal.value.message and "disabled" not in refusal.value.message
        print(refusal.value)
        assert name not in client.list_databases()
        # The platform's databases need no such service.
        client.create_collection("books", dimension=4)
        assert client.list_collections() == ["books"]
    finally:
        assert saker.stop() == 0
