//! What may go into PgBouncer's files. Anything else is refused before it is rendered: a newline or a quote in a name would
//! be a second entry, with whatever user its author likes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

use crate::api::pooler::{PoolerEntry, PoolerSettings};

/// More is a mistake, not a size.
const LARGEST: i32 = 1_000_000;

/// Why a document is not served.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// The entry's name is not what its uuid says.
    #[error("database {0:?} is not tenant_<uuid> of its entry")]
    Database(String),
    /// A login is neither `_a` nor `_b` of its entry, or is there twice.
    #[error("login {0:?} is not one of the entry's two, each once")]
    User(String),
    /// The verifier is left out: it is a secret.
    #[error("login {0:?} has no well-formed SCRAM verifier")]
    Verifier(String),
    /// A number.
    #[error("{what} of {object} is {value}, which is no size")]
    Size {
        /// The field.
        what: &'static str,
        /// Whose.
        object: String,
        /// What it says.
        value: i32,
    },
    /// The server's host.
    #[error("host {0:?} is no host name or address")]
    Host(String),
    /// The server's port.
    #[error("port 0 of {0:?} is no port")]
    Port(String),
    /// Certificates or keys.
    #[error("{0} is no usable PEM")]
    Pem(&'static str),
}

/// Whether `entry` can be rendered.
pub fn entry(entry: &PoolerEntry) -> Result<(), Refused> {
    let database = format!("tenant_{}", entry.uuid);
    if entry.database != database {
        return Err(Refused::Database(entry.database.clone()));
    }
    size("pool_size", &database, entry.pool_size, 1)?;
    size("reserve_pool", &database, entry.reserve_pool, 0)?;
    // PgBouncer's 0 is "no limit", which no plan means.
    size("max_db_connections", &database, entry.max_db_connections, 1)?;
    for (index, user) in entry.users.iter().enumerate() {
        let ours = user.name == format!("{database}_a") || user.name == format!("{database}_b");
        if !ours || entry.users[..index].iter().any(|other| other.name == user.name) {
            return Err(Refused::User(user.name.clone()));
        }
        if !is_verifier(&user.verifier) {
            return Err(Refused::Verifier(user.name.clone()));
        }
    }
    Ok(())
}

/// Whether `settings` can be rendered.
pub fn settings(settings: &PoolerSettings) -> Result<(), Refused> {
    let host = &settings.host;
    let named = !host.is_empty() && host.len() <= 253;
    // No comma: PgBouncer takes a list of hosts, and a tenant's database lies on one.
    if !named || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:_".contains(&byte)) {
        return Err(Refused::Host(host.clone()));
    }
    if settings.port == 0 {
        return Err(Refused::Port(host.clone()));
    }
    let sizes = [
        ("max_client_conn", settings.max_client_conn, 1),
        ("default_pool_size", settings.default_pool_size, 1),
        ("reserve_pool_size", settings.reserve_pool_size, 0),
        ("reserve_pool_timeout", settings.reserve_pool_timeout, 0),
        ("server_lifetime", settings.server_lifetime, 0),
    ];
    sizes.into_iter().try_for_each(|(what, value, least)| size(what, "the pooler", value, least))?;
    certificates(settings)
}

/// A certificate that does not load keeps PgBouncer from starting, so it is tried here first.
fn certificates(settings: &PoolerSettings) -> Result<(), Refused> {
    let chain = |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    if !settings.ca.is_empty() && !chain(&settings.ca).is_ok_and(|chain| !chain.is_empty()) {
        return Err(Refused::Pem("the server's certificate authority"));
    }
    if settings.client_certificate.is_empty() && settings.client_key.is_empty() {
        return Ok(());
    }
    let refused = Refused::Pem("the pooler's certificate with its key");
    let (Ok(chain), Ok(key)) =
        (chain(&settings.client_certificate), PrivateKeyDer::from_pem_slice(settings.client_key.as_bytes()))
    else {
        return Err(refused);
    };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let usable = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    usable.map(drop).map_err(|_| refused)
}

fn size(what: &'static str, object: &str, value: i32, least: i32) -> Result<(), Refused> {
    if (least..=LARGEST).contains(&value) {
        return Ok(());
    }
    Err(Refused::Size { what, object: object.to_owned(), value })
}

/// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, the two keys of 32 bytes.
fn is_verifier(text: &str) -> bool {
    let parts = || {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        Some((iterations, salt, stored, server))
    };
    let Some((iterations, salt, stored, server)) = parts() else { return false };
    let bytes = |text: &str| STANDARD.decode(text).map_or(0, |bytes| bytes.len());
    let count = !iterations.starts_with('0')
        && (1..=8).contains(&iterations.len())
        && iterations.bytes().all(|byte| byte.is_ascii_digit());
    count && (8..=64).contains(&bytes(salt)) && bytes(stored) == 32 && bytes(server) == 32
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn what_the_operator_writes_is_accepted() {
        assert_eq!(entry(&sample::entry(1)), Ok(()));
        assert_eq!(settings(&sample::settings()), Ok(()));
    }

    #[test]
    fn hostile_database_names_are_refused() {
        let good = sample::entry(1).database;
        for bad in [
            String::new(),
            "*".to_owned(),
            "pgbouncer".to_owned(),
            good.to_uppercase(),
            format!("{good}\n{good}x = host=evil user=postgres"),
            format!("{good} = host=evil ;"),
            format!("\"{good}\""),
            format!("{good}_a"),
            sample::entry(2).database,
        ] {
            let mut hostile = sample::entry(1);
            hostile.database.clone_from(&bad);
            assert_eq!(entry(&hostile), Err(Refused::Database(bad)));
        }
    }

    #[test]
    fn hostile_logins_are_refused() {
        let good = sample::entry(1).users[0].name.clone();
        for bad in [
            "pgbouncer".to_owned(),
            "postgres".to_owned(),
            format!("{good}\" \"md5x\"\n\"postgres"),
            format!("{good}\n"),
            format!("{}_c", sample::entry(1).database),
            sample::entry(2).users[0].name.clone(),
            sample::entry(1).users[1].name.clone(),
        ] {
            let mut hostile = sample::entry(1);
            hostile.users[0].name.clone_from(&bad);
            assert!(matches!(entry(&hostile), Err(Refused::User(_))), "{bad:?}");
        }
    }

    #[test]
    fn anything_but_a_scram_verifier_is_refused() {
        let good = sample::entry(1).users[0].verifier.clone();
        let key = good.rsplit(':').next().unwrap().to_owned();
        for bad in [
            String::new(),
            "secret".to_owned(),
            "md5d41d8cd98f00b204e9800998ecf8427e".to_owned(),
            format!("{good}\n"),
            format!("{good}\"\n\"postgres\" \"{good}"),
            format!("{good};"),
            format!("{good}:{key}"),
            good.replace("4096", "0"),
            good.replace("4096", "-1"),
            good.replace("4096", ""),
            good.replace("SCRAM-SHA-256", "SCRAM-SHA-1"),
            good.replace(&key, "AAAA"),
        ] {
            let mut hostile = sample::entry(1);
            hostile.users[0].verifier.clone_from(&bad);
            let answer = entry(&hostile);
            assert!(matches!(answer, Err(Refused::Verifier(_))), "{bad:?}");
            assert!(
                bad.is_empty() || !answer.unwrap_err().to_string().contains(&bad),
                "the secret is not in the message"
            );
        }
    }

    #[test]
    fn hostile_settings_are_refused() {
        for host in ["", "a b", "a\nadmin_users=x", "a,b", "'a'", "/tmp", "a;b", "a=b"] {
            let hostile = PoolerSettings { host: host.to_owned(), ..sample::settings() };
            assert_eq!(settings(&hostile), Err(Refused::Host(host.to_owned())));
        }
        assert!(settings(&PoolerSettings { port: 0, ..sample::settings() }).is_err());
        assert!(settings(&PoolerSettings { max_client_conn: -1, ..sample::settings() }).is_err());
        assert!(settings(&PoolerSettings { ca: "no PEM".to_owned(), ..sample::settings() }).is_err());
        assert!(settings(&PoolerSettings { client_key: "no PEM".to_owned(), ..sample::settings() }).is_err());
        assert!(entry(&PoolerEntry { max_db_connections: 0, ..sample::entry(1) }).is_err());
    }
}
