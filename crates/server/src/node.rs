//! One running node: the engine and what stands around it. Everything that serves requests shares it.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use saker_engine::{Clock, Engine};
use saker_model::Timestamp;

use crate::{auth::Authenticator, metrics::Metrics};

/// What serves requests.
#[derive(Debug)]
pub struct Node {
    /// The database engine.
    pub engine: Arc<Engine>,
    /// Who may use it.
    pub auth: Authenticator,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    clients: AtomicI64,
}

impl Node {
    /// A node over an open engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>, auth: Authenticator, metrics: Arc<Metrics>, clock: &dyn Clock) -> Self {
        // Identifiers of clients differ between runs, so that a client sees that the server is a new one.
        let first = i64::try_from(clock.wall_ms()).unwrap_or(1).max(1);
        Self {
            engine,
            auth,
            metrics,
            clients: AtomicI64::new(first),
        }
    }
    /// A fresh timestamp, greater than that of every write before.
    pub fn timestamp(&self) -> Timestamp {
        self.engine.allocate_timestamp()
    }
    /// A number for a client that connects; never 0.
    pub fn next_client_identifier(&self) -> i64 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }
    /// Which parts cannot serve and why; empty if all can.
    pub async fn health(&self) -> Vec<String> {
        match self.engine.list_databases().await {
            Ok(_) => Vec::new(),
            Err(error) => vec![format!("catalog: {error}")],
        }
    }
}
