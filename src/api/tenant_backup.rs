//! `TenantBackup`: one backup of one tenant, now.

#![allow(clippy::duplicated_attributes, reason = "each column says its type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NameRef;

/// Whose backup is taken.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[kube(
    group = "tenancy.maintenance-os.com",
    version = "v1alpha1",
    kind = "TenantBackup",
    plural = "tenantbackups",
    namespaced,
    status = "TenantBackupStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "mbackup",
    category = "maintenance-os",
    doc = "Takes one backup of one tenant, now. Deleting this object ends a backup that is being taken; one that was taken stays in the bucket.",
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantRef.name"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Backup", type_ = "string", json_path = ".status.backup"),
    printcolumn(name = "Size", type_ = "integer", json_path = ".status.size"),
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
#[x_kube(validation = Rule::new("self == oldSelf").message("spec is immutable: create another TenantBackup instead").reason(Reason::FieldValueForbidden))]
pub struct TenantBackupSpec {
    /// The Tenant, in the same namespace.
    pub tenant_ref: NameRef,
}

/// What came of it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantBackupStatus {
    /// The generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Running, Done or Failed.
    #[serde(default)]
    pub phase: BackupPhase,
    /// Uuid of the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The backup's name in the bucket, which `spec.backup` of a TenantRestore takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Size of the dump in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// SHA-256 of the dump, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// When its Job was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended, well or not (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// How far a backup is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum BackupPhase {
    /// Its Job is not made yet.
    #[default]
    Pending,
    /// Its Job is at work.
    Running,
    /// It lies in the bucket.
    Done,
    /// There is none; earlier ones are untouched.
    Failed,
}

impl BackupPhase {
    /// Nothing is done for it any more.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}
