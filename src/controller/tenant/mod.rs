//! The loop of a Tenant: see (`facts`), decide ([`desired::tenant`]), do (`execute`), and say how it stands (`say`).

mod execute;
mod facts;
mod say;

pub(super) use facts::is_unseen;

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::context::Context;
use crate::api::Tenant;
use crate::apply::ApplyError;
use crate::desired;
use crate::desired::effect::Effect;
use crate::desired::facts::Refusal;
use crate::error::chain;
use crate::observe::ledger::uid;

/// More rounds than any way from nothing to ready has; a bound for what should not happen.
const MOST_ROUNDS: usize = 24;

/// How long the watch may lag behind a write of our own.
pub(super) const WATCH_LAG: Duration = Duration::from_secs(1);

/// Why a visit has to be made again.
#[derive(Debug, thiserror::Error)]
#[error("Tenant {tenant}: {source}")]
pub struct Failure {
    tenant: String,
    source: ApplyError,
}

impl Failure {
    /// What it is about.
    const fn source(&self) -> &ApplyError {
        &self.source
    }
}

/// One visit: rounds of see, decide and do until nothing is planned, then the status.
///
/// # Errors
/// An effect failed; the status says so, and the visit is made again.
pub async fn reconcile(tenant: Arc<Tenant>, context: Arc<Context>) -> Result<Action, Failure> {
    let result = visit(&tenant, &context).await;
    context.metrics.visited(result.is_err());
    if result.is_ok() {
        context.failures.succeeded(&uid(&tenant));
    }
    result
}

async fn visit(tenant: &Arc<Tenant>, context: &Arc<Context>) -> Result<Action, Failure> {
    let mut visit = Visit { context, tenant: (**tenant).clone(), refused: None };
    let title = format!("{}/{}", tenant.namespace().unwrap_or_default(), tenant.name_any());
    let failure = |source| Failure { tenant: title.clone(), source };
    let mut failed = None;
    for _round in 0..MOST_ROUNDS {
        let facts = visit.facts().await;
        let outlook = desired::tenant::plan(&facts);
        if outlook.effects.is_empty() {
            return visit.conclude(&facts, &outlook, None).await.map_err(failure);
        }
        match visit.execute(&facts, &outlook.effects).await {
            Ok(Gone::No) => {}
            Ok(Gone::Yes) => {
                context.memory.forget(uid(tenant));
                return Ok(Action::await_change());
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let facts = visit.facts().await;
    let outlook = desired::tenant::plan(&facts);
    let Some(error) = failed else {
        tracing::error!(tenant = title, effects = ?outlook.effects.iter().map(Effect::summary).collect::<Vec<_>>(), "a visit does not come to rest");
        return Ok(Action::requeue(Duration::from_secs(30)));
    };
    if matches!(error, ApplyError::Stale(_)) {
        return Ok(Action::requeue(Duration::from_millis(50)));
    }
    visit.conclude(&facts, &outlook, Some(error.health())).await.map_err(failure)?;
    Err(failure(error))
}

enum Gone {
    Yes,
    No,
}

struct Visit<'a> {
    context: &'a Context,
    tenant: Tenant,
    /// The ledger's refusal in this visit; asked again in the next.
    refused: Option<Refusal>,
}

impl Visit<'_> {
    fn reference(&self) -> ObjectRef<Tenant> {
        ObjectRef::from_obj(&self.tenant)
    }
}

/// When a failed visit is made again: later each time, for this Tenant alone.
#[allow(clippy::needless_pass_by_value, reason = "the shape that the controller asks for")]
pub fn retry(tenant: Arc<Tenant>, failure: &Failure, context: Arc<Context>) -> Action {
    tracing::warn!(error = chain(failure), "a visit failed, trying again");
    match failure.source() {
        // Somebody has to decide something, and nothing tells us that they did.
        ApplyError::Held { .. } => Action::requeue(Duration::from_secs(30)),
        _ => Action::requeue(context.failures.failed(uid(&tenant))),
    }
}
