//! What a backup's Job tells the operator, as the termination message of its pod: the Job has no right on any object.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What came of one tenant's backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// Whose.
    pub tenant: Uuid,
    /// When it ended, well or not.
    pub ended_at: Timestamp,
    /// The backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<BackupTaken>,
    /// Why there is none. Kubernetes keeps 4,096 bytes of all reports together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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

/// Longest error that is told.
pub const LONGEST_ERROR: usize = 500;
