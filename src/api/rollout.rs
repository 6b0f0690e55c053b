//! `SchemaRollout`: the app's schema, brought to a version in every tenant's database.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// To which version, in which order, and how carefully.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "tenancy.maintenance-os.com",
    version = "v1alpha1",
    kind = "SchemaRollout",
    plural = "schemarollouts",
    status = "SchemaRolloutStatus",
    derive = "PartialEq",
    shortname = "mroll",
    category = "maintenance-os",
    doc = "Brings the app's schema to a version in the databases of all tenants, wave after wave.",
    printcolumn(name = "Target", type_ = "string", json_path = ".status.targetVersion"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Wave", type_ = "string", json_path = ".status.wave"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.done"),
    printcolumn(name = "Total", type_ = "integer", json_path = ".status.total"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Per-Minute", type_ = "integer", json_path = ".status.perMinute"),
    printcolumn(name = "Left", type_ = "string", json_path = ".status.timeLeft"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = "1"),
    cel,
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name has more than 63 characters: choose a shorter one"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.targetVersion) == has(oldSelf.targetVersion) && (!has(self.targetVersion) || self.targetVersion == oldSelf.targetVersion)").message("spec.targetVersion is immutable: create another SchemaRollout instead").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("(has(self.waves) ? self.waves : []) == (has(oldSelf.waves) ? oldSelf.waves : [])").message("spec.waves is immutable, because tenants of earlier waves are done already: abort this SchemaRollout and create another one").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!oldSelf.aborted || self.aborted").message("an aborted SchemaRollout stays aborted: create another one, which goes on where this one ended").reason(Reason::FieldValueForbidden))]
pub struct SchemaRolloutSpec {
    /// Four digits, the version that a migration's file begins with. Default: the newest that the operator's image has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 4, max = 4), regex(pattern = r"^[0-9]{4}$"))]
    pub target_version: Option<String>,
    /// Who comes first; the first wave is the canary. Tenants that no wave takes come last, as wave `rest`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub waves: Vec<Wave>,
    /// Databases that are migrated at a time on each server.
    #[serde(default = "default_max_parallel")]
    #[schemars(range(min = 1, max = 64))]
    pub max_parallel: i32,
    /// How many tenants may fail before no further one is begun. Those that fail are served as before.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub max_failures: i32,
    /// How long a statement waits for a lock, as `2s`: behind it every query on that table waits too. Tried again, later each time.
    #[serde(default = "default_lock_timeout")]
    #[schemars(length(min = 2, max = 24), regex(pattern = crate::api::DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('60s')").message("spec.lockTimeout must be from 1s to 60s: behind a migration that waits for a lock, customers wait too"))]
    pub lock_timeout: String,
    /// Longest statement of a migration, as `30m`.
    #[serde(default = "default_statement_timeout")]
    #[schemars(length(min = 2, max = 24), regex(pattern = crate::api::DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("spec.statementTimeout must be from 1s to 24h"))]
    pub statement_timeout: String,
    /// No further tenant is begun until this is false again.
    #[serde(default)]
    pub paused: bool,
    /// No further tenant is begun, for good. What was migrated stays so.
    #[serde(default)]
    pub aborted: bool,
}

/// Some of the tenants.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.ring) && has(self.percent))").message("a wave takes either spec.waves[].ring or spec.waves[].percent, not both: remove one"))]
#[x_kube(validation = Rule::new("self.name != 'rest'").message("spec.waves[].name: rest is the wave of those that no other takes, choose another name"))]
pub struct Wave {
    /// Shown in the status.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Tenants whose label `tenancy.maintenance-os.com/ring` has this value. Without ring and percent: everybody who is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub ring: Option<String>,
    /// So many of all tenants, chosen by their uuid, so that those of a smaller percentage are among those of a larger one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
    /// How long the wave is watched before the next one begins, as `30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = crate::api::DURATION_PATTERN))]
    pub soak: Option<String>,
}

/// How far it is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SchemaRolloutStatus {
    /// The generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The version that is rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_version: Option<String>,
    /// Pending, Running, Soaking, Paused, Held, Aborted, Complete or Failed.
    #[serde(default)]
    pub phase: RolloutPhase,
    /// The wave that is under way, as `canary (1/3)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
    /// Tenants that have a database.
    #[serde(default)]
    pub total: i32,
    /// Those of them that have the version, or a later one.
    #[serde(default)]
    pub done: i32,
    /// Those whose migration failed.
    #[serde(default)]
    pub failed: i32,
    /// Tenants that were migrated within the last minute, or since it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<i32>,
    /// At this rate, as `4m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_left: Option<String>,
    /// When the first tenant was begun (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When nothing was left to do (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// Waves that are done, with the time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub waves: Vec<WaveDone>,
    /// The first twenty that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["tenant".to_string()]))]
    pub failures: Vec<TenantFailure>,
    /// The value of the annotation `retry` that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried: Option<String>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// How far a rollout is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum RolloutPhase {
    /// It waits for another rollout or for templates.
    #[default]
    Pending,
    /// Tenants are migrated.
    Running,
    /// A wave is done and watched.
    Soaking,
    /// `spec.paused` is set.
    Paused,
    /// More tenants failed than may.
    Held,
    /// `spec.aborted` is set.
    Aborted,
    /// Every tenant has the version.
    Complete,
    /// Nothing is left to do but for tenants that failed.
    Failed,
}

/// A wave that is done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, JsonSchema)]
pub struct WaveDone {
    /// Its name.
    pub name: String,
    /// When (RFC 3339).
    pub at: Time,
}

/// A tenant whose migration failed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct TenantFailure {
    /// `namespace/name`.
    pub tenant: String,
    /// File, line and what the server said.
    pub message: String,
}

fn default_max_parallel() -> i32 {
    4
}
fn default_lock_timeout() -> String {
    "2s".into()
}
fn default_statement_timeout() -> String {
    "30m".into()
}
