//! An object store that fails on purpose.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use saker_storage::{ObjectInfo, ObjectPath, ObjectStore, SealedHeader, SealedObject, StoreError, Unverified};

use super::{
    FaultPlan, Operation, REASON,
    plan::{alter, run},
};

/// Wraps an object store.
#[derive(Clone, Debug)]
pub struct FaultyObjects {
    inner: Arc<dyn ObjectStore>,
    plan: FaultPlan,
}

impl FaultyObjects {
    /// `inner`, as far as `plan` lets it.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }

    async fn operate<T>(
        &self,
        operation: Operation,
        action: &'static str,
        path: &str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<(T, Option<super::Fault>), StoreError> {
        let fault = self.plan.decide(operation);
        let lost = || StoreError::Io {
            action,
            path: path.to_owned(),
            reason: REASON.to_owned(),
        };
        let full = || match ObjectPath::new(path) {
            Ok(path) => StoreError::Full { path },
            Err(_) => lost(),
        };
        Ok((run(fault, operation.writes(), work, lost, full).await?, fault))
    }
}

#[async_trait]
impl ObjectStore for FaultyObjects {
    async fn put(&self, path: &ObjectPath, object: SealedObject) -> Result<(), StoreError> {
        let work = self.inner.put(path, object);
        self.operate(Operation::ObjectPut, "write", path.as_str(), work)
            .await
            .map(|((), _)| ())
    }

    async fn get(&self, path: &ObjectPath) -> Result<Unverified, StoreError> {
        let (bytes, fault) = self
            .operate(Operation::ObjectGet, "read", path.as_str(), self.inner.get(path))
            .await?;
        Ok(alter(&self.plan, fault, bytes))
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Unverified, StoreError> {
        let work = self.inner.get_range(path, range);
        let (bytes, fault) = self
            .operate(Operation::ObjectGetRange, "read", path.as_str(), work)
            .await?;
        Ok(alter(&self.plan, fault, bytes))
    }

    async fn size(&self, path: &ObjectPath) -> Result<u64, StoreError> {
        let work = self.inner.size(path);
        self.operate(Operation::ObjectSize, "find", path.as_str(), work)
            .await
            .map(|(bytes, _)| bytes)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let work = self.inner.list(prefix);
        self.operate(Operation::ObjectList, "list", prefix, work)
            .await
            .map(|(objects, _)| objects)
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let work = self.inner.delete(path);
        self.operate(Operation::ObjectDelete, "delete", path.as_str(), work)
            .await
            .map(|((), _)| ())
    }

    async fn shred(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let work = self.inner.shred(path);
        self.operate(Operation::ObjectShred, "shred", path.as_str(), work)
            .await
            .map(|((), _)| ())
    }

    async fn replace_headers(&self, headers: Vec<(ObjectPath, SealedHeader)>) -> Result<usize, StoreError> {
        let path = headers.first().map_or(String::new(), |(path, _)| path.to_string());
        let work = self.inner.replace_headers(headers);
        self.operate(Operation::ObjectReplaceHeaders, "replace headers of", &path, work)
            .await
            .map(|(replaced, _)| replaced)
    }
}
