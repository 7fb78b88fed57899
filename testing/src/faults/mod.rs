//! Stores that fail on purpose, around real ones.
//!
//! A [`FaultPlan`] decides for each operation whether and how it goes wrong: by order ([`FaultPlan::next`]), by chance
//! from a seed ([`FaultPlan::chance`]), or by a power failure after a number of writes ([`FaultPlan::power_off_after`]).
//! The wrappers keep the contracts of the traits that they stand in for: what fails before its commit has changed
//! nothing, what fails after it is there, and a log appender that failed takes no more records.

use std::sync::Arc;

use saker_storage::EmbeddedStores;

mod log;
mod meta;
mod objects;
mod plan;

pub use log::FaultyLog;
pub use meta::FaultyMeta;
pub use objects::FaultyObjects;
pub use plan::{Fault, FaultPlan, Operation};

/// `stores`, as far as `plan` lets them. Clone the `Arc`s of the real ones before to look behind the faults.
#[must_use]
pub fn faulty_stores(stores: EmbeddedStores, plan: &FaultPlan) -> EmbeddedStores {
    EmbeddedStores {
        objects: Arc::new(FaultyObjects::new(stores.objects, plan.clone())),
        meta: Arc::new(FaultyMeta::new(stores.meta, plan.clone())),
        log: Arc::new(FaultyLog::new(stores.log, plan.clone())),
        lock: stores.lock,
    }
}

/// What an injected error says, so that nobody takes it for a real one.
const REASON: &str = "injected fault";

#[cfg(test)]
mod tests;
