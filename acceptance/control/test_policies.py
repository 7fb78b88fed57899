"""The printed policies, applied by pasting them into bash, and held against a matrix of what must and must not work."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from conftest import ROOT, Saker, eventually, simple_collection
from pymilvus import MilvusClient, MilvusException

from .conftest import Control, key_path, run, run_json
from .test_projects import new_key

ACCOUNT = "000000000000"
# The customer alone: not even the account's own policies let anybody else in.
LOCKED_DOWN = {
    "Version": "2012-10-17",
    "Id": "mine",
    "Statement": [
        {"Sid": "Admin", "Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/customer"},
         "Action": "kms:*", "Resource": "*"},
    ],
}


def paste(saker: Saker, commands: str, directory: Path, profile: str = "customer") -> str:
    """Runs commands in bash as the customer would: nothing but the standard AWS environment, and no file of ours."""
    environment = {
        "PATH": f"{ROOT / '.venv' / 'bin'}:/usr/bin:/bin", "HOME": str(directory),
        "AWS_SHARED_CREDENTIALS_FILE": str(saker.directory / "aws-credentials"), "AWS_PROFILE": profile,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{saker.kms_port}", "AWS_DEFAULT_REGION": "us-east-1",
    }
    done = subprocess.run(
        ["bash"], input=commands, capture_output=True, text=True, env=environment, cwd=directory, timeout=300
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def refused(call, *codes: str) -> None:
    with pytest.raises(ClientError) as error:
        call()
    assert error.value.response["Error"]["Code"] in (codes or ("AccessDeniedException",)), error.value


class Roles:
    """The role as somebody takes it on."""

    def __init__(self, saker: Saker, policy: dict) -> None:
        self.saker, self.policy = saker, policy
        self.arn = policy["accounts"][0]["roleArn"]

    def assume(self, profile: str = "saker", **external) -> dict:
        sts = boto3.client("sts", **self.saker.kms_options(profile))
        answer = sts.assume_role(RoleArn=self.arn, RoleSessionName="test", **external)
        return answer["Credentials"]

    def kms(self):
        session = self.assume(ExternalId=self.policy["externalId"])
        return boto3.client(
            "kms", endpoint_url=f"http://127.0.0.1:{self.saker.kms_port}", region_name="us-east-1",
            aws_access_key_id=session["AccessKeyId"], aws_secret_access_key=session["SecretAccessKey"],
            aws_session_token=session["SessionToken"],
        )


def context(cluster: str, **more: str) -> dict:
    return {"saker:cluster": cluster, "saker:database": "d", "saker:purpose": "zone-key", **more}


@pytest.mark.parametrize("key_policy", ["default", "locked down"])
def test_paste_and_run(own_saker: Saker, tmp_path: Path, key_policy: str) -> None:
    saker, control, kms = own_saker, Control(own_saker.uri), own_saker.kms()
    project = control.project("tenant")
    arn, other_key = new_key(saker), new_key(saker)
    if key_policy == "locked down":
        for key in (arn, other_key):
            kms.put_key_policy(KeyId=key, Policy=json.dumps(LOCKED_DOWN))
        # Without the set-up Saker's own identity gets nowhere.
        assert "denied" in control.refused(400, "POST", "/v2/projects/tenant/keys", {"key": arn})
    before = json.loads(kms.get_key_policy(KeyId=arn, PolicyName="default")["Policy"])

    printed = run(saker.uri, "key", "policy", "--project", "tenant", "--key", arn)
    assert printed.returncode == 0, printed.stderr
    policy = run_json_policy(saker, arn)
    role = policy["accounts"][0]["roleArn"]
    body = {"key": arn, "roleArn": role}
    assert "denied" in control.refused(400, "POST", "/v2/projects/tenant/keys", body), "there is no such role yet"
    said = paste(saker, printed.stdout, tmp_path)
    assert f"{arn}: may be used by" in said
    applied = json.loads(kms.get_key_policy(KeyId=arn, PolicyName="default")["Policy"])
    assert applied["Statement"][:-1] == before["Statement"], "whatever was allowed before still is"
    # Again: the same.
    paste(saker, printed.stdout, tmp_path)
    assert json.loads(kms.get_key_policy(KeyId=arn, PolicyName="default")["Policy"]) == applied

    # The last step, as it is printed.
    command = next(line for line in printed.stdout.splitlines() if "saker key add" in line).removeprefix("#").split()
    added = run_json(saker.uri, *command[1:])
    assert added["roleArn"] == role

    # Saker works from one end to the other.
    cluster = control.cluster("tenant", "a", defaultKey=arn)
    client = MilvusClient(cluster["uri"], dedicated=True)
    client.create_database("shop")
    assert client.describe_database("shop")["cipher.key"] == arn
    client.use_database("shop")
    simple_collection(client, "items", rows=9)
    assert len(client.search("items", [[1.0, 0.5, 0.5, 0.5]], limit=3)[0]) == 3
    calls = calls_on(saker, arn)
    assert calls and all(f":assumed-role/{role.rsplit('/', 1)[1]}/saker-" in call for call in calls)
    client.close()
    assert saker.stop() == 0
    saker.start()
    eventually(lambda: control.do("GET", f"/v2/clusters/{cluster['id']}")["state"] == "running", 60)
    client = MilvusClient(cluster["uri"], dedicated=True, db_name="shop")

    def count():
        try:
            return client.query("items", filter="", output_fields=["count(*)"])[0]["count(*)"]
        except MilvusException:
            return None

    assert eventually(count, 60) == 9

    # A second key of the project: the role is for both then, and the first goes on working.
    second = new_key(saker)
    paste(saker, run(saker.uri, "key", "policy", "--project", "tenant", "--key", second).stdout, tmp_path)
    control.add_key("tenant", second, roleArn=role)
    run(saker.uri, "key", "check")
    assert control.do("GET", key_path("tenant", arn))["state"] == "active"

    matrix(saker, Roles(saker, policy), project, cluster["id"], arn, other_key)

    # Taking away what was granted is a switch as well.
    boto3.client("iam", **saker.kms_options()).delete_role_policy(
        RoleName=role.rsplit("/", 1)[1], PolicyName="saker"
    )
    kms.put_key_policy(KeyId=arn, Policy=json.dumps(before))
    Control(cluster["uri"]).do("POST", "/v2/cmek/keys/check")
    assert control.do("GET", key_path("tenant", arn))["state"] == "locked"
    assert count() is None


def run_json_policy(saker: Saker, arn: str) -> dict:
    done = run(saker.uri, "key", "policy", "--project", "tenant", "--key", arn, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def calls_on(saker: Saker, arn: str) -> list[str]:
    """Who was let use the key for its purpose, from the key server's own record."""
    lines = (saker.directory / "kms" / "cloudtrail.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    used = [
        record for record in records
        if record["eventName"] in ("Decrypt", "GenerateDataKey") and "errorCode" not in record
        and any(resource.get("ARN") == arn for resource in record.get("resources") or [])
    ]
    return [record["userIdentity"]["arn"] for record in used]


