//! Which connections carried rows of which databases, so that nothing of a locked database stays in their buffers.
//!
//! A connection's buffers keep bytes of past requests until later ones overwrite them, and no library gives a way to
//! wipe them. So a connection that carried requests for a database is closed once that database is locked: in an orderly
//! way, running requests end and clients connect again by themselves. Freed buffers are overwritten. A client that goes
//! on asking for a locked database is parted from again and again, at most once per [`SWEEP_INTERVAL`].
//!
//! What it deliberately does not do: it refuses nothing; leases do.
//!
//! Start reading at [`serve`].

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::Router;
use saker_engine::{Engine, LockStatus};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{listen, node::Node, rest::Searches};

/// How often connections are compared with the databases that are locked. Three of these and [`PARTING_MAX`] fit in the 30
/// seconds within which a lock leaves nothing in memory.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long the running requests of a connection may take once it is to be closed.
pub(crate) const PARTING_MAX: Duration = Duration::from_secs(10);
/// Most databases that are remembered for one connection; one that asks for more counts as having carried all.
const DATABASES_MAX: usize = 64;

/// Serves the node's port until `stop`, and meanwhile closes connections that carried requests for locked databases.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    node: Arc<Node>,
    stop: CancellationToken,
) {
    let connections = Connections::default();
    tokio::select! {
        () = listen::serve_known(listener, tls, router, Some(Searches::new(&node)), &connections, stop) => {}
        () = connections.sweep(&node.engine) => {}
    }
}

/// The connections of a port.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Vec<Weak<Inner>>>);

/// What one connection carried. Cheap to clone: each of its requests has one.
#[derive(Clone, Debug)]
pub(crate) struct Carried(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    databases: Mutex<Databases>,
    parting: CancellationToken,
}

#[derive(Debug, Default)]
struct Databases {
    named: BTreeSet<String>,
    /// There were more than are remembered.
    too_many: bool,
}

impl Connections {
    /// A connection was opened.
    pub(crate) fn open(&self) -> Carried {
        let inner = Arc::new(Inner::default());
        let mut connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Here, so that the list is never much longer than the connections are many.
        if connections.len() == connections.capacity() {
            connections.retain(|connection| connection.strong_count() > 0);
        }
        connections.push(Arc::downgrade(&inner));
        Carried(inner)
    }

    /// Closes connections that carried a locked database's requests, until it is dropped.
    async fn sweep(&self, engine: &Engine) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            let Ok(keys) = engine.key_states().await else {
                continue;
            };
            let locked: BTreeSet<&str> = keys
                .iter()
                .filter(|key| matches!(key.lock, LockStatus::Locked { .. }))
                .flat_map(|key| &key.databases)
                // A collection with a key of its own is `DATABASE/COLLECTION`.
                .map(|name| name.split('/').next().unwrap_or(name))
                .collect();
            let parted = self.part_from(&locked);
            if parted > 0 {
                tracing::debug!(parted, "connections that carried a locked database's rows are closed");
            }
        }
    }

    /// Tells the connections that carried any of these databases' requests to close; gives their number.
    fn part_from(&self, locked: &BTreeSet<&str>) -> usize {
        if locked.is_empty() {
            return 0;
        }
        let connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_locked = connections.iter().filter_map(Weak::upgrade).filter(|connection| {
            let databases = connection.databases.lock().unwrap_or_else(PoisonError::into_inner);
            databases.too_many || databases.named.iter().any(|name| locked.contains(name.as_str()))
        });
        of_locked
            .filter(|connection| !connection.parting.is_cancelled())
            .map(|connection| connection.parting.cancel())
            .count()
    }
}

impl Carried {
    /// A request of this connection is for this database, whether it exists or not.
    pub(crate) fn database(&self, name: &str) {
        let mut databases = self.0.databases.lock().unwrap_or_else(PoisonError::into_inner);
        if databases.too_many || databases.named.contains(name) {
            return;
        }
        if databases.named.len() == DATABASES_MAX {
            databases.too_many = true;
            databases.named.clear();
        } else {
            databases.named.insert(name.to_owned());
        }
    }

    /// Ends when the connection is to be closed.
    pub(crate) async fn parting(&self) {
        self.0.parting.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_that_carried_a_locked_database_are_closed() {
        let connections = Connections::default();
        let (ours, theirs, nobodys) = (connections.open(), connections.open(), connections.open());
        ours.database("ours");
        ours.database("other");
        theirs.database("theirs");
        assert_eq!(connections.part_from(&BTreeSet::new()), 0);
        assert_eq!(connections.part_from(&BTreeSet::from(["ours", "unknown"])), 1);
        assert!(ours.0.parting.is_cancelled());
        assert!(!theirs.0.parting.is_cancelled() && !nobodys.0.parting.is_cancelled());
        assert_eq!(connections.part_from(&BTreeSet::from(["ours"])), 0, "each is told once");
        drop(theirs);
        assert_eq!(connections.part_from(&BTreeSet::from(["theirs"])), 0);
    }

    #[test]
    fn databases_are_remembered_up_to_a_number() {
        for (databases, all) in [
            (DATABASES_MAX - 1, false),
            (DATABASES_MAX, false),
            (DATABASES_MAX + 1, true),
        ] {
            let connections = Connections::default();
            let carried = connections.open();
            for number in 0..databases {
                carried.database(&format!("db{number}"));
                carried.database("db0");
            }
            assert_eq!(connections.part_from(&BTreeSet::from(["another"])), usize::from(all));
        }
    }

    #[test]
    fn closed_connections_are_forgotten() {
        let connections = Connections::default();
        let kept = connections.open();
        for _ in 0..1_000 {
            drop(connections.open());
        }
        assert!(connections.0.lock().unwrap().len() < 20);
        drop(kept);
    }
}
