//! What can go wrong on the way to a tenant's database.

use uuid::Uuid;

/// Why there is no connection. None of these says anything about another tenant, but the text is for logs and not for
/// visitors: it names servers.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Every connection is in use.
    #[error("waiting for a connection to database {database}: all are in use")]
    Busy {
        /// The tenant's database.
        database: String,
    },
    /// No connection could be opened.
    #[error("connecting to database {database} at {address}")]
    Unreachable {
        /// The tenant's database.
        database: String,
        /// Host and port of the pooler.
        address: String,
        /// What sqlx said.
        #[source]
        source: sqlx::Error,
    },
    /// Connecting took too long.
    #[error("connecting to database {database} at {address}: no answer in time")]
    NoAnswer {
        /// The tenant's database.
        database: String,
        /// Host and port of the pooler.
        address: String,
    },
    /// The work itself took too long.
    #[error("working in database {database}: no answer in time")]
    TooSlow {
        /// The tenant's database.
        database: String,
    },
    /// The entry cannot be connected with.
    #[error("connecting to database {database}: {reason}")]
    Settings {
        /// The tenant's database.
        database: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The other end is not this tenant's database. The connection is closed, nothing was read from it.
    #[error("connecting to database {expected} of tenant {tenant}: the other end is database {found}")]
    WrongDatabase {
        /// Whose request it was.
        tenant: Uuid,
        /// The database that belongs to the tenant.
        expected: String,
        /// The one that answered or that the entry names.
        found: String,
    },
}
