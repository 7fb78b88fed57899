//! A metadata store that fails on purpose.

use std::sync::Arc;

use async_trait::async_trait;
use saker_storage::{MetaBatch, MetaError, MetaKey, MetaStore, Unverified};

use super::{
    Fault, FaultPlan, Operation, REASON,
    plan::{alter, run},
};

/// Wraps a metadata store.
#[derive(Clone, Debug)]
pub struct FaultyMeta {
    inner: Arc<dyn MetaStore>,
    plan: FaultPlan,
}

impl FaultyMeta {
    /// `inner`, as far as `plan` lets it.
    #[must_use]
    pub fn new(inner: Arc<dyn MetaStore>, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }

    async fn operate<T>(
        &self,
        operation: Operation,
        action: &'static str,
        work: impl Future<Output = Result<T, MetaError>> + Send,
    ) -> Result<(T, Option<Fault>), MetaError> {
        let fault = self.plan.decide(operation);
        let lost = || MetaError::Io {
            action,
            reason: REASON.to_owned(),
        };
        Ok((
            run(fault, operation.writes(), work, lost, || MetaError::Full).await?,
            fault,
        ))
    }
}

#[async_trait]
impl MetaStore for FaultyMeta {
    async fn get(&self, key: &MetaKey) -> Result<Option<Unverified>, MetaError> {
        let (value, fault) = self.operate(Operation::MetaGet, "read", self.inner.get(key)).await?;
        Ok(value.map(|value| alter(&self.plan, fault, value)))
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(MetaKey, Unverified)>, MetaError> {
        let (mut values, fault) = self
            .operate(Operation::MetaScan, "scan", self.inner.scan(prefix))
            .await?;
        let altered = self.plan.below(values.len().max(1));
        if let Some((_, value)) = values.get_mut(altered) {
            *value = alter(&self.plan, fault, value.clone());
        }
        Ok(values)
    }

    async fn commit(&self, batch: MetaBatch) -> Result<(), MetaError> {
        self.operate(Operation::MetaCommit, "commit", self.inner.commit(batch))
            .await
            .map(|((), _)| ())
    }
}
