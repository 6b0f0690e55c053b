//! The way to Redis: one connection per purpose, to one server, to the primary that Sentinels name, or to a cluster.
//!
//! ```text
//!   request ──▶ RedisLine ──▶ is the line up? ──no──▶ refused at once
//!                                  │yes
//!                                  ▼
//!                              the command, 500 ms at most ──outage──▶ the line is down
//!                                                                        │
//!   one task per purpose: connect, ask now and then, connect again ◀─────┘
//! ```
//!
//! A Redis that is away must cost the pages nothing but what they kept there. So requests never connect: a task per
//! purpose does, again and again until it works, and a request that finds the line down is told so without waiting. Only
//! at the very start, while the first connection is being made, do requests wait, and then as long as for an answer.
//!
//! The purposes are the seed's three connections: `default` (queues, limits), `cache` and `sessions`, databases 0, 1 and 2.
//! A cluster has no databases, so there the purpose is a prefix of the key, and the tenant stands in braces, so that all of
//! one tenant's keys lie on one node ([`Redis::key`]).

mod circuit;
mod connect;
mod metrics;
mod slot;

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ::redis::aio::ConnectionLike;
use ::redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value};
use rand::Rng;
use secrecy::SecretString;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use uuid::Uuid;

use self::circuit::{Admission, Circuits};
use self::connect::{Connection, connect};
pub use self::metrics::RedisMetrics;

/// What [`RedisSettings::answer`] is unless somebody says otherwise.
const ANSWER: Duration = Duration::from_millis(500);
/// Longest time for one attempt to connect. Requests do not wait for it, so it has room to ask three Sentinels.
const CONNECT: Duration = Duration::from_secs(5);
/// Pause before the second attempt to connect; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest time that a Redis that is back goes unnoticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often a line that is up is asked whether it still is.
const TICK: Duration = Duration::from_secs(5);

/// Which servers make up Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    StandAlone,
    /// The nodes are Sentinels; the server is the primary that they name.
    Sentinel {
        /// What the Sentinels call it.
        master: String,
    },
    /// The nodes are some of a cluster's; the others are learned from them.
    Cluster,
}

/// Connections are encrypted.
#[derive(Debug, Clone, Default)]
pub struct RedisTls {
    /// PEM of the authority that signed the servers' certificates; without it, those of the system count.
    pub authority: Option<Vec<u8>>,
}

/// Where Redis is.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// What the nodes are.
    pub mode: RedisMode,
    /// Hosts and ports.
    pub nodes: Vec<(String, u16)>,
    /// Password of the servers.
    pub password: Option<SecretString>,
    /// Password of the Sentinels.
    pub sentinel_password: Option<SecretString>,
    /// Whether connections are encrypted.
    pub tls: Option<RedisTls>,
    /// `REDIS_DB`, `REDIS_CACHE_DB`, `REDIS_SESSION_DB`, in the order of [`Purpose`]. A cluster has none.
    pub databases: [i64; 3],
    /// Longest wait for an answer. A page that waits longer for its cache is better made without.
    pub answer: Duration,
}

impl RedisSettings {
    /// One server without a password, databases 0, 1 and 2.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            mode: RedisMode::StandAlone,
            nodes: vec![(host.to_owned(), port)],
            password: None,
            sentinel_password: None,
            tls: None,
            databases: [0, 1, 2],
            answer: ANSWER,
        }
    }
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

impl Purpose {
    const ALL: [Self; 3] = [Self::Default, Self::Cache, Self::Sessions];

    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Cache => "cache",
            Self::Sessions => "sessions",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Cache => "cache:",
            Self::Sessions => "sess:",
        }
    }
}

/// Redis. Clones share the connections; when the last one is dropped, the tasks that keep them end.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    settings: RedisSettings,
    /// In the order of [`Purpose`].
    lines: [Line; 3],
    metrics: RedisMetrics,
}

/// The connection of one purpose, as requests see it.
struct Line {
    /// Requests read it, the purpose's task writes it, and a request that meets an outage takes it down.
    state: watch::Sender<State>,
    /// Rung by a request that took the line down, and by the connection when the other end closed it. The task has a clone.
    fault: Arc<Notify>,
    /// In a cluster: which part of it does not answer. The connection as a whole stays up then.
    circuits: Circuits,
}

#[derive(Clone)]
enum State {
    /// The first attempt is not decided yet.
    Connecting,
    /// The number tells one connection from its successor.
    Up(Connection, u64),
    Down,
}

