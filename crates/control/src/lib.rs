//! The control plane's state and rules: projects, the root keys registered with them, clusters, API keys, and the
//! policies that a customer has to grant.
//!
//! What it is for: who may use which root key where is decided here, in one place: a key belongs to a project, a cluster
//! to one project, and a database of a cluster goes only under a key of the cluster's project.
//!
//! What it deliberately does not do: it serves no request and runs no cluster (`server` does), stores nothing itself
//! (it is handed a [`ControlStore`] that seals what it is given), and never asks a key service except to try a key
//! ([`validate`]).
//!
//! Start reading at [`Registry`], then [`policy`] for what the customer's side has to allow.
#![forbid(unsafe_code)]

mod api_keys;
mod clusters;
mod error;
mod event;
mod ids;
mod place;
pub mod policy;
mod records;
mod registry;
mod script;
mod store;
#[cfg(test)]
mod tests;
mod validate;

pub use api_keys::{ApiKeyInfo, IssuedApiKey};
pub use clusters::NewCluster;
pub use error::{ControlError, ControlErrorKind};
pub use event::{EventError, KeyEvent};
pub use ids::{ApiKeyId, ClusterId, IdError, ProjectId, check_name};
pub use place::Place;
pub use records::{ClusterRecord, KeyUse, ProjectRecord, RegisteredKey, Scope, Wanted};
pub use registry::{KeyPermit, KeyUser, Registry, Standalone};
pub use store::{ControlStore, ControlStoreError, ControlValue};
pub use validate::{ValidationError, validate};
