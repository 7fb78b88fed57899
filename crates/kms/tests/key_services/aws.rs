//! AWS KMS: the client against the local key server.

use std::sync::Arc;

use async_trait::async_trait;
use saker_keyring::{Denial, KeyService, RootKeyId};
use serde_json::json;

use crate::{
    suite::{self, Subject},
    support::Server,
};

struct Aws(Server);

#[async_trait]
impl Subject for Aws {
    async fn client(&self) -> Arc<dyn KeyService> {
        Arc::new(self.0.saker().await)
    }
    async fn new_key(&self) -> RootKeyId {
        self.0.new_key().await
    }
    fn missing_key(&self) -> RootKeyId {
        "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-0000-0000-000000000000"
            .parse()
            .unwrap()
    }
    async fn rotate(&self, root: &RootKeyId) {
        let request = self.0.sdk("customer").rotate_key_on_demand();
        request.key_id(root.as_str()).send().await.unwrap();
    }
    fn switches(&self) -> Vec<(&'static str, Denial)> {
        vec![
            ("disabled", Denial::Disabled),
            ("pending deletion", Denial::PendingDeletion),
            ("policy", Denial::AccessDenied),
        ]
    }
    async fn off(&self, root: &RootKeyId, switch: &str) {
        let (sdk, id) = (self.0.sdk("customer"), root.as_str());
        match switch {
            "disabled" => drop(sdk.disable_key().key_id(id).send().await.unwrap()),
            "pending deletion" => drop(sdk.schedule_key_deletion().key_id(id).send().await.unwrap()),
            _ => self.put_policy(root, "arn:aws:iam::000000000000:user/customer").await,
        }
    }
    async fn on(&self, root: &RootKeyId, switch: &str) {
        let (sdk, id) = (self.0.sdk("customer"), root.as_str());
        match switch {
            "disabled" => drop(sdk.enable_key().key_id(id).send().await.unwrap()),
            "pending deletion" => {
                sdk.cancel_key_deletion().key_id(id).send().await.unwrap();
                drop(sdk.enable_key().key_id(id).send().await.unwrap());
            }
            _ => self.put_policy(root, "arn:aws:iam::000000000000:root").await,
        }
    }
    fn outages(&self) -> Vec<&'static str> {
        vec!["stopped"]
    }
    async fn go_away(&mut self, _outage: &str) {
        self.0.stop().await;
    }
    async fn come_back(&mut self, _outage: &str) {
        self.0.run().await;
    }
    fn secrets(&self) -> Vec<String> {
        vec![self.0.login("saker").secret, self.0.login("customer").secret]
    }
}

impl Aws {
    async fn put_policy(&self, root: &RootKeyId, principal: &str) {
        let statement =
            json!({ "Effect": "Allow", "Principal": { "AWS": principal }, "Action": "kms:*", "Resource": "*" });
        let policy = json!({ "Version": "2012-10-17", "Statement": [statement] }).to_string();
        let request = self.0.sdk("customer").put_key_policy().key_id(root.as_str());
        request.policy(policy).send().await.unwrap();
    }
}

#[tokio::test]
async fn aws_kms_against_the_local_key_server() {
    suite::run(&mut Aws(Server::start().await)).await;
}
