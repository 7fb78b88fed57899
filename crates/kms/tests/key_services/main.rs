//! One test-suite for all key services: AWS KMS against the local key server, Vault against a real OpenBao, PKCS#11
//! against SoftHSM.
//!
//! Those that need a real server are ignored by default; `make test` sets `SAKER_TEST_BAO` (the `bao` binary),
//! `SAKER_TEST_PKCS11` (the library), `SOFTHSM2_CONF` and `SAKER_TEST_PYTHON`, and runs them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests write files of their own")]

#[path = "../support/mod.rs"]
mod support;

mod aws;
mod pkcs11;
mod suite;
mod vault;
mod vault_answers;
