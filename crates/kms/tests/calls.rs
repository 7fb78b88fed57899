//! Every request that leaves is reported, once, with the name that the key service gave it: retries, time-outs and
//! requests whose caller waits no longer included.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests write files of their own")]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse};
use base64::{Engine, engine::general_purpose::STANDARD};
use saker_keyring::{
    CallObserver, CallReason, Denial, EncryptionContext, KeyCall, KeyOperation, KeyPurpose, KeyService,
    KeyServiceError, Outage, RootKeyId, WrappedKey,
};
use saker_kms::{AwsKms, AwsKmsConfig, FileKeyService};
use serde_json::json;

const ARN: &str = "arn:aws:kms:us-east-1:000000000000:key/k1";

#[derive(Debug, Default)]
struct Heard(Mutex<Vec<KeyCall>>);

impl CallObserver for Heard {
    fn on_call(&self, call: &KeyCall) {
        self.0.lock().unwrap().push(call.clone());
    }
}

impl Heard {
    fn take(&self) -> Vec<KeyCall> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Status, code of the error (empty: a key), name of the request; `None`: no answer.
type Scripted = Option<(u16, &'static str, &'static str)>;

struct Bench {
    answers: Arc<Mutex<VecDeque<Scripted>>>,
    kms: AwsKms,
    heard: Arc<Heard>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn start(timeout_ms: u64) -> Self {
        let answers: Arc<Mutex<VecDeque<Scripted>>> = Arc::default();
        let answer = async |State(answers): State<Arc<Mutex<VecDeque<Scripted>>>>| {
            let next = answers.lock().unwrap().pop_front().unwrap();
            let Some((status, code, id)) = next else {
                return std::future::pending().await;
            };
            let key = json!({ "KeyId": ARN, "Plaintext": STANDARD.encode([7_u8; 32]), "CiphertextBlob": STANDARD.encode([1_u8]) });
            let body = if code.is_empty() {
                key
            } else {
                json!({ "__type": code, "message": "" })
            };
            let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amzn-requestid", id)];
            (StatusCode::from_u16(status).unwrap(), headers, body.to_string()).into_response()
        };
        let router = Router::new().fallback(answer).with_state(Arc::clone(&answers));
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
            timeout_ms,
            ..AwsKmsConfig::default()
        };
        let kms = AwsKms::connect(config).await.unwrap();
        let heard = Arc::new(Heard::default());
        kms.observe(Arc::clone(&heard) as Arc<dyn CallObserver>);
        Self {
            answers,
            kms,
            heard,
            _dir: dir,
        }
    }
    fn script(&self, answers: impl IntoIterator<Item = Scripted>) {
        self.answers.lock().unwrap().extend(answers);
    }
    async fn decrypt(&self) -> Result<(), KeyServiceError> {
        let wrapped = WrappedKey::new(vec![1]).unwrap();
        let answer = self.kms.decrypt(&root(), &wrapped, &context(), CallReason::Probe).await;
        answer.map(drop)
    }
}

fn root() -> RootKeyId {
    ARN.parse().unwrap()
}

fn context() -> EncryptionContext {
    EncryptionContext {
        cluster: "c".into(),
        database: "d".into(),
        purpose: KeyPurpose::ZoneKey,
    }
}

fn down(outage: Outage) -> Result<(), KeyServiceError> {
    Err(KeyServiceError::Unavailable { root: root(), outage })
}

/// Outcome and name of each call.
fn seen(calls: &[KeyCall]) -> Vec<(Result<(), KeyServiceError>, Option<&str>)> {
    calls
        .iter()
        .map(|call| (call.outcome.clone(), call.request_id.as_deref()))
        .collect()
}

