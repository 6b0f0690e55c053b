//! Subscriptions: what changes in the central database is in the routing slices within seconds, and what the clock changes is
//! in the conditions at its instant; both long before anything is compared again.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use maintenance_os::api::Plan;
use maintenance_os::api::routing::Subscription;
use maintenance_os::api::tenant::Tenant;
use maintenance_os::apply::gate::Gate;
use maintenance_os::billing::{self, event::Event};
use maintenance_os::central::{Central, Manual};
use serde_json::json;
use uuid::Uuid;

use crate::operator::Operator;
use crate::world::{World, until};

/// What the product promises.
const PROMISE: Duration = Duration::from_secs(5);

/// An operator that compares nothing for an hour, with a tenant that is ready.
async fn ready(name: &str, plan: &str) -> (World, Operator, Uuid, Central) {
    let mut world = World::new(name).await;
    world.arguments = ["--resync", "1h"].map(str::to_owned).into();
    let operator = Operator::start(&world, Gate::default()).await;
    world.wait_for_server().await;
    world.create_with(plan, None).await;
    world.wait_until_ready().await;
    let uuid = world.tenants().get("acme").await.unwrap().status.unwrap().uuid.unwrap().parse().unwrap();
    let central = world.central().await;
    (world, operator, uuid, central)
}

async fn subscription(world: &World) -> Subscription {
    world.entry().await.expect("the tenant is routed").subscription
}

/// Status and message of a condition.
async fn condition(world: &World, kind: &str) -> (String, String) {
    let conditions = world.tenants().get("acme").await.unwrap().status.unwrap().conditions;
    let found = conditions.into_iter().find(|condition| condition.type_ == kind).expect("it is written");
    (found.status, found.message)
}

async fn wait_for(world: &World, what: &str, is: impl Fn(&Subscription) -> bool) -> Duration {
    let begun = Instant::now();
    until(what, async || {
        let found = subscription(world).await;
        is(&found).then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
    begun.elapsed()
}

async fn wait_for_condition(world: &World, kind: &str, status: &str, words: &str) {
    until(&format!("{kind} is {status} {words:?}"), async || {
        let (found, message) = condition(world, kind).await;
        (found == status && message.contains(words)).then_some(()).ok_or_else(|| format!("{found} {message}"))
    })
    .await;
}

async fn stripe(central: &Central, tenant: Uuid, number: i64, status: &str) {
    let created = Timestamp::now().as_second() + number;
    let event = json!({ "id": format!("evt_{tenant}_{number}"), "type": "customer.subscription.updated", "created": created,
        "data": { "object": { "id": format!("sub_{tenant}"), "status": status, "metadata": { "tenant": tenant },
            "current_period_start": created, "current_period_end": created + 1000 } } });
    let body = event.to_string();
    let event = Event::parse(&body, Timestamp::now()).unwrap();
    assert_eq!(billing::record(central, &event, &body, "stripe").await.unwrap().as_str(), "applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_subscription_is_in_the_routing_slice_within_five_seconds() {
    let (world, operator, tenant, central) = ready("subscriptions", "pro").await;
    let generation = world.tenants().get("acme").await.unwrap().metadata.generation;
    assert_eq!(subscription(&world).await.status, "none");
    for (number, status) in [(1, "active"), (2, "unpaid"), (3, "active"), (4, "paused"), (5, "past_due")] {
        stripe(&central, tenant, number, status).await;
        let took = wait_for(&world, status, |found| found.status == status).await;
        assert!(took < PROMISE, "{status} after {took:?}");
        println!("{status} after {took:?}");
        let lapsed = matches!(status, "unpaid" | "paused");
        wait_for_condition(&world, "SubscriptionActive", if lapsed { "False" } else { "True" }, "").await;
        wait_for_condition(&world, "Serving", if lapsed { "False" } else { "True" }, "").await;
    }
    stripe(&central, tenant, 6, "canceled").await;
    let manual = Manual { status: "active", plan: Some("pro"), until: "2999-01-01T00:00:00Z".parse().unwrap() };
    central.set_manual(tenant, &manual, "eve@example.com").await.unwrap();
    let took = wait_for(&world, "manual", |found| found.ends_at.as_deref() == Some("2999-01-01T00:00:00Z")).await;
    assert!(took < PROMISE, "manual after {took:?}");
    assert_eq!(
        world.tenants().get("acme").await.unwrap().metadata.generation,
        generation,
        "nothing is written to the spec"
    );
    operator.kill();
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_while_nobody_listened_is_found_once_somebody_listens_again() {
    let (world, operator, tenant, central) = ready("unheard", "pro").await;
    stripe(&central, tenant, 1, "active").await;
    wait_for(&world, "active", |found| found.status == "active").await;
    world.change_subscription_unheard("unpaid").await;
    wait_for(&world, "unpaid", |found| found.status == "unpaid").await;
    operator.kill();
    stripe(&central, tenant, 2, "active").await;
    let operator = Operator::start(&world, Gate::default()).await;
    wait_for(&world, "active", |found| found.status == "active").await;
    stripe(&central, tenant, 3, "paused").await;
    wait_for(&world, "paused", |found| found.status == "paused").await;
    operator.kill();
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_ends_at_its_instant_and_the_grace_of_the_plan_at_its_own() {
    let world = World::new("grace").await;
    let plan = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Plan", "metadata": { "name": "graceful" },
        "spec": { "displayName": "Graceful", "price": "9.00", "billing": { "gracePeriod": "6s" } } });
    world.apply_global::<Plan>(&plan, "graceful").await;
    drop(world);
    let (world, operator, _, _) = ready("grace", "graceful").await;
    let end = Timestamp::from_second(Timestamp::now().as_second() + 6).unwrap();
    let over = end + SignedDuration::from_secs(6);
    let patch = json!({ "spec": { "trialEndsAt": end.to_string() } });
    let _: Tenant = world.tenants().patch("acme", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    wait_for(&world, "the end of the grace", |found| found.grace_until == Some(over.to_string())).await;
    wait_for_condition(&world, "SubscriptionActive", "True", &end.to_string()).await;
    wait_for_condition(&world, "SubscriptionActive", "False", &format!("as before until {over}")).await;
    let late = Timestamp::now().duration_since(end);
    assert!(late < SignedDuration::from_secs(5), "{late} after the end of the trial");
    assert_eq!(condition(&world, "Serving").await.0, "True");
    assert_eq!(condition(&world, "Ready").await.0, "True");
    wait_for_condition(&world, "Serving", "False", "sign-in").await;
    let late = Timestamp::now().duration_since(over);
    assert!(late.is_positive() && late < SignedDuration::from_secs(5), "{late} after the end of the grace");
    assert_eq!(condition(&world, "Ready").await.0, "True");
    operator.kill();
    world.remove().await;
}
