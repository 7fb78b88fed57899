//! The rules, over a store in memory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use saker_keyring::RootKeyId;
use zeroize::Zeroizing;

use crate::{
    ClusterId, ControlError, ControlErrorKind, ControlStore, ControlStoreError, ControlValue, KeyUse, KeyUser,
    NewCluster, Place, ProjectId, RegisteredKey, Registry, Scope, Standalone, Wanted,
    policy::{self, principal_of},
};

/// Keeps values in memory, and says no on demand.
#[derive(Debug, Default)]
struct MemoryStore {
    values: Mutex<BTreeMap<String, Vec<u8>>>,
    refuse: Mutex<bool>,
}

#[async_trait]
impl ControlStore for MemoryStore {
    async fn load(&self) -> Result<Vec<ControlValue>, ControlStoreError> {
        let values = self.values.lock().unwrap();
        Ok(values
            .iter()
            .map(|(key, value)| (key.clone(), Zeroizing::new(value.clone())))
            .collect())
    }
    async fn save(&self, key: &str, value: Option<&[u8]>) -> Result<(), ControlStoreError> {
        if *self.refuse.lock().unwrap() {
            return Err(ControlStoreError::Refused("no space".into()));
        }
        let mut values = self.values.lock().unwrap();
        match value {
            Some(value) => values.insert(key.to_owned(), value.to_vec()),
            None => values.remove(key),
        };
        Ok(())
    }
}

fn key(number: usize) -> RootKeyId {
    format!("arn:aws:kms:us-east-1:000000000000:key/{number}")
        .parse()
        .unwrap()
}

fn registered(number: usize) -> RegisteredKey {
    RegisteredKey {
        root: key(number),
        role_arn: None,
        registered_ms: 7,
    }
}

fn standalone(registered_keys_only: bool) -> Standalone {
    Standalone {
        id: "0b6d9a0e-0000-4000-8000-000000000000".parse().unwrap(),
        place: Place {
            provider: None,
            region: Some("us-east-1".into()),
        },
        default_key: None,
        registered_keys_only,
    }
}

async fn open(store: &Arc<MemoryStore>) -> Registry {
    let store: Arc<dyn ControlStore> = Arc::clone(store) as _;
    Registry::load(store, standalone(false), 1).await.unwrap()
}

fn new_cluster(project: &ProjectId, name: &str, port: u16) -> NewCluster {
    NewCluster {
        project: project.clone(),
        name: name.into(),
        listen: SocketAddr::from(([127, 0, 0, 1], port)),
        place: Place::of(&key(0)),
        default_key: None,
    }
}

async fn nobody() -> Result<Vec<KeyUser>, ControlError> {
    Ok(Vec::new())
}

#[tokio::test]
async fn the_first_project_is_there_and_everything_comes_back() {
    let store = Arc::new(MemoryStore::default());
    let registry = open(&store).await;
    assert_eq!(registry.projects().len(), 1);
    let first = registry.project("default").unwrap();
    assert_eq!(registry.standalone_project(), first.id);
    let other = registry.create_project("tenant", 2).await.unwrap();
    assert_ne!(other.external_id, first.external_id);
    let other = registry.add_key(&other.id, registered(1)).await.unwrap();
    let cluster = registry
        .create_cluster(new_cluster(&other.id, "a", 1), 3)
        .await
        .unwrap();
    let issued = registry
        .create_api_key("ci", Scope::Project(other.id.clone()), 4)
        .await
        .unwrap();
    let again = open(&store).await;
    assert_eq!(again.projects(), registry.projects());
    assert_eq!(again.clusters(), vec![cluster]);
    assert_eq!(
        again.authenticate(&issued.secret, 9).unwrap().scope,
        Scope::Project(other.id)
    );
    assert_eq!(again.api_keys()[0].used_ms, Some(9));
    // No secret is stored.
    for value in store.values.lock().unwrap().values() {
        assert!(!String::from_utf8_lossy(value).contains(issued.secret.trim_start_matches("sk-")));
    }
}

#[tokio::test]
async fn twenty_keys_and_no_more_and_none_twice() {
    let registry = open(&Arc::default()).await;
    let project = registry.standalone_project();
    for number in 0..Registry::KEYS_MAX {
        registry.add_key(&project, registered(number)).await.unwrap();
    }
    let full = registry.add_key(&project, registered(20)).await.unwrap_err();
    assert!(full.to_string().contains("20 registered keys") && full.to_string().contains("saker key remove"));
    let twice = registry.add_key(&project, registered(3)).await.unwrap_err();
    assert!(twice.to_string().contains("registered with project"), "{twice}");
    assert_eq!(twice.kind(), ControlErrorKind::Conflict);
    // Another project has a count of its own, and a key may be in both.
    let other = registry.create_project("other", 1).await.unwrap();
    registry.add_key(&other.id, registered(3)).await.unwrap();
    registry.remove_key(&project, &key(3), nobody).await.unwrap();
    registry.add_key(&project, registered(20)).await.unwrap();
    assert!(registry.key("other", &key(3)).is_ok() && registry.key("default", &key(3)).is_err());
}

