//! The Transit engine of HashiCorp Vault or OpenBao as a key service.
//!
//! What it is for: `GenerateDataKey` as `POST MOUNT/datakey/plaintext/KEY` and `Decrypt` as `POST MOUNT/decrypt/KEY`, with
//! a token from a file or from an AppRole. The encryption context is bound by the server, see [`Binding`].
//!
//! What it deliberately does not do: it asks for no other path of the engine (it cannot even read the key's
//! properties), follows no redirect (the token would go along), uses no proxy, caches no plaintext, and does not try a
//! request again after an outage: the next probe does. The HTTP library's own buffers are freed, not zeroed.
//!
//! Start reading at [`VaultKms`], then in `verdict` for what each answer means.

mod config;
mod login;
mod transport;
mod verdict;

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use saker_keyring::{
    CallObserver, CallReason, Denial, EncryptionContext, GeneratedKey, KeyFuture, KeyOperation, KeyService,
    KeyServiceError, ObserverSlot, Outage, PlainKey, RootKeyId, WrappedKey,
};
use serde::Deserialize;
use serde_json::json;
use zeroize::{Zeroize, Zeroizing};

pub use self::config::{VaultKmsConfig, VaultLogin};
use self::{
    login::{Login, LoginFailure, Token},
    transport::{Answer, Transport},
    verdict::Verdict,
};
use crate::{
    calls::{Asked, OpenCall},
    context,
    services::KmsConfigError,
};

/// The Transit client.
pub struct VaultKms {
    config: VaultKmsConfig,
    transport: Transport,
    login: Login,
    observers: ObserverSlot,
}

/// How the server binds the encryption context to a wrapped key; the first byte of the wrapped key, before the server's
/// own text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    /// As associated data of AES-GCM or ChaCha20-Poly1305. OpenBao.
    AssociatedData = 1,
    /// As the derivation context of a key with `derived=true`. HashiCorp Vault, whose data keys take no associated data.
    DerivedKey = 2,
}

impl Binding {
    fn of(wrapped: &WrappedKey) -> Option<(Self, &str)> {
        let (first, text) = wrapped.as_bytes().split_first()?;
        let binding = match first {
            1 => Self::AssociatedData,
            2 => Self::DerivedKey,
            _ => return None,
        };
        Some((binding, std::str::from_utf8(text).ok()?))
    }
}

impl VaultKms {
    /// Checks the settings and reads the CA file. Makes no call to the server.
    ///
    /// # Errors
    /// [`KmsConfigError::Vault`] if a setting is malformed or the CA file cannot be used.
    pub fn connect(config: VaultKmsConfig) -> Result<Self, KmsConfigError> {
        let address = config.checked()?;
        let transport = Transport::new(&config, address)?;
        let login = Login::new(config.login.clone());
        Ok(Self {
            config,
            transport,
            login,
            observers: ObserverSlot::default(),
        })
    }

    /// One call within its time. `ask` sends the request with the token it is given.
    async fn within_time<T>(
        &self,
        asked: Asked<'_>,
        work: impl Future<Output = Result<T, KeyServiceError>>,
    ) -> Result<T, KeyServiceError> {
        match tokio::time::timeout(Duration::from_millis(self.config.timeout_ms), work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(asked.failed(Outage::Timeout)),
        }
    }

    async fn generate(&self, asked: Asked<'_>) -> Result<GeneratedKey, KeyServiceError> {
        let bound = STANDARD.encode(context::canonical(DOMAIN, &asked.context.pairs()));
        let body = json!({ "bits": 256, "associated_data": bound, "context": bound });
        let answer: DataKey = self.ask(asked, "datakey/plaintext", &body).await?;
        let mut text = answer.data.ciphertext;
        let plain = plain_key(answer.data.plaintext).ok_or_else(|| asked.failed(Outage::BadAnswer))?;
        let binding = if ignored_associated_data(&answer.warnings) {
            self.check_derived(asked, &text).await?;
            Binding::DerivedKey
        } else {
            Binding::AssociatedData
        };
        text.insert(0, char::from(binding as u8));
        let wrapped = WrappedKey::new(text.into_bytes()).ok_or_else(|| asked.failed(Outage::BadAnswer))?;
        Ok(GeneratedKey { plain, wrapped })
    }

