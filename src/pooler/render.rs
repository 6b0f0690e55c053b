//! PgBouncer's files from the settings and all slices: a pure function, in a fixed order.
//!
//! | file | what |
//! |---|---|
//! | `pgbouncer.ini` | the options, and `%include` of the next |
//! | `databases.ini` | an entry per tenant; no `*`, no forced user |
//! | `hba.conf` | which login may ask for which database: its own and nothing else |
//! | `userlist.txt` | logins with their SCRAM verifiers |
//! | `server-ca.crt`, `client.crt`, `client.key` | where the settings name them |
//!
//! `hba.conf` repeats what PostgreSQL's `pg_hba` says, because PostgreSQL is asked too late: a login of one tenant that asks
//! for another's database would take up that database's server connections until PostgreSQL refused it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::check::{self, Refused};
use super::guard::View;
use crate::api::pooler::{PoolerEntry, PoolerSettings};
use crate::api::server::PoolMode;

/// The seed's entry for the central database. `hba.conf` lets nobody in; it is there for what an administrator adds.
pub const CENTRAL: &str = "central";
const CENTRAL_DATABASE: &str = "maintenance_os_central";
const CENTRAL_CONNECTIONS: i32 = 5;
/// How long a login may take; a login that began before a RELOAD may end this long after it.
pub const LOGIN_SECONDS: u64 = 15;

/// Where PgBouncer runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory of its files and its socket; the same path for the agent and for PgBouncer.
    pub directory: PathBuf,
    /// Its address.
    pub listen: SocketAddr,
}

/// Names and contents of the files.
pub type Files = BTreeMap<&'static str, String>;

/// Renders every file.
///
/// # Errors
/// Something in the documents must not stand in a file.
pub fn render(place: &Place, settings: &PoolerSettings, view: &View) -> Result<Files, Refused> {
    check::settings(settings)?;
    view.entries().try_for_each(check::entry)?;
    let mut files = Files::from([
        ("pgbouncer.ini", ini(place, settings)),
        ("databases.ini", databases(settings, view)),
        ("hba.conf", hba(view)),
        ("userlist.txt", userlist(view)),
    ]);
    let pems = [
        ("server-ca.crt", &settings.ca),
        ("client.crt", &settings.client_certificate),
        ("client.key", &settings.client_key),
    ];
    files.extend(pems.into_iter().filter(|(_, pem)| !pem.is_empty()).map(|(name, pem)| (name, pem.clone())));
    Ok(files)
}

/// The options of `[pgbouncer]`. Of those that name who may do what, none is there: no `admin_users` and no `stats_users` (the
/// admin console answers the same uid over the Unix socket without them), no `auth_query`, no `auth_user`. No `pidfile`
/// either: it outlives the container, names process 1, and the next PgBouncer is process 1 and takes itself for another.
pub fn options(place: &Place, settings: &PoolerSettings) -> Vec<(&'static str, String)> {
    let file = |name: &str| path(&place.directory, name);
    let mut options = vec![
        ("listen_addr", place.listen.ip().to_string()),
        ("listen_port", place.listen.port().to_string()),
        ("unix_socket_dir", place.directory.display().to_string()),
        ("unix_socket_mode", "0700".to_owned()),
        ("auth_type", "hba".to_owned()),
        ("auth_hba_file", file("hba.conf")),
        ("auth_file", file("userlist.txt")),
        ("pool_mode", pool_mode(settings.pool_mode).to_owned()),
        ("max_client_conn", settings.max_client_conn.to_string()),
        ("default_pool_size", settings.default_pool_size.to_string()),
        ("reserve_pool_size", settings.reserve_pool_size.to_string()),
        ("reserve_pool_timeout", settings.reserve_pool_timeout.to_string()),
        ("server_lifetime", settings.server_lifetime.to_string()),
        ("max_prepared_statements", "200".to_owned()),
        ("ignore_startup_parameters", "extra_float_digits".to_owned()),
        // Only used in session mode: in transaction mode a connection stays with the same login and database.
        ("server_reset_query", "DISCARD ALL".to_owned()),
        // A tenant's database is briefly closed while it is claimed, rotated or restored; 15 seconds would be seen.
        ("server_login_retry", "1".to_owned()),
        ("server_connect_timeout", "5".to_owned()),
        ("server_idle_timeout", "60".to_owned()),
        ("client_login_timeout", LOGIN_SECONDS.to_string()),
        ("query_wait_timeout", "30".to_owned()),
        ("tcp_keepidle", "60".to_owned()),
        ("tcp_keepintvl", "10".to_owned()),
        ("tcp_keepcnt", "3".to_owned()),
        ("log_connections", "0".to_owned()),
        ("log_disconnections", "0".to_owned()),
        ("log_stats", "0".to_owned()),
        ("server_tls_sslmode", settings.ssl_mode.as_str().to_owned()),
    ];
    if !settings.ca.is_empty() {
        options.push(("server_tls_ca_file", file("server-ca.crt")));
    }
    if settings.client_certificate.is_empty() {
        options.push(("client_tls_sslmode", "disable".to_owned()));
    } else {
        options.push(("client_tls_sslmode", "require".to_owned()));
        options.push(("client_tls_cert_file", file("client.crt")));
        options.push(("client_tls_key_file", file("client.key")));
    }
    options
}