#[tokio::test]
async fn a_key_has_to_be_where_a_cluster_is() {
    let registry = open(&Arc::default()).await;
    let west: RootKeyId = "arn:aws:kms:us-west-2:000000000000:key/a".parse().unwrap();
    let error = registry
        .check_new_key(&registry.standalone_project(), &west)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("us-west-2") && text.contains("standalone: any provider in us-east-1"),
        "{text}"
    );
    let other = registry.create_project("other", 1).await.unwrap();
    registry.check_new_key(&other.id, &west).unwrap();
    registry
        .create_cluster(new_cluster(&other.id, "east", 1), 1)
        .await
        .unwrap();
    assert!(registry.check_new_key(&other.id, &west).is_err());
    let platform = registry
        .check_new_key(&other.id, &RootKeyId::platform_file())
        .unwrap_err();
    assert_eq!(platform.kind(), ControlErrorKind::Invalid);
}

#[tokio::test]
async fn a_key_in_use_stays() {
    let registry = open(&Arc::default()).await;
    let other = registry.create_project("other", 1).await.unwrap();
    registry.add_key(&other.id, registered(1)).await.unwrap();
    let new = NewCluster {
        default_key: Some(key(1)),
        ..new_cluster(&other.id, "a", 1)
    };
    let cluster = registry.create_cluster(new, 1).await.unwrap();
    let refused = registry
        .remove_key(&other.id, &key(1), nobody)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("cluster a") && refused.contains("as default key"),
        "{refused}"
    );

    registry.add_key(&other.id, registered(2)).await.unwrap();
    let user = cluster.user(Some(&KeyUse {
        root: key(2),
        database: "orders".into(),
        collection: None,
    }));
    let asked = || async { Ok(vec![user.clone()]) };
    let refused = registry
        .remove_key(&other.id, &key(2), asked)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("database orders"), "{refused}");

    // What a cluster used when it was stopped counts as well.
    registry.add_key(&other.id, registered(3)).await.unwrap();
    let uses = vec![KeyUse {
        root: key(3),
        database: "archive".into(),
        collection: Some("notes".into()),
    }];
    registry
        .want_cluster(&cluster.id, Wanted::Stopped, Some(uses))
        .await
        .unwrap();
    let refused = registry
        .remove_key(&other.id, &key(3), nobody)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("database archive collection notes"), "{refused}");
    registry.forget_cluster(&cluster.id).await.unwrap();
    for number in 1..=3 {
        registry.remove_key(&other.id, &key(number), nobody).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_goes_under_a_key_that_is_being_removed() {
    let registry = Arc::new(open(&Arc::default()).await);
    let other = registry.create_project("other", 1).await.unwrap();
    registry.add_key(&other.id, registered(1)).await.unwrap();
    let cluster = registry
        .create_cluster(new_cluster(&other.id, "a", 1), 1)
        .await
        .unwrap();
    let permit = registry.permit(&cluster.id, &key(1)).unwrap();
    let busy = registry.remove_key(&other.id, &key(1), nobody).await.unwrap_err();
    assert!(matches!(busy, ControlError::KeyBusy { .. }));
    drop(permit);
    let meanwhile = || async {
        let refused = registry.permit(&cluster.id, &key(1)).unwrap_err();
        assert!(matches!(refused, ControlError::KeyLeaving { .. }));
        Err(ControlError::KeyBusy { root: key(1) })
    };
    assert!(registry.remove_key(&other.id, &key(1), meanwhile).await.is_err());
    // The removal failed, so the key is as it was.
    registry.permit(&cluster.id, &key(1)).unwrap();
}

#[tokio::test]
async fn clusters_need_registered_keys_and_the_standalone_one_if_it_is_told_to() {
    let registry = open(&Arc::default()).await;
    let other = registry.create_project("other", 1).await.unwrap();
    let cluster = registry
        .create_cluster(new_cluster(&other.id, "a", 1), 1)
        .await
        .unwrap();
    let refused = registry.permit(&cluster.id, &key(1)).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("saker key add --project {}", other.id)),
        "{refused}"
    );
    registry.add_key(&other.id, registered(1)).await.unwrap();
    registry.permit(&cluster.id, &key(1)).unwrap();
    let own = registry.standalone().id.clone();
    registry.permit(&own, &key(5)).unwrap();
    let store: Arc<dyn ControlStore> = Arc::new(MemoryStore::default());
    let strict = Registry::load(store, standalone(true), 1).await.unwrap();
    assert!(matches!(
        strict.permit(&own, &key(5)),
        Err(ControlError::KeyNotRegistered { .. })
    ));
    let west = "arn:aws:kms:us-west-2:000000000000:key/w".parse().unwrap();
    let third = registry.create_project("third", 1).await.unwrap();
    let root = RegisteredKey {
        root: west,
        ..registered(0)
    };
    registry.add_key(&third.id, root.clone()).await.unwrap();
    let east = registry
        .create_cluster(new_cluster(&third.id, "east", 2), 1)
        .await
        .unwrap();
    let elsewhere = registry.permit(&east.id, &root.root).unwrap_err().to_string();
    assert!(
        elsewhere.contains("us-west-2") && elsewhere.contains("us-east-1"),
        "{elsewhere}"
    );
}

