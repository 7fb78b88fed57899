//! A hardware security module behind PKCS#11 as a key service.
//!
//! What it is for: root keys that live in an HSM. `GenerateDataKey` draws a key on the HSM's random number generator and
//! wraps it there with AES-GCM, the encryption context as associated data; `Decrypt` is the reverse. The root key never
//! leaves the HSM.
//!
//! What it deliberately does not do: it makes, changes and removes no object, wraps with no other mechanism, and never
//! tries a PIN again that the token refused, since tokens lock themselves after a few.
//!
//! Calls of a PKCS#11 library block, some of them for ever. Each token has a thread of its own ([`worker`]) that makes
//! them one by one, so that one token's troubles are not another's; a caller waits no longer than its time-out.
//!
//! Start reading at [`Pkcs11Kms`], then `token` for what is asked of the HSM, and `verdict` for what its errors mean.

mod module;
mod token;
mod verdict;
mod worker;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use saker_keyring::{
    CallObserver, CallReason, EncryptionContext, GeneratedKey, KeyFuture, KeyOperation, KeyService, KeyServiceError,
    ObserverSlot, Outage, Pkcs11Key, PlainKey, RootKeyId, WrappedKey,
};
use tokio::sync::oneshot;

use self::{
    module::Module,
    verdict::Failure,
    worker::{Task, Work, Worker},
};
use crate::{
    calls::{Asked, OpenCall},
    context,
    services::KmsConfigError,
};

/// How to reach the HSM.
#[derive(Clone, Debug)]
pub struct Pkcs11KmsConfig {
    /// The PKCS#11 library of the HSM's maker.
    pub module: PathBuf,
    /// File with the user PIN of the tokens; read at each login, so that it can be changed without a restart.
    pub pin_file: PathBuf,
    /// Longest a call may take, in milliseconds. The library cannot be interrupted: it may go on in the background.
    pub timeout_ms: u64,
}

impl Pkcs11KmsConfig {
    /// Default of [`Self::timeout_ms`].
    pub const TIMEOUT_MS: u64 = 3_000;
    /// Bounds of [`Self::timeout_ms`].
    pub const TIMEOUT_MS_RANGE: std::ops::RangeInclusive<u64> = 50..=60_000;
    /// Most tokens that are used at a time: each has a thread.
    pub const TOKENS_MAX: usize = 64;
}

/// The PKCS#11 client.
pub struct Pkcs11Kms {
    config: Pkcs11KmsConfig,
    module: Arc<Module>,
    workers: Mutex<BTreeMap<String, Worker>>,
    observers: ObserverSlot,
}

impl Pkcs11Kms {
    /// Checks the settings. The library is loaded at the first call, so that a server starts while its HSM is away.
    ///
    /// # Errors
    /// [`KmsConfigError::Pkcs11`] if a setting is malformed or the library is not there.
    pub fn connect(config: Pkcs11KmsConfig) -> Result<Self, KmsConfigError> {
        let wrong = |setting, reason: String| Err(KmsConfigError::Pkcs11 { setting, reason });
        if !config.module.is_file() {
            let path = config.module.display();
            return wrong("module", format!("there is no library {path}"));
        }
        if !Pkcs11KmsConfig::TIMEOUT_MS_RANGE.contains(&config.timeout_ms) {
            let (least, most) = (
                Pkcs11KmsConfig::TIMEOUT_MS_RANGE.start(),
                Pkcs11KmsConfig::TIMEOUT_MS_RANGE.end(),
            );
            return wrong(
                "timeout_ms",
                format!("it must be from {least} to {most}, and is {}", config.timeout_ms),
            );
        }
        Ok(Self {
            module: Module::shared(&config.module),
            config,
            workers: Mutex::default(),
            observers: ObserverSlot::default(),
        })
    }

    /// Has the token's thread do `work`, and reports the call.
    async fn ask<T>(
        &self,
        asked: Asked<'_>,
        work: impl FnOnce(Pkcs11Key, oneshot::Sender<Result<T, Failure>>) -> Work,
    ) -> Result<T, KeyServiceError> {
        let Some(key) = asked.root.pkcs11_key() else {
            return Err(KeyServiceError::Unsupported {
                root: asked.root.clone(),
                reason: "the PKCS#11 key service serves only pkcs11: names".to_owned(),
            });
        };
        let timeout = Duration::from_millis(self.config.timeout_ms);
        let (send, receive) = oneshot::channel();
        let token = key.token.clone();
        let task = Task {
            work: work(key, send),
            until: Instant::now() + timeout,
        };
        // An HSM names no requests, so this is for our own records alone.
        let request_id = uuid::Uuid::new_v4().to_string();
        let open = OpenCall::begin(&self.observers, asked);
        let outcome = match self.give(&token, task) {
            Ok(()) => match tokio::time::timeout(timeout, receive).await {
                Ok(Ok(outcome)) => outcome,
                // The thread ended, or left the task out because its time was over.
                Ok(Err(_)) | Err(_) => Err(Failure::Outage(Outage::Timeout)),
            },
            Err(failure) => Err(failure),
        };
        let outcome = outcome.map_err(|failure| failure.about(asked.root));
        open.end(&outcome, Some(request_id));
        outcome
    }

