//! Saker's AWS client against the local key server, over real HTTP.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests write and alter files of their own")]

#[path = "local_server/limits.rs"]
mod limits;

mod support;

use std::sync::atomic::Ordering;

use saker_keyring::{CallReason, Denial, KeyPurpose, KeyService, KeyServiceError, Outage, RootKeyId, WrappedKey};
use saker_kms::{AwsKms, AwsKmsConfig, KeyServerError, KeyServices, KeyServicesConfig, LocalKeyServer};
use serde_json::json;
use support::{ACCOUNT, Login, Server, send, zone};

fn denial<T: std::fmt::Debug>(outcome: Result<T, KeyServiceError>) -> Denial {
    match outcome {
        Err(KeyServiceError::Denied { denial, .. }) => denial,
        other => panic!("expected a denial, got {other:?}"),
    }
}

fn outage<T: std::fmt::Debug>(outcome: Result<T, KeyServiceError>) -> Outage {
    match outcome {
        Err(KeyServiceError::Unavailable { outage, .. }) => outage,
        other => panic!("expected an outage, got {other:?}"),
    }
}

#[tokio::test]
async fn a_key_lives_its_whole_life() {
    let server = Server::start().await;
    let (customer, saker) = (server.sdk("customer"), server.saker().await);
    let root = server.new_key().await;
    let context = zone("d1");
    let made = saker
        .generate_data_key(&root, &context, CallReason::Unlock)
        .await
        .unwrap();
    let opened = saker
        .decrypt(&root, &made.wrapped, &context, CallReason::Unlock)
        .await
        .unwrap();
    assert_eq!(opened.expose_bytes(), made.plain.expose_bytes());
    let other = saker
        .generate_data_key(&root, &context, CallReason::Unlock)
        .await
        .unwrap();
    assert_ne!(other.plain.expose_bytes(), made.plain.expose_bytes());

    let id = root.as_str();
    customer.disable_key().key_id(id).send().await.unwrap();
    assert_eq!(
        denial(saker.decrypt(&root, &made.wrapped, &context, CallReason::Unlock).await),
        Denial::Disabled
    );
    assert_eq!(
        denial(saker.generate_data_key(&root, &context, CallReason::Unlock).await),
        Denial::Disabled
    );
    customer.enable_key().key_id(id).send().await.unwrap();
    assert!(
        saker
            .decrypt(&root, &made.wrapped, &context, CallReason::Unlock)
            .await
            .is_ok()
    );

    customer.rotate_key_on_demand().key_id(id).send().await.unwrap();
    let after = saker
        .generate_data_key(&root, &context, CallReason::Unlock)
        .await
        .unwrap();
    let old = saker
        .decrypt(&root, &made.wrapped, &context, CallReason::Unlock)
        .await
        .unwrap();
    assert_eq!(
        old.expose_bytes(),
        made.plain.expose_bytes(),
        "older material goes on decrypting"
    );
    assert!(
        saker
            .decrypt(&root, &after.wrapped, &context, CallReason::Unlock)
            .await
            .is_ok()
    );
    let rotations = customer.list_key_rotations().key_id(id).send().await.unwrap();
    assert_eq!(rotations.rotations().len(), 1);

    let scheduled = customer
        .schedule_key_deletion()
        .key_id(id)
        .pending_window_in_days(7)
        .send()
        .await
        .unwrap();
    assert_eq!(scheduled.pending_window_in_days, Some(7));
    assert_eq!(
        denial(saker.decrypt(&root, &made.wrapped, &context, CallReason::Unlock).await),
        Denial::PendingDeletion
    );
    customer.cancel_key_deletion().key_id(id).send().await.unwrap();
    assert_eq!(
        denial(saker.decrypt(&root, &made.wrapped, &context, CallReason::Unlock).await),
        Denial::Disabled
    );
    customer.enable_key().key_id(id).send().await.unwrap();
    assert!(
        saker
            .decrypt(&root, &made.wrapped, &context, CallReason::Unlock)
            .await
            .is_ok()
    );

    let unknown: RootKeyId = format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/nothing").parse().unwrap();
    assert_eq!(
        denial(saker.generate_data_key(&unknown, &context, CallReason::Unlock).await),
        Denial::NotFound
    );
}

