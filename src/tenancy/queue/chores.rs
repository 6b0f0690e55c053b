//! What a worker does beside its jobs: it waits at the bell, wakes tenants, and looks for forgotten queues.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Notify, broadcast, mpsc};
use uuid::Uuid;

use super::may::queue_of;
use super::ring::{Ring, own_of};
use super::store::Store;
use super::worker::{Inner, QUIET, SOON, lock};
use crate::api::routing::RoutingEntry;
use crate::tenancy::redis::Redis;

/// How often somebody looks for jobs that nobody was woken for.
const SWEEP: Duration = Duration::from_secs(600);

impl<S: Send + Sync + 'static> Inner<S> {
    /// Waits at the bell while there is nothing to do. A call that comes when that has changed is another worker's.
    pub(super) async fn listen(self: Arc<Self>, bell: Redis, rung: Arc<Notify>) {
        let mut idle = self.idle.subscribe();
        loop {
            // The sender lives as long as the worker.
            let _ = idle.wait_for(|idle| *idle).await;
            match self.ring.listen(&bell, QUIET).await {
                Ok(true) if *self.idle.borrow() => rung.notify_one(),
                Ok(true) => {
                    if let Err(error) = self.ring.pass_on().await {
                        tracing::debug!(%error, "a call was not passed on, others look within seconds");
                    }
                }
                Ok(false) => {}
                Err(_) => tokio::time::sleep(SOON).await,
            }
        }
    }

    /// Wakes tenants whose jobs waited for one of theirs to end, many at a time.
    pub(super) async fn wake_left(self: Arc<Self>, mut left: mpsc::UnboundedReceiver<Uuid>) {
        let mut tenants = Vec::new();
        while left.recv_many(&mut tenants, 1000).await > 0 {
            let once: HashSet<_> = tenants.drain(..).collect();
            self.wake(once).await;
        }
    }

    /// Wakes each in the ring of the pool that serves it.
    async fn wake(&self, tenants: impl IntoIterator<Item = Uuid>) {
        let mut rings: HashMap<Option<Uuid>, Vec<(Uuid, Duration)>> = HashMap::new();
        for tenant in tenants {
            let entry = self.runner.tenancy.routing().tenant(tenant);
            let own = entry.map_or(self.settings.tenant, |entry| own_of(&entry));
            rings.entry(own).or_default().push((tenant, Duration::ZERO));
        }
        for (own, tenants) in rings {
            if let Err(error) = Ring::of_pool(self.redis.clone(), own).wake(&tenants).await {
                tracing::warn!(%error, tenants = tenants.len(), "tenants could not be woken, the next sweep does it");
            }
        }
    }

    /// Wakes tenants that were not served and now may be, and those that the other pool served and this one does now.
    pub(super) async fn follow_routing(self: Arc<Self>) {
        let mut changes = self.runner.tenancy.changes();
        self.note_pools(self.runner.tenancy.routing().tenants());
        loop {
            match changes.recv().await {
                Ok(tenant) => {
                    lock(&self.missing).remove(&tenant);
                    let taken_over = self.note_pools(self.runner.tenancy.routing().tenant(tenant));
                    if lock(&self.parked).remove(&tenant) || !taken_over.is_empty() {
                        self.wake([tenant]).await;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    lock(&self.missing).clear();
                    let mut woken: HashSet<_> = lock(&self.parked).drain().collect();
                    woken.extend(self.note_pools(self.runner.tenancy.routing().tenants()));
                    self.wake(woken).await;
                }
                Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    /// Remembers which of these the other pool serves; returns those that it served and this one does now.
    fn note_pools(&self, entries: impl IntoIterator<Item = Arc<RoutingEntry>>) -> Vec<Uuid> {
        let mut elsewhere = lock(&self.elsewhere);
        let mut taken_over = Vec::new();
        for entry in entries {
            if !self.is_ours(&entry) {
                elsewhere.insert(entry.uuid);
            } else if elsewhere.remove(&entry.uuid) {
                taken_over.push(entry.uuid);
            }
        }
        taken_over
    }

    /// Finds queues that have work and that nobody was woken for: one worker, now and then, and after a restart. Workers of a
    /// tenant's own look for its alone.
    pub(super) async fn sweep(self: Arc<Self>) {
        loop {
            if self.runner.tenancy.routing().is_settled() {
                match self.ring.may_sweep(SWEEP).await {
                    Ok(true) => {
                        self.sweep_once().await;
                        self.clear_dropped().await;
                    }
                    Ok(false) => {}
                    Err(error) => tracing::debug!(%error, "sweeping is put off"),
                }
                tokio::time::sleep(SWEEP / 10).await;
            } else {
                tokio::time::sleep(SOON).await;
            }
        }
    }

    async fn sweep_once(&self) {
        let mut tenants = self.runner.tenancy.routing().tenants();
        tenants.retain(|entry| self.settings.tenant.is_none() || self.is_ours(entry));
        for entries in tenants.chunks(100) {
            let asked = entries.iter().map(async |entry| {
                let store = Store::new(self.redis.clone(), &entry.queue.name);
                store.has_work().await.unwrap_or(true).then_some(entry.uuid)
            });
            let found = join_all(asked).await;
            self.wake(found.into_iter().flatten()).await;
        }
    }

    /// Removes what is left of tenants whose data was dropped for good. Those that are only not routed may come back.
    async fn clear_dropped(&self) {
        let tenancy = &self.runner.tenancy;
        if self.settings.tenant.is_some() || !tenancy.routing_is_whole() || !self.settings.trust.is_good() {
            return;
        }
        for tenant in tenancy.routing().dropped() {
            match self.clear(tenant).await {
                Ok(0) => {}
                Ok(keys) => {
                    tracing::info!(tenant_id = %tenant, keys, "the queue of a tenant whose data was dropped is removed");
                }
                Err(error) => {
                    tracing::warn!(tenant_id = %tenant, %error, "the queue of a tenant whose data was dropped is not removed, the next sweep does it");
                }
            }
        }
    }

    async fn clear(&self, tenant: Uuid) -> ::redis::RedisResult<u64> {
        let queue = Store::new(self.redis.clone(), &queue_of(tenant)).clear().await?;
        let own = Ring::of_pool(self.redis.clone(), Some(tenant)).clear().await?;
        if queue + own > 0 {
            self.ring.forget(tenant).await?;
        }
        Ok(queue + own)
    }
}
