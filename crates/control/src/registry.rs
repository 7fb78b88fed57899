//! Projects and their keys, and the state that all of the control plane shares.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use saker_keyring::RootKeyId;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::{
    ClusterId, ClusterRecord, ControlError, ControlStore, ControlStoreError, KeyUse, Place, ProjectId, ProjectRecord,
    RegisteredKey,
    api_keys::{ApiKeys, shown},
    check_name,
    ids::random_hex,
    records::ApiKeyRecord,
};

/// Kinds of stored values.
pub(crate) const PROJECT: &str = "project";
pub(crate) const CLUSTER: &str = "cluster";
pub(crate) const API_KEY: &str = "api-key";

/// Most projects; bounds memory and start-up time.
const PROJECTS_MAX: usize = 1_000;

/// The server's own cluster, as far as the control plane has to know.
#[derive(Clone, Debug)]
pub struct Standalone {
    /// Its id.
    pub id: ClusterId,
    /// Where its keys may be.
    pub place: Place,
    /// Root key of new databases that name none.
    pub default_key: Option<RootKeyId>,
    /// Whether its databases need keys that are registered with its project.
    pub registered_keys_only: bool,
}

/// Everything that the control plane knows. One per server; shared by its clusters.
#[derive(Debug)]
pub struct Registry {
    pub(crate) standalone: Standalone,
    store: Arc<dyn ControlStore>,
    pub(crate) state: RwLock<State>,
    /// Held while something is decided, stored and then put into `state`.
    pub(crate) changes: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(crate) struct State {
    projects: BTreeMap<ProjectId, ProjectRecord>,
    pub(crate) clusters: BTreeMap<ClusterId, ClusterRecord>,
    pub(crate) api_keys: ApiKeys,
    /// The project that owns the server's own cluster.
    pub(crate) standalone_project: ProjectId,
    /// Keys under which something is being made just now.
    permits: BTreeMap<(ProjectId, RootKeyId), Arc<()>>,
    /// Keys that are being removed.
    leaving: BTreeSet<(ProjectId, RootKeyId)>,
}

/// The right to make something under a key: the key stays registered as long as this lives.
#[derive(Clone, Debug)]
pub struct KeyPermit(#[expect(dead_code, reason = "counted, never looked at")] Option<Arc<()>>);

/// Who uses a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyUser {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub cluster_name: String,
    /// The database; `None`: it is the cluster's default key.
    pub database: Option<String>,
    /// The collection, if it has a key of its own.
    pub collection: Option<String>,
}

impl fmt::Display for KeyUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {} ({})", self.cluster_name, self.cluster)?;
        match (&self.database, &self.collection) {
            (None, _) => f.write_str(" as default key"),
            (Some(database), None) => write!(f, " database {database}"),
            (Some(database), Some(collection)) => write!(f, " database {database} collection {collection}"),
        }
    }
}

/// Most things that a message lists.
const LISTED_MAX: usize = 10;

