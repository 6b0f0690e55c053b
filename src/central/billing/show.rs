//! Subscriptions and events, for people.

use sqlx::FromRow;
use uuid::Uuid;

use super::order_of_subscriptions;
use crate::central::{Central, CentralError, bounded};

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct SubscriptionLine {
    /// Whose.
    pub tenant: Uuid,
    /// The tenant's slug.
    pub slug: String,
    /// Stripe's id; None: manual.
    pub stripe_id: Option<String>,
    /// One of Stripe's statuses.
    pub status: String,
    /// The plan's slug.
    pub plan: Option<String>,
    /// End of the period (RFC 3339).
    pub period_end: String,
    /// When it ends whatever the status says (RFC 3339).
    pub ends_at: Option<String>,
    /// It is the one that counts for its tenant.
    pub counts: bool,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct EventLine {
    /// Stripe's id.
    pub id: String,
    /// As `customer.subscription.updated`.
    pub kind: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// The subscription that it is about.
    pub subscription: Option<String>,
    /// The slug of the tenant that it is about.
    pub slug: Option<String>,
    /// What became of it.
    pub outcome: String,
}

impl Central {
    /// Subscriptions, of one tenant or of all, the one that counts first.
    pub async fn subscriptions(&self, tenant: Option<Uuid>) -> Result<Vec<SubscriptionLine>, CentralError> {
        let query = sqlx::query_as(concat!(
            "SELECT s.tenant_id AS tenant, t.slug, s.stripe_subscription_id AS stripe_id, s.status, p.slug AS plan,
                    to_char(s.current_period_end AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS period_end,
                    to_char(s.ends_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS ends_at,
                    s.place = 1 AS counts
             FROM (SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY ",
            order_of_subscriptions!(),
            ") AS place FROM subscriptions WHERE $1::uuid IS NULL OR tenant_id = $1) s
             JOIN tenants t ON t.id = s.tenant_id LEFT JOIN plans p ON p.id = s.plan_id
             ORDER BY t.slug, t.id, s.place"
        ));
        bounded("list the subscriptions", query.bind(tenant).fetch_all(&self.pool)).await
    }

    /// The newest `most` events, of one tenant or of all, or only those that need somebody.
    pub async fn billing_events(
        &self,
        tenant: Option<Uuid>,
        unmatched: bool,
        most: i64,
    ) -> Result<Vec<EventLine>, CentralError> {
        let query = sqlx::query_as(
            "SELECT e.id, e.type AS kind, e.subscription_id AS subscription, t.slug, e.outcome,
                    to_char(e.created AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS created
             FROM billing_events e LEFT JOIN tenants t ON t.id = e.tenant_id
             WHERE ($1::uuid IS NULL OR e.tenant_id = $1) AND (NOT $2 OR e.outcome IN ('unmatched', 'unreadable'))
             ORDER BY e.received DESC LIMIT $3",
        );
        let query = query.bind(tenant).bind(unmatched).bind(most);
        bounded("list the billing events", query.fetch_all(&self.pool)).await
    }

    /// How many events need somebody.
    pub async fn unmatched_events(&self) -> Result<i64, CentralError> {
        let query =
            sqlx::query_scalar("SELECT count(*) FROM billing_events WHERE outcome IN ('unmatched', 'unreadable')");
        bounded("count the billing events that need somebody", query.fetch_one(&self.pool)).await
    }
}
