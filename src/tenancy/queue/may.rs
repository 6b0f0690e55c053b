//! Whether a worker may do a tenant's jobs: by the tenant's state, and by which pool serves it.
//!
//! Two pools can serve a tenant, the shared one and workers of its own; routing says which does. A queue is the tenant's and
//! not a pool's, and so are its leases: whoever looks at it, no job runs twice at once, and none is lost. A pool that meets a
//! tenant of the other one says in the other's ring that it has work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::metrics::Outcome;
use super::ring::{Ring, own_of};
use super::store::Store;
use super::worker::{Inner, SOON, lock, weight};
use crate::api::routing::RoutingEntry;
use crate::api::tenant::TenantState;

/// A tenant that is asleep is asked for again after this time: more often than the app forgets that it was.
const WAKING: Duration = Duration::from_secs(15);
/// A tenant that is not served is looked at again after this time, or when its routing changes.
const PARKED: Duration = Duration::from_secs(300);

/// Whether a tenant's jobs may be done.
pub(super) enum May {
    Serve(Arc<RoutingEntry>),
    Later(Duration),
    Never,
}

impl May {
    /// 0: it has no share.
    pub(super) fn weight(&self) -> f64 {
        if let Self::Serve(entry) = self { weight(entry) } else { 0.0 }
    }
}

/// Name of the queue of a tenant that nobody routes.
pub(super) fn queue_of(tenant: Uuid) -> String {
    format!("tenant-{tenant}")
}

impl<S: Send + Sync + 'static> Inner<S> {
    pub(super) async fn may_serve(&self, tenant: Uuid) -> May {
        let tenancy = &self.runner.tenancy;
        let Some(entry) = tenancy.routing().tenant(tenant) else {
            return self.may_serve_unrouted(tenant).await;
        };
        lock(&self.missing).remove(&tenant);
        if !self.is_ours(&entry) {
            return self.hand_over(tenant, own_of(&entry)).await;
        }
        if entry.sleeps {
            tenancy.acknowledgements().want(tenant);
        }
        match entry.state {
            TenantState::Active if tenancy.knows_schema(&entry) => May::Serve(entry),
            // Woken when it is awake; until then it has to be asked for again and again.
            TenantState::Hibernated => {
                lock(&self.parked).insert(tenant);
                May::Later(WAKING)
            }
            // They keep their jobs.
            TenantState::Active | TenantState::ReadOnly | TenantState::Suspended => {
                lock(&self.parked).insert(tenant);
                // It may have come back in between.
                let again = tenancy.routing().tenant(tenant).is_some_and(|now| !Arc::ptr_eq(&now, &entry));
                May::Later(if again { SOON } else { PARKED })
            }
        }
    }

    /// Whether this worker is of the pool that serves it.
    pub(super) fn is_ours(&self, entry: &RoutingEntry) -> bool {
        own_of(entry) == self.settings.tenant
    }

    async fn may_serve_unrouted(&self, tenant: Uuid) -> May {
        let tenancy = &self.runner.tenancy;
        // Unreadable is not absent.
        let routing_is_known = tenancy.routing().is_settled() && tenancy.routing_is_whole();
        if !routing_is_known || !self.settings.trust.is_good() {
            lock(&self.missing).remove(&tenant);
            return May::Later(SOON);
        }
        if self.settings.tenant.is_some() {
            return self.hand_over(tenant, None).await;
        }
        let since = *lock(&self.missing).entry(tenant).or_insert_with(Instant::now);
        if since.elapsed() < self.settings.gone {
            return May::Later(self.settings.gone / 4);
        }
        self.bury(tenant).await
    }

    /// Leaves a tenant to the pool of its own workers, or to the shared one. Not at once: while two workers know different
    /// routing, each would hand it to the other.
    async fn hand_over(&self, tenant: Uuid, own: Option<Uuid>) -> May {
        match Ring::of_pool(self.redis.clone(), own).wake(&[(tenant, SOON)]).await {
            Ok(()) => May::Never,
            Err(error) => {
                tracing::warn!(target: "tenant", tenant_id = %tenant, %error, "a tenant could not be handed over to the pool that serves it, trying again");
                May::Later(SOON)
            }
        }
    }

    /// Gives up the jobs of a tenant that is no more.
    async fn bury(&self, tenant: Uuid) -> May {
        let store = Store::new(self.redis.clone(), &queue_of(tenant));
        match store.bury("the tenant is no more").await {
            Ok((count, left)) => {
                tracing::warn!(tenant_id = %tenant, count, "jobs of a tenant that is no more were given up");
                self.metrics.count(None, Outcome::Dead, count);
                if left > 0 {
                    return May::Later(SOON);
                }
                lock(&self.missing).remove(&tenant);
                May::Never
            }
            Err(error) => {
                tracing::warn!(tenant_id = %tenant, %error, "giving up the jobs of a tenant that is no more failed");
                May::Later(self.settings.gone)
            }
        }
    }
}
