//! The leases that a worker holds, and renews for as long as it works.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::watch;

use super::run::Certain;
use super::store::Store;

/// What of a lease is relied on; the rest is for the job to be stopped.
const RELIED_ON: f64 = 0.8;

/// All leases of a worker.
pub(super) struct Leases {
    lease: Duration,
    /// By token and job: a job that is leased a second time, also to this worker, has another token.
    held: Mutex<HashMap<Name, Held>>,
}

/// Token and job.
type Name = (String, String);

struct Held {
    store: Store,
    /// Until when it is certain that nobody else has it.
    certain: watch::Sender<Instant>,
}

/// A lease that is renewed for as long as this lives, also where who holds it panics: one that is renewed for ever would
/// keep the job from everybody.
pub(super) struct Holding<'l> {
    leases: &'l Leases,
    name: Name,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.name);
    }
}

impl Leases {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, held: Mutex::default() }
    }

    /// Until when a lease is certainly ours that is asked for now. Taken before it is asked for: it begins later than this.
    pub(super) fn certain(&self) -> Instant {
        Instant::now() + self.lease.mul_f64(RELIED_ON)
    }

    /// Renews a lease from now on, and says until when it is certain.
    pub(super) fn hold(&self, token: &str, job: &str, store: &Store, certain: Instant) -> (Holding<'_>, Certain) {
        let (renewed, certain) = watch::channel(certain);
        let name = (token.to_owned(), job.to_owned());
        self.lock().insert(name.clone(), Held { store: store.clone(), certain: renewed });
        (Holding { leases: self, name }, certain)
    }

    /// Renews every lease, three times as often as it runs out, for ever.
    pub(super) async fn renew(&self) {
        loop {
            tokio::time::sleep(self.lease / 3).await;
            let mut tokens: HashMap<String, (Store, Vec<String>)> = HashMap::new();
            for ((token, job), held) in &*self.lock() {
                let (_, jobs) = tokens.entry(token.clone()).or_insert_with(|| (held.store.clone(), vec![]));
                jobs.push(job.clone());
            }
            join_all(tokens.iter().map(|(token, (store, jobs))| self.renew_one(token, store, jobs))).await;
        }
    }

    async fn renew_one(&self, token: &str, store: &Store, jobs: &[String]) {
        let certain = self.certain();
        // What is not renewed runs out, and is stopped by then.
        let lost = match store.renew(token, self.lease, jobs).await {
            Ok(lost) => lost,
            Err(error) => return tracing::warn!(%error, "leases could not be renewed"),
        };
        let held = self.lock();
        for job in jobs {
            if let Some(held) = held.get(&(token.to_owned(), job.clone())) {
                held.certain.send_replace(if lost.contains(job) { Instant::now() } else { certain });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