    /// The server ignored the associated data. The context is bound only if the key is derived, and whether it is shows
    /// when the wrapped key is tried with another context: it must not open.
    async fn check_derived(&self, asked: Asked<'_>, ciphertext: &str) -> Result<(), KeyServiceError> {
        let other = STANDARD.encode(context::canonical(OTHER_DOMAIN, &asked.context.pairs()));
        let body = json!({ "ciphertext": ciphertext, "context": other });
        let asked = Asked {
            operation: KeyOperation::Decrypt,
            ..asked
        };
        match self.ask::<Decrypted>(asked, "decrypt", &body).await {
            Err(KeyServiceError::Denied {
                denial: Denial::InvalidCiphertext,
                ..
            }) => Ok(()),
            Err(error) => Err(error),
            Ok(opened) => {
                drop(plain_key(opened.data.plaintext));
                Err(KeyServiceError::Unsupported {
                    root: asked.root.clone(),
                    reason: "this server binds no associated data to data keys, so the key must be a derived one \
                             (create it with derived=true)"
                        .to_owned(),
                })
            }
        }
    }

    async fn unwrap(&self, asked: Asked<'_>, wrapped: &WrappedKey) -> Result<PlainKey, KeyServiceError> {
        let Some((binding, ciphertext)) = Binding::of(wrapped) else {
            return Err(KeyServiceError::Denied {
                root: asked.root.clone(),
                denial: Denial::InvalidCiphertext,
            });
        };
        let bound = STANDARD.encode(context::canonical(DOMAIN, &asked.context.pairs()));
        // The derivation context goes along in any case: a derived key needs it, any other ignores it.
        let body = match binding {
            Binding::AssociatedData => json!({ "ciphertext": ciphertext, "associated_data": bound, "context": bound }),
            Binding::DerivedKey => json!({ "ciphertext": ciphertext, "context": bound }),
        };
        let answer: Decrypted = self.ask(asked, "decrypt", &body).await?;
        plain_key(answer.data.plaintext).ok_or_else(|| asked.failed(Outage::BadAnswer))
    }

    /// Sends one request for the key; once more with a new token if a token that was kept is refused.
    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        asked: Asked<'_>,
        what: &str,
        body: &serde_json::Value,
    ) -> Result<T, KeyServiceError> {
        let key = asked.root.vault_key().ok_or_else(|| KeyServiceError::Unsupported {
            root: asked.root.clone(),
            reason: "the Vault key service serves only vault:// names".to_owned(),
        })?;
        let path = format!("{}/{what}/{}", key.mount, key.key);
        let body = body.to_string().into_bytes();
        let failed = |failure: LoginFailure| error_of(asked.root, failure.verdict());
        let mut token = self.login.token(&self.transport).await.map_err(failed)?;
        let mut answer = self.send(asked, &path, &token, body.clone()).await;
        if token.was_kept() && is_forbidden(&answer) && !login::is_alive(&self.transport, &token).await {
            // The token has ended or was revoked alone; a new one gets the yes or no.
            self.login.forget(&token);
            token = self.login.token(&self.transport).await.map_err(failed)?;
            answer = self.send(asked, &path, &token, body).await;
        }
        answer?.json().ok_or_else(|| asked.failed(Outage::BadAnswer))
    }

    /// One request on the wire, and its report.
    async fn send(
        &self,
        asked: Asked<'_>,
        path: &str,
        token: &Token,
        body: Vec<u8>,
    ) -> Result<Answer, KeyServiceError> {
        let open = OpenCall::begin(&self.observers, asked);
        let outcome = match self.transport.post(path, Some(token), body).await {
            Ok(answer) => match verdict::of_answer(answer.status, &answer.errors()) {
                None => Ok(answer),
                Some(verdict) => Err((error_of(asked.root, verdict), Some(answer.request_id()))),
            },
            Err(outage) => Err((asked.failed(outage), None)),
        };
        match outcome {
            Ok(answer) => {
                let request_id = answer.request_id();
                open.end(&Ok::<_, KeyServiceError>(()), Some(request_id));
                Ok(answer)
            }
            Err((error, request_id)) => {
                tracing::debug!(root = %asked.root, %error, "{} failed", asked.operation.as_str());
                open.end(&Err::<(), _>(error.clone()), request_id);
                Err(error)
            }
        }
    }
}

