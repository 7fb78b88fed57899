//! A server core in a temporary directory, for tests of limits that no client could reach in reasonable time.

use std::sync::Arc;

use saker_keyring::{BlobKey, random_key};
use serde_json::Value;

use super::{
    core::{Call, Caller, Core},
    names::Names,
    policy::{Asker, Kind, Policy, Values},
    records::Records,
    store::Store,
    trail::Trail,
};

pub(super) fn names() -> Names {
    Names {
        region: "us-east-1".into(),
        account: "000000000000".into(),
    }
}

/// Runs `test` with a call of a caller who may do everything, on a server that holds `records`.
pub(super) fn with_call(records: Records, test: impl FnOnce(&mut Call<'_>)) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = runtime
        .block_on(Store::open(&dir.path().join("records"), random_key()))
        .unwrap();
    let sessions = BlobKey::new(&random_key(), "test");
    let trail = Trail::open(dir.path()).unwrap();
    let core = Core::new(names(), Arc::new(|| 0), trail, store, records, sessions);
    let everything = r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
    let caller = Caller {
        asker: Asker {
            account: names().account,
            arn: names().user_arn("customer"),
            principal_arn: names().user_arn("customer"),
            identity: vec![Policy::parse(everything, Kind::Identity).unwrap()],
        },
        values: Values::default(),
        identity: Value::Null,
        user_id: String::new(),
    };
    test(&mut Call {
        core: &core,
        caller: &caller,
        now_ms: 0,
        used: Vec::new(),
    });
}
