//! What can go wrong, by what the operator does about it.

use std::fmt::Display;
use std::path::PathBuf;

use uuid::Uuid;

use super::LedgerState;

/// A failure of the central database.
#[derive(Debug, thiserror::Error)]
pub enum CentralError {
    /// It does not answer, or not in time; try again.
    #[error("could not {doing}: the central database does not answer")]
    Unreachable {
        /// What for.
        doing: String,
        /// Why; none when the time ran out.
        source: Option<sqlx::Error>,
    },
    /// It refuses the operator's login or rights; somebody has to change something.
    #[error("could not {doing}: the central database refuses the operator's login or rights")]
    Denied {
        /// What for.
        doing: String,
        /// Why.
        source: sqlx::Error,
    },
    /// It refuses the statement.
    #[error("could not {doing}: the central database refuses the statement")]
    Query {
        /// What for.
        doing: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The ledger has no such row, or not in a state in which this can be done.
    #[error("could not {doing}: the ledger has tenant {uuid} {}", state.map_or("not at all".to_owned(), |state| format!("as {state}")))]
    Refused {
        /// What for.
        doing: String,
        /// Which tenant.
        uuid: Uuid,
        /// What the row is in; none without a row.
        state: Option<LedgerState>,
    },
    /// The connection URL cannot be used.
    #[error("could not read the URL of the central database")]
    Url {
        /// Why.
        source: sqlx::Error,
    },
    /// The CA file cannot be read.
    #[error("could not read the central database's CA file {}", path.display())]
    Authority {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl CentralError {
    pub(super) fn url(source: sqlx::Error) -> Self {
        Self::Url { source }
    }

    pub(super) fn timeout(doing: impl Display) -> Self {
        Self::Unreachable { doing: doing.to_string(), source: None }
    }

    pub(super) fn classify(doing: impl Display, source: sqlx::Error) -> Self {
        let doing = doing.to_string();
        match class(&source) {
            Class::Unreachable => Self::Unreachable { doing, source: Some(source) },
            Class::Denied => Self::Denied { doing, source },
            Class::Query => Self::Query { doing, source },
        }
    }
}

#[derive(Debug, PartialEq)]
enum Class {
    Unreachable,
    Denied,
    Query,
}

fn class(error: &sqlx::Error) -> Class {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => Class::Unreachable,
        sqlx::Error::Migrate(error) => match error.as_ref() {
            sqlx::migrate::MigrateError::Execute(error) | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => {
                class(error)
            }
            _ => Class::Query,
        },
        sqlx::Error::Database(error) => error.code().map_or(Class::Query, |code| class_of_state(&code)),
        _ => Class::Query,
    }
}

fn class_of_state(code: &str) -> Class {
    match code {
        // Read-only is what a server answers during a failover. The two time-outs are a server under load, or a row
        // that somebody else holds.
        "25006" | "55P03" | "57014" => Class::Unreachable,
        "42501" => Class::Denied,
        _ => match code.get(..2) {
            Some("08" | "53" | "57") => Class::Unreachable,
            Some("28") => Class::Denied,
            _ => Class::Query,
        },
    }
}

/// True when another transaction came first and the same call, made again, meets settled facts.
pub(super) fn lost_a_race(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.is_unique_violation() || matches!(error.code().as_deref(), Some("40P01" | "40001" | "23503"))
    })
}

/// Who has what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A Tenant object.
    Live {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Data that was kept when its Tenant was deleted.
    Kept {
        /// The uuid with which it can be taken over.
        uuid: Uuid,
        /// Retained or Quarantined.
        state: LedgerState,
    },
}

impl Display for Holder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Live { namespace, name } => write!(formatter, "the Tenant {namespace}/{name}"),
            Self::Kept { uuid, state } => write!(formatter, "the data of the deleted tenant {uuid} ({state})"),
        }
    }
}

/// Why an object got no uuid, or could not keep its row up to date.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Another Tenant, or data kept from one, has the slug.
    #[error("the slug {slug} belongs to {holder}")]
    SlugConflict {
        /// The slug.
        slug: String,
        /// Who has it.
        holder: Holder,
    },
    /// `spec.uuid`, or `status.uuid`, names a tenant that another object has, or (`status.uuid` only) kept data.
    #[error("the tenant {uuid} belongs to {holder}")]
    AlreadyClaimed {
        /// The tenant.
        uuid: Uuid,
        /// Who has it.
        holder: Holder,
    },
    /// `spec.uuid` differs from what the object was registered with.
    #[error("the object is registered as tenant {recorded} and asks for {asked}")]
    OtherData {
        /// What the ledger has.
        recorded: Uuid,
        /// What `spec.uuid` says.
        asked: Uuid,
    },
    /// `spec.uuid` names no tenant.
    #[error("the ledger knows no tenant {0}")]
    UnknownData(Uuid),
    /// `spec.uuid` names data that was dropped.
    #[error("the data of tenant {0} was dropped")]
    Dropped(Uuid),
    /// `status.uuid` was given out and the ledger has no row for it: it was lost or rolled back.
    #[error("the ledger has lost tenant {0}")]
    LedgerLost(Uuid),
    /// The object gave its tenant up before. A stale cache shows it; read it afresh.
    #[error("the object has already given up tenant {0}")]
    Released(Uuid),
    /// The ledger does not have the plan yet.
    #[error("the ledger has no plan {0}")]
    PlanUnknown(String),
    /// The central database failed.
    #[error(transparent)]
    Central(#[from] CentralError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_the_server_are_told_from_refusals_and_mistakes() {
        for (code, class) in [
            ("08006", Class::Unreachable),
            ("53300", Class::Unreachable),
            ("57P03", Class::Unreachable),
            ("57014", Class::Unreachable),
            ("25006", Class::Unreachable),
            ("28P01", Class::Denied),
            ("42501", Class::Denied),
            ("42P01", Class::Query),
            ("23514", Class::Query),
            ("3D000", Class::Query),
        ] {
            assert_eq!(class_of_state(code), class, "{code}");
        }
    }
}
