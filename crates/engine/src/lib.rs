//! The engine: catalog, encryption zones, write path, flush, load, recovery and search over sealed stores.
//!
//! What it is for: everything between a decoded request and the stores. It can be used as an embedded library.
//!
//! What it deliberately does not do: no network, no Milvus wire types (`server` knows those), no cipher (keyring does
//! that), no files (storage does that).
//!
//! Start reading at [`Engine::open`].
#![forbid(unsafe_code)]

mod clock;
mod config;
mod error;
mod events;
mod face;
mod types;

pub use clock::{Clock, SystemClock};
pub use config::EngineConfig;
pub use error::{Error, ErrorKind, Result};
pub use events::{Event, EventSink, NoEvents};
pub use face::{Engine, Stores};
pub use types::*;
