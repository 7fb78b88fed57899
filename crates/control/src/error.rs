//! Why the control plane did not do what was asked.

use std::net::SocketAddr;

use saker_keyring::RootKeyId;
use thiserror::Error;

use crate::{ClusterId, ControlStoreError, IdError, KeyUser, Place, ProjectId, ValidationError, registry::listed};

/// Why the control plane did not do what was asked; each message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// An id or name is not well-formed.
    #[error(transparent)]
    Malformed(#[from] IdError),
    /// A value of the request is wrong.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What it must be.
        reason: String,
    },
    /// No project of this id or name.
    #[error("there is no project {0:?}; `saker project list` shows those that there are")]
    ProjectNotFound(String),
    /// A project of this name is there.
    #[error("there is a project {0:?} already; choose another name")]
    ProjectExists(String),
    /// No cluster of this id or name.
    #[error("there is no cluster {0:?}; `saker cluster list` shows those that there are")]
    ClusterNotFound(String),
    /// Several projects have a cluster of this name.
    #[error("{name:?} is a cluster of several projects; name it by its id: {}", listed(.ids))]
    ClusterAmbiguous {
        /// The name.
        name: String,
        /// The clusters of this name.
        ids: Vec<ClusterId>,
    },
    /// The project has a cluster of this name.
    #[error("project {project} has a cluster {name:?} already; choose another name")]
    ClusterExists {
        /// The project.
        project: ProjectId,
        /// The name.
        name: String,
    },
    /// The address is another cluster's.
    #[error("{listen} is the address of cluster {cluster}; choose another port, or leave it out for any free one")]
    PortTaken {
        /// The address.
        listen: SocketAddr,
        /// Whose it is.
        cluster: ClusterId,
    },
    /// The server's own cluster is not the control plane's to change.
    #[error(
        "cluster {0} is the server's own: it runs as long as the server does, and can be neither stopped nor dropped"
    )]
    StandaloneCluster(ClusterId),
    /// The cluster is in a state in which this cannot be done.
    #[error("cluster {cluster} {state}; {remedy}")]
    ClusterState {
        /// The cluster.
        cluster: ClusterId,
        /// What is in the way.
        state: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A limit is reached.
    #[error("there are {limit} {what} already, the limit; {remedy}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A project has as many keys as it may.
    #[error(
        "project {project} has {limit} registered keys, the limit; remove one that nothing uses with `saker key remove`, \
         or register the key with another project"
    )]
    KeyLimit {
        /// The project.
        project: ProjectId,
        /// How many keys it may have.
        limit: usize,
    },
    /// The key is registered with the project.
    #[error(
        "key {root} is registered with project {project} already; a key counts once, use it as cipher.key of as many \
         databases as you like"
    )]
    KeyRegistered {
        /// The key.
        root: RootKeyId,
        /// The project.
        project: ProjectId,
    },
    /// The key is not registered with the project.
    #[error(
        "key {root} is not registered with project {project}; register it with `saker key add --project {project} --key {root}`"
    )]
    KeyNotRegistered {
        /// The key.
        root: RootKeyId,
        /// The project.
        project: ProjectId,
    },
    /// The key is being taken away from the project.
    #[error("key {root} is being removed from project {project}; use another key, or register it again")]
    KeyLeaving {
        /// The key.
        root: RootKeyId,
        /// The project.
        project: ProjectId,
    },
    /// Provider or region of the key are not the cluster's.
    #[error(
        "key {root} is with {} and cluster {cluster} takes keys of {place}; use a key there, or a cluster at the key's place",
        Place::of(.root)
    )]
    KeyElsewhere {
        /// The key.
        root: RootKeyId,
        /// The cluster.
        cluster: ClusterId,
        /// Where the cluster's keys are.
        place: Place,
    },
    /// Provider or region of the key are those of no cluster that the project has.
    #[error(
        "key {root} is with {}, and no cluster of project {project} takes keys from there ({}); use a key there, or make a \
         cluster at the key's place first", Place::of(.root), listed(.places)
    )]
    KeyElsewhereThanAll {
        /// The key.
        root: RootKeyId,
        /// The project.
        project: ProjectId,
        /// The clusters and where their keys are.
        places: Vec<String>,
    },
    /// Something goes under the key.
    #[error(
        "key {root} is in use and stays registered with project {project}: {}; drop those, or change their key, and try again",
        listed(.users)
    )]
    KeyInUse {
        /// The key.
        root: RootKeyId,
        /// The project.
        project: ProjectId,
        /// Who uses it.
        users: Vec<KeyUser>,
    },
    /// A database is being made under the key just now.
    #[error("key {root} is about to be used: something is being made under it just now; try again")]
    KeyBusy {
        /// The key.
        root: RootKeyId,
    },
    /// The key was tried and did not work.
    #[error(transparent)]
    KeyUnusable(#[from] ValidationError),
    /// A policy cannot be written for this.
    #[error("{0}")]
    NoPolicy(String),
    /// No API key of this id.
    #[error("there is no API key {0:?}; `saker api-key list` shows those that there are")]
    ApiKeyNotFound(String),
    /// The caller may not do this.
    #[error("this API key is for project {0} alone; use one with the scope admin, or of the other project")]
    OutOfScope(ProjectId),
    /// The operating system gives no random bytes.
    #[error("no random bytes from the operating system")]
    NoRandomness,
    /// What keeps the control plane's state failed.
    #[error(transparent)]
    Store(#[from] ControlStoreError),
}

/// What kind of failure, so that a caller can act without reading the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlErrorKind {
    /// The request is wrong.
    Invalid,
    /// What it is about is not there.
    NotFound,
    /// It does not fit what is there.
    Conflict,
    /// The caller may not.
    Forbidden,
    /// It may work later.
    Unavailable,
    /// A fault of the server.
    Internal,
}

impl ControlError {
    /// A wrong value.
    pub fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            reason: reason.into(),
        }
    }
    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ControlErrorKind {
        use ControlErrorKind as Kind;
        match self {
            Self::Malformed(_) | Self::Invalid { .. } | Self::NoPolicy(_) => Kind::Invalid,
            Self::KeyElsewhere { .. } | Self::KeyElsewhereThanAll { .. } => Kind::Invalid,
            Self::KeyUnusable(error) if error.is_outage() => Kind::Unavailable,
            Self::KeyUnusable(_) => Kind::Invalid,
            Self::ProjectNotFound(_)
            | Self::ClusterNotFound(_)
            | Self::ApiKeyNotFound(_)
            | Self::KeyNotRegistered { .. } => Kind::NotFound,
            Self::ProjectExists(_)
            | Self::ClusterExists { .. }
            | Self::ClusterAmbiguous { .. }
            | Self::PortTaken { .. }
            | Self::StandaloneCluster(_)
            | Self::ClusterState { .. }
            | Self::Limit { .. }
            | Self::KeyLimit { .. }
            | Self::KeyRegistered { .. }
            | Self::KeyLeaving { .. }
            | Self::KeyInUse { .. } => Kind::Conflict,
            Self::OutOfScope(_) => Kind::Forbidden,
            Self::KeyBusy { .. } => Kind::Unavailable,
            Self::Store(error) if error.is_temporary() => Kind::Unavailable,
            Self::NoRandomness | Self::Store(_) => Kind::Internal,
        }
    }
}
