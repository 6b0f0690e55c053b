//! The audit trail, read: page by page for people, and whole to see whether it is as it was written.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use super::chain::{Check, Finding, Head, Heads, Link};
use super::rows::instant;
use super::{Central, CentralError, bounded};

/// Entries that are read at a time when the whole trail is checked.
const CHUNK: i64 = 5_000;
/// The times of entries are not quite in the order of their ids: those that were written at the same time are looked at too.
const AT_THE_SAME_TIME: i64 = 1_000;

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrailFilter {
    /// Of the tenant.
    pub tenant: Option<Uuid>,
    /// Of tenants with this slug.
    pub slug: Option<String>,
    /// By whom, in any case of letters.
    pub actor: Option<String>,
    /// What was done, as `tenant.suspended`.
    pub action: Option<String>,
    /// The object or row, as `customers/acme`.
    pub resource: Option<String>,
    /// Of one request.
    pub correlation: Option<Uuid>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// From where a page goes, newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// The newest.
    #[default]
    Newest,
    /// Those older than the entry.
    Before(i64),
    /// The next newer ones than the entry.
    After(i64),
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub struct TrailRow {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// The tenant, also where it is gone.
    pub tenant: Option<Uuid>,
    /// Its slug by then.
    pub slug: Option<String>,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// As `Tenant`.
    pub resource_type: Option<String>,
    /// As `customers/acme`.
    pub resource_id: Option<String>,
    /// Before and after.
    pub changes: Option<Value>,
    /// From where.
    pub ip_address: Option<String>,
    /// With what.
    pub user_agent: Option<String>,
    /// The same in the log about it.
    pub correlation_id: Option<Uuid>,
}

impl FromRow<'_, PgRow> for TrailRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            at: instant(row, "at")?.unwrap_or_default(),
            tenant: row.try_get("tenant_uuid")?,
            slug: row.try_get("tenant_slug")?,
            actor: row.try_get("actor")?,
            action: row.try_get("action")?,
            resource_type: row.try_get("resource_type")?,
            resource_id: row.try_get("resource_id")?,
            changes: row.try_get("changes")?,
            ip_address: row.try_get("ip_address")?,
            user_agent: row.try_get("user_agent")?,
            correlation_id: row.try_get("correlation_id")?,
        })
    }
}

/// What a check of the whole trail found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many entries were read.
    pub entries: u64,
    /// The ends of the chains: to be noted elsewhere.
    pub heads: Heads,
    /// What is not as it was written.
    pub findings: Vec<Finding>,
}

impl Central {
    /// At most `limit` entries, newest first.
    pub async fn trail(&self, filter: &TrailFilter, from: From, limit: i64) -> Result<Vec<TrailRow>, CentralError> {
        let work = async {
            let mut query = query(filter, from, limit);
            let mut rows: Vec<TrailRow> = query.build_query_as().fetch_all(&self.pool).await?;
            if matches!(from, From::After(_)) {
                rows.reverse();
            }
            Ok(rows)
        };
        bounded("read the audit trail", work).await
    }

    /// Reads the whole trail, as it is at one instant, and checks that each entry follows from the one before.
    /// `noted`: heads that were noted earlier, outside the database.
    pub async fn verify_trail(&self, noted: &Heads) -> Result<Verified, CentralError> {
        let doing = "check the audit trail";
        let read = |source| CentralError::classify(doing, source);
        let mut transaction = bounded(doing, async { self.pool.begin().await }).await?;
        // One view of all of it, or entries that are written meanwhile would look as if they came past the head.
        let begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
        sqlx::query(begin).execute(&mut *transaction).await.map_err(read)?;
        let heads = bounded(doing, heads(&mut transaction)).await?;
        let mut check = Check::new(&heads, noted);
        let mut at = (i16::MIN, i64::MIN);
        loop {
            let links = bounded(doing, links(&mut transaction, at)).await?;
            let Some(last) = links.last() else { break };
            at = (last.lane, last.seq);
            for link in &links {
                check.see(link);
            }
        }
        let (entries, mut findings) = check.end();
        let unchained = bounded(doing, unchained(&mut transaction)).await?;
        findings.extend(unchained.into_iter().map(|id| Finding::Unchained { id }));
        Ok(Verified { entries, heads, findings })
    }
}

