//! The engine's contract, on real embedded stores in temporary directories.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod crash_steps;
mod crud;
mod disk;
mod faults;
mod hostile;
mod indexes;
mod live;
mod many_zones;
mod moves;
mod own_key;
mod receipts;
mod recovery;
mod rekey;
mod revocation;
mod scalar_indexes;
mod sealed;
mod searching;
mod stress;
mod tamper;
mod text;
mod virtual_time;
