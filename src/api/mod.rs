//! What users write and readers read: the CRD types, conditions and reasons, and the documents in the slices.
//!
//! Types and names only, and what a document means where every reader has to agree; nothing here does anything. Doc comments on fields of the CRDs are what
//! `kubectl explain` shows.

pub mod backup;
pub mod condition;
pub mod plan;
pub mod pooler;
pub mod rollout;
pub mod routing;
pub mod server;
pub mod slices;
pub mod subscription;
pub mod tenant;
pub mod tenant_backup;
pub mod tenant_restore;
pub mod welcome;

pub use condition::{ConditionType, Reason};
pub use plan::Plan;
pub use rollout::SchemaRollout;
pub use server::DatabaseServer;
pub use tenant::Tenant;
pub use tenant_backup::TenantBackup;
pub use tenant_restore::TenantRestore;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group of every custom resource, and prefix of every label, annotation and finalizer of ours.
pub const GROUP: &str = "tenancy.maintenance-os.com";
/// The only served version.
pub const VERSION: &str = "v1alpha1";
/// Held on every Tenant that may have data outside Kubernetes.
pub const FINALIZER: &str = "tenancy.maintenance-os.com/teardown";
/// Label on everything we make: the tenant's uuid.
pub const LABEL_TENANT: &str = "tenancy.maintenance-os.com/tenant";
/// Label on a Tenant: the wave of a schema rollout that it belongs to.
pub const LABEL_RING: &str = "tenancy.maintenance-os.com/ring";
/// Label on slices: `routing` or the name of the database server whose pooler reads it.
pub const LABEL_SLICE: &str = "tenancy.maintenance-os.com/slice";
/// Label on what belongs to a database server's pooler: the server's name.
pub const LABEL_SERVER: &str = "tenancy.maintenance-os.com/server";
/// `app.kubernetes.io/managed-by` of everything we make.
pub const MANAGED_BY: &str = "maintenance-os";
/// Releases one Tenant that the mass-deletion breaker holds; its value is the Tenant's name.
pub const ANNOTATION_CONFIRM_DELETE: &str = "tenancy.maintenance-os.com/confirm-delete";
/// Has a Tenant's password renewed now, or the operator's own passwords on a DatabaseServer and its pooler's certificate:
/// whenever its value is another than at the last time.
pub const ANNOTATION_ROTATE: &str = "tenancy.maintenance-os.com/rotate";
/// Has the password of a DatabaseServer's provisioner renewed, on the server and in the connection Secret.
pub const ANNOTATION_ROTATE_PROVISIONER: &str = "tenancy.maintenance-os.com/rotate-provisioner";
/// Has the proofs of a Tenant's own hosts looked for now: whenever its value is another than at the last time.
pub const ANNOTATION_CHECK_DOMAINS: &str = "tenancy.maintenance-os.com/check-domains";
/// Label on the Job and the Secret of a TenantRestore: the object's uid.
pub const LABEL_RESTORE: &str = "tenancy.maintenance-os.com/restore";
/// Hash of the desired state, so that an unchanged object is not written again.
pub const ANNOTATION_HASH: &str = "tenancy.maintenance-os.com/desired-hash";

/// On the Deployment of a tenant's own workers: kind of the autoscaler beside it; absent: there is none.
pub const ANNOTATION_SCALER: &str = "tenancy.maintenance-os.com/scaler";

/// Names another object.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
pub struct NameRef {
    /// Name of the object.
    // The pattern keeps slashes out: a name is a segment of a path of the API, and never leads out of its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// Go-style durations of whole hours, minutes and seconds, as `720h` or `1h30m`.
pub(crate) const DURATION_PATTERN: &str = r"^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$";

/// What a cron schedule of ours looks like: five fields within their ranges, each also `H` or `H(a-b)`.
pub(crate) const SCHEDULE_RULE: &str = "self.matches('^(H([(][0-5]?[0-9]-[0-5]?[0-9][)])?|([0-5]?[0-9](-[0-5]?[0-9])?|[*])(/[1-9][0-9]?)?(,([0-5]?[0-9](-[0-5]?[0-9])?|[*])(/[1-9][0-9]?)?)*) (H([(]([01]?[0-9]|2[0-3])-([01]?[0-9]|2[0-3])[)])?|(([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?|[*])(/[1-9][0-9]?)?(,(([01]?[0-9]|2[0-3])(-([01]?[0-9]|2[0-3]))?|[*])(/[1-9][0-9]?)?)*) (H([(](0?[1-9]|[12][0-9]|3[01])-(0?[1-9]|[12][0-9]|3[01])[)])?|((0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?|[*])(/[1-9][0-9]?)?(,((0?[1-9]|[12][0-9]|3[01])(-(0?[1-9]|[12][0-9]|3[01]))?|[*])(/[1-9][0-9]?)?)*) (H([(](0?[1-9]|1[0-2])-(0?[1-9]|1[0-2])[)])?|((0?[1-9]|1[0-2])(-(0?[1-9]|1[0-2]))?|[*])(/[1-9][0-9]?)?(,((0?[1-9]|1[0-2])(-(0?[1-9]|1[0-2]))?|[*])(/[1-9][0-9]?)?)*) (H([(][0-6]-[0-6][)])?|([0-6](-[0-6])?|[*])(/[1-9][0-9]?)?(,([0-6](-[0-6])?|[*])(/[1-9][0-9]?)?)*)$')";
