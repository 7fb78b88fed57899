//! The local key server: the AWS KMS wire protocol over keys in a directory, for development and air-gapped use.
//!
//! What it is for: a customer's side of the key hierarchy where no KMS can be reached. Keys, aliases, rotation, key
//! policies and roles behave as AWS's do, so that what is tried here is what happens there; every call is logged as
//! CloudTrail would. What it deliberately does not do: it is no HSM. Whoever reads its directory, root secret included,
//! has the keys; whoever can put the whole directory back to an older state undoes changes unnoticed. It speaks plain
//! HTTP and belongs on a loopback or private interface.
//!
//! Start reading at [`LocalKeyServer`]; a request goes through `http` (signature, call log), `kms` or `roles` (the
//! operation), `policy` (may this caller), `core` and `store` (state, durable before the answer).

mod callers;
mod ciphertext;
mod core;
mod credentials;
mod fault;
mod http;
mod kms;
mod names;
mod policy;
mod query;
mod records;
mod roles;
mod sigv4;
mod store;
#[cfg(test)]
mod testing;
mod trail;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use saker_keyring::{BlobKey, PlainKey};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use self::{
    core::{Clock, Core, SESSION_PURPOSE},
    names::Names,
    records::{Alias, Key, Realm, Records, Role, User},
    store::{Change, Store},
    trail::Trail,
};
use crate::key_file::{self, KeyFileError};

pub use store::RecordError;

/// Where the local key server keeps its things and who it says it is.
#[derive(Clone, Debug)]
pub struct LocalKeyServerConfig {
    /// Directory of everything it keeps: `root-secret`, `records` (sealed), `cloudtrail.jsonl`. Made if missing.
    pub dir: PathBuf,
    /// AWS shared-credentials file with the profiles `customer` and `saker`; written at start, mode 0600. A file that
    /// another program wrote is never overwritten.
    pub credentials_file: PathBuf,
    /// AWS region that it answers for, such as `us-east-1`. Fixed once the directory is made.
    pub region: String,
    /// AWS account (12 digits) that owns its keys. Fixed once the directory is made.
    pub account: String,
}

impl LocalKeyServerConfig {
    /// Default of [`Self::region`].
    pub const REGION: &str = "us-east-1";
    /// Default of [`Self::account`].
    pub const ACCOUNT: &str = "000000000000";
}

/// Why the local key server cannot start or go on.
#[derive(Debug, Error)]
pub enum KeyServerError {
    /// A setting is malformed.
    #[error("{setting}: {reason}")]
    Config {
        /// Which setting.
        setting: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// The root secret cannot be used.
    #[error(transparent)]
    RootSecret(#[from] KeyFileError),
    /// There are records but no root secret to open them.
    #[error("{} is missing, and without it the records beside it cannot be opened; put it back", path.display())]
    RootSecretMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The records cannot be read.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// The directory was made for another region or account.
    #[error("the directory belongs to region {region}, account {account}; start with these or use another directory")]
    OtherRealm {
        /// Its region.
        region: String,
        /// Its account.
        account: String,
    },
    /// A file beside the records cannot be written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Serve(#[source] io::Error),
}

/// A key server that speaks the AWS KMS protocol, for development and air-gapped use.
pub struct LocalKeyServer {
    core: Arc<Core>,
}

/// How long calls in progress may take to finish at shutdown.
const SHUTDOWN_SECONDS_MAX: u64 = 5;
/// How long the directory may take to be let go of after that.
const RELEASE_SECONDS_MAX: u64 = 5;
/// How often keys whose waiting period is over are looked for; every call looks as well.
const SWEEP_SECONDS: u64 = 60;

impl LocalKeyServer {
    /// Opens the directory, or makes it: root secret, the users `customer` and `saker`, the credentials file.
    ///
    /// # Errors
    /// [`KeyServerError`] if the directory is in use, was altered, lost its root secret or belongs to another region or
    /// account, or if a file cannot be written.
    pub async fn open(config: LocalKeyServerConfig) -> Result<Self, KeyServerError> {
        Self::open_with_clock(config, Arc::new(system_clock_ms)).await
    }

    /// [`Self::open`] with a clock of the caller's: Unix time in milliseconds. For tests of waiting periods and expiry.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with_clock(
        config: LocalKeyServerConfig,
        clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    ) -> Result<Self, KeyServerError> {
        let root = open_root(&config)?;
        let sessions = BlobKey::new(&root, SESSION_PURPOSE);
        let store = Store::open(&config.dir.join(RECORDS), root).await?;
        match tokio::task::spawn_blocking(move || open(&config, clock, store, sessions)).await {
            Ok(outcome) => outcome.map(|core| Self { core: Arc::new(core) }),
            Err(error) => Err(KeyServerError::Serve(io::Error::other(error))),
        }
    }

    /// Serves until `shutdown` is cancelled, then lets calls in progress finish (at most 5 s). When it returns, the
    /// directory is free for another server, unless a call hangs beyond that time.
    ///
    /// Dropping the future stops taking connections; what was answered is on disk either way.
    ///
    /// # Errors
    /// [`KeyServerError::Serve`] if the listener fails.
    pub async fn serve(
        self,
        listener: tokio::net::TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), KeyServerError> {
        tracing::warn!(
            "local key server: for development and air-gapped use; it is no HSM, and its directory holds the keys"
        );
        let service = http::router(Arc::clone(&self.core)).into_make_service_with_connect_info::<SocketAddr>();
        let server = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
        let overdue = async {
            shutdown.cancelled().await;
            tokio::time::sleep(Duration::from_secs(SHUTDOWN_SECONDS_MAX)).await;
        };
        let outcome = tokio::select! {
            outcome = async { server.await } => outcome.map_err(KeyServerError::Serve),
            () = overdue => Ok(()),
            () = sweep(Arc::clone(&self.core)) => Ok(()),
        };
        let core = Arc::clone(&self.core);
        drop(self);
        released(core).await;
        outcome
    }
}

/// Waits until nothing uses the directory any more: a look for due keys may still be running on a thread of its own, and
/// the connection that was closed last may not be gone yet. Gives up after [`RELEASE_SECONDS_MAX`].
async fn released(core: Arc<Core>) {
    // Holds on to the last one, and lets it go itself: a count of none could be seen while another thread is still
    // closing the lock file.
    let wait = async {
        while Arc::strong_count(&core) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(RELEASE_SECONDS_MAX), wait)
        .await
        .is_err()
    {
        tracing::warn!("local key server: a call still runs; its directory is free once that ends");
    }
}

impl std::fmt::Debug for LocalKeyServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalKeyServer")
            .field("names", &self.core.names)
            .finish_non_exhaustive()
    }
}

