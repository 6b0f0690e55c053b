//! The pooler's documents: what the agent beside PgBouncer turns into its files.
//!
//! Secrets `pooler-<server>-settings` and `pooler-<server>-00` … `-31` (see [`super::slices`]), key `slice.json`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::server::{PoolMode, SslMode};

/// What holds for the whole pooler.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PoolerSettings {
    /// [`super::slices::SCHEMA`].
    pub schema: u32,
    /// Grows with every write.
    pub generation: u64,
    /// The leadership term of the operator that wrote it; never falls.
    pub epoch: u64,
    /// The database server's host, as its certificate names it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the pooler connects to it.
    pub ssl_mode: SslMode,
    /// PEM of the certificate authority of the server; empty where the mode needs none.
    #[serde(default)]
    pub ca: String,
    /// When a server connection goes back to the pool.
    pub pool_mode: PoolMode,
    /// PgBouncer's `max_client_conn`.
    pub max_client_conn: i32,
    /// PgBouncer's `default_pool_size`.
    pub default_pool_size: i32,
    /// PgBouncer's `reserve_pool_size`.
    pub reserve_pool_size: i32,
    /// PgBouncer's `reserve_pool_timeout`, seconds.
    pub reserve_pool_timeout: i32,
    /// PgBouncer's `server_lifetime`, seconds.
    pub server_lifetime: i32,
    /// Certificate that clients see, PEM chain; empty: clients connect without TLS.
    #[serde(default)]
    pub client_certificate: String,
    /// Its key, PEM.
    #[serde(default)]
    pub client_key: String,
}

/// One pooler slice.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PoolerSlice {
    /// [`super::slices::SCHEMA`].
    pub schema: u32,
    /// Grows with every write of this slice.
    pub generation: u64,
    /// The leadership term of the operator that wrote it; never falls.
    pub epoch: u64,
    /// Entries ordered by uuid.
    pub entries: Vec<PoolerEntry>,
}

/// One tenant's database at the pooler.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PoolerEntry {
    /// The tenant's identity.
    pub uuid: Uuid,
    /// `tenant_<uuid>`: the name clients ask for and the name on the server.
    pub database: String,
    /// PgBouncer's `pool_size` of the entry, for one replica.
    pub pool_size: i32,
    /// PgBouncer's `reserve_pool` of the entry, for one replica.
    pub reserve_pool: i32,
    /// PgBouncer's `max_db_connections` of the entry, for one replica.
    pub max_db_connections: i32,
    /// The tenant is read-only: connections to its server that were made before are of no use any more, whenever this changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Logins with their SCRAM verifiers; never a password.
    pub users: Vec<PoolerUser>,
}

/// A login at the pooler.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PoolerUser {
    /// `tenant_<uuid>_a` or `_b`.
    pub name: String,
    /// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, the same that PostgreSQL has.
    pub verifier: String,
}
