//! Key services: where root keys live, and a key server of our own for development and air-gapped use.
//!
//! What it is for: implementations of keyring's [`KeyService`](saker_keyring::KeyService) — [`AwsKms`] (AWS KMS or
//! anything that speaks its protocol), [`VaultKms`] (HashiCorp Vault or OpenBao Transit), [`Pkcs11Kms`] (an HSM) and
//! [`FileKeyService`] (a platform root key in a file) — behind one router, [`KeyServices`]; and [`LocalKeyServer`], which speaks the AWS KMS wire protocol so that `aws kms`, boto3 and
//! [`AwsKms`] drive it unmodified.
//!
//! What it deliberately does not do: it caches no plaintext key and knows nothing of leases (keyring does), it never
//! asks a KMS for more than `GenerateDataKey` and `Decrypt`, and it calls no cipher itself: sealing is keyring's.
//!
//! Start reading at [`KeyServices`] for the client side, at [`server`] for the key server. `docs/kms.md` is the
//! operator's and security reviewer's view.
#![forbid(unsafe_code)]

pub mod aws;
mod budget;
mod calls;
mod context;
mod file;
mod key_file;
pub mod pkcs11;
mod secret_file;
pub mod server;
mod services;
pub mod vault;

pub use aws::{AwsKms, AwsKmsConfig, AwsRole, CallerError};
pub use file::FileKeyService;
pub use key_file::KeyFileError;
pub use pkcs11::{Pkcs11Kms, Pkcs11KmsConfig};
pub use server::{KeyServerError, LocalKeyServer, LocalKeyServerConfig};
pub use services::{KeyServices, KeyServicesConfig, KmsConfigError};
pub use vault::{VaultKms, VaultKmsConfig, VaultLogin};
