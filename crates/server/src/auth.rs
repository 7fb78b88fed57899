//! Who asks: user names and passwords, checked against Argon2id hashes that the engine keeps sealed.
//!
//! Hashing is slow by design, so a password that was verified is remembered for a short while as a MAC under a key of
//! this process (never the password, never its hash). What it deliberately does not do: roles and privileges.
//!
//! Start reading at [`Authenticator::authenticate`].

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use aws_lc_rs::{hmac, rand::SystemRandom};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use saker_engine::{Engine, Error, ErrorKind};
use thiserror::Error as ThisError;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// The user that is there from the beginning.
pub const ROOT_USER: &str = "root";
/// Its password until somebody changes it, as in Milvus.
pub const ROOT_PASSWORD_INITIAL: &str = "Milvus";

/// How long a verified password is remembered. A changed or deleted password is forgotten at once.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Most passwords remembered at a time; the oldest go first.
const REMEMBERED_MAX: usize = 10_000;
/// Most passwords hashed at a time, so that wrong ones cannot take the processors and memory (19 MiB each) from others.
const HASHES_AT_ONCE_MAX: usize = 2;
/// Longest `authorization` value looked at, in bytes.
const AUTHORIZATION_BYTES_MAX: usize = 1_024;

/// A user who proved to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(Arc<str>);

impl User {
    /// The user's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Why somebody is not let in. The same whether the user is unknown or the password is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum AuthError {
    /// Nothing was said.
    #[error("auth check failure, missing authorization in header: give a token or user and password")]
    Missing,
    /// What was said is not true.
    #[error("auth check failure, please check username and password are correct")]
    Refused,
}

/// Checks passwords.
pub struct Authenticator {
    required: bool,
    key: hmac::Key,
    remembered: Mutex<HashMap<String, Remembered>>,
    hashing: Semaphore,
    /// Verified against when there is no such user, so that the answer takes as long.
    decoy: String,
}

struct Remembered {
    mac: hmac::Tag,
    until: Instant,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Checks passwords; if not `required`, everybody is let in without one.
    ///
    /// # Errors
    /// An internal error if the operating system gives no random bytes.
    pub fn new(required: bool) -> Result<Self, Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| Error::internal("no random bytes from the operating system"))?;
        Ok(Self {
            required,
            key,
            remembered: Mutex::new(HashMap::new()),
            hashing: Semaphore::new(HASHES_AT_ONCE_MAX),
            decoy: hash_now("decoy")?,
        })
    }
    /// Whether users have to say who they are.
    #[must_use]
    pub fn required(&self) -> bool {
        self.required
    }
    /// Makes the first user of a new cluster.
    ///
    /// # Errors
    /// The engine's error, if it cannot keep the user.
    pub async fn prepare(&self, engine: &Engine) -> Result<(), Error> {
        if engine.credential(ROOT_USER).is_some() {
            return Ok(());
        }
        let hash = self.hash(Zeroizing::new(ROOT_PASSWORD_INITIAL.to_owned())).await?;
        match engine.create_credential(ROOT_USER, &hash).await {
            Err(error) if error.kind == ErrorKind::CredentialAlreadyExists => Ok(()),
            outcome => outcome,
        }
    }
    /// The user named in an `authorization` value: base64 of `user:password` (gRPC), `Basic` and that, or `Bearer
    /// user:password` (HTTP). `None` if nobody has to say.
    ///
    /// # Errors
    /// [`AuthError`]
    pub async fn authenticate(&self, engine: &Engine, authorization: Option<&str>) -> Result<Option<User>, AuthError> {
        if !self.required {
            return Ok(None);
        }
        let value = authorization.ok_or(AuthError::Missing)?;
        let token = token_of(value).ok_or(AuthError::Refused)?;
        let (user, password) = token.split_once(':').ok_or(AuthError::Refused)?;
        if self.verify(engine, user, password).await {
            Ok(Some(User(user.into())))
        } else {
            Err(AuthError::Refused)
        }
    }
    /// Whether this is the user's password.
    pub async fn verify(&self, engine: &Engine, user: &str, password: &str) -> bool {
        let stored = engine.credential(user);
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.decoy.clone());
        let message = mac_message(user, password, &stored);
        if known && self.remembers(user, &message) {
            return true;
        }
        let Ok(_permit) = self.hashing.acquire().await else {
            return false;
        };
        let password = Zeroizing::new(password.to_owned());
        let verified = tokio::task::spawn_blocking(move || verify_now(&password, &stored))
            .await
            .unwrap_or(false);
        if verified && known {
            self.remember(user, &message);
        }
        verified && known
    }
    /// The hash to keep for a password.
    ///
    /// # Errors
    /// An internal error if hashing fails.
    pub async fn hash(&self, password: Zeroizing<String>) -> Result<String, Error> {
        let failed = || Error::internal("the password could not be hashed");
        let _permit = self.hashing.acquire().await.map_err(|_| failed())?;
        tokio::task::spawn_blocking(move || hash_now(&password))
            .await
            .map_err(|_| failed())?
    }
    /// Forgets what was verified of a user.
    pub fn forget(&self, user: &str) {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(user);
    }

    fn remembers(&self, user: &str, message: &[u8]) -> bool {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(user).is_some_and(|entry| {
            // `hmac::verify` compares in constant time.
            entry.until > Instant::now() && hmac::verify(&self.key, message, entry.mac.as_ref()).is_ok()
        })
    }

    fn remember(&self, user: &str, message: &[u8]) {
        let entry = Remembered {
            mac: hmac::sign(&self.key, message),
            until: Instant::now() + REMEMBERED_FOR,
        };
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX
            && let Some(oldest) = remembered
                .iter()
                .min_by_key(|(_, entry)| entry.until)
                .map(|(user, _)| user.clone())
        {
            remembered.remove(&oldest);
        }
        remembered.insert(user.to_owned(), entry);
    }
}

