//! Subscriptions: the central database tells when one changed, and its Tenant is looked at again, so that the app hears of
//! it within seconds. At rest nothing is read.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::Context;
use super::fleet::Wake;
use crate::central::{CentralError, News};
use crate::error::chain;

/// Between two attempts to listen.
const RETRY: Duration = Duration::from_secs(2);
/// With more changes at once than this, the whole ledger is read in one query.
const FEW: usize = 50;

/// Listens until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    loop {
        let ended = tokio::select! {
            ended = follow(&context) => ended,
            () = stop.cancelled() => return,
        };
        let Err(error) = ended;
        tracing::warn!(error = chain(&error), "changed subscriptions are not heard of, trying again");
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn follow(context: &Context) -> Result<Infallible, CentralError> {
    let mut news = context.central.subscription_news().await?;
    // What changed before, and while nobody listened.
    compare(context).await?;
    loop {
        match news.next().await? {
            News::Changed(tenants) if tenants.len() <= FEW => {
                for tenant in tenants {
                    look(context, tenant).await?;
                }
            }
            News::Changed(_) | News::Missed => compare(context).await?,
        }
    }
}

/// Reads one tenant's subscription again.
async fn look(context: &Context, tenant: Uuid) -> Result<(), CentralError> {
    let Some(row) = context.central.row(tenant).await? else { return Ok(()) };
    let mut changed = false;
    // Nothing else of the row: a visit may be writing it just now.
    context.ledger.amend(tenant, |known| {
        changed = known.subscription != row.subscription;
        known.subscription = row.subscription;
    });
    if changed {
        wake(context, tenant);
    }
    Ok(())
}

/// Reads all of them again.
async fn compare(context: &Context) -> Result<(), CentralError> {
    let before: HashMap<_, _> = context.ledger.rows().into_iter().map(|row| (row.uuid, row.subscription)).collect();
    context.ledger.refresh(&context.central).await?;
    for row in context.ledger.rows() {
        if before.get(&row.uuid).is_some_and(|before| *before != row.subscription) {
            wake(context, row.uuid);
        }
    }
    Ok(())
}

fn wake(context: &Context, tenant: Uuid) {
    if let Some((namespace, name)) = context.ledger.holder_of(tenant) {
        let _ = context.wake.send(Wake::One(ObjectRef::new(&name).within(&namespace)));
    }
}
