//! Rows of the ledger whose Tenant vanished without its teardown: somebody removed the finalizer, or the API server, which
//! reads an object before it deletes it, did not see that one was just being added. The data is kept as after any other
//! delete; without this its logins would stay for ever.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;

use super::{context::Context, tenant};
use crate::api::{FINALIZER, Tenant};
use crate::apply::ApplyError;
use crate::central::TenantRow;
use crate::error::chain;
use crate::observe::ledger::uid;

/// This many are always released; beyond that, and this share of the tenants, somebody has to look first: a cluster that
/// was restored to an earlier state must not take customers off line.
const FLOOR: usize = 10;
const PERCENT: usize = 5;
/// Visits in one resync, and the time between two: a withdrawn entry is acknowledged within milliseconds.
const VISITS: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Releases what they left behind.
pub async fn release(context: &Arc<Context>) {
    let rows: Vec<_> = context.ledger.rows().into_iter().filter(|row| row.object_uid.is_some()).collect();
    let seen: HashSet<_> = context.tenants.state().iter().map(|tenant| uid(tenant)).collect();
    let missing: Vec<_> = rows.iter().filter(|row| row.object_uid.is_some_and(|uid| !seen.contains(&uid))).collect();
    if missing.len() > limit(rows.len()) {
        let tenants: Vec<_> = missing.iter().map(|row| row.uuid).collect();
        tracing::error!(
            ?tenants,
            "so many Tenants are missing that nothing is done: were they deleted, or was the cluster restored to an earlier state?"
        );
        return;
    }
    for row in missing {
        match is_gone(context, row).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!(tenant = %row.uuid, namespace = row.namespace, name = row.name, "a Tenant vanished without its teardown, releasing what it had; its data is kept");
                tear_down(context, row).await;
            }
            Err(error) => {
                tracing::warn!(tenant = %row.uuid, error = chain(&error), "could not see whether a Tenant is gone");
            }
        }
    }
}

/// Visits it until it is done. Nobody is woken for an object that is not there: the visits are made here, and go on at the
/// next resync when readers take long.
async fn tear_down(context: &Arc<Context>, row: &TenantRow) {
    let ghost = Arc::new(ghost(row));
    for _visit in 0..VISITS {
        // A failure is logged, and the visit made again.
        if let Err(error) = tenant::reconcile(Arc::clone(&ghost), Arc::clone(context)).await {
            tracing::warn!(error = chain(&error), "could not release a Tenant that vanished, trying again");
        }
        let is_held = |known: &TenantRow| known.uuid == row.uuid && known.object_uid == row.object_uid;
        if !context.ledger.rows().iter().any(is_held) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn limit(tenants: usize) -> usize {
    FLOOR.max(tenants * PERCENT / 100)
}

/// The API server itself is asked, for metadata, which also a Tenant that does not decode has; and by a list, which fails
/// where the definition of Tenants is missing.
async fn is_gone(context: &Context, row: &TenantRow) -> Result<bool, ApplyError> {
    let tenants: Api<PartialObjectMeta<Tenant>> = Api::namespaced(context.client.clone(), &row.namespace);
    let named = ListParams::default().fields(&format!("metadata.name={}", row.name));
    let found = tenants
        .list_metadata(&named)
        .await
        .map_err(|source| ApplyError::kubernetes(format!("look for Tenant {}/{}", row.namespace, row.name), source))?;
    let uid = row.object_uid.map(|uid| uid.to_string());
    Ok(!found.items.iter().any(|tenant| tenant.metadata.uid == uid))
}

/// The Tenant as it would have been on its way out, with the policy that keeps the data.
fn ghost(row: &TenantRow) -> Tenant {
    let mut tenant = Tenant::default();
    tenant.metadata.name = Some(row.name.clone());
    tenant.metadata.namespace = Some(row.namespace.clone());
    tenant.metadata.uid = row.object_uid.map(|uid| uid.to_string());
    tenant.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    tenant.metadata.finalizers = Some(vec![FINALIZER.into()]);
    tenant
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_lost_many_tenants_at_once_is_left_alone() {
        assert_eq!(limit(0), 10);
        assert_eq!(limit(200), 10);
        assert_eq!(limit(1000), 50);
    }
}
