//! Opening a connection as a routing entry says, and asking the other end who it is.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow, PgSslMode};
use sqlx::{Connection, Row};
use tokio::time::timeout;

use super::PoolError;
use crate::api::routing::{DatabaseAccess, RoutingEntry};

/// What the server shows in `pg_stat_activity`. The same for every tenant: `PgBouncer` would have to set it anew each
/// time it hands a server connection to another client.
const APPLICATION_NAME: &str = "maintenance-os";

/// Prepared statements kept per connection. Less than the pooler's `max_prepared_statements`, which is 200.
const STATEMENTS: usize = 100;

/// Opens a connection.
pub(super) async fn open(entry: &RoutingEntry, limit: Duration) -> Result<PgConnection, PoolError> {
    let access = &entry.database;
    let options = options(access).map_err(|reason| PoolError::Settings { database: access.name.clone(), reason })?;
    let address = || format!("{}:{}", access.host, access.port);
    match timeout(limit, PgConnection::connect_with(&options)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(source)) => Err(PoolError::Unreachable { database: access.name.clone(), address: address(), source }),
        Err(_) => Err(PoolError::NoAnswer { database: access.name.clone(), address: address() }),
    }
}

/// Asks the other end which database it is, and whether it is between transactions. One round trip per check-out buys
/// that a wrong line in the pooler's configuration shows as an error and never as somebody else's data.
pub(super) async fn check(
    connection: &mut PgConnection,
    entry: &RoutingEntry,
    limit: Duration,
) -> Result<(), PoolError> {
    let access = &entry.database;
    // As one simple query: it needs no prepared statement, and in a transaction of its own both times are the same. A
    // transaction that was left open began earlier.
    let question = sqlx::raw_sql("SELECT current_database(), now() = statement_timestamp()");
    let fresh = async {
        let row: PgRow = question.fetch_one(connection).await?;
        Ok::<_, sqlx::Error>((row.try_get::<String, _>(0)?, row.try_get::<bool, _>(1)?))
    };
    let address = || format!("{}:{}", access.host, access.port);
    let unreachable = |source| PoolError::Unreachable { database: access.name.clone(), address: address(), source };
    let (found, between_transactions) = timeout(limit, fresh)
        .await
        .map_err(|_| PoolError::NoAnswer { database: access.name.clone(), address: address() })?
        .map_err(unreachable)?;
    // Compared with the tenant's identity and not with what the entry says: both could be wrong in the same way.
    let expected = format!("tenant_{}", entry.uuid);
    if found != expected {
        return Err(PoolError::WrongDatabase { tenant: entry.uuid, expected, found });
    }
    if !between_transactions {
        return Err(unreachable(sqlx::Error::Protocol("the connection has an open transaction".into())));
    }
    Ok(())
}

fn options(access: &DatabaseAccess) -> Result<PgConnectOptions, String> {
    let options = PgConnectOptions::new_without_pgpass();
    if options.get_options().is_some() {
        // sqlx takes it from the environment and offers no way to leave it out again.
        return Err("the variable PGOPTIONS is set, and PgBouncer refuses its startup parameter: unset it".into());
    }
    let options = options
        .host(&access.host)
        .port(access.port)
        .database(&access.name)
        .username(&access.username)
        .password(&access.password)
        .application_name(APPLICATION_NAME)
        // PgBouncer refuses this startup parameter unless told to ignore it. PostgreSQL's default is exact since 12.
        .extra_float_digits(None)
        .statement_cache_capacity(STATEMENTS);
    let options = options.ssl_mode(ssl_mode(access)?);
    // Also when it is empty: else the variable PGSSLROOTCERT of whoever started the process would count.
    Ok(options.ssl_root_cert_from_pem(access.ca.clone().into_bytes()))
}

fn ssl_mode(access: &DatabaseAccess) -> Result<PgSslMode, String> {
    let mode = PgSslMode::from_str(&access.sslmode).map_err(|_| {
        format!("`{}` is no sslmode: use disable, prefer, require, verify-ca or verify-full", access.sslmode)
    })?;
    match mode {
        PgSslMode::VerifyCa | PgSslMode::VerifyFull if access.ca.trim().is_empty() => {
            // Without it, any public certificate authority would do.
            Err(format!("sslmode {} needs the certificate authority, and the entry has none", access.sslmode))
        }
        // As libpq does: with an authority at hand, "require" checks the certificate against it.
        PgSslMode::Require if !access.ca.trim().is_empty() => Ok(PgSslMode::VerifyCa),
        mode => Ok(mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::testing::entry;
    use uuid::Uuid;

    fn access(sslmode: &str, ca: &str) -> DatabaseAccess {
        DatabaseAccess {
            sslmode: sslmode.into(),
            ca: ca.into(),
            ..entry(Uuid::from_u128(1), &["acme.example"]).database
        }
    }

    #[test]
    fn every_ssl_mode_means_what_it_means_to_libpq() {
        type Expected = fn(&Result<PgSslMode, String>) -> bool;
        let rows: [(&str, &str, Expected); 9] = [
            ("disable", "", |mode| matches!(mode, Ok(PgSslMode::Disable))),
            ("prefer", "", |mode| matches!(mode, Ok(PgSslMode::Prefer))),
            ("require", "", |mode| matches!(mode, Ok(PgSslMode::Require))),
            ("require", "pem", |mode| matches!(mode, Ok(PgSslMode::VerifyCa))),
            ("verify-ca", "pem", |mode| matches!(mode, Ok(PgSslMode::VerifyCa))),
            ("verify-full", "pem", |mode| matches!(mode, Ok(PgSslMode::VerifyFull))),
            ("verify-ca", "", Result::is_err),
            ("verify-full", " \n", Result::is_err),
            ("", "", Result::is_err),
        ];
        for (sslmode, ca, expected) in rows {
            let found = ssl_mode(&access(sslmode, ca));
            assert!(expected(&found), "{sslmode} with CA `{ca}`: {found:?}");
        }
    }

    #[test]
    fn the_password_is_in_no_error() {
        let mut wrong = access("verify-full", "");
        wrong.password = "hunter2".into();
        assert!(!format!("{:?}", options(&wrong)).contains("hunter2"));
    }
}
