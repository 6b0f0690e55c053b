//! Settings of the admin portal.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::parse_duration;

/// Settings of the admin portal.
#[derive(Args, Clone, Debug)]
pub struct PortalSettings {
    /// Connection of the central database, postgres://…
    #[arg(long, env = "MOS_CENTRAL_URL", hide_env_values = true)]
    pub central_url: String,
    /// PEM file with the certificate authority of the central database.
    #[arg(long, env = "MOS_CENTRAL_CA")]
    pub central_ca: Option<PathBuf>,
    /// Hosts of tenants are `<slug>.<base domain>`.
    #[arg(long, env = "MOS_BASE_DOMAIN", default_value = "maintenance-os.com")]
    pub base_domain: String,
    /// Host of the portal, the only one that it answers for; `admin.<base domain>` unless it is given.
    #[arg(long, env = "MOS_ADMIN_HOST")]
    pub admin_host: Option<String>,
    /// Namespaces in which Tenants are made and changed, comma-separated. Those elsewhere are shown.
    #[arg(long, env = "MOS_TENANT_NAMESPACES", value_delimiter = ',', required = true)]
    pub tenant_namespaces: Vec<String>,
    /// Peers whose forwarded headers are believed, comma-separated addresses or networks.
    #[arg(long, env = "MOS_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<String>,
    /// What second factors are encrypted with, as `<id>:<64 hexadecimal digits>`, several separated by commas; the first
    /// encrypts, all decrypt.
    #[arg(long, env = "MOS_PORTAL_KEYS", hide_env_values = true)]
    pub keys: String,
    /// E-mail address of the first administrator, who is made while there is none.
    #[arg(long, env = "MOS_PORTAL_FIRST_EMAIL", requires = "first_password")]
    pub first_email: Option<String>,
    /// Their password, good for one sign-in.
    #[arg(long, env = "MOS_PORTAL_FIRST_PASSWORD", hide_env_values = true)]
    pub first_password: Option<String>,
    /// Leaves `Secure` off the cookie, for a demo without TLS. Anybody on the way can then read it.
    #[arg(long, env = "MOS_PLAIN_HTTP", default_value_t = false)]
    pub plain_http: bool,
    /// A session that nobody uses for so long ends.
    #[arg(long, env = "MOS_PORTAL_SESSION_IDLE", default_value = "30m", value_parser = parse_duration)]
    pub session_idle: Duration,
    /// A session ends at this age.
    #[arg(long, env = "MOS_PORTAL_SESSION_LIFETIME", default_value = "12h", value_parser = parse_duration)]
    pub session_lifetime: Duration,
    /// Address of the portal.
    #[arg(long, env = "MOS_LISTEN", default_value = "0.0.0.0:9100")]
    pub listen: SocketAddr,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "MOS_HEALTH_ADDR", default_value = "0.0.0.0:8081")]
    pub health_addr: SocketAddr,
}

impl PortalSettings {
    /// Host of the portal.
    pub fn host(&self) -> String {
        self.admin_host.clone().unwrap_or_else(|| format!("admin.{}", self.base_domain))
    }
}
