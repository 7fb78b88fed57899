//! PKCS#11: the client against SoftHSM. Its owner's steps are taken by processes of their own.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use saker_keyring::{Denial, KeyService, KeyServiceError, RootKeyId};
use saker_kms::{Pkcs11Kms, Pkcs11KmsConfig};
use tempfile::TempDir;
use tokio::process::Command;

use crate::suite::{self, Subject, decrypt, denied, generate, opens};

const PIN: &str = "31415926";

/// A token, with keys of its own.
struct Hsm {
    dir: TempDir,
    token: String,
    keys: AtomicU32,
}

impl Hsm {
    async fn start(name: &str) -> Self {
        let hsm = Self {
            dir: tempfile::tempdir().unwrap(),
            token: format!("{name}-{:08x}", rand_u32()),
            keys: AtomicU32::new(0),
        };
        owner(&["make-token", &hsm.token, PIN]).await;
        hsm.set_pin_file(PIN);
        hsm
    }
    fn set_pin_file(&self, pin: &str) {
        std::fs::write(self.dir.path().join("pin"), format!("{pin}\n")).unwrap();
    }
    fn saker(&self) -> Pkcs11Kms {
        let config = Pkcs11KmsConfig {
            module: module(),
            pin_file: self.dir.path().join("pin"),
            timeout_ms: 30_000,
        };
        Pkcs11Kms::connect(config).unwrap()
    }
    async fn act(&self, action: &str, root: &RootKeyId) {
        let object = root.pkcs11_key().unwrap().object;
        owner(&[action, &self.token, PIN, &object]).await;
    }
    /// The token's files, as SoftHSM has them.
    fn files(&self) -> PathBuf {
        let conf = std::fs::read_to_string(std::env::var("SOFTHSM2_CONF").unwrap()).unwrap();
        let line = conf
            .lines()
            .find_map(|line| line.strip_prefix("directories.tokendir"))
            .unwrap();
        let tokens = PathBuf::from(line.trim_start_matches([' ', '=']).trim());
        let holds = |dir: &PathBuf| {
            let bytes = std::fs::read(dir.join("token.object")).unwrap_or_default();
            bytes
                .windows(self.token.len())
                .any(|window| window == self.token.as_bytes())
        };
        std::fs::read_dir(tokens)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(holds)
            .unwrap()
    }
}

fn rand_u32() -> u32 {
    uuid::Uuid::new_v4().as_fields().0
}

fn module() -> PathBuf {
    std::env::var_os("SAKER_TEST_PKCS11")
        .unwrap_or_else(|| panic!("set SAKER_TEST_PKCS11 to SoftHSM's library"))
        .into()
}

