//! `DatabaseServer`: a PostgreSQL server that tenants' databases are placed on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NameRef;

/// A PostgreSQL server, how much it holds, its warm pool and its pooler.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "tenancy.maintenance-os.com",
    version = "v1alpha1",
    kind = "DatabaseServer",
    plural = "databaseservers",
    status = "DatabaseServerStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "mdbs",
    category = "maintenance-os",
    doc = "A PostgreSQL server that tenants' databases are placed on, with its pooler.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Tenants", type_ = "integer", json_path = ".status.tenants"),
    printcolumn(name = "Capacity", type_ = "integer", json_path = ".spec.capacity.maxTenants"),
    printcolumn(name = "Warm", type_ = "integer", json_path = ".status.warm"),
    printcolumn(name = "Promised", type_ = "integer", json_path = ".status.connections.promised"),
    printcolumn(name = "Budget", type_ = "integer", json_path = ".status.connections.budget"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = "1"),
    cel,
    validation = Rule::new("size(self.metadata.name) <= 40").message("metadata.name has more than 40 characters: pooler and Secret names derive from it, choose a shorter one"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be one DNS label that begins with a letter, because the pooler's Service is named after it"),
)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseServerSpec {
    /// Secret in the operator's namespace with the keys host, port, username, password and ca.crt of the provisioner.
    pub connection_secret_ref: NameRef,
    /// How much the server holds.
    #[serde(default)]
    pub capacity: Capacity,
    /// Databases kept ready to be claimed.
    #[serde(default)]
    pub warm_pool: WarmPool,
    /// The PgBouncer in front of it.
    #[serde(default)]
    pub pooler: Pooler,
    /// How the operator, the pooler and migrations connect to the server.
    #[serde(default)]
    pub ssl_mode: SslMode,
}

/// How much a server holds.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Most tenants placed on it; at most 1,000 keep the pooler's RELOAD in the low milliseconds.
    #[serde(default = "default_max_tenants")]
    #[schemars(range(min = 0, max = 5000))]
    pub max_tenants: i32,
    /// Most connections that tenants may open to it. What the server itself has less those that are kept for the operator
    /// counts where that is less.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 10, max = 100_000))]
    pub max_connections: i32,
    /// How many times over those connections may be promised: the sum of what the plans of its tenants say
    /// (`database.maxConnections`) stays within maxConnections times this. With 1 every tenant can open all of its
    /// connections at the same time; poolers open them only when they are used, so that fleets of small tenants do well with
    /// 10 to 50.
    #[serde(default = "default_overcommit")]
    #[schemars(range(min = 1, max = 1000))]
    pub connection_overcommit: i32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            max_tenants: default_max_tenants(),
            max_connections: default_max_connections(),
            connection_overcommit: default_overcommit(),
        }
    }
}

/// Databases kept ready to be claimed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, JsonSchema)]
pub struct WarmPool {
    /// How many; 0 clones each database when it is asked for.
    #[serde(default = "default_warm_pool")]
    #[schemars(range(min = 0, max = 500))]
    pub size: i32,
}

impl Default for WarmPool {
    fn default() -> Self {
        Self { size: default_warm_pool() }
    }
}

/// The PgBouncer in front of a server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Pooler {
    /// Pods.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 20))]
    pub replicas: i32,
    /// When a server connection goes back to the pool.
    #[serde(default)]
    pub pool_mode: PoolMode,
    /// Most client connections per pod.
    #[serde(default = "default_max_client_conn")]
    #[schemars(range(min = 10, max = 100_000))]
    pub max_client_conn: i32,
    /// Server connections per tenant where the plan says nothing.
    #[serde(default = "default_pool_size")]
    #[schemars(range(min = 1, max = 1000))]
    pub default_pool_size: i32,
    /// Further server connections after the time-out.
    #[serde(default = "default_reserve_pool_size")]
    #[schemars(range(min = 0, max = 1000))]
    pub reserve_pool_size: i32,
    /// Seconds a client waits before the reserve is used.
    #[serde(default = "default_reserve_pool_timeout")]
    #[schemars(range(min = 0, max = 3600))]
    pub reserve_pool_timeout: i32,
    /// Seconds after which a server connection is renewed.
    #[serde(default = "default_server_lifetime")]
    #[schemars(range(min = 1, max = 86_400))]
    pub server_lifetime: i32,
}

impl Default for Pooler {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            pool_mode: PoolMode::default(),
            max_client_conn: default_max_client_conn(),
            default_pool_size: default_pool_size(),
            reserve_pool_size: default_reserve_pool_size(),
            reserve_pool_timeout: default_reserve_pool_timeout(),
            server_lifetime: default_server_lifetime(),
        }
    }
}

/// When a server connection goes back to the pool.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PoolMode {
    /// After each transaction.
    #[default]
    Transaction,
    /// When the client disconnects.
    Session,
}

/// How connections are encrypted and whom they trust; libpq's names.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Encrypted, certificate and host name checked.
    #[default]
    VerifyFull,
    /// Encrypted, certificate checked.
    VerifyCa,
    /// Encrypted, nothing checked.
    Require,
    /// Encrypted where the server offers it.
    Prefer,
}

impl SslMode {
    /// libpq's name of the mode.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyFull => "verify-full",
            Self::VerifyCa => "verify-ca",
            Self::Require => "require",
            Self::Prefer => "prefer",
        }
    }
}

/// What a server's tenants may open.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct ConnectionsStatus {
    /// What the plans of its tenants promise them in sum.
    pub promised: i64,
    /// How much may be promised: no tenant is placed beyond it.
    pub budget: i64,
}

/// The last requests to renew credentials that were carried out: the values that the annotations had.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct RotatedStatus {
    /// Of annotation `rotate`: passwords of migrator and backup, and the pooler's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// Of annotation `rotate-provisioner`: the provisioner's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioner: Option<String>,
}

/// What is there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseServerStatus {
    /// The generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Tenants placed on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<i32>,
    /// Databases ready to be claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<i32>,
    /// Connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<ConnectionsStatus>,
    /// PostgreSQL's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The server's own identity; another one under the same address is never written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Schema version of the template that new databases are cloned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
    /// Which requests to renew credentials were carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<RotatedStatus>,
    /// `Ready`, `Isolated`, `PoolReady`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

fn default_max_tenants() -> i32 {
    1000
}
fn default_max_connections() -> i32 {
    400
}
fn default_overcommit() -> i32 {
    1
}
fn default_warm_pool() -> i32 {
    20
}
fn default_replicas() -> i32 {
    2
}
fn default_max_client_conn() -> i32 {
    1000
}
fn default_pool_size() -> i32 {
    25
}
fn default_reserve_pool_size() -> i32 {
    5
}
fn default_reserve_pool_timeout() -> i32 {
    3
}
fn default_server_lifetime() -> i32 {
    3600
}