    fn give(&self, token: &str, task: Task) -> Result<(), Failure> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if !workers.contains_key(token) {
            if workers.len() >= Pkcs11KmsConfig::TOKENS_MAX {
                tracing::warn!(
                    tokens_max = Pkcs11KmsConfig::TOKENS_MAX,
                    "keys of too many PKCS#11 tokens are in use"
                );
                return Err(Failure::Outage(Outage::Throttled));
            }
            let worker = Worker::start(Arc::clone(&self.module), token, &self.config.pin_file)
                .map_err(|_| Failure::Outage(Outage::Failed))?;
            workers.insert(token.to_owned(), worker);
        }
        workers
            .get(token)
            .ok_or(Failure::Outage(Outage::Failed))
            .and_then(|worker| worker.give(task))
    }
}

impl std::fmt::Debug for Pkcs11Kms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pkcs11Kms")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl KeyService for Pkcs11Kms {
    fn generate_data_key<'a>(
        &'a self,
        root: &'a RootKeyId,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, GeneratedKey> {
        let asked = Asked {
            operation: KeyOperation::GenerateDataKey,
            root,
            context,
            why,
        };
        let associated = associated(context);
        Box::pin(self.ask(asked, move |key, reply| Work::Generate {
            object: key.object,
            associated,
            reply,
        }))
    }

    fn decrypt<'a>(
        &'a self,
        root: &'a RootKeyId,
        wrapped: &'a WrappedKey,
        context: &'a EncryptionContext,
        why: CallReason,
    ) -> KeyFuture<'a, PlainKey> {
        let asked = Asked {
            operation: KeyOperation::Decrypt,
            root,
            context,
            why,
        };
        let associated = associated(context);
        let wrapped = wrapped.as_bytes().to_vec();
        Box::pin(self.ask(asked, move |key, reply| Work::Decrypt {
            object: key.object,
            wrapped,
            associated,
            reply,
        }))
    }

    fn observe(&self, observer: Arc<dyn CallObserver>) {
        self.observers.set(observer);
    }
}

fn associated(context: &EncryptionContext) -> Vec<u8> {
    context::canonical("saker pkcs11: data keys v1", &context.pairs())
}

#[cfg(test)]
mod tests {
    use saker_keyring::KeyPurpose;

    use super::*;

    fn config(dir: &tempfile::TempDir, timeout_ms: u64) -> Pkcs11KmsConfig {
        let module = dir.path().join("library.so");
        #[expect(clippy::disallowed_methods, reason = "a test writes its own file")]
        std::fs::write(&module, "this is no library").unwrap();
        Pkcs11KmsConfig {
            module,
            pin_file: dir.path().join("pin"),
            timeout_ms,
        }
    }

    #[test]
    fn settings_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        for (timeout_ms, accepted) in [(49, false), (50, true), (60_000, true), (60_001, false)] {
            assert_eq!(
                Pkcs11Kms::connect(config(&dir, timeout_ms)).is_ok(),
                accepted,
                "{timeout_ms}"
            );
        }
        let missing = Pkcs11KmsConfig {
            module: dir.path().join("missing.so"),
            ..config(&dir, 1_000)
        };
        let error = Pkcs11Kms::connect(missing).unwrap_err().to_string();
        assert!(error.contains("kms.pkcs11.module"), "{error}");
    }

    #[tokio::test]
    async fn a_library_that_cannot_be_loaded_is_an_outage_and_tokens_are_limited() {
        let dir = tempfile::tempdir().unwrap();
        let kms = Pkcs11Kms::connect(config(&dir, 60_000)).unwrap();
        let context = EncryptionContext {
            cluster: "c".into(),
            database: "d".into(),
            purpose: KeyPurpose::Validation,
        };
        for number in 0..=Pkcs11KmsConfig::TOKENS_MAX {
            let root: RootKeyId = format!("pkcs11:token=t{number};object=o").parse().unwrap();
            let expected = if number < Pkcs11KmsConfig::TOKENS_MAX {
                Outage::Failed
            } else {
                Outage::Throttled
            };
            let error = kms
                .generate_data_key(&root, &context, CallReason::Validate)
                .await
                .unwrap_err();
            assert_eq!(error, KeyServiceError::Unavailable { root, outage: expected });
        }
        let other = RootKeyId::platform_file();
        let error = kms.generate_data_key(&other, &context, CallReason::Validate).await;
        assert!(matches!(error, Err(KeyServiceError::Unsupported { .. })));
    }
}
