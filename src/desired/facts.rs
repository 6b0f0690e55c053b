//! What was seen: plain values that the pure parts decide on.
//!
//! Unreachable is not absent (rule R12): a source that did not answer is [`Seen::Unreachable`], and no part takes it for
//! a reason to make or to destroy anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::api::plan::PlanSpec;
use crate::api::pooler::PoolerEntry;
use crate::api::routing::{RoutingEntry, Subscription};
use crate::api::server::DatabaseServerSpec;
use crate::api::tenant::{Tenant, TenantState, TenantStatus};

use super::catalogue::Catalogue;
use super::scram::Credential;

/// What a source answered, or that it did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// It answered.
    Known(T),
    /// It did not, or not with rights; why.
    Unreachable(String),
}

/// What the ledger says of a Tenant object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one in a visit, and it nearly always is the row")]
pub enum LedgerFact {
    /// No row yet.
    Unregistered,
    /// The row of this object.
    Row(LedgerRow),
    /// The ledger refused to register it.
    Refused(Refusal),
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// The tenant.
    pub uuid: Uuid,
    /// The object that has it; None: kept data.
    pub object_uid: Option<Uuid>,
    /// What became of the data.
    pub state: LedgerState,
    /// The server that has, or is to have, the database.
    pub server: Option<String>,
    /// The slug that belongs to the data.
    pub slug: String,
    /// The plan that the tenant has.
    pub plan: Option<String>,
    /// Schema (`<version>_<checksum>`) of the database.
    pub schema: Option<String>,
    /// The subscription.
    pub subscription: Subscription,
    /// Since when its status is what it is.
    pub subscription_since: Option<Timestamp>,
    /// Whether name, plan, state and hosts in the row are those of the object's current generation.
    pub current: bool,
}

/// What became of a tenant's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerState {
    /// No database was made yet.
    Registered,
    /// A database was made; if it is missing, nothing is made in its place.
    Provisioned,
    /// The object is gone, the data is kept.
    Retained,
    /// The object is gone, the data waits to be dropped.
    Quarantined,
    /// The data is dropped.
    Dropped,
}

/// Why the ledger refuses a Tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A live Tenant has the slug.
    SlugTaken {
        /// The slug.
        slug: String,
        /// Its namespace/name.
        holder: String,
    },
    /// Data kept from a deleted Tenant has the slug.
    SlugKept {
        /// The slug.
        slug: String,
        /// The data.
        uuid: Uuid,
    },
    /// `spec.uuid` names nothing that can be adopted; why.
    NotAdoptable {
        /// The uuid.
        uuid: Uuid,
        /// What is the matter with it.
        why: String,
    },
    /// `status.uuid` is set and the ledger has no such row.
    LedgerLost {
        /// The uuid.
        uuid: Uuid,
    },
}

/// A DatabaseServer as far as tenants are concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerFacts {
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: DatabaseServerSpec,
    /// Tenants that the ledger places on it.
    pub tenants: usize,
    /// Connections that the plans of its tenants promise them in sum.
    pub promised: i64,
    /// How many may be promised; None: it was not seen yet.
    pub budget: Option<i64>,
    /// Whether new tenants may be placed: reachable, isolated, template there; Err says why not.
    pub open: Result<(), String>,
    /// Schema of the template that is there.
    pub schema: Option<String>,
    /// How the app reaches its pooler.
    pub pooler: PoolerAddress,
}

/// How the app reaches a pooler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolerAddress {
    /// Host of the Service.
    pub host: String,
    /// Port.
    pub port: u16,
    /// libpq's mode.
    pub sslmode: String,
    /// PEM of the certificate authority.
    pub ca: String,
}

/// What the fleet's slices hold of one tenant, and who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<T> {
    /// The entry in the slice, or on its way there.
    pub entry: Option<T>,
    /// Who serves that, or its absence.
    pub reach: Reach,
}

