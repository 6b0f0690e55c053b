//! The agent beside PgBouncer: slices → files → RELOAD → acknowledge.
//!
//! | file | what |
//! |---|---|
//! | [`agent`] | the loop |
//! | [`guard`] | which news of a slice are believed (pure) |
//! | [`check`] | what may stand in a file at all (pure) |
//! | [`render`], [`parse`] | documents → files, and back to compare (pure) |
//! | [`files`] | writes them |
//! | [`enforce`] | RELOAD, and ends what should be gone |
//! | [`admin`] | PgBouncer's admin console |
//!
//! On its health address: `/healthz`, alive; `/startupz`, PgBouncer's files are written, so that it may start; `/readyz`, the
//! slices are current and PgBouncer serves them.

mod admin;
mod agent;
mod check;
mod enforce;
mod files;
mod guard;
mod metrics;
mod parse;
mod render;
#[cfg(test)]
mod sample;

use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::slices;
use crate::http;
use crate::settings::PoolerAgentSettings;
use crate::slices::{Acknowledgements, Health, Source, changes};

use agent::{Agent, Status};

/// How long requests in flight may take after `stop`; a long poll would take 25 seconds.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs until `stop`.
///
/// # Errors
/// The cluster's credentials are not there, or an address cannot be bound.
pub async fn run(settings: PoolerAgentSettings, stop: CancellationToken) -> anyhow::Result<()> {
    let source = match &settings.slices_directory {
        Some(directory) => Source::Directory(directory.clone()),
        None => Source::Cluster {
            client: kube::Client::try_default().await.context("reading the cluster's address and credentials")?,
            namespace: settings.namespace.clone(),
        },
    };
    let names = slices::pooler_slices(&settings.server);
    let health = Health::new(names.len());
    let acknowledgements = Acknowledgements::new();
    let (metrics, registry) = metrics::Metrics::new();
    let place = render::Place { directory: settings.directory.clone(), listen: settings.listen };
    let agent = Agent::new(&settings.server, place, acknowledgements.clone(), metrics);

    let mut servers = JoinSet::new();
    servers.spawn(http::serve(settings.health_addr, probes(agent.status(), health.clone()), stop.clone()));
    servers.spawn(http::serve(settings.metrics_addr, http::metrics(registry), stop.clone()));
    servers.spawn(http::serve(settings.ack_addr, acknowledgements.router(), stop.clone()));
    tokio::select! {
        () = agent.run(changes(source, names, health), stop.clone()) => {}
        // One that ends before it is told to could not bind its address.
        Some(result) = servers.join_next() => result.context("a server of the agent panicked")??,
    }
    // PgBouncer goes on without the agent; only the operator's long polls are cut off.
    let _ = tokio::time::timeout(FAREWELL, servers.join_all()).await;
    Ok(())
}

fn probes(status: Status, health: Health) -> Router {
    let started = status.clone();
    let startup = get(move || {
        let answer = if started.installed() {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "PgBouncer's files are not written yet")
        };
        async move { answer }
    });
    http::health(move || health.ready().and_then(|()| status.served())).route("/startupz", startup)
}