/// Things in a message, not more than fit.
pub(crate) fn listed<T: fmt::Display>(things: &[T]) -> String {
    let mut text = things
        .iter()
        .take(LISTED_MAX)
        .map(T::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if things.len() > LISTED_MAX {
        text.push_str(&format!(" and {} more", things.len() - LISTED_MAX));
    }
    text
}

impl Registry {
    /// Most unique keys of a project.
    pub const KEYS_MAX: usize = 20;
    /// Name of the project that is there from the beginning and owns the server's own cluster.
    pub const DEFAULT_PROJECT: &str = "default";
    /// What the server's own cluster is called.
    pub const STANDALONE_NAME: &str = "standalone";

    /// Reads what is stored; makes the first project if there is none.
    ///
    /// # Errors
    /// [`ControlError::Store`], [`ControlError::NoRandomness`].
    pub async fn load(store: Arc<dyn ControlStore>, standalone: Standalone, now_ms: u64) -> Result<Self, ControlError> {
        let mut projects = BTreeMap::new();
        let mut clusters = BTreeMap::new();
        let mut api_keys = ApiKeys::default();
        for (key, value) in store.load().await? {
            match key.split_once('/') {
                Some((PROJECT, _)) => {
                    let record: ProjectRecord = opened(&key, &value)?;
                    projects.insert(record.id.clone(), record);
                }
                Some((CLUSTER, _)) => {
                    let record: ClusterRecord = opened(&key, &value)?;
                    clusters.insert(record.id.clone(), record);
                }
                Some((API_KEY, _)) => api_keys.insert(opened::<ApiKeyRecord>(&key, &value)?),
                _ => return Err(ControlStoreError::Unreadable { key }.into()),
            }
        }
        let first = projects
            .values()
            .find(|project: &&ProjectRecord| project.name == Self::DEFAULT_PROJECT);
        let standalone_project = match first {
            Some(project) => project.id.clone(),
            None => {
                let project = new_project(Self::DEFAULT_PROJECT, now_ms)?;
                let bytes = encoded(PROJECT, &project)?;
                store.save(&format!("{PROJECT}/{}", project.id), Some(&bytes)).await?;
                let id = project.id.clone();
                projects.insert(id.clone(), project);
                id
            }
        };
        Ok(Self {
            standalone,
            store,
            state: RwLock::new(State {
                projects,
                clusters,
                api_keys,
                standalone_project,
                permits: BTreeMap::new(),
                leaving: BTreeSet::new(),
            }),
            changes: tokio::sync::Mutex::new(()),
        })
    }
    /// The server's own cluster.
    #[must_use]
    pub fn standalone(&self) -> &Standalone {
        &self.standalone
    }
    /// The project that owns the server's own cluster.
    #[must_use]
    pub fn standalone_project(&self) -> ProjectId {
        read(&self.state).standalone_project.clone()
    }
    /// Makes a project.
    ///
    /// # Errors
    /// [`ControlError::Malformed`], [`ControlError::ProjectExists`], [`ControlError::Limit`], [`ControlError::Store`].
    pub async fn create_project(&self, name: &str, now_ms: u64) -> Result<ProjectRecord, ControlError> {
        check_name("project name", name)?;
        let _changes = self.changes.lock().await;
        {
            let state = read(&self.state);
            if state.projects.values().any(|project| project.name == name) {
                return Err(ControlError::ProjectExists(name.to_owned()));
            }
            if state.projects.len() >= PROJECTS_MAX {
                return Err(ControlError::Limit {
                    what: "projects",
                    limit: PROJECTS_MAX,
                    remedy: "use one of them, or run another server",
                });
            }
        }
        self.put_project(new_project(name, now_ms)?).await
    }
    /// All projects, oldest first.
    #[must_use]
    pub fn projects(&self) -> Vec<ProjectRecord> {
        let mut projects: Vec<_> = read(&self.state).projects.values().cloned().collect();
        projects.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        projects
    }
    /// A project by id or name.
    ///
    /// # Errors
    /// [`ControlError::ProjectNotFound`].
    pub fn project(&self, id_or_name: &str) -> Result<ProjectRecord, ControlError> {
        let state = read(&self.state);
        let mut projects = state.projects.values();
        let found = projects.find(|project| project.id.as_str() == id_or_name || project.name == id_or_name);
        found
            .cloned()
            .ok_or_else(|| ControlError::ProjectNotFound(shown(id_or_name)))
    }
    /// A registered key.
    ///
    /// # Errors
    /// [`ControlError::ProjectNotFound`], [`ControlError::KeyNotRegistered`].
    pub fn key(&self, project: &str, root: &RootKeyId) -> Result<RegisteredKey, ControlError> {
        let project = self.project(project)?;
        let found = project.keys.iter().find(|key| key.root == *root).cloned();
        found.ok_or_else(|| ControlError::KeyNotRegistered {
            root: root.clone(),
            project: project.id,
        })
    }
    /// Whether a key could be registered: before it is tried.
    ///
    /// # Errors
    /// [`ControlError`] that says why not.
    pub fn check_new_key(&self, project: &ProjectId, root: &RootKeyId) -> Result<(), ControlError> {
        let owner = self.project(project.as_str())?;
        if *root == RootKeyId::platform_file() {
            return Err(ControlError::invalid(
                "key",
                "the platform key is the server's own and needs no registration; give a customer's key",
            ));
        }
        if owner.keys.iter().any(|key| key.root == *root) {
            return Err(ControlError::KeyRegistered {
                root: root.clone(),
                project: owner.id,
            });
        }
        if owner.keys.len() >= Self::KEYS_MAX {
            return Err(ControlError::KeyLimit {
                project: owner.id,
                limit: Self::KEYS_MAX,
            });
        }
        let places = self.places(&owner.id);
        if !places.is_empty() && !places.iter().any(|(_, place)| place.accepts(root)) {
            return Err(ControlError::KeyElsewhereThanAll {
                root: root.clone(),
                project: owner.id,
                places: places
                    .iter()
                    .map(|(cluster, place)| format!("{cluster}: {place}"))
                    .collect(),
            });
        }
        Ok(())
    }
    /// Registers a key that was tried.
    ///
    /// # Errors
    /// As [`Self::check_new_key`], and [`ControlError::Store`].
    pub async fn add_key(&self, project: &ProjectId, key: RegisteredKey) -> Result<ProjectRecord, ControlError> {
        let _changes = self.changes.lock().await;
        self.check_new_key(project, &key.root)?;
        let mut owner = self.project(project.as_str())?;
        owner.keys.push(key);
        self.put_project(owner).await
    }
    /// Takes a key away from a project, unless something uses it. `users` says who does, of what only the clusters know;
    /// nothing new can go under the key while it is asked.
    ///
    /// # Errors
    /// [`ControlError::KeyNotRegistered`], [`ControlError::KeyInUse`], [`ControlError::KeyBusy`], [`ControlError::Store`].
    pub async fn remove_key<Asked>(
        &self,
        project: &ProjectId,
        root: &RootKeyId,
        users: impl FnOnce() -> Asked + Send,
    ) -> Result<RegisteredKey, ControlError>
    where
        Asked: Future<Output = Result<Vec<KeyUser>, ControlError>> + Send,
    {
        let _changes = self.changes.lock().await;
        let removed = self.key(project.as_str(), root)?;
        let _leaving = Leaving::begin(self, project, root)?;
        let mut found = self.default_users(project, root);
        found.extend(users().await?);
        if !found.is_empty() {
            found.sort();
            found.dedup();
            return Err(ControlError::KeyInUse {
                root: root.clone(),
                project: project.clone(),
                users: found,
            });
        }
        let mut owner = self.project(project.as_str())?;
        owner.keys.retain(|key| key.root != *root);
        self.put_project(owner).await?;
        Ok(removed)
    }
    /// The right to put something of this cluster under a key.
    ///
    /// # Errors
    /// [`ControlError::KeyElsewhere`], [`ControlError::KeyNotRegistered`], [`ControlError::KeyLeaving`].
    pub fn permit(&self, cluster: &ClusterId, root: &RootKeyId) -> Result<KeyPermit, ControlError> {
        let mut state = self.write();
        let (project, place, registered_only) = if *cluster == self.standalone.id {
            let place = self.standalone.place.clone();
            (
                state.standalone_project.clone(),
                place,
                self.standalone.registered_keys_only,
            )
        } else {
            let record = state.clusters.get(cluster);
            let record = record.ok_or_else(|| ControlError::ClusterNotFound(cluster.to_string()))?;
            (record.project.clone(), record.place.clone(), true)
        };
        let registered = state
            .projects
            .get(&project)
            .is_some_and(|owner| owner.keys.iter().any(|key| key.root == *root));
        if !registered {
            if registered_only {
                return Err(ControlError::KeyNotRegistered {
                    root: root.clone(),
                    project,
                });
            }
            return Ok(KeyPermit(None));
        }
        if !place.accepts(root) {
            return Err(ControlError::KeyElsewhere {
                root: root.clone(),
                cluster: cluster.clone(),
                place,
            });
        }
        let entry = (project, root.clone());
        if state.leaving.contains(&entry) {
            let (project, root) = entry;
            return Err(ControlError::KeyLeaving { root, project });
        }
        Ok(KeyPermit(Some(Arc::clone(state.permits.entry(entry).or_default()))))
    }
    /// Whom a stopped cluster's last look at its databases shows, and clusters whose default key it is.
    fn default_users(&self, project: &ProjectId, root: &RootKeyId) -> Vec<KeyUser> {
        let state = read(&self.state);
        let mut users = Vec::new();
        if *project == state.standalone_project && self.standalone.default_key.as_ref() == Some(root) {
            users.push(KeyUser {
                cluster: self.standalone.id.clone(),
                cluster_name: Self::STANDALONE_NAME.to_owned(),
                database: None,
                collection: None,
            });
        }
        for cluster in state.clusters.values().filter(|cluster| cluster.project == *project) {
            if cluster.default_key.as_ref() == Some(root) {
                users.push(cluster.user(None));
            }
            users.extend(
                cluster
                    .uses
                    .iter()
                    .flatten()
                    .filter(|used| used.root == *root)
                    .map(|used| cluster.user(Some(used))),
            );
        }
        users
    }
    /// Who uses a key, as far as it is known without asking a running cluster.
    #[must_use]
    pub fn known_users(&self, project: &ProjectId, root: &RootKeyId) -> Vec<KeyUser> {
        self.default_users(project, root)
    }
    /// The project's clusters and where their keys may be.
    fn places(&self, project: &ProjectId) -> Vec<(String, Place)> {
        let state = read(&self.state);
        let own = (*project == state.standalone_project)
            .then(|| (Self::STANDALONE_NAME.to_owned(), self.standalone.place.clone()));
        let made = state.clusters.values().filter(|cluster| cluster.project == *project);
        own.into_iter()
            .chain(made.map(|cluster| (cluster.name.clone(), cluster.place.clone())))
            .collect()
    }
    /// What stands as `saker:cluster` in a call that tries a key of this project: one of its clusters that could use it,
    /// or the project itself while there is none.
    #[must_use]
    pub fn validation_cluster(&self, project: &ProjectId, root: &RootKeyId) -> String {
        let state = read(&self.state);
        if *project == state.standalone_project {
            return self.standalone.id.to_string();
        }
        let mut clusters = state.clusters.values();
        let fits = |cluster: &&ClusterRecord| cluster.project == *project && cluster.place.accepts(root);
        clusters
            .find(fits)
            .map_or_else(|| project.to_string(), |cluster| cluster.id.to_string())
    }
    /// What may stand as `saker:cluster` in calls for this project, as patterns of a policy: its clusters, those to come
    /// included, and the project itself (before it has one).
    #[must_use]
    pub fn context_patterns(&self, project: &ProjectId) -> Vec<String> {
        let mut patterns = vec![project.to_string(), format!("{project}-*")];
        if *project == self.standalone_project() {
            patterns.push(self.standalone.id.to_string());
        }
        patterns
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn put_project(&self, project: ProjectRecord) -> Result<ProjectRecord, ControlError> {
        self.save(PROJECT, project.id.as_str(), Some(&project)).await?;
        self.write().projects.insert(project.id.clone(), project.clone());
        Ok(project)
    }

    pub(crate) async fn save<T: Serialize + Sync>(
        &self,
        kind: &str,
        id: &str,
        record: Option<&T>,
    ) -> Result<(), ControlError> {
        let key = format!("{kind}/{id}");
        let bytes = record.map(|record| encoded(kind, record)).transpose()?;
        let bytes = bytes.as_ref().map(|bytes| bytes.as_slice());
        Ok(self.store.save(&key, bytes).await?)
    }
}

impl ClusterRecord {
    /// Somebody of this cluster, or its default key.
    #[must_use]
    pub fn user(&self, used: Option<&KeyUse>) -> KeyUser {
        KeyUser {
            cluster: self.id.clone(),
            cluster_name: self.name.clone(),
            database: used.map(|used| used.database.clone()),
            collection: used.and_then(|used| used.collection.clone()),
        }
    }
}

/// Keeps everybody away from a key that is being removed, until dropped.
struct Leaving<'a> {
    registry: &'a Registry,
    entry: (ProjectId, RootKeyId),
}

impl<'a> Leaving<'a> {
    fn begin(registry: &'a Registry, project: &ProjectId, root: &RootKeyId) -> Result<Self, ControlError> {
        let entry = (project.clone(), root.clone());
        let mut state = registry.write();
        if state
            .permits
            .get(&entry)
            .is_some_and(|permit| Arc::strong_count(permit) > 1)
        {
            return Err(ControlError::KeyBusy { root: root.clone() });
        }
        state.permits.remove(&entry);
        state.leaving.insert(entry.clone());
        Ok(Self { registry, entry })
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.registry.write().leaving.remove(&self.entry);
    }
}

fn new_project(name: &str, now_ms: u64) -> Result<ProjectRecord, ControlError> {
    Ok(ProjectRecord {
        id: ProjectId::random()?,
        name: name.to_owned(),
        created_ms: now_ms,
        external_id: format!("saker-{}", random_hex::<16>()?),
        keys: Vec::new(),
    })
}

fn encoded<T: Serialize>(kind: &str, record: &T) -> Result<Zeroizing<Vec<u8>>, ControlError> {
    let bytes =
        serde_json::to_vec(record).map_err(|_| ControlStoreError::Refused(format!("a {kind} cannot be encoded")))?;
    Ok(Zeroizing::new(bytes))
}

fn opened<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, ControlError> {
    serde_json::from_slice(value).map_err(|_| {
        // The decoder's message would quote the record.
        ControlStoreError::Unreadable { key: key.to_owned() }.into()
    })
}

pub(crate) fn read(state: &RwLock<State>) -> RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}
