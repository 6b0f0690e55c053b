//! What every page has at hand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::cluster::Cluster;
use super::directory::Directory;
use super::sealed::SealingKeys;
use crate::central::{AuditEntry, Central, CentralError, Lifetimes, SessionRow};
use crate::passwords::Passwords;
use crate::web::host::HostResolver;

/// How long somebody who was signed in may go on looking while the central database does not answer.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(15);
/// Sessions that are remembered for that.
const SESSIONS: usize = 1_000;
/// Pages do not wait for the central database for longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// After a session could not be looked up, nobody waits for the central database for so long.
const AWAY: Duration = Duration::from_secs(5);

/// What the portal is told at its start.
pub struct Config {
    /// The one host that it answers for.
    pub host: String,
    /// Hosts of tenants are `<slug>.<base domain>`.
    pub base_domain: String,
    /// Namespaces in which it makes and changes Tenants.
    pub namespaces: Vec<String>,
    /// Whose forwarded headers are believed.
    pub hosts: HostResolver,
    /// The cookie is sent over TLS alone.
    pub secure: bool,
    /// How long sessions live.
    pub lifetimes: Lifetimes,
}

/// What time it is; tests move it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    /// Now.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
            .saturating_add(SignedDuration::from_secs(self.0.load(Ordering::Relaxed)))
            .unwrap_or(Timestamp::MAX)
    }

    /// From now on it is `seconds` later.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

/// What every page has at hand. Cheap to clone.
#[derive(Clone)]
pub struct Portal(Arc<Inner>);

struct Inner {
    config: Config,
    central: Central,
    cluster: Cluster,
    directory: Directory,
    keys: SealingKeys,
    passwords: Passwords,
    clock: Clock,
    remembered: Mutex<HashMap<Vec<u8>, (Timestamp, SessionRow)>>,
    /// When the central database did not answer last.
    away: Mutex<Option<Instant>>,
}

impl Portal {
    /// From its parts.
    pub fn new(
        config: Config,
        central: Central,
        cluster: Cluster,
        directory: Directory,
        keys: SealingKeys,
        clock: Clock,
    ) -> Self {
        let (passwords, remembered, away) = (Passwords::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { config, central, cluster, directory, keys, passwords, clock, remembered, away }))
    }

    /// What it was told at its start.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The central database.
    pub fn central(&self) -> &Central {
        &self.0.central
    }

    /// The Kubernetes API.
    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    /// What the cluster has, from memory.
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// What second factors are encrypted with.
    pub fn keys(&self) -> &SealingKeys {
        &self.0.keys
    }

    /// Hashes and compares passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// A call of the central database that a page waits for.
    pub async fn patiently<T>(
        &self,
        call: impl Future<Output = Result<T, CentralError>>,
    ) -> Result<T, super::problem::Problem> {
        let away = *self.0.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away.is_some_and(|since| since.elapsed() < AWAY) {
            return Err(super::problem::Problem::CentralAway);
        }
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(super::problem::Problem::CentralAway),
        }
    }

    /// A session could not be looked up: others are told at once for a while, instead of waiting too.
    pub fn note_away(&self) {
        let mut away = self.0.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away.is_none_or(|since| since.elapsed() >= AWAY) {
            *away = Some(Instant::now());
        }
    }

    /// Writes to the audit trail.
    pub async fn note(&self, entry: &AuditEntry) -> Result<(), super::problem::Problem> {
        self.patiently(self.central().audit(entry)).await
    }

    /// Remembers a session that the central database knew just now, or forgets it.
    pub fn remember(&self, hash: &[u8], session: Option<&SessionRow>) {
        let mut remembered = self.remembered();
        match session.filter(|session| session.full) {
            Some(session) => {
                if remembered.len() >= SESSIONS {
                    let now = self.now();
                    remembered.retain(|_, (at, _)| now.duration_since(*at) < REMEMBERED);
                }
                if remembered.len() < SESSIONS {
                    remembered.insert(hash.to_vec(), (self.now(), session.clone()));
                }
            }
            None => drop(remembered.remove(hash)),
        }
    }

    /// A session that the central database knew a short while ago, for when it does not answer.
    pub fn recall(&self, hash: &[u8]) -> Option<SessionRow> {
        let (at, session) = self.remembered().get(hash).cloned()?;
        (self.now().duration_since(at) < REMEMBERED).then_some(session)
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<Vec<u8>, (Timestamp, SessionRow)>> {
        self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
