//! The routing document: what an app needs to serve a tenant. A documented contract, usable by any app.
//!
//! Secret `routing-00` … `routing-31` (see [`super::slices`]), key `slice.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::plan::PlanLimits;
use super::tenant::TenantState;

/// One routing slice.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RoutingSlice {
    /// [`super::slices::SCHEMA`].
    pub schema: u32,
    /// Grows with every write of this slice.
    pub generation: u64,
    /// The leadership term of the operator that wrote it; never falls.
    pub epoch: u64,
    /// Entries ordered by uuid.
    pub tenants: Vec<RoutingEntry>,
    /// Tenants whose data was dropped for good within the last 30 days, and when (Unix seconds): what readers keep of them
    /// elsewhere may go. One that is only not in `tenants` may come back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<Uuid, i64>,
}

/// One tenant as the app sees it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RoutingEntry {
    /// The tenant's identity.
    pub uuid: Uuid,
    /// Namespace of the Tenant object.
    pub namespace: String,
    /// Name of the Tenant object.
    pub name: String,
    /// First host label.
    pub slug: String,
    /// Name shown to people.
    pub display_name: String,
    /// What customers get.
    pub state: TenantState,
    /// Hosts that may be served, lower case, exact. A host stands in one entry of the fleet only.
    pub hosts: Vec<String>,
    /// The host that links use; one of `hosts`.
    pub primary_host: String,
    /// The plan.
    pub plan: RoutingPlan,
    /// The subscription.
    pub subscription: Subscription,
    /// How to reach the tenant's database.
    pub database: DatabaseAccess,
    /// Version of the app's schema in it: four digits. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
    /// The tenant's queue.
    pub queue: Queue,
    /// `tenants/<uuid>/`.
    pub storage_prefix: String,
    /// Another one than before: a backup was restored in the place of the data that was there, and what was kept of that
    /// elsewhere (caches) counts no more. Absent: the data is still the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Uuid>,
    /// The tenant is asleep, or goes to sleep when nobody asks for it: readers say which of these are asked for, see
    /// [`super::slices::Acknowledgement::wanted`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sleeps: bool,
}

/// The plan as the app sees it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingPlan {
    /// The plan's slug.
    pub name: String,
    /// What is switched on.
    pub features: Vec<String>,
    /// How much of it.
    pub limits: PlanLimits,
}

/// The subscription as the app sees it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// Stripe's name of the status, or `none`.
    pub status: String,
    /// End of the paid period (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_period_end: Option<String>,
    /// End of the trial (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_ends_at: Option<String>,
    /// When the subscription ends whatever its status says (RFC 3339): a cancellation that is announced, or the last instant
    /// of a subscription without Stripe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
    /// Until when the tenant is served as before although the subscription has lapsed, or when that will be once it lapses
    /// (RFC 3339): the plan's grace period. Absent: it is not. Readers that do not know it give no grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_until: Option<String>,
}

/// How to reach a tenant's database, through the pooler.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseAccess {
    /// Host of the pooler.
    pub host: String,
    /// Port of the pooler.
    pub port: u16,
    /// `tenant_<uuid>`.
    pub name: String,
    /// The login in use.
    pub username: String,
    /// Its password, in clear: the truth that the binding Secret and the pooler's verifier derive from.
    pub password: String,
    /// libpq's mode towards the pooler.
    pub sslmode: String,
    /// PEM of the pooler's certificate authority; empty where `sslmode` needs none.
    #[serde(default)]
    pub ca: String,
    /// When this password was first published (RFC 3339). Of no use to readers: it is here because it has to change in
    /// the same write as the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<String>,
    /// The request to rotate (value of an annotation) that this password has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<String>,
}

impl std::fmt::Debug for DatabaseAccess {
    /// Leaves the password out: entries are logged when one is refused.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DatabaseAccess")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("name", &self.name)
            .field("username", &self.username)
            .field("sslmode", &self.sslmode)
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}

/// The tenant's queue.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    /// `tenant-<uuid>`.
    pub name: String,
    /// Share of the shared pool.
    pub weight: i32,
    /// Most jobs at a time.
    pub max_processes: i32,
    /// Whose turn in it is decided where: who queues a job says so there, and who is not of that pool leaves it alone.
    #[serde(default, skip_serializing_if = "WorkerPool::is_shared")]
    pub pool: WorkerPool,
}

/// Who drains a tenant's queue right now.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum WorkerPool {
    /// The pool that serves all tenants fairly.
    #[default]
    Shared,
    /// Workers of the tenant's own.
    Dedicated,
}

impl WorkerPool {
    /// The pool that serves all tenants fairly.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Shared)
    }
}
