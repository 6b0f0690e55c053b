//! `maintenance-os audit`: the trail, listed and checked.

mod csv;

use std::path::Path;

use anyhow::Context;

pub use self::csv::{HEADER, line};

use crate::central::chain::{self, Heads};
use crate::central::{Central, TrailFrom, TrailRow, Verified};
use crate::settings::{AuditAction, AuditListArguments, AuditSettings};

/// Entries that are read at a time.
const PAGE: i64 = 500;
/// Findings that are told in full.
const TOLD: usize = 50;

/// Runs one command and prints what it found.
///
/// # Errors
/// The central database does not answer, or the trail is not as it was written.
pub async fn run(settings: AuditSettings) -> anyhow::Result<()> {
    let central = Central::connect(&settings.central_url, settings.central_ca.as_deref()).await?;
    match settings.action {
        AuditAction::Verify { noted } => verify(&central, noted.as_deref()).await,
        AuditAction::List(arguments) => list(&central, &arguments).await,
    }
}

async fn verify(central: &Central, noted: Option<&Path>) -> anyhow::Result<()> {
    let noted = match noted {
        Some(path) => read(path)?,
        None => Heads::new(),
    };
    let verified = central.verify_trail(&noted).await?;
    print!("{}", report(&verified));
    anyhow::ensure!(verified.findings.is_empty(), "the audit trail is not as it was written");
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Heads> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the noted head {}", path.display()))?;
    let heads = chain::read_note(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    anyhow::ensure!(!heads.is_empty(), "{} holds no noted head", path.display());
    Ok(heads)
}

/// What is printed: what was found, and the head to be noted.
fn report(verified: &Verified) -> String {
    let mut text: String = verified.findings.iter().take(TOLD).map(|finding| format!("{finding}\n")).collect();
    if verified.findings.len() > TOLD {
        text += &format!("and {} more\n", verified.findings.len() - TOLD);
    }
    let outcome = if verified.findings.is_empty() { "as they were written" } else { "NOT all as they were written" };
    text += &format!("{} entries, {outcome}. The head, to be noted outside this database:\n", verified.entries);
    text + &chain::note(&verified.heads)
}

async fn list(central: &Central, arguments: &AuditListArguments) -> anyhow::Result<()> {
    let filter = arguments.filter();
    let (mut from, mut left) = (TrailFrom::Newest, arguments.limit);
    if arguments.csv {
        print!("{HEADER}");
    }
    while left > 0 {
        let rows = central.trail(&filter, from, PAGE.min(left)).await?;
        let Some(last) = rows.last() else { break };
        (from, left) = (TrailFrom::Before(last.id), left - PAGE.min(left));
        for row in &rows {
            if arguments.csv {
                print!("{}", line(row));
            } else {
                println!("{}", told(row));
            }
        }
    }
    Ok(())
}

/// One entry on one line. Only texts of our own are printed as they are; others could hold control sequences.
fn told(row: &TrailRow) -> String {
    let text = |value: &Option<String>| value.as_deref().unwrap_or("-").escape_debug().to_string();
    let changes = row.changes.as_ref().map(ToString::to_string).unwrap_or_default();
    format!(
        "{} {:<24} {:<28} {} {} {changes}",
        row.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        row.actor.escape_debug().to_string(),
        row.action.escape_debug().to_string(),
        text(&row.resource_id),
        text(&row.ip_address),
    )
}
