//! `Plan`: what is sold.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tenant::{Retention, Verify};

/// A plan: price, features, limits, and the sizes that follow from them.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "tenancy.maintenance-os.com",
    version = "v1alpha1",
    kind = "Plan",
    plural = "plans",
    status = "PlanStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "mplan",
    category = "maintenance-os",
    doc = "A plan that customers can buy: price, features and limits.",
    selectable = ".spec.active",
    printcolumn(name = "Price", type_ = "string", json_path = ".spec.price"),
    printcolumn(name = "Currency", type_ = "string", json_path = ".spec.currency"),
    printcolumn(name = "Active", type_ = "boolean", json_path = ".spec.active"),
    printcolumn(name = "Tenants", type_ = "integer", json_path = ".status.tenants"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    cel,
    validation = Rule::new("size(self.metadata.name) <= 50").message("metadata.name has more than 50 characters: it is the plan's slug, choose a shorter one"),
)]
#[serde(rename_all = "camelCase")]
pub struct PlanSpec {
    /// Name shown to people; up to 100 characters.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"))]
    pub display_name: String,
    /// Price per month as a decimal string with at most two places, as `"49.00"`.
    #[schemars(length(min = 1, max = 11), regex(pattern = r"^[0-9]{1,8}(\.[0-9]{1,2})?$"))]
    pub price: String,
    /// ISO 4217 code.
    #[serde(default = "default_currency")]
    #[schemars(length(min = 3, max = 3), regex(pattern = r"^[A-Z]{3}$"))]
    pub currency: String,
    /// False: tenants that have the plan keep it, new ones are refused.
    #[serde(default = "default_active")]
    pub active: bool,
    /// What the app switches on, as `assets` or `custom-domains`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub features: Vec<String>,
    /// How much of it.
    #[serde(default)]
    pub limits: PlanLimits,
    /// Sizes at the pooler and on the server.
    #[serde(default)]
    pub database: PlanDatabase,
    /// Queue workers.
    #[serde(default)]
    pub workers: PlanWorkers,
    /// Backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<PlanBackup>,
    /// What becomes of tenants that do not pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<PlanBilling>,
}

/// Limits that the app enforces; unset means without limit.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanLimits {
    /// Users of one tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub users: Option<i32>,
    /// Assets of one tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub assets: Option<i32>,
    /// File storage of one tenant in GiB.
    #[serde(default, rename = "storageGiB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub storage_gib: Option<i32>,
    /// Requests per minute over all of a tenant's users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests_per_minute: Option<i32>,
}

/// Sizes at the pooler and on the server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.maxConnections >= 4").message("database.maxConnections must be at least 4: three are kept for rotation, backup and migration"))]
#[x_kube(validation = Rule::new("self.poolSize <= self.maxConnections - 3").message("database.poolSize must be at most maxConnections - 3: three are kept for rotation, backup and migration"))]
pub struct PlanDatabase {
    /// Connections that the pooler keeps to one tenant's database, over all its replicas.
    #[serde(default = "default_pool_size")]
    #[schemars(range(min = 1, max = 500))]
    pub pool_size: i32,
    /// Connection limit of the database.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_connections: i32,
    /// Longest statement, as `30s`; from 1s to 24h.
    #[serde(default = "default_statement_timeout")]
    #[schemars(length(min = 2, max = 24), regex(pattern = crate::api::DURATION_PATTERN))]
    // PostgreSQL takes 0 for "no limit" and refuses more than 24 days.
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("database.statementTimeout must be from 1s to 24h: every plan has a limit, 30s is usual"))]
    pub statement_timeout: String,
}

impl Default for PlanDatabase {
    fn default() -> Self {
        Self {
            pool_size: default_pool_size(),
            max_connections: default_max_connections(),
            statement_timeout: default_statement_timeout(),
        }
    }
}

/// Queue workers of one tenant.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minProcesses <= self.maxProcesses").message("workers.minProcesses must not exceed workers.maxProcesses"))]
pub struct PlanWorkers {
    /// Shared: the pool that serves all tenants fairly. Dedicated: a Deployment of the tenant's own, made from the pod
    /// template of the pool, which does the jobs whenever none of its pods is available.
    #[serde(default)]
    pub mode: WorkerMode,
    /// Share of the shared pool in relation to other tenants.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// Fewest pods (Dedicated). With 0 there are none while there is nothing to do, where the cluster has KEDA; else one.
    #[serde(default = "default_min_processes")]
    #[schemars(range(min = 0, max = 10))]
    pub min_processes: i32,
    /// Most jobs at a time over all pods; with Dedicated also the most pods.
    #[serde(default = "default_max_processes")]
    #[schemars(range(min = 1, max = 10))]
    pub max_processes: i32,
}

impl Default for PlanWorkers {
    fn default() -> Self {
        Self {
            mode: WorkerMode::default(),
            weight: default_weight(),
            min_processes: default_min_processes(),
            max_processes: default_max_processes(),
        }
    }
}

/// Who drains a tenant's queue.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum WorkerMode {
    /// The pool that serves all tenants fairly.
    #[default]
    Shared,
    /// A Deployment of the tenant's own.
    Dedicated,
}

/// Backups of tenants on this plan.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanBackup {
    /// PerTenant: a CronJob each. Shared: one CronJob for all of them on a server, two at a time.
    #[serde(default)]
    pub mode: BackupMode,
    /// Cron schedule in UTC; `H` is spread by hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 64))]
    #[x_kube(validation = Rule::new(crate::api::SCHEDULE_RULE).message("backup.schedule must be a cron schedule of five fields, as H 2 * * * (UTC; H is a minute of the tenant's own, H(1-3) a number from a range)"))]
    pub schedule: Option<String>,
    /// How many to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// When the newest backup of each is restored into a scratch database; every week where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
}

/// What becomes of tenants on this plan that do not pay.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PlanBilling {
    /// For how long a tenant is served as before after its trial or subscription has lapsed, as `336h`; at most 8760h.
    /// Without it not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = crate::api::DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) <= duration('8760h')").message("billing.gracePeriod must be at most 8760h, a year; 336h is usual"))]
    pub grace_period: Option<String>,
}

/// How backups are run.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum BackupMode {
    /// A CronJob for each tenant.
    #[default]
    PerTenant,
    /// One CronJob per server for all its tenants.
    Shared,
}

/// What is there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// The generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of the plan in the central database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<i32>,
    /// Tenants that have the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<i32>,
    /// `Ready`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
}

fn default_currency() -> String {
    "USD".into()
}
fn default_active() -> bool {
    true
}
fn default_pool_size() -> i32 {
    10
}
fn default_max_connections() -> i32 {
    25
}
fn default_statement_timeout() -> String {
    "30s".into()
}
fn default_weight() -> i32 {
    1
}
fn default_min_processes() -> i32 {
    1
}
fn default_max_processes() -> i32 {
    10
}