fn query(filter: &TrailFilter, from: From, limit: i64) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new(
        "SELECT id, (extract(epoch FROM created_at) * 1000000)::bigint AS at, tenant_uuid, tenant_slug, actor, action,
                resource_type, resource_id, changes, host(ip_address) AS ip_address, user_agent, correlation_id
         FROM audit_logs WHERE true",
    );
    if let Some(tenant) = filter.tenant {
        query.push(" AND tenant_uuid = ").push_bind(tenant);
    }
    if let Some(slug) = &filter.slug {
        query.push(" AND tenant_slug = ").push_bind(slug.clone());
    }
    if let Some(actor) = &filter.actor {
        query.push(" AND lower(actor) = lower(").push_bind(actor.clone()).push(")");
    }
    if let Some(action) = &filter.action {
        query.push(" AND action = ").push_bind(action.clone());
    }
    if let Some(resource) = &filter.resource {
        query.push(" AND resource_id = ").push_bind(resource.clone());
    }
    if let Some(correlation) = filter.correlation {
        query.push(" AND correlation_id = ").push_bind(correlation);
    }
    // The order is that of ids, so a time is turned into an id first: else everything newer would be read and thrown away.
    if let Some(since) = filter.since {
        let since = since.to_string();
        query.push(" AND created_at >= ").push_bind(since.clone()).push("::text::timestamptz");
        query.push(" AND id >= (SELECT min(id) FROM (SELECT id FROM audit_logs WHERE created_at >= ");
        query.push_bind(since).push("::text::timestamptz ORDER BY created_at LIMIT ");
        query.push_bind(AT_THE_SAME_TIME).push(") near)");
    }
    if let Some(until) = filter.until {
        let until = until.to_string();
        query.push(" AND created_at < ").push_bind(until.clone()).push("::text::timestamptz");
        query.push(" AND id <= (SELECT max(id) FROM (SELECT id FROM audit_logs WHERE created_at < ");
        query.push_bind(until).push("::text::timestamptz ORDER BY created_at DESC LIMIT ");
        query.push_bind(AT_THE_SAME_TIME).push(") near)");
    }
    match from {
        From::Newest => query.push(" ORDER BY id DESC"),
        From::Before(id) => query.push(" AND id < ").push_bind(id).push(" ORDER BY id DESC"),
        From::After(id) => query.push(" AND id > ").push_bind(id).push(" ORDER BY id"),
    };
    query.push(" LIMIT ").push_bind(limit);
    query
}

async fn heads(connection: &mut PgConnection) -> Result<Heads, sqlx::Error> {
    let rows = sqlx::query("SELECT lane, seq, hash FROM audit_lanes ORDER BY lane").fetch_all(connection).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("lane")?, Head { seq: row.try_get("seq")?, hash: row.try_get("hash")? })))
        .collect()
}

/// Entries that the walk along the chains does not meet.
async fn unchained(connection: &mut PgConnection) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT id FROM audit_logs WHERE lane IS NULL OR seq IS NULL ORDER BY id LIMIT 100")
        .fetch_all(connection)
        .await
}

async fn links(connection: &mut PgConnection, after: (i16, i64)) -> Result<Vec<Link>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT lane, seq, id, previous_hash, hash, tenant_uuid::text, tenant_slug::text, actor::text, action::text,
                resource_type::text, resource_id::text, changes::text, ip_address::text, user_agent,
                correlation_id::text, (extract(epoch FROM created_at) * 1000000)::bigint::text
         FROM audit_logs WHERE (lane, seq) > ($1, $2) ORDER BY lane, seq LIMIT $3",
    )
    .bind(after.0)
    .bind(after.1)
    .bind(CHUNK)
    .fetch_all(connection)
    .await?;
    rows.iter().map(link).collect()
}

fn link(row: &PgRow) -> Result<Link, sqlx::Error> {
    let mut link = Link {
        lane: row.try_get(0)?,
        seq: row.try_get(1)?,
        id: row.try_get(2)?,
        previous: row.try_get(3)?,
        hash: row.try_get(4)?,
        ..Link::default()
    };
    for (index, field) in link.fields.iter_mut().enumerate() {
        *field = row.try_get(5 + index)?;
    }
    Ok(link)
}
