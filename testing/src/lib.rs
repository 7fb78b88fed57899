//! Stand-ins that misbehave on purpose: a key service that follows a script, and stores that fail as a test tells them.
//!
//! What it is for: tests of revocation, outages, crashes and full disks that replay exactly, from a script or a printed
//! seed. What it deliberately does not do: it is no product code (nothing but tests may depend on it), and it replaces
//! neither the local key server nor the embedded stores; the stores here wrap real ones.
//!
//! Start reading at [`ScriptedKms`], [`FaultPlan`] and [`Ledger`].
#![forbid(unsafe_code)]

mod faults;
mod ledger;
mod random;
mod scripted_kms;

pub use faults::{Fault, FaultPlan, FaultyLog, FaultyMeta, FaultyObjects, Operation, faulty_stores};
pub use ledger::{Ledger, recorded_stores};
pub use random::Random;
pub use scripted_kms::{KmsAnswer, KmsCalls, ScriptedKms};
