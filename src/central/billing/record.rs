//! An event is kept, and its subscription made what all of its events say.
//!
//! The row is computed anew from every event of the subscription, under a lock of its own: so neither the order in which
//! they come matters, nor that two of them, or one twice, come at once. Event, effect and audit are one transaction.

use jiff::Timestamp;
use serde_json::json;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{note, of_stripe};
use crate::central::{Central, CentralError, bounded};

/// First half of the advisory lock's key; the second is a hash of the subscription's id. Two with one hash only wait for
/// each other.
const SUBSCRIPTION_LOCK: i32 = 0x6d6f_7362;

/// An event to be kept.
#[derive(Clone, Debug)]
pub struct NewEvent<'a> {
    /// Of two with the same one the second is a duplicate.
    pub id: &'a str,
    /// As `customer.subscription.updated`.
    pub kind: &'a str,
    /// When it was made.
    pub created: Timestamp,
    /// The subscription that it is about, if any.
    pub subscription: Option<&'a str>,
    /// What comes of it.
    pub use_: Use,
    /// As it was signed.
    pub payload: &'a str,
    /// Whose doing it is, in the audit trail.
    pub actor: &'a str,
}

/// What comes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Its subscription is computed again.
    Settle,
    /// It is about a subscription and cannot be read.
    Unreadable,
    /// Kept for people.
    Note,
    /// Nothing.
    Ignore,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is there already.
    Duplicate,
    /// The subscription changed.
    Applied,
    /// It says what was known.
    Unchanged,
    /// It is older than what is known.
    Superseded,
    /// Kept for people.
    Noted,
    /// Nothing follows from it.
    Ignored,
    /// It names no tenant that is known.
    Unmatched,
    /// It is about a subscription and cannot be read.
    Unreadable,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Duplicate,
        Self::Applied,
        Self::Unchanged,
        Self::Superseded,
        Self::Noted,
        Self::Ignored,
        Self::Unmatched,
        Self::Unreadable,
    ];

    /// The name in the database, and in figures.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Superseded => "superseded",
            Self::Noted => "noted",
            Self::Ignored => "ignored",
            Self::Unmatched => "unmatched",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What a subscription is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose it may be; the first that the ledger knows counts.
    pub tenants: Vec<Uuid>,
    /// How it stands; None: nothing is known but whose it is.
    pub stand: Option<Stand>,
}

/// How a subscription stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// One of Stripe's statuses.
    pub status: String,
    /// The plan's slug; one that is not known is left out.
    pub plan: Option<String>,
    /// Begin of the period.
    pub period_start: Timestamp,
    /// End of the period.
    pub period_end: Timestamp,
    /// When the cancellation was asked for.
    pub canceled_at: Option<Timestamp>,
    /// When it ends whatever the status says.
    pub ends_at: Option<Timestamp>,
    /// Since when the status is what it is.
    pub since: Timestamp,
    /// Stripe's customer.
    pub customer: Option<String>,
    /// The event that this rests on.
    pub event: String,
    /// When that was made.
    pub at: Timestamp,
}

impl Central {
    /// Keeps an event and does what follows from it. `wanted`: what a subscription is to be, by the payloads of all of its
    /// events, in any order.
    pub async fn record_event(
        &self,
        event: &NewEvent<'_>,
        wanted: impl Fn(&[String]) -> Wanted,
    ) -> Result<Outcome, CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let outcome = record(&mut transaction, event, wanted).await?;
            transaction.commit().await?;
            Ok(outcome)
        };
        bounded(format!("keep the billing event {}", event.id), work).await
    }
}

async fn record(
    connection: &mut PgConnection,
    event: &NewEvent<'_>,
    wanted: impl Fn(&[String]) -> Wanted,
) -> Result<Outcome, sqlx::Error> {
    if let Some(subscription) = event.subscription {
        // Before anything is read: whoever waits here then sees what the other has written.
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))");
        lock.bind(SUBSCRIPTION_LOCK).bind(subscription).execute(&mut *connection).await?;
    }
    let written = sqlx::query(
        "INSERT INTO billing_events (id, type, created, subscription_id, outcome, payload)
         VALUES ($1, $2, $3::text::timestamptz, $4, 'ignored', $5::text::json) ON CONFLICT (id) DO NOTHING",
    )
    .bind(event.id)
    .bind(event.kind)
    .bind(text(event.created))
    .bind(event.subscription)
    .bind(event.payload)
    .execute(&mut *connection)
    .await?;
    if written.rows_affected() == 0 {
        return Ok(Outcome::Duplicate);
    }
    let (outcome, tenant) = match (event.use_, event.subscription) {
        (Use::Settle, Some(subscription)) => settle(connection, event, subscription, wanted).await?,
        (Use::Note, Some(subscription)) => (Outcome::Noted, owner(connection, subscription).await?),
        (Use::Unreadable, Some(subscription)) => (Outcome::Unreadable, owner(connection, subscription).await?),
        (Use::Unreadable, None) => (Outcome::Unreadable, None),
        (_, Some(subscription)) => (Outcome::Ignored, owner(connection, subscription).await?),
        (_, None) => (Outcome::Ignored, None),
    };
    sqlx::query("UPDATE billing_events SET outcome = $2, tenant_id = $3 WHERE id = $1")
        .bind(event.id)
        .bind(outcome.as_str())
        .bind(tenant)
        .execute(connection)
        .await?;
    Ok(outcome)
}

