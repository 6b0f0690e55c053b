//! Every flag and variable, parsed once. Each flag has a variable `MOS_…` of the same name.

mod audit;
mod backup;
mod billing;
mod portal;
mod redis;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use self::audit::{AuditAction, AuditListArguments, AuditSettings};
pub use self::backup::{
    BackupAction, BackupSettings, BucketArguments, OperatorBackupArguments, ProvisionerArguments, RestoreArguments,
    RetentionArguments, ScratchArguments, ServerArguments, TenantArguments, VerifyAction, ssl_mode,
};
pub use self::billing::{BillingAction, BillingServeSettings, BillingSettings, CentralArguments, ManualStatus, Who};
pub use self::portal::PortalSettings;
pub use self::redis::RedisArguments;

use crate::desired::edge::{Edge, Mode};
use crate::tenancy::queue::balance::Balance;

/// One binary, several roles.
#[derive(Parser, Debug)]
#[command(name = "maintenance-os", version, about)]
pub struct Cli {
    /// What this process does.
    #[command(subcommand)]
    pub role: Role,
}

/// What a process does.
#[derive(Subcommand, Debug)]
pub enum Role {
    /// Turns Tenants into databases, logins, pooler entries and routing.
    Operator(Box<OperatorSettings>),
    /// Serves every tenant's hosts.
    App(Box<AppSettings>),
    /// Does every tenant's jobs.
    Worker(Box<WorkerRoleSettings>),
    /// Takes backups of tenants, lists them, proves that they restore.
    Backup(Box<BackupSettings>),
    /// Takes Stripe's events, and sets subscriptions by hand.
    Billing(Box<BillingSettings>),
    /// The admin portal.
    Portal(Box<PortalSettings>),
    /// Lists the audit trail, and checks that it is as it was written.
    Audit(Box<AuditSettings>),
    /// Beside PgBouncer: turns pooler slices into its files.
    PoolerAgent(PoolerAgentSettings),
    /// Writes the custom resource definitions.
    Crds(CrdsSettings),
}

