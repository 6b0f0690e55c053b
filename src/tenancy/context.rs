//! What a handler knows of the tenant it serves.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use tracing::Span;

use super::cache::TenantCache;
use super::clock::Clock;
use super::limits::TenantLimits;
use super::pool::TenantPool;
use super::queue::TenantQueue;
use super::storage::TenantStorage;
use super::{Refusal, Tenancy};
use crate::api::routing::RoutingEntry;

/// One tenant, for the time of one request or one job: who it is, and the way to its data and to nobody else's.
///
/// Handlers take it as an argument, jobs are given it. It comes from the layers and the workers alone: there is no
/// constructor from a pool or a uuid, so code that has a `TenantContext` has been through routing and state, and code that
/// has none has no connection.
#[derive(Clone)]
pub struct TenantContext {
    /// As routing said when the request came in. A change of routing while the request runs does not touch it.
    entry: Arc<RoutingEntry>,
    /// The canonical host that was asked for, one of the entry's.
    host: Arc<str>,
    /// Borrows connections to this tenant's database; cheap to clone, holds none itself.
    pool: TenantPool,
    /// This tenant's part of the cache; what is in it is shared by all pods.
    cache: TenantCache,
    /// This tenant's files; holds no connection either.
    storage: TenantStorage,
    /// Counts what this tenant does, over all pods.
    limits: TenantLimits,
    /// This tenant's queue.
    queue: TenantQueue,
    /// The app's clock, the same for all tenants.
    clock: Clock,
    /// The request's span. Work that outlives the request (a spawned task) is instrumented with it, so that its lines
    /// carry the tenant too.
    span: Span,
}

impl TenantContext {
    /// Only [`super::layers`] calls this.
    pub(super) fn new(entry: Arc<RoutingEntry>, host: Arc<str>, tenancy: &Tenancy, span: Span) -> Self {
        let pool = tenancy.pools().of(entry.clone());
        let cache = tenancy.cache().of(entry.uuid, entry.incarnation);
        let storage = TenantStorage::new(entry.uuid, tenancy.storage().cloned());
        let limits = tenancy.limits().of(entry.uuid);
        let clock = tenancy.clock().clone();
        let queue = TenantQueue::new(entry.clone(), tenancy.redis().cloned(), clock.clone());
        Self { entry, host, pool, cache, storage, limits, queue, clock, span }
    }

    /// Only the workers call this: for the time of one job, at the tenant's own host.
    pub(super) fn of_job(entry: Arc<RoutingEntry>, tenancy: &Tenancy, span: Span) -> Self {
        let host = Arc::from(entry.primary_host.as_str());
        Self::new(entry, host, tenancy, span)
    }

    /// Who it is and what its plan allows.
    pub fn entry(&self) -> &RoutingEntry {
        &self.entry
    }

    /// The canonical host that was asked for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The tenant's database.
    pub fn database(&self) -> &TenantPool {
        &self.pool
    }

    /// The tenant's cache.
    pub fn cache(&self) -> &TenantCache {
        &self.cache
    }

    /// The tenant's files.
    pub fn storage(&self) -> &TenantStorage {
        &self.storage
    }

    /// How often something happened here.
    pub fn limits(&self) -> &TenantLimits {
        &self.limits
    }

    /// The tenant's queue, to put work into.
    pub fn queue(&self) -> &TenantQueue {
        &self.queue
    }

    /// What time it is.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The request's log span.
    pub fn span(&self) -> &Span {
        &self.span
    }
}

impl<S: Sync> FromRequestParts<S> for TenantContext {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            // A router that was not wrapped in `layers::tenant`. Refusing is the safe answer to a wiring mistake.
            tracing::error!(
                path = parts.uri.path(),
                "handler wants a tenant, but the tenancy layers are not around it"
            );
            Refusal::UnknownHost
        })
    }
}
