//! Rows of the ledger.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use crate::api::tenant::TenantState;

/// What became of a tenant's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LedgerState {
    /// Has a uuid, and perhaps a server; the database is not known to be made.
    Registered,
    /// A database was made. If it is not there now, it is missing; never make an empty one in its place.
    Provisioned,
    /// The Tenant is gone and its data kept.
    Retained,
    /// The Tenant is gone and its data will be dropped at `drop_after`.
    Quarantined,
    /// The data is being dropped, or was.
    Dropped,
}

impl LedgerState {
    /// The name in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "Registered",
            Self::Provisioned => "Provisioned",
            Self::Retained => "Retained",
            Self::Quarantined => "Quarantined",
            Self::Dropped => "Dropped",
        }
    }

    /// True while a Tenant object holds the row.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Registered | Self::Provisioned)
    }
}

impl Display for LedgerState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A state in the ledger that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("the ledger has the unknown state {0}")]
pub struct UnknownState(String);

impl FromStr for LedgerState {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Registered, Self::Provisioned, Self::Retained, Self::Quarantined, Self::Dropped]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.to_owned()))
    }
}

/// The seed's word in `tenants.status`.
pub(super) const fn status_of(state: TenantState) -> &'static str {
    match state {
        TenantState::Active => "active",
        TenantState::ReadOnly => "read_only",
        TenantState::Suspended => "suspended",
        TenantState::Hibernated => "hibernated",
    }
}

pub(super) fn state_of(status: &str) -> Result<TenantState, UnknownState> {
    [TenantState::Active, TenantState::ReadOnly, TenantState::Suspended, TenantState::Hibernated]
        .into_iter()
        .find(|state| status_of(*state) == status)
        .ok_or_else(|| UnknownState(status.to_owned()))
}

/// One tenant as the ledger has it.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantRow {
    /// The tenant's identity.
    pub uuid: Uuid,
    /// Namespace of the Tenant that holds the row, or held it last.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; none once nobody holds the data.
    pub object_uid: Option<Uuid>,
    /// First host label.
    pub slug: String,
    /// Name shown to people.
    pub display_name: String,
    /// The plan's slug.
    pub plan: Option<String>,
    /// What customers get.
    pub state: TenantState,
    /// When the trial ends.
    pub trial_ends_at: Option<Timestamp>,
    /// `spec.metadata`.
    pub metadata: BTreeMap<String, String>,
    /// What became of the data.
    pub ledger_state: LedgerState,
    /// The DatabaseServer; none until placed.
    pub server: Option<String>,
    /// Grows by one whenever the data changes hands.
    pub epoch: i64,
    /// When quarantined data may be dropped.
    pub drop_after: Option<Timestamp>,
    /// Version of the schema in the database.
    pub schema_version: Option<String>,
    /// The first data is in place.
    pub seeded: bool,
    /// The customer's hosts, by name.
    pub hosts: Vec<HostRow>,
    /// The subscription that counts: the one that is served for the longest.
    pub subscription: Option<SubscriptionRow>,
    /// When the tenant was minted.
    pub created_at: Timestamp,
}

/// One host of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct HostRow {
    /// Lower case.
    pub host: String,
    /// Links use it.
    pub primary: bool,
    /// Its ownership was proved, and the proof is there or has not been missing for long.
    pub verified: bool,
    /// When the proof was seen last.
    #[serde(default)]
    pub proved_at: Option<Timestamp>,
    /// Since when the proof of a verified host is missing.
    #[serde(default)]
    pub lost_since: Option<Timestamp>,
}

/// The subscription of a tenant that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// Stripe's name of the status.
    pub status: String,
    /// End of the paid period.
    pub current_period_end: Timestamp,
    /// It was canceled; it may still run until the period ends.
    pub canceled: bool,
    /// When it ends whatever the status says.
    pub ends_at: Option<Timestamp>,
    /// Since when the status is what it is.
    pub since: Option<Timestamp>,
}
