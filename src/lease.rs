//! Leadership: one operator at a time, by a Lease.
//!
//! Time is measured by this process's own monotonic clock from the moment it saw a renewal; what the holder wrote as the
//! time is never compared with anything, so that clocks that differ do no harm. A Lease alone is no mutual exclusion
//! (a process can sleep through the loss of it): servers are fenced as well, see `controller::servers`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::error::chain;

/// How long a Lease holds after it was renewed.
const DURATION: Duration = Duration::from_secs(15);
/// After this long without a renewal the holder stops by itself, well before anybody else may begin.
const DEADLINE: Duration = Duration::from_secs(10);
/// One attempt: an answer that does not come must not take the time of all that are left.
const ATTEMPT: Duration = Duration::from_secs(3);
/// Between two attempts.
const INTERVAL: Duration = Duration::from_secs(2);

/// What was seen of the Lease, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Who holds it; empty: released.
    pub holder: String,
    /// Changes with every renewal.
    pub resource_version: String,
    /// How often it changed hands.
    pub transitions: i32,
    /// When this version was first seen, by our own clock.
    pub seen: Instant,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Make it, or take it over.
    Take,
    /// Renew it.
    Renew,
    /// Somebody else holds it.
    Wait,
}

/// Decides what to do about a Lease. Pure.
pub fn evaluate(identity: &str, observed: Option<&Observed>, now: Instant) -> Decision {
    match observed {
        None => Decision::Take,
        Some(observed) if observed.holder == identity => Decision::Renew,
        Some(observed) if observed.holder.is_empty() => Decision::Take,
        Some(observed) if now.saturating_duration_since(observed.seen) >= DURATION => Decision::Take,
        Some(_) => Decision::Wait,
    }
}

/// A Lease that is held, or wanted.
pub struct Leadership {
    leases: Api<Lease>,
    name: String,
    identity: String,
    observed: Option<Observed>,
    stored: Option<Lease>,
}

impl Leadership {
    /// Nothing is asked yet. `identity` has to be this process's own.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { leases: Api::namespaced(client, namespace), name: name.into(), identity, observed: None, stored: None }
    }

    /// Waits until the Lease is ours; None: `stop` came first. Returns how often it has changed hands: the term.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> Option<u64> {
        loop {
            match self.attempt().await {
                Ok(true) => {
                    return Some(
                        self.observed
                            .as_ref()
                            .map_or(0, |observed| u64::try_from(observed.transitions).unwrap_or_default()),
                    );
                }
                Ok(false) => {}
                Err(error) => tracing::warn!(error = chain(&error), "could not take the Lease, trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Renews until `stop`, then releases. Returns Err when the Lease is lost: the process has to end at once.
    ///
    /// # Errors
    /// Somebody else holds the Lease, or it could not be renewed in time.
    pub async fn hold(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = stop.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
            }
            match tokio::time::timeout(ATTEMPT.min(DEADLINE.saturating_sub(renewed.elapsed())), self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => anyhow::bail!(
                    "the Lease {} is held by {}",
                    self.name,
                    self.observed.as_ref().map_or("nobody", |observed| &observed.holder)
                ),
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "could not renew the Lease, trying again"),
                Err(_) => {}
            }
            anyhow::ensure!(
                renewed.elapsed() < DEADLINE,
                "the Lease {} could not be renewed for {DEADLINE:?}",
                self.name
            );
        }
    }

    /// One look and, where it is due, one write. Whether the Lease is ours now.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        self.look().await?;
        let decision = evaluate(&self.identity, self.observed.as_ref(), Instant::now());
        if decision == Decision::Wait {
            return Ok(false);
        }
        let lease = self.written(decision);
        let written = match &self.stored {
            None => self.leases.create(&PostParams::default(), &lease).await,
            Some(_) => self.leases.replace(&self.name, &PostParams::default(), &lease).await,
        };
        match written {
            Ok(lease) => {
                self.note(Some(lease));
                Ok(true)
            }
            // Somebody else was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        let found = self.leases.get_opt(&self.name).await?;
        self.note(found);
        Ok(())
    }

    fn note(&mut self, lease: Option<Lease>) {
        let before = self.observed.take();
        self.observed = lease.as_ref().map(|lease| {
            let spec = lease.spec.clone().unwrap_or_default();
            let resource_version = lease.resource_version().unwrap_or_default();
            let seen = before
                .filter(|before| before.resource_version == resource_version)
                .map_or_else(Instant::now, |before| before.seen);
            Observed {
                holder: spec.holder_identity.unwrap_or_default(),
                resource_version,
                transitions: spec.lease_transitions.unwrap_or_default(),
                seen,
            }
        });
        self.stored = lease;
    }

    fn written(&self, decision: Decision) -> Lease {
        let mut lease = self.stored.clone().unwrap_or_default();
        lease.metadata.name = Some(self.name.clone());
        lease.metadata.managed_fields = None;
        let now = Some(MicroTime(Timestamp::now()));
        let before = lease.spec.take().unwrap_or_default();
        let (acquired, transitions) = match decision {
            Decision::Renew => (before.acquire_time, before.lease_transitions),
            _ => (now.clone(), Some(before.lease_transitions.unwrap_or_default() + 1)),
        };
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: acquired,
            renew_time: now,
            lease_transitions: transitions,
            ..before
        });
        lease
    }

    /// Lets the next one begin at once.
    async fn release(&mut self) {
        let Some(mut lease) = self.stored.clone() else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
        }
        lease.metadata.managed_fields = None;
        if let Err(error) = self.leases.replace(&self.name, &PostParams::default(), &lease).await {
            tracing::warn!(error = chain(&error), "could not release the Lease; the next operator waits for its end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(holder: &str, seen: Instant) -> Observed {
        Observed { holder: holder.into(), resource_version: "7".into(), transitions: 3, seen }
    }

    #[test]
    fn a_lease_is_taken_when_there_is_none_or_it_was_released_or_not_renewed_in_time() {
        let now = Instant::now();
        assert_eq!(evaluate("me", None, now), Decision::Take);
        assert_eq!(evaluate("me", Some(&observed("", now)), now), Decision::Take);
        assert_eq!(evaluate("me", Some(&observed("other", now)), now + DURATION), Decision::Take);
        assert_eq!(
            evaluate("me", Some(&observed("other", now)), now + DURATION - Duration::from_millis(1)),
            Decision::Wait
        );
        assert_eq!(evaluate("me", Some(&observed("me", now)), now + DURATION * 2), Decision::Renew);
    }

    #[test]
    fn the_holder_stops_before_anybody_else_may_begin() {
        assert!(DEADLINE + INTERVAL < DURATION);
    }
}
