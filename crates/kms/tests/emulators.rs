//! The AWS client against KMS implementations that we did not write, for what each is good for.
//!
//! `SAKER_TEST_MOTO` and `SAKER_TEST_MINISTACK` hold their URLs; `make test` starts both, sets these and runs the
//! ignored tests. moto enforces the encryption context and rotates, but decrypts under a disabled key; ministack
//! refuses disabled and dying keys, but opens altered ciphertexts. Each is asked only for what it does right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests write and alter files of their own")]

mod support;

use aws_sdk_kms::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
};
use saker_keyring::{CallReason, Denial, KeyService, KeyServiceError, RootKeyId, WrappedKey};
use saker_kms::{AwsKms, AwsKmsConfig};
use support::{send, zone};

struct Emulator {
    url: String,
    admin: Client,
    kms: AwsKms,
    _dir: tempfile::TempDir,
}

impl Emulator {
    async fn from_environment(variable: &str) -> Self {
        let url = std::env::var(variable).unwrap_or_else(|_| panic!("set {variable} to the emulator's URL"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, "[t]\naws_access_key_id = test\naws_secret_access_key = test\n").unwrap();
        let config = AwsKmsConfig {
            endpoint_url: Some(url.clone()),
            profile: Some("t".into()),
            credentials_file: Some(file),
            node: "emulator-test".into(),
            ..AwsKmsConfig::default()
        };
        let admin = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&url)
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .build();
        Self {
            url,
            admin: Client::from_conf(admin),
            kms: AwsKms::connect(config).await.unwrap(),
            _dir: dir,
        }
    }

    async fn new_key(&self) -> RootKeyId {
        let made = self.admin.create_key().send().await.unwrap();
        made.key_metadata.unwrap().arn.unwrap().parse().unwrap()
    }

    async fn denial(&self, root: &RootKeyId, wrapped: &WrappedKey, database: &str) -> Denial {
        match self
            .kms
            .decrypt(root, wrapped, &zone(database), CallReason::Unlock)
            .await
        {
            Err(KeyServiceError::Denied { denial, .. }) => denial,
            other => panic!("expected a denial, got {other:?}"),
        }
    }

    /// Makes and opens a data key, as every emulator must let us.
    async fn round_trip(&self, root: &RootKeyId) -> WrappedKey {
        let made = self
            .kms
            .generate_data_key(root, &zone("d1"), CallReason::Unlock)
            .await
            .unwrap();
        let opened = self
            .kms
            .decrypt(root, &made.wrapped, &zone("d1"), CallReason::Unlock)
            .await
            .unwrap();
        assert_eq!(opened.expose_bytes(), made.plain.expose_bytes());
        made.wrapped
    }
}

#[tokio::test]
#[ignore = "needs SAKER_TEST_MOTO; make test starts moto and runs this"]
async fn moto_wire_format_context_and_rotation() {
    let moto = Emulator::from_environment("SAKER_TEST_MOTO").await;
    let root = moto.new_key().await;
    let wrapped = moto.round_trip(&root).await;
    assert_eq!(moto.denial(&root, &wrapped, "d2").await, Denial::InvalidCiphertext);
    let altered = {
        let mut bytes = wrapped.as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        WrappedKey::new(bytes).unwrap()
    };
    assert_eq!(moto.denial(&root, &altered, "d1").await, Denial::InvalidCiphertext);
    moto.admin
        .rotate_key_on_demand()
        .key_id(root.as_str())
        .send()
        .await
        .unwrap();
    assert!(
        moto.kms
            .decrypt(&root, &wrapped, &zone("d1"), CallReason::Unlock)
            .await
            .is_ok(),
        "older material goes on decrypting"
    );
    moto.round_trip(&root).await;
    let unknown: RootKeyId = "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000"
        .parse()
        .unwrap();
    let missing = moto
        .kms
        .generate_data_key(&unknown, &zone("d1"), CallReason::Unlock)
        .await;
    assert!(
        matches!(
            missing,
            Err(KeyServiceError::Denied {
                denial: Denial::NotFound,
                ..
            })
        ),
        "{missing:?}"
    );

    // IAM on: from now on moto answers 403 with an XML body and no error type. Off again, whatever comes of it.
    let address = moto.url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let set_auth = async |after: &str| {
        let request = format!(
            "POST /moto-api/reset-auth HTTP/1.1\r\nhost: {address}\r\ncontent-type: text/plain\r\nconnection: \
             close\r\ncontent-length: {}\r\n\r\n{after}",
            after.len()
        );
        assert_eq!(send(&address, request.as_bytes()).await.status, 200);
    };
    set_auth("0").await;
    let refused = moto.kms.decrypt(&root, &wrapped, &zone("d1"), CallReason::Unlock).await;
    set_auth("inf").await;
    assert!(
        matches!(
            refused,
            Err(KeyServiceError::Denied {
                denial: Denial::AccessDenied,
                ..
            })
        ),
        "{refused:?}"
    );
    moto.round_trip(&root).await;
}

#[tokio::test]
#[ignore = "needs SAKER_TEST_MINISTACK; make test starts ministack and runs this"]
async fn ministack_revocation() {
    let ministack = Emulator::from_environment("SAKER_TEST_MINISTACK").await;
    let root = ministack.new_key().await;
    let wrapped = ministack.round_trip(&root).await;
    let id = root.as_str();
    ministack.admin.disable_key().key_id(id).send().await.unwrap();
    assert_eq!(ministack.denial(&root, &wrapped, "d1").await, Denial::Disabled);
    let making = ministack
        .kms
        .generate_data_key(&root, &zone("d1"), CallReason::Unlock)
        .await;
    assert!(
        matches!(
            making,
            Err(KeyServiceError::Denied {
                denial: Denial::Disabled,
                ..
            })
        ),
        "{making:?}"
    );
    ministack.admin.enable_key().key_id(id).send().await.unwrap();
    assert!(
        ministack
            .kms
            .decrypt(&root, &wrapped, &zone("d1"), CallReason::Unlock)
            .await
            .is_ok()
    );
    ministack
        .admin
        .schedule_key_deletion()
        .key_id(id)
        .pending_window_in_days(7)
        .send()
        .await
        .unwrap();
    assert_eq!(ministack.denial(&root, &wrapped, "d1").await, Denial::PendingDeletion);
    ministack.admin.cancel_key_deletion().key_id(id).send().await.unwrap();
    ministack.admin.enable_key().key_id(id).send().await.unwrap();
    assert!(
        ministack
            .kms
            .decrypt(&root, &wrapped, &zone("d1"), CallReason::Unlock)
            .await
            .is_ok()
    );
}
