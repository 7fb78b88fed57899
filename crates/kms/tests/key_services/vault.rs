//! Vault: the client against a real OpenBao, with TLS, an AppRole and the policy that docs/kms.md prints.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use saker_keyring::{CallObserver, Denial, KeyService, KeyServiceError, Outage, RootKeyId};
use saker_kms::{VaultKms, VaultKmsConfig, VaultLogin};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::suite::{self, Calls, Subject, decrypt, denied, generate, opens};

const ROOT_TOKEN: &str = "root-token-of-the-test";

/// A running server in development mode.
struct Bao {
    dir: TempDir,
    address: String,
    unseal_key: String,
    role_id: String,
    secret_id: String,
    keys: AtomicU32,
    _server: Child,
}

impl Bao {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let audit = dir.path().join("audit.log");
        let config = dir.path().join("audit.hcl");
        let text = format!(
            "audit \"file\" \"to-file\" {{ options {{ file_path = \"{}\" }} }}",
            audit.display()
        );
        std::fs::write(&config, text).unwrap();
        std::fs::create_dir(dir.path().join("tls")).unwrap();
        let mut server = Command::new(binary())
            .args(["server", "-dev", "-dev-tls", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={ROOT_TOKEN}"))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .arg(format!("-dev-tls-cert-dir={}", dir.path().join("tls").display()))
            .arg(format!("-config={}", config.display()))
            .env("HOME", dir.path())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.path().join("stderr")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let mut unseal_key = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(key) = line.strip_prefix("Unseal Key: ") {
                unseal_key = key.trim().to_owned();
            }
            if line.starts_with("Root Token") {
                break;
            }
        }
        // What it says later must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let mut bao = Self {
            dir,
            address: format!("https://127.0.0.1:{port}"),
            unseal_key,
            role_id: String::new(),
            secret_id: String::new(),
            keys: AtomicU32::new(0),
            _server: server,
        };
        bao.run(&["secrets", "enable", "transit"]).await;
        bao.run(&["auth", "enable", "approle"]).await;
        bao.run(&[
            "write",
            "auth/approle/role/saker",
            "token_policies=saker",
            "token_ttl=1h",
        ])
        .await;
        bao.set_policy("transit", "+").await;
        bao.role_id = bao
            .run(&["read", "-field=role_id", "auth/approle/role/saker/role-id"])
            .await;
        bao.secret_id = bao
            .run(&["write", "-f", "-field=secret_id", "auth/approle/role/saker/secret-id"])
            .await;
        std::fs::write(bao.secret_id_file(), format!("{}\n", bao.secret_id)).unwrap();
        bao
    }

    /// The customer's command line.
    async fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(binary())
            .args(arguments)
            .env("BAO_ADDR", &self.address)
            .env("BAO_CACERT", self.ca_file())
            .env("BAO_TOKEN", ROOT_TOKEN)
            .env("HOME", self.dir.path())
            .output()
            .await
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "bao {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The policy of docs/kms.md, for one key or (`+`) any.
    async fn set_policy(&self, mount: &str, key: &str) {
        let path = self.dir.path().join("policy.hcl");
        let text = format!(
            "path \"{mount}/datakey/plaintext/{key}\" {{ capabilities = [\"update\"] }}\n\
             path \"{mount}/decrypt/{key}\" {{ capabilities = [\"update\"] }}\n"
        );
        std::fs::write(&path, text).unwrap();
        self.run(&["policy", "write", "saker", path.to_str().unwrap()]).await;
    }

    fn ca_file(&self) -> PathBuf {
        // The development server's certificate is signed by a CA that it makes.
        self.dir.path().join("tls/vault-ca.pem")
    }
    fn secret_id_file(&self) -> PathBuf {
        self.dir.path().join("secret-id")
    }
    fn approle(&self) -> VaultLogin {
        VaultLogin::AppRole {
            mount: VaultLogin::APPROLE_MOUNT.into(),
            role_id: self.role_id.clone(),
            secret_id_file: self.secret_id_file(),
        }
    }
    fn config(&self, login: VaultLogin) -> VaultKmsConfig {
        VaultKmsConfig {
            address: self.address.clone(),
            namespace: None,
            login,
            ca_file: Some(self.ca_file()),
            timeout_ms: 20_000,
            node: "n1".into(),
        }
    }
    fn saker(&self) -> VaultKms {
        VaultKms::connect(self.config(self.approle())).unwrap()
    }
    fn audit(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("audit.log")).unwrap()
    }
    async fn seal(&self) {
        self.run(&["operator", "seal"]).await;
    }
    async fn unseal(&self) {
        self.run(&["operator", "unseal", &self.unseal_key]).await;
    }
}

