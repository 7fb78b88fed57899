//! Tokens: read from a file that somebody keeps, or got with an AppRole.
//!
//! A token of an AppRole is kept until two thirds of its life are over, then a new one is got: that works beyond a
//! token's longest life, which renewing does not. A token from a file is renewed at half of its life, if it can be;
//! whoever writes the file may renew or replace it as well.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use saker_keyring::Outage;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{
    config::VaultLogin,
    transport::Transport,
    verdict::{self, Verdict},
};
use crate::secret_file;

/// A token. Never printed.
pub(super) struct Token {
    text: Zeroizing<String>,
    /// Whether it was got for an earlier call.
    kept: bool,
}

impl Token {
    pub(super) fn expose(&self) -> &str {
        &self.text
    }
    /// Whether a new one can be got in its place.
    pub(super) fn was_kept(&self) -> bool {
        self.kept
    }
}

/// Gets tokens.
pub(super) struct Login {
    how: VaultLogin,
    kept: Mutex<Option<Kept>>,
    /// One login or renewal at a time.
    turn: Semaphore,
}

struct Kept {
    text: Arc<Zeroizing<String>>,
    /// From when on a new one is got, or this one renewed; `None`: never.
    renew_at: Option<Instant>,
}

/// Why there is no token.
#[derive(Debug)]
pub(super) enum LoginFailure {
    /// A file with the token or secret id is not there or unusable: says nothing about the key.
    File,
    /// The server refused, or was not reached.
    Server(Verdict),
}

impl LoginFailure {
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::File => Verdict::Unavailable(Outage::Failed),
            Self::Server(verdict) => *verdict,
        }
    }
}

impl Login {
    pub(super) fn new(how: VaultLogin) -> Self {
        Self {
            how,
            kept: Mutex::default(),
            turn: Semaphore::new(1),
        }
    }

    /// A token for one call.
    pub(super) async fn token(&self, transport: &Transport) -> Result<Token, LoginFailure> {
        match &self.how {
            VaultLogin::TokenFile(path) => self.token_of_file(transport, path).await,
            VaultLogin::AppRole {
                mount,
                role_id,
                secret_id_file,
            } => {
                if let Some(token) = self.fresh() {
                    return Ok(token);
                }
                let _turn = self.turn.acquire().await;
                // Somebody else may have logged in meanwhile.
                if let Some(token) = self.fresh() {
                    return Ok(token);
                }
                self.log_in(transport, mount, role_id, secret_id_file).await
            }
        }
    }

    /// The server refused this one: the next call gets another.
    pub(super) fn forget(&self, token: &Token) {
        let mut kept = self.kept();
        if kept.as_ref().is_some_and(|kept| kept.text.as_str() == token.expose()) {
            *kept = None;
        }
    }

    fn fresh(&self) -> Option<Token> {
        let kept = self.kept();
        let kept = kept.as_ref()?;
        if kept.renew_at.is_some_and(|at| at <= Instant::now()) {
            return None;
        }
        Some(Token {
            text: (*kept.text).clone(),
            kept: true,
        })
    }

    async fn log_in(
        &self,
        transport: &Transport,
        mount: &str,
        role_id: &str,
        secret_id_file: &Path,
    ) -> Result<Token, LoginFailure> {
        let secret_id = read_secret(secret_id_file, "secret id")?;
        let body = json!({ "role_id": role_id, "secret_id": secret_id.as_str() });
        let path = format!("auth/{mount}/login");
        let answer = transport
            .post(&path, None, body.to_string().into_bytes())
            .await
            .map_err(|outage| LoginFailure::Server(Verdict::Unavailable(outage)))?;
        if let Some(verdict) = verdict::of_login(answer.status, &answer.errors()) {
            if matches!(verdict, Verdict::Denied(_)) {
                tracing::warn!(
                    auth = path,
                    "the Vault server refuses the AppRole login; check role_id and secret id"
                );
            }
            return Err(LoginFailure::Server(verdict));
        }
        let granted: Granted = answer
            .json()
            .ok_or(LoginFailure::Server(Verdict::Unavailable(Outage::BadAnswer)))?;
        let text = Zeroizing::new(granted.auth.client_token);
        *self.kept() = Some(Kept {
            text: Arc::new(text.clone()),
            renew_at: after(granted.auth.lease_duration, 2, 3),
        });
        Ok(Token { text, kept: false })
    }

    async fn token_of_file(&self, transport: &Transport, path: &Path) -> Result<Token, LoginFailure> {
        let text = read_secret(path, "token")?;
        let is_known = |kept: &Kept| *kept.text == text && kept.renew_at.is_none_or(|at| at > Instant::now());
        let known = self.kept().as_ref().is_some_and(is_known);
        let token = Token { text, kept: false };
        // Who does not get the turn uses the token as it is.
        if !known && let Ok(_turn) = self.turn.try_acquire() {
            let renew_at = renew(transport, &token).await;
            *self.kept() = Some(Kept {
                text: Arc::new(token.text.clone()),
                renew_at,
            });
        }
        Ok(token)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server still takes the token for what it may do at all. Every refusal of a key would leave a token behind
/// if it were followed by a login.
pub(super) async fn is_alive(transport: &Transport, token: &Token) -> bool {
    match transport.get("auth/token/lookup-self", token).await {
        Ok(answer) => !matches!(
            verdict::of_login(answer.status, &answer.errors()),
            Some(Verdict::Denied(_))
        ),
        // What cannot be asked now is not answered by a login either.
        Err(_) => true,
    }
}

/// Renews a token and says when to do so again. One that cannot be renewed (it lives for ever, or its policies do not
/// allow it) is used as it is until it ends.
async fn renew(transport: &Transport, token: &Token) -> Option<Instant> {
    let answer = transport
        .post("auth/token/renew-self", Some(token), b"{}".to_vec())
        .await;
    match answer {
        Ok(answer) if answer.status == 200 => {
            let granted: Granted = answer.json()?;
            after(granted.auth.lease_duration, 1, 2)
        }
        Ok(answer)
            if matches!(
                verdict::of_login(answer.status, &answer.errors()),
                Some(Verdict::Denied(_))
            ) =>
        {
            tracing::debug!(status = answer.status, "the Vault token is not renewed");
            None
        }
        // The server could not be asked: soon again.
        Ok(_) | Err(_) => Instant::now().checked_add(RENEW_AGAIN),
    }
}

/// When `part / whole` of a life of `seconds` will be over; `None` for a life without end.
fn after(seconds: u64, part: u32, whole: u32) -> Option<Instant> {
    if seconds == 0 {
        return None;
    }
    let life = Duration::from_secs(seconds.min(LIFE_SECONDS_MAX));
    Instant::now().checked_add(life * part / whole)
}

/// The one word of the file. The file is small and local: reading it takes no longer than handing it to another thread.
fn read_secret(path: &Path, what: &str) -> Result<Zeroizing<String>, LoginFailure> {
    let refused = |error: &dyn std::fmt::Display| {
        tracing::warn!(path = %path.display(), %error, "the file with the Vault {what} cannot be used");
        LoginFailure::File
    };
    let text = secret_file::read(path, SECRET_BYTES_MAX).map_err(|error| refused(&error))?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(refused(&"it must hold one word"));
    }
    Ok(text)
}

#[derive(Deserialize)]
struct Granted {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
}

/// Longest token or secret id; the server's batch tokens have a few hundred bytes.
const SECRET_BYTES_MAX: usize = 4_096;
/// A year: keeps the arithmetic of instants within its range.
const LIFE_SECONDS_MAX: u64 = 365 * 24 * 3_600;
/// When a renewal that failed for an outage is tried again.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