impl Redis {
    /// Begins to connect in the background. Needs a Tokio runtime.
    pub fn new(settings: RedisSettings) -> Self {
        Self::for_purposes(settings, &Purpose::ALL)
    }

    /// Another connection to the same servers, for one purpose, whose answers may take so long: for commands that wait for
    /// something to happen.
    #[must_use]
    pub fn patient(&self, purpose: Purpose, answer: Duration) -> Self {
        Self::for_purposes(RedisSettings { answer, ..self.0.settings.clone() }, &[purpose])
    }

    fn for_purposes(settings: RedisSettings, purposes: &[Purpose]) -> Self {
        let line = || Line {
            state: watch::Sender::new(State::Connecting),
            fault: Arc::new(Notify::new()),
            circuits: Circuits::default(),
        };
        let redis =
            Self(Arc::new(Inner { settings, lines: [line(), line(), line()], metrics: RedisMetrics::default() }));
        for purpose in Purpose::ALL {
            if purposes.contains(&purpose) {
                tokio::spawn(keep_up(Arc::downgrade(&redis.0), purpose));
            } else {
                redis.0.line(purpose).state.send_replace(State::Down);
            }
        }
        redis
    }

    /// The one way to write a tenant's key: `tenant:<uuid>:<key>`, and in a cluster `<purpose>{tenant:<uuid>}:<key>`.
    pub fn key(&self, purpose: Purpose, tenant: Uuid, key: &str) -> String {
        match self.0.settings.mode {
            RedisMode::Cluster => format!("{}{{tenant:{tenant}}}:{key}", purpose.prefix()),
            _ => format!("tenant:{tenant}:{key}"),
        }
    }

    /// The list of that queue: its name, and in a cluster its name in braces, so that lists derived from it (jobs in
    /// progress, jobs that failed) lie on the same node.
    pub fn queue_key<'n>(&self, name: &'n str) -> Cow<'n, str> {
        match self.0.settings.mode {
            RedisMode::Cluster => format!("{{{name}}}").into(),
            _ => name.into(),
        }
    }

    /// A connection for commands, pipelines and scripts, as the crate `redis` takes it:
    /// `command.query_async(&mut redis.line(Purpose::Cache))`. Costs nothing to make.
    pub fn line(&self, purpose: Purpose) -> RedisLine {
        RedisLine { redis: self.clone(), purpose }
    }

    /// Sends one command.
    ///
    /// # Errors
    /// Redis is away, too slow, or refuses. A command that was under way when the connection broke may have been carried
    /// out.
    pub async fn query<T: FromRedisValue>(&self, purpose: Purpose, command: &Cmd) -> RedisResult<T> {
        command.query_async(&mut self.line(purpose)).await
    }

    /// Whether commands for that purpose are being sent right now.
    pub fn is_up(&self, purpose: Purpose) -> bool {
        let line = &self.0.lines[purpose as usize];
        matches!(*line.state.borrow(), State::Up(..)) && line.circuits.all_closed(Instant::now())
    }

    /// `maintenance_os_redis_up` and `maintenance_os_redis_errors_total`, by purpose, for `/metrics`.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        registry.register_collector(Box::new(metrics::Lines(Arc::downgrade(&self.0))));
    }
}

impl Inner {
    fn line(&self, purpose: Purpose) -> &Line {
        &self.lines[purpose as usize]
    }
}

/// One purpose's connection. Clones share it.
#[derive(Clone)]
pub struct RedisLine {
    redis: Redis,
    purpose: Purpose,
}

/// A command that is allowed to go out; tells the line how it went. One that is dropped tells nothing: a cancelled request
/// is no outage.
struct Pass {
    connection: Connection,
    number: u64,
    group: Option<usize>,
}

impl RedisLine {
    fn inner(&self) -> &Inner {
        &self.redis.0
    }

