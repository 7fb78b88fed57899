//! Registered keys at work: tried before they are registered, used with their roles, looked up wherever they are used.

use std::sync::Arc;

use saker_control::{
    ControlError, KeyUser, ProjectId, ProjectRecord, RegisteredKey,
    policy::{ProjectPolicy, is_principal, is_role_arn, principal_of},
    validate,
};
use saker_engine::KeyStatus;
use saker_keyring::{CallObserver, KeyProvider, KeyService as _, RootKeyId};
use saker_kms::{AwsRole, KeyServices};
use serde_json::json;

use super::{
    fleet::{Fleet, uses_of},
    views::KeyView,
};
use crate::{node::Node, rest::Caller};

impl Fleet {
    /// Tries a key, with its role if it has one, and registers it.
    ///
    /// # Errors
    /// [`ControlError`] that says what is wrong with it and what to do.
    pub(crate) async fn register_key(
        &self,
        project: &ProjectRecord,
        root: RootKeyId,
        role_arn: Option<String>,
    ) -> Result<KeyView, ControlError> {
        if let Some(role) = &role_arn {
            if root.provider() != KeyProvider::Aws {
                return Err(ControlError::invalid(
                    "roleArn",
                    "only AWS keys are used with a role; leave it out",
                ));
            }
            if !is_role_arn(role) {
                return Err(ControlError::invalid(
                    "roleArn",
                    "it must look like arn:aws:iam::ACCOUNT:role/NAME",
                ));
            }
        }
        self.registry().check_new_key(&project.id, &root)?;
        let key = RegisteredKey {
            root,
            role_arn,
            registered_ms: self.now_ms(),
        };
        // Services of its own: what is tried must not change how others use the same key.
        let services = KeyServices::connect(self.settings.keys.clone()).await;
        let services = services.map_err(|error| ControlError::invalid("key", error.to_string()))?;
        services.observe(Arc::clone(&self.main.audit) as Arc<dyn CallObserver>);
        services.set_aws_role(&key.root, role_of(project, &key)).await;
        let cluster = self.registry().validation_cluster(&project.id, &key.root);
        validate(&services, &key.root, &cluster).await?;
        let project = self.registry().add_key(&project.id, key.clone()).await?;
        for node in self.nodes_of(&project.id) {
            node.keys.set_aws_role(&key.root, role_of(&project, &key)).await;
        }
        Ok(self.key_view(&project.id, key).await)
    }
    /// Takes a key away from a project, unless something uses it.
    ///
    /// # Errors
    /// [`ControlError::KeyInUse`] with everybody who does.
    pub(crate) async fn remove_key(&self, project: &ProjectId, root: &RootKeyId) -> Result<(), ControlError> {
        let users = || async {
            if let Some(cluster) = self.unknown_member(project) {
                return Err(ControlError::ClusterState {
                    cluster,
                    state: "does not run, and nobody knows what it keeps under this key".to_owned(),
                    remedy: "start it and try again",
                });
            }
            self.users_of(project, root).await
        };
        self.registry().remove_key(project, root, users).await?;
        for node in self.nodes_of(project) {
            node.keys.set_aws_role(root, None).await;
        }
        Ok(())
    }
    /// A project's keys, with what its clusters know of each.
    ///
    /// # Errors
    /// [`ControlError::ProjectNotFound`].
    pub(crate) async fn key_views(&self, project: &str) -> Result<Vec<KeyView>, ControlError> {
        let project = self.registry().project(project)?;
        let mut views = Vec::with_capacity(project.keys.len());
        for key in project.keys {
            views.push(self.key_view(&project.id, key).await);
        }
        Ok(views)
    }
    /// One key.
    pub(crate) async fn key_view(&self, project: &ProjectId, key: RegisteredKey) -> KeyView {
        let mut users = self.registry().known_users(project, &key.root);
        users.extend(self.users_of(project, &key.root).await.unwrap_or_default());
        users.sort();
        users.dedup();
        let mut states = Vec::new();
        for node in self.nodes_of(project) {
            let known = node.engine.key_states().await.unwrap_or_default();
            let found = known.into_iter().find(|status| status.root == key.root);
            states.extend(found.map(|status| (Arc::clone(&node), status)));
        }
        KeyView { key, users, states }
    }
    /// What the customer has to allow, for the project's keys and `extra`.
    ///
    /// # Errors
    /// [`ControlError`]; also if nobody knows who this server is.
    pub(crate) async fn policy(&self, project: &str, extra: Option<&RootKeyId>) -> Result<ProjectPolicy, ControlError> {
        // What is wrong with the request is said before STS is asked.
        self.registry().policy(project, extra, "-")?;
        let principal = match &self.settings.control.aws_principal {
            Some(principal) => principal.clone(),
            None => {
                let caller = self.main.keys.aws_caller_arn().await;
                principal_of(&caller.map_err(|error| {
                    ControlError::NoPolicy(format!(
                        "{error}; check the AWS credentials of this server, or set control.aws_principal"
                    ))
                })?)
            }
        };
        if !is_principal(&principal) {
            return Err(ControlError::NoPolicy(format!(
                "this server's identity {principal} is no IAM user or role; set control.aws_principal"
            )));
        }
        self.registry().policy(project, extra, &principal)
    }
    /// Asks about some keys now, wherever `may` lets the caller look; gives what is known after that.
    pub(crate) async fn check_keys(
        &self,
        roots: &[RootKeyId],
        may: impl Fn(&ProjectId) -> bool,
    ) -> Vec<(Arc<Node>, KeyStatus)> {
        let nodes: Vec<_> = self.nodes().into_iter().map(|(_, node)| node).collect();
        let asked = nodes
            .iter()
            .filter(|node| may(&node.membership.project))
            .flat_map(|node| {
                roots.iter().map(move |root| async move {
                    let status = node.engine.check_key_now(root).await.ok().flatten();
                    status.map(|status| (Arc::clone(node), status))
                })
            });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }
    /// Lets the server's own cluster use its project's keys with their roles.
    pub(crate) async fn take_on_roles(&self, node: &Node) {
        self.give_roles(&node.keys, &node.membership.project).await;
    }
    /// Lets these key services use a project's keys with their roles.
    pub(super) async fn give_roles(&self, keys: &KeyServices, project: &ProjectId) {
        let Ok(project) = self.registry().project(project.as_str()) else {
            return;
        };
        for key in &project.keys {
            keys.set_aws_role(&key.root, role_of(&project, key)).await;
        }
    }

