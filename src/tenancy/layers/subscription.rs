//! `EnsureValidSubscription`: a tenant whose trial or subscription has ended gets the pages that mend it, and no others.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use crate::api::routing::Subscription;
use crate::tenancy::{Refusal, TenantContext};

/// Why there is no valid subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// The trial ended, and nobody subscribed.
    TrialEnded,
    /// The subscription was cancelled, and the time that was paid for is over.
    Cancelled,
    /// It was not paid.
    Unpaid,
    /// It is paused.
    Paused,
}

/// The paths that stay open, for people to sign in and to pay. Clones share them.
#[derive(Debug, Clone)]
pub struct OpenPaths(Arc<[String]>);

impl OpenPaths {
    /// Each of them, and what lies below it.
    pub fn new(paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(paths.into_iter().map(Into::into).collect())
    }

    fn contains(&self, path: &str) -> bool {
        self.0.iter().any(|open| {
            path.strip_prefix(open.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

impl Default for OpenPaths {
    /// Signing in and out, and settings, where the subscription is.
    fn default() -> Self {
        Self::new(["/sign-in", "/sign-out", "/billing", "/settings"])
    }
}

/// The layer. Decides anew for each request, so that a trial ends at its instant, however old the routing entry is.
pub async fn ensure_valid_subscription(
    State(open): State<OpenPaths>,
    tenant: TenantContext,
    request: Request,
    next: Next,
) -> Response {
    match lapse(&tenant.entry().subscription, tenant.clock().now()) {
        Some(lapse) if !open.contains(request.uri().path()) => Refusal::NoSubscription(lapse).into_response(),
        _ => next.run(request).await,
    }
}

/// What is wrong with a subscription at that time, if anything. The names of the status are Stripe's, or `none`.
///
/// Where it is not certain, customers are served: a time that does not parse, a status that nobody knows yet. Whoever is
/// served for an hour too long costs less than whoever is locked out by mistake.
fn lapse(subscription: &Subscription, now: Timestamp) -> Option<Lapse> {
    let is_over =
        |end: &Option<String>| end.as_deref().and_then(|end| Timestamp::from_str(end).ok()).map(|end| now >= end);
    let trial_is_over = is_over(&subscription.trial_ends_at);
    match subscription.status.as_str() {
        // No subscription: it is a trial, or a fleet without billing.
        "" | "none" | "trialing" | "incomplete" if trial_is_over == Some(true) => Some(Lapse::TrialEnded),
        // Paid for until the end of the period, and a trial that was longer still counts.
        "canceled" if trial_is_over != Some(false) && is_over(&subscription.current_period_end) != Some(false) => {
            Some(Lapse::Cancelled)
        }
        "unpaid" | "incomplete_expired" => Some(Lapse::Unpaid),
        "paused" => Some(Lapse::Paused),
        // `active`, and `past_due`: payment failed and is tried again, which is the time of grace.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "2026-12-31T23:59:58Z";
    const END: &str = "2026-12-31T23:59:59Z";
    const AFTER: &str = "2027-01-01T00:00:00Z";

    fn subscription(status: &str, period: Option<&str>, trial: Option<&str>) -> Subscription {
        Subscription {
            status: status.into(),
            current_period_end: period.map(Into::into),
            trial_ends_at: trial.map(Into::into),
        }
    }

    #[test]
    fn a_subscription_is_valid_until_exactly_the_instant_that_it_names() {
        let rows: [(&str, Option<&str>, Option<&str>, &str, Option<Lapse>); 19] = [
            ("none", None, None, AFTER, None),
            ("", None, None, AFTER, None),
            ("none", None, Some(END), BEFORE, None),
            ("none", None, Some(END), END, Some(Lapse::TrialEnded)),
            ("none", None, Some(END), AFTER, Some(Lapse::TrialEnded)),
            ("none", None, Some("2027-01-01T00:59:59+01:00"), BEFORE, None),
            ("none", None, Some("2027-01-01T00:59:59+01:00"), END, Some(Lapse::TrialEnded)),
            ("trialing", None, Some(END), AFTER, Some(Lapse::TrialEnded)),
            ("incomplete", None, Some(END), BEFORE, None),
            ("active", Some(END), Some(END), AFTER, None),
            ("past_due", Some(END), None, AFTER, None),
            ("canceled", Some(END), None, BEFORE, None),
            ("canceled", Some(END), None, END, Some(Lapse::Cancelled)),
            ("canceled", None, None, BEFORE, Some(Lapse::Cancelled)),
            ("canceled", Some(BEFORE), Some(AFTER), END, None),
            ("unpaid", Some(AFTER), None, BEFORE, Some(Lapse::Unpaid)),
            ("paused", None, None, BEFORE, Some(Lapse::Paused)),
            ("something new", None, Some(END), AFTER, None),
            ("none", None, Some("soon"), AFTER, None),
        ];
        for (status, period, trial, now, expected) in rows {
            let found = lapse(&subscription(status, period, trial), now.parse().unwrap());
            assert_eq!(found, expected, "{status} until {period:?}, trial until {trial:?}, at {now}");
        }
    }

    #[test]
    fn a_path_is_open_with_what_lies_below_it_and_not_with_what_only_begins_alike() {
        let open = OpenPaths::new(["/settings", "/billing/"]);
        for path in ["/settings", "/settings/plan", "/billing", "/billing/invoices"] {
            assert!(open.contains(path), "{path}");
        }
        for path in ["/", "/settings-of-all", "/assets/settings", "/Settings", "//settings"] {
            assert!(!open.contains(path), "{path}");
        }
    }
}
