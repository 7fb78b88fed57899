//! What every key service has to do, whoever makes it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use saker_keyring::{
    CallObserver, CallReason, Denial, EncryptionContext, GeneratedKey, KeyCall, KeyOperation, KeyPurpose, KeyService,
    KeyServiceError, PlainKey, RootKeyId, WrappedKey,
};

/// A key service under test, and its customer's hands on the keys.
#[async_trait]
pub(crate) trait Subject: Send + Sync {
    /// A client of its own, as another node would have it.
    async fn client(&self) -> Arc<dyn KeyService>;
    async fn new_key(&self) -> RootKeyId;
    /// A name of a key that does not exist.
    fn missing_key(&self) -> RootKeyId;
    /// New data keys are wrapped under new material from now on.
    async fn rotate(&self, root: &RootKeyId);
    /// Ways to take a key away that can be undone, and what has to be heard of each.
    fn switches(&self) -> Vec<(&'static str, Denial)>;
    async fn off(&self, root: &RootKeyId, switch: &str);
    async fn on(&self, root: &RootKeyId, switch: &str);
    /// Ways in which the service may be away.
    fn outages(&self) -> Vec<&'static str>;
    async fn go_away(&mut self, outage: &str);
    async fn come_back(&mut self, outage: &str);
    /// Texts that no error may hold.
    fn secrets(&self) -> Vec<String>;
}

pub(crate) fn zone(database: &str) -> EncryptionContext {
    support_zone("c1", database, KeyPurpose::ZoneKey)
}

fn support_zone(cluster: &str, database: &str, purpose: KeyPurpose) -> EncryptionContext {
    EncryptionContext {
        cluster: cluster.into(),
        database: database.into(),
        purpose,
    }
}

/// Everything, in one go: setting a service up takes longer than the tests.
pub(crate) async fn run(subject: &mut dyn Subject) {
    let calls = Arc::new(Calls::default());
    let kms = subject.client().await;
    kms.observe(Arc::clone(&calls) as Arc<dyn CallObserver>);
    let mut errors = Vec::new();
    round_trip(&*kms, subject, &mut errors).await;
    altered(&*kms, subject, &mut errors).await;
    rotation(&*kms, subject).await;
    revocation(&*kms, subject, &mut errors).await;
    cancelled(&*kms, subject).await;
    outages(&*kms, subject, &mut errors).await;
    calls.check();
    let mut secrets = subject.secrets();
    secrets.retain(|secret| !secret.is_empty());
    for error in errors {
        let text = format!("{error} {error:?}");
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
    }
}

async fn round_trip(kms: &dyn KeyService, subject: &dyn Subject, errors: &mut Vec<KeyServiceError>) {
    let (root, other) = (subject.new_key().await, subject.new_key().await);
    assert_ne!(root, other);
    let one = generate(kms, &root).await.unwrap();
    let two = generate(kms, &root).await.unwrap();
    assert_ne!(one.plain.expose_bytes(), two.plain.expose_bytes());
    assert_ne!(one.wrapped, two.wrapped);
    opens(kms, &root, &one).await;
    opens(kms, &root, &two).await;
    for wrong in [
        support_zone("c2", "d1", KeyPurpose::ZoneKey),
        support_zone("c1", "d2", KeyPurpose::ZoneKey),
        support_zone("c1", "d1", KeyPurpose::Validation),
        support_zone("c1d1", "", KeyPurpose::ZoneKey),
    ] {
        let outcome = kms.decrypt(&root, &one.wrapped, &wrong, CallReason::Probe).await;
        errors.push(denied(outcome, &root, Denial::InvalidCiphertext, "another context"));
    }
    let outcome = decrypt(kms, &other, &one.wrapped).await;
    errors.push(denied(outcome, &other, Denial::InvalidCiphertext, "another key"));
    let missing = subject.missing_key();
    let outcome = decrypt(kms, &missing, &one.wrapped).await;
    // A policy for listed keys alone hides whether there are others.
    let heard = match &outcome {
        Err(KeyServiceError::Denied {
            denial: Denial::AccessDenied,
            ..
        }) => Denial::AccessDenied,
        _ => Denial::NotFound,
    };
    errors.push(denied(outcome, &missing, heard, "no such key"));
    let outcome = generate(kms, &missing).await.map(|made| made.plain);
    errors.push(denied(outcome, &missing, heard, "no such key"));
    // Another client, as after a restart or on another node.
    opens(&*subject.client().await, &root, &one).await;
}

/// Every byte changed, and cuts: a wrapped key opens to the key it holds, or not at all.
async fn altered(kms: &dyn KeyService, subject: &dyn Subject, errors: &mut Vec<KeyServiceError>) {
    let root = subject.new_key().await;
    let made = generate(kms, &root).await.unwrap();
    let bytes = made.wrapped.as_bytes();
    let mut opened = 0;
    for position in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[position] ^= 1;
        match decrypt(kms, &root, &WrappedKey::new(changed).unwrap()).await {
            // A version number may have two spellings.
            Ok(plain) => {
                assert_eq!(plain.expose_bytes(), made.plain.expose_bytes(), "byte {position}");
                opened += 1;
            }
            Err(error @ KeyServiceError::Denied { .. }) => errors.push(error),
            Err(error) => panic!("byte {position}: {error:?}"),
        }
    }
    assert!(opened <= 1, "{opened}");
    for length in [1, 2, bytes.len() / 2, bytes.len() - 1] {
        let cut = WrappedKey::new(bytes[..length].to_vec()).unwrap();
        let outcome = decrypt(kms, &root, &cut).await;
        assert!(
            matches!(outcome, Err(KeyServiceError::Denied { .. })),
            "{length}: {outcome:?}"
        );
    }
    let mut last = bytes.to_vec();
    *last.last_mut().unwrap() ^= 1;
    let outcome = decrypt(kms, &root, &WrappedKey::new(last).unwrap()).await;
    errors.push(denied(outcome, &root, Denial::InvalidCiphertext, "the last byte"));
    opens(kms, &root, &made).await;
}

