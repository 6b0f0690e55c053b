//! `TenantRestore`: one tenant's data, back as a backup has it. And what its Job tells the operator.

#![allow(clippy::duplicated_attributes, reason = "each column says its type")]

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::NameRef;

/// Which backup is restored for which Tenant, and whether it may take the place of what is there.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "tenancy.maintenance-os.com",
    version = "v1alpha1",
    kind = "TenantRestore",
    plural = "tenantrestores",
    namespaced,
    status = "TenantRestoreStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "mrestore",
    category = "maintenance-os",
    doc = "Restores a backup of one tenant beside its live database and, once spec.approve is true, puts it in its place. The database that was there is kept for the Tenant's spec.quarantine. Deleting this object before that leaves the live database as it is and removes the restored one.",
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantRef.name"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Backup", type_ = "string", json_path = ".status.backup"),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.rows"),
    printcolumn(name = "Live-Rows", type_ = "integer", json_path = ".status.liveRows"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = "1"
    ),
    cel
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.tenantRef == oldSelf.tenantRef").message("spec.tenantRef is immutable: create another TenantRestore instead").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("has(self.backup) == has(oldSelf.backup) && (!has(self.backup) || self.backup == oldSelf.backup)").message("spec.backup is immutable: create another TenantRestore instead").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("has(self.sourceTenant) == has(oldSelf.sourceTenant) && (!has(self.sourceTenant) || self.sourceTenant == oldSelf.sourceTenant)").message("spec.sourceTenant is immutable: create another TenantRestore instead").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("self.clone == oldSelf.clone").message("spec.clone is immutable: create another TenantRestore instead").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!oldSelf.approve || self.approve").message("spec.approve cannot be taken back: set spec.abort to true, which counts until the databases are swapped").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!oldSelf.abort || self.abort").message("an aborted TenantRestore stays aborted: create another one").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("!self.clone || has(self.sourceTenant)").message("spec.clone needs spec.sourceTenant: the uuid of the tenant whose backup is restored"))]
pub struct TenantRestoreSpec {
    /// The Tenant whose database is to be replaced, in the same namespace.
    pub tenant_ref: NameRef,
    /// Name of the backup, as `maintenance-os backup list` and status.backup of a TenantBackup say it. Default: the newest good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 49, max = 49), regex(pattern = r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{32}$"))]
    pub backup: Option<String>,
    /// Uuid of the tenant whose backup it is. Default: this Tenant's own. Another one's is refused without spec.clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))]
    pub source_tenant: Option<String>,
    /// Puts another tenant's data into this one, on purpose. Needs the right to the verb `adopt` on tenants in this namespace.
    #[serde(default)]
    pub clone: bool,
    /// The restored database takes the place of the live one. May be set once status.phase is AwaitingApproval, or from the beginning.
    #[serde(default)]
    pub approve: bool,
    /// Ends it: the live database stays as it is, the restored one is removed. Counts until the databases are swapped.
    #[serde(default)]
    pub abort: bool,
}

/// How far it is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantRestoreStatus {
    /// The generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Preparing, Restoring, AwaitingApproval, Swapping, Done, Failed or Aborted.
    #[serde(default)]
    pub phase: RestorePhase,
    /// Uuid of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Name of the backup in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Size of the dump in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// SHA-256 of the dump, in hex: what was read is what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Version of the app's schema in the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_schema_version: Option<String>,
    /// Version of the app's schema in the restored database, which is brought up to that of the live one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
    /// The restored database, until it takes the place of the live one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Rows of all tables in the backup, and in the restored database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Rows of all tables in the live database when the backup was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_rows: Option<i64>,
    /// Rows table by table; those first that differ most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["table".to_string()]))]
    pub tables: Vec<TableRows>,
    /// Tables that are not listed for want of room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables_left_out: Option<i32>,
    /// The database that was live before, kept until its time has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<ReplacedDatabase>,
    /// When work on it began (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When nothing was left to do (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// How far a restore is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
pub enum RestorePhase {
    /// It waits for something; the message says for what.
    #[default]
    Pending,
    /// A database is made beside the live one.
    Preparing,
    /// Its Job fills that database.
    Restoring,
    /// The restored database waits for `spec.approve`.
    AwaitingApproval,
    /// It takes the place of the live one.
    Swapping,
    /// It has taken its place.
    Done,
    /// It ended without it; the live database is untouched.
    Failed,
    /// It was ended by `spec.abort`; the live database is untouched.
    Aborted,
}

impl RestorePhase {
    /// Nothing is done for it any more.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Aborted)
    }

    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Preparing => "Preparing",
            Self::Restoring => "Restoring",
            Self::AwaitingApproval => "AwaitingApproval",
            Self::Swapping => "Swapping",
            Self::Done => "Done",
            Self::Failed => "Failed",
            Self::Aborted => "Aborted",
        }
    }
}

/// Rows of one table.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct TableRows {
    /// `schema.table`.
    pub table: String,
    /// In the backup. Absent: it has no such table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<i64>,
    /// In the live database when the backup was restored. Absent: it has no such table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<i64>,
}

/// A database that another one has taken the place of.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplacedDatabase {
    /// Its name on the server now.
    pub database: String,
    /// When it may be dropped (RFC 3339).
    pub drop_after: String,
}

/// What a restore's Job tells the operator, as the termination message of its pod: the Job has no right on any object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreReport {
    /// uid of the TenantRestore.
    pub restore: Uuid,
    /// When it ended, well or not.
    pub ended_at: Timestamp,
    /// What was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// Why nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A backup that was restored, and proved to be what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Its name in the bucket.
    pub backup: String,
    /// Size of the dump in bytes.
    pub size: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// The app's schema in it, `<version>_<checksum>`.
    pub schema: String,
    /// Rows of all tables.
    pub rows: i64,
    /// Rows of all tables of the live database; none where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_rows: Option<i64>,
    /// Rows table by table, as many as find room: Kubernetes keeps 4,096 bytes.
    pub tables: Vec<TableRows>,
    /// Tables that found none.
    #[serde(default)]
    pub left_out: i32,
}
