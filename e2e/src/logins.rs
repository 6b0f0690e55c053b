//! A tenant's own logins, with what its binding Secret holds.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::ListParams;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{ConnectOptions, Connection};

use crate::world::{CUSTOMERS, DATABASES, OPERATOR, SERVER, World};

/// A binding Secret, with the address of its pooler and of the server behind it.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Its keys.
    pub keys: BTreeMap<String, String>,
    pooler: String,
    server: String,
}

impl World {
    /// The binding of a Tenant.
    pub async fn binding(&self, name: &str) -> Binding {
        let keys = self.secret(CUSTOMERS, &format!("{name}-db")).await.expect("the binding Secret is there");
        let pooler = self.address(OPERATOR, &format!("pooler-{SERVER}")).await;
        let server = self.address(DATABASES, SERVER).await;
        Binding { keys, pooler, server }
    }

    /// Fingerprints of the certificates that the pods of the pooler show.
    pub async fn pooler_certificate(&self) -> Vec<String> {
        let pods = ListParams::default().labels(&format!("tenancy.maintenance-os.com/server={SERVER}"));
        let pods = self.pods(OPERATOR).list(&pods).await.expect("listing pods");
        let addresses = pods.into_iter().filter_map(|pod| pod.status?.pod_ip);
        let shown = addresses.map(|address| {
            let script = format!(
                "openssl s_client -starttls postgres -connect {address}:6432 < /dev/null 2> /dev/null | openssl x509 -noout -fingerprint -sha256"
            );
            let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("openssl runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        });
        let shown: Vec<_> = shown.collect();
        assert!(!shown.is_empty() && shown.iter().all(|shown| shown.contains('=')), "{shown:?}");
        shown
    }
}

impl Binding {
    /// A key.
    pub fn key(&self, key: &str) -> &str {
        self.keys.get(key).unwrap_or_else(|| panic!("the binding Secret has the key {key}"))
    }

    /// A session through the pooler.
    ///
    /// # Errors
    /// It is refused.
    pub async fn pooled(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        let port = self.key("port").parse().expect("a port");
        self.connect(self.options(&self.pooler, port, database)).await
    }

    /// A session with the server itself, past the pooler.
    ///
    /// # Errors
    /// It is refused.
    pub async fn direct(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        self.connect(self.options(&self.server, 5432, database)).await
    }

    /// The same server for another role.
    #[must_use]
    pub fn as_role(&self, role: &str, password: &str) -> Self {
        let mut other = self.clone();
        other.keys.insert("username".into(), role.into());
        other.keys.insert("password".into(), password.into());
        other
    }

    fn options(&self, host: &str, port: u16, database: &str) -> PgConnectOptions {
        // The name in the certificate cannot be resolved outside of the cluster.
        PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(port)
            .username(self.key("username"))
            .password(self.key("password"))
            .database(database)
            .ssl_mode(PgSslMode::Require)
            .statement_cache_capacity(0)
    }

    async fn connect(&self, options: PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
        let work = async {
            let mut connection = options.connect().await?;
            // A pooler lets a client in before it has a connection for it.
            sqlx::raw_sql("SELECT 1").execute(&mut connection).await?;
            Ok(connection)
        };
        tokio::time::timeout(Duration::from_secs(15), work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// Why a session was refused; None: it was not.
pub async fn refusal(session: Result<PgConnection, sqlx::Error>) -> Option<String> {
    match session {
        Ok(session) => {
            let _ = session.close().await;
            None
        }
        Err(error) => Some(error.to_string()),
    }
}