/// PgBouncer's parameters of the seed's `central` entry.
pub fn central(settings: &PoolerSettings) -> BTreeMap<String, String> {
    parameters(settings, CENTRAL_DATABASE, [CENTRAL_CONNECTIONS, 0, CENTRAL_CONNECTIONS])
}

/// PgBouncer's parameters of a tenant's entry.
pub fn tenant(settings: &PoolerSettings, entry: &PoolerEntry) -> BTreeMap<String, String> {
    parameters(settings, &entry.database, [entry.pool_size, entry.reserve_pool, entry.max_db_connections])
}

fn parameters(settings: &PoolerSettings, database: &str, sizes: [i32; 3]) -> BTreeMap<String, String> {
    let [pool_size, reserve_pool, max_db_connections] = sizes.map(|size| size.to_string());
    // `reserve_pool`: the name that every version knows; 1.24 calls it `reserve_pool_size` too.
    let pairs = [
        ("host", settings.host.clone()),
        ("port", settings.port.to_string()),
        ("dbname", database.to_owned()),
        ("pool_size", pool_size),
        ("reserve_pool", reserve_pool),
        ("max_db_connections", max_db_connections),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A file of `directory`.
pub fn path(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

fn ini(place: &Place, settings: &PoolerSettings) -> String {
    let mut text = format!("; epoch {} generation {}\n[pgbouncer]\n", settings.epoch, settings.generation);
    for (name, value) in options(place, settings) {
        line(&mut text, format_args!("{name} = {value}"));
    }
    line(&mut text, format_args!("%include {}", path(&place.directory, "databases.ini")));
    text
}

fn databases(settings: &PoolerSettings, view: &View) -> String {
    let mut text = String::new();
    for (name, slice) in &view.slices {
        line(&mut text, format_args!("; {name} epoch {} generation {}", slice.epoch, slice.generation));
    }
    line(&mut text, format_args!("[databases]"));
    let mut entry = |name: &str, parameters: &BTreeMap<String, String>| {
        let pairs: Vec<_> = parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
        // The name stands without quotes: PgBouncer takes hyphens in a bare name, and quotes not in every version.
        line(&mut text, format_args!("{name} = {}", pairs.join(" ")));
    };
    entry(CENTRAL, &central(settings));
    for tenant_entry in view.entries() {
        entry(&tenant_entry.database, &tenant(settings, tenant_entry));
    }
    text
}

fn hba(view: &View) -> String {
    let mut text = String::new();
    for entry in view.entries() {
        for user in &entry.users {
            line(&mut text, format_args!("host \"{}\" \"{}\" all scram-sha-256", entry.database, user.name));
        }
    }
    text
}

fn userlist(view: &View) -> String {
    let mut text = String::new();
    for user in view.entries().flat_map(|entry| &entry.users) {
        line(&mut text, format_args!("\"{}\" \"{}\"", user.name, user.verifier));
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

fn pool_mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
    }
}
