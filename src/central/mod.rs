//! The central database: the seed's six tables and, in `tenants`, the ledger: which uuid a Tenant object has, where its
//! data lies and what became of it. The Kubernetes objects are the wish, the ledger is what was really done.
//!
//! | file | what |
//! |---|---|
//! | `register` | object → uuid: create or find again |
//! | `adopt` | object → uuid: take over kept data |
//! | `superseded` | objects that vanished without their finalizer |
//! | `holder` | who has a slug, a host or a tenant |
//! | `hosts` | the hosts of a tenant |
//! | `place` | tenant → server; the database was made |
//! | `release` | a Tenant goes and its data stays |
//! | `quarantine` | a Tenant goes and its data with it, after a while; the breaker |
//! | `replaced` | databases whose place a restored one has taken |
//! | `rows` | reads |
//! | `plans`, `audit` | the seed's `plans` and `audit_logs` |
//! | `billing` | subscriptions and the events that tell of them |
//! | `admins`, `admin_sessions` | who may use the admin portal, and who is signed in there |
//! | `trail`, `chain` | the audit trail: read, and checked whether it is as it was written |
//!
//! Every call is one transaction, can be repeated after an answer was lost, and writes nothing when nothing changed.

mod admin_sessions;
mod admins;
mod adopt;
mod audit;
mod billing;
pub mod chain;
mod error;
mod holder;
mod hosts;
mod model;
mod place;
mod plans;
mod quarantine;
mod rebuild;
mod register;
mod release;
mod replaced;
mod rows;
mod superseded;
mod trail;

use std::future::Future;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection};

pub use admin_sessions::{Lifetimes, NewSession, SessionRow};
pub use admins::{AdminRow, Changed};
pub use audit::AuditEntry;
pub use billing::{
    EventLine, Manual, ManualError, NewEvent, News, Outcome as EventOutcome, Stand, SubscriptionLine, SubscriptionNews,
    Use, Wanted,
};
pub use error::{CentralError, Holder, RegisterError};
pub use hosts::Proof;
pub use model::{HostRow, LedgerState, SubscriptionRow, TenantRow};
pub use place::{Placement, Room};
pub use plans::PlanRow;
pub use quarantine::Quarantine;
pub use register::{Marked, Outcome, Registered, Registration};
pub use release::{DatabaseFact, Release};
pub use replaced::Replaced;
pub use trail::{From as TrailFrom, TrailFilter, TrailRow, Verified};

/// The seed's name of the central database.
pub const DATABASE: &str = "maintenance_os_central";

/// Bounds a call also when the network swallows packets: `statement_timeout` is only the server's side of it.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A migration may wait for another operator's.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(30);
const POOL_SIZE: u32 = 8;

/// A handle on the central database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Central {
    pool: PgPool,
}

impl Central {
    /// Reads the settings. Connections are made when they are needed and again when they broke, so that an operator
    /// starts, and says what is wrong, while the central database is down.
    ///
    /// With a CA file, or without `sslmode` in the URL, the server must prove its name (verify-full): libpq's and
    /// sqlx's default falls back to clear text without a word.
    pub async fn connect(url: &str, ca: Option<&Path>) -> Result<Self, CentralError> {
        let mut options = PgConnectOptions::from_str(url).map_err(CentralError::url)?;
        if ca.is_some() || !url.contains("sslmode=") && !url.contains("ssl-mode=") {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        if let Some(path) = ca {
            let pem = tokio::fs::read(path)
                .await
                .map_err(|source| CentralError::Authority { path: path.to_path_buf(), source })?;
            options = options.ssl_root_cert_from_pem(pem);
        }
        let options = options
            .application_name("maintenance-os")
            // pg_catalog is searched first when it is not named. Named first, tables would be made in it; and pg_temp
            // comes last, or a temporary table could stand in for the ledger's.
            .options([
                ("search_path", "public,pg_temp"),
                ("statement_timeout", "10s"),
                ("lock_timeout", "10s"),
                ("idle_in_transaction_session_timeout", "30s"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(POOL_SIZE)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_mins(10))
            .max_lifetime(Duration::from_hours(1))
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Brings the schema up to date. Safe with several operators at once: the migrator takes an advisory lock.
    pub async fn migrate(&self) -> Result<(), CentralError> {
        let doing = "migrate the central database";
        let options = self.pool.connect_options();
        let work = async {
            // A connection of its own: a migration may need longer than the pool's statement_timeout allows.
            let mut connection = options.connect().await?;
            sqlx::query("SET statement_timeout = 0").execute(&mut connection).await?;
            sqlx::query("SET lock_timeout = '60s'").execute(&mut connection).await?;
            sqlx::migrate!("src/central/migrations").run(&mut connection).await?;
            connection.close().await
        };
        match tokio::time::timeout(MIGRATION_TIMEOUT, work).await {
            Ok(result) => result.map_err(|source| CentralError::classify(doing, source)),
            Err(_) => Err(CentralError::timeout(doing)),
        }
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<(), CentralError> {
        let work = async { sqlx::query("SELECT 1").execute(&self.pool).await.map(drop) };
        bounded("reach the central database", work).await
    }
}

/// Runs one call within its time and says of a failure what it was for.
async fn bounded<T>(
    doing: impl std::fmt::Display,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, CentralError> {
    match tokio::time::timeout(CALL_TIMEOUT, work).await {
        Ok(result) => result.map_err(|source| CentralError::classify(doing, source)),
        Err(_) => Err(CentralError::timeout(doing)),
    }
}