#[tokio::test]
async fn wrapped_keys_are_bound_to_context_key_and_every_byte() {
    let server = Server::start().await;
    let saker = server.saker().await;
    let (root, other) = (server.new_key().await, server.new_key().await);
    let context = zone("d1");
    let wrapped = saker
        .generate_data_key(&root, &context, CallReason::Unlock)
        .await
        .unwrap()
        .wrapped;
    assert_eq!(
        denial(saker.decrypt(&root, &wrapped, &zone("d2"), CallReason::Unlock).await),
        Denial::InvalidCiphertext
    );
    let mut purpose = context.clone();
    purpose.purpose = KeyPurpose::Validation;
    assert_eq!(
        denial(saker.decrypt(&root, &wrapped, &purpose, CallReason::Unlock).await),
        Denial::InvalidCiphertext
    );
    assert_eq!(
        denial(saker.decrypt(&other, &wrapped, &context, CallReason::Unlock).await),
        Denial::InvalidCiphertext
    );
    for index in 0..wrapped.as_bytes().len() {
        let mut bytes = wrapped.as_bytes().to_vec();
        bytes[index] ^= 1;
        let altered = WrappedKey::new(bytes).unwrap();
        assert_eq!(
            denial(saker.decrypt(&root, &altered, &context, CallReason::Unlock).await),
            Denial::InvalidCiphertext,
            "{index}"
        );
    }
    for cut in [1, 20, 21, 40, wrapped.as_bytes().len() - 1] {
        let cut = WrappedKey::new(wrapped.as_bytes()[..cut].to_vec()).unwrap();
        assert_eq!(
            denial(saker.decrypt(&root, &cut, &context, CallReason::Unlock).await),
            Denial::InvalidCiphertext
        );
    }
}

#[tokio::test]
async fn policies_decide_about_the_database() {
    let server = Server::start().await;
    let (customer, saker) = (server.sdk("customer"), server.saker().await);
    let root = server.new_key().await;
    let context = zone("d1");
    let made = saker
        .generate_data_key(&root, &context, CallReason::Unlock)
        .await
        .unwrap();
    let put = |policy: serde_json::Value| {
        let request = customer
            .put_key_policy()
            .key_id(root.as_str())
            .policy(policy.to_string());
        async move { request.send().await }
    };
    let owner = json!({ "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{ACCOUNT}:user/customer") },
        "Action": "kms:*", "Resource": "*" });
    put(json!({ "Version": "2012-10-17", "Statement": [owner] }))
        .await
        .unwrap();
    assert_eq!(
        denial(saker.decrypt(&root, &made.wrapped, &context, CallReason::Unlock).await),
        Denial::AccessDenied
    );
    let request = json!({ "KeyId": root.as_str(), "KeySpec": "AES_256" });
    let told = server.kms(&server.login("saker"), "GenerateDataKey", &request).await;
    assert_eq!((told.status, told.code().as_str()), (400, "AccessDeniedException"));
    assert_eq!(
        told.json()["message"],
        format!(
            "User: arn:aws:iam::{ACCOUNT}:user/saker is not authorized to perform: kms:GenerateDataKey on resource: \
             {root} because no resource-based policy allows the kms:GenerateDataKey action"
        )
    );

    let only_d1 = json!({ "Effect": "Allow", "Principal": { "AWS": format!("arn:aws:iam::{ACCOUNT}:user/saker") },
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"], "Resource": "*",
        "Condition": { "StringEquals": { "kms:EncryptionContext:saker:database": "d1" } } });
    put(json!({ "Version": "2012-10-17", "Statement": [owner, only_d1] }))
        .await
        .unwrap();
    assert!(
        saker
            .decrypt(&root, &made.wrapped, &context, CallReason::Unlock)
            .await
            .is_ok()
    );
    assert_eq!(
        denial(saker.generate_data_key(&root, &zone("d2"), CallReason::Unlock).await),
        Denial::AccessDenied
    );

    let refused = put(
        json!({ "Statement": [owner, { "Effect": "Deny", "Principal": "*", "Action": "kms:*",
        "Resource": "*", "Condition": { "IpAddress": { "aws:SourceIp": "10.0.0.0/8" } } }] }),
    );
    let refused = refused.await.unwrap_err().into_service_error();
    assert!(refused.is_malformed_policy_document_exception(), "{refused:?}");
    assert!(
        saker
            .decrypt(&root, &made.wrapped, &context, CallReason::Unlock)
            .await
            .is_ok(),
        "the old policy stands"
    );
    let locked_out = put(json!({ "Statement": [only_d1] }))
        .await
        .unwrap_err()
        .into_service_error();
    assert!(locked_out.is_malformed_policy_document_exception(), "{locked_out:?}");
}