/// Who serves the newest state of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every ready endpoint, at least one.
    All,
    /// There is no ready endpoint.
    NoReaders,
    /// Not all yet.
    Behind {
        /// Names of the endpoints that are behind.
        readers: Vec<String>,
        /// For how long it has been waited.
        waited: Duration,
    },
}

/// How long a reader is waited for before it is only named.
pub const PATIENCE: Duration = Duration::from_secs(30);

impl Reach {
    /// Somebody has to be waited for: whoever is behind serves what was there before.
    pub fn is_behind(&self) -> bool {
        matches!(self, Self::Behind { .. }) && !self.is_settled()
    }

    /// Nobody has to be waited for any more.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::All => true,
            Self::NoReaders => false,
            Self::Behind { waited, .. } => *waited >= PATIENCE,
        }
    }
}

/// What became of the last attempt to migrate a tenant's database, as far as this process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Attempt {
    /// It was made by an earlier process, or there was none: what the status says stands.
    #[default]
    Unknown,
    /// It went well, or does not count any more.
    Clean,
    /// It failed; why.
    Failed(String),
}

/// A Secret beside the Tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFact {
    /// Controlled by this very Tenant object.
    pub ours: bool,
    /// Desired hash noted on it; None also when it was changed after we wrote it.
    pub hash: Option<String>,
}

/// A database that says on its server that it is this very object's, although the ledger has no row for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedData {
    /// The server.
    pub server: String,
    /// Its schema.
    pub schema: String,
}

/// Whose a host is, by the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// Nobody's yet.
    #[default]
    Nobody,
    /// This tenant's.
    Ours {
        /// Its ownership was proved.
        verified: bool,
        /// Since when the proof of a verified host is missing.
        lost_since: Option<Timestamp>,
    },
    /// Another tenant's, or kept data's.
    Others {
        /// It was proved: else whoever proves it takes it.
        proved: bool,
    },
}

/// What the last look for the proof of a host has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// There was none yet.
    #[default]
    NotYet,
    /// There is no record.
    Absent,
    /// There is a record with another value.
    Other,
    /// The name servers did not answer; why.
    Silent(String),
}

/// What is not right at the edge with a host that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeTrouble {
    /// Nobody has looked yet.
    NotYet,
    /// Its certificate is not there yet.
    NoCertificate {
        /// The Secret that it is awaited in.
        secret: String,
    },
    /// The Gateway takes no more listeners.
    NoRoom {
        /// So many are the most.
        most: usize,
    },
    /// Its objects could not be written; why.
    Failed(String),
}

/// One of the hosts that a Tenant asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DomainFact {
    /// Values of the TXT record that prove it; the first is shown, others are of keys that are being replaced.
    pub values: Vec<String>,
    /// Whose it is.
    pub claim: Claim,
    /// What was seen last.
    pub look: Look,
    /// What is not right at the edge.
    pub edge: Option<EdgeTrouble>,
}

/// The Job of the last backup before a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LastJob {
    /// There is none, and one may be made.
    #[default]
    Absent,
    /// There is none, and as many of other tenants run on the server as may.
    NotYet,
    /// It runs.
    Running,
    /// It has ended well.
    Succeeded,
    /// It has given up, for this reason.
    Failed(String),
    /// The API server does not say.
    Unknown(String),
}

/// What is seen of a tenant's own workers, and what they are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkersFacts {
    /// Pod template of the shared pool's Deployment; None: there are no workers.
    pub template: Option<Arc<serde_json::Value>>,
    /// Their Deployment.
    pub deployment: Option<DeploymentFact>,
    /// The cluster has KEDA's ScaledObjects.
    pub keda: bool,
}

/// The Deployment of a tenant's own workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentFact {
    /// Hash of all their objects, noted on it when each of them was written.
    pub hash: Option<String>,
    /// Pods that are asked for, by us or by the autoscaler.
    pub replicas: i32,
    /// Pods that are available.
    pub available: i32,
    /// Where none is available: since when.
    pub since: Timestamp,
}

