//! What every controller shares.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::core::PartialObjectMeta;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use rand::RngCore;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use super::backoff::Backoff;
use super::backup::Backups;
use super::domains::Domains;
use super::edge::Troubles;
use super::fleet::{Fleet, Wake};
use super::restores::Restores;
use super::servers::Servers;
use super::workers::Workers;
use crate::api::tenant::TenantStatus;
use crate::api::{DatabaseServer, Plan, Tenant};
use crate::apply::gate::Gate;
use crate::central::Central;
use crate::desired::facts::Attempt;
use crate::desired::scram::{self, Credential};
use crate::metrics::Metrics;
use crate::observe::ledger::Ledger;
use crate::settings::OperatorSettings;
use crate::signing::SigningKeys;

/// What every controller shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Settings.
    pub settings: OperatorSettings,
    /// The central database.
    pub central: Central,
    /// The ledger as last seen.
    pub ledger: Ledger,
    /// The database servers.
    pub servers: Servers,
    /// Routing and pooler entries.
    pub fleet: Arc<Fleet>,
    /// Every Plan.
    pub plans: Store<Plan>,
    /// Every Tenant.
    pub tenants: Store<Tenant>,
    /// Binding Secrets in each tenant namespace, without their data.
    pub bindings: Vec<(String, Store<PartialObjectMeta<Secret>>)>,
    /// Tenants' own workers.
    pub workers: Workers,
    /// What the Jobs of backups told.
    pub backups: Backups,
    /// Tenants that a restore has closed.
    pub restores: Restores,
    /// Has Tenants looked at again.
    pub wake: mpsc::UnboundedSender<Wake>,
    /// Has a DatabaseServer looked at again.
    pub wake_server: mpsc::UnboundedSender<ObjectRef<DatabaseServer>>,
    /// Has the warm pools looked at again.
    pub refill: Notify,
    /// The term of leadership.
    pub epoch: AtomicU64,
    /// What every write passes.
    pub gate: Gate,
    /// The customers' own hosts, and when their proofs are looked at.
    pub domains: Domains,
    /// What is not right at the edge.
    pub edge: Troubles,
    /// What links are signed with; known once this process leads.
    pub keys: OnceLock<SigningKeys>,
    /// Tells people what happened.
    pub events: Recorder,
    /// Counts what happens.
    pub metrics: Metrics,
    /// What is remembered of each Tenant between two visits.
    pub memory: Memory,
    /// Visits of Tenants that failed, by the object's uid.
    pub failures: Backoff<Uuid>,
    /// Visits of DatabaseServers that failed, by name.
    pub server_failures: Backoff<String>,
}

impl Context {
    /// The term of leadership.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

/// For so long the time of a status is asked for, and the watch may lag behind it.
const KEPT: Duration = Duration::from_secs(10);

/// A Secret beside a Tenant, as we wrote it.
#[derive(Clone, Debug)]
pub struct Written {
    /// The version that the write made.
    pub resource_version: Option<String>,
    /// Hash of what was written.
    pub hash: String,
    /// When.
    pub at: Instant,
}

/// What is remembered between two visits of a Tenant: nothing that could not be found again, and its absence costs a
/// write at most.
#[derive(Default)]
pub struct Memory {
    minted: Mutex<HashMap<Uuid, Credential>>,
    /// Those that take the place of the ones in use, until they are published.
    next: Mutex<HashMap<Uuid, Credential>>,
    statuses: Mutex<HashMap<Uuid, (TenantStatus, Instant)>>,
    /// By object, then by the Secret's name.
    secrets: Mutex<HashMap<Uuid, HashMap<String, Written>>>,
    begun: Mutex<HashMap<Uuid, Instant>>,
    attempts: Mutex<HashMap<Uuid, Attempt>>,
}

impl Memory {
    /// The credential of a tenant: that of `published`, its password in use, or one that is minted now and kept.
    pub fn credential(&self, uuid: Uuid, published: Option<&str>) -> Credential {
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) =
            minted.get(&uuid).filter(|known| published.is_none_or(|password| known.password == password))
        {
            return known.clone();
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let credential = match next.remove(&uuid).filter(|next| Some(next.password.as_str()) == published) {
            Some(next) => next,
            None => Credential::new(published.map_or_else(new_password, str::to_owned)),
        };
        minted.insert(uuid, credential.clone());
        credential
    }

    /// The credential that takes the place of the one in use: minted once, and kept until it is published.
    pub fn next_credential(&self, uuid: Uuid) -> Credential {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.entry(uuid).or_insert_with(|| Credential::new(new_password())).clone()
    }

    /// Forgets a tenant's credential, so that the next one has another.
    pub fn forget_credential(&self, uuid: Uuid) {
        self.minted.lock().unwrap_or_else(PoisonError::into_inner).remove(&uuid);
        self.next.lock().unwrap_or_else(PoisonError::into_inner).remove(&uuid);
    }

    /// The status that was written last for an object, as long as it is newer than `seen`, what the watch shows.
    pub fn status(&self, object: Uuid, seen: Option<&TenantStatus>) -> Option<TenantStatus> {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        let (written, at) = statuses.get(&object)?;
        if Some(written) != seen {
            return Some(written.clone());
        }
        // The watch has caught up: one copy of every status is enough, once nothing asks for its time any more.
        if at.elapsed() > KEPT {
            statuses.remove(&object);
        }
        None
    }

    /// How much of `time` is left since a status was last written for an object or, while it has none, since this was
    /// asked first; None: it has passed.
    pub fn status_rests(&self, object: Uuid, time: Duration) -> Option<Duration> {
        let written =
            self.statuses.lock().unwrap_or_else(PoisonError::into_inner).get(&object).map(|(_, written)| *written);
        let begun =
            || *self.begun.lock().unwrap_or_else(PoisonError::into_inner).entry(object).or_insert_with(Instant::now);
        time.checked_sub(written.unwrap_or_else(begun).elapsed()).filter(|left| !left.is_zero())
    }

    /// How much of `time` is left since work on an object began that was ready; None: it has passed.
    pub fn work_rests(&self, object: Uuid, time: Duration) -> Option<Duration> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = *begun.entry(object).or_insert_with(Instant::now);
        time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())
    }

    /// Nothing is left to do for an object.
    pub fn settled(&self, object: Uuid) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&object);
    }

    /// What became of the last attempt to migrate a tenant's database.
    pub fn attempt(&self, uuid: Uuid) -> Attempt {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).get(&uuid).cloned().unwrap_or_default()
    }

    /// Notes what became of an attempt to migrate a tenant's database.
    pub fn set_attempt(&self, uuid: Uuid, attempt: Attempt) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid, attempt);
    }

    /// Notes the status that was written.
    pub fn set_status(&self, object: Uuid, status: TenantStatus) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&object);
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).insert(object, (status, Instant::now()));
    }

    /// A Secret beside the Tenant, as we wrote it last.
    pub fn secret(&self, object: Uuid, name: &str) -> Option<Written> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).get(&object)?.get(name).cloned()
    }

    /// Notes what was written.
    pub fn set_secret(&self, object: Uuid, name: String, resource_version: Option<String>, hash: &str) {
        let written = Written { resource_version, hash: hash.to_owned(), at: Instant::now() };
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.entry(object).or_default().insert(name, written);
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, object: Uuid) {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&object);
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).remove(&object);
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).remove(&object);
    }
}

/// A password that nobody guesses.
pub fn new_password() -> String {
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    scram::password(random)
}