#[tokio::test]
async fn the_database_user_can_do_nothing_else() {
    let server = Server::start().await;
    let root = server.new_key().await;
    let saker = server.login("saker");
    let id = json!({ "KeyId": root.as_str() });
    let calls = [
        ("CreateKey", json!({})),
        ("DescribeKey", id.clone()),
        ("DisableKey", id.clone()),
        ("EnableKey", id.clone()),
        ("ScheduleKeyDeletion", id.clone()),
        ("CancelKeyDeletion", id.clone()),
        ("RotateKeyOnDemand", id.clone()),
        ("ListKeyRotations", id.clone()),
        ("GetKeyRotationStatus", id.clone()),
        ("GetKeyPolicy", id.clone()),
        ("PutKeyPolicy", json!({ "KeyId": root.as_str(), "Policy": "{}" })),
        ("ListKeyPolicies", id.clone()),
        ("ListResourceTags", id.clone()),
        ("TagResource", json!({ "KeyId": root.as_str(), "Tags": [] })),
        ("UntagResource", json!({ "KeyId": root.as_str(), "TagKeys": [] })),
        ("ListKeys", json!({})),
        ("ListAliases", json!({})),
        (
            "CreateAlias",
            json!({ "AliasName": "alias/x", "TargetKeyId": root.as_str() }),
        ),
        ("Encrypt", json!({ "KeyId": root.as_str(), "Plaintext": "AAAA" })),
        (
            "GenerateDataKeyWithoutPlaintext",
            json!({ "KeyId": root.as_str(), "KeySpec": "AES_256" }),
        ),
    ];
    for (operation, body) in calls {
        let answer = server.kms(&saker, operation, &body).await;
        assert_eq!(answer.code(), "AccessDeniedException", "{operation}: {}", answer.body);
        assert!(answer.body.contains(&format!("kms:{operation}")), "{}", answer.body);
    }
    let answer = server
        .query(&saker, "iam", &[("Action", "GetRole"), ("RoleName", "r")])
        .await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "AccessDenied"));
}

/// Makes role `db`, which user saker may assume with external id `x-42`, and which may use keys.
async fn make_role(server: &Server) {
    let customer = server.login("customer");
    let trust = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow",
        "Principal": { "AWS": format!("arn:aws:iam::{ACCOUNT}:user/saker") }, "Action": "sts:AssumeRole",
        "Condition": { "StringEquals": { "sts:ExternalId": "x-42" } } }] })
    .to_string();
    let make = [
        ("Action", "CreateRole"),
        ("RoleName", "db"),
        ("AssumeRolePolicyDocument", &trust),
    ];
    assert_eq!(server.query(&customer, "iam", &make).await.status, 200);
    let may = r#"{"Statement":{"Effect":"Allow","Action":["kms:Decrypt","kms:GenerateDataKey"],"Resource":"*"}}"#;
    let put = [
        ("Action", "PutRolePolicy"),
        ("RoleName", "db"),
        ("PolicyName", "use"),
        ("PolicyDocument", may),
    ];
    assert_eq!(server.query(&customer, "iam", &put).await.status, 200);
}