    /// Waits while the first connection is being made, and no longer than for an answer.
    async fn admit(&self, key: Option<&[u8]>) -> RedisResult<Pass> {
        let line = self.inner().line(self.purpose);
        let mut state = line.state.subscribe();
        let decided =
            timeout(self.inner().settings.answer, state.wait_for(|state| !matches!(state, State::Connecting))).await;
        let State::Up(connection, number) =
            decided.map_or(State::Down, |state| state.map_or(State::Down, |s| s.clone()))
        else {
            return Err(self.away());
        };
        let key = key.unwrap_or_default();
        let group = match &connection {
            Connection::Cluster(_) => Some(slot::group(key)),
            Connection::Single(_) => None,
        };
        let pass = Pass { connection, number, group };
        match group.map_or(Admission::Granted, |group| line.circuits.admit(group, Instant::now())) {
            Admission::Granted => Ok(pass),
            Admission::Refused => Err(self.away()),
            Admission::Ask => {
                tokio::spawn(self.clone().ask(pass, key.to_vec()));
                Err(self.away())
            }
        }
    }

    /// Finds out whether the part of a cluster that holds `key` answers again. Reads nothing but whether the key is there.
    async fn ask(self, mut pass: Pass, key: Vec<u8>) {
        let question = ::redis::cmd("EXISTS").arg(key).to_owned();
        let answer = timeout(self.inner().settings.answer, pass.connection.req_packed_command(&question)).await;
        self.observe(&pass, &answer.unwrap_or_else(|_| Err(too_slow())));
    }

    fn away(&self) -> RedisError {
        self.inner().metrics.count_error(self.purpose);
        std::io::Error::new(std::io::ErrorKind::NotConnected, "Redis is away").into()
    }

    fn observe<T>(&self, pass: &Pass, outcome: &RedisResult<T>) {
        let line = self.inner().line(self.purpose);
        let error = match outcome {
            Ok(_) => {
                if let Some(group) = pass.group {
                    line.circuits.close(group);
                }
                return;
            }
            // The caller loads the script and tries again.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => return,
            Err(error) => error,
        };
        self.inner().metrics.count_error(self.purpose);
        if !is_outage(error) {
            tracing::warn!(purpose = self.purpose.name(), %error, "Redis refused a command");
            return;
        }
        match pass.group {
            Some(group) => {
                if line.circuits.open(group, Instant::now()) {
                    tracing::warn!(purpose = self.purpose.name(), %error, "a part of the Redis cluster does not answer");
                }
            }
            None => take_down(line, pass.number, self.purpose, error),
        }
    }
}

/// Does nothing when the line has another connection by now, or when somebody was faster.
fn take_down(line: &Line, number: u64, purpose: Purpose, error: &RedisError) {
    let was_up = line.state.send_if_modified(|state| {
        let same = matches!(state, State::Up(_, up) if *up == number);
        if same {
            *state = State::Down;
        }
        same
    });
    if was_up {
        tracing::warn!(purpose = purpose.name(), %error, "Redis does not answer, working without it");
        line.fault.notify_one();
    }
}

impl ConnectionLike for RedisLine {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut pass = self.admit(slot::key_of(command)).await?;
            let answer = timeout(self.inner().settings.answer, pass.connection.req_packed_command(command)).await;
            let answer = answer.unwrap_or_else(|_| Err(too_slow()));
            self.observe(&pass, &answer);
            answer
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let mut pass = self.admit(pipeline.cmd_iter().find_map(slot::key_of)).await?;
            let answer =
                timeout(self.inner().settings.answer, pass.connection.req_packed_commands(pipeline, offset, count))
                    .await;
            let answer = answer.unwrap_or_else(|_| Err(too_slow()));
            self.observe(&pass, &answer);
            answer
        })
    }

    fn get_db(&self) -> i64 {
        self.inner().settings.databases[self.purpose as usize]
    }
}

fn too_slow() -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "Redis did not answer in time").into()
}

/// Whether the server or the way to it is the matter, as opposed to this one command.
fn is_outage(error: &RedisError) -> bool {
    let by_server = match error.kind() {
        ErrorKind::Server(kind) => matches!(
            kind,
            // A primary that was demoted says that it is read-only: the Sentinels know the new one.
            ServerErrorKind::ReadOnly
                | ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain
        ),
        ErrorKind::Io | ErrorKind::AuthenticationFailed | ErrorKind::ClusterConnectionNotFound => true,
        _ => false,
    };
    by_server || error.is_connection_dropped() || error.is_timeout() || error.is_unrecoverable_error()
}