/// Settings of the operator.
#[derive(Args, Clone, Debug)]
pub struct OperatorSettings {
    /// The operator's own namespace: slices, poolers and connection Secrets lie here.
    #[arg(long, env = "MOS_NAMESPACE", default_value = "maintenance-os")]
    pub namespace: String,
    /// This process's name in the Lease and in Events.
    #[arg(long, env = "POD_NAME", default_value = "maintenance-os-operator")]
    pub identity: String,
    /// Connection of the central database, postgres://…
    #[arg(long, env = "MOS_CENTRAL_URL", hide_env_values = true)]
    pub central_url: String,
    /// PEM file with the certificate authority of the central database.
    #[arg(long, env = "MOS_CENTRAL_CA")]
    pub central_ca: Option<PathBuf>,
    /// Hosts are `<slug>.<base domain>`.
    #[arg(long, env = "MOS_BASE_DOMAIN", default_value = "maintenance-os.com")]
    pub base_domain: String,
    /// How hosts are reached from outside, for links: `{host}` stands for the host.
    #[arg(long, env = "MOS_PUBLIC_URL", default_value = "https://{host}")]
    pub public_url: String,
    /// Host of the admin portal; never a tenant's.
    #[arg(long, env = "MOS_ADMIN_HOST")]
    pub admin_host: Option<String>,
    /// Name servers that are asked for the proofs of customers' hosts, comma-separated `address:port`; without any, the
    /// system's.
    #[arg(long, env = "MOS_DNS_SERVERS", value_delimiter = ',')]
    pub dns_servers: Vec<SocketAddr>,
    /// How often the proof of a host that is served is looked at again.
    #[arg(long, env = "MOS_DOMAIN_RECHECK", default_value = "24h", value_parser = parse_duration)]
    pub domain_recheck: Duration,
    /// How long a host is served after its proof has gone.
    #[arg(long, env = "MOS_DOMAIN_GRACE", default_value = "168h", value_parser = parse_duration)]
    pub domain_grace: Duration,
    /// What brings requests for customers' own hosts to the app.
    #[command(flatten)]
    pub edge: EdgeArguments,
    /// Namespaces in which Tenants are served, comma-separated.
    #[arg(long, env = "MOS_TENANT_NAMESPACES", value_delimiter = ',', required = true)]
    pub tenant_namespaces: Vec<String>,
    /// Image of the pooler's pods (the same image).
    #[arg(long, env = "MOS_IMAGE", default_value = "localhost/maintenance-os:dev")]
    pub image: String,
    /// The Service of the app whose endpoints acknowledge routing.
    #[arg(long, env = "MOS_APP_SERVICE", default_value = "maintenance-os-app")]
    pub app_service: String,
    /// The Service of the workers; where it has endpoints, they acknowledge routing too.
    #[arg(long, env = "MOS_WORKER_SERVICE", default_value = "maintenance-os-worker")]
    pub worker_service: String,
    /// The Deployment of the workers that serve all tenants: those of a tenant's own are made from its pod template.
    #[arg(long, env = "MOS_WORKER_DEPLOYMENT", default_value = "maintenance-os-worker")]
    pub worker_deployment: String,
    /// How long a login still works after the other one has taken its place, for whoever reads the binding Secret.
    #[arg(long, env = "MOS_ROTATION_OVERLAP", default_value = "2m", value_parser = parse_duration)]
    pub rotation_overlap: Duration,
    /// A hibernated tenant that was woken sleeps again when nobody asked for it for so long; at least a minute, because the
    /// app tells of requests every half a minute.
    #[arg(long, env = "MOS_SLEEP_AFTER", default_value = "30m", value_parser = parse_duration)]
    pub sleep_after: Duration,
    /// Backups.
    #[command(flatten)]
    pub backup: OperatorBackupArguments,
    /// How often everything is compared again.
    #[arg(long, env = "MOS_RESYNC", default_value = "300s", value_parser = parse_duration)]
    pub resync: Duration,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "MOS_HEALTH_ADDR", default_value = "0.0.0.0:8081")]
    pub health_addr: SocketAddr,
    /// Address of /metrics.
    #[arg(long, env = "MOS_METRICS_ADDR", default_value = "0.0.0.0:9090")]
    pub metrics_addr: SocketAddr,
}

/// Settings of the edge.
#[derive(Args, Clone, Debug, Default)]
pub struct EdgeArguments {
    /// What the edge is made of.
    #[arg(long = "edge-mode", env = "MOS_EDGE_MODE", default_value = "none")]
    pub edge_mode: Mode,
    /// Class of the Ingresses; without it the cluster's default.
    #[arg(long, env = "MOS_EDGE_INGRESS_CLASS", default_value = "")]
    pub edge_ingress_class: String,
    /// Name of the Gateway, in the operator's namespace.
    #[arg(long, env = "MOS_EDGE_GATEWAY", default_value = "maintenance-os")]
    pub edge_gateway: String,
    /// TLS for customers' own hosts.
    #[arg(long, env = "MOS_EDGE_TLS", default_value_t = true, action = clap::ArgAction::Set)]
    pub edge_tls: bool,
    /// Labels of the objects, as a JSON object.
    #[arg(long, env = "MOS_EDGE_LABELS", default_value = "{}", value_parser = parse_map)]
    pub edge_labels: Map,
    /// Annotations of the objects, as a JSON object.
    #[arg(long, env = "MOS_EDGE_ANNOTATIONS", default_value = "{}", value_parser = parse_map)]
    pub edge_annotations: Map,
}

/// Texts by name.
pub type Map = std::collections::BTreeMap<String, String>;

impl EdgeArguments {
    /// The edge in front of this Service.
    pub fn edge(&self, service: &str) -> Edge {
        Edge {
            mode: self.edge_mode,
            class: self.edge_ingress_class.clone(),
            gateway: self.edge_gateway.clone(),
            tls: self.edge_tls,
            labels: self.edge_labels.clone(),
            annotations: self.edge_annotations.clone(),
            service: service.to_owned(),
        }
    }
}