/// Whose a subscription is known to be.
async fn owner(connection: &mut PgConnection, subscription: &str) -> Result<Option<Uuid>, sqlx::Error> {
    Ok(of_stripe(connection, subscription).await?.map(|row| row.tenant))
}

/// Makes the row of a subscription what all of its events say.
async fn settle(
    connection: &mut PgConnection,
    event: &NewEvent<'_>,
    subscription: &str,
    wanted: impl Fn(&[String]) -> Wanted,
) -> Result<(Outcome, Option<Uuid>), sqlx::Error> {
    let payloads = sqlx::query_scalar(
        "SELECT payload::text FROM billing_events WHERE subscription_id = $1 AND type NOT LIKE 'invoice.%'",
    );
    let payloads: Vec<String> = payloads.bind(subscription).fetch_all(&mut *connection).await?;
    let wanted = wanted(&payloads);
    let named = sqlx::query_scalar(
        "SELECT t.id FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (id, place) JOIN tenants t USING (id)
         ORDER BY place LIMIT 1",
    );
    let named: Option<Uuid> = named.bind(&wanted.tenants).fetch_optional(&mut *connection).await?;
    let before = of_stripe(connection, subscription).await?;
    let Some(tenant) = named.or_else(|| before.as_ref().map(|before| before.tenant)) else {
        return Ok((Outcome::Unmatched, None));
    };
    // Those that came before its tenant was known are its own too.
    sqlx::query(
        "UPDATE billing_events SET tenant_id = $2, outcome = CASE outcome WHEN 'unmatched' THEN 'superseded' ELSE outcome END
         WHERE subscription_id = $1 AND tenant_id IS DISTINCT FROM $2",
    )
    .bind(subscription)
    .bind(tenant)
    .execute(&mut *connection)
    .await?;
    let Some(stand) = wanted.stand else { return Ok((Outcome::Noted, Some(tenant))) };
    write(connection, subscription, tenant, &stand).await?;
    let after = of_stripe(connection, subscription).await?.ok_or(sqlx::Error::RowNotFound)?;
    let outcome = if note(connection, event.actor, subscription.to_owned(), before, &after).await? {
        Outcome::Applied
    } else if stand.event == event.id {
        Outcome::Unchanged
    } else {
        Outcome::Superseded
    };
    Ok((outcome, Some(tenant)))
}

async fn write(
    connection: &mut PgConnection,
    subscription: &str,
    tenant: Uuid,
    stand: &Stand,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO subscriptions AS s (stripe_subscription_id, tenant_id, plan_id, status, current_period_start,
             current_period_end, canceled_at, ends_at, status_since, last_event_at, metadata)
         VALUES ($1, $2, (SELECT id FROM plans WHERE slug = $3), $4, $5::text::timestamptz, $6::text::timestamptz,
             $7::text::timestamptz, $8::text::timestamptz, $9::text::timestamptz, $10::text::timestamptz, $11)
         ON CONFLICT (stripe_subscription_id) DO UPDATE SET
             (tenant_id, plan_id, status, current_period_start, current_period_end, canceled_at, ends_at, status_since,
              last_event_at, metadata)
             = (excluded.tenant_id, excluded.plan_id, excluded.status, excluded.current_period_start,
                excluded.current_period_end, excluded.canceled_at, excluded.ends_at, excluded.status_since,
                excluded.last_event_at, excluded.metadata)
         WHERE (s.tenant_id, s.plan_id, s.status, s.current_period_start, s.current_period_end, s.canceled_at, s.ends_at,
                s.status_since, s.last_event_at, s.metadata)
             IS DISTINCT FROM (excluded.tenant_id, excluded.plan_id, excluded.status, excluded.current_period_start,
                excluded.current_period_end, excluded.canceled_at, excluded.ends_at, excluded.status_since,
                excluded.last_event_at, excluded.metadata)",
    )
    .bind(subscription)
    .bind(tenant)
    .bind(&stand.plan)
    .bind(&stand.status)
    .bind(text(stand.period_start))
    .bind(text(stand.period_end))
    .bind(stand.canceled_at.map(text))
    .bind(stand.ends_at.map(text))
    .bind(text(stand.since))
    .bind(text(stand.at))
    .bind(Json(json!({ "customer": stand.customer })))
    .execute(connection)
    .await
    .map(drop)
}

pub(super) fn text(instant: Timestamp) -> String {
    format!("{instant:.6}")
}
