//! The worker: does what requests leave for later, for every tenant, or for one that has workers of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::jobs::{self, PlanRoutines};
use super::{product, small_servers, source, tenancy_settings};
use crate::api::slices::{routing_slice, routing_slices, slice_of};
use crate::settings::WorkerRoleSettings;
use crate::slices::{Health, changes};
use crate::tenancy::Tenancy;
use crate::tenancy::queue::daily::Daily;
use crate::tenancy::queue::{Trust, Worker, WorkerSettings};

/// Does tenants' jobs until `stop`, or until it has grown too large; then ends those that it has begun.
///
/// # Errors
/// A setting makes no sense, the cluster is not reachable, or an address cannot be bound.
pub async fn run(settings: Box<WorkerRoleSettings>, stop: CancellationToken) -> anyhow::Result<()> {
    let tenancy = Tenancy::new(&tenancy_settings(&settings.app)?)?;
    let product = product(&settings.app, &tenancy)?;
    // One that serves a tenant alone has no business with the others' passwords, and nobody waits for it because of them.
    let names = settings.tenant.map_or_else(routing_slices, |tenant| vec![routing_slice(slice_of(tenant))]);
    let health = Health::new(names.len());
    let trust = Trust::of({
        let health = health.clone();
        move || health.broken_for().is_none()
    });
    let worker =
        Worker::new(&tenancy, jobs::registry(), product, WorkerSettings { trust, ..worker_settings(&settings) })
            .context("workers need Redis: set --redis-host or REDIS_HOST")?;
    let (source, _) = source(&settings.app).await?;
    let total = names.len();
    let follow = tenancy.follow(changes(source, names, health.clone()), total);
    let mut registry = Registry::default();
    tenancy.register_metrics(&mut registry);
    worker.metrics().register(&mut registry);
    let stopping = Arc::new(AtomicBool::new(false));
    // They end with the process: /readyz must go on saying no while it drains. Acknowledgements too: passwords are renewed
    // when every reader has the new one, and a worker is one.
    let never = CancellationToken::new();
    let small = small_servers(&settings.app, &tenancy, health, stopping.clone(), registry, &never);
    tracing::info!(processes = settings.max_processes, tenant_id = ?settings.tenant, "doing tenants' jobs");
    let daily = async {
        // The shared pool queues them, also for tenants that have workers of their own.
        match settings.tenant {
            None => Daily::<PlanRoutines>::new(&tenancy).run().await,
            Some(_) => std::future::pending().await,
        }
    };
    let not_ready = async {
        stop.cancelled().await;
        stopping.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = follow => anyhow::bail!("reading routing ended, which it never does"),
        () = daily => anyhow::bail!("planning days ended, which it never does"),
        served = small => served?,
        // Also by itself, when it has grown too large: whoever runs this starts it anew.
        () = worker.run(stop.clone()) => {}
        () = not_ready => {}
    }
    tenancy.pools().close_all_idle();
    Ok(())
}

fn worker_settings(settings: &WorkerRoleSettings) -> WorkerSettings {
    WorkerSettings {
        // A pod's name alone comes back with a restart of its container.
        name: format!("{}/{}", settings.identity, uuid::Uuid::new_v4()),
        tenant: settings.tenant,
        balance: settings.balance(),
        tries: settings.tries,
        timeout: settings.timeout,
        memory: (settings.memory_mib > 0).then_some(settings.memory_mib << 20),
        ..WorkerSettings::default()
    }
}
