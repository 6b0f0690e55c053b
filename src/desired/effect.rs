//! Everything that the operator may do for one Tenant, as values.

use std::collections::BTreeMap;

use crate::api::condition::Reason;
use crate::api::pooler::PoolerEntry;
use crate::api::routing::RoutingEntry;

use super::sql::Batch;
use super::worker_objects::WorkerObjects;

/// One write. Each is idempotent, or fails when it was done already and is decided anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Holds the Tenant object until its teardown is done.
    AddFinalizer,
    /// Lets the Tenant object go.
    RemoveFinalizer,
    /// Writes the object into the ledger: mints or finds its uuid, or is refused.
    Register {
        /// Puts a tenant that is minted on this server at once, if that has plenty of room.
        server: Option<String>,
    },
    /// Puts the tenant on a server in the ledger, if that has room.
    Place {
        /// The server.
        server: String,
    },
    /// Runs statements on the tenant's server.
    Sql {
        /// The server.
        server: String,
        /// The statements.
        batch: Batch,
    },
    /// Clones the template into one more warm database.
    Clone {
        /// The server.
        server: String,
    },
    /// Notes in the ledger that a database was made.
    MarkProvisioned {
        /// Its schema.
        schema: String,
    },
    /// Writes the pooler entry.
    PublishPooler {
        /// The server.
        server: String,
        /// The entry.
        entry: PoolerEntry,
    },
    /// Takes the pooler entry out.
    WithdrawPooler {
        /// The server.
        server: String,
    },
    /// Writes the routing entry.
    PublishRouting {
        /// The entry.
        entry: Box<RoutingEntry>,
    },
    /// Takes the routing entry out.
    WithdrawRouting,
    /// Writes the binding Secret.
    WriteBinding {
        /// Its keys.
        data: BTreeMap<String, String>,
        /// Their hash.
        hash: String,
    },
    /// Signs a link for the tenant's first user and writes it into the welcome Secret.
    WriteWelcome {
        /// The host that the link leads to.
        host: String,
        /// Hash of what the Secret is for.
        hash: String,
    },
    /// Writes the objects of the tenant's own workers.
    ApplyWorkers {
        /// The objects.
        objects: Box<WorkerObjects>,
        /// Their hash, noted when all of them are written.
        hash: String,
    },
    /// Removes the tenant's own workers.
    DeleteWorkers {
        /// Name of their objects.
        name: String,
    },
    /// Has a last backup of the tenant taken and restored in a rehearsal, by a Job.
    LastBackup {
        /// Name of the Job.
        job: String,
    },
    /// Notes in the ledger that the object is gone and its data kept, or that there never was any.
    Release {
        /// Whether the database is on its server.
        database: DatabaseSeen,
    },
    /// Notes in the ledger that the object is gone and its data waits to be dropped; held by the breaker.
    Quarantine {
        /// How long, in seconds.
        seconds: i64,
        /// The breaker was told to let this one pass.
        confirmed: bool,
    },
}

/// What was seen of a tenant's database when its object was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseSeen {
    /// It is on its server.
    Present,
    /// The server was read and it is not there, or the tenant has no server.
    Absent,
    /// The server could not be read.
    Unknown,
}

impl Effect {
    /// Its kind, as a label of a metric.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::AddFinalizer => "add_finalizer",
            Self::RemoveFinalizer => "remove_finalizer",
            Self::Register { .. } => "register",
            Self::Place { .. } => "place",
            Self::Sql { .. } => "sql",
            Self::Clone { .. } => "clone",
            Self::MarkProvisioned { .. } => "mark_provisioned",
            Self::PublishPooler { .. } => "publish_pooler",
            Self::WithdrawPooler { .. } => "withdraw_pooler",
            Self::PublishRouting { .. } => "publish_routing",
            Self::WithdrawRouting => "withdraw_routing",
            Self::WriteBinding { .. } => "write_binding",
            Self::WriteWelcome { .. } => "write_welcome",
            Self::ApplyWorkers { .. } => "apply_workers",
            Self::DeleteWorkers { .. } => "delete_workers",
            Self::LastBackup { .. } => "last_backup",
            Self::Release { .. } => "release",
            Self::Quarantine { .. } => "quarantine",
        }
    }

    /// What it does, for logs, errors and audit; without secrets.
    pub fn summary(&self) -> String {
        match self {
            Self::Sql { server, batch } => format!("on {server}: {}", batch.summary()),
            Self::Place { server } => format!("place on {server}"),
            Self::Clone { server } => format!("clone the template on {server}"),
            Self::AddFinalizer => "add the finalizer".into(),
            Self::RemoveFinalizer => "remove the finalizer".into(),
            Self::Register { .. } => "register in the ledger".into(),
            Self::MarkProvisioned { .. } => "mark as provisioned in the ledger".into(),
            Self::PublishPooler { .. } => "publish the pooler entry".into(),
            Self::WithdrawPooler { .. } => "withdraw the pooler entry".into(),
            Self::PublishRouting { .. } => "publish the routing entry".into(),
            Self::WithdrawRouting => "withdraw the routing entry".into(),
            Self::WriteBinding { .. } => "write the binding Secret".into(),
            Self::WriteWelcome { .. } => "write the welcome Secret".into(),
            Self::ApplyWorkers { objects, .. } => format!("write Deployment {}", objects.name),
            Self::DeleteWorkers { name } => format!("delete Deployment {name}"),
            Self::LastBackup { job } => format!("create Job {job}"),
            Self::Release { .. } => "release in the ledger".into(),
            Self::Quarantine { .. } => "begin the quarantine in the ledger".into(),
        }
    }
}

/// How a part stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should be; what there is to say of it.
    Ready(String),
    /// On its way by itself.
    Progressing(Reason, String),
    /// Needs somebody.
    Blocked(Reason, String),
}

impl Health {
    /// As it should be.
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready(_))
    }
}

/// What a part wants done next, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartPlan {
    /// To be done now, in order. Empty: nothing to do now.
    pub effects: Vec<Effect>,
    /// How it stands before they are done.
    pub health: Health,
}

impl PartPlan {
    /// As it should be.
    pub fn ready(message: impl Into<String>) -> Self {
        Self { effects: Vec::new(), health: Health::Ready(message.into()) }
    }

    /// Waits for something that comes by itself.
    pub fn wait(reason: Reason, message: impl Into<String>) -> Self {
        Self { effects: Vec::new(), health: Health::Progressing(reason, message.into()) }
    }

    /// Needs somebody.
    pub fn blocked(reason: Reason, message: impl Into<String>) -> Self {
        Self { effects: Vec::new(), health: Health::Blocked(reason, message.into()) }
    }

    /// Does something.
    pub fn act(effects: Vec<Effect>, message: impl Into<String>) -> Self {
        Self { effects, health: Health::Progressing(Reason::Provisioning, message.into()) }
    }
}