#[tokio::test]
async fn a_role_is_assumed_only_with_its_external_id() {
    let server = Server::start().await;
    make_role(&server).await;
    let root = server.new_key().await;
    let role_arn = Some(format!("arn:aws:iam::{ACCOUNT}:role/db"));
    let with = |external_id: Option<&str>| AwsKmsConfig {
        role_arn: role_arn.clone(),
        external_id: external_id.map(str::to_owned),
        ..server.aws_config()
    };
    let right = AwsKms::connect(with(Some("x-42"))).await.unwrap();
    let made = right
        .generate_data_key(&root, &zone("d1"), CallReason::Unlock)
        .await
        .unwrap();
    assert!(
        right
            .decrypt(&root, &made.wrapped, &zone("d1"), CallReason::Unlock)
            .await
            .is_ok()
    );
    for external_id in [Some("x-41"), None] {
        let wrong = AwsKms::connect(with(external_id)).await.unwrap();
        assert_eq!(
            denial(
                wrong
                    .decrypt(&root, &made.wrapped, &zone("d1"), CallReason::Unlock)
                    .await
            ),
            Denial::AccessDenied
        );
    }
    let used = server.trail();
    let by_role = used
        .iter()
        .find(|event| event["eventName"] == "GenerateDataKey")
        .unwrap();
    assert_eq!(by_role["userIdentity"]["type"], "AssumedRole");
    assert_eq!(
        by_role["userIdentity"]["arn"],
        format!("arn:aws:sts::{ACCOUNT}:assumed-role/db/saker-n1")
    );
    assert!(
        used.iter()
            .any(|event| event["eventName"] == "AssumeRole" && event["errorCode"] == "AccessDenied")
    );

    // The customer takes the role's permission away: the running session feels it at once.
    let customer = server.login("customer");
    let take = [
        ("Action", "DeleteRolePolicy"),
        ("RoleName", "db"),
        ("PolicyName", "use"),
    ];
    assert_eq!(server.query(&customer, "iam", &take).await.status, 200);
    assert_eq!(
        denial(
            right
                .decrypt(&root, &made.wrapped, &zone("d1"), CallReason::Unlock)
                .await
        ),
        Denial::AccessDenied
    );
    assert_eq!(
        server
            .query(&customer, "iam", &[("Action", "DeleteRole"), ("RoleName", "db")])
            .await
            .status,
        200
    );
    assert_eq!(
        denial(
            right
                .decrypt(&root, &made.wrapped, &zone("d1"), CallReason::Unlock)
                .await
        ),
        Denial::AccessDenied
    );
}

#[tokio::test]
async fn sessions_end_and_survive_a_restart() {
    let mut server = Server::start().await;
    make_role(&server).await;
    let root = server.new_key().await;
    let role_arn = format!("arn:aws:iam::{ACCOUNT}:role/db");
    let assume = [
        ("Action", "AssumeRole"),
        ("RoleArn", role_arn.as_str()),
        ("RoleSessionName", "s1"),
        ("ExternalId", "x-42"),
        ("DurationSeconds", "900"),
    ];
    let answer = server.query(&server.login("saker"), "sts", &assume).await;
    let session = Login {
        access_key_id: answer.xml("AccessKeyId"),
        secret: answer.xml("SecretAccessKey"),
        token: Some(answer.xml("SessionToken")),
    };
    server.stop().await;
    server.run().await;
    let request = json!({ "KeyId": root.as_str(), "KeySpec": "AES_256" });
    assert_eq!(server.kms(&session, "GenerateDataKey", &request).await.status, 200);
    let who = server
        .query(
            &session,
            "sts",
            &[("Action", "GetCallerIdentity"), ("Version", "2011-06-15")],
        )
        .await;
    assert_eq!(who.xml("Arn"), format!("arn:aws:sts::{ACCOUNT}:assumed-role/db/s1"));
    let mut forged = session.clone();
    let token = forged.token.unwrap();
    let other = if token.starts_with('A') { 'B' } else { 'A' };
    forged.token = Some(format!("{other}{}", &token[1..]));
    let forged = server.kms(&forged, "GenerateDataKey", &request).await;
    assert_eq!(forged.code(), "UnrecognizedClientException");
    server.clock_offset_ms.store(901_000, Ordering::SeqCst);
    assert_eq!(
        server.kms(&session, "GenerateDataKey", &request).await.code(),
        "ExpiredTokenException"
    );
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let mut server = Server::start().await;
    let root = server.new_key().await;
    let context = zone("d1");
    let made = server
        .saker()
        .await
        .generate_data_key(&root, &context, CallReason::Unlock)
        .await
        .unwrap();
    let customer = server.sdk("customer");
    customer
        .create_alias()
        .alias_name("alias/a")
        .target_key_id(root.as_str())
        .send()
        .await
        .unwrap();
    customer
        .rotate_key_on_demand()
        .key_id(root.as_str())
        .send()
        .await
        .unwrap();
    customer.disable_key().key_id(root.as_str()).send().await.unwrap();
    let credentials = std::fs::read_to_string(server.credentials_file()).unwrap();
    std::fs::remove_file(server.credentials_file()).unwrap();
    server.stop().await;
    server.run().await;
    assert_eq!(
        std::fs::read_to_string(server.credentials_file()).unwrap(),
        credentials,
        "written again"
    );
    let (customer, saker) = (server.sdk("customer"), server.saker().await);
    assert_eq!(
        denial(saker.decrypt(&root, &made.wrapped, &context, CallReason::Unlock).await),
        Denial::Disabled
    );
    customer.enable_key().key_id(root.as_str()).send().await.unwrap();
    let opened = saker
        .decrypt(&root, &made.wrapped, &context, CallReason::Unlock)
        .await
        .unwrap();
    assert_eq!(opened.expose_bytes(), made.plain.expose_bytes());
    let described = customer.describe_key().key_id("alias/a").send().await.unwrap();
    assert_eq!(described.key_metadata.unwrap().arn.as_deref(), Some(root.as_str()));
}

