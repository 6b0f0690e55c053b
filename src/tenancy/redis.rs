//! The way to Redis: one connection per purpose, made when it is first needed and made again when it broke.
//!
//! The purposes are the seed's three connections: `default` (queues), `cache` and `sessions`, databases 0, 1 and 2 of a
//! stand-alone server.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo};
use tokio::sync::OnceCell;

/// Where Redis is.
#[derive(Clone)]
pub struct RedisSettings {
    /// `REDIS_HOST`
    pub host: String,
    /// `REDIS_PORT`
    pub port: u16,
    /// `REDIS_PASSWORD`
    pub password: Option<String>,
    /// `REDIS_DB`, `REDIS_CACHE_DB`, `REDIS_SESSION_DB`, in the order of [`Purpose`].
    pub databases: [i64; 3],
}

/// What is kept there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Queues and limits.
    Default,
    /// What can be made again.
    Cache,
    /// Who is signed in.
    Sessions,
}

/// Redis. Clones share the connections.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    settings: RedisSettings,
    connections: [OnceCell<ConnectionManager>; 3],
}

/// Longest wait for an answer; a page that waits longer for its cache is better made without.
const ANSWER: Duration = Duration::from_millis(500);

impl Redis {
    /// Connects when it is first asked.
    pub fn new(settings: RedisSettings) -> Self {
        Self(Arc::new(Inner { settings, connections: Default::default() }))
    }

    /// Sends one command.
    ///
    /// # Errors
    /// Redis is away, too slow, or refuses.
    pub async fn query<T: FromRedisValue>(&self, purpose: Purpose, command: &Cmd) -> Result<T, redis::RedisError> {
        let mut connection = self.connection(purpose).await?;
        command.query_async(&mut connection).await
    }

    async fn connection(&self, purpose: Purpose) -> Result<ConnectionManager, redis::RedisError> {
        let connect = async || {
            let settings = &self.0.settings;
            let mut server = RedisConnectionInfo::default().set_db(settings.databases[purpose as usize]);
            if let Some(password) = &settings.password {
                server = server.set_password(password);
            }
            let address = ConnectionAddr::Tcp(settings.host.clone(), settings.port);
            let client = redis::Client::open(address.into_connection_info()?.set_redis_settings(server))?;
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(ANSWER))
                .set_response_timeout(Some(ANSWER))
                .set_number_of_retries(1);
            client.get_connection_manager_with_config(config).await
        };
        self.0.connections[purpose as usize].get_or_try_init(connect).await.cloned()
    }
}
