//! `maintenance-os billing set`, `end`, `list`, `events` and `assign`.

use std::fmt::Write;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::event::{ASSIGNED, Event};
use super::record;
use crate::central::{Central, EventLine, EventOutcome, Manual, SubscriptionLine};
use crate::settings::{BillingAction, CentralArguments};

/// Does what is asked for.
///
/// # Errors
/// It is not done; why.
pub async fn run(action: BillingAction) -> anyhow::Result<()> {
    match action {
        BillingAction::Serve(_) => bail!("this is served, not done"),
        BillingAction::Set { tenant, status, plan, until, who } => {
            let manual = Manual { status: status.as_str(), plan: plan.as_deref(), until };
            connect(&who.central).await?.set_manual(tenant, &manual, &who.by).await?;
            println!("the subscription of tenant {tenant} is {} until {until}", status.as_str());
        }
        BillingAction::End { tenant, who } => {
            connect(&who.central).await?.end_manual(tenant, &who.by).await?;
            println!("the subscription of tenant {tenant} has ended");
        }
        BillingAction::List { tenant, central } => {
            print!("{}", subscriptions(&connect(&central).await?.subscriptions(tenant).await?));
        }
        BillingAction::Events { tenant, unmatched, most, central } => {
            print!("{}", events(&connect(&central).await?.billing_events(tenant, unmatched, most).await?));
        }
        BillingAction::Assign { subscription, tenant, who } => {
            let outcome = assign(&connect(&who.central).await?, &subscription, tenant, &who.by).await?;
            if outcome == EventOutcome::Unmatched {
                bail!("the ledger knows no tenant {tenant}: its uuid is status.uuid of the Tenant");
            }
            println!("{subscription} is of tenant {tenant}, unless its own metadata names another one");
        }
    }
    Ok(())
}

async fn connect(settings: &CentralArguments) -> anyhow::Result<Central> {
    let central = Central::connect(&settings.central_url, settings.central_ca.as_deref()).await;
    central.context("reading the central database's settings")
}

/// Says whose a subscription is. That is an event as well: it is kept, and what is computed from all of them then counts.
///
/// # Errors
/// No id of Stripe's, or the central database failed.
pub async fn assign(central: &Central, subscription: &str, tenant: Uuid, by: &str) -> anyhow::Result<EventOutcome> {
    let now = Timestamp::now();
    let object = json!({ "object": "assignment", "subscription": subscription, "tenant": tenant, "by": by });
    let event = json!({ "id": format!("assign_{}", Uuid::new_v4().simple()), "type": ASSIGNED, "created": now.as_second(),
        "data": { "object": object } });
    let body = event.to_string();
    let event = Event::parse(&body, now)?;
    if event.subscription.is_none() {
        bail!("`{subscription}` is no id of a subscription, as sub_1OaBcD");
    }
    Ok(record(central, &event, &body, by).await?)
}

fn subscriptions(lines: &[SubscriptionLine]) -> String {
    let mut text = format!(
        "{:<6} {:<24} {:<36} {:<30} {:<18} {:<12} {:<20} {}\n",
        "COUNTS", "SLUG", "TENANT", "SUBSCRIPTION", "STATUS", "PLAN", "PERIOD ENDS", "ENDS"
    );
    for line in lines {
        let _ = writeln!(
            text,
            "{:<6} {:<24} {:<36} {:<30} {:<18} {:<12} {:<20} {}",
            if line.counts { "yes" } else { "no" },
            line.slug,
            line.tenant,
            line.stripe_id.as_deref().unwrap_or("manual"),
            line.status,
            line.plan.as_deref().unwrap_or("-"),
            line.period_end,
            line.ends_at.as_deref().unwrap_or("-"),
        );
    }
    text
}

fn events(lines: &[EventLine]) -> String {
    let mut text = format!(
        "{:<20} {:<11} {:<40} {:<24} {:<30} {}\n",
        "CREATED", "OUTCOME", "TYPE", "SLUG", "SUBSCRIPTION", "EVENT"
    );
    for line in lines {
        let _ = writeln!(
            text,
            "{:<20} {:<11} {:<40} {:<24} {:<30} {}",
            line.created,
            line.outcome,
            line.kind,
            line.slug.as_deref().unwrap_or("-"),
            line.subscription.as_deref().unwrap_or("-"),
            line.id,
        );
    }
    text
}
