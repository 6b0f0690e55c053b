//! Settings of `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use uuid::Uuid;

use crate::central::TrailFilter;

/// Settings of `audit`.
#[derive(Args, Clone, Debug)]
pub struct AuditSettings {
    /// Connection of the central database, postgres://…
    #[arg(long, env = "MOS_CENTRAL_URL", hide_env_values = true)]
    pub central_url: String,
    /// PEM file with the certificate authority of the central database.
    #[arg(long, env = "MOS_CENTRAL_CA")]
    pub central_ca: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub action: AuditAction,
}

/// What to do with the audit trail.
#[derive(Subcommand, Clone, Debug)]
pub enum AuditAction {
    /// Finds entries that were changed, removed or put in, and prints the head, to be noted elsewhere.
    Verify {
        /// A file with what an earlier run printed: what was there by then has to be there still.
        #[arg(long)]
        noted: Option<PathBuf>,
    },
    /// Lists entries, newest first.
    List(AuditListArguments),
}

/// Which entries, and how.
#[derive(Args, Clone, Debug)]
pub struct AuditListArguments {
    /// Of the tenant with this uuid, also where it is gone.
    #[arg(long)]
    pub tenant: Option<Uuid>,
    /// Of tenants with this slug.
    #[arg(long)]
    pub slug: Option<String>,
    /// By whom: `operator`, or an e-mail address.
    #[arg(long)]
    pub actor: Option<String>,
    /// What was done, as `tenant.suspended`.
    #[arg(long)]
    pub action: Option<String>,
    /// Of one object, as `customers/acme`.
    #[arg(long)]
    pub resource: Option<String>,
    /// Of one request.
    #[arg(long)]
    pub correlation: Option<Uuid>,
    /// Not before this instant (RFC 3339).
    #[arg(long)]
    pub since: Option<Timestamp>,
    /// Before this instant (RFC 3339).
    #[arg(long)]
    pub until: Option<Timestamp>,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub limit: i64,
    /// As CSV.
    #[arg(long)]
    pub csv: bool,
}

impl AuditListArguments {
    /// Which entries.
    pub fn filter(&self) -> TrailFilter {
        TrailFilter {
            tenant: self.tenant,
            slug: self.slug.clone(),
            actor: self.actor.clone(),
            action: self.action.clone(),
            resource: self.resource.clone(),
            correlation: self.correlation,
            since: self.since,
            until: self.until,
        }
    }
}
