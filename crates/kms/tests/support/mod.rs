//! A local key server in this process, and clients of it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses its own part"
)]
#![allow(clippy::disallowed_methods, reason = "tests read the real clock to sign requests")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_sdk_kms::config::{BehaviorVersion, Credentials, Region};
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use saker_keyring::{EncryptionContext, KeyPurpose, RootKeyId};
use saker_kms::{AwsKms, AwsKmsConfig, KeyServerError, LocalKeyServer, LocalKeyServerConfig};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub const ACCOUNT: &str = "000000000000";

pub struct Server {
    pub dir: TempDir,
    pub url: String,
    pub address: String,
    /// Added to the real time, in milliseconds.
    pub clock_offset_ms: Arc<AtomicI64>,
    running: Option<(CancellationToken, JoinHandle<Result<(), KeyServerError>>)>,
}

#[derive(Clone, Debug)]
pub struct Login {
    pub access_key_id: String,
    pub secret: String,
    pub token: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Server {
    pub async fn start() -> Self {
        let mut server = Self::stopped();
        server.run().await;
        server
    }

    pub async fn start_with_clock(clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        let mut server = Self::stopped();
        server.run_with_clock(Arc::new(clock)).await;
        server
    }

    fn stopped() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            url: String::new(),
            address: String::new(),
            clock_offset_ms: Arc::default(),
            running: None,
        }
    }

    pub fn config(&self) -> LocalKeyServerConfig {
        LocalKeyServerConfig {
            dir: self.dir.path().join("kms"),
            credentials_file: self.credentials_file(),
            region: LocalKeyServerConfig::REGION.into(),
            account: ACCOUNT.into(),
        }
    }

    pub fn credentials_file(&self) -> PathBuf {
        self.dir.path().join("aws-credentials")
    }

    /// Serves again after [`Self::stop`], on another port.
    pub async fn run(&mut self) {
        let offset = Arc::clone(&self.clock_offset_ms);
        let clock = move || real_ms() + offset.load(Ordering::SeqCst);
        self.run_with_clock(Arc::new(clock)).await;
    }

    async fn run_with_clock(&mut self, clock: Arc<dyn Fn() -> i64 + Send + Sync>) {
        let server = LocalKeyServer::open_with_clock(self.config(), clock).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.address = listener.local_addr().unwrap().to_string();
        self.url = format!("http://{}", self.address);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(server.serve(listener, shutdown.clone()));
        self.running = Some((shutdown, task));
    }

    pub async fn stop(&mut self) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.cancel();
        task.await.unwrap().unwrap();
    }

    pub fn login(&self, profile: &str) -> Login {
        let text = std::fs::read_to_string(self.credentials_file()).unwrap();
        let section = text
            .split('[')
            .find_map(|part| part.strip_prefix(&format!("{profile}]")))
            .unwrap();
        let value = |name: &str| {
            let line = section.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches([' ', '=']).trim().to_owned()
        };
        Login {
            access_key_id: value("aws_access_key_id"),
            secret: value("aws_secret_access_key"),
            token: None,
        }
    }

    /// The SDK's own client, as a user of the server has it.
    pub fn sdk(&self, profile: &str) -> aws_sdk_kms::Client {
        let login = self.login(profile);
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.url)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(
                login.access_key_id,
                login.secret,
                login.token,
                None,
                "test",
            ))
            .build();
        aws_sdk_kms::Client::from_conf(config)
    }

    pub fn aws_config(&self) -> AwsKmsConfig {
        AwsKmsConfig {
            endpoint_url: Some(self.url.clone()),
            sts_endpoint_url: Some(self.url.clone()),
            profile: Some("saker".into()),
            credentials_file: Some(self.credentials_file()),
            node: "n1".into(),
            ..AwsKmsConfig::default()
        }
    }

    /// Saker's client under test.
    pub async fn saker(&self) -> AwsKms {
        AwsKms::connect(self.aws_config()).await.unwrap()
    }

    pub async fn new_key(&self) -> RootKeyId {
        let made = self.sdk("customer").create_key().send().await.unwrap();
        made.key_metadata.unwrap().arn.unwrap().parse().unwrap()
    }

    /// A KMS call with a signature of `login` at the server's own time.
    pub async fn kms(&self, login: &Login, operation: &str, body: &serde_json::Value) -> Answer {
        let request = self.signed(login, "kms", Some(operation), body.to_string().as_bytes());
        send(&self.address, &request).await
    }

    /// An IAM or STS call.
    pub async fn query(&self, login: &Login, service: &str, fields: &[(&str, &str)]) -> Answer {
        let pair = |(name, value): &(&str, &str)| {
            let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            format!("{name}={value}")
        };
        let body = fields.iter().map(pair).collect::<Vec<_>>().join("&");
        send(&self.address, &self.signed(login, service, None, body.as_bytes())).await
    }

    /// A signed request, byte for byte.
    pub fn signed(&self, login: &Login, service: &str, operation: Option<&str>, body: &[u8]) -> Vec<u8> {
        let now = real_ms() + self.clock_offset_ms.load(Ordering::SeqCst);
        self.signed_at(login, service, operation, body, now)
    }

    pub fn signed_at(
        &self,
        login: &Login,
        service: &str,
        operation: Option<&str>,
        body: &[u8],
        now_ms: i64,
    ) -> Vec<u8> {
        let content = if operation.is_some() {
            "application/x-amz-json-1.1"
        } else {
            "application/x-www-form-urlencoded"
        };
        let mut headers = vec![
            ("host".to_owned(), self.address.clone()),
            ("content-type".to_owned(), content.to_owned()),
            ("user-agent".to_owned(), "raw-test".to_owned()),
        ];
        if let Some(operation) = operation {
            headers.push(("x-amz-target".to_owned(), format!("TrentService.{operation}")));
        }
        let identity = Credentials::new(&login.access_key_id, &login.secret, login.token.clone(), None, "test").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name(service)
            .time(UNIX_EPOCH + Duration::from_millis(now_ms.try_into().unwrap()))
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let uri = format!("http://{}/", self.address);
        let signable = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let request = SignableRequest::new("POST", &uri, signable, SignableBody::Bytes(body)).unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
        headers.extend(
            instructions
                .headers()
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let mut bytes = b"POST / HTTP/1.1\r\nconnection: close\r\n".to_vec();
        for (name, value) in headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
        bytes.extend(body);
        bytes
    }

    /// The call log so far.
    pub fn trail(&self) -> Vec<serde_json::Value> {
        self.trail_text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub fn trail_text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("kms/cloudtrail.jsonl")).unwrap()
    }
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// AWS's error name, which header and body must agree on.
    pub fn code(&self) -> String {
        let code = self.headers.get("x-amzn-errortype").cloned().unwrap_or_default();
        if self.status != 200 && self.body.starts_with('{') {
            assert_eq!(self.json()["__type"], code.as_str());
        } else if !code.is_empty() {
            assert!(self.body.contains(&format!("<Code>{code}</Code>")), "{}", self.body);
        }
        code
    }

    /// The text of the first XML element of this name.
    pub fn xml(&self, name: &str) -> String {
        let rest = self
            .body
            .split_once(&format!("<{name}>"))
            .unwrap_or_else(|| panic!("{name}: {}", self.body))
            .1;
        rest.split_once('<').unwrap().0.to_owned()
    }
}

/// Sends bytes and reads the whole answer.
pub async fn send(address: &str, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: body.to_owned(),
    }
}

pub fn real_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis()
        .try_into()
        .unwrap()
}

pub fn zone(database: &str) -> EncryptionContext {
    EncryptionContext {
        cluster: "c1".into(),
        database: database.into(),
        purpose: KeyPurpose::ZoneKey,
    }
}