/// A server that has stopped holds its directory no longer, whatever it was doing when it was stopped.
#[tokio::test]
async fn a_stopped_server_lets_go_of_its_directory() {
    // The first look for due keys, which begins with the server, takes its time.
    let looking = std::sync::Arc::new(tokio::sync::Notify::new());
    let looks = std::sync::Arc::clone(&looking);
    let mut server = Server::start_with_clock(move || {
        looks.notify_one();
        std::thread::sleep(std::time::Duration::from_millis(300));
        support::real_ms()
    })
    .await;
    looking.notified().await;
    server.stop().await;
    LocalKeyServer::open(server.config()).await.unwrap();
}

#[tokio::test]
async fn one_directory_has_one_server_one_realm_and_its_root_secret() {
    let mut server = Server::start().await;
    let second = LocalKeyServer::open(server.config()).await.unwrap_err();
    assert!(second.to_string().contains("in use"), "{second}");
    server.stop().await;
    let mut other = server.config();
    other.account = "111111111111".into();
    assert!(matches!(
        LocalKeyServer::open(other).await,
        Err(KeyServerError::OtherRealm { .. })
    ));
    for (setting, region, account) in [("region", "US East", ACCOUNT), ("account", "us-east-1", "12")] {
        let mut wrong = server.config();
        (wrong.region, wrong.account) = (region.into(), account.into());
        let outcome = LocalKeyServer::open(wrong).await;
        assert!(matches!(outcome, Err(KeyServerError::Config { setting: named, .. }) if named == setting));
    }
    let secret = server.dir.path().join("kms/root-secret");
    let kept = std::fs::read(&secret).unwrap();
    std::fs::remove_file(&secret).unwrap();
    let missing = LocalKeyServer::open(server.config()).await;
    assert!(matches!(missing, Err(KeyServerError::RootSecretMissing { .. })));
    std::fs::write(&secret, kept).unwrap();
    let exposed = LocalKeyServer::open(server.config()).await;
    assert!(
        matches!(exposed, Err(KeyServerError::RootSecret(_))),
        "a root secret that others can read is refused"
    );
}

