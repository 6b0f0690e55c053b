//! What the webhook counts.

use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::signature::Refused;
use crate::central::EventOutcome;

/// What became of an event.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// [`EventOutcome::as_str`].
    pub outcome: &'static str,
}

/// Why a request was refused.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// [`Refused::label`], or `body`.
    pub reason: &'static str,
}

/// The webhook's metrics; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Events with a good signature, by what became of them.
    pub events: Family<Outcome, Counter>,
    /// Requests that were refused.
    pub refused: Family<Reason, Counter>,
    /// Events that could not be kept; Stripe sends them again.
    pub failures: Counter,
    /// Events that need somebody, in the central database.
    pub unmatched: Gauge,
    /// When the last event was kept, in seconds since 1970.
    pub last: Gauge,
}

impl Metrics {
    /// The metrics and the registry that shows them.
    pub fn new() -> (Self, Arc<Mutex<Registry>>) {
        let metrics = Self::default();
        // Shown as 0 from the start, so that the first one is a change.
        for outcome in EventOutcome::ALL {
            drop(metrics.events.get_or_create(&Outcome { outcome: outcome.as_str() }));
        }
        let reasons = [Refused::Missing, Refused::Malformed, Refused::Stale, Refused::Forged].map(Refused::label);
        for reason in reasons.into_iter().chain(["body"]) {
            drop(metrics.refused.get_or_create(&Reason { reason }));
        }
        let mut registry = Registry::with_prefix("maintenance_os_billing");
        let events = "Events of Stripe by what became of them";
        registry.register("events", events, metrics.events.clone());
        registry.register("refused", "Requests that are not from Stripe, or not of now", metrics.refused.clone());
        let failures = "Events that could not be kept; Stripe sends them again for three days";
        registry.register("failures", failures, metrics.failures.clone());
        let unmatched =
            "Events that name no known tenant or could not be read: maintenance-os billing events --unmatched";
        registry.register("unmatched_events", unmatched, metrics.unmatched.clone());
        let last = "When the last event was kept, in seconds since 1970";
        registry.register("last_event_timestamp_seconds", last, metrics.last.clone());
        (metrics, Arc::new(Mutex::new(registry)))
    }
}
