//! What the AWS client makes of answers that a sound KMS does not give, and of errors as they come over the wire.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests write and alter files of their own")]

mod support;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse};
use base64::{Engine, engine::general_purpose::STANDARD};
use saker_keyring::{
    CallReason, Denial, KeyService, KeyServiceError, Outage, RootKeyId, WrappedKey, ZoneId, ZoneKeyVersion, ZoneRecord,
};
use saker_kms::{AwsKms, AwsKmsConfig};
use serde_json::json;
use support::zone;

const ARN: &str = "arn:aws:kms:us-east-1:000000000000:key/k1";

/// Status, content type, body.
type Scripted = (u16, &'static str, String);

#[derive(Clone)]
struct Script {
    answer: Arc<Mutex<Scripted>>,
    calls: Arc<AtomicUsize>,
}

impl Script {
    /// A server that gives one scripted answer to whatever is asked, and a client of it.
    async fn start() -> (Self, AwsKms, tempfile::TempDir) {
        let script = Self {
            answer: Arc::new(Mutex::new((200, "", String::new()))),
            calls: Arc::default(),
        };
        let answer = async |State(script): State<Self>| {
            script.calls.fetch_add(1, Ordering::SeqCst);
            let (status, kind, body) = script.answer.lock().unwrap().clone();
            (StatusCode::from_u16(status).unwrap(), [("content-type", kind)], body).into_response()
        };
        let router = Router::new().fallback(answer).with_state(script.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, "[t]\naws_access_key_id = AKIA\naws_secret_access_key = s\n").unwrap();
        let config = AwsKmsConfig {
            endpoint_url: Some(url),
            profile: Some("t".into()),
            credentials_file: Some(file),
            ..AwsKmsConfig::default()
        };
        (script, AwsKms::connect(config).await.unwrap(), dir)
    }

    fn set(&self, status: u16, kind: &'static str, body: impl Into<String>) {
        *self.answer.lock().unwrap() = (status, kind, body.into());
    }

    fn set_json(&self, status: u16, body: &serde_json::Value) {
        self.set(status, "application/x-amz-json-1.1", body.to_string());
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_not_used() {
    let (script, kms, _dir) = Script::start().await;
    let root: RootKeyId = ARN.parse().unwrap();
    let wrapped = WrappedKey::new(vec![1]).unwrap();
    let b64 = |bytes: usize| STANDARD.encode(vec![7_u8; bytes]);
    let bad = |outcome: Result<(), KeyServiceError>| {
        matches!(
            outcome,
            Err(KeyServiceError::Unavailable {
                outage: Outage::BadAnswer,
                ..
            })
        )
    };
    script.set_json(
        200,
        &json!({ "KeyId": ARN, "Plaintext": b64(32), "CiphertextBlob": b64(60) }),
    );
    assert!(
        kms.generate_data_key(&root, &zone("d"), CallReason::Unlock)
            .await
            .is_ok()
    );
    assert!(
        kms.decrypt(&root, &wrapped, &zone("d"), CallReason::Unlock)
            .await
            .is_ok()
    );
    for answer in [
        json!({ "KeyId": ARN, "Plaintext": b64(31), "CiphertextBlob": b64(60) }),
        json!({ "KeyId": ARN, "Plaintext": b64(33), "CiphertextBlob": b64(60) }),
        json!({ "KeyId": ARN, "CiphertextBlob": b64(60) }),
        json!({ "KeyId": "arn:aws:kms:us-east-1:000000000000:key/k2", "Plaintext": b64(32), "CiphertextBlob": b64(60) }),
        json!({ "KeyId": "k1", "Plaintext": b64(32), "CiphertextBlob": b64(60) }),
        json!({ "Plaintext": b64(32), "CiphertextBlob": b64(60) }),
        json!({}),
    ] {
        script.set_json(200, &answer);
        assert!(
            bad(kms
                .generate_data_key(&root, &zone("d"), CallReason::Unlock)
                .await
                .map(drop)),
            "{answer}"
        );
        assert!(
            bad(kms
                .decrypt(&root, &wrapped, &zone("d"), CallReason::Unlock)
                .await
                .map(drop)),
            "{answer}"
        );
    }
    for ciphertext in [
        json!({ "KeyId": ARN, "Plaintext": b64(32) }),
        json!({ "KeyId": ARN, "Plaintext": b64(32), "CiphertextBlob": "" }),
        json!({ "KeyId": ARN, "Plaintext": b64(32), "CiphertextBlob": b64(WrappedKey::BYTES_MAX + 1) }),
    ] {
        script.set_json(200, &ciphertext);
        assert!(
            bad(kms
                .generate_data_key(&root, &zone("d"), CallReason::Unlock)
                .await
                .map(drop)),
            "{ciphertext}"
        );
    }
    script.set(200, "application/x-amz-json-1.1", "{ not json");
    assert!(bad(kms
        .decrypt(&root, &wrapped, &zone("d"), CallReason::Unlock)
        .await
        .map(drop)));
}

#[tokio::test]
async fn errors_keep_their_meaning_over_the_wire() {
    let (script, kms, _dir) = Script::start().await;
    let root: RootKeyId = ARN.parse().unwrap();
    let wrapped = WrappedKey::new(vec![1]).unwrap();
    let denied = |denial| KeyServiceError::Denied {
        root: ARN.parse().unwrap(),
        denial,
    };
    let down = |outage| KeyServiceError::Unavailable {
        root: ARN.parse().unwrap(),
        outage,
    };
    let json_error = |code: &str, message: &str| json!({ "__type": code, "message": message });
    let prefixed = "com.amazonaws.kms#DisabledException";
    for (status, code, message, expected) in [
        (400, "DisabledException", "x is disabled.", denied(Denial::Disabled)),
        (400, prefixed, "x is disabled.", denied(Denial::Disabled)),
        (
            400,
            "KMSInvalidStateException",
            "x is pending deletion.",
            denied(Denial::PendingDeletion),
        ),
        (
            400,
            "KMSInvalidStateException",
            "x is pending import.",
            denied(Denial::InvalidState),
        ),
        (
            400,
            "KMSInvalidStateException",
            "the external key store is unreachable",
            down(Outage::Failed),
        ),
        (
            400,
            "KMSInvalidStateException",
            "The external key store proxy did not respond to the request in time.",
            down(Outage::Failed),
        ),
        // Passed on from the external key's owner: as definite as a key that is disabled in KMS itself.
        (
            400,
            "KMSInvalidStateException",
            "The external key store proxy rejected the request because the external key is not enabled in the external \
             key manager.",
            denied(Denial::Disabled),
        ),
        (
            400,
            "KMSInvalidStateException",
            "The external key store proxy rejected the request because it could not find the external key.",
            denied(Denial::NotFound),
        ),
        (
            400,
            "KMSInvalidStateException",
            "The external key store proxy denied access to the operation.",
            denied(Denial::AccessDenied),
        ),
        (
            400,
            "NotFoundException",
            "Key 'x' does not exist",
            denied(Denial::NotFound),
        ),
        (
            400,
            "AccessDeniedException",
            "User: x is not authorized",
            denied(Denial::AccessDenied),
        ),
        (
            400,
            "UnrecognizedClientException",
            "invalid",
            denied(Denial::AccessDenied),
        ),
        (400, "InvalidCiphertextException", "", denied(Denial::InvalidCiphertext)),
        (400, "IncorrectKeyException", "", denied(Denial::InvalidCiphertext)),
        (400, "InvalidKeyUsageException", "", denied(Denial::InvalidState)),
        (400, "ExpiredTokenException", "expired", down(Outage::Failed)),
        (400, "ThrottlingException", "Rate exceeded", down(Outage::Throttled)),
        (500, "KMSInternalException", "", down(Outage::Failed)),
        (503, "DependencyTimeoutException", "", down(Outage::Failed)),
        (500, "KeyUnavailableException", "", down(Outage::Failed)),
    ] {
        script.set_json(status, &json_error(code, message));
        assert_eq!(
            kms.decrypt(&root, &wrapped, &zone("d"), CallReason::Unlock)
                .await
                .unwrap_err(),
            expected,
            "{code} {message}"
        );
        assert_eq!(
            kms.generate_data_key(&root, &zone("d"), CallReason::Unlock)
                .await
                .unwrap_err(),
            expected,
            "{code} {message}"
        );
    }
    let xml = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
    for (status, kind, body, expected) in [
        (403, "text/xml", xml, denied(Denial::AccessDenied)),
        (403, "text/html", "<html>Forbidden</html>", denied(Denial::AccessDenied)),
        (403, "", "", denied(Denial::AccessDenied)),
        (502, "text/html", "<html>Bad gateway</html>", down(Outage::Failed)),
        (503, "", "", down(Outage::Failed)),
        (429, "", "", down(Outage::Throttled)),
        (404, "text/html", "<html>", down(Outage::BadAnswer)),
    ] {
        script.set(status, kind, body);
        assert_eq!(
            kms.decrypt(&root, &wrapped, &zone("d"), CallReason::Unlock)
                .await
                .unwrap_err(),
            expected,
            "{status} {body}"
        );
    }
}

#[tokio::test]
async fn an_outage_is_tried_once_more_and_a_no_is_not() {
    let (script, kms, _dir) = Script::start().await;
    let root: RootKeyId = ARN.parse().unwrap();
    let wrapped = WrappedKey::new(vec![1]).unwrap();
    script.set(503, "", "");
    assert!(
        kms.decrypt(&root, &wrapped, &zone("d"), CallReason::Unlock)
            .await
            .is_err()
    );
    assert_eq!(script.calls.swap(0, Ordering::SeqCst), 2);
    script.set_json(400, &json!({ "__type": "DisabledException", "message": "" }));
    assert!(
        kms.decrypt(&root, &wrapped, &zone("d"), CallReason::Unlock)
            .await
            .is_err()
    );
    assert_eq!(script.calls.load(Ordering::SeqCst), 1);
}

/// A KMS that answers with a key of the right form that is not the one it wrapped. The client cannot tell; the zone's
/// record can, before the key opens or seals anything.
#[tokio::test]
async fn another_key_than_was_wrapped_is_told_by_the_zones_record() {
    let (script, kms, _dir) = Script::start().await;
    let root: RootKeyId = ARN.parse().unwrap();
    let answer = |byte: u8| {
        let (plain, wrapped) = (STANDARD.encode([byte; 32]), STANDARD.encode([9_u8; 60]));
        json!({ "KeyId": ARN, "Plaintext": plain, "CiphertextBlob": wrapped })
    };
    script.set_json(200, &answer(1));
    let made = kms
        .generate_data_key(&root, &zone("d"), CallReason::CreateZone)
        .await
        .unwrap();
    let mut record = ZoneRecord {
        zone: ZoneId::from_bytes([3; 16]),
        root: root.clone(),
        context: zone("d"),
        versions: Vec::new(),
        checks: std::collections::BTreeMap::new(),
    };
    record.add(ZoneKeyVersion::FIRST, &made);
    let decrypt = async || {
        kms.decrypt(&root, &made.wrapped, &zone("d"), CallReason::Unlock)
            .await
            .unwrap()
    };
    record.recognise(ZoneKeyVersion::FIRST, &decrypt().await).unwrap();
    script.set_json(200, &answer(2));
    assert_eq!(
        record.recognise(ZoneKeyVersion::FIRST, &decrypt().await),
        Err(KeyServiceError::Unavailable {
            root: root.clone(),
            outage: Outage::WrongKey,
        })
    );
}
