//! What the agent counts.

use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// How a RELOAD ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Outcome {
    /// `ok` or `error`.
    pub result: &'static str,
}

/// The agent's metrics.
pub struct Metrics {
    /// Tenants' entries that PgBouncer serves.
    pub entries: Gauge,
    /// RELOADs with what belongs to them.
    pub reloads: Family<Outcome, Counter>,
    /// From RELOAD until nothing is left to end.
    pub reload_duration: Histogram,
    /// Changes of slices that were not believed.
    pub refused_slices: Counter,
}

impl Metrics {
    /// The metrics and the registry that shows them.
    pub fn new() -> (Self, Arc<Mutex<Registry>>) {
        let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let metrics = Self {
            entries: Gauge::default(),
            reloads: Family::default(),
            reload_duration: Histogram::new(buckets),
            refused_slices: Counter::default(),
        };
        for result in ["ok", "error"] {
            // Shown as 0 from the start, so that the first error is a change.
            drop(metrics.reloads.get_or_create(&Outcome { result }));
        }
        let mut registry = Registry::with_prefix("maintenance_os_pooler");
        registry.register("entries", "Tenants' entries that PgBouncer serves", metrics.entries.clone());
        registry.register("reloads", "RELOADs of PgBouncer", metrics.reloads.clone());
        registry.register(
            "reload_duration_seconds",
            "Time of a RELOAD until what was removed is gone",
            metrics.reload_duration.clone(),
        );
        registry.register(
            "refused_slices",
            "Changes of slices that were not served: malformed, hostile or older than what is served",
            metrics.refused_slices.clone(),
        );
        (metrics, Arc::new(Mutex::new(registry)))
    }
}
