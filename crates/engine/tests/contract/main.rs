//! The engine's contract, on real embedded stores in temporary directories.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod crud;
mod faults;
mod hostile;
mod indexes;
mod many_zones;
mod recovery;
mod rekey;
mod revocation;
mod sealed;
mod stress;
mod virtual_time;