#[tokio::test]
async fn altered_records_are_refused() {
    use redb::{ReadableDatabase, ReadableTable};
    let mut server = Server::start().await;
    let root = server.new_key().await;
    let id = root.as_str().rsplit('/').next().unwrap().to_owned();
    server.stop().await;
    let path = server.dir.path().join("kms/records/meta.redb");
    let table = redb::TableDefinition::<&str, &[u8]>::new("values");
    let name = format!("key/{id}");
    let read = || {
        let database = redb::Database::open(&path).unwrap();
        let table = database.begin_read().unwrap().open_table(table).unwrap();
        table.get(name.as_str()).unwrap().unwrap().value().to_vec()
    };
    let write = |value: &[u8]| {
        let database = redb::Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction
            .open_table(table)
            .unwrap()
            .insert(name.as_str(), value)
            .unwrap();
        transaction.commit().unwrap();
    };
    let good = read();
    let text = String::from_utf8_lossy(&good).into_owned();
    assert!(
        !text.contains("policy") && !text.contains("materials"),
        "nothing of the record is readable"
    );
    for index in [0, 12, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[index] ^= 0x80;
        write(&bad);
        let refused = LocalKeyServer::open(server.config()).await.unwrap_err();
        assert!(
            refused.to_string().contains(&name) && refused.to_string().contains("not authentic"),
            "{refused}"
        );
    }
    // Another record's value is authentic, but not under this name.
    let other = {
        let database = redb::Database::open(&path).unwrap();
        let table = database.begin_read().unwrap().open_table(table).unwrap();
        let first = table
            .iter()
            .unwrap()
            .map(|entry| entry.unwrap())
            .find(|(key, _)| key.value() != name)
            .unwrap();
        first.1.value().to_vec()
    };
    write(&other);
    let refused = LocalKeyServer::open(server.config()).await.unwrap_err();
    assert!(refused.to_string().contains("not authentic"), "{refused}");
    write(&good);
    server.run().await;
    assert!(
        server
            .saker()
            .await
            .generate_data_key(&root, &zone("d1"), CallReason::Unlock)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn altered_missing_or_swapped_key_material_is_refused() {
    let mut server = Server::start().await;
    let (root, _other) = (server.new_key().await, server.new_key().await);
    let wrapped = server
        .saker()
        .await
        .generate_data_key(&root, &zone("d1"), CallReason::Unlock)
        .await
        .unwrap()
        .wrapped;
    server.stop().await;
    let folder = server.dir.path().join("kms/records/objects/materials");
    let files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 2, "one file a key");
    let good: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    for index in 0..good[0].len() {
        let mut bad = good[0].clone();
        bad[index] ^= 1;
        std::fs::write(&files[0], bad).unwrap();
        assert!(LocalKeyServer::open(server.config()).await.is_err(), "byte {index}");
    }
    std::fs::write(&files[0], &good[1]).unwrap();
    assert!(
        LocalKeyServer::open(server.config()).await.is_err(),
        "another key's material"
    );
    std::fs::remove_file(&files[0]).unwrap();
    assert!(LocalKeyServer::open(server.config()).await.is_err(), "no material");
    std::fs::write(&files[0], &good[0]).unwrap();
    // Material of no key, as a crash leaves it, is destroyed at start.
    let orphan = folder.join(uuid::Uuid::new_v4().to_string());
    std::fs::write(&orphan, &good[1]).unwrap();
    server.run().await;
    assert!(!orphan.exists());
    assert!(
        server
            .saker()
            .await
            .decrypt(&root, &wrapped, &zone("d1"), CallReason::Unlock)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn deletion_destroys_after_the_window_and_not_before() {
    let mut server = Server::start().await;
    let root = server.new_key().await;
    let (customer, saker) = (server.login("customer"), server.login("saker"));
    let id = json!({ "KeyId": root.as_str() });
    assert_eq!(server.kms(&customer, "RotateKeyOnDemand", &id).await.status, 200);
    let alias = json!({ "AliasName": "alias/doomed", "TargetKeyId": root.as_str() });
    assert_eq!(server.kms(&customer, "CreateAlias", &alias).await.status, 200);
    let generate = json!({ "KeyId": root.as_str(), "KeySpec": "AES_256" });
    for days in [6, 31, 0, -1] {
        let request = json!({ "KeyId": root.as_str(), "PendingWindowInDays": days });
        assert_eq!(
            server.kms(&customer, "ScheduleKeyDeletion", &request).await.code(),
            "ValidationException"
        );
    }
    let request = json!({ "KeyId": root.as_str(), "PendingWindowInDays": 7 });
    assert_eq!(server.kms(&customer, "ScheduleKeyDeletion", &request).await.status, 200);
    let week_ms = 7 * 86_400_000;
    server.clock_offset_ms.store(week_ms - 60_000, Ordering::SeqCst);
    assert_eq!(
        server.kms(&saker, "GenerateDataKey", &generate).await.code(),
        "KMSInvalidStateException"
    );
    server.clock_offset_ms.store(week_ms + 1_000, Ordering::SeqCst);
    assert_eq!(
        server.kms(&customer, "CancelKeyDeletion", &id).await.code(),
        "NotFoundException"
    );
    assert_eq!(
        server.kms(&saker, "GenerateDataKey", &generate).await.code(),
        "NotFoundException"
    );
    assert_eq!(
        server
            .kms(&customer, "DescribeKey", &json!({ "KeyId": "alias/doomed" }))
            .await
            .code(),
        "NotFoundException"
    );
    server.stop().await;
    server.clock_offset_ms.store(0, Ordering::SeqCst);
    server.run().await;
    assert_eq!(
        server.kms(&customer, "DescribeKey", &id).await.code(),
        "NotFoundException",
        "gone for good"
    );
}

#[tokio::test]
async fn every_call_is_in_the_log_and_no_secret_is() {
    let server = Server::start().await;
    let (customer, saker) = (server.login("customer"), server.saker().await);
    let root = server.new_key().await;
    let made = saker
        .generate_data_key(&root, &zone("d1"), CallReason::Unlock)
        .await
        .unwrap();
    for _ in 0..5 {
        saker
            .decrypt(&root, &made.wrapped, &zone("d1"), CallReason::Unlock)
            .await
            .unwrap();
    }
    let request = json!({ "KeyId": root.as_str(), "Plaintext": "cGxhaW50ZXh0LWNhbmFyeQ==" });
    let encrypted = server.kms(&customer, "Encrypt", &request).await.json()["CiphertextBlob"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        server
            .kms(&customer, "Decrypt", &json!({ "CiphertextBlob": encrypted }))
            .await
            .status,
        200
    );
    server
        .sdk("customer")
        .disable_key()
        .key_id(root.as_str())
        .send()
        .await
        .unwrap();
    assert!(
        saker
            .decrypt(&root, &made.wrapped, &zone("d1"), CallReason::Unlock)
            .await
            .is_err()
    );

    let events = server.trail();
    let count = |name: &str| events.iter().filter(|event| event["eventName"] == name).count();
    assert_eq!(
        (
            count("CreateKey"),
            count("GenerateDataKey"),
            count("Encrypt"),
            count("DisableKey")
        ),
        (1, 1, 1, 1)
    );
    assert_eq!(count("Decrypt"), 7);
    let made_event = events
        .iter()
        .find(|event| event["eventName"] == "GenerateDataKey")
        .unwrap();
    assert!(made_event["userAgent"].as_str().unwrap().starts_with(concat!(
        "saker/",
        env!("CARGO_PKG_VERSION"),
        " node/n1 aws-sdk-rust/"
    )));
    assert_eq!(made_event["eventSource"], "kms.amazonaws.com");
    assert_eq!(
        made_event["userIdentity"]["arn"],
        format!("arn:aws:iam::{ACCOUNT}:user/saker")
    );
    assert_eq!(
        made_event["requestParameters"]["encryptionContext"]["saker:database"],
        "d1"
    );
    assert_eq!(
        made_event["requestParameters"]["encryptionContext"]["saker:purpose"],
        "zone-key"
    );
    assert_eq!(made_event["resources"][0]["ARN"], root.as_str());
    assert_eq!(made_event["readOnly"], true);
    assert_eq!(made_event["responseElements"], serde_json::Value::Null);
    let refused = events.iter().rfind(|event| event["eventName"] == "Decrypt").unwrap();
    assert_eq!(refused["errorCode"], "DisabledException");
    let created = events.iter().find(|event| event["eventName"] == "CreateKey").unwrap();
    assert_eq!(created["responseElements"]["keyMetadata"]["arn"], root.as_str());
    let text = server.trail_text();
    assert!(!text.contains("cGxhaW50ZXh0") && !text.contains(&encrypted));
    for profile in ["customer", "saker"] {
        assert!(!text.contains(&server.login(profile).secret));
    }
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let server = Server::start().await;
    let root = server.new_key().await;
    let customer = server.login("customer");
    for (operation, body, expected) in [
        (
            "CreateKey",
            json!({ "KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY" }),
            "UnsupportedOperationException",
        ),
        (
            "CreateKey",
            json!({ "MultiRegion": true }),
            "UnsupportedOperationException",
        ),
        (
            "CreateKey",
            json!({ "Policy": "{" }),
            "MalformedPolicyDocumentException",
        ),
        ("Sign", json!({}), "UnsupportedOperationException"),
        ("MakeCoffee", json!({}), "UnknownOperationException"),
        ("DescribeKey", json!([]), "SerializationException"),
        ("DescribeKey", json!({}), "ValidationException"),
        ("DescribeKey", json!({ "KeyId": 5 }), "SerializationException"),
        (
            "DescribeKey",
            json!({ "KeyId": "arn:aws:kms:eu-west-1:000000000000:key/a" }),
            "NotFoundException",
        ),
        (
            "DescribeKey",
            json!({ "KeyId": "arn:aws:s3:::x" }),
            "InvalidArnException",
        ),
        (
            "Encrypt",
            json!({ "KeyId": root.as_str(), "Plaintext": "?" }),
            "SerializationException",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": root.as_str() }),
            "ValidationException",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": root.as_str(), "KeySpec": "AES_256", "GrantTokens": ["t"] }),
            "InvalidGrantTokenException",
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": root.as_str(), "KeySpec": "AES_256", "DryRun": true }),
            "DryRunOperationException",
        ),
        (
            "Decrypt",
            json!({ "CiphertextBlob": "AAAA", "Recipient": { "KeyEncryptionAlgorithm": "x" } }),
            "UnsupportedOperationException",
        ),
        (
            "CreateAlias",
            json!({ "AliasName": "x", "TargetKeyId": root.as_str() }),
            "ValidationException",
        ),
        (
            "CreateAlias",
            json!({ "AliasName": "alias/aws/x", "TargetKeyId": root.as_str() }),
            "NotAuthorizedException",
        ),
        ("DisableKey", json!({ "KeyId": "alias/x" }), "NotFoundException"),
    ] {
        let answer = server.kms(&customer, operation, &body).await;
        assert_eq!(answer.code(), expected, "{operation} {body}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_router_reaches_the_server() {
    let server = Server::start().await;
    let root = server.new_key().await;
    let config = KeyServicesConfig {
        aws: Some(server.aws_config()),
        ..KeyServicesConfig::default()
    };
    let services = KeyServices::connect(config).await.unwrap();
    let made = services
        .generate_data_key(&root, &zone("d1"), CallReason::Unlock)
        .await
        .unwrap();
    assert!(
        services
            .decrypt(&root, &made.wrapped, &zone("d1"), CallReason::Unlock)
            .await
            .is_ok()
    );
    let elsewhere: RootKeyId = format!("arn:aws:kms:eu-west-1:{ACCOUNT}:key/abc").parse().unwrap();
    let outcome = services
        .generate_data_key(&elsewhere, &zone("d1"), CallReason::Unlock)
        .await;
    assert_eq!(
        denial(outcome),
        Denial::AccessDenied,
        "signed for another region, which the server does not accept"
    );
}

#[tokio::test]
async fn an_absent_or_silent_server_is_an_outage() {
    let mut server = Server::start().await;
    let root = server.new_key().await;
    let config = AwsKmsConfig {
        timeout_ms: 400,
        ..server.aws_config()
    };
    let saker = AwsKms::connect(config.clone()).await.unwrap();
    let wrapped = saker
        .generate_data_key(&root, &zone("d1"), CallReason::Unlock)
        .await
        .unwrap()
        .wrapped;
    server.stop().await;
    assert_eq!(
        outage(saker.decrypt(&root, &wrapped, &zone("d1"), CallReason::Unlock).await),
        Outage::Unreachable
    );
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let saker = AwsKms::connect(AwsKmsConfig {
        endpoint_url: Some(url),
        ..config
    })
    .await
    .unwrap();
    assert_eq!(
        outage(saker.decrypt(&root, &wrapped, &zone("d1"), CallReason::Unlock).await),
        Outage::Timeout
    );
}