impl std::fmt::Debug for VaultKms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VaultKms")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl KeyService for VaultKms {
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
        Box::pin(self.within_time(asked, self.generate(asked)))
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
        Box::pin(self.within_time(asked, self.unwrap(asked, wrapped)))
    }

    fn observe(&self, observer: Arc<dyn CallObserver>) {
        self.observers.set(observer);
    }
}

#[derive(Deserialize)]
struct DataKey {
    data: DataKeyData,
    #[serde(default, deserialize_with = "null_as_empty")]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct DataKeyData {
    ciphertext: String,
    plaintext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    data: DecryptedData,
}

#[derive(Deserialize)]
struct DecryptedData {
    plaintext: String,
}

fn null_as_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Vault says so when an endpoint does not know a parameter.
fn ignored_associated_data(warnings: &[String]) -> bool {
    warnings
        .iter()
        .any(|warning| warning.contains("ignored") && warning.contains("associated_data"))
}

/// Base64 becomes the key; every copy on the way is zeroed.
fn plain_key(base64: String) -> Option<PlainKey> {
    let text = Zeroizing::new(base64);
    let mut bytes = Zeroizing::new([0_u8; PlainKey::BYTES + BASE64_SPARE_BYTES]);
    let length = STANDARD.decode_slice(text.as_bytes(), bytes.as_mut()).ok()?;
    let plain = bytes.get_mut(..length).and_then(PlainKey::take);
    bytes.zeroize();
    plain
}

fn error_of(root: &RootKeyId, verdict: Verdict) -> KeyServiceError {
    let root = root.clone();
    match verdict {
        Verdict::Denied(denial) => KeyServiceError::Denied { root, denial },
        Verdict::Unavailable(outage) => KeyServiceError::Unavailable { root, outage },
    }
}

fn is_forbidden(answer: &Result<Answer, KeyServiceError>) -> bool {
    matches!(
        answer,
        Err(KeyServiceError::Denied {
            denial: Denial::AccessDenied,
            ..
        })
    )
}

/// What the encoded context begins with.
const DOMAIN: &str = "saker vault: data keys v1";
/// No wrapped key is ever made with this one.
const OTHER_DOMAIN: &str = "saker vault: another context v1";
/// The decoder may estimate up to this many bytes more than it writes.
const BASE64_SPARE_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_lengths_are_not_keys() {
        for length in [0, 16, 31, 33, 64] {
            assert!(plain_key(STANDARD.encode(vec![7_u8; length])).is_none(), "{length}");
        }
        assert_eq!(
            plain_key(STANDARD.encode([7_u8; 32])).unwrap().expose_bytes(),
            &[7_u8; 32]
        );
        assert!(plain_key("!".to_owned()).is_none());
    }

    #[test]
    fn the_binding_is_read_back_or_refused() {
        let read =
            |bytes: &[u8]| WrappedKey::new(bytes.to_vec()).and_then(|wrapped| Binding::of(&wrapped).map(|b| b.0));
        assert_eq!(read(b"\x01vault:v1:x"), Some(Binding::AssociatedData));
        assert_eq!(read(b"\x02vault:v1:x"), Some(Binding::DerivedKey));
        assert_eq!(read(b"\x03vault:v1:x"), None);
        assert_eq!(read(b"vault:v1:x"), None);
        assert_eq!(read(b"\x01\xff"), None);
    }
}