fn binary() -> PathBuf {
    std::env::var_os("SAKER_TEST_BAO")
        .unwrap_or_else(|| panic!("set SAKER_TEST_BAO to the bao binary"))
        .into()
}

fn key_of(root: &RootKeyId) -> String {
    root.vault_key().unwrap().key.to_owned()
}

#[async_trait]
impl Subject for Bao {
    async fn client(&self) -> Arc<dyn KeyService> {
        Arc::new(self.saker())
    }
    async fn new_key(&self) -> RootKeyId {
        let name = format!("k{}", self.keys.fetch_add(1, Ordering::SeqCst));
        self.run(&["write", "-f", &format!("transit/keys/{name}")]).await;
        format!("vault://transit/{name}").parse().unwrap()
    }
    fn missing_key(&self) -> RootKeyId {
        "vault://transit/missing".parse().unwrap()
    }
    async fn rotate(&self, root: &RootKeyId) {
        self.run(&["write", "-f", &format!("transit/keys/{}/rotate", key_of(root))])
            .await;
    }
    fn switches(&self) -> Vec<(&'static str, Denial)> {
        vec![
            ("soft-delete", Denial::Disabled),
            ("policy", Denial::AccessDenied),
            ("min_decryption_version", Denial::InvalidState),
        ]
    }
    async fn off(&self, root: &RootKeyId, switch: &str) {
        let key = key_of(root);
        match switch {
            "soft-delete" => drop(self.run(&["delete", &format!("transit/keys/{key}/soft-delete")]).await),
            "policy" => {
                let path = self.dir.path().join("deny.hcl");
                let text = format!(
                    "path \"transit/+/{key}\" {{ capabilities = [\"deny\"] }}\n\
                     path \"transit/datakey/plaintext/{key}\" {{ capabilities = [\"deny\"] }}\n\
                     path \"transit/datakey/plaintext/+\" {{ capabilities = [\"update\"] }}\n\
                     path \"transit/decrypt/+\" {{ capabilities = [\"update\"] }}\n\
                     path \"transit/decrypt/{key}\" {{ capabilities = [\"deny\"] }}\n"
                );
                std::fs::write(&path, text).unwrap();
                self.run(&["policy", "write", "saker", path.to_str().unwrap()]).await;
            }
            _ => {
                self.rotate(root).await;
                let keys: serde_json::Value = serde_json::from_str(
                    &self
                        .run(&["read", "-format=json", &format!("transit/keys/{key}")])
                        .await,
                )
                .unwrap();
                let latest = keys["data"]["latest_version"].to_string();
                let config = format!("transit/keys/{key}/config");
                self.run(&["write", &config, &format!("min_decryption_version={latest}")])
                    .await;
            }
        }
    }
    async fn on(&self, root: &RootKeyId, switch: &str) {
        let key = key_of(root);
        match switch {
            "soft-delete" => {
                self.run(&["write", "-f", &format!("transit/keys/{key}/soft-delete-restore")])
                    .await;
            }
            "policy" => self.set_policy("transit", "+").await,
            _ => {
                let config = format!("transit/keys/{key}/config");
                self.run(&["write", &config, "min_decryption_version=1"]).await;
            }
        }
    }
    fn outages(&self) -> Vec<&'static str> {
        vec!["sealed", "throttled"]
    }
    async fn go_away(&mut self, outage: &str) {
        if outage == "sealed" {
            return self.seal().await;
        }
        self.run(&["write", "sys/quotas/rate-limit/q", "path=transit", "rate=0.001"])
            .await;
        // One call is still let through.
        drop(generate(&self.saker(), &"vault://transit/k0".parse().unwrap()).await);
    }
    async fn come_back(&mut self, outage: &str) {
        if outage == "sealed" {
            return self.unseal().await;
        }
        self.run(&["delete", "sys/quotas/rate-limit/q"]).await;
    }
    fn secrets(&self) -> Vec<String> {
        vec![
            self.secret_id.clone(),
            ROOT_TOKEN.into(),
            "vault:v1:".into(),
            "s.".into(),
        ]
    }
}