fn parse_map(text: &str) -> Result<Map, String> {
    serde_json::from_str(text).map_err(|error| format!("`{text}` is not a JSON object of texts: {error}"))
}

/// Settings of the app.
#[derive(Args, Clone, Debug)]
pub struct AppSettings {
    /// Namespace of the routing slices.
    #[arg(long, env = "MOS_NAMESPACE", default_value = "maintenance-os")]
    pub namespace: String,
    /// Reads routing from `<directory>/routing-NN.json` instead of from the cluster.
    #[arg(long, env = "MOS_ROUTING_DIRECTORY")]
    pub routing_directory: Option<PathBuf>,
    /// Address of the product.
    #[arg(long, env = "MOS_LISTEN", default_value = "0.0.0.0:9000")]
    pub listen: SocketAddr,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "MOS_HEALTH_ADDR", default_value = "0.0.0.0:8081")]
    pub health_addr: SocketAddr,
    /// Address of /metrics.
    #[arg(long, env = "MOS_METRICS_ADDR", default_value = "0.0.0.0:9090")]
    pub metrics_addr: SocketAddr,
    /// Address of /acks.
    #[arg(long, env = "MOS_ACK_ADDR", default_value = "0.0.0.0:8082")]
    pub ack_addr: SocketAddr,
    /// How hosts are reached from outside, for links in mails: `{host}` stands for the host.
    #[arg(long, env = "MOS_PUBLIC_URL", default_value = "https://{host}")]
    pub public_url: String,
    /// Central domain.
    #[arg(long, env = "MOS_BASE_DOMAIN", default_value = "maintenance-os.com")]
    pub base_domain: String,
    /// Host of the admin portal, matched exactly.
    #[arg(long, env = "MOS_ADMIN_HOST")]
    pub admin_host: Option<String>,
    /// Peers whose forwarded headers are believed, comma-separated addresses or networks.
    #[arg(long, env = "MOS_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<String>,
    /// Most connections to poolers over all tenants.
    #[arg(long, env = "MOS_MAX_CONNECTIONS", default_value_t = 200)]
    pub max_connections: usize,
    /// What links are signed with: 64 hexadecimal digits, several separated by commas; the first signs, all are accepted.
    #[arg(long, env = "MOS_SIGNING_KEYS", hide_env_values = true)]
    pub signing_keys: Option<String>,
    /// Redis.
    #[command(flatten)]
    pub redis: RedisArguments,
    /// Files.
    #[command(flatten)]
    pub storage: StorageArguments,
    /// Sessions and mail.
    #[command(flatten)]
    pub accounts: AccountArguments,
    /// There are workers: imports and mails are left to them.
    #[arg(long, env = "MOS_WORKERS", default_value_t = false, action = clap::ArgAction::Set)]
    pub workers: bool,
    /// Tenants with series of their own in the metrics; the others count as `_other`.
    #[arg(long, env = "MOS_METRICS_MAX_TENANTS", default_value_t = 2000)]
    pub metrics_max_tenants: usize,
}

