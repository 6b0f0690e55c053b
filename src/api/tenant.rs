//! `Tenant`: one customer.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NameRef;

/// What one customer is to have. The smallest useful Tenant has a display name and a plan.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "tenancy.maintenance-os.com",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    namespaced,
    status = "TenantStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "mten",
    category = "maintenance-os",
    doc = "One customer of the product: its database, logins, pooler entry, hosts, workers and backups.",
    selectable = ".spec.planRef.name",
    selectable = ".spec.state",
    printcolumn(name = "Plan", type_ = "string", json_path = ".spec.planRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Status", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Host", type_ = "string", json_path = ".status.primaryHost"),
    printcolumn(name = "Schema", type_ = "string", json_path = ".status.database.schemaVersion"),
    printcolumn(name = "Backup", type_ = "date", json_path = ".status.backup.lastSuccess"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Database", type_ = "string", json_path = ".status.database.name", priority = "1"),
    printcolumn(name = "Server", type_ = "string", json_path = ".status.database.server", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, priority = "1"),
    cel,
    validation = Rule::new("size(self.metadata.name) <= 50").message("metadata.name has more than 50 characters: choose a shorter one, the binding Secret and worker names derive from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be one DNS label (no dots), because it is the first label of the host: rename the Tenant"),
    validation = Rule::new("has(self.spec.slug) || !(self.metadata.name in ['admin','api','app','auth','cdn','mail','static','status','support','www'])").message("metadata.name is a reserved host label and would be the slug: set spec.slug to another one"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.slug) == has(oldSelf.slug)").message("spec.slug can be set only at creation: create another Tenant instead").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("has(self.uuid) == has(oldSelf.uuid)").message("spec.uuid can be set only at creation: delete this Tenant (its data is kept) and create it again with the uuid").reason(Reason::FieldValueForbidden))]
#[x_kube(validation = Rule::new("(has(self.database) && has(self.database.serverRef)) == (has(oldSelf.database) && has(oldSelf.database.serverRef))").message("spec.database.serverRef can be set only at creation: to move the data create a TenantMove").reason(Reason::FieldValueForbidden))]
pub struct TenantSpec {
    /// Name shown to people; up to 255 characters, no control characters.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]+$"))]
    pub display_name: String,

    /// First label of the host. Defaults to metadata.name. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.slug is immutable: create another Tenant instead"))]
    #[x_kube(validation = Rule::new("!(self in ['admin','api','app','auth','cdn','mail','static','status','support','www'])").message("spec.slug is a reserved host label: choose another one"))]
    pub slug: Option<String>,

    /// Adopts data that is already there: the uuid of a Tenant that was deleted with its data kept.
    /// Only at creation, and only with the right to the verb `adopt` on tenants in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.uuid is immutable: delete this Tenant (its data is kept) and create it again with the other uuid"))]
    pub uuid: Option<String>,

    /// The Plan that sets features, limits and sizes.
    pub plan_ref: NameRef,

    /// What customers get: Active, ReadOnly, Suspended or Hibernated.
    #[serde(default)]
    pub state: TenantState,

    /// When the trial ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_ends_at: Option<Time>,

    /// The customer's own hosts, beside `<slug>.<base domain>`. Served once their ownership is proved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["host".to_string()]))]
    #[x_kube(validation = Rule::new("self.filter(d, has(d.primary) && d.primary).size() <= 1").message("more than one domain is primary: keep primary: true on one of spec.domains"))]
    #[x_kube(validation = Rule::new("self.all(d, !d.host.matches('[.][0-9]+$'))").message("spec.domains has an address: write the name of a host, as in maintenance.acme.example"))]
    pub domains: Vec<Domain>,

    /// Where the database lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<TenantDatabase>,

    /// How the logins are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,

    /// When backups run and how long they are kept; unset fields come from the Plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,

    /// What a delete of this object does to the data: Retain keeps it, Delete puts it into quarantine and then
    /// drops it, BackupThenDelete does so once a last backup was taken and is known to restore.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// How long deleted data can be had back (policies Delete and BackupThenDelete), as `168h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = crate::api::DURATION_PATTERN))]
    pub quarantine: Option<String>,

    /// Refuses every delete of this object until it is set to false; holds a terminating namespace too.
    #[serde(default)]
    pub deletion_protection: bool,

    /// Your own notes, as a CRM number; kept in the ledger.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.size() <= 64").message("spec.metadata has more than 64 entries: keep long data elsewhere"))]
    pub metadata: BTreeMap<String, String>,
}

/// What customers of a Tenant get.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum TenantState {
    /// Served, read and write.
    #[default]
    Active,
    /// Served; writes are answered 503 with a page.
    ReadOnly,
    /// A neutral page, sessions ended, logins off.
    Suspended,
    /// Asleep; the first request wakes it.
    Hibernated,
}

/// What a delete does to the data.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum DeletionPolicy {
    /// The data stays; logins, entry and routing go. Had back by a Tenant with `spec.uuid`.
    #[default]
    Retain,
    /// The logins are closed, a last backup is taken and restored in a rehearsal, and only then it goes on as with Delete.
    /// Until that backup is there the object stays and says why.
    BackupThenDelete,
    /// The data is closed off and renamed, and dropped when the quarantine has passed.
    Delete,
}