/// `user:password` from an `authorization` value.
fn token_of(value: &str) -> Option<Zeroizing<String>> {
    if value.len() > AUTHORIZATION_BYTES_MAX {
        return None;
    }
    if let Some(token) = value.strip_prefix("Bearer ") {
        return Some(Zeroizing::new(token.to_owned()));
    }
    let encoded = value.strip_prefix("Basic ").unwrap_or(value);
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    std::str::from_utf8(&decoded)
        .ok()
        .map(|text| Zeroizing::new(text.to_owned()))
}

/// Binds user, password and the stored hash, so that a new hash makes the remembered MAC worthless.
fn mac_message(user: &str, password: &str, stored: &str) -> Zeroizing<Vec<u8>> {
    let mut message = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + stored.len() + 16));
    for part in [user, stored] {
        message.extend_from_slice(&(part.len() as u64).to_le_bytes());
        message.extend_from_slice(part.as_bytes());
    }
    message.extend_from_slice(password.as_bytes());
    message
}

fn hash_now(password: &str) -> Result<String, Error> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|_| Error::internal("the password could not be hashed"))
}

fn verify_now(password: &str, stored: &str) -> bool {
    PasswordHash::new(stored).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_all_clients() {
        let token = |value: &str| token_of(value).map(|token| token.to_string());
        assert_eq!(token("cm9vdDpNaWx2dXM="), Some("root:Milvus".into()));
        assert_eq!(token("Basic cm9vdDpNaWx2dXM="), Some("root:Milvus".into()));
        assert_eq!(token("Bearer root:Milvus"), Some("root:Milvus".into()));
        assert_eq!(token("***"), None);
        assert_eq!(token(&"A".repeat(AUTHORIZATION_BYTES_MAX + 4)), None);
        assert!(token(&"A".repeat(AUTHORIZATION_BYTES_MAX)).is_some());
    }

    #[test]
    fn hashes_verify_and_differ() {
        let (one, other) = (hash_now("secret").unwrap(), hash_now("secret").unwrap());
        assert_ne!(one, other);
        assert!(one.starts_with("$argon2id$"));
        assert!(verify_now("secret", &one) && verify_now("secret", &other));
        assert!(!verify_now("Secret", &one));
        assert!(!verify_now("secret", "not a hash"));
    }

    #[test]
    fn a_remembered_password_is_bound_to_user_and_hash() {
        let auth = Authenticator::new(true).unwrap();
        let message = mac_message("ann", "secret", "hash 1");
        auth.remember("ann", &message);
        assert!(auth.remembers("ann", &message));
        assert!(!auth.remembers("ann", &mac_message("ann", "secret", "hash 2")));
        assert!(!auth.remembers("ann", &mac_message("ann", "other", "hash 1")));
        assert!(!auth.remembers("bob", &message));
        auth.forget("ann");
        assert!(!auth.remembers("ann", &message));
        assert!(!format!("{auth:?}").contains("secret"));
    }

    #[test]
    fn memory_is_bounded() {
        let auth = Authenticator::new(true).unwrap();
        for user in 0..=REMEMBERED_MAX {
            auth.remember(&user.to_string(), b"m");
        }
        assert_eq!(auth.remembered.lock().unwrap().len(), REMEMBERED_MAX);
    }
}