/// Everything that is seen of one Tenant.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The object.
    pub tenant: Tenant,
    /// The time.
    pub now: Timestamp,
    /// Term of leadership.
    pub epoch: u64,
    /// Hosts are `<slug>.<base domain>`.
    pub base_domain: String,
    /// Host of the admin portal.
    pub admin_host: Option<String>,
    /// The hosts of `spec.domains`.
    pub domains: BTreeMap<String, DomainFact>,
    /// How long a host is served after its proof has gone.
    pub domain_grace: SignedDuration,
    /// Whether the object's namespace is one of those that are served.
    pub namespace_served: bool,
    /// Name of the Plan that counts, see [`super::plan::effective`].
    pub plan_name: String,
    /// What it says; None: there is no such Plan.
    pub plan: Option<PlanSpec>,
    /// The ledger's word.
    pub ledger: Seen<LedgerFact>,
    /// Of a uuid that the ledger lost: where its database lies, when every server was seen and exactly one has it.
    pub marked: Option<MarkedData>,
    /// Every DatabaseServer.
    pub servers: Vec<ServerFacts>,
    /// The tenant's part of the catalogue of the server that the ledger names.
    pub catalogue: Seen<Catalogue>,
    /// A warm database on that server, reserved for this tenant.
    pub warm: Option<String>,
    /// The password in use, or the one to be used.
    pub credential: Credential,
    /// The one after it, where a rotation is due.
    pub next: Option<Credential>,
    /// How long a login is kept after the other has taken its place.
    pub overlap: SignedDuration,
    /// A restored database is taking the place of its own: nobody is served meanwhile, and the database is the restore's.
    pub restoring: bool,
    /// Of a tenant that hibernates: until when it is awake because somebody asked for it.
    pub awake_until: Option<Timestamp>,
    /// What the Jobs of its backups told; None: there are no backups here.
    pub backup: Option<super::backup::Heard>,
    /// The Job of the last backup before its delete, looked for while one is asked for.
    pub last_job: LastJob,
    /// What became of the last attempt to migrate its database.
    pub attempt: Attempt,
    /// Sessions in the tenant's database, asked when its limit is to shrink.
    pub sessions: Option<i64>,
    /// The pooler entry.
    pub pooler: Published<PoolerEntry>,
    /// The routing entry.
    pub routing: Published<RoutingEntry>,
    /// The binding Secret.
    pub binding: Seen<Option<SecretFact>>,
    /// The welcome Secret.
    pub welcome: Seen<Option<SecretFact>>,
    /// Its own workers.
    pub workers: WorkersFacts,
}

impl Facts {
    /// What customers get now: what is asked for, but that a hibernated tenant is served while it is awake, and that nobody is
    /// while a restored database takes the place of the tenant's.
    pub fn state(&self) -> TenantState {
        match self.tenant.spec.state {
            TenantState::Suspended => TenantState::Suspended,
            _ if self.restoring => TenantState::Hibernated,
            TenantState::Hibernated if self.awake_until.is_some_and(|until| self.now < until) => TenantState::Active,
            state => state,
        }
    }

    /// The host under the base domain.
    pub fn host(&self, slug: &str) -> String {
        format!("{slug}.{}", self.base_domain)
    }

    /// The status as it is stored.
    pub fn status(&self) -> TenantStatus {
        self.tenant.status.clone().unwrap_or_default()
    }

    /// The row, when the ledger has one for this object.
    pub fn row(&self) -> Option<&LedgerRow> {
        match &self.ledger {
            Seen::Known(LedgerFact::Row(row)) => Some(row),
            _ => None,
        }
    }

    /// The server that the ledger names.
    pub fn server(&self) -> Option<&ServerFacts> {
        let name = self.row()?.server.as_ref()?;
        self.servers.iter().find(|server| server.name == *name)
    }
}
