//! What a Job of backups tells the operator, as the termination message of its pod: the Job has no right on any object.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What came of one tenant's backup, or of the rehearsal of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// Whose.
    pub tenant: Uuid,
    /// When it ended, well or not.
    pub ended_at: Timestamp,
    /// It tells of a rehearsal of a restore, not of a backup.
    #[serde(default, skip_serializing_if = "is_false")]
    pub rehearsal: bool,
    /// The backup that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<BackupTaken>,
    /// The backup that was restored in a rehearsal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<BackupRestored>,
    /// Why it failed. Kubernetes keeps 4,096 bytes of all reports together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// A backup that was restored into a scratch database and found to have every row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupRestored {
    /// Its name in the bucket.
    pub name: String,
    /// How long the restore took, in milliseconds.
    pub milliseconds: u64,
}

/// A backup that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTaken {
    /// Its name in the bucket.
    pub name: String,
    /// Size of the dump in bytes.
    pub size: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
    /// How long it took, in seconds.
    pub seconds: i64,
}

/// One of the tenants whose backups one Job takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListedTenant {
    /// Its identity.
    pub uuid: Uuid,
    /// `namespace/name` of its Tenant.
    pub name: String,
    /// Backups to keep: the newest of each of so many days, weeks and months. None: nothing says, and none is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<[i32; 3]>,
}

/// A line of a Job's log that is a report, in JSON, begins with it.
pub const REPORT_LINE: &str = "report: ";

/// Longest error that is told.
pub const LONGEST_ERROR: usize = 500;
