//! How a server is reached.

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::api::server::SslMode;

/// How a server is reached, from its connection Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// Host, as its certificate names it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The provisioner.
    pub username: String,
    /// Its password.
    pub password: String,
    /// PEM of the certificate authority.
    pub ca: String,
    /// How it is encrypted.
    pub ssl_mode: SslMode,
}

impl Connection {
    /// Options of a connection to one of the server's databases as one of its roles. The search path is pinned, so that
    /// nothing in a database can stand in for PostgreSQL's own functions (rule R5).
    pub fn options(&self, database: &str, username: &str, password: &str) -> PgConnectOptions {
        let mode = match self.ssl_mode {
            SslMode::VerifyFull => PgSslMode::VerifyFull,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::Require => PgSslMode::Require,
            SslMode::Prefer => PgSslMode::Prefer,
        };
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(username)
            .password(password)
            .database(database)
            .ssl_mode(mode)
            .application_name("maintenance-os")
            .options([("search_path", "pg_catalog,pg_temp"), ("lock_timeout", "10s")]);
        if self.ca.is_empty() { options } else { options.ssl_root_cert_from_pem(self.ca.clone().into_bytes()) }
    }
}
