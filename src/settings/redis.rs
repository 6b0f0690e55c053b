//! Where Redis is, as flags and variables. Their names are the seed's where it has one.

use std::path::PathBuf;

use anyhow::Context;
use clap::builder::{StringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use secrecy::SecretString;

use crate::tenancy::redis::{RedisMode, RedisSettings, RedisTls};

/// Where Redis is.
#[derive(Args, Clone, Debug)]
pub struct RedisArguments {
    /// Host of Redis; without a host or nodes nothing is cached and nobody can sign in.
    #[arg(id = "redis_host", long = "redis-host", env = "REDIS_HOST")]
    host: Option<String>,
    /// Port of Redis.
    #[arg(id = "redis_port", long = "redis-port", env = "REDIS_PORT", default_value_t = 6379)]
    port: u16,
    /// Password of Redis.
    #[arg(id = "redis_password", long = "redis-password", env = "REDIS_PASSWORD", hide_env_values = true, value_parser = StringValueParser::new().map(SecretString::from))]
    password: Option<SecretString>,
    /// Database of queues and limits. A cluster has no databases.
    #[arg(id = "redis_db", long = "redis-db", env = "REDIS_DB", default_value_t = 0)]
    database: i64,
    /// Database of the cache.
    #[arg(id = "redis_cache_db", long = "redis-cache-db", env = "REDIS_CACHE_DB", default_value_t = 1)]
    cache_database: i64,
    /// Database of the sessions.
    #[arg(id = "redis_session_db", long = "redis-session-db", env = "REDIS_SESSION_DB", default_value_t = 2)]
    session_database: i64,
    /// What the nodes are.
    #[arg(id = "redis_mode", long = "redis-mode", env = "REDIS_MODE", value_enum, default_value_t = Mode::Standalone)]
    mode: Mode,
    /// Sentinels, or nodes of the cluster: host:port, comma-separated. Without any, the host and port above.
    #[arg(id = "redis_nodes", long = "redis-nodes", env = "REDIS_NODES", value_delimiter = ',', value_parser = node)]
    nodes: Vec<(String, u16)>,
    /// What the Sentinels call the primary.
    #[arg(id = "redis_master", long = "redis-master-name", env = "REDIS_MASTER_NAME", default_value = "mymaster")]
    master: String,
    /// Password of the Sentinels.
    #[arg(id = "redis_sentinel_password", long = "redis-sentinel-password", env = "REDIS_SENTINEL_PASSWORD", hide_env_values = true, value_parser = StringValueParser::new().map(SecretString::from))]
    sentinel_password: Option<SecretString>,
    /// Encrypts connections (rediss).
    #[arg(id = "redis_tls", long = "redis-tls", env = "REDIS_TLS", default_value_t = false, action = clap::ArgAction::Set)]
    tls: bool,
    /// PEM file with the authority of Redis's certificates; without one, those of the system count.
    #[arg(id = "redis_ca", long = "redis-ca", env = "REDIS_CA")]
    authority: Option<PathBuf>,
}

/// The chart's `redis.mode`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Standalone,
    Sentinel,
    Cluster,
}

impl RedisArguments {
    /// None: the app runs without Redis.
    ///
    /// # Errors
    /// The authority cannot be read.
    pub fn settings(&self) -> anyhow::Result<Option<RedisSettings>> {
        let host = self.host.clone().filter(|host| !host.is_empty()).map(|host| (host, self.port));
        let nodes = if self.nodes.is_empty() { host.into_iter().collect() } else { self.nodes.clone() };
        if nodes.is_empty() {
            return Ok(None);
        }
        let read = |path: &PathBuf| {
            std::fs::read(path).with_context(|| format!("reading the authority of Redis, {}", path.display()))
        };
        let authority = self.authority.as_ref().map(read).transpose()?;
        Ok(Some(RedisSettings {
            mode: match self.mode {
                Mode::Standalone => RedisMode::StandAlone,
                Mode::Sentinel => RedisMode::Sentinel { master: self.master.clone() },
                Mode::Cluster => RedisMode::Cluster,
            },
            nodes,
            password: self.password.clone(),
            sentinel_password: self.sentinel_password.clone(),
            tls: self.tls.then_some(RedisTls { authority }),
            databases: [self.database, self.cache_database, self.session_database],
            ..RedisSettings::new("", 0)
        }))
    }
}

fn node(text: &str) -> Result<(String, u16), String> {
    let parts = text.trim().rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.ok_or_else(|| format!("`{text}` is not host:port"))?;
    // A name that lacks its port would be read as a host with a colon in it.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err(format!("`{text}` names no host")) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        redis: RedisArguments,
    }

    fn settings(arguments: &[&str]) -> Option<RedisSettings> {
        let all = std::iter::once("app").chain(arguments.iter().copied());
        Cli::try_parse_from(all).unwrap().redis.settings().unwrap()
    }

    #[test]
    fn the_seeds_defaults_are_one_server_and_databases_0_1_and_2() {
        let found = settings(&["--redis-host", "redis-service"]).unwrap();
        assert_eq!(found.mode, RedisMode::StandAlone);
        assert_eq!(found.nodes, [("redis-service".to_owned(), 6379)]);
        assert_eq!(found.databases, [0, 1, 2]);
        assert!(found.password.is_none() && found.tls.is_none());
        assert!(settings(&[]).is_none(), "without a host there is no Redis");
    }

    #[test]
    fn sentinels_and_clusters_are_lists_of_nodes() {
        let nodes = ["--redis-nodes", "a:26379,[2001:db8::1]:26380"];
        let found =
            settings(&[&["--redis-mode", "sentinel", "--redis-master-name", "main"], &nodes[..]].concat()).unwrap();
        assert_eq!(found.mode, RedisMode::Sentinel { master: "main".into() });
        assert_eq!(found.nodes, [("a".to_owned(), 26379), ("2001:db8::1".to_owned(), 26380)]);
        let found = settings(&[&["--redis-mode", "cluster", "--redis-tls", "true"], &nodes[..]].concat()).unwrap();
        assert_eq!((found.mode, found.tls.is_some()), (RedisMode::Cluster, true));
        assert!(Cli::try_parse_from(["app", "--redis-nodes", "a"]).is_err());
    }
}