    /// Notes who changed what.
    pub(crate) fn note(&self, caller: &Caller, action: &'static str, project: &ProjectId, subject: Option<&str>) {
        let by = caller.name();
        tracing::info!(action, %project, subject, by, "control plane");
        let details = json!({ "project": project, "subject": subject, "by": by });
        // In the server's own log, and where the project's own people read it.
        self.main.audit.record(action, details.clone());
        for node in self.nodes_of(project) {
            if !Arc::ptr_eq(&node, &self.main) {
                node.audit.record(action, details.clone());
            }
        }
    }

    fn nodes_of(&self, project: &ProjectId) -> Vec<Arc<Node>> {
        let nodes = self.nodes().into_iter().map(|(_, node)| node);
        nodes.filter(|node| node.membership.project == *project).collect()
    }
    /// Who is under a key in clusters that run.
    async fn users_of(&self, project: &ProjectId, root: &RootKeyId) -> Result<Vec<KeyUser>, ControlError> {
        let mut users = Vec::new();
        for (name, node) in self.nodes() {
            if node.membership.project != *project {
                continue;
            }
            let uses = uses_of(&node).await?;
            users.extend(uses.into_iter().filter(|used| used.root == *root).map(|used| KeyUser {
                cluster: node.membership.cluster.clone(),
                cluster_name: name.clone(),
                database: Some(used.database),
                collection: used.collection,
            }));
        }
        Ok(users)
    }
}

fn role_of(project: &ProjectRecord, key: &RegisteredKey) -> Option<AwsRole> {
    key.role_arn.clone().map(|role_arn| AwsRole {
        role_arn,
        external_id: Some(project.external_id.clone()),
    })
}