async fn rotation(kms: &dyn KeyService, subject: &dyn Subject) {
    let root = subject.new_key().await;
    let mut made = vec![generate(kms, &root).await.unwrap()];
    for _ in 0..2 {
        subject.rotate(&root).await;
        made.push(generate(kms, &root).await.unwrap());
        for key in &made {
            opens(kms, &root, key).await;
        }
    }
}

async fn revocation(kms: &dyn KeyService, subject: &dyn Subject, errors: &mut Vec<KeyServiceError>) {
    for (switch, denial) in subject.switches() {
        let (root, other) = (subject.new_key().await, subject.new_key().await);
        let made = generate(kms, &root).await.unwrap();
        let beside = generate(kms, &other).await.unwrap();
        // Twice: what came back can be taken away again.
        for _ in 0..2 {
            subject.off(&root, switch).await;
            errors.push(denied(decrypt(kms, &root, &made.wrapped).await, &root, denial, switch));
            if switch != "min_decryption_version" {
                let outcome = generate(kms, &root).await.map(|made| made.plain);
                errors.push(denied(outcome, &root, denial, switch));
            }
            opens(kms, &other, &beside).await;
            subject.on(&root, switch).await;
            opens(kms, &root, &made).await;
            assert!(generate(kms, &root).await.is_ok(), "{switch}");
        }
    }
}

/// A call that nobody waits for any more leaves nothing behind that hinders the next.
async fn cancelled(kms: &dyn KeyService, subject: &dyn Subject) {
    let root = subject.new_key().await;
    let made = generate(kms, &root).await.unwrap();
    for yields in 0..20 {
        let yielded = async {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = yielded => {}
            outcome = decrypt(kms, &root, &made.wrapped) => drop(outcome.unwrap()),
        }
        if yields % 5 == 0 {
            opens(kms, &root, &made).await;
        }
    }
    opens(kms, &root, &made).await;
}

async fn outages(kms: &dyn KeyService, subject: &mut dyn Subject, errors: &mut Vec<KeyServiceError>) {
    let root = subject.new_key().await;
    let made = generate(kms, &root).await.unwrap();
    for outage in subject.outages() {
        subject.go_away(outage).await;
        for outcome in [
            decrypt(kms, &root, &made.wrapped).await,
            generate(kms, &root).await.map(|made| made.plain),
        ] {
            let error = outcome.unwrap_err();
            let is_about = matches!(&error, KeyServiceError::Unavailable { root: of, .. } if *of == root);
            assert!(is_about, "{outage}: {error:?}");
            errors.push(error);
        }
        subject.come_back(outage).await;
        let kms = subject.client().await;
        opens(&*kms, &root, &made).await;
    }
}

pub(crate) async fn generate(kms: &dyn KeyService, root: &RootKeyId) -> Result<GeneratedKey, KeyServiceError> {
    kms.generate_data_key(root, &zone("d1"), CallReason::CreateZone).await
}

pub(crate) async fn decrypt(
    kms: &dyn KeyService,
    root: &RootKeyId,
    wrapped: &WrappedKey,
) -> Result<PlainKey, KeyServiceError> {
    kms.decrypt(root, wrapped, &zone("d1"), CallReason::Unlock).await
}

pub(crate) async fn opens(kms: &dyn KeyService, root: &RootKeyId, made: &GeneratedKey) {
    let plain = decrypt(kms, root, &made.wrapped).await.unwrap();
    assert_eq!(plain.expose_bytes(), made.plain.expose_bytes());
}

/// The error, which must be this denial of this key.
pub(crate) fn denied(
    outcome: Result<PlainKey, KeyServiceError>,
    root: &RootKeyId,
    denial: Denial,
    what: &str,
) -> KeyServiceError {
    let expected = KeyServiceError::Denied {
        root: root.clone(),
        denial,
    };
    match outcome {
        Ok(_) => panic!("{what}: opened"),
        Err(error) => {
            assert_eq!(error, expected, "{what}");
            error
        }
    }
}

/// Every call that was reported.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<Vec<KeyCall>>);

impl CallObserver for Calls {
    fn on_call(&self, call: &KeyCall) {
        self.0.lock().unwrap().push(call.clone());
    }
}

impl Calls {
    pub(crate) fn take(&self) -> Vec<KeyCall> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Both operations, both outcomes, and a name of its own for every call that was answered.
    fn check(&self) {
        let calls = self.take();
        for operation in [KeyOperation::GenerateDataKey, KeyOperation::Decrypt] {
            for ok in [true, false] {
                let is_one = |call: &&KeyCall| call.operation == operation && call.outcome.is_ok() == ok;
                assert!(calls.iter().find(is_one).is_some(), "{operation:?} {ok}");
            }
        }
        let answered = calls
            .iter()
            .filter(|call| !matches!(call.outcome, Err(KeyServiceError::Unavailable { .. })));
        let mut names: Vec<_> = answered.map(|call| call.request_id.clone().unwrap()).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
