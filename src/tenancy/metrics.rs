//! The two metrics that every tenant has, bounded.
//!
//! `tenant_requests_total{tenant_id,status}` and `tenant_request_duration_seconds{tenant_id}`. A time series per tenant
//! is a promise that somebody pays for, so there is a limit: the tenants beyond it are counted together as `_other`,
//! and the series of a tenant that is routed no more go away.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use uuid::Uuid;

const BUCKETS: [f64; 7] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// `tenant_id` of all tenants that have no series of their own.
const OTHER: &str = "_other";

/// The metrics of all tenants. Clones share them.
#[derive(Clone, Debug)]
pub struct TenantMetrics(Arc<Mutex<Series>>);

/// One mutex for all: it is held for a few additions per request, and for a copy per scrape.
#[derive(Debug)]
struct Series {
    /// Tenants with series of their own at most.
    max_tenants: usize,
    /// Who is routed. A request that ends after its tenant was removed must not bring the series back.
    routed: HashSet<Uuid>,
    own: HashMap<Uuid, Counts>,
    other: Counts,
}

#[derive(Clone, Debug)]
struct Counts {
    by_status: BTreeMap<u16, u64>,
    durations: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        Self { by_status: BTreeMap::new(), durations: Histogram::new(BUCKETS) }
    }
}

impl TenantMetrics {
    /// At most `max_tenants` tenants get series of their own.
    pub fn new(max_tenants: usize) -> Self {
        Self(Arc::new(Mutex::new(Series {
            max_tenants,
            routed: HashSet::new(),
            own: HashMap::new(),
            other: Counts::default(),
        })))
    }

    /// Makes them part of what `/metrics` answers.
    pub fn register(&self, registry: &mut Registry) {
        // As a collector and not by `Registry::register`, which would put a full stop after the help text.
        registry.register_collector(Box::new(self.clone()));
    }

    /// Counts one answered request.
    pub fn record(&self, tenant: Uuid, status: StatusCode, duration: Duration) {
        let mut series = self.lock();
        let counts = series.counts(tenant);
        *counts.by_status.entry(status.as_u16()).or_default() += 1;
        counts.durations.observe(duration.as_secs_f64());
    }

    /// The tenant is routed from now on.
    pub fn admit(&self, tenant: Uuid) {
        self.lock().routed.insert(tenant);
    }

    /// The tenant is routed no more; its series go.
    pub fn forget(&self, tenant: Uuid) {
        let mut series = self.lock();
        series.routed.remove(&tenant);
        series.own.remove(&tenant);
    }

    fn lock(&self) -> MutexGuard<'_, Series> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Series {
    fn counts(&mut self, tenant: Uuid) -> &mut Counts {
        let has_room = self.own.contains_key(&tenant) || self.own.len() < self.max_tenants;
        if has_room && self.routed.contains(&tenant) { self.own.entry(tenant).or_default() } else { &mut self.other }
    }

    /// Everything that has counted something, with its `tenant_id`, in a stable order.
    fn labelled(&self) -> Vec<(String, Counts)> {
        let own = self.own.iter().map(|(tenant, counts)| (tenant.to_string(), counts.clone()));
        let other = std::iter::once((OTHER.to_owned(), self.other.clone()));
        let mut all: Vec<_> = own.chain(other).filter(|(_, counts)| !counts.by_status.is_empty()).collect();
        all.sort_by(|(one, _), (two, _)| one.cmp(two));
        all
    }
}

impl Collector for TenantMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        // Copied first: writing text for thousands of tenants must not hold up their requests.
        let series = self.lock().labelled();
        // The encoder adds `_total` to a counter's name by itself.
        let mut requests =
            encoder.encode_descriptor("tenant_requests", "Total requests per tenant", None, MetricType::Counter)?;
        for (tenant, counts) in &series {
            for (status, count) in &counts.by_status {
                let labels = [("tenant_id", tenant.clone()), ("status", status.to_string())];
                requests.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        let mut durations = encoder.encode_descriptor(
            "tenant_request_duration_seconds",
            "Request duration per tenant",
            None,
            MetricType::Histogram,
        )?;
        for (tenant, counts) in &series {
            counts.durations.encode(durations.encode_family(&[("tenant_id", tenant.clone())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &TenantMetrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn names_help_labels_and_buckets_are_exactly_those_promised() {
        let metrics = TenantMetrics::new(10);
        let tenant = Uuid::from_u128(1);
        metrics.admit(tenant);
        metrics.record(tenant, StatusCode::OK, Duration::from_millis(300));
        let expected = "\
# HELP tenant_requests Total requests per tenant
# TYPE tenant_requests counter
tenant_requests_total{tenant_id=\"00000000-0000-0000-0000-000000000001\",status=\"200\"} 1
# HELP tenant_request_duration_seconds Request duration per tenant
# TYPE tenant_request_duration_seconds histogram
tenant_request_duration_seconds_sum{tenant_id=\"00000000-0000-0000-0000-000000000001\"} 0.3
tenant_request_duration_seconds_count{tenant_id=\"00000000-0000-0000-0000-000000000001\"} 1
";
        let text = text(&metrics);
        assert!(text.starts_with(expected), "{text}");
        let buckets: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("le=\"")?.1.split_once('"')).map(|(le, _)| le).collect();
        assert_eq!(buckets, ["0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"]);
    }

    #[test]
    fn tenants_beyond_the_limit_are_counted_together() {
        let metrics = TenantMetrics::new(2);
        for number in 1..=5 {
            metrics.admit(Uuid::from_u128(number));
            metrics.record(Uuid::from_u128(number), StatusCode::OK, Duration::ZERO);
        }
        let text = text(&metrics);
        assert_eq!(text.matches("tenant_requests_total{").count(), 3, "{text}");
        assert!(text.contains("tenant_requests_total{tenant_id=\"_other\",status=\"200\"} 3"), "{text}");
    }

    #[test]
    fn the_series_of_a_removed_tenant_go_and_a_late_request_does_not_bring_them_back() {
        let metrics = TenantMetrics::new(10);
        let tenant = Uuid::from_u128(1);
        metrics.admit(tenant);
        metrics.record(tenant, StatusCode::OK, Duration::ZERO);
        metrics.forget(tenant);
        metrics.record(tenant, StatusCode::OK, Duration::ZERO);
        let text = text(&metrics);
        assert!(!text.contains(&tenant.to_string()), "{text}");
        assert!(text.contains("tenant_id=\"_other\""), "{text}");
    }
}