impl DeletionPolicy {
    /// Whether the data goes in the end.
    pub const fn destroys(self) -> bool {
        matches!(self, Self::BackupThenDelete | Self::Delete)
    }
}

/// One of the customer's own hosts.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct Domain {
    /// Full host name, lower case.
    #[schemars(
        length(min = 3, max = 253),
        regex(pattern = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])$")
    )]
    pub host: String,
    /// Links and redirects use this host. At most one.
    #[serde(default)]
    pub primary: bool,
}

/// Where a tenant's database lies.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TenantDatabase {
    /// The DatabaseServer. Default: the least loaded one. Only at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("spec.database.serverRef is immutable: to move the data create a TenantMove"))]
    pub server_ref: Option<NameRef>,
}

/// How a tenant's logins are kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Renew the password this often, as `720h`; at least `1m`. Nobody notices: the new login is served before the old one
    /// goes. At once: `kubectl annotate tenant <name> tenancy.maintenance-os.com/rotate="$(date +%s)" --overwrite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24), regex(pattern = crate::api::DURATION_PATTERN))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m')").message("spec.credentials.rotateEvery must be at least 1m: 720h is usual; to renew the password now, annotate the Tenant with tenancy.maintenance-os.com/rotate"))]
    pub rotate_every: Option<String>,
}

/// When backups run and how long they are kept.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// Cron schedule in UTC; `H` is spread by hash, as in `H 2 * * *`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 64))]
    #[x_kube(validation = Rule::new(crate::api::SCHEDULE_RULE).message("spec.backup.schedule must be a cron schedule of five fields, as H 2 * * * (UTC; H is a minute of the tenant's own, H(1-3) a number from a range)"))]
    pub schedule: Option<String>,
    /// How many to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// When the newest backup is restored into a scratch database, to prove that it can be; every week where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
}

/// How many backups to keep of each age. What is not said comes from the Plan, else it is 7, 4 and 12; 0 keeps none of that kind.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct Retention {
    /// Newest of each of the last days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 366))]
    pub daily: Option<i32>,
    /// Newest of each of the last weeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 520))]
    pub weekly: Option<i32>,
    /// Newest of each of the last months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 240))]
    pub monthly: Option<i32>,
}

/// When a restore is rehearsed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Verify {
    /// Cron schedule in UTC; `H` is spread by hash.
    #[schemars(length(min = 9, max = 64))]
    #[x_kube(validation = Rule::new(crate::api::SCHEDULE_RULE).message("backup.verify.schedule must be a cron schedule of five fields, as H 5 * * 0 (UTC; H is a minute of the tenant's own, H(1-3) a number from a range)"))]
    pub schedule: String,
}

/// What is there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The generation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The tenant's identity: minted once, kept over deletes, all names on servers derive from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The host that links use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_host: Option<String>,
    /// The database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,
    /// The login that is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsStatus>,
    /// The Secret with the connection, as servicebinding.io has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<NameRef>,
    /// The customer's own hosts and how to prove their ownership.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<DomainStatus>,
    /// The newest backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupStatus>,
    /// One condition per part, and `Ready`, `Reconciling`, `Stalled`, `Serving`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
}

/// A tenant's database as it is.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Its name on the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The DatabaseServer it lies on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The schema version of the app's migrations in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
}

/// A tenant's login as it is published.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsStatus {
    /// The one of the two logins that is in use; the other one takes its place when the password is renewed.
    pub username: String,
    /// When its password was published (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<String>,
}

/// One of the customer's own hosts.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct DomainStatus {
    /// The host.
    pub host: String,
    /// True once its ownership was proved; only then is it served.
    pub verified: bool,
    /// The DNS record that proves the ownership. It has to stay: it is looked at again every day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// What is missing, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A DNS record.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct Challenge {
    /// Its name.
    pub record: String,
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// Its value.
    pub value: String,
}

/// The newest backup.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// When it ended (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<String>,
    /// Its name in the bucket, below the tenant's uuid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Size of the dump in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// SHA-256 of the dump in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The newest rehearsal of a restore that went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<VerifiedStatus>,
    /// The newest rehearsal that did not, until one goes well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unverified: Option<UnverifiedStatus>,
    /// The backup that was taken, and restored in a rehearsal, for the delete of this object (BackupThenDelete).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_delete: Option<BeforeDeleteStatus>,
}

/// A backup that was restored into a scratch database and had every row of its manifest.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedStatus {
    /// When (RFC 3339).
    pub at: String,
    /// The backup's name in the bucket.
    pub name: String,
    /// How long the restore took, as `1.25s`.
    pub took: String,
}

/// A rehearsal that failed.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnverifiedStatus {
    /// When (RFC 3339).
    pub at: String,
    /// Why.
    pub error: String,
}

/// The last backup before a delete.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BeforeDeleteStatus {
    /// The Job that took it; its name is of this very object.
    pub job: String,
    /// The backup's name in the bucket.
    pub name: String,
    /// When it was restored in a rehearsal (RFC 3339).
    pub verified_at: String,
}
