//! Where the central database is, for its own backup.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use percent_encoding::percent_decode_str;
use url::Url;

use super::server::{Login, Server};
use crate::settings::ssl_mode;

/// Server, login and database that a connection string names.
///
/// # Errors
/// It is no `postgres://` URL with a user and a database. The message does not repeat it: it has a password.
pub fn parse(url: &str, ca: Option<PathBuf>) -> anyhow::Result<(Server, Login, String)> {
    let url = Url::parse(url).ok().context("the connection of the central database is no URL")?;
    ensure!(
        matches!(url.scheme(), "postgres" | "postgresql"),
        "the connection of the central database is no postgres:// URL"
    );
    let plain = |text: &str| -> anyhow::Result<String> {
        let decoded = percent_decode_str(text).decode_utf8();
        Ok(decoded.context("reading the connection of the central database")?.into_owned())
    };
    let asked = |wanted: &str| url.query_pairs().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
    let mode = asked("sslmode").unwrap_or_else(|| "prefer".into());
    let server = Server {
        name: "central".into(),
        host: url.host_str().context("the connection of the central database names no host")?.to_owned(),
        port: url.port().unwrap_or(5432),
        ca: ca.filter(|ca| ca.exists()).or_else(|| asked("sslrootcert").map(PathBuf::from)),
        ssl_mode: ssl_mode(&mode).map_err(anyhow::Error::msg).context("reading sslmode of the central database")?,
        system_identifier: None,
    };
    let login = Login { username: plain(url.username())?, password: plain(url.password().unwrap_or_default())? };
    let database = plain(url.path().trim_start_matches('/'))?;
    ensure!(
        !login.username.is_empty() && !database.is_empty(),
        "the connection of the central database names no user or no database"
    );
    Ok((server, login, database))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::server::SslMode;

    #[test]
    fn a_connection_string_is_taken_apart_and_never_repeated_in_an_error() {
        let url = "postgres://central:p%40ss@pg.example:6543/maintenance_os_central?sslmode=verify-full";
        let (server, login, database) = parse(url, None).unwrap();
        assert_eq!((server.host.as_str(), server.port, server.ssl_mode), ("pg.example", 6543, SslMode::VerifyFull));
        assert_eq!((login.username.as_str(), login.password.as_str()), ("central", "p@ss"));
        assert_eq!(database, "maintenance_os_central");
        for bad in [
            "p%40ss",
            "http://u:p%40ss@h/d",
            "postgres://u:p%40ss@h",
            "postgres://h/d",
            "postgres://u:p%40ss@h/d?sslmode=no",
        ] {
            let error = format!("{:#}", parse(bad, None).err().expect(bad));
            assert!(!error.contains("p%40ss") && !error.contains("p@ss"), "{error}");
        }
    }
}