/// Keeps one purpose's connection until the last [`Redis`] is dropped.
async fn keep_up(inner: Weak<Inner>, purpose: Purpose) {
    let mut pause = FIRST_PAUSE;
    let mut number = 0;
    loop {
        let Some(redis) = inner.upgrade() else { return };
        let line = redis.line(purpose);
        let fault = line.fault.clone();
        let made = timeout(CONNECT, connect(&redis.settings, purpose, fault.clone())).await;
        match made.unwrap_or_else(|_| Err(too_slow())) {
            Ok(connection) => {
                number += 1;
                pause = FIRST_PAUSE;
                line.state.send_replace(State::Up(connection.clone(), number));
                tracing::info!(purpose = purpose.name(), "connected to Redis");
                drop(redis);
                watch_over(&inner, purpose, connection, number, &fault).await;
            }
            Err(error) => {
                redis.metrics.count_error(purpose);
                let was = line.state.send_replace(State::Down);
                if !matches!(was, State::Down) || pause == LONGEST_PAUSE {
                    tracing::warn!(purpose = purpose.name(), %error, "connecting to Redis failed, trying again");
                }
            }
        }
        // Spread, so that a fleet of pods does not come back as one.
        let spread = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(pause.mul_f64(spread)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn inner_answer(inner: &Weak<Inner>) -> Duration {
    inner.upgrade().map_or(Duration::ZERO, |redis| redis.settings.answer)
}

/// Returns when the connection is not good any more.
async fn watch_over(inner: &Weak<Inner>, purpose: Purpose, mut connection: Connection, number: u64, fault: &Notify) {
    loop {
        // Where an answer may take longer than this, one that is being waited for would only be asked after.
        let rung = timeout(TICK.max(inner_answer(inner)), fault.notified()).await.is_ok();
        let Some(redis) = inner.upgrade() else { return };
        let line = redis.line(purpose);
        if !matches!(*line.state.borrow(), State::Up(..)) {
            return;
        }
        if matches!(connection, Connection::Cluster(_)) {
            // It mends itself, node by node; there is no one server to ask.
            continue;
        }
        let ping = ::redis::cmd("PING");
        let answer = timeout(redis.settings.answer, connection.req_packed_command(&ping))
            .await
            .unwrap_or_else(|_| Err(too_slow()));
        if let Err(error) = answer {
            redis.metrics.count_error(purpose);
            take_down(line, number, purpose, &error);
            return;
        }
        // The other end hung up and yet it answers: the bell was meant for its predecessor.
        tracing::trace!(rung, purpose = purpose.name(), "Redis answers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_the_seeds_and_in_a_cluster_share_their_tenants_slot() {
        let alone = Redis::new(RedisSettings::new("127.0.0.1", 1));
        let cluster = Redis::new(RedisSettings { mode: RedisMode::Cluster, ..RedisSettings::new("127.0.0.1", 1) });
        let tenant = Uuid::from_u128(7);
        assert_eq!(alone.key(Purpose::Cache, tenant, "dashboard"), format!("tenant:{tenant}:dashboard"));
        assert_eq!(alone.queue_key("tenant-7"), "tenant-7");
        let keys = [
            cluster.key(Purpose::Cache, tenant, "dashboard"),
            cluster.key(Purpose::Sessions, tenant, "dashboard"),
            cluster.key(Purpose::Default, tenant, "dashboard"),
        ];
        assert_eq!(keys[0], format!("cache:{{tenant:{tenant}}}:dashboard"));
        assert_eq!(keys[1], format!("sess:{{tenant:{tenant}}}:dashboard"));
        assert_eq!(keys[2], format!("{{tenant:{tenant}}}:dashboard"));
        assert!(keys.iter().all(|key| slot::of(key.as_bytes()) == slot::of(keys[0].as_bytes())));
        assert_eq!(cluster.queue_key("tenant-7"), "{tenant-7}");
    }

    #[tokio::test]
    async fn a_redis_that_was_never_there_is_refused_at_once_after_the_first_attempt() {
        let redis = Redis::new(RedisSettings::new("127.0.0.1", 1));
        let get = ::redis::cmd("GET").arg("key").to_owned();
        assert!(redis.query::<Value>(Purpose::Cache, &get).await.is_err());
        let begun = Instant::now();
        for _ in 0..100 {
            assert!(redis.query::<Value>(Purpose::Cache, &get).await.is_err());
        }
        assert!(begun.elapsed() < ANSWER, "a hundred requests together wait less than one answer may take");
        assert!(!redis.is_up(Purpose::Cache));
    }

    #[test]
    fn the_password_is_in_no_debug_output() {
        let settings = RedisSettings { password: Some("hunter2".into()), ..RedisSettings::new("127.0.0.1", 1) };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
