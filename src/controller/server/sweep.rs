//! What the ledger asks for on a server although no Tenant object does any more.

use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;

use crate::central::{LedgerState, TenantRow};
use crate::controller::context::Context;
use crate::controller::servers::Server;
use crate::desired::{database, restore, server as desired};
use crate::error::chain;

/// Revokes logins of kept data that could not be revoked when its object went, completes quarantines, and drops what is due.
pub async fn sweep(context: &Arc<Context>, server: &Server) {
    let rows = context.ledger.rows();
    let on_server = |row: &&TenantRow| row.server.as_deref() == Some(server.name.as_str());
    for row in rows.iter().filter(on_server) {
        let quarantined = match row.ledger_state {
            LedgerState::Retained => false,
            LedgerState::Quarantined => true,
            _ => continue,
        };
        // Adopted meanwhile: what it has is its Tenant's again.
        if !context.ledger.is_as_it_was(row) {
            continue;
        }
        let leftovers = server.look(|catalogue| desired::leftovers(row.uuid, quarantined, catalogue));
        for batch in leftovers.unwrap_or_default() {
            if !context.ledger.is_as_it_was(row) {
                break;
            }
            if let Err(error) = server.run(&batch, Some(row.uuid)).await {
                tracing::warn!(server = server.name, tenant = %row.uuid, error = chain(&error), "could not close what a deleted tenant left behind, trying again later");
                break;
            }
        }
    }
    if let Err(error) = sweep_replaced(context, server).await {
        tracing::warn!(
            server = server.name,
            error = format!("{error:#}"),
            "could not look after what restores replaced, trying again later"
        );
    }
    if let Err(error) = drop_due(context, server).await {
        tracing::warn!(
            server = server.name,
            error = format!("{error:#}"),
            "could not drop what is due, trying again later"
        );
    }
}

/// Lists databases whose place a restored one has taken, as their marks say, and drops those whose time has passed.
async fn sweep_replaced(context: &Arc<Context>, server: &Server) -> anyhow::Result<()> {
    for mark in server.look(restore::marks::replaced).unwrap_or_default() {
        if context.restores.is_noted(mark.restore) {
            continue;
        }
        let replaced = crate::controller::restores::row(&server.name, &mark);
        context.central.note_replaced(&replaced).await.context("listing what a restore replaced")?;
        context.restores.note(mark.restore);
    }
    let due = context.central.due_replaced(&server.name).await.context("reading which replaced databases are due")?;
    for (uid, tenant) in due {
        let batches =
            server.look(|catalogue| restore::statements::drop_replaced(uid, tenant, Timestamp::now(), catalogue));
        let Some(batches) = batches.context("the server was not asked yet")? else {
            // Its mark says a later time, or something else.
            continue;
        };
        for batch in batches {
            server.run(&batch, None).await?;
        }
        context.central.mark_replaced_dropped(uid).await.context("noting the drop of a replaced database")?;
        tracing::info!(server = server.name, %tenant, restore = %uid, "dropped the database that a restore replaced");
    }
    Ok(())
}

async fn drop_due(context: &Arc<Context>, server: &Server) -> anyhow::Result<()> {
    for row in context.central.due_drops().await.context("reading what is due to be dropped")? {
        if row.server.as_deref() != Some(server.name.as_str()) {
            continue;
        }
        let batches = server.look(|catalogue| database::destroy(row.uuid, &catalogue.of_tenant(row.uuid)));
        let Some(batches) = batches.context("the server was not asked yet")? else {
            tracing::error!(server = server.name, tenant = %row.uuid, "a database under the quarantine's name does not carry the tenant's mark and is not dropped");
            continue;
        };
        // The decision comes first: from here on the data cannot be adopted any more.
        if !context.central.begin_drop(row.uuid).await.with_context(|| format!("beginning the drop of {}", row.uuid))? {
            continue;
        }
        for batch in batches {
            server.run(&batch, Some(row.uuid)).await?;
        }
        context.fleet.set_dropped(row.uuid);
        context.central.mark_dropped(row.uuid).await.with_context(|| format!("noting the drop of {}", row.uuid))?;
        tracing::info!(server = server.name, tenant = %row.uuid, "dropped a tenant's database after its quarantine");
    }
    Ok(())
}