/// Destroys due keys now and then, also when nobody calls. Never returns.
async fn sweep(core: Arc<Core>) {
    let mut interval = tokio::time::interval(Duration::from_secs(SWEEP_SECONDS));
    loop {
        interval.tick().await;
        let core = Arc::clone(&core);
        // A failure is logged where it happens and tried again at the next round.
        let _ = tokio::task::spawn_blocking(move || core.destroy_due_keys((core.clock)())).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the server's clock comes from"
)]
fn system_clock_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

const RECORDS: &str = "records";
const ROOT_SECRET: &str = "root-secret";

fn open_root(config: &LocalKeyServerConfig) -> Result<PlainKey, KeyServerError> {
    check(config)?;
    let dir = &config.dir;
    key_file::make_private_directory(dir).map_err(failed("make directory", dir))?;
    let path = dir.join(ROOT_SECRET);
    if dir.join(RECORDS).exists() && !path.exists() {
        return Err(KeyServerError::RootSecretMissing { path });
    }
    Ok(key_file::open_or_create(&path)?)
}

fn open(config: &LocalKeyServerConfig, clock: Clock, store: Store, sessions: BlobKey) -> Result<Core, KeyServerError> {
    let names = Names {
        region: config.region.clone(),
        account: config.account.clone(),
    };
    let records = load_or_make(&store, &names)?;
    let users: Vec<&User> = [credentials::CUSTOMER, credentials::SAKER]
        .iter()
        .filter_map(|name| records.users.get(*name))
        .collect();
    credentials::write_file(&config.credentials_file, &names, &users)
        .map_err(failed("write credentials file", &config.credentials_file))?;
    let trail = Trail::open(&config.dir).map_err(failed("open", &config.dir.join(trail::FILE_NAME)))?;
    tracing::info!(
        dir = %config.dir.display(),
        region = %names.region,
        account = %names.account,
        keys = records.keys.len(),
        "local key server opened"
    );
    Ok(Core::new(names, clock, trail, store, records, sessions))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyServerError {
    let path = path.to_owned();
    move |source| KeyServerError::Io { action, path, source }
}

fn check(config: &LocalKeyServerConfig) -> Result<(), KeyServerError> {
    let region = config.region.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    if region.is_empty() || region.len() > 32 || !region.iter().all(plain) {
        return Err(KeyServerError::Config {
            setting: "region",
            reason: "it must be a name such as us-east-1",
        });
    }
    if config.account.len() != 12 || !config.account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(KeyServerError::Config {
            setting: "account",
            reason: "it must be 12 digits",
        });
    }
    Ok(())
}

/// Reads all records; in a new directory makes the realm and its users first.
fn load_or_make(store: &Store, names: &Names) -> Result<Records, KeyServerError> {
    let realm = Realm {
        region: names.region.clone(),
        account: names.account.clone(),
    };
    match store.all::<Realm>("realm/")?.pop() {
        None => {
            let mut changes = vec![Change::put("realm/1", &realm)];
            for name in [credentials::CUSTOMER, credentials::SAKER] {
                changes.push(Change::put(format!("user/{name}"), &credentials::new_user(name)));
            }
            store.commit(changes)?;
        }
        Some(found) if found != realm => {
            return Err(KeyServerError::OtherRealm {
                region: found.region,
                account: found.account,
            });
        }
        Some(_) => {}
    }
    let keys: Vec<Key> = store.all("key/")?;
    let aliases: Vec<Alias> = store.all("alias/")?;
    let roles: Vec<Role> = store.all("role/")?;
    let users: Vec<User> = store.all("user/")?;
    let mut records = Records {
        keys: keys.into_iter().map(|key| (key.id.clone(), key)).collect(),
        aliases: aliases.into_iter().map(|alias| (alias.name.clone(), alias)).collect(),
        roles: roles.into_iter().map(|role| (role.name.clone(), role)).collect(),
        users: users.into_iter().map(|user| (user.name.clone(), user)).collect(),
        materials: HashMap::new(),
    };
    let files = records.files();
    for file in &files {
        records.materials.insert(*file, store.material(*file)?);
    }
    store.shred_all_but(&files)?;
    Ok(records)
}