#[tokio::test]
async fn clusters_have_names_and_ports_of_their_own() {
    let registry = open(&Arc::default()).await;
    let other = registry.create_project("other", 1).await.unwrap();
    let first = registry
        .create_cluster(new_cluster(&other.id, "a", 1), 1)
        .await
        .unwrap();
    let same_name = registry
        .create_cluster(new_cluster(&other.id, "a", 2), 1)
        .await
        .unwrap_err();
    assert!(matches!(same_name, ControlError::ClusterExists { .. }));
    let same_port = registry
        .create_cluster(new_cluster(&other.id, "b", 1), 1)
        .await
        .unwrap_err();
    assert!(same_port.to_string().contains(first.id.as_str()), "{same_port}");
    let third = registry.create_project("third", 1).await.unwrap();
    registry
        .create_cluster(new_cluster(&third.id, "a", 3), 1)
        .await
        .unwrap();
    assert!(matches!(
        registry.cluster("a"),
        Err(ControlError::ClusterAmbiguous { .. })
    ));
    assert_eq!(registry.cluster(first.id.as_str()).unwrap(), first);
    assert!(matches!(
        registry.cluster("standalone"),
        Err(ControlError::StandaloneCluster(_))
    ));
    let unregistered = NewCluster {
        default_key: Some(key(9)),
        ..new_cluster(&third.id, "c", 4)
    };
    let refused = registry.create_cluster(unregistered, 1).await.unwrap_err();
    assert!(matches!(refused, ControlError::KeyNotRegistered { .. }));
}

#[tokio::test]
async fn api_keys_are_revoked_at_once() {
    let store = Arc::new(MemoryStore::default());
    let registry = open(&store).await;
    let issued = registry.create_api_key("ci", Scope::Admin, 1).await.unwrap();
    assert!(issued.secret.starts_with("sk-") && issued.secret.len() == 46);
    assert!(!format!("{issued:?}").contains(issued.secret.as_str()));
    assert!(registry.authenticate(&issued.secret, 2).is_some());
    assert!(registry.authenticate(&issued.secret[..45], 2).is_none());
    *store.refuse.lock().unwrap() = true;
    assert_eq!(
        registry
            .revoke_api_key(issued.info.id.as_str())
            .await
            .unwrap_err()
            .kind(),
        ControlErrorKind::Unavailable
    );
    assert!(registry.authenticate(&issued.secret, 2).is_some());
    *store.refuse.lock().unwrap() = false;
    registry.revoke_api_key(issued.info.id.as_str()).await.unwrap();
    assert!(registry.authenticate(&issued.secret, 2).is_none());
    assert!(open(&store).await.api_keys().is_empty());
    assert!(matches!(
        registry.revoke_api_key("key-1").await,
        Err(ControlError::ApiKeyNotFound(_))
    ));
    let unknown = Scope::Project("proj-1".parse().unwrap());
    assert!(matches!(
        registry.create_api_key("x", unknown, 1).await,
        Err(ControlError::ProjectNotFound(_))
    ));
}

#[tokio::test]
async fn a_failed_store_changes_nothing() {
    let store = Arc::new(MemoryStore::default());
    let registry = open(&store).await;
    *store.refuse.lock().unwrap() = true;
    assert!(registry.create_project("x", 1).await.is_err());
    assert!(registry.project("x").is_err());
    let project = registry.standalone_project();
    assert!(registry.add_key(&project, registered(1)).await.is_err());
    assert!(registry.key("default", &key(1)).is_err());
}

