//! What backups need to know, as flags and variables.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::api::server::SslMode;
use crate::backup::keys::BackupId;
use crate::backup::retention::Keep;
use crate::desired::backup::BucketSettings;
use crate::tenancy::storage::S3Settings;

/// Where Debian has `pg_dump` and `pg_restore`.
const PROGRAMS: &str = "/usr/lib/postgresql/17/bin";

/// Settings of `backup`.
#[derive(Args, Clone, Debug)]
pub struct BackupSettings {
    /// What to do.
    #[command(subcommand)]
    pub action: BackupAction,
}

/// What is done with backups.
#[derive(Subcommand, Clone, Debug)]
pub enum BackupAction {
    /// Takes a backup of one tenant or of several, and removes those that need not be kept any more.
    Run {
        /// Whose.
        #[command(flatten)]
        tenants: TenantArguments,
        /// Where they are kept.
        #[command(flatten)]
        bucket: BucketArguments,
        /// Where the databases are.
        #[command(flatten)]
        server: ServerArguments,
        /// Password of the role that reads for backups.
        #[arg(long, env = "MOS_BACKUP_PASSWORD", hide_env_values = true)]
        password: String,
        /// How many are kept.
        #[command(flatten)]
        retention: RetentionArguments,
        /// File that is told what came of it, as JSON.
        #[arg(long, env = "MOS_BACKUP_REPORT")]
        report: Option<PathBuf>,
        /// Removes none of the older ones.
        #[arg(long)]
        keep_all: bool,
        /// Writes a line into the log as each is done, for whoever reads it.
        #[arg(long)]
        report_lines: bool,
    },
    /// Takes a backup of the central database, and removes those that need not be kept any more.
    Central {
        /// Where they are kept.
        #[command(flatten)]
        bucket: BucketArguments,
        /// Connection of the central database, postgres://…
        #[arg(long, env = "MOS_CENTRAL_URL", hide_env_values = true)]
        central_url: String,
        /// PEM file with the certificate authority of its server.
        #[arg(long, env = "MOS_CENTRAL_CA")]
        central_ca: Option<PathBuf>,
        /// Directory of `pg_dump`, of the server's version or newer.
        #[arg(long, env = "MOS_POSTGRES_PROGRAMS", default_value = PROGRAMS)]
        programs: PathBuf,
        /// How many are kept.
        #[command(flatten)]
        retention: RetentionArguments,
        /// File that is told what came of it, as JSON.
        #[arg(long, env = "MOS_BACKUP_REPORT")]
        report: Option<PathBuf>,
    },
    /// Restores a tenant's newest backup into a scratch database, counts the rows of every table and drops it.
    Rehearse {
        /// Uuid of the tenant.
        #[arg(long)]
        tenant: Uuid,
        /// Where they are kept.
        #[command(flatten)]
        bucket: BucketArguments,
        /// Where it is restored.
        #[command(flatten)]
        scratch: ScratchArguments,
        /// File that is told what came of it, as JSON.
        #[arg(long, env = "MOS_BACKUP_REPORT")]
        report: Option<PathBuf>,
    },
    /// Takes a backup of a tenant that is going to be deleted, and restores it as `rehearse` does. Removes no older one.
    Last {
        /// Uuid of the tenant.
        #[arg(long)]
        tenant: Uuid,
        /// Name of the Tenant, which the manifest repeats for people.
        #[arg(long, default_value = "")]
        name: String,
        /// Where they are kept.
        #[command(flatten)]
        bucket: BucketArguments,
        /// Where the database is, and the scratch database is made.
        #[command(flatten)]
        scratch: ScratchArguments,
        /// Password of the role that reads for backups.
        #[arg(long, env = "MOS_BACKUP_PASSWORD", hide_env_values = true)]
        password: String,
        /// File that is told what came of it, as JSON.
        #[arg(long, env = "MOS_BACKUP_REPORT")]
        report: Option<PathBuf>,
    },
    /// Lists a tenant's backups, the newest first.
    List {
        /// Uuid of the tenant.
        #[arg(long)]
        tenant: Uuid,
        /// Where they are kept.
        #[command(flatten)]
        bucket: BucketArguments,
    },
    /// Reads a backup back and compares its checksum; with `restore` it is restored into a scratch database too, and the rows
    /// of every table are counted.
    Verify {
        /// Uuid of the tenant.
        #[arg(long)]
        tenant: Uuid,
        /// Which one; without it the newest.
        #[arg(long)]
        id: Option<BackupId>,
        /// Where they are kept.
        #[command(flatten)]
        bucket: BucketArguments,
        /// Restores it into a scratch database, which is dropped again.
        #[command(subcommand)]
        restore: Option<VerifyAction>,
    },
    /// Restores a backup into the database that the operator made for it beside the live one. What a TenantRestore's Job runs.
    Restore(Box<RestoreArguments>),
}