/// Settings of a worker: the app's, and its own. Names and defaults are Horizon's.
#[derive(Args, Clone, Debug)]
pub struct WorkerRoleSettings {
    /// What the app knows, a worker knows too.
    #[command(flatten)]
    pub app: AppSettings,
    /// This process's name in logs and leases.
    #[arg(long, env = "POD_NAME", default_value = "maintenance-os-worker")]
    pub identity: String,
    /// Serves this tenant alone, beside the pool that serves the others: its uuid.
    #[arg(long, env = "MOS_TENANT")]
    pub tenant: Option<uuid::Uuid>,
    /// Fewest jobs at once.
    #[arg(long, env = "MOS_MIN_PROCESSES", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub min_processes: u16,
    /// Most jobs at once.
    #[arg(long, env = "MOS_MAX_PROCESSES", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub max_processes: u16,
    /// How many more or fewer at once after each cooldown.
    #[arg(long, env = "MOS_BALANCE_MAX_SHIFT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub balance_max_shift: u16,
    /// Between two changes of how many.
    #[arg(long, env = "MOS_BALANCE_COOLDOWN", default_value = "3s", value_parser = parse_duration)]
    pub balance_cooldown: Duration,
    /// Resident memory in MiB from which on it ends its jobs and then itself; 0 is without limit.
    #[arg(long = "memory", env = "MOS_WORKER_MEMORY", default_value_t = 128)]
    pub memory_mib: u64,
    /// Attempts at a job before it is given up.
    #[arg(long, env = "MOS_TRIES", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub tries: u32,
    /// Longest attempt.
    #[arg(long, env = "MOS_JOB_TIMEOUT", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,
}

impl WorkerRoleSettings {
    /// How many jobs at once.
    pub fn balance(&self) -> Balance {
        Balance {
            min_processes: self.min_processes.into(),
            max_processes: self.max_processes.max(self.min_processes).into(),
            max_shift: self.balance_max_shift.into(),
            cooldown: self.balance_cooldown,
        }
    }
}

/// Where files are kept. The variables of S3 are the seed's.
#[derive(Args, Clone, Debug)]
pub struct StorageArguments {
    /// Where files are kept; without it there are none.
    #[arg(id = "storage", long = "storage", env = "MOS_STORAGE")]
    pub kind: Option<StorageKind>,
    /// The directory, for `local`.
    #[arg(
        id = "storage_directory",
        long = "storage-directory",
        env = "MOS_STORAGE_DIRECTORY",
        required_if_eq("storage", "local")
    )]
    pub directory: Option<PathBuf>,
    /// Key of the bucket's account, for `s3`.
    #[arg(id = "s3_key", long = "s3-access-key-id", env = "AWS_ACCESS_KEY_ID", required_if_eq("storage", "s3"))]
    pub access_key_id: Option<String>,
    /// Its secret.
    #[arg(
        id = "s3_secret",
        long = "s3-secret-access-key",
        env = "AWS_SECRET_ACCESS_KEY",
        hide_env_values = true,
        required_if_eq("storage", "s3")
    )]
    pub secret_access_key: Option<String>,
    /// Region of the bucket.
    #[arg(id = "s3_region", long = "s3-region", env = "AWS_DEFAULT_REGION", default_value = "us-east-1")]
    pub region: String,
    /// The bucket.
    #[arg(id = "s3_bucket", long = "s3-bucket", env = "AWS_BUCKET", required_if_eq("storage", "s3"))]
    pub bucket: Option<String>,
    /// Address of the server; without it Amazon's for the region.
    #[arg(id = "s3_url", long = "s3-url", env = "AWS_URL")]
    pub url: Option<String>,
    /// The address may be another server than Amazon's.
    #[arg(id = "s3_custom_endpoint", long = "s3-custom-endpoint", env = "MOS_S3_CUSTOM_ENDPOINT", default_value_t = false, action = clap::ArgAction::Set)]
    pub custom_endpoint: bool,
    /// The address may be plain HTTP.
    #[arg(id = "s3_allow_http", long = "s3-allow-http", env = "MOS_S3_ALLOW_HTTP", default_value_t = false, action = clap::ArgAction::Set)]
    pub allow_http: bool,
    /// Largest file that people may send, in MiB.
    #[arg(id = "max_upload_mib", long = "max-upload-mib", env = "MOS_MAX_UPLOAD_MIB", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_upload_mib: u32,
}

/// A kind of storage.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageKind {
    /// A directory.
    Local,
    /// A bucket.
    S3,
}