#[tokio::test]
async fn policies_name_one_principal_two_actions_and_the_keys() {
    let registry = open(&Arc::default()).await;
    let other = registry.create_project("other", 1).await.unwrap();
    let none = registry
        .policy("other", None, "arn:aws:iam::000000000000:user/saker")
        .unwrap_err();
    assert!(none.to_string().contains("--key"), "{none}");
    let with_role = RegisteredKey {
        role_arn: Some(format!("arn:aws:iam::000000000000:role/{}", policy::role_name(&other))),
        ..registered(1)
    };
    registry.add_key(&other.id, with_role).await.unwrap();
    // Used with Saker's own identity: the role has no business with it.
    registry.add_key(&other.id, registered(3)).await.unwrap();
    let far: RootKeyId = "arn:aws:kms:us-east-1:111111111111:key/far".parse().unwrap();
    let principal = "arn:aws:iam::000000000000:user/saker";
    let policy = registry.policy("other", Some(&far), principal).unwrap();
    assert_eq!(
        policy.accounts.len(),
        1,
        "only the account of the key that was asked about"
    );
    let policy = registry.policy("other", Some(&key(2)), principal).unwrap();
    let [account] = &policy.accounts[..] else { panic!() };
    assert_eq!(
        account.role_arn,
        format!("arn:aws:iam::000000000000:role/{}", account.role_name)
    );
    assert_eq!(account.trust_policy["Statement"][0]["Principal"]["AWS"], principal);
    assert_eq!(
        account.trust_policy["Statement"][0]["Condition"]["StringEquals"]["sts:ExternalId"],
        other.external_id
    );
    let role = &account.role_policy["Statement"][0];
    assert_eq!(
        role["Action"],
        serde_json::json!(["kms:Decrypt", "kms:GenerateDataKey"])
    );
    assert_eq!(role["Resource"], serde_json::json!([key(1).as_str(), key(2).as_str()]));
    assert_eq!(account.key_statements.len(), 1);
    let context = &account.key_statements[0].1["Condition"]["StringLike"]["kms:EncryptionContext:saker:cluster"];
    assert_eq!(
        context,
        &serde_json::json!([other.id.as_str(), format!("{}-*", other.id)])
    );
    let pairs = saker_keyring::EncryptionContext {
        cluster: "c".into(),
        database: "d".into(),
        purpose: saker_keyring::KeyPurpose::ZoneKey,
    }
    .pairs();
    let names =
        &account.role_policy["Statement"][0]["Condition"]["ForAllValues:StringEquals"]["kms:EncryptionContextKeys"];
    assert_eq!(names, &serde_json::json!(pairs.keys().collect::<Vec<_>>()));
    let script = policy.script();
    for part in [
        account.role_name.as_str(),
        principal,
        &other.external_id,
        "--role-arn",
        key(2).as_str(),
    ] {
        assert!(script.contains(part), "{part}");
    }
    assert!(account.role_name.len() <= 64);
    let transit = "vault://transit/k".parse().unwrap();
    assert!(registry.policy("other", Some(&transit), principal).is_err());
}

#[test]
fn a_sessions_principal_is_its_role() {
    assert_eq!(
        principal_of("arn:aws:sts::123456789012:assumed-role/saker-node/i-1"),
        "arn:aws:iam::123456789012:role/saker-node"
    );
    let user = "arn:aws:iam::123456789012:user/saker";
    assert_eq!(principal_of(user), user);
    assert!(policy::is_principal(user) && !policy::is_role_arn(user));
    assert!(policy::is_role_arn("arn:aws:iam::123456789012:role/a/b"));
    for bad in [
        "",
        "user",
        "arn:aws:iam::1:user/a'b",
        "arn:aws:iam::1:user/a b",
        "arn:aws:s3:::x",
    ] {
        assert!(!policy::is_principal(bad), "{bad}");
    }
}

#[tokio::test]
async fn a_key_is_tried_in_the_context_of_a_cluster_that_can_use_it() {
    let registry = open(&Arc::default()).await;
    let own: ClusterId = registry.standalone().id.clone();
    assert_eq!(
        registry.validation_cluster(&registry.standalone_project(), &key(1)),
        own.to_string()
    );
    let other = registry.create_project("other", 1).await.unwrap();
    assert_eq!(registry.validation_cluster(&other.id, &key(1)), other.id.to_string());
    let cluster = registry
        .create_cluster(new_cluster(&other.id, "a", 1), 1)
        .await
        .unwrap();
    assert_eq!(registry.validation_cluster(&other.id, &key(1)), cluster.id.to_string());
}
