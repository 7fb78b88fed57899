//! What the Vault client makes of answers that OpenBao does not give: HashiCorp Vault's, and those of nobody sound.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, http::Uri, response::IntoResponse};
use base64::{Engine, engine::general_purpose::STANDARD};
use saker_keyring::{Denial, KeyServiceError, Outage, RootKeyId, WrappedKey};
use saker_kms::{VaultKms, VaultKmsConfig, VaultLogin};
use serde_json::{Value, json};

use crate::suite::{decrypt, denied, generate, opens};

/// Answers in order; the last one stays. Renewals of the token are refused and not counted.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Script {
    async fn start() -> (Self, VaultKms, tempfile::TempDir) {
        let script = Self::default();
        let answer = async |State(script): State<Self>, uri: Uri, body: Bytes| {
            if uri.path().starts_with("/v1/auth/token/") {
                return StatusCode::FORBIDDEN.into_response();
            }
            let body = serde_json::from_slice(&body).unwrap_or_default();
            script.asked.lock().unwrap().push((uri.path().to_owned(), body));
            let (status, body) = script.next();
            if status == 0 {
                std::future::pending::<()>().await;
            }
            (StatusCode::from_u16(status).unwrap(), body).into_response()
        };
        let router = Router::new().fallback(answer).with_state(script.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "s.token").unwrap();
        let config = VaultKmsConfig {
            address,
            namespace: None,
            login: VaultLogin::TokenFile(token),
            ca_file: None,
            timeout_ms: 5_000,
            node: "n1".into(),
        };
        (script, VaultKms::connect(config).unwrap(), dir)
    }

    fn set(&self, answers: &[(u16, Value)]) {
        let text = |body: &Value| body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        *self.answers.lock().unwrap() = answers.iter().map(|(status, body)| (*status, text(body))).collect();
    }

    fn next(&self) -> (u16, String) {
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 {
            return answers.pop_front().unwrap();
        }
        answers.front().cloned().unwrap()
    }

    fn asked(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn root() -> RootKeyId {
    "vault://transit/k".parse().unwrap()
}

fn data_key(warnings: &Value) -> Value {
    let data = json!({ "plaintext": STANDARD.encode([7; 32]), "ciphertext": "vault:v1:abc" });
    json!({ "request_id": "r", "data": data, "warnings": warnings })
}

fn opened() -> Value {
    json!({ "request_id": "r", "data": { "plaintext": STANDARD.encode([7; 32]) } })
}

/// HashiCorp Vault's data keys take no associated data, and it says so in a warning.
#[tokio::test]
async fn without_associated_data_the_key_must_be_derived() {
    let (script, kms, _dir) = Script::start().await;
    let ignored = json!(["Endpoint ignored these unrecognized parameters: [associated_data]"]);
    let refused = json!({ "errors": ["cipher: message authentication failed"] });
    script.set(&[(200, data_key(&ignored)), (400, refused), (200, opened())]);
    let made = generate(&kms, &root()).await.unwrap();
    let asked = script.asked();
    assert_eq!(asked.len(), 2);
    // The second tried another context, which must not open.
    assert_ne!(asked[0].1["context"], asked[1].1["context"]);
    opens(&kms, &root(), &made).await;
    let asked_again = script.asked();
    assert_eq!(asked_again[0].1["context"], asked[0].1["context"]);
    assert!(asked_again[0].1.get("associated_data").is_none());
    // A key that opens under any context is not taken.
    script.set(&[(200, data_key(&ignored)), (200, opened())]);
    let error = generate(&kms, &root()).await.unwrap_err();
    assert!(
        matches!(&error, KeyServiceError::Unsupported { reason, .. } if reason.contains("derived=true")),
        "{error:?}"
    );
}

#[tokio::test]
async fn associated_data_goes_along_both_ways() {
    let (script, kms, _dir) = Script::start().await;
    script.set(&[(200, data_key(&Value::Null)), (200, opened())]);
    let made = generate(&kms, &root()).await.unwrap();
    opens(&kms, &root(), &made).await;
    let asked = script.asked();
    assert_eq!(asked[0].0, "/v1/transit/datakey/plaintext/k");
    assert_eq!(asked[1].0, "/v1/transit/decrypt/k");
    assert_eq!(asked[0].1["associated_data"], asked[1].1["associated_data"]);
    assert!(asked[0].1["associated_data"].as_str().unwrap().len() > 40);
    assert_eq!(asked[1].1["ciphertext"], "vault:v1:abc");
}

#[tokio::test]
async fn answers_that_make_no_sense_are_not_used() {
    let (script, kms, _dir) = Script::start().await;
    let wrapped = WrappedKey::new(b"\x01vault:v1:abc".to_vec()).unwrap();
    let plain = |bytes: usize| STANDARD.encode(vec![7; bytes]);
    for answer in [
        json!({}),
        json!("{ not json"),
        json!(""),
        json!({ "data": {} }),
        json!({ "data": { "plaintext": plain(31), "ciphertext": "vault:v1:abc" } }),
        json!({ "data": { "plaintext": plain(33), "ciphertext": "vault:v1:abc" } }),
        json!({ "data": { "plaintext": "!", "ciphertext": "vault:v1:abc" } }),
        json!("x".repeat(70_000)),
    ] {
        script.set(&[(200, answer.clone())]);
        for error in [
            decrypt(&kms, &root(), &wrapped).await.unwrap_err(),
            generate(&kms, &root()).await.unwrap_err(),
        ] {
            let bad = matches!(
                error,
                KeyServiceError::Unavailable {
                    outage: Outage::BadAnswer,
                    ..
                }
            );
            assert!(bad, "{answer}: {error:?}");
        }
    }
    let long = json!({ "data": { "plaintext": plain(32), "ciphertext": "x".repeat(WrappedKey::BYTES_MAX) } });
    script.set(&[(200, long)]);
    assert!(generate(&kms, &root()).await.is_err());
}

#[tokio::test]
async fn a_no_and_an_outage_over_the_wire() {
    let (script, kms, dir) = Script::start().await;
    let wrapped = WrappedKey::new(b"\x01vault:v1:abc".to_vec()).unwrap();
    let errors = |text: &str| json!({ "errors": [text] });
    script.set(&[(403, errors("permission denied"))]);
    denied(
        decrypt(&kms, &root(), &wrapped).await,
        &root(),
        Denial::AccessDenied,
        "403",
    );
    script.set(&[(307, json!(""))]);
    script.asked();
    for (status, body, outage) in [
        (307, json!(""), Outage::Unreachable),
        (429, errors("rate limit quota exceeded"), Outage::Throttled),
        (500, errors("x"), Outage::Failed),
        (503, errors("Vault is sealed"), Outage::Failed),
        (502, json!("<html>"), Outage::Failed),
        (404, json!("<html>"), Outage::BadAnswer),
        (400, json!("<html>"), Outage::BadAnswer),
    ] {
        script.set(&[(status, body)]);
        let error = decrypt(&kms, &root(), &wrapped).await.unwrap_err();
        let expected = KeyServiceError::Unavailable { root: root(), outage };
        assert_eq!(error, expected, "{status}");
        // Neither tried again nor followed.
        assert_eq!(script.asked().len(), 1, "{status}");
    }
    // One that never answers; and one that is not there.
    script.set(&[(0, json!(""))]);
    let config = |address: String| VaultKmsConfig {
        address,
        namespace: None,
        login: VaultLogin::TokenFile(dir.path().join("token")),
        ca_file: None,
        timeout_ms: 300,
        node: "n1".into(),
    };
    let text = format!("{kms:?}");
    let address = text.split('"').nth(1).unwrap().to_owned();
    let hung = VaultKms::connect(config(address)).unwrap();
    let error = decrypt(&hung, &root(), &wrapped).await.unwrap_err();
    assert!(
        matches!(
            error,
            KeyServiceError::Unavailable {
                outage: Outage::Timeout,
                ..
            }
        ),
        "{error:?}"
    );
    let nobody = VaultKms::connect(config("http://127.0.0.1:1".into())).unwrap();
    let error = decrypt(&nobody, &root(), &wrapped).await.unwrap_err();
    assert!(
        matches!(
            error,
            KeyServiceError::Unavailable {
                outage: Outage::Unreachable,
                ..
            }
        ),
        "{error:?}"
    );
    // Debug output holds the address, not the token.
    assert!(!text.contains("s.token"));
}

#[tokio::test]
async fn only_its_own_names_and_wrapped_keys() {
    let (script, kms, _dir) = Script::start().await;
    script.set(&[(200, opened())]);
    let foreign = WrappedKey::new(vec![9; 60]).unwrap();
    denied(
        decrypt(&kms, &root(), &foreign).await,
        &root(),
        Denial::InvalidCiphertext,
        "foreign",
    );
    let arn: RootKeyId = "arn:aws:kms:us-east-1:000000000000:key/k1".parse().unwrap();
    let error = generate(&kms, &arn).await.unwrap_err();
    assert!(matches!(error, KeyServiceError::Unsupported { .. }), "{error:?}");
    assert!(script.asked().is_empty());
}
