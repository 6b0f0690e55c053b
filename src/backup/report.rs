//! What a Job tells the operator, in the termination message of its pod.

use std::path::Path;

use anyhow::Context;
use jiff::Timestamp;
use uuid::Uuid;

use super::Outcome;
use super::verify::Rehearsed;
use crate::api::backup::{BackupReport, BackupRestored, BackupTaken, LONGEST_ERROR, REPORT_LINE};

/// Writes `reports` into `path`, where there is one.
///
/// # Errors
/// The file cannot be written.
pub fn write_report(path: Option<&Path>, reports: &[BackupReport]) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_vec(reports).context("writing the report")?;
    std::fs::write(path, text).with_context(|| format!("writing the report {}", path.display()))
}

/// Writes a report as a line of its own into the log: for a Job that has more to tell than a termination message holds.
pub fn print_line(report: &BackupReport) {
    match serde_json::to_string(report) {
        Ok(text) => println!("{REPORT_LINE}{text}"),
        Err(error) => tracing::warn!(%error, "a report was not written"),
    }
}

/// What came of the rehearsal of a restore.
pub fn of_rehearsal(tenant: Uuid, rehearsed: &anyhow::Result<Rehearsed>) -> BackupReport {
    let told = BackupReport { tenant, ended_at: Timestamp::now(), rehearsal: true, ..BackupReport::default() };
    match rehearsed {
        Ok(Rehearsed { id, took }) => {
            let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            BackupReport { restored: Some(BackupRestored { name: id.to_string(), milliseconds }), ..told }
        }
        Err(error) => BackupReport { error: Some(short(error)), ..told },
    }
}

impl Outcome {
    /// What came of one tenant's backup.
    pub fn report(&self) -> BackupReport {
        let told = BackupReport { tenant: self.tenant.uuid, ..BackupReport::default() };
        match &self.taken {
            Ok(manifest) => BackupReport {
                ended_at: manifest.ended_at,
                taken: Some(BackupTaken {
                    name: manifest.id.clone(),
                    size: manifest.dump.size,
                    sha256: manifest.dump.sha256.clone(),
                    seconds: manifest.ended_at.duration_since(manifest.started_at).as_secs(),
                }),
                ..told
            },
            Err(error) => BackupReport { ended_at: Timestamp::now(), error: Some(short(error)), ..told },
        }
    }
}

fn short(error: &anyhow::Error) -> String {
    format!("{error:#}").chars().take(LONGEST_ERROR).collect()
}