#[tokio::test]
#[ignore = "needs SAKER_TEST_BAO; make test sets it and runs this"]
async fn vault_against_openbao() {
    suite::run(&mut Bao::start().await).await;
}

#[tokio::test]
#[ignore = "needs SAKER_TEST_BAO; make test sets it and runs this"]
async fn a_login_lasts_as_long_as_its_owner_wants() {
    let bao = Bao::start().await;
    let kms = bao.saker();
    let root = bao.new_key().await;
    let made = generate(&kms, &root).await.unwrap();
    // Refusals of a key are no reason for more logins.
    let logins = || bao.audit().matches("auth/approle/login").count();
    let before = logins();
    bao.off(&root, "policy").await;
    for _ in 0..5 {
        denied(
            decrypt(&kms, &root, &made.wrapped).await,
            &root,
            Denial::AccessDenied,
            "policy",
        );
    }
    bao.on(&root, "policy").await;
    opens(&kms, &root, &made).await;
    assert_eq!(logins(), before);
    // The token alone is revoked: a new one is got within the call.
    let accessors = bao.run(&["list", "-format=json", "auth/token/accessors"]).await;
    let accessors: Vec<String> = serde_json::from_str(&accessors).unwrap();
    for accessor in accessors {
        let shown = bao
            .run(&["token", "lookup", "-format=json", "-accessor", &accessor])
            .await;
        if shown.contains("approle") {
            bao.run(&["token", "revoke", "-accessor", &accessor]).await;
        }
    }
    opens(&kms, &root, &made).await;
    // The secret id alone is destroyed: a token lives on until it is revoked too.
    let secret_id = format!("secret_id={}", bao.secret_id);
    bao.run(&["write", "auth/approle/role/saker/secret-id/destroy", &secret_id])
        .await;
    opens(&kms, &root, &made).await;
    let fresh = bao.saker();
    denied(
        decrypt(&fresh, &root, &made.wrapped).await,
        &root,
        Denial::AccessDenied,
        "secret id",
    );
    // A new secret id in the file is taken up without a restart.
    let secret_id = bao
        .run(&["write", "-f", "-field=secret_id", "auth/approle/role/saker/secret-id"])
        .await;
    std::fs::write(bao.secret_id_file(), secret_id).unwrap();
    opens(&fresh, &root, &made).await;
    std::fs::remove_file(bao.secret_id_file()).unwrap();
    opens(&fresh, &root, &made).await;
    let outcome = decrypt(&bao.saker(), &root, &made.wrapped).await.unwrap_err();
    assert!(
        matches!(
            outcome,
            KeyServiceError::Unavailable {
                outage: Outage::Failed,
                ..
            }
        ),
        "{outcome:?}"
    );
    // Nothing but the two operations.
    let token = bao.dir.path().join("token");
    std::fs::write(&token, "s.notatoken").unwrap();
    let kms = VaultKms::connect(bao.config(VaultLogin::TokenFile(token.clone()))).unwrap();
    denied(
        decrypt(&kms, &root, &made.wrapped).await,
        &root,
        Denial::AccessDenied,
        "token",
    );
    let text = bao
        .run(&["token", "create", "-policy=saker", "-ttl=1h", "-field=token"])
        .await;
    std::fs::write(&token, &text).unwrap();
    opens(&kms, &root, &made).await;
    bao.run(&["token", "revoke", &text]).await;
    denied(
        decrypt(&kms, &root, &made.wrapped).await,
        &root,
        Denial::AccessDenied,
        "revoked token",
    );
}