/// What a TenantRestore's Job is told.
#[derive(Args, Clone, Debug)]
pub struct RestoreArguments {
    /// uid of the TenantRestore, which the database and its login are called by.
    #[arg(long)]
    pub restore: Uuid,
    /// Uuid of the tenant whose live database is counted.
    #[arg(long)]
    pub tenant: Uuid,
    /// Uuid of the tenant whose backup it is.
    #[arg(long)]
    pub source: Uuid,
    /// Which backup; without it the newest.
    #[arg(long)]
    pub id: Option<BackupId>,
    /// Where they are kept.
    #[command(flatten)]
    pub bucket: BucketArguments,
    /// Where the databases are.
    #[command(flatten)]
    pub server: ServerArguments,
    /// Password of the login of this run.
    #[arg(long, env = "MOS_RESTORE_PASSWORD", hide_env_values = true)]
    pub restore_password: String,
    /// Password of the role that reads for backups.
    #[arg(long, env = "MOS_BACKUP_PASSWORD", hide_env_values = true)]
    pub password: String,
    /// File that is told what came of it, as JSON.
    #[arg(long, env = "MOS_BACKUP_REPORT")]
    pub report: Option<PathBuf>,
}

/// How deep a backup is looked at.
#[derive(Subcommand, Clone, Debug)]
pub enum VerifyAction {
    /// Restores it into a scratch database, counts its rows and drops it.
    Restore(ScratchArguments),
}

/// Where scratch databases are made.
#[derive(Args, Clone, Debug)]
pub struct ScratchArguments {
    /// The server that the scratch database is made on.
    #[command(flatten)]
    pub server: ServerArguments,
    /// A login that may make scratch databases.
    #[command(flatten)]
    pub provisioner: ProvisionerArguments,
}

/// A login that may make databases and roles.
#[derive(Args, Clone, Debug)]
pub struct ProvisionerArguments {
    /// A role that may make databases and roles: the operator's.
    #[arg(long, env = "MOS_PROVISIONER", default_value = crate::desired::names::PROVISIONER)]
    pub provisioner: String,
    /// Its password.
    #[arg(long, env = "MOS_PROVISIONER_PASSWORD", hide_env_values = true)]
    pub provisioner_password: String,
}

/// Whose backup is taken.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = true)]
pub struct TenantArguments {
    /// Uuid of the tenant.
    #[arg(long, conflicts_with = "tenants")]
    pub tenant: Option<Uuid>,
    /// Name of the Tenant, which the manifest repeats for people.
    #[arg(long, default_value = "", requires = "tenant")]
    pub name: String,
    /// File with several: a JSON list of objects with `uuid`, `name` and, where older backups are to be removed, `keep`: a list
    /// of how many days, weeks and months.
    #[arg(long)]
    pub tenants: Option<PathBuf>,
}

/// The server that is read, or that a scratch database is made on.
#[derive(Args, Clone, Debug)]
pub struct ServerArguments {
    /// Name of the DatabaseServer, which the manifest repeats for people.
    #[arg(long = "server", env = "MOS_SERVER", default_value = "")]
    pub server_name: String,
    /// Its host: PostgreSQL itself, never a pooler.
    #[arg(long, env = "MOS_SERVER_HOST")]
    pub host: String,
    /// Its port.
    #[arg(long, env = "MOS_SERVER_PORT", default_value_t = 5432)]
    pub port: u16,
    /// PEM file with the certificate authority of the server.
    #[arg(long, env = "MOS_SERVER_CA")]
    pub ca: Option<PathBuf>,
    /// How the connection is encrypted: verify-full, verify-ca, require or prefer.
    #[arg(long, env = "MOS_SERVER_SSLMODE", default_value = "verify-full", value_parser = ssl_mode)]
    pub sslmode: SslMode,
    /// PostgreSQL's own identity of the server; another one that answers under the same name is refused.
    #[arg(long, env = "MOS_SYSTEM_IDENTIFIER")]
    pub system_identifier: Option<String>,
    /// Directory of `pg_dump` and `pg_restore`, of the server's version or newer.
    #[arg(long, env = "MOS_POSTGRES_PROGRAMS", default_value = PROGRAMS)]
    pub programs: PathBuf,
}