#[tokio::test]
async fn a_call_is_reported_with_its_name_reason_and_context() {
    let bench = Bench::start(3_000).await;
    bench.script([Some((200, "", "r1")), Some((200, "", "r2"))]);
    bench.decrypt().await.unwrap();
    bench
        .kms
        .generate_data_key(&root(), &context(), CallReason::CreateZone)
        .await
        .unwrap();
    let calls = bench.heard.take();
    assert_eq!(seen(&calls), [(Ok(()), Some("r1")), (Ok(()), Some("r2"))]);
    assert_eq!(
        (calls[0].operation, calls[0].why),
        (KeyOperation::Decrypt, CallReason::Probe)
    );
    assert_eq!(
        (calls[1].operation, calls[1].why),
        (KeyOperation::GenerateDataKey, CallReason::CreateZone)
    );
    assert!(
        calls
            .iter()
            .all(|call| call.root == root() && call.context == context())
    );
    assert!(calls.iter().all(|call| call.sent_ms_ago >= call.took_ms));
}

#[tokio::test]
async fn a_denial_and_an_answer_that_makes_no_sense_are_reported_as_what_they_are() {
    let bench = Bench::start(3_000).await;
    bench.script([Some((400, "DisabledException", "r1")), Some((404, "", "r2"))]);
    bench.decrypt().await.unwrap_err();
    bench.decrypt().await.unwrap_err();
    let denied = Err(KeyServiceError::Denied {
        root: root(),
        denial: Denial::Disabled,
    });
    let calls = bench.heard.take();
    assert_eq!(
        seen(&calls),
        [(denied, Some("r1")), (down(Outage::BadAnswer), Some("r2"))]
    );
}

#[tokio::test]
async fn each_retry_is_a_call_of_its_own() {
    let bench = Bench::start(3_000).await;
    for (first, outage) in [
        ((500, "KMSInternalException", "r1"), Outage::Failed),
        ((400, "ThrottlingException", "r1"), Outage::Throttled),
    ] {
        bench.script([Some(first), Some((200, "", "r2"))]);
        bench.decrypt().await.unwrap();
        let calls = bench.heard.take();
        assert_eq!(seen(&calls), [(down(outage), Some("r1")), (Ok(()), Some("r2"))]);
        assert!(calls[0].sent_ms_ago >= calls[1].sent_ms_ago);
    }
}

#[tokio::test]
async fn requests_without_an_answer_are_reported_without_a_name() {
    let bench = Bench::start(300).await;
    bench.script([None, None, None]);
    bench.decrypt().await.unwrap_err();
    let calls = bench.heard.take();
    assert!(!calls.is_empty());
    for (outcome, name) in seen(&calls) {
        assert_eq!((outcome, name), (down(Outage::Timeout), None));
    }
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_is_reported() {
    let bench = Bench::start(30_000).await;
    bench.script([None]);
    let waited = tokio::time::timeout(Duration::from_millis(1_500), bench.decrypt()).await;
    assert!(waited.is_err());
    let calls = bench.heard.take();
    assert_eq!(seen(&calls), [(down(Outage::Timeout), None)]);
}

#[tokio::test]
async fn a_call_that_never_left_is_not_reported() {
    let bench = Bench::start(300).await;
    let other: RootKeyId = "vault://transit/k".parse().unwrap();
    let made = bench
        .kms
        .generate_data_key(&other, &context(), CallReason::Validate)
        .await;
    assert!(matches!(made, Err(KeyServiceError::Unsupported { .. })));
    assert!(bench.heard.take().is_empty());
}

#[tokio::test]
async fn the_key_file_reports_as_well_and_to_the_first_observer_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = FileKeyService::open_or_create(&dir.path().join("key")).unwrap();
    let (first, second) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
    file.observe(Arc::clone(&first) as Arc<dyn CallObserver>);
    file.observe(Arc::clone(&second) as Arc<dyn CallObserver>);
    let root = RootKeyId::platform_file();
    let made = file
        .generate_data_key(&root, &context(), CallReason::CreateZone)
        .await
        .unwrap();
    file.decrypt(&root, &made.wrapped, &context(), CallReason::Unlock)
        .await
        .unwrap();
    assert_eq!(seen(&first.take()), [(Ok(()), None), (Ok(()), None)]);
    assert!(second.take().is_empty());
}
