//! Which requests are believed, and how many of everything there may be.

use super::*;

#[tokio::test]
async fn only_signed_requests_are_believed() {
    let server = Server::start().await;
    let customer = server.login("customer");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let good = server.signed(&customer, "kms", Some("ListKeys"), b"{}");
    assert_eq!(send(&server.address, &good).await.status, 200);
    let code = |request: String| {
        let address = server.address.clone();
        async move { send(&address, request.as_bytes()).await.code() }
    };
    let unsigned: String = text(&good)
        .lines()
        .filter(|line| !line.starts_with("authorization"))
        .map(|l| format!("{l}\r\n"))
        .collect();
    assert_eq!(
        code(format!("{}{{}}", unsigned.trim_end_matches("{}\r\n"))).await,
        "MissingAuthenticationTokenException"
    );
    let other_body =
        text(&server.signed(&customer, "kms", Some("ListKeys"), b"{}")).replace("\r\n\r\n{}", "\r\n\r\n[]");
    assert_eq!(code(other_body).await, "InvalidSignatureException");
    let other_target = text(&good).replace("ListKeys", "CreateKey");
    assert_eq!(code(other_target).await, "InvalidSignatureException");
    let stranger = Login {
        access_key_id: "AKIAAAAAAAAAAAAAAAAA".into(),
        ..customer.clone()
    };
    assert_eq!(
        server.kms(&stranger, "ListKeys", &json!({})).await.code(),
        "UnrecognizedClientException"
    );
    let wrong = Login {
        secret: "wrong".into(),
        ..customer.clone()
    };
    assert_eq!(
        server.kms(&wrong, "ListKeys", &json!({})).await.code(),
        "InvalidSignatureException"
    );
    let borrowed = Login {
        secret: server.login("saker").secret,
        ..customer.clone()
    };
    assert_eq!(
        server.kms(&borrowed, "ListKeys", &json!({})).await.code(),
        "InvalidSignatureException"
    );
    let late = server.signed_at(&customer, "kms", Some("ListKeys"), b"{}", support::real_ms() - 310_000);
    let late = send(&server.address, &late).await;
    assert!(
        late.code() == "InvalidSignatureException" && late.body.contains("Signature expired"),
        "{}",
        late.body
    );
    let scope = server.signed(&customer, "s3", Some("ListKeys"), b"{}");
    assert_eq!(send(&server.address, &scope).await.code(), "InvalidSignatureException");
    let wrong_form = server.query(&wrong, "sts", &[("Action", "GetCallerIdentity")]).await;
    assert_eq!(
        (wrong_form.status, wrong_form.code().as_str()),
        (403, "SignatureDoesNotMatch")
    );
    let unknown = server.trail();
    assert!(
        unknown.iter().any(|event| event["userIdentity"]["type"] == "Unknown"),
        "refused calls are logged too"
    );
}

#[tokio::test]
async fn limits_hold_at_and_above() {
    let server = Server::start().await;
    let root = server.new_key().await;
    let customer = server.login("customer");
    let code = |operation: &'static str, body: serde_json::Value| {
        let (server, customer) = (&server, &customer);
        async move { server.kms(customer, operation, &body).await.code() }
    };
    use base64::Engine;
    let plain = |bytes: usize| base64::engine::general_purpose::STANDARD.encode(vec![7_u8; bytes]);
    let encrypt = |bytes: usize| json!({ "KeyId": root.as_str(), "Plaintext": plain(bytes) });
    assert_eq!(code("Encrypt", encrypt(4_096)).await, "");
    assert_eq!(code("Encrypt", encrypt(4_097)).await, "ValidationException");
    assert_eq!(code("Encrypt", encrypt(0)).await, "ValidationException");
    let context = |bytes: usize| json!({ "KeyId": root.as_str(), "KeySpec": "AES_256", "EncryptionContext": { "k": "v".repeat(bytes - 1) } });
    assert_eq!(code("GenerateDataKey", context(8_192)).await, "");
    assert_eq!(code("GenerateDataKey", context(8_193)).await, "ValidationException");
    let number = |bytes: i64| json!({ "KeyId": root.as_str(), "NumberOfBytes": bytes });
    assert_eq!(code("GenerateDataKey", number(1_024)).await, "");
    assert_eq!(code("GenerateDataKey", number(1_025)).await, "ValidationException");
    assert_eq!(code("GenerateDataKey", number(0)).await, "ValidationException");
    assert_eq!(
        code("Decrypt", json!({ "CiphertextBlob": plain(6_144) })).await,
        "InvalidCiphertextException"
    );
    assert_eq!(
        code("Decrypt", json!({ "CiphertextBlob": plain(6_145) })).await,
        "ValidationException"
    );
    // The body as a whole: 1 MiB of JSON is read (and found wanting), one byte more is not.
    let padded = |bytes: usize| {
        let body = format!("{{\"KeyId\":\"{}\"}}", "k".repeat(bytes - 12));
        assert_eq!(body.len(), bytes);
        server.signed(&customer, "kms", Some("DescribeKey"), body.as_bytes())
    };
    assert_eq!(
        send(&server.address, &padded(1024 * 1024)).await.code(),
        "ValidationException"
    );
    let oversized = send(&server.address, &padded(1024 * 1024 + 1)).await;
    assert_eq!(
        (oversized.status, oversized.code().as_str()),
        (413, "RequestEntityTooLargeException")
    );
}

#[tokio::test]
async fn aliases_and_rotations_of_a_key_are_limited() {
    let server = Server::start().await;
    let root = server.new_key().await;
    let customer = server.login("customer");
    for number in 0..=50 {
        let alias = json!({ "AliasName": format!("alias/a{number}"), "TargetKeyId": root.as_str() });
        let code = server.kms(&customer, "CreateAlias", &alias).await.code();
        assert_eq!(
            code,
            if number < 50 { "" } else { "LimitExceededException" },
            "{number}"
        );
    }
    for number in 0..=25 {
        let code = server
            .kms(&customer, "RotateKeyOnDemand", &json!({ "KeyId": root.as_str() }))
            .await
            .code();
        assert_eq!(
            code,
            if number < 25 { "" } else { "LimitExceededException" },
            "{number}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_at_once_than_are_worked_on_all_succeed() {
    let server = std::sync::Arc::new(Server::start().await);
    let customer = server.login("customer");
    let calls: Vec<_> = (0..300)
        .map(|_| {
            let (server, customer) = (std::sync::Arc::clone(&server), customer.clone());
            tokio::spawn(async move { server.kms(&customer, "CreateKey", &json!({})).await.status })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    let listed = server
        .kms(&customer, "ListKeys", &json!({ "Limit": 1000 }))
        .await
        .json();
    assert_eq!(listed["Keys"].as_array().unwrap().len(), 300);
    assert_eq!(
        server
            .trail()
            .iter()
            .filter(|event| event["eventName"] == "CreateKey")
            .count(),
        300
    );
}