def matrix(saker: Saker, roles: Roles, project: dict, cluster: str, arn: str, other_key: str) -> None:
    kms = roles.kms()

    def make(where: dict | None, key: str = arn):
        more = {} if where is None else {"EncryptionContext": where}
        return kms.generate_data_key(KeyId=key, KeySpec="AES_256", **more)

    # What has to work: its two operations, for the project's clusters, those to come, and the project itself.
    for here in (cluster, project["id"], f"{project['id']}-0123456789ab"):
        made = make(context(here))
        opened = kms.decrypt(KeyId=arn, CiphertextBlob=made["CiphertextBlob"], EncryptionContext=context(here))
        assert opened["Plaintext"] == made["Plaintext"]
    blob = make(context(cluster))["CiphertextBlob"]

    # Another context, or none, or one that only looks like ours.
    for where in (
        context("another-cluster"), context(project["id"] + "x"), context(cluster.upper()), context(""),
        {"saker:database": "d"}, {"cluster": cluster}, {"saker:Cluster": cluster}, context(cluster, more="x"), None,
    ):
        refused(lambda where=where: make(where), "AccessDeniedException", "ValidationException")
        more = {} if where is None else {"EncryptionContext": where}
        refused(
            lambda more=more: kms.decrypt(KeyId=arn, CiphertextBlob=blob, **more),
            "AccessDeniedException", "ValidationException",
        )
    # Another key, with the right context.
    refused(lambda: make(context(cluster), other_key))
    # Everything else that a key can be asked for.
    here = context(cluster)
    for call in (
        lambda: kms.encrypt(KeyId=arn, Plaintext=b"x", EncryptionContext=here),
        lambda: kms.generate_data_key_without_plaintext(KeyId=arn, KeySpec="AES_256", EncryptionContext=here),
        lambda: kms.re_encrypt(
            CiphertextBlob=blob, SourceEncryptionContext=here, DestinationKeyId=arn, DestinationEncryptionContext=here
        ),
        lambda: kms.describe_key(KeyId=arn),
        lambda: kms.disable_key(KeyId=arn),
        lambda: kms.enable_key(KeyId=arn),
        lambda: kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7),
        lambda: kms.cancel_key_deletion(KeyId=arn),
        lambda: kms.get_key_policy(KeyId=arn, PolicyName="default"),
        lambda: kms.put_key_policy(KeyId=arn, Policy=json.dumps(LOCKED_DOWN)),
        lambda: kms.rotate_key_on_demand(KeyId=arn),
        lambda: kms.get_key_rotation_status(KeyId=arn),
        lambda: kms.create_alias(AliasName="alias/mine", TargetKeyId=arn),
        lambda: kms.tag_resource(KeyId=arn, Tags=[{"TagKey": "a", "TagValue": "b"}]),
        lambda: kms.list_resource_tags(KeyId=arn),
        lambda: kms.list_keys(),
        lambda: kms.list_aliases(),
        lambda: kms.create_key(),
    ):
        refused(call)
    # Taking the role on: with the external id, as Saker, and not otherwise.
    right = roles.policy["externalId"]
    for external in ({}, {"ExternalId": "saker-" + "0" * 32}, {"ExternalId": right.upper()}, {"ExternalId": right + "0"}):
        refused(lambda external=external: roles.assume(**external), "AccessDenied")
    default = Control(saker.uri).do("GET", "/v2/projects/default")["externalId"]
    refused(lambda: roles.assume(ExternalId=default), "AccessDenied")
    refused(lambda: roles.assume("customer", ExternalId=right), "AccessDenied")


