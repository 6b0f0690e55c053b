//! What has to be known before the first Tenant is visited: an operator that begins with half a view would write
//! conditions that are not true, and could take what it has not seen yet for absent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::edge::Keeper;
use super::server;
use crate::api::DatabaseServer;
use crate::error::chain;

const RETRY: Duration = Duration::from_secs(1);
/// Servers that do not answer within this time are visited again by their own loop.
const FIRST_VISITS: Duration = Duration::from_secs(15);
/// Readers answer within milliseconds; one that does not is waited for by the tenants that need it.
const FIRST_ACKNOWLEDGEMENTS: Duration = Duration::from_secs(2);

/// Reads the ledger and the slices, as the leader of `term`. The epoch that this process writes under is higher than any
/// that was written before, also when the Lease was deleted and counts anew.
///
/// # Errors
/// A slice that cannot be read; everything else is tried again until `stop`.
pub async fn read(context: &Arc<Context>, term: u64, stop: &CancellationToken) -> anyhow::Result<()> {
    let written = tokio::select! {
        written = read_all(context) => written?,
        () = stop.cancelled() => return Ok(()),
    };
    context.epoch.store(term.max(written + 1), Ordering::Release);
    Ok(())
}

/// Waits for the caches: also a standby has them.
///
/// # Errors
/// A watch that ended.
pub async fn caches(context: &Arc<Context>) -> anyhow::Result<()> {
    context.tenants.wait_until_ready().await.context("reading the Tenants")?;
    context.plans.wait_until_ready().await.context("reading the Plans")?;
    context.workers.wait_until_ready().await.context("reading the Deployments")?;
    for (namespace, store) in &context.bindings {
        store.wait_until_ready().await.with_context(|| format!("reading the binding Secrets of {namespace}"))?;
    }
    Ok(())
}

async fn read_all(context: &Arc<Context>) -> anyhow::Result<u64> {
    loop {
        match prepare_central(context).await {
            Ok(()) => break,
            Err(error) => tracing::warn!(error = chain(&error), "the central database is not there yet, trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
    context.fleet.load(&context.client, &context.settings.namespace).await
}

async fn prepare_central(context: &Arc<Context>) -> Result<(), crate::central::CentralError> {
    context.central.migrate().await?;
    context.ledger.refresh(&context.central).await
}

/// Looks at what visits of Tenants need to know and no watch shows: the edge, without which every own host would be said to be
/// reached; and which tenants' data was dropped, which an operator that ended in between has not said. Within bounds.
pub async fn first_look(context: &Context, edge: &mut Keeper) {
    match context.central.dropped_lately().await {
        Ok(dropped) => dropped.into_iter().for_each(|uuid| context.fleet.set_dropped(uuid)),
        Err(error) => tracing::warn!(error = chain(&error), "could not read whose data was dropped lately"),
    }
    if tokio::time::timeout(FIRST_VISITS, edge.turn(context)).await.is_err() {
        tracing::warn!("the edge was not compared in time, going on without");
    }
}

/// Visits every server once and hears every reader once, within bounds.
pub async fn first_visits(context: &Arc<Context>, stop: &CancellationToken) {
    let visits = async {
        let servers =
            Api::<DeserializeGuard<DatabaseServer>>::all(context.client.clone()).list(&ListParams::default()).await;
        match servers {
            Ok(servers) => drop(
                join_all(
                    servers
                        .items
                        .into_iter()
                        .filter_map(|guard| guard.0.ok())
                        .inspect(|object| {
                            context.servers.note_unreached(&object.name_any(), &object.spec, "it was not asked yet");
                        })
                        .map(|object| server::reconcile(Arc::new(object), Arc::clone(context))),
                )
                .await,
            ),
            Err(error) => tracing::warn!(error = chain(&error), "could not list the DatabaseServers"),
        }
    };
    let heard = async {
        while !context.fleet.heard() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(tokio::time::timeout(FIRST_VISITS, visits), tokio::time::timeout(FIRST_ACKNOWLEDGEMENTS, heard)) } => {}
        () = stop.cancelled() => {}
    }
}