/// Sessions, and the mail that accounts need.
#[derive(Args, Clone, Debug)]
pub struct AccountArguments {
    /// Leaves `Secure` off the cookies, for a demo without TLS. Anybody on the way can then read them.
    #[arg(long, env = "MOS_PLAIN_HTTP", default_value_t = false)]
    pub plain_http: bool,
    /// A session that nobody uses for so long ends.
    #[arg(long, env = "MOS_SESSION_IDLE", default_value = "12h", value_parser = parse_duration)]
    pub session_idle: Duration,
    /// A session ends at this age.
    #[arg(long, env = "MOS_SESSION_LIFETIME", default_value = "168h", value_parser = parse_duration)]
    pub session_lifetime: Duration,
    /// Server that takes mail: `smtps://user:password@host` over TLS, `smtp://host:587?tls=required` with STARTTLS,
    /// `smtp://host:1025` in clear.
    #[arg(long, env = "MOS_SMTP_URL", hide_env_values = true)]
    pub smtp_url: Option<String>,
    /// Writes mail into files here instead of sending it.
    #[arg(long, env = "MOS_MAIL_DIRECTORY")]
    pub mail_directory: Option<PathBuf>,
    /// Address that mail comes from.
    #[arg(long, env = "MOS_MAIL_FROM")]
    pub mail_from: Option<String>,
}

/// Settings of the agent beside PgBouncer.
#[derive(Args, Clone, Debug)]
pub struct PoolerAgentSettings {
    /// Namespace of the pooler slices.
    #[arg(long, env = "MOS_NAMESPACE", default_value = "maintenance-os")]
    pub namespace: String,
    /// The DatabaseServer whose slices are read.
    #[arg(long, env = "MOS_SERVER")]
    pub server: String,
    /// Reads slices from `<directory>/<slice>.json` instead of from the cluster.
    #[arg(long, env = "MOS_SLICES_DIRECTORY")]
    pub slices_directory: Option<PathBuf>,
    /// Where PgBouncer's files are written; shared with the pgbouncer container.
    #[arg(long, env = "MOS_POOLER_DIRECTORY", default_value = "/run/pooler")]
    pub directory: PathBuf,
    /// PgBouncer's listen address.
    #[arg(long, env = "MOS_POOLER_LISTEN", default_value = "0.0.0.0:6432")]
    pub listen: SocketAddr,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "MOS_HEALTH_ADDR", default_value = "0.0.0.0:8081")]
    pub health_addr: SocketAddr,
    /// Address of /metrics.
    #[arg(long, env = "MOS_METRICS_ADDR", default_value = "0.0.0.0:9090")]
    pub metrics_addr: SocketAddr,
    /// Address of /acks.
    #[arg(long, env = "MOS_ACK_ADDR", default_value = "0.0.0.0:8082")]
    pub ack_addr: SocketAddr,
}

/// Settings of `crds`.
#[derive(Args, Clone, Debug)]
pub struct CrdsSettings {
    /// Where the files are written.
    #[arg(default_value = "crds")]
    pub directory: PathBuf,
}

/// Parses `720h`, `1h30m`, `300s`: the durations of the API.
///
/// # Errors
/// A text that is empty or has another unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut seconds = 0_u64;
    let mut number = String::new();
    for character in text.chars() {
        if character.is_ascii_digit() {
            number.push(character);
            continue;
        }
        let unit = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(format!("`{text}` is not a duration: use hours, minutes and seconds as in 1h30m")),
        };
        let count: u64 = number
            .parse()
            .map_err(|_| format!("`{text}` is not a duration: a number is missing before `{character}`"))?;
        seconds = count
            .checked_mul(unit)
            .and_then(|part| seconds.checked_add(part))
            .ok_or_else(|| format!("`{text}` is too long"))?;
        number.clear();
    }
    if text.is_empty() || !number.is_empty() {
        return Err(format!("`{text}` is not a duration: a unit is missing, as in 30s"));
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_api_are_parsed() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("300s"), Ok(Duration::from_secs(300)));
        assert!(parse_duration("").is_err());
        assert!(parse_duration("5").is_err());
        assert!(parse_duration("h").is_err());
        assert!(parse_duration("2d").is_err());
    }
}
