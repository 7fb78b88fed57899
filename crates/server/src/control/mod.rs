//! The control plane at work: its values in the main catalog, its clusters in this process, keys tried and looked after.
//!
//! What it deliberately does not do: the rules are [`saker_control`]'s, the paths are in `rest/control`.
//!
//! Start reading at [`Fleet`].

mod fleet;
mod keys;
mod store;
mod views;

pub use fleet::Fleet;
pub(crate) use fleet::NewMember;
pub(crate) use store::EngineStore;
pub(crate) use views::{ClusterView, KeyView};
