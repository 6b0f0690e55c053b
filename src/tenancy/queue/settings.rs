//! How a worker works.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::balance::Balance;

/// How a worker works. The names and defaults are Horizon's where it has one.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// Its own among all workers, also those of a former life.
    pub name: String,
    /// The one tenant that it serves; None: it is of the shared pool.
    pub tenant: Option<Uuid>,
    /// How many at once.
    pub balance: Balance,
    /// Attempts at a job.
    pub tries: u32,
    /// Longest attempt.
    pub timeout: Duration,
    /// Resident memory in bytes from which on it takes no more jobs, ends those it has and returns. None: without limit.
    pub memory: Option<u64>,
    /// How long a job is its own without being renewed, which happens three times as often.
    pub lease: Duration,
    /// How long a tenant has to be routed nowhere before its jobs are given up.
    pub gone: Duration,
    /// Whether what is known of routing can be relied on: otherwise nobody counts as gone.
    pub trust: Trust,
}

/// Whether what is known of routing can be relied on right now.
#[derive(Clone, Default)]
pub struct Trust(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Trust {
    /// As `is_good` says.
    pub fn of(is_good: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_good)))
    }

    pub(super) fn is_good(&self) -> bool {
        self.0.as_ref().is_none_or(|is_good| is_good())
    }
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_some() { "Trust::of(…)" } else { "Trust::default()" })
    }
}

impl Default for WorkerSettings {
    fn default() -> Self {
        Self {
            name: format!("worker-{}", Uuid::new_v4()),
            tenant: None,
            balance: Balance::default(),
            tries: 3,
            timeout: Duration::from_secs(60),
            memory: Some(128 << 20),
            lease: Duration::from_secs(30),
            gone: Duration::from_secs(60),
            trust: Trust::default(),
        }
    }
}
