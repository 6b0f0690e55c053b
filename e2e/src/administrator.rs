//! What the administrator of the demo's PostgreSQL does: statements as its superuser, by `kubectl exec`.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::world::{DATABASES, SERVER, World};

/// The central database.
pub const CENTRAL: &str = "maintenance_os_central";

impl World {
    /// Runs statements as the superuser; the rows, columns parted by `|`.
    pub async fn psql(&self, database: &str, statements: &str) -> Vec<String> {
        self.try_psql(database, statements)
            .await
            .unwrap_or_else(|error| panic!("psql {database}: {error}: {statements}"))
    }

    /// As [`World::psql`]; what psql said when it failed.
    ///
    /// # Errors
    /// psql failed.
    pub async fn try_psql(&self, database: &str, statements: &str) -> Result<Vec<String>, String> {
        let pod = format!("{SERVER}-0");
        let arguments = [
            "-n",
            DATABASES,
            "exec",
            "-i",
            &pod,
            "--",
            "psql",
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
        ];
        let mut child = Command::new("kubectl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("starting kubectl: {error}"))?;
        let mut input = child.stdin.take().ok_or("kubectl has no input")?;
        input.write_all(statements.as_bytes()).await.map_err(|error| error.to_string())?;
        drop(input);
        let output = child.wait_with_output().await.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Rows of the ledger of a slug: state and uuid.
    pub async fn ledger(&self, slug: &str) -> Vec<(String, String)> {
        let rows = self
            .psql(CENTRAL, &format!("SELECT ledger_state, id FROM tenants WHERE slug = '{slug}' ORDER BY created_at"))
            .await;
        rows.iter()
            .filter_map(|row| row.split_once('|'))
            .map(|(state, uuid)| (state.to_owned(), uuid.to_owned()))
            .collect()
    }

    /// Databases on the server whose name is like this, with their comments.
    pub async fn databases(&self, like: &str) -> Vec<(String, String)> {
        let query = format!(
            "SELECT datname, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname LIKE '{like}' ORDER BY 1"
        );
        let rows = self.psql("template1", &query).await;
        rows.iter()
            .filter_map(|row| row.split_once('|'))
            .map(|(name, mark)| (name.to_owned(), mark.to_owned()))
            .collect()
    }

    /// Roles that can log in and whose name is like this.
    pub async fn logins(&self, like: &str) -> Vec<String> {
        self.psql(
            "template1",
            &format!("SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname LIKE '{like}' ORDER BY 1"),
        )
        .await
    }

    /// Rows in a tenant's table of assets, read past every login: also of tenants that are not the tests'.
    pub async fn rows_of_assets(&self, tenant: &str) -> String {
        let binding = self.binding(tenant).await;
        self.psql(binding.key("database"), "SELECT count(*) FROM assets").await.concat()
    }

    /// Closes a database to everybody and ends its sessions, so that it is as if its server were down.
    pub async fn close_database(&self, name: &str) {
        self.psql(
            "template1",
            &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}';"),
        )
        .await;
    }

    /// Opens it again.
    pub async fn open_database(&self, name: &str) {
        self.psql("template1", &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
    }

    /// Makes the breaker forget earlier deletes, so that tests of one run and runs of one hour do not meet each other's.
    pub async fn forget_releases(&self) {
        self.psql(
            CENTRAL,
            "UPDATE releases SET released_at = released_at - interval '1 hour' WHERE outcome = 'Quarantined'",
        )
        .await;
    }
}