def test_what_is_printed(control: Control, saker: Saker, short: str) -> None:
    project = control.project(short)
    arn = new_key(saker)
    assert "--key" in control.refused(400, "GET", f"/v2/projects/{short}/policy")
    answer = control.do("GET", f"/v2/projects/{short}/policy?key={arn}")
    assert answer["principal"] == f"arn:aws:iam::{ACCOUNT}:user/saker" and answer["externalId"] == project["externalId"]
    [account] = answer["accounts"]
    assert account["account"] == ACCOUNT and account["roleName"].startswith(f"saker-{short}-")
    [trust] = account["trustPolicy"]["Statement"]
    assert trust["Principal"] == {"AWS": answer["principal"]} and trust["Action"] == "sts:AssumeRole"
    assert trust["Condition"] == {"StringEquals": {"sts:ExternalId": project["externalId"]}}
    [role] = account["rolePolicy"]["Statement"]
    assert role["Action"] == ["kms:Decrypt", "kms:GenerateDataKey"] and role["Resource"] == [arn]
    assert role["Condition"] == {
        "StringLike": {"kms:EncryptionContext:saker:cluster": [project["id"], f"{project['id']}-*"]},
        "ForAllValues:StringEquals": {
            "kms:EncryptionContextKeys": ["saker:cluster", "saker:database", "saker:purpose"]
        },
    }
    [statement] = account["keyPolicyStatements"]
    assert statement["key"] == arn and statement["statement"]["Principal"] == {"AWS": account["roleArn"]}
    script = control.ask("GET", f"/v2/projects/{short}/policy?key={arn}&format=script")
    assert script.status_code == 200 and script.text == answer["commands"]
    # The server's own cluster has an id of its own, and its project's policy knows it.
    own = control.do("GET", "/v2/projects/default")
    answer = control.do("GET", f"/v2/projects/default/policy?key={arn}")
    patterns = answer["accounts"][0]["rolePolicy"]["Statement"][0]["Condition"]["StringLike"]
    assert own["clusters"][0] in patterns["kms:EncryptionContext:saker:cluster"]
    transit = "vault%3A%2F%2Ftransit%2Fk"
    assert "vault" in control.refused(400, "GET", f"/v2/projects/{short}/policy?key={transit}")


