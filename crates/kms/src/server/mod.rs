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
mod trail;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use self::{
    core::{Clock, Core},
    names::Names,
    records::{Realm, Records},
    store::{Change, Store},
    trail::Trail,
};
use crate::key_file::{self, KeyFileError};

pub use store::StoreError;

/// Where the local key server keeps its things and who it says it is.
#[derive(Clone, Debug)]
pub struct LocalKeyServerConfig {
    /// Directory of everything it keeps: `root-secret`, `records.redb` (sealed), `cloudtrail.jsonl`. Made if missing.
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
    Store(#[from] StoreError),
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
        match tokio::task::spawn_blocking(move || open(&config, clock)).await {
            Ok(outcome) => outcome.map(|core| Self { core: Arc::new(core) }),
            Err(error) => Err(KeyServerError::Serve(io::Error::other(error))),
        }
    }

    /// Serves until `shutdown` is cancelled, then lets calls in progress finish (at most 5 s).
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
        tokio::select! {
            outcome = async { server.await } => outcome.map_err(KeyServerError::Serve),
            () = overdue => Ok(()),
            () = sweep(Arc::clone(&self.core)) => Ok(()),
        }
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

fn open(config: &LocalKeyServerConfig, clock: Clock) -> Result<Core, KeyServerError> {
    check(config)?;
    let file = |action, path: PathBuf| move |source| KeyServerError::Io { action, path, source };
    let dir = &config.dir;
    key_file::make_private_directory(dir).map_err(file("make directory", dir.clone()))?;
    let (secret_path, records_path) = (dir.join("root-secret"), dir.join("records.redb"));
    if records_path.exists() && !secret_path.exists() {
        return Err(KeyServerError::RootSecretMissing { path: secret_path });
    }
    let root = key_file::open_or_create(&secret_path)?;
    let store = Store::open(&records_path, &root)?;
    let names = Names {
        region: config.region.clone(),
        account: config.account.clone(),
    };
    let records = load_or_make(&store, &names)?;
    let users = [credentials::CUSTOMER, credentials::SAKER]
        .into_iter()
        .filter_map(|name| records.users.get(name).map(|user| (name, user)))
        .collect::<Vec<_>>();
    credentials::write_file(&config.credentials_file, &names, &users)
        .map_err(file("write credentials file", config.credentials_file.clone()))?;
    let trail = Trail::open(dir).map_err(file("open", dir.join(trail::FILE_NAME)))?;
    tracing::info!(
        dir = %dir.display(),
        region = %names.region,
        account = %names.account,
        keys = records.keys.len(),
        "local key server opened"
    );
    Ok(Core::new(names, clock, trail, store, records, &root))
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
        Some((_, found)) if found != realm => {
            return Err(KeyServerError::OtherRealm {
                region: found.region,
                account: found.account,
            });
        }
        Some(_) => {}
    }
    Ok(Records {
        keys: store.all("key/")?.into_iter().collect(),
        aliases: store.all("alias/")?.into_iter().collect(),
        roles: store.all("role/")?.into_iter().collect(),
        users: store.all("user/")?.into_iter().collect(),
    })
}
