//! What a tenant's pages need not make again: Redis, under `tenant:{uuid}:…`.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::redis::{Purpose, Redis};

/// One tenant's cache. A Redis that is away makes it slower, never wrong and never an error.
#[derive(Clone)]
pub struct TenantCache {
    /// The tenant that every key starts with.
    tenant: Uuid,
    /// Shared with everybody; absent where the app runs without one.
    redis: Option<Redis>,
}

impl TenantCache {
    pub(super) fn new(tenant: Uuid, redis: Option<Redis>) -> Self {
        Self { tenant, redis }
    }

    fn key(&self, key: &str) -> String {
        format!("tenant:{}:{key}", self.tenant)
    }

    /// What is kept under `key`, or what `make` makes, kept for `ttl`.
    ///
    /// # Errors
    /// What `make` returns.
    pub async fn remember<T, E>(
        &self,
        key: &str,
        ttl: Duration,
        make: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Send,
    {
        let Some(redis) = &self.redis else { return make().await };
        let key = self.key(key);
        let kept: Option<Vec<u8>> = redis.query(Purpose::Cache, redis::cmd("GET").arg(&key)).await.unwrap_or_default();
        if let Some(value) = kept.and_then(|kept| serde_json::from_slice(&kept).ok()) {
            return Ok(value);
        }
        let value = make().await?;
        if let Ok(text) = serde_json::to_vec(&value) {
            let set = redis::cmd("SET").arg(&key).arg(text).arg("EX").arg(ttl.as_secs().max(1)).to_owned();
            let _: Result<(), _> = redis.query(Purpose::Cache, &set).await;
        }
        Ok(value)
    }

    /// Forgets one key.
    pub async fn forget(&self, key: &str) {
        if let Some(redis) = &self.redis {
            let _: Result<(), _> = redis.query(Purpose::Cache, redis::cmd("DEL").arg(self.key(key))).await;
        }
    }
}
