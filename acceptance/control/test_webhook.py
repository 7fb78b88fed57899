"""An event of the key's owner makes Saker ask about that key at once."""

from __future__ import annotations

import pytest
from conftest import Saker, simple_collection
from pymilvus import MilvusClient, MilvusException

from .conftest import Control
from .test_projects import new_key

PATH = "/v2/cmek/keys/check/webhook"


def event(name: str, arn: str, **detail) -> dict:
    """As EventBridge delivers a call of KMS that CloudTrail recorded."""
    key = arn.rsplit("/", 1)[1]
    return {
        "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "detail-type": "AWS API Call via CloudTrail",
        "source": "aws.kms", "account": "000000000000", "time": "2026-11-24T10:00:00Z", "region": "us-east-1",
        "resources": [], "detail": {
            "eventVersion": "1.09", "eventSource": "kms.amazonaws.com", "eventName": name, "awsRegion": "us-east-1",
            "requestParameters": {"keyId": key}, "responseElements": None, "recipientAccountId": "000000000000",
            "resources": [{"accountId": "000000000000", "type": "AWS::KMS::Key", "ARN": arn}], **detail,
        },
    }


@pytest.fixture
def slow(tmp_path):
    """A server that asks about its keys every ten minutes: what happens sooner happens because of an event."""
    server = Saker(tmp_path / "saker", "--probe-interval-ms", "600000")
    server.start()
    yield server
    server.stop()


def test_events_take_effect_at_once(slow: Saker) -> None:
    control, kms = Control(slow.uri), slow.kms()
    arn, other = new_key(slow), new_key(slow)
    client = slow.client()
    for name, key in (("mine", arn), ("theirs", other)):
        client.create_database(name, properties={"cipher.key": key})
    control.add_key("default", arn)
    cluster = control.cluster("default", "b")
    there = MilvusClient(cluster["uri"], dedicated=True)
    there.create_database("also", properties={"cipher.key": arn})
    client.use_database("mine")
    simple_collection(client, "items", rows=3)

    def answers() -> bool:
        try:
            return bool(client.query("items", filter="id >= 0"))
        except MilvusException as error:
            assert "disabled by the administrator" in error.message
            return False

    def states(answer: dict) -> dict:
        return {one["clusterId"]: (one["key"], one["state"]) for one in answer["checked"]}

    assert answers()
    kms.disable_key(KeyId=arn)
    assert answers(), "nobody has been told yet"
    told = control.do("POST", PATH, event("DisableKey", arn))
    own = next(one["id"] for one in control.do("GET", "/v2/clusters") if one["standalone"])
    assert told["event"] == "DisableKey"
    assert states(told) == {own: (arn, "locked"), cluster["id"]: (arn, "locked")}
    assert not answers()
    kms.enable_key(KeyId=arn)
    told = control.do("POST", PATH, event("EnableKey", arn))
    assert states(told) == {own: (arn, "active"), cluster["id"]: (arn, "active")}

    # An event is not believed: this one says that the key was disabled, and it was not.
    assert states(control.do("POST", PATH, event("DisableKey", arn)))[own] == (arn, "active")
    kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    # The event of a member's own port, without the ARN.
    bare = event("ScheduleKeyDeletion", arn)
    bare["detail"]["resources"] = []
    assert Control(cluster["uri"]).do("POST", PATH, bare)["checked"][0]["state"] == "locked"
    kms.cancel_key_deletion(KeyId=arn)
    kms.enable_key(KeyId=arn)
    assert {state for _, state in states(control.do("POST", PATH, event("CancelKeyDeletion", arn))).values()} == {"active"}
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":'
        '"arn:aws:iam::000000000000:user/customer"},"Action":"kms:*","Resource":"*"}]}'
    )
    kms.put_key_policy(KeyId=arn, Policy=policy)
    assert states(control.do("POST", PATH, event("PutKeyPolicy", arn)))[own] == (arn, "locked")
    # Only the key that the event is about was asked about.
    trail = [line for line in (slow.directory / "kms" / "cloudtrail.jsonl").read_text().splitlines() if other in line]
    assert sum('"Decrypt"' in line for line in trail) <= 3
    # A key that nothing is under, and one that is the platform's own.
    assert control.do("POST", PATH, event("DisableKey", new_key(slow)))["checked"] == []


def test_what_is_no_event(control: Control) -> None:
    arn = "arn:aws:kms:us-east-1:000000000000:key/1"
    for body in ({"source": "aws.s3"}, {"source": "aws.kms"}, {**event("DisableKey", arn), "source": "mine"}):
        assert "EventBridge" in control.refused(400, "POST", PATH, body)
    many = event("DisableKey", arn)
    many["resources"] = [f"{arn}{number}" for number in range(30)]
    assert "more than 20 keys" in control.refused(400, "POST", PATH, many)


def test_an_api_keys_scope_holds(control: Control, saker, short: str) -> None:
    control.project(short)
    key = control.do("POST", "/v2/api-keys", {"name": short, "project": short})
    arn = new_key(saker)
    client = saker.client()
    client.create_database(short, properties={"cipher.key": arn})
    scoped = Control(saker.uri, key["apiKey"])
    # The key is used by a cluster of another project, of which this caller learns nothing.
    assert scoped.do("POST", PATH, event("DisableKey", arn))["checked"] == []
    assert control.do("POST", PATH, event("DisableKey", arn))["checked"][0]["databases"] == [short]
    client.drop_database(short)
