//! Object → uuid. The heart of the ledger: a tenant is minted once, found again for ever, and its data is handed to
//! another object only when that object names it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::adopt::{adopt, is_lost, never_mint_again};
use super::error::lost_a_race;
use super::holder::refuse_slug;
use super::hosts::{self, Hosts};
use super::model::{TenantRow, status_of};
use super::place::Room;
use super::rebuild::rebuild;
use super::rows::row_of_object;
use super::{CALL_TIMEOUT, Central, CentralError, RegisterError, audit, place};
use crate::api::tenant::TenantState;

/// How often a call is made again after another transaction came first. The second attempt finds that one's rows.
const ATTEMPTS: usize = 5;

/// What a Tenant object asks of the ledger.
#[derive(Clone, Debug)]
pub struct Registration<'a> {
    /// Namespace of the object.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its uid.
    pub object_uid: Uuid,
    /// `spec.slug`, or the name. Of use at creation and adoption only; afterwards the ledger's stands.
    pub slug: &'a str,
    /// Name shown to people.
    pub display_name: &'a str,
    /// Slug of the plan.
    pub plan: Option<&'a str>,
    /// What customers get.
    pub state: TenantState,
    /// When the trial ends.
    pub trial_ends_at: Option<Timestamp>,
    /// `spec.metadata`.
    pub metadata: &'a BTreeMap<String, String>,
    /// `spec.uuid`: take over the data of this tenant. The right to do so is checked by the admission policy.
    pub adopt: Option<Uuid>,
    /// `status.uuid`: the object was given this before.
    pub known: Option<Uuid>,
    /// The customer's hosts in lower case, and whether each is the primary one.
    pub hosts: Vec<(String, bool)>,
    /// Where a tenant that is minted is to lie, and how much that may hold. A server with little room is no failure:
    /// the row then stands without one, as it does where none is named, and [`Central::place`] counts exactly.
    pub place: Option<(&'a str, Room)>,
    /// The database that the object's uuid has on a server, should the ledger have lost its row.
    pub marked: Option<Marked<'a>>,
}

/// A database that says on its server that it is the object's: its mark names the uuid that the object was given, and the
/// object. The caller has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked<'a> {
    /// The DatabaseServer.
    pub server: &'a str,
    /// Schema in the mark.
    pub schema: &'a str,
}

/// What a registration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The row stood, and nothing was written.
    Unchanged,
    /// The row stood, and was brought up to date.
    Updated,
    /// A uuid was minted.
    Created,
    /// The ledger had lost the row, and it was written again from the mark on the database.
    Rebuilt,
    /// Kept data was taken over.
    Adopted {
        /// The database is in quarantine and must be brought back. An operator that dies before it did sees a
        /// Provisioned row and a quarantined database, and must do the same.
        quarantined: bool,
    },
}

/// A registered tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Registered {
    /// What was done.
    pub outcome: Outcome,
    /// The row as it stands now.
    pub row: TenantRow,
}

/// Why an attempt ended.
pub(super) enum Failure {
    Sql(sqlx::Error),
    /// The facts changed under the attempt; look again.
    Race,
    Answer(RegisterError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        if lost_a_race(&error) { Self::Race } else { Self::Sql(error) }
    }
}

impl From<RegisterError> for Failure {
    fn from(error: RegisterError) -> Self {
        Self::Answer(error)
    }
}

impl Central {
    /// Finds or makes the row of a Tenant object. The object must have been read afresh and not be under deletion.
    pub async fn register(&self, request: &Registration<'_>) -> Result<Registered, RegisterError> {
        let doing = format!("register the Tenant {}/{}", request.namespace, request.name);
        let work = async {
            let mut outcome = Err(Failure::Race);
            for _ in 0..ATTEMPTS {
                outcome = self.attempt(request).await;
                if !matches!(outcome, Err(Failure::Race)) {
                    break;
                }
            }
            outcome
        };
        match tokio::time::timeout(CALL_TIMEOUT, work).await {
            Ok(Ok(registered)) => Ok(registered),
            Ok(Err(Failure::Answer(error))) => Err(error),
            Ok(Err(Failure::Sql(error))) => Err(CentralError::classify(doing, error).into()),
            // Others were faster five times: as with a server that does not answer in time, later is better than now.
            Ok(Err(Failure::Race)) | Err(_) => Err(CentralError::timeout(doing).into()),
        }
    }

