//! Translation between Milvus's wire types and `saker-model`.
//!
//! Everything a client sends is checked here, once, and becomes a type that can only hold valid values; nothing here
//! panics on input. It deliberately does no I/O and knows nothing of the engine but its rows and schemas.
//!
//! Start at [`rows_in`] (insert) and [`rows_out`] (results); failures become a [`Failure`].

pub mod failure;
pub mod functions;
pub mod pairs;
pub mod rows_in;
pub mod rows_out;
pub mod schema;
pub mod search;
pub mod sparse;
pub mod vectors_in;

pub use failure::Failure;