/// The bucket of backups. The variables are those of the AWS tools.
#[derive(Args, Clone, Debug)]
pub struct BucketArguments {
    /// Key of the bucket's account: not the app's.
    #[arg(long = "s3-access-key-id", env = "AWS_ACCESS_KEY_ID")]
    pub access_key_id: String,
    /// Its secret.
    #[arg(long = "s3-secret-access-key", env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub secret_access_key: String,
    /// Region of the bucket.
    #[arg(long = "s3-region", env = "AWS_DEFAULT_REGION", default_value = "us-east-1")]
    pub region: String,
    /// The bucket.
    #[arg(long = "s3-bucket", env = "AWS_BUCKET")]
    pub bucket: String,
    /// Address of the server; without it Amazon's for the region.
    #[arg(long = "s3-url", env = "AWS_URL")]
    pub url: Option<String>,
    /// The address may be another server than Amazon's.
    #[arg(long = "s3-custom-endpoint", env = "MOS_S3_CUSTOM_ENDPOINT", default_value_t = false, action = clap::ArgAction::Set)]
    pub custom_endpoint: bool,
    /// The address may be plain HTTP. Backups are not encrypted then on their way.
    #[arg(long = "s3-allow-http", env = "MOS_S3_ALLOW_HTTP", default_value_t = false, action = clap::ArgAction::Set)]
    pub allow_http: bool,
}

impl BucketArguments {
    /// As the client wants it.
    pub fn settings(&self) -> S3Settings {
        S3Settings {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            url: self.url.clone().filter(|url| !url.is_empty()),
            custom_endpoint: self.custom_endpoint,
            allow_http: self.allow_http,
        }
    }
}

/// What the operator gives to the Jobs of backups.
#[derive(Args, Clone, Debug)]
pub struct OperatorBackupArguments {
    /// The bucket of backups; without it there are none.
    #[arg(long = "backup-bucket", env = "MOS_BACKUP_BUCKET")]
    pub bucket: Option<String>,
    /// Its region.
    #[arg(long = "backup-region", env = "MOS_BACKUP_REGION", default_value = "us-east-1")]
    pub region: String,
    /// Address of the S3 server; without it Amazon's for the region.
    #[arg(long = "backup-endpoint", env = "MOS_BACKUP_ENDPOINT", default_value = "")]
    pub endpoint: String,
    /// Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of an account that the app does not have.
    #[arg(long = "backup-secret", env = "MOS_BACKUP_SECRET", default_value = "maintenance-os-backup")]
    pub secret: String,
    /// ServiceAccount of the Jobs, which needs no rights.
    #[arg(long = "backup-account", env = "MOS_BACKUP_ACCOUNT", default_value = "maintenance-os-backup")]
    pub account: String,
}

impl OperatorBackupArguments {
    /// The bucket; None: there are no backups here.
    pub fn wanted(&self) -> Option<BucketSettings> {
        let bucket = self.bucket.clone().filter(|bucket| !bucket.is_empty())?;
        Some(BucketSettings {
            bucket,
            region: self.region.clone(),
            endpoint: self.endpoint.clone(),
            secret: self.secret.clone(),
            account: self.account.clone(),
        })
    }
}

/// How many backups are kept; the newest is kept in any case.
#[derive(Args, Clone, Copy, Debug)]
pub struct RetentionArguments {
    /// The newest of each of so many days.
    #[arg(long, env = "MOS_KEEP_DAILY", default_value_t = 7)]
    pub keep_daily: u16,
    /// The newest of each of so many weeks.
    #[arg(long, env = "MOS_KEEP_WEEKLY", default_value_t = 4)]
    pub keep_weekly: u16,
    /// The newest of each of so many months.
    #[arg(long, env = "MOS_KEEP_MONTHLY", default_value_t = 12)]
    pub keep_monthly: u16,
}

impl RetentionArguments {
    /// As the rule wants it.
    pub fn keep(self) -> Keep {
        Keep { daily: self.keep_daily.into(), weekly: self.keep_weekly.into(), monthly: self.keep_monthly.into() }
    }
}

/// Reads how a connection is encrypted.
///
/// # Errors
/// It is none of the four words.
pub fn ssl_mode(text: &str) -> Result<SslMode, String> {
    let known = [SslMode::VerifyFull, SslMode::VerifyCa, SslMode::Require, SslMode::Prefer];
    let found = known.into_iter().find(|mode| mode.as_str() == text);
    found.ok_or_else(|| format!("`{text}` is none of verify-full, verify-ca, require and prefer"))
}