def test_a_customer_who_may_not_is_told(own_saker: Saker, tmp_path: Path) -> None:
    """The commands stop at the first that fails, and say why."""
    saker = own_saker
    Control(saker.uri).project("tenant")
    printed = run(saker.uri, "key", "policy", "--project", "tenant", "--key", new_key(saker)).stdout
    with pytest.raises(AssertionError, match="not authorized to perform: iam:CreateRole"):
        paste(saker, printed, tmp_path, profile="saker")


def test_a_role_is_made_in_the_keys_account_alone(own_saker: Saker, tmp_path: Path) -> None:
    saker, control = own_saker, Control(own_saker.uri)
    control.project("tenant")
    elsewhere = "arn:aws:kms:us-east-1:111111111111:key/00000000-0000-4000-8000-000000000000"
    printed = run(saker.uri, "key", "policy", "--project", "tenant", "--key", elsewhere).stdout
    with pytest.raises(AssertionError, match=f"in account 111111111111, and you are in {ACCOUNT}"):
        paste(saker, printed, tmp_path)
    assert boto3.client("iam", **saker.kms_options()).list_roles()["Roles"] == []


def test_the_simulator_agrees(control: Control, saker: Saker, short: str) -> None:
    """The role's policy before a policy simulator that we did not write. It gives conditions no encryption context, so the
    policy as printed allows nothing there, and what it allows besides is asked of it without its condition."""
    endpoint = os.environ.get("SAKER_TEST_MINISTACK")
    if not endpoint:
        pytest.fail("SAKER_TEST_MINISTACK is not set: give the address of the emulator, as scripts/test.sh does")
    control.project(short)
    arn, other = new_key(saker), new_key(saker)
    policy = control.do("GET", f"/v2/projects/{short}/policy?key={arn}")["accounts"][0]["rolePolicy"]
    iam = boto3.client(
        "iam", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    wanted = {"kms:Decrypt", "kms:GenerateDataKey"}
    every = sorted(wanted) + [
        "kms:Encrypt", "kms:DescribeKey", "kms:DisableKey", "kms:EnableKey", "kms:ScheduleKeyDeletion",
        "kms:PutKeyPolicy", "kms:GetKeyPolicy", "kms:CreateGrant", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:Sign",
        "kms:GenerateDataKeyWithoutPlaintext", "kms:GenerateDataKeyPair", "kms:ListKeys", "kms:CreateKey",
        "sts:AssumeRole", "iam:PutRolePolicy", "s3:GetObject",
    ]

    def allowed(document: dict, resource: str) -> set[str]:
        answer = iam.simulate_custom_policy(
            PolicyInputList=[json.dumps(document)], ActionNames=every, ResourceArns=[resource]
        )
        results = {one["EvalActionName"]: one["EvalDecision"] for one in answer["EvaluationResults"]}
        assert set(results) == set(every)
        return {action for action, decision in results.items() if decision == "allowed"}

    assert allowed(policy, arn) == set(), "without an encryption context nothing is allowed"
    bare = json.loads(json.dumps(policy))
    del bare["Statement"][0]["Condition"]
    assert allowed(bare, arn) == wanted
    for resource in (other, "*", arn + "0", arn.replace("us-east-1", "us-west-2"), f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/x"):
        assert allowed(bare, resource) == set(), resource