    async fn attempt(&self, request: &Registration<'_>) -> Result<Registered, Failure> {
        let hosts: Hosts = request.hosts.iter().cloned().collect();
        if let Some(row) = row_of_object(&self.pool, request.object_uid).await? {
            if let Some(asked) = request.adopt.filter(|asked| *asked != row.uuid) {
                return Err(RegisterError::OtherData { recorded: row.uuid, asked }.into());
            }
            if says_the_same(&row, request, &hosts) {
                return Ok(Registered { outcome: Outcome::Unchanged, row });
            }
            return self.update(request, &row, &hosts).await;
        }
        // A transaction of its own: that the old object is gone stays true whatever the new one is told.
        self.release_superseded(request).await?;
        let mut transaction = self.pool.begin().await?;
        let is_known = request.adopt.is_none() || request.adopt == request.known;
        let (uuid, outcome) = match (request.adopt, request.known) {
            (_, Some(uuid)) if is_known && request.marked.is_some() && is_lost(&mut transaction, uuid).await? => {
                let marked = request.marked.expect("checked by the guard");
                (uuid, rebuild(&mut transaction, request, uuid, marked).await?)
            }
            (Some(uuid), _) => (uuid, adopt(&mut transaction, request, uuid).await?),
            (None, Some(uuid)) => return Err(never_mint_again(&mut transaction, request, uuid).await?.into()),
            (None, None) => (create(&mut transaction, request).await?, Outcome::Created),
        };
        // Kept data may have kept hosts that the object does not name.
        hosts::write(&mut transaction, uuid, outcome != Outcome::Created, &hosts).await?;
        // Last of what may wait for others, since others wait for it.
        if let Some((server, room)) = request.place.filter(|_| outcome == Outcome::Created) {
            place::put_where_roomy(&mut transaction, uuid, server, room).await?;
        }
        let row = row_of_object(&mut *transaction, request.object_uid).await?.ok_or(Failure::Race)?;
        let action = match outcome {
            Outcome::Created => "tenant.registered",
            Outcome::Rebuilt => "tenant.rebuilt",
            _ => "tenant.adopted",
        };
        note(&mut transaction, request, &row, action, None).await?;
        transaction.commit().await?;
        Ok(Registered { outcome, row })
    }

    async fn update(
        &self,
        request: &Registration<'_>,
        before: &TenantRow,
        hosts: &Hosts,
    ) -> Result<Registered, Failure> {
        let mut transaction = self.pool.begin().await?;
        let plan = plan_id(&mut transaction, request.plan).await?;
        let held = sqlx::query("SELECT FROM tenants WHERE id = $1 AND object_uid = $2 FOR UPDATE")
            .bind(before.uuid)
            .bind(request.object_uid)
            .fetch_optional(&mut *transaction)
            .await?;
        if held.is_none() {
            return Err(Failure::Race);
        }
        sqlx::query(
            "UPDATE tenants SET name = $2, plan_id = $3, status = $4, trial_ends_at = $5::text::timestamptz,
                    metadata = $6
             WHERE id = $1 AND (name, plan_id, status, trial_ends_at, metadata)
                   IS DISTINCT FROM ($2, $3, $4, $5::text::timestamptz, $6)",
        )
        .bind(before.uuid)
        .bind(request.display_name)
        .bind(plan)
        .bind(status_of(request.state))
        .bind(trial_text(request))
        .bind(Json(request.metadata))
        .execute(&mut *transaction)
        .await?;
        hosts::write(&mut transaction, before.uuid, true, hosts).await?;
        let row = row_of_object(&mut *transaction, request.object_uid).await?.ok_or(Failure::Race)?;
        // A host that another tenant has is asked for again each time, and nothing changes.
        if row != *before {
            note(&mut transaction, request, &row, "tenant.updated", Some(before)).await?;
        }
        transaction.commit().await?;
        Ok(Registered { outcome: Outcome::Updated, row })
    }
}