#[tokio::test]
#[ignore = "needs SAKER_TEST_BAO; make test sets it and runs this"]
async fn every_call_is_in_the_audit_log_of_the_server_and_no_other() {
    let bao = Bao::start().await;
    let kms = bao.saker();
    let calls = Arc::new(Calls::default());
    kms.observe(Arc::clone(&calls) as Arc<dyn CallObserver>);
    let root = bao.new_key().await;
    let header = "sys/config/auditing/request-headers/x-correlation-id";
    bao.run(&["write", header, "hmac=false"]).await;
    let made = generate(&kms, &root).await.unwrap();
    opens(&kms, &root, &made).await;
    bao.off(&root, "soft-delete").await;
    denied(
        decrypt(&kms, &root, &made.wrapped).await,
        &root,
        Denial::Disabled,
        "soft-deleted",
    );
    let seen = calls.take();
    assert_eq!(seen.len(), 3);
    let audit = bao.audit();
    for call in &seen {
        let id = call.request_id.as_deref().unwrap();
        assert!(audit.contains(id), "{id}");
    }
    let of_transit: Vec<_> = audit
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|record| record["type"] == "response")
        .map(|record| record["request"]["path"].as_str().unwrap_or_default().to_owned())
        .filter(|path| path.starts_with("transit/") && !path.contains("/keys/"))
        .collect();
    let expected = [
        "transit/datakey/plaintext/k0",
        "transit/decrypt/k0",
        "transit/decrypt/k0",
    ];
    assert_eq!(of_transit, expected);
}

#[tokio::test]
#[ignore = "needs SAKER_TEST_BAO; make test sets it and runs this"]
async fn other_keys_mounts_and_certificates() {
    let bao = Bao::start().await;
    let kms = bao.saker();
    // A derived key binds the context twice over.
    bao.run(&["write", "transit/keys/derived", "derived=true"]).await;
    let root: RootKeyId = "vault://transit/derived".parse().unwrap();
    let made = generate(&kms, &root).await.unwrap();
    opens(&kms, &root, &made).await;
    let other = suite::zone("d2");
    let outcome = kms
        .decrypt(&root, &made.wrapped, &other, saker_keyring::CallReason::Unlock)
        .await;
    denied(outcome, &root, Denial::InvalidCiphertext, "derived");
    // A key that cannot bind the context is refused.
    for kind in ["rsa-2048", "ed25519"] {
        bao.run(&["write", &format!("transit/keys/{kind}"), &format!("type={kind}")])
            .await;
        let root: RootKeyId = format!("vault://transit/{kind}").parse().unwrap();
        let outcome = generate(&kms, &root).await.map(|made| made.plain);
        denied(outcome, &root, Denial::InvalidState, kind);
    }
    // ChaCha20-Poly1305 does as well as AES-GCM.
    bao.run(&["write", "transit/keys/chacha", "type=chacha20-poly1305"])
        .await;
    let root: RootKeyId = "vault://transit/chacha".parse().unwrap();
    let made = generate(&kms, &root).await.unwrap();
    opens(&kms, &root, &made).await;
    let outcome = kms
        .decrypt(&root, &made.wrapped, &other, saker_keyring::CallReason::Unlock)
        .await;
    denied(outcome, &root, Denial::InvalidCiphertext, "chacha");
    // A mount with slashes, and then none.
    bao.run(&["secrets", "enable", "-path=teams/a/keys", "transit"]).await;
    bao.run(&["write", "-f", "teams/a/keys/keys/k"]).await;
    bao.set_policy("teams/a/keys", "k").await;
    let root: RootKeyId = "vault://teams/a/keys/k".parse().unwrap();
    let made = generate(&kms, &root).await.unwrap();
    opens(&kms, &root, &made).await;
    bao.run(&["secrets", "disable", "teams/a/keys"]).await;
    denied(
        decrypt(&kms, &root, &made.wrapped).await,
        &root,
        Denial::NotFound,
        "no mount",
    );
    // A server whose certificate is not ours to trust is not spoken to.
    let config = VaultKmsConfig {
        ca_file: None,
        ..bao.config(bao.approle())
    };
    let outcome = generate(&VaultKms::connect(config).unwrap(), &root).await.unwrap_err();
    assert!(
        matches!(
            outcome,
            KeyServiceError::Unavailable {
                outage: Outage::Unreachable,
                ..
            }
        ),
        "{outcome:?}"
    );
}
