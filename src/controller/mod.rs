//! The operator: what it starts, in which order, and what it does at every resync.

mod backoff;
mod backup;
mod backups_now;
mod context;
mod domains;
mod edge;
mod fleet;
mod keys;
mod orphans;
mod plan;
mod restores;
mod rollout;
mod server;
mod servers;
mod shared_backup;
mod start;
mod subscriptions;
mod tenant;
mod tls;
mod turns;
mod undecodable;
mod watch;
mod workers;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use kube::api::ListParams;
use kube::runtime::controller::{Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::{reflector, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{DatabaseServer, Tenant};
use crate::apply::gate::Gate;
use crate::central::Central;
use crate::error::chain;
use crate::http;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::observe::dns::Dns;
use crate::observe::ledger::Ledger;
use crate::settings::OperatorSettings;

use backoff::Backoff;
use context::{Context, Memory};
use fleet::{Fleet, Wake};
use servers::Servers;

/// Tenants visited at a time. A visit mostly waits for PostgreSQL and the API server, and which of those that wait is next is
/// left to chance: with few at a time, some would find out in a burst that others are visited five times before them.
const TENANTS_AT_A_TIME: u16 = 64;
const SERVERS_AT_A_TIME: u16 = 8;
/// Name of the Lease in the operator's namespace.
const LEASE: &str = "maintenance-os-operator";

/// Runs the operator until `stop`.
///
/// # Errors
/// Settings that cannot work, an address that cannot be bound, a slice that cannot be read.
pub async fn run(settings: Box<OperatorSettings>, stop: CancellationToken) -> anyhow::Result<()> {
    let ready = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let probe = Arc::clone(&ready);
    let health = http::health(move || {
        if probe.load(Ordering::Acquire) { Ok(()) } else { Err("the cluster and the ledger are being read".into()) }
    });
    let (metrics, registry) = Metrics::new();
    // Not ended by `stop`: one that ends ends the process, before the Lease is released.
    let serving = CancellationToken::new();
    tasks.spawn(http::serve(settings.health_addr, health, serving.clone()));
    tasks.spawn(http::serve(settings.metrics_addr, http::metrics(registry), serving));
    let client = Client::try_default().await.context("reading the cluster's address and credentials")?;
    tokio::select! {
        result = operate(*settings, client, ready, Gate::default(), metrics, stop.clone()) => result,
        Some(ended) = tasks.join_next() => ended.context("a server of the operator panicked")?,
    }
}

/// Everything but the probes: also what tests run in their own process.
///
/// # Errors
/// As [`run`].
pub async fn operate(
    settings: OperatorSettings,
    client: Client,
    ready: Arc<AtomicBool>,
    gate: Gate,
    metrics: Metrics,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let central = Central::connect(&settings.central_url, settings.central_ca.as_deref())
        .await
        .context("reading the central database's settings")?;
    let (wake, woken) = mpsc::unbounded_channel();
    let (wake_server, woken_servers) = mpsc::unbounded_channel();
    let fleet = Arc::new(Fleet::new(
        [settings.app_service.clone(), settings.worker_service.clone()],
        wake.clone(),
        gate.clone(),
    ));
    let (tell, undecodable) = mpsc::unbounded_channel();
    let (tenants, tenant_events) = watch::tenants(&client, tell);
    let (plans, plan_events) = watch::plans(&client);
    let bindings: Vec<_> = settings
        .tenant_namespaces
        .iter()
        .map(|namespace| (namespace.clone(), watch::bindings(&client, namespace)))
        .collect();
    let (own_workers, deployment_events) = workers::watch(&client, &settings.namespace, &settings.worker_deployment);
    let binding_stores = bindings.iter().map(|(namespace, (store, _))| (namespace.clone(), store.clone())).collect();
    let context = Arc::new(Context {
        client: client.clone(),
        central,
        ledger: Ledger::default(),
        servers: Servers::default(),
        fleet: Arc::clone(&fleet),
        plans,
        tenants: tenants.clone(),
        bindings: binding_stores,
        workers: own_workers,
        backups: backup::Backups::new(settings.backup.wanted().is_some()),
        restores: restores::Restores::default(),
        wake,
        wake_server,
        refill: Notify::new(),
        epoch: AtomicU64::new(0),
        gate,
        events: Recorder::new(
            client.clone(),
            Reporter { controller: "maintenance-os".into(), instance: Some(settings.identity.clone()) },
        ),
        metrics,
        memory: Memory::default(),
        domains: domains::Domains::default(),
        edge: edge::Troubles::default(),
        keys: OnceLock::new(),
        failures: Backoff::default(),
        server_failures: Backoff::default(),
        settings,
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(watch::follow_plans(Arc::clone(&context), plan_events));
    tasks.spawn(workers::follow(Arc::clone(&context), deployment_events));
    for (namespace, (_, events)) in bindings {
        tasks.spawn(watch::follow_bindings(Arc::clone(&context), namespace, events));
    }
    let (tenant_stream, seen_tenants) = watch::share(tenant_events);
    tasks.spawn(seen_tenants);
    start::caches(&context).await?;
    // A standby is as ready as it can be: a rollout has not to wait for the Lease.
    ready.store(true, Ordering::Release);
    let mut leadership =
        Leadership::new(client.clone(), &context.settings.namespace, LEASE, context.settings.identity.clone());
    let Some(term) = leadership.acquire(&stop).await else { return Ok(()) };
    tasks.spawn(undecodable::tell(Arc::clone(&context), undecodable));
    // Everything that writes ends before the Lease is released, and at once when it is lost.
    let (leading, released) = (stop.child_token(), CancellationToken::new());
    let mut lease = tokio::spawn(leadership.hold(released.clone()));
    let result = tokio::select! {
        result = lead(context, fleet, term, tenant_stream, tenants, Woken { tenants: woken, servers: woken_servers }, leading) => result,
        lost = &mut lease => return lost.context("the task that holds the Lease panicked")?,
    };
    released.cancel();
    lease.await.context("the task that holds the Lease panicked")??;
    tasks.shutdown().await;
    result
}

/// The work of the one operator that leads.
async fn lead(
    context: Arc<Context>,
    fleet: Arc<Fleet>,
    term: u64,
    tenant_stream: impl futures::Stream<Item = Result<Tenant, watcher::Error>> + Send + 'static,
    tenants: reflector::Store<Tenant>,
    woken: Woken,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let client = context.client.clone();
    start::read(&context, term, &stop).await?;
    let signing = keys::signing(&client, &context.settings.namespace).await?;
    let _ = context.keys.set(signing);
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&fleet).listen(client.clone(), context.settings.namespace.clone(), stop.clone()));
    tasks.spawn(Arc::clone(&fleet).write(
        client.clone(),
        context.settings.namespace.clone(),
        context.epoch(),
        stop.clone(),
    ));
    let dns = Dns::new(&context.settings.dns_servers)?;
    tasks.spawn(domains::run(Arc::clone(&context), dns, stop.clone()));
    context.workers.discover(&client).await;
    let mut keeper = edge::Keeper::new(&context);
    start::first_look(&context, &mut keeper).await;
    tasks.spawn(keeper.run(Arc::clone(&context), stop.clone()));
    let (restores, restore_events) = watch::restores(&client);
    tasks.spawn(watch::drive("TenantRestores", restore_events));
    let (backups_now, backup_events) = watch::backups_now(&client);
    tasks.spawn(watch::drive("TenantBackups", backup_events));
    start::first_visits(&context, &stop).await;
    // Before anybody visits a Tenant that a restore has closed.
    restores::hold_first(&context, &restores).await;
    tasks.spawn(server::pool::refill(Arc::clone(&context), stop.clone()));
    tasks.spawn(resync(Arc::clone(&context), stop.clone()));
    let (known_servers, server_events) = watch::servers(&client);
    tasks.spawn(plan::count(Arc::clone(&context), known_servers.clone(), stop.clone()));
    let servers = Controller::for_stream(server_events, known_servers)
        .with_config(Config::default().concurrency(SERVERS_AT_A_TIME))
        .reconcile_on(received(woken.servers))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(
            server::reconcile,
            |_, _, _| kube::runtime::controller::Action::requeue(Duration::from_secs(5)),
            Arc::clone(&context),
        );
    tasks.spawn(servers.for_each(|_| std::future::ready(())));
    let (rollouts, rollout_events) = watch::rollouts(&client);
    tasks.spawn(rollout_events.for_each(|event| {
        if let Err(error) = event {
            tracing::warn!(error = chain(&error), "the watch of the SchemaRollouts broke, trying again");
        }
        std::future::ready(())
    }));
    tasks.spawn(backup::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(backups_now::run(Arc::clone(&context), backups_now, stop.clone()));
    tasks.spawn(restores::run(Arc::clone(&context), restores, stop.clone()));
    tasks.spawn(subscriptions::run(Arc::clone(&context), stop.clone()));
    tasks.spawn(rollout::run(Arc::clone(&context), rollouts, stop.clone()));
    tracing::info!(epoch = context.epoch(), namespaces = ?context.settings.tenant_namespaces, "the operator is at work");
    let woken = tokio_stream(woken.tenants, tenants.clone());
    Controller::for_stream(tenant_stream, tenants)
        .with_config(Config::default().concurrency(TENANTS_AT_A_TIME))
        .reconcile_on(woken)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(tenant::reconcile, tenant::retry, context)
        .for_each(|_| std::future::ready(()))
        .await;
    tasks.shutdown().await;
    Ok(())
}

/// Whoever has to be looked at again.
struct Woken {
    tenants: mpsc::UnboundedReceiver<Wake>,
    servers: mpsc::UnboundedReceiver<reflector::ObjectRef<DatabaseServer>>,
}

fn received<T: Send>(channel: mpsc::UnboundedReceiver<T>) -> impl futures::Stream<Item = T> + Send {
    futures::stream::unfold(channel, |mut channel| async move { channel.recv().await.map(|item| (item, channel)) })
}

/// Wakes as references to Tenants.
fn tokio_stream(
    woken: mpsc::UnboundedReceiver<Wake>,
    tenants: reflector::Store<Tenant>,
) -> impl futures::Stream<Item = reflector::ObjectRef<Tenant>> + Send {
    received(woken).flat_map(move |wake| {
        let references = match wake {
            Wake::One(reference) => vec![reference],
            Wake::All => tenants.state().iter().map(|tenant| reflector::ObjectRef::from_obj(tenant.as_ref())).collect(),
        };
        futures::stream::iter(references)
    })
}

/// Compares everything that no watch shows with what it should be, until `stop`.
async fn resync(context: Arc<Context>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(context.settings.resync) => {}
            () = stop.cancelled() => return,
        }
        context.workers.discover(&context.client).await;
        workers::repair(&context).await;
        match context.ledger.refresh(&context.central).await {
            Ok(()) => orphans::release(&context).await,
            Err(error) => {
                tracing::warn!(error = chain(&error), "could not read the ledger again, going on with what was seen");
            }
        }
        if let Err(error) = context.fleet.verify(&context.client, &context.settings.namespace).await {
            tracing::warn!(error = chain(&error), "could not compare the slices");
        }
        if let Ok(servers) =
            Api::<DatabaseServer>::all(context.client.clone()).list_metadata(&ListParams::default()).await
        {
            context.servers.keep_only(&servers.iter().map(ResourceExt::name_any).collect());
        }
        let known: HashMap<_, _> = context.ledger.rows().into_iter().map(|row| (row.uuid, row.ledger_state)).collect();
        let stray: Vec<_> = context
            .fleet
            .uuids()
            .into_iter()
            .filter(|uuid| !known.get(uuid).is_some_and(|state| state.is_live()))
            .collect();
        if !stray.is_empty() {
            // Said and not taken away: a ledger that was rolled back must not take customers off line.
            tracing::warn!(tenants = ?stray, "entries of tenants that the ledger does not know as live");
        }
    }
}
