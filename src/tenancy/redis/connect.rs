//! Making a connection, in each of the three modes.

use std::sync::Arc;

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::cluster::ClusterClientBuilder;
use ::redis::cluster_async::ClusterConnection;
use ::redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline, ProtocolVersion,
    PushInfo, PushKind, RedisConnectionInfo, RedisFuture, RedisResult, TlsCertificates, TlsMode, Value,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;

use super::{ANSWER, Purpose, RedisMode, RedisSettings};

/// How often a cluster's client looks for the right node before it gives up, within [`ANSWER`].
const CLUSTER_RETRIES: u32 = 2;
/// Its pause between two attempts, in milliseconds.
const CLUSTER_PAUSE: u64 = 50;

/// A connection that many requests use at the same time. Clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    Single(MultiplexedConnection),
    /// To every node of a cluster; it finds nodes that moved by itself.
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// Connects once. `closed` is rung when the other end closes the connection later, whether anybody uses it or not.
pub(super) async fn connect(
    settings: &RedisSettings,
    purpose: Purpose,
    closed: Arc<Notify>,
) -> RedisResult<Connection> {
    let database = settings.databases[purpose as usize];
    match &settings.mode {
        RedisMode::StandAlone => {
            let info = info(settings, settings.nodes.first(), database)?;
            let client = match certificates(settings) {
                Some(certificates) => Client::build_with_tls(info, certificates)?,
                None => Client::open(info)?,
            };
            single(&client, closed).await
        }
        RedisMode::Sentinel { master } => {
            // Asked anew for each connection: which server it is, is what may have changed.
            let client = sentinels(settings, master, database)?.async_get_client().await?;
            single(&client, closed).await
        }
        RedisMode::Cluster => Ok(Connection::Cluster(cluster(settings)?.get_async_connection().await?)),
    }
}

async fn single(client: &Client, closed: Arc<Notify>) -> RedisResult<Connection> {
    let notify = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            closed.notify_one();
        }
        Ok::<_, std::convert::Infallible>(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER))
        .set_response_timeout(Some(ANSWER))
        .set_push_sender(notify);
    Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
}

fn info(settings: &RedisSettings, node: Option<&(String, u16)>, database: i64) -> RedisResult<ConnectionInfo> {
    let missing = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "no node of Redis is configured");
    let (host, port) = node.ok_or_else(missing)?;
    // The third version of the protocol, because it says when a connection ends.
    let mut server = RedisConnectionInfo::default().set_db(database).set_protocol(ProtocolVersion::RESP3);
    if let Some(password) = exposed(settings.password.as_ref()) {
        server = server.set_password(password);
    }
    Ok(address(settings, host, *port).into_connection_info()?.set_redis_settings(server))
}

fn address(settings: &RedisSettings, host: &str, port: u16) -> ConnectionAddr {
    match settings.tls {
        Some(_) => ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None },
        None => ConnectionAddr::Tcp(host.to_owned(), port),
    }
}

fn certificates(settings: &RedisSettings) -> Option<TlsCertificates> {
    let authority = settings.tls.as_ref()?.authority.clone();
    Some(TlsCertificates { client_tls: None, root_cert: authority })
}

fn exposed(secret: Option<&SecretString>) -> Option<&str> {
    secret.map(ExposeSecret::expose_secret).filter(|secret| !secret.is_empty())
}

fn sentinels(settings: &RedisSettings, master: &str, database: i64) -> RedisResult<::redis::sentinel::SentinelClient> {
    let nodes = settings.nodes.iter().map(|(host, port)| address(settings, host, *port));
    let mut builder = SentinelClientBuilder::new(nodes, master, SentinelServerType::Master)?
        .set_client_to_redis_db(database)
        .set_client_to_redis_protocol(ProtocolVersion::RESP3);
    if let Some(password) = exposed(settings.password.as_ref()) {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(password) = exposed(settings.sentinel_password.as_ref()) {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if let Some(certificates) = certificates(settings) {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    builder.build()
}

fn cluster(settings: &RedisSettings) -> RedisResult<::redis::cluster::ClusterClient> {
    let nodes: Vec<ConnectionInfo> =
        settings.nodes.iter().map(|node| info(settings, Some(node), 0)).collect::<RedisResult<_>>()?;
    let mut builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(ANSWER)
        .response_timeout(ANSWER)
        .overall_response_timeout(Some(ANSWER))
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(CLUSTER_PAUSE)
        .max_retry_wait(CLUSTER_PAUSE);
    if let Some(certificates) = certificates(settings) {
        builder = builder.certs(certificates);
    }
    builder.build()
}

// Checked where it is written down: a client of a cluster that waits longer than a request may would be no use.
const _: () = assert!((CLUSTER_RETRIES as u64) * CLUSTER_PAUSE < ANSWER.as_millis() as u64, "it fits into one answer");
