//! The tenant's routing entry: what the app serves.
//!
//! From      everything else
//! Makes     an entry in slice `routing-NN`
//! Ready     when every ready app endpoint serves it
//! Teardown  first, so that no request begins any more

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::condition::{ConditionType, Reason};
use crate::api::plan::PlanSpec;
use crate::api::routing::{DatabaseAccess, Queue, RoutingEntry, RoutingPlan, Subscription};
use crate::api::subscription::{lapse, lapse_by_clock};
use crate::api::tenant::TenantState;
use crate::settings::parse_duration;

use super::effect::{Effect, PartPlan};
use super::facts::{Facts, LedgerRow, Reach, Seen};
use super::{hosts, names, provisioning, wait_for_readers, was_ready, workers};

/// The routing entry.
pub fn plan(facts: &Facts, wanted: &RoutingEntry) -> PartPlan {
    if facts.routing.entry.as_ref() != Some(wanted) {
        return PartPlan::act(
            vec![Effect::PublishRouting { entry: Box::new(wanted.clone()) }],
            "the routing entry is being written",
        );
    }
    if facts.routing.reach == Reach::NoReaders {
        return if was_ready(facts, ConditionType::RouteReady) {
            PartPlan::ready("routed; no app endpoint is ready")
        } else {
            PartPlan::wait(
                Reason::NoReaders,
                "no app endpoint is ready to serve the hosts: kubectl get pods -l app=maintenance-os",
            )
        };
    }
    wait_for_readers(&facts.routing.reach, "app endpoint")
}

/// The subscription: the ledger's word, the trial as the object has it, and the grace that the plan gives.
pub fn subscription(facts: &Facts, row: &LedgerRow) -> Subscription {
    let asked = facts.tenant.spec.trial_ends_at.as_ref().map(|time| time.0);
    let own: Option<Timestamp> = row.subscription.trial_ends_at.as_ref().and_then(|end| end.parse().ok());
    let trial = match row.subscription.status.as_str() {
        // A subscription's own trial counts in place of the object's, and the longer one where both are to end.
        "trialing" => own.map(|own| asked.map_or(own, |asked| own.max(asked))),
        _ => asked,
    };
    let trial_ends_at = trial.map(|end| end.to_string());
    let subscription = Subscription { trial_ends_at, ..row.subscription.clone() };
    let grace_until = grace(facts, &subscription, row.subscription_since).map(|until| until.to_string());
    Subscription { grace_until, ..subscription }
}

/// Until when the tenant is served as before, once its subscription has lapsed or since it has.
fn grace(facts: &Facts, subscription: &Subscription, since: Option<Timestamp>) -> Option<Timestamp> {
    let period = parse_duration(facts.plan.as_ref()?.billing.as_ref()?.grace_period.as_deref()?).ok()?;
    let period = SignedDuration::try_from(period).ok().filter(|period| !period.is_zero())?;
    // A status by which it has lapsed has done so since it is there; when that was is not known of rows of before.
    let lapsed = || lapse(subscription, facts.now).and(since);
    lapse_by_clock(subscription).or_else(lapsed)?.checked_add(period).ok()
}

/// Which data it is, see [`RoutingEntry::incarnation`]: as the mark on the database says, as was published where that cannot be
/// seen.
fn incarnation(facts: &Facts, row: &LedgerRow) -> Option<uuid::Uuid> {
    let mark = match &facts.catalogue {
        Seen::Known(catalogue) => provisioning::schema_of(row, catalogue),
        Seen::Unreachable(_) => None,
    };
    let published = || facts.routing.entry.as_ref().and_then(|entry| entry.incarnation);
    mark.map_or_else(published, |mark| mark.restore)
}

/// The entry that a tenant is to have. Only hosts whose ownership is proved are in it.
pub fn entry(facts: &Facts, row: &LedgerRow, plan: &PlanSpec, database: DatabaseAccess) -> RoutingEntry {
    let tenant = &facts.tenant;
    let host = facts.host(&row.slug);
    let (own, primary) = hosts::served(facts);
    RoutingEntry {
        uuid: row.uuid,
        namespace: tenant.namespace().unwrap_or_default(),
        name: tenant.name_any(),
        slug: row.slug.clone(),
        display_name: tenant.spec.display_name.clone(),
        state: facts.state(),
        hosts: std::iter::once(host.clone()).chain(own).collect(),
        primary_host: primary.unwrap_or(host),
        plan: RoutingPlan {
            name: facts.plan_name.clone(),
            features: plan.features.clone(),
            limits: plan.limits.clone(),
        },
        subscription: subscription(facts, row),
        database,
        schema_version: row.schema.as_deref().map(|schema| names::schema_version(schema).to_owned()),
        queue: Queue {
            name: names::queue(row.uuid),
            weight: plan.workers.weight,
            max_processes: plan.workers.max_processes,
            pool: workers::pool(facts, plan),
        },
        storage_prefix: names::storage_prefix(row.uuid),
        incarnation: incarnation(facts, row),
        sleeps: tenant.spec.state == TenantState::Hibernated,
    }
}
