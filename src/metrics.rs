//! The operator's own figures, all named `maintenance_os_…`. Labels are bounded: reasons, kinds of effects, servers.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use uuid::Uuid;

use crate::desired::facts::ServerFacts;

/// The operator's figures; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    visits: Family<Outcome, Counter>,
    effects: Family<Kind, Counter>,
    /// Seconds from the creation of a Tenant object to its first `Ready`.
    pub provisioning: Histogram,
    tenants: Family<Ready, Gauge>,
    warm: Family<OfServer, Gauge>,
    placed: Family<OfServer, Gauge>,
    promised: Family<OfServer, Gauge>,
    budget: Family<OfServer, Gauge>,
    rollouts: Family<OfRollout, Gauge>,
    schemas: Family<OfSchema, Gauge>,
    /// Of backups.
    pub backup: BackupMetrics,
}

/// Figures of backups. One series per tenant: an alert has to name the one whose backup is old.
#[derive(Clone, Debug, Default)]
pub struct BackupMetrics {
    last: Family<OfTenant, Gauge>,
    size: Family<OfTenant, Gauge>,
    seconds: Family<OfTenant, Gauge>,
    verified: Family<OfTenant, Gauge>,
    failures: Counter,
    unrestored: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfTenant {
    tenant: String,
}

impl BackupMetrics {
    fn register(&self, registry: &mut Registry) {
        let last = "Time of a tenant's newest backup, in seconds since 1970";
        registry.register("maintenance_os_backup_last_success_timestamp_seconds", last, self.last.clone());
        registry.register("maintenance_os_backup_size_bytes", "Size of a tenant's newest backup", self.size.clone());
        let took = "How long a tenant's newest backup took";
        registry.register("maintenance_os_backup_duration_seconds", took, self.seconds.clone());
        registry.register("maintenance_os_backup_failures", "Backups that failed", self.failures.clone());
        let verified = "When a tenant's backup was last restored in a rehearsal, in seconds since 1970";
        registry.register("maintenance_os_backup_verified_timestamp_seconds", verified, self.verified.clone());
        let unrestored = "Rehearsals of a restore that failed";
        registry.register("maintenance_os_backup_rehearsal_failures", unrestored, self.unrestored.clone());
    }

    /// Shows a tenant's newest backup; an older one than is shown changes nothing.
    pub fn show(&self, tenant: Uuid, ended: Timestamp, size: i64) {
        let label = OfTenant { tenant: tenant.to_string() };
        let last = self.last.get_or_create_owned(&label);
        if last.get() <= ended.as_second() {
            last.set(ended.as_second());
            self.size.get_or_create(&label).set(size);
        }
    }

    /// Shows when a tenant's backup was last restored in a rehearsal; an older one than is shown changes nothing.
    pub fn show_verified(&self, tenant: Uuid, ended: Timestamp) {
        let verified = self.verified.get_or_create_owned(&OfTenant { tenant: tenant.to_string() });
        if verified.get() <= ended.as_second() {
            verified.set(ended.as_second());
        }
    }

    /// Shows how long a tenant's backup took.
    pub fn took(&self, tenant: Uuid, seconds: i64) {
        self.seconds.get_or_create(&OfTenant { tenant: tenant.to_string() }).set(seconds);
    }

    /// Shows nothing of a tenant that is gone.
    pub fn forget(&self, tenant: Uuid) {
        let label = OfTenant { tenant: tenant.to_string() };
        for family in [&self.last, &self.size, &self.seconds, &self.verified] {
            family.remove(&label);
        }
    }

    /// Counts a backup, or the rehearsal of a restore, that failed.
    pub fn failed(&self, rehearsal: bool) {
        let counter = if rehearsal { &self.unrestored } else { &self.failures };
        counter.inc();
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    effect: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ready {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfServer {
    server: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRollout {
    rollout: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfSchema {
    version: String,
}

impl Metrics {
    /// New figures and the registry that shows them.
    pub fn new() -> (Self, Arc<Mutex<Registry>>) {
        let metrics = Self {
            visits: Family::default(),
            effects: Family::default(),
            // 50 ms to 100 s.
            provisioning: Histogram::new(exponential_buckets(0.05, 2.0, 12)),
            tenants: Family::default(),
            warm: Family::default(),
            placed: Family::default(),
            promised: Family::default(),
            budget: Family::default(),
            rollouts: Family::default(),
            schemas: Family::default(),
            backup: BackupMetrics::default(),
        };
        let mut registry = Registry::default();
        registry.register("maintenance_os_tenant_visits", "Visits of Tenants", metrics.visits.clone());
        registry.register("maintenance_os_effects", "Writes for Tenants", metrics.effects.clone());
        registry.register(
            "maintenance_os_tenant_provisioning_seconds",
            "Time from a Tenant's creation to its first Ready",
            metrics.provisioning.clone(),
        );
        registry.register("maintenance_os_tenants", "Tenants by the reason of Ready", metrics.tenants.clone());
        registry.register(
            "maintenance_os_server_warm_databases",
            "Databases ready to be claimed",
            metrics.warm.clone(),
        );
        registry.register(
            "maintenance_os_server_tenants",
            "Tenants placed on a server, kept data included",
            metrics.placed.clone(),
        );
        registry.register(
            "maintenance_os_server_promised_connections",
            "Connections that the plans of a server's tenants promise them in sum",
            metrics.promised.clone(),
        );
        registry.register(
            "maintenance_os_server_connection_budget",
            "Connections that may be promised on a server",
            metrics.budget.clone(),
        );
        registry.register(
            "maintenance_os_rollout_tenants",
            "Tenants of the schema rollout that is under way",
            metrics.rollouts.clone(),
        );
        registry.register(
            "maintenance_os_schema_tenants",
            "Tenants by the version of their schema",
            metrics.schemas.clone(),
        );
        metrics.backup.register(&mut registry);
        (metrics, Arc::new(Mutex::new(registry)))
    }

    /// Counts one visit of a Tenant.
    pub fn visited(&self, failed: bool) {
        self.visits.get_or_create(&Outcome { result: if failed { "error" } else { "ok" } }).inc();
    }

    /// Counts one write for a Tenant.
    pub fn wrote(&self, effect: &'static str) {
        self.effects.get_or_create(&Kind { effect }).inc();
    }

    /// Shows how many Tenants have each reason of `Ready`.
    pub fn show_tenants(&self, counts: impl IntoIterator<Item = (String, usize)>) {
        self.tenants.clear();
        for (reason, count) in counts {
            self.tenants.get_or_create(&Ready { reason }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Shows how far a schema rollout is.
    pub fn show_rollout(&self, rollout: &str, counts: [(&'static str, usize); 3]) {
        // One at a time is worked on.
        self.rollouts.clear();
        for (state, count) in counts {
            let label = OfRollout { rollout: rollout.to_owned(), state };
            self.rollouts.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Shows how many tenants have each version of the schema.
    pub fn show_schemas(&self, counts: impl IntoIterator<Item = (String, usize)>) {
        self.schemas.clear();
        for (version, count) in counts {
            self.schemas.get_or_create(&OfSchema { version }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Shows how full a server and its warm pool are.
    pub fn show_server(&self, server: &ServerFacts, warm: usize) {
        let label = OfServer { server: server.name.clone() };
        self.placed.get_or_create(&label).set(i64::try_from(server.tenants).unwrap_or(i64::MAX));
        self.promised.get_or_create(&label).set(server.promised);
        self.budget.get_or_create(&label).set(server.budget.unwrap_or_default());
        self.warm.get_or_create(&label).set(i64::try_from(warm).unwrap_or(i64::MAX));
    }
}
