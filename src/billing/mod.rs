//! Billing: what Stripe tells of subscriptions, and those that are set by hand. What follows from it reaches tenants through
//! the central database alone; nothing of it is ever written to a Tenant.
//!
//! | file | what |
//! |---|---|
//! | `signature` | whether a body is what Stripe signed |
//! | `event` | what an event says |
//! | `life` | a subscription from its events |
//! | `serve` | `POST /stripe/webhook` |
//! | `metrics` | what it counts |
//! | `command` | `maintenance-os billing set`, `end`, `list`, `events`, `assign` |

pub mod command;
pub mod event;
pub mod life;
pub mod metrics;
pub mod serve;
pub mod signature;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::central::{Central, CentralError, EventOutcome, NewEvent, Stand, Use, Wanted};
use crate::settings::{BillingAction, BillingSettings};

use event::{Event, Word};

/// Does what is asked for.
///
/// # Errors
/// As the one that is asked for says.
pub async fn run(settings: BillingSettings, stop: CancellationToken) -> anyhow::Result<()> {
    match settings.action {
        BillingAction::Serve(settings) => serve::run(settings, stop).await,
        action => command::run(action).await,
    }
}

/// Keeps an event, and does what follows from it. `body`: as it was signed. `actor`: whose doing it is, in the audit trail.
///
/// # Errors
/// The central database failed, and nothing was kept.
pub async fn record(central: &Central, event: &Event, body: &str, actor: &str) -> Result<EventOutcome, CentralError> {
    let new = NewEvent {
        id: &event.id,
        kind: &event.kind,
        created: event.created,
        subscription: event.subscription.as_deref(),
        use_: match &event.word {
            Word::Subscription(_) | Word::Owner(_) => Use::Settle,
            Word::Unreadable(_) => Use::Unreadable,
            Word::Noted => Use::Note,
            Word::Other => Use::Ignore,
        },
        payload: body,
        actor,
    };
    central.record_event(&new, wanted).await
}

/// What a subscription is to be, by the payloads of its events.
fn wanted(payloads: &[String]) -> Wanted {
    // They were read when they came; one that this version cannot read says nothing.
    let events = payloads.iter().filter_map(|payload| Event::parse(payload, Timestamp::UNIX_EPOCH).ok());
    let life = life::life(&events.collect::<Vec<_>>());
    let stand = life.stand.map(|stand| Stand {
        status: stand.snapshot.status,
        plan: stand.snapshot.plan,
        period_start: stand.snapshot.period_start,
        period_end: stand.snapshot.period_end,
        canceled_at: stand.snapshot.canceled_at,
        ends_at: stand.snapshot.ends_at,
        since: stand.since,
        customer: stand.snapshot.customer,
        event: stand.event,
        at: stand.at,
    });
    Wanted { tenants: life.tenants, stand }
}
