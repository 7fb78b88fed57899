"""boto3 and the aws command line drive the local key server unmodified."""

import base64
import datetime
import json
import os
import stat

import botocore.exceptions
import pytest

ACCOUNT = "000000000000"
CONTEXT = {"saker:cluster": "c1", "saker:database": "d1", "saker:purpose": "zone-key"}


def refused(call, **arguments) -> dict:
    """The error that a call must end with: its code, HTTP status and message."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return {
        "code": response["Error"]["Code"],
        "message": response["Error"]["Message"],
        "status": response["ResponseMetadata"]["HTTPStatusCode"],
    }


def new_key(server, **arguments) -> str:
    return server.client("customer").create_key(**arguments)["KeyMetadata"]["Arn"]


def test_describes_a_new_key_as_aws_does(server):
    kms = server.client("customer")
    made = kms.create_key(Description="for tests", Tags=[{"TagKey": "team", "TagValue": "red"}])["KeyMetadata"]
    assert made["Arn"] == f"arn:aws:kms:us-east-1:{ACCOUNT}:key/{made['KeyId']}"
    assert made["AWSAccountId"] == ACCOUNT
    assert made["KeyState"] == "Enabled" and made["Enabled"] is True
    assert made["KeySpec"] == "SYMMETRIC_DEFAULT" and made["KeyUsage"] == "ENCRYPT_DECRYPT"
    assert made["KeyManager"] == "CUSTOMER" and made["Origin"] == "AWS_KMS" and made["MultiRegion"] is False
    age = datetime.datetime.now(datetime.timezone.utc) - made["CreationDate"]
    assert abs(age.total_seconds()) < 60
    for name in [made["KeyId"], made["Arn"]]:
        assert kms.describe_key(KeyId=name)["KeyMetadata"] == made
    assert kms.list_resource_tags(KeyId=made["KeyId"])["Tags"] == [{"TagKey": "team", "TagValue": "red"}]
    assert made["KeyId"] in [key["KeyId"] for key in kms.list_keys()["Keys"]]
    assert kms.get_key_rotation_status(KeyId=made["KeyId"])["KeyRotationEnabled"] is False


def test_data_keys_encrypt_and_decrypt(server):
    customer, saker = server.client("customer"), server.client("saker")
    key = new_key(server)
    made = saker.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    assert made["KeyId"] == key and len(made["Plaintext"]) == 32
    opened = saker.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
    assert opened["Plaintext"] == made["Plaintext"] and opened["KeyId"] == key
    assert opened["EncryptionAlgorithm"] == "SYMMETRIC_DEFAULT"
    assert len(customer.generate_data_key(KeyId=key, KeySpec="AES_128")["Plaintext"]) == 16
    assert len(customer.generate_data_key(KeyId=key, NumberOfBytes=77)["Plaintext"]) == 77
    hidden = customer.generate_data_key_without_plaintext(KeyId=key, KeySpec="AES_256")
    assert "Plaintext" not in hidden
    assert len(customer.decrypt(CiphertextBlob=hidden["CiphertextBlob"])["Plaintext"]) == 32
    sealed = customer.encrypt(KeyId=key, Plaintext=b"hello")["CiphertextBlob"]
    assert customer.decrypt(CiphertextBlob=sealed, KeyId=key)["Plaintext"] == b"hello"

    other = new_key(server)
    moved = customer.re_encrypt(
        CiphertextBlob=made["CiphertextBlob"],
        SourceEncryptionContext=CONTEXT,
        DestinationKeyId=other,
        DestinationEncryptionContext={"moved": "yes"},
    )
    assert moved["SourceKeyId"] == key and moved["KeyId"] == other
    opened = customer.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"moved": "yes"})
    assert opened["Plaintext"] == made["Plaintext"]


def test_a_ciphertext_is_bound_to_context_key_and_bytes(server):
    customer = server.client("customer")
    key, other = new_key(server), new_key(server)
    blob = customer.encrypt(KeyId=key, Plaintext=b"x", EncryptionContext=CONTEXT)["CiphertextBlob"]
    for context in [{}, dict(CONTEXT, extra="1"), dict(CONTEXT, **{"saker:database": "d2"})]:
        error = refused(customer.decrypt, CiphertextBlob=blob, EncryptionContext=context)
        assert (error["code"], error["status"]) == ("InvalidCiphertextException", 400)
    wrong_key = refused(customer.decrypt, CiphertextBlob=blob, EncryptionContext=CONTEXT, KeyId=other)
    assert wrong_key["code"] == "IncorrectKeyException"
    for index in range(len(blob)):
        altered = bytearray(blob)
        altered[index] ^= 0x40
        code = refused(customer.decrypt, CiphertextBlob=bytes(altered), EncryptionContext=CONTEXT)["code"]
        # An altered key id names a key that does not exist; AWS words that as a lack of access.
        assert code in ("InvalidCiphertextException", "AccessDeniedException"), index
        assert (code == "AccessDeniedException") == (1 <= index < 17), index


def test_states(server):
    customer, saker = server.client("customer"), server.client("saker")
    key = new_key(server)
    blob = saker.generate_data_key(KeyId=key, KeySpec="AES_256")["CiphertextBlob"]
    customer.disable_key(KeyId=key)
    error = refused(saker.decrypt, CiphertextBlob=blob)
    assert error == {"code": "DisabledException", "status": 400, "message": f"{key} is disabled."}
    assert refused(customer.rotate_key_on_demand, KeyId=key)["code"] == "DisabledException"
    customer.enable_key(KeyId=key)
    saker.decrypt(CiphertextBlob=blob)
    scheduled = customer.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert scheduled["KeyState"] == "PendingDeletion" and scheduled["PendingWindowInDays"] == 7
    days = (scheduled["DeletionDate"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds() / 86400
    assert 6.9 < days <= 7
    error = refused(saker.decrypt, CiphertextBlob=blob)
    assert error["code"] == "KMSInvalidStateException" and error["message"] == f"{key} is pending deletion."
    for call in [customer.enable_key, customer.disable_key, customer.schedule_key_deletion]:
        assert refused(call, KeyId=key)["code"] == "KMSInvalidStateException"
    assert customer.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert customer.cancel_key_deletion(KeyId=key)["KeyId"] == key
    assert customer.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Disabled"
    assert refused(customer.cancel_key_deletion, KeyId=key)["code"] == "KMSInvalidStateException"
    assert refused(customer.describe_key, KeyId="00000000-0000-0000-0000-000000000000")["code"] == "NotFoundException"


def test_rotation_keeps_old_ciphertexts(server):
    customer = server.client("customer")
    key = new_key(server)
    blobs = [customer.encrypt(KeyId=key, Plaintext=b"0")["CiphertextBlob"]]
    for number in range(1, 4):
        assert customer.rotate_key_on_demand(KeyId=key)["KeyId"] == key
        blobs.append(customer.encrypt(KeyId=key, Plaintext=str(number).encode())["CiphertextBlob"])
    for number, blob in enumerate(blobs):
        assert customer.decrypt(CiphertextBlob=blob)["Plaintext"] == str(number).encode()
    pages = customer.get_paginator("list_key_rotations").paginate(KeyId=key, PaginationConfig={"PageSize": 2})
    rotations = [rotation for page in pages for rotation in page["Rotations"]]
    assert [rotation["RotationType"] for rotation in rotations] == ["ON_DEMAND"] * 3
    assert all(rotation["KeyId"] == key for rotation in rotations)


def test_aliases_and_tags(server):
    customer = server.client("customer")
    key, other = new_key(server), new_key(server)
    customer.create_alias(AliasName="alias/app/main", TargetKeyId=key)
    again = refused(customer.create_alias, AliasName="alias/app/main", TargetKeyId=other)
    assert again["code"] == "AlreadyExistsException"
    assert again["message"] == f"An alias with the name arn:aws:kms:us-east-1:{ACCOUNT}:alias/app/main already exists"
    listed = customer.list_aliases()["Aliases"]
    assert [alias["AliasName"] for alias in listed] == ["alias/app/main"]
    assert listed[0]["TargetKeyId"] == key.rsplit("/")[-1]
    blob = customer.encrypt(KeyId="alias/app/main", Plaintext=b"x")
    assert blob["KeyId"] == key
    customer.update_alias(AliasName="alias/app/main", TargetKeyId=other)
    assert customer.describe_key(KeyId="alias/app/main")["KeyMetadata"]["Arn"] == other
    assert customer.list_aliases(KeyId=key)["Aliases"] == []
    customer.delete_alias(AliasName="alias/app/main")
    assert refused(customer.delete_alias, AliasName="alias/app/main")["code"] == "NotFoundException"
    assert refused(customer.encrypt, KeyId="alias/app/main", Plaintext=b"x")["code"] == "NotFoundException"
    assert customer.decrypt(CiphertextBlob=blob["CiphertextBlob"])["Plaintext"] == b"x"
    customer.tag_resource(KeyId=key, Tags=[{"TagKey": "a", "TagValue": "1"}, {"TagKey": "b", "TagValue": "2"}])
    customer.untag_resource(KeyId=key, TagKeys=["a"])
    assert customer.list_resource_tags(KeyId=key)["Tags"] == [{"TagKey": "b", "TagValue": "2"}]


def test_lists_come_in_pages(server):
    customer = server.client("customer")
    keys = {new_key(server).rsplit("/")[-1] for _ in range(7)}
    first = customer.list_keys(Limit=3)
    assert first["Truncated"] and len(first["Keys"]) == 3
    pages = customer.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 3})
    seen = [key["KeyId"] for page in pages for key in page["Keys"]]
    assert len(seen) == 7 and set(seen) == keys
    assert refused(customer.list_keys, Limit=3, Marker="zz")["code"] == "InvalidMarkerException"


def policy(*statements) -> str:
    owner = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/customer"},
        "Action": "kms:*",
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [owner, *statements]})


def test_key_policies_are_enforced(server):
    customer, saker = server.client("customer"), server.client("saker")
    key = new_key(server)
    default = json.loads(customer.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
    assert default["Statement"][0]["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    assert customer.list_key_policies(KeyId=key)["PolicyNames"] == ["default"]
    blob = saker.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)["CiphertextBlob"]

    customer.put_key_policy(KeyId=key, PolicyName="default", Policy=policy())
    error = refused(saker.decrypt, CiphertextBlob=blob, EncryptionContext=CONTEXT)
    assert (error["code"], error["status"]) == ("AccessDeniedException", 400)
    assert error["message"] == (
        f"User: arn:aws:iam::{ACCOUNT}:user/saker is not authorized to perform: kms:Decrypt on resource: {key} "
        "because no resource-based policy allows the kms:Decrypt action"
    )
    bound = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/saker"},
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": "*",
        "Condition": {
            "StringEquals": {"kms:EncryptionContext:saker:database": "d1"},
            "ForAllValues:StringEquals": {"kms:EncryptionContextKeys": list(CONTEXT)},
        },
    }
    customer.put_key_policy(KeyId=key, Policy=policy(bound))
    saker.decrypt(CiphertextBlob=blob, EncryptionContext=CONTEXT)
    for context in [{}, dict(CONTEXT, **{"saker:database": "d2"}), dict(CONTEXT, more="1")]:
        error = refused(saker.generate_data_key, KeyId=key, KeySpec="AES_256", EncryptionContext=context)
        assert error["code"] == "AccessDeniedException", context
    denied = dict(bound, Effect="Deny", Principal="*", Condition={"StringLike": {"aws:PrincipalArn": "*/saker"}})
    customer.put_key_policy(KeyId=key, Policy=policy(bound, denied))
    error = refused(saker.decrypt, CiphertextBlob=blob, EncryptionContext=CONTEXT)
    assert error["message"].endswith("with an explicit deny in a resource-based policy")


@pytest.mark.parametrize(
    "statement",
    [
        {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}},
        {"Condition": {"StringEquals": {"aws:SourceVpc": "v"}}},
        {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/nobody"}},
        {"Action": "s3:*"},
        {"Effect": "Perhaps"},
    ],
)
def test_a_policy_that_cannot_be_enforced_is_refused(server, statement):
    customer = server.client("customer")
    key = new_key(server)
    before = customer.get_key_policy(KeyId=key)["Policy"]
    whole = {"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*", **statement}
    error = refused(customer.put_key_policy, KeyId=key, Policy=policy(whole))
    assert (error["code"], error["status"]) == ("MalformedPolicyDocumentException", 400)
    assert customer.get_key_policy(KeyId=key)["Policy"] == before
    assert refused(customer.create_key, Policy=policy(whole))["code"] == "MalformedPolicyDocumentException"


def test_nobody_locks_everybody_out_by_accident(server):
    customer = server.client("customer")
    key = new_key(server)
    read_only = {"Effect": "Allow", "Principal": "*", "Action": "kms:Describe*", "Resource": "*"}
    text = json.dumps({"Statement": [read_only]})
    error = refused(customer.put_key_policy, KeyId=key, Policy=text)
    assert error["code"] == "MalformedPolicyDocumentException" and "in the future" in error["message"]
    customer.put_key_policy(KeyId=key, Policy=text, BypassPolicyLockoutSafetyCheck=True)
    customer.describe_key(KeyId=key)
    assert refused(customer.put_key_policy, KeyId=key, Policy=text)["code"] == "AccessDeniedException"


def test_a_role_needs_its_external_id(server):
    iam, sts = server.client("customer", "iam"), server.client("saker", "sts")
    assert sts.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/saker"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/saker"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": "x-42"}},
            }
        ],
    }
    role = iam.create_role(RoleName="db", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    assert role["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/db"
    assert iam.get_role(RoleName="db")["Role"]["AssumeRolePolicyDocument"] == trust
    may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"}]}
    iam.put_role_policy(RoleName="db", PolicyName="use", PolicyDocument=json.dumps(may))
    assert iam.get_role_policy(RoleName="db", PolicyName="use")["PolicyDocument"] == may
    assert iam.list_role_policies(RoleName="db")["PolicyNames"] == ["use"]

    for arguments in [{}, {"ExternalId": "x-41"}]:
        error = refused(sts.assume_role, RoleArn=role["Arn"], RoleSessionName="s1", **arguments)
        assert (error["code"], error["status"]) == ("AccessDenied", 403)
        assert error["message"] == (
            f"User: arn:aws:iam::{ACCOUNT}:user/saker is not authorized to perform: sts:AssumeRole on resource: "
            + role["Arn"]
        )
    got = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="s1", ExternalId="x-42", DurationSeconds=900)
    remaining = got["Credentials"]["Expiration"] - datetime.datetime.now(datetime.timezone.utc)
    assert 840 < remaining.total_seconds() <= 900
    identity = server.role_client(got["Credentials"], "sts").get_caller_identity()
    assert identity["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/db/s1"

    key = new_key(server)
    blob = server.client("customer").encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]
    in_role = server.role_client(got["Credentials"])
    assert in_role.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"
    error = refused(in_role.generate_data_key, KeyId=key, KeySpec="AES_256")
    assert f"assumed-role/db/s1 is not authorized to perform: kms:GenerateDataKey" in error["message"]
    assert error["message"].endswith("because no identity-based policy allows the kms:GenerateDataKey action")

    trust["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"] = "x-43"
    iam.update_assume_role_policy(RoleName="db", PolicyDocument=json.dumps(trust))
    assert refused(sts.assume_role, RoleArn=role["Arn"], RoleSessionName="s1", ExternalId="x-42")["code"] == "AccessDenied"
    assert refused(iam.delete_role, RoleName="db")["code"] == "DeleteConflict"
    iam.delete_role_policy(RoleName="db", PolicyName="use")
    assert refused(in_role.decrypt, CiphertextBlob=blob)["code"] == "AccessDeniedException"
    iam.delete_role(RoleName="db")
    assert refused(iam.get_role, RoleName="db")["code"] == "NoSuchEntity"
    assert refused(in_role.decrypt, CiphertextBlob=blob)["code"] == "UnrecognizedClientException"


def test_credentials_are_checked(server):
    import boto3

    mode = stat.S_IMODE(os.stat(server.credentials).st_mode)
    assert mode == 0o600
    frozen = server.session("customer").get_credentials().get_frozen_credentials()
    arguments = {"endpoint_url": server.url, "region_name": "us-east-1"}
    wrong = boto3.client("kms", aws_access_key_id=frozen.access_key, aws_secret_access_key="wrong", **arguments)
    assert refused(wrong.list_keys)["code"] == "InvalidSignatureException"
    unknown = boto3.client("kms", aws_access_key_id="AKIAAAAAAAAAAAAAAAAA", aws_secret_access_key="x", **arguments)
    assert refused(unknown.list_keys)["code"] == "UnrecognizedClientException"
    elsewhere = dict(arguments, region_name="eu-west-1")
    other = boto3.client("kms", aws_access_key_id=frozen.access_key, aws_secret_access_key=frozen.secret_key, **elsewhere)
    assert refused(other.list_keys)["code"] == "InvalidSignatureException"


def test_the_log_has_every_call_and_no_secret(server):
    customer, saker = server.client("customer"), server.client("saker")
    key = new_key(server)
    made = saker.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)
    for _ in range(20):
        saker.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
    customer.encrypt(KeyId=key, Plaintext=b"plaintext canary")
    customer.disable_key(KeyId=key)
    refused(saker.decrypt, CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)
    text = server.trail()
    events = [json.loads(line) for line in text.splitlines()]
    named = [event for event in events if event["eventName"] == "Decrypt"]
    assert len(named) == 21
    event = named[0]
    assert event["eventSource"] == "kms.amazonaws.com" and event["eventType"] == "AwsApiCall"
    assert event["userIdentity"]["type"] == "IAMUser" and event["userIdentity"]["userName"] == "saker"
    assert event["requestParameters"]["encryptionContext"] == CONTEXT
    assert event["resources"] == [{"accountId": ACCOUNT, "type": "AWS::KMS::Key", "ARN": key}]
    assert event["recipientAccountId"] == ACCOUNT and event["awsRegion"] == "us-east-1"
    assert event["readOnly"] is True and event["sourceIPAddress"] == "127.0.0.1"
    assert "Boto3" in event["userAgent"]
    assert named[-1]["errorCode"] == "DisabledException"
    assert len({event["eventID"] for event in events}) == len(events)
    for secret in [b"plaintext canary", made["Plaintext"], made["CiphertextBlob"]]:
        assert base64.b64encode(secret).decode() not in text


def test_a_killed_server_has_lost_nothing(server):
    customer = server.client("customer")
    keys = [new_key(server) for _ in range(5)]
    blobs = [customer.encrypt(KeyId=key, Plaintext=key.encode())["CiphertextBlob"] for key in keys]
    customer.disable_key(KeyId=keys[4])
    server.kill()
    server.start()
    customer = server.client("customer")
    for key, blob in list(zip(keys, blobs))[:4]:
        assert customer.decrypt(CiphertextBlob=blob)["Plaintext"] == key.encode()
    assert refused(customer.decrypt, CiphertextBlob=blobs[4])["code"] == "DisabledException"
    assert len(customer.list_keys()["Keys"]) == 5


def test_nothing_of_a_key_is_readable_on_disk(server):
    customer = server.client("customer")
    key = new_key(server, Description="description canary")
    customer.tag_resource(KeyId=key, Tags=[{"TagKey": "tag", "TagValue": "tag canary"}])
    customer.create_alias(AliasName="alias/alias-canary", TargetKeyId=key)
    secret = server.session("customer").get_credentials().get_frozen_credentials().secret_key
    server.stop()
    paths = [path for path in (server.kms_directory / "records").rglob("*") if path.is_file()]
    assert any(path.name == "meta.redb" for path in paths) and len(paths) > 2
    canaries = [b"description canary", b"tag canary", b"alias-canary", b"key-default-1", secret.encode()]
    for path in paths:
        content = path.read_bytes()
        assert not [canary for canary in canaries if canary in content], path
    for name in ["root-secret", "cloudtrail.jsonl"]:
        assert stat.S_IMODE((server.kms_directory / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(server.kms_directory.stat().st_mode) == 0o700
    server.start()


def test_the_aws_command_line(server):
    made = server.aws("customer", "kms", "create-key")
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)["KeyMetadata"]["Arn"]
    assert server.aws("customer", "kms", "create-alias", "--alias-name", "alias/cli", "--target-key-id", key).returncode == 0
    data_key = server.aws("saker", "kms", "generate-data-key", "--key-id", key, "--key-spec", "AES_256")
    sealed = server.directory / "sealed"
    sealed.write_bytes(base64.b64decode(json.loads(data_key.stdout)["CiphertextBlob"]))
    blob = f"fileb://{sealed}"
    opened = server.aws("saker", "kms", "decrypt", "--ciphertext-blob", blob)
    assert opened.returncode == 0, opened.stderr
    assert json.loads(opened.stdout)["Plaintext"] == json.loads(data_key.stdout)["Plaintext"]
    assert server.aws("customer", "kms", "disable-key", "--key-id", key).returncode == 0
    dark = server.aws("saker", "kms", "decrypt", "--ciphertext-blob", blob)
    assert dark.returncode != 0 and "DisabledException" in dark.stderr
    assert server.aws("customer", "kms", "enable-key", "--key-id", key).returncode == 0
    assert server.aws("customer", "kms", "rotate-key-on-demand", "--key-id", key).returncode == 0
    assert server.aws("saker", "kms", "decrypt", "--ciphertext-blob", blob).returncode == 0
    listed = server.aws("customer", "kms", "list-keys")
    assert [entry["KeyArn"] for entry in json.loads(listed.stdout)["Keys"]] == [key]
    who = server.aws("saker", "sts", "get-caller-identity")
    assert json.loads(who.stdout)["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/saker"
    mine = server.aws("saker", "kms", "disable-key", "--key-id", key)
    assert mine.returncode != 0 and "AccessDeniedException" in mine.stderr


def test_a_client_with_a_wrong_clock_is_refused(server, monkeypatch):
    import botocore.auth

    customer = server.client("customer")
    real = botocore.auth.get_current_datetime if hasattr(botocore.auth, "get_current_datetime") else None
    if real is None:
        pytest.skip("this botocore reads its clock elsewhere")
    shifted = lambda *args, **kwargs: real(*args, **kwargs) - datetime.timedelta(seconds=400)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", shifted)
    error = refused(customer.list_keys)
    assert error["code"] == "InvalidSignatureException" and "Signature expired" in error["message"]
    monkeypatch.undo()
    customer.list_keys()