async fn owner(arguments: &[&str]) {
    let python = std::env::var_os("SAKER_TEST_PYTHON").unwrap_or_else(|| panic!("set SAKER_TEST_PYTHON"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../acceptance/kms_real/hsm.py");
    let output = Command::new(python).arg(script).args(arguments).output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
}

#[async_trait]
impl Subject for Hsm {
    async fn client(&self) -> Arc<dyn KeyService> {
        Arc::new(self.saker())
    }
    async fn new_key(&self) -> RootKeyId {
        let name = format!("k {}", self.keys.fetch_add(1, Ordering::SeqCst));
        owner(&["make-key", &self.token, PIN, &name, "01"]).await;
        let name = name.replace(' ', "%20");
        format!("pkcs11:token={};object={name}", self.token).parse().unwrap()
    }
    fn missing_key(&self) -> RootKeyId {
        format!("pkcs11:token={};object=missing", self.token).parse().unwrap()
    }
    async fn rotate(&self, root: &RootKeyId) {
        let object = root.pkcs11_key().unwrap().object;
        let next = format!("{:02x}", 2 + self.keys.fetch_add(1, Ordering::SeqCst));
        owner(&["make-key", &self.token, PIN, &object, &next]).await;
    }
    fn switches(&self) -> Vec<(&'static str, Denial)> {
        vec![("attribute", Denial::Disabled), ("object", Denial::NotFound)]
    }
    async fn off(&self, root: &RootKeyId, switch: &str) {
        self.act(if switch == "attribute" { "disable" } else { "remove" }, root)
            .await;
    }
    async fn on(&self, root: &RootKeyId, switch: &str) {
        self.act(if switch == "attribute" { "enable" } else { "restore" }, root)
            .await;
    }
    fn outages(&self) -> Vec<&'static str> {
        vec!["pin file"]
    }
    async fn go_away(&mut self, _outage: &str) {
        std::fs::remove_file(self.dir.path().join("pin")).unwrap();
        // Whoever is logged in stays so: only a lost session shows that the PIN is not there.
        lose_sessions(false);
    }
    async fn come_back(&mut self, _outage: &str) {
        self.set_pin_file(PIN);
    }
    fn secrets(&self) -> Vec<String> {
        vec![PIN.into()]
    }
}

/// As when an HSM restarts: all sessions of this process are gone, and the library with them unless it is `ready` again.
fn lose_sessions(ready: bool) {
    let library = Pkcs11::new(module()).unwrap();
    library.clone().finalize().unwrap();
    if ready {
        library
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .unwrap();
    }
}

// One test: the library is one for the whole process, and losing it is part of the test.
#[tokio::test]
#[ignore = "needs SAKER_TEST_PKCS11, SOFTHSM2_CONF and SAKER_TEST_PYTHON; make test sets them and runs this"]
async fn pkcs11_against_softhsm() {
    suite::run(&mut Hsm::start("suite").await).await;
    sessions_that_are_lost_are_opened_again().await;
    a_wrong_pin_is_tried_once().await;
    a_token_that_comes_and_goes().await;
    keys_that_nothing_tells_apart_are_refused().await;
}

async fn sessions_that_are_lost_are_opened_again() {
    let hsm = Hsm::start("lost").await;
    // The library was loaded before this token was made.
    let kms = hsm.saker();
    let root = hsm.new_key().await;
    let made = generate(&kms, &root).await.unwrap();
    for ready in [true, false, true] {
        lose_sessions(ready);
        opens(&kms, &root, &made).await;
        lose_sessions(ready);
        assert!(generate(&kms, &root).await.is_ok());
    }
}

async fn a_wrong_pin_is_tried_once() {
    let hsm = Hsm::start("pin").await;
    let root = hsm.new_key().await;
    let kms = hsm.saker();
    let made = generate(&kms, &root).await.unwrap();
    hsm.set_pin_file("00000000");
    lose_sessions(true);
    // However often it is asked, the token sees the wrong PIN once: it would lock itself.
    for _ in 0..5 {
        denied(
            decrypt(&kms, &root, &made.wrapped).await,
            &root,
            Denial::AccessDenied,
            "PIN",
        );
    }
    hsm.set_pin_file(PIN);
    opens(&kms, &root, &made).await;
    // The owner changes the PIN to the one in the file.
    hsm.set_pin_file("27182818");
    lose_sessions(true);
    denied(
        decrypt(&kms, &root, &made.wrapped).await,
        &root,
        Denial::AccessDenied,
        "PIN",
    );
    owner(&["set-pin", &hsm.token, PIN, "27182818"]).await;
    // SoftHSM learns of a PIN that another process set when it is initialised; a token that is hardware knows at once.
    lose_sessions(true);
    opens(&kms, &root, &made).await;
}

async fn a_token_that_comes_and_goes() {
    let hsm = Hsm::start("gone").await;
    let root = hsm.new_key().await;
    let kms = hsm.saker();
    let made = generate(&kms, &root).await.unwrap();
    let (here, away) = (hsm.files(), hsm.dir.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    lose_sessions(true);
    let error = decrypt(&kms, &root, &made.wrapped).await.unwrap_err();
    assert!(matches!(error, KeyServiceError::Unavailable { .. }), "{error:?}");
    std::fs::rename(&away, &here).unwrap();
    // SoftHSM learns of tokens when it is initialised, which is not done for every call.
    let mut tries = 0;
    while decrypt(&kms, &root, &made.wrapped).await.is_err() {
        tries += 1;
        assert!(tries < 300, "the token is not seen again");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    opens(&kms, &root, &made).await;
}

async fn keys_that_nothing_tells_apart_are_refused() {
    let hsm = Hsm::start("twins").await;
    let root = hsm.new_key().await;
    let kms = hsm.saker();
    let made = generate(&kms, &root).await.unwrap();
    let object = root.pkcs11_key().unwrap().object;
    owner(&["make-key", &hsm.token, PIN, &object, "01"]).await;
    denied(
        decrypt(&kms, &root, &made.wrapped).await,
        &root,
        Denial::InvalidState,
        "twins",
    );
}
