//! Condition types and reasons: stable API, listed here and in the README.

/// Types of conditions on a Tenant, DatabaseServer or Plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// What is asked for is in place (kstatus). Written last.
    Ready,
    /// Work is under way (kstatus).
    Reconciling,
    /// Work cannot go on without a change by somebody (kstatus).
    Stalled,
    /// The ledger holds the tenant's identity.
    Registered,
    /// The database and its logins are there.
    DatabaseReady,
    /// The app's migrations are applied.
    SchemaCurrent,
    /// The first data is in place.
    Seeded,
    /// Every pooler serves the entry.
    PoolReady,
    /// Every app endpoint routes the hosts.
    RouteReady,
    /// The customer's own hosts are proved.
    DomainsVerified,
    /// Somebody drains the queue: the shared pool, or workers of the tenant's own.
    WorkersReady,
    /// The newest backup is young enough.
    BackupFresh,
    /// The newest backup was restored in a rehearsal.
    RestoreVerified,
    /// The subscription or trial runs.
    SubscriptionActive,
    /// Customers are served.
    Serving,
    /// On a DatabaseServer: no database lets PUBLIC connect.
    Isolated,
}

impl ConditionType {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Registered => "Registered",
            Self::DatabaseReady => "DatabaseReady",
            Self::SchemaCurrent => "SchemaCurrent",
            Self::Seeded => "Seeded",
            Self::PoolReady => "PoolReady",
            Self::RouteReady => "RouteReady",
            Self::DomainsVerified => "DomainsVerified",
            Self::WorkersReady => "WorkersReady",
            Self::BackupFresh => "BackupFresh",
            Self::RestoreVerified => "RestoreVerified",
            Self::SubscriptionActive => "SubscriptionActive",
            Self::Serving => "Serving",
            Self::Isolated => "Isolated",
        }
    }
}

macro_rules! reasons {
    ($(#[doc = $doc:literal] $name:ident),* $(,)?) => {
        /// Reasons of conditions. Stable API: a name is never reused for something else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $(#[doc = $doc] $name),* }
        impl Reason {
            /// Every reason, for the README and its test.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            /// The name in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
            /// What it means, for people.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc.trim()),* }
            }
        }
    };
}

reasons! {
    /// In place and served.
    Active,
    /// In place; customers get a neutral page because `spec.state` says so.
    Suspended,
    /// In place; the trial or the subscription is over and customers reach sign-in and billing pages only.
    TrialExpired,
    /// In place and served; writes are refused because `spec.state` says so.
    ReadOnly,
    /// In place and asleep; the first request wakes it.
    Hibernated,
    /// Being made; nothing to do but wait.
    Provisioning,
    /// A schema migration is running.
    Migrating,
    /// A restore is running.
    Restoring,
    /// The data is being moved to another server.
    Moving,
    /// Another Tenant, or data kept from one, has the slug.
    SlugConflict,
    /// Another Tenant has the host.
    DomainConflict,
    /// `spec.planRef` names no Plan.
    PlanNotFound,
    /// The Plan is not sold any more and the Tenant is new.
    PlanInactive,
    /// `spec.database.serverRef` names no DatabaseServer, or there is none.
    ServerNotFound,
    /// The server, or every server, is full.
    CapacityExceeded,
    /// The database server, or the central database, cannot be reached.
    DatabaseUnreachable,
    /// The database that the ledger names is not on its server; nothing is made in its place.
    DataMissing,
    /// The server refuses the operator's login or rights.
    PermissionDenied,
    /// A schema migration failed.
    MigrationFailed,
    /// A limit of the plan is exceeded.
    QuotaExceeded,
    /// A host's ownership is not proved yet.
    DomainUnverified,
    /// A certificate is being issued.
    CertificatePending,
    /// The newest backup is too old.
    BackupOverdue,
    /// A backup, or its restore, failed; the message says why.
    BackupFailed,
    /// A backup did not restore in a rehearsal, or none was rehearsed in time.
    RestoreUnverified,
    /// Being deleted; nothing to do but wait.
    Deleting,
    /// The delete is held; the message says by what.
    DeletionBlocked,
    /// No app endpoint is ready.
    NoReaders,
    /// None of the workers of the tenant's own is available; the shared pool does its jobs.
    NoWorkers,
    /// The ledger has no row for a uuid that was given out.
    LedgerLost,
    /// An object of that name exists and is not ours.
    Conflict,
    /// The object cannot be used as it is written; the message says where.
    InvalidSpec,
    /// A SchemaRollout begins no further tenant until `spec.paused` is false.
    Paused,
    /// A SchemaRollout was ended by `spec.aborted`.
    Aborted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_reason_as_the_code_explains_it() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        for reason in Reason::ALL {
            let row = format!("| `{}` | {} |", reason.as_str(), reason.meaning());
            assert!(readme.contains(&row), "README.md lacks the row: {row}");
        }
    }
}