/// Mints a tenant. The unique index on slugs that have data decides who gets it.
async fn create(connection: &mut PgConnection, request: &Registration<'_>) -> Result<Uuid, Failure> {
    let minted = sqlx::query(
        "INSERT INTO tenants (namespace, object_name, object_uid, slug, name, plan_id, status, trial_ends_at, metadata)
         VALUES ($1, $2, $3, $4, $5, (SELECT id FROM plans WHERE slug = $6), $7, $8::text::timestamptz, $9)
         ON CONFLICT DO NOTHING RETURNING id, plan_id",
    )
    .bind(request.namespace)
    .bind(request.name)
    .bind(request.object_uid)
    .bind(request.slug)
    .bind(request.display_name)
    .bind(request.plan)
    .bind(status_of(request.state))
    .bind(trial_text(request))
    .bind(Json(request.metadata))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(minted) = minted else { return Err(refuse_slug(connection, request, None).await?) };
    // The transaction ends without a commit, and nothing was minted.
    if let Some(plan) = request.plan.filter(|_| minted.try_get("plan_id").is_ok_and(|id: Option<i32>| id.is_none())) {
        return Err(RegisterError::PlanUnknown(plan.to_owned()).into());
    }
    Ok(minted.try_get("id")?)
}

pub(super) async fn plan_id(connection: &mut PgConnection, plan: Option<&str>) -> Result<Option<i32>, Failure> {
    let Some(slug) = plan else {
        return Ok(None);
    };
    let id = sqlx::query_scalar("SELECT id FROM plans WHERE slug = $1").bind(slug).fetch_optional(connection).await?;
    id.map(Some).ok_or_else(|| RegisterError::PlanUnknown(slug.to_owned()).into())
}

fn says_the_same(row: &TenantRow, request: &Registration<'_>, hosts: &Hosts) -> bool {
    row.namespace == request.namespace
        && row.name == request.name
        && row.display_name == request.display_name
        && row.plan.as_deref() == request.plan
        && row.state == request.state
        && row.trial_ends_at.map(Timestamp::as_microsecond) == request.trial_ends_at.map(Timestamp::as_microsecond)
        && row.metadata == *request.metadata
        && row
            .hosts
            .iter()
            .map(|host| (&host.host, host.primary))
            .eq(hosts.iter().map(|(host, primary)| (host, *primary)))
}

/// To the microsecond and cut, not rounded, which is how it is compared: else every pass would see a difference.
pub(super) fn trial_text(request: &Registration<'_>) -> Option<String> {
    request.trial_ends_at.map(|instant| format!("{instant:.6}"))
}

async fn note(
    connection: &mut PgConnection,
    request: &Registration<'_>,
    row: &TenantRow,
    action: &str,
    before: Option<&TenantRow>,
) -> Result<(), sqlx::Error> {
    let changes = json!({ "before": before.map(digest), "after": digest(row) });
    audit::write(connection, &audit::of_tenant(row.uuid, action, request.namespace, request.name, changes)).await
}

/// What an audit entry tells of a row. `metadata` stays out: it is the customer's.
fn digest(row: &TenantRow) -> serde_json::Value {
    json!({
        "displayName": row.display_name,
        "slug": row.slug,
        "plan": row.plan,
        "state": status_of(row.state),
        "trialEndsAt": row.trial_ends_at.map(|instant| instant.to_string()),
        "hosts": row.hosts.iter().map(|host| &host.host).collect::<Vec<_>>(),
        "objectUid": row.object_uid,
    })
}
