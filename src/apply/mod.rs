//! What we do: every write, in Kubernetes and in SQL, passes here.

pub mod edge;
pub mod gate;
pub mod kubernetes;
pub mod ledger;
pub mod migrate;
pub mod objects;
pub mod sql;
pub mod workers;

use crate::api::condition::Reason;
use crate::desired::effect::Health;
use crate::error::chain;

/// Why an effect did not happen, or is not known to have happened.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The Kubernetes API refused or did not answer.
    #[error("could not {doing}")]
    Kubernetes {
        /// What was being done to which object.
        doing: String,
        /// The cause.
        source: kube::Error,
    },
    /// A database server refused or did not answer.
    #[error("could not {doing}")]
    Sql {
        /// What was being done on which server.
        doing: String,
        /// The cause.
        source: sqlx::Error,
    },
    /// The central database refused or did not answer.
    #[error("could not {doing}")]
    Central {
        /// What was being done for which tenant.
        doing: String,
        /// The cause.
        source: crate::central::CentralError,
    },
    /// Something has to be decided by somebody.
    #[error("{message}")]
    Held {
        /// The reason for the condition.
        reason: Reason,
        /// What is held and how it is released.
        message: String,
    },
    /// Facts changed under the effect: look again.
    #[error("{0}")]
    Stale(String),
}

impl ApplyError {
    /// A failure of the Kubernetes API.
    pub fn kubernetes(doing: impl Into<String>, source: kube::Error) -> Self {
        Self::Kubernetes { doing: doing.into(), source }
    }

    /// What it does to the part that it happened to: what is held needs somebody, everything else is tried again.
    pub fn health(&self) -> Health {
        let (reason, message) = (self.reason(), chain(self));
        if matches!(self, Self::Held { .. }) {
            Health::Blocked(reason, message)
        } else {
            Health::Progressing(reason, message)
        }
    }

    /// The reason that a condition gives for it.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Kubernetes { source: kube::Error::Api(status), .. } if status.code == 403 => Reason::PermissionDenied,
            Self::Kubernetes { .. } | Self::Stale(_) => Reason::Provisioning,
            Self::Sql { source, .. } if sql::is_denied(source) => Reason::PermissionDenied,
            Self::Sql { .. } | Self::Central { .. } => Reason::DatabaseUnreachable,
            Self::Held { reason, .. } => *reason,
        }
    }
}
