//! Tables of assets that people send: checked first, applied as a whole or not at all.
//!
//! The file waits in storage. Checking and applying read it again from there, through the same steps, so that what is
//! applied is what was checked, against the assets as they are by then:
//!
//! ```text
//! storage ─▶ read (a thread: cells → rows) ─▶ decide (batches: new, changed, unchanged, broken) ─▶ count │ store │ report
//! ```

mod decide;
pub mod read;
pub mod table;

use axum::body::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;

use self::decide::{Decided, Decision};
use self::read::{Line, Part};
use self::table::{Fault, Header};
use crate::app::accounts::CurrentUser;
use crate::app::plant;
use crate::app::problem::Problem;
use crate::tenancy::TenantContext;
use crate::tenancy::storage::{Content, ObjectPath};

/// Faults that are kept to be shown; all of them are counted, and all are in the report.
const SHOWN_FAULTS: usize = 100;

/// What a file would do, or did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Assets that are not there yet.
    pub new: u64,
    /// Assets that differ.
    pub changed: u64,
    /// Assets that are as the file says.
    pub unchanged: u64,
    /// Rows that cannot be stored.
    pub broken: u64,
    /// All faults; a row may have several.
    pub faults: u64,
    /// The first of them.
    pub shown: Vec<Fault>,
    /// Headings that mean nothing here.
    pub ignored: Vec<String>,
}

impl Outcome {
    fn count(&mut self, decided: &[Decided]) {
        for one in decided {
            match &one.decision {
                Decision::New(_) => self.new += 1,
                Decision::Changed(..) => self.changed += 1,
                Decision::Unchanged => self.unchanged += 1,
                Decision::Broken(faults) => {
                    self.broken += 1;
                    self.faults += faults.len() as u64;
                    let room = SHOWN_FAULTS - self.shown.len();
                    self.shown.extend(faults.iter().take(room).cloned());
                }
            }
        }
    }
}

/// Says what the file would do, and changes nothing.
///
/// # Errors
/// The file is no table, or storage or database are away.
pub async fn check(tenant: &TenantContext, content: Content) -> Result<Outcome, Problem> {
    let mut parts = read::read(content);
    let mut outcome = Outcome::default();
    let header = first(&mut parts).await?.0;
    outcome.ignored.clone_from(&header.ignored);
    while let Some(lines) = next(&mut parts).await? {
        let decide = async |db: &mut PgConnection| decide::decide(db, &header, lines).await;
        // One connection per batch: reading the next part from storage must not hold one.
        outcome.count(&tenant.database().run(decide).await?);
    }
    Ok(outcome)
}

/// Stores what the file says in one transaction, within the plan's limit. Broken rows stay out.
///
/// # Errors
/// The file is no table, the plan has no room for it, or storage or database are away. Nothing is stored then.
pub async fn apply(
    tenant: &TenantContext,
    user: &CurrentUser,
    id: i64,
    path: &ObjectPath,
    name: &str,
) -> Result<Outcome, Problem> {
    let plan = &tenant.entry().plan;
    let limit = plan.limits.assets;
    let content = tenant.storage().get(path).await?;
    let applied = async |db: &mut PgConnection| {
        // The lock of everybody who adds assets, also where the plan has no limit: two imports at the same time would
        // each find the other one's assets new.
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('limit:assets'))").execute(&mut *db).await?;
        let claimed = sqlx::query!("UPDATE imports SET applied_at = now() WHERE id = $1 AND applied_at IS NULL", id);
        if claimed.execute(&mut *db).await?.rows_affected() == 0 {
            return Err(Problem::Invalid("This file was imported already.".into()));
        }
        let mut parts = read::read(content);
        let mut outcome = Outcome::default();
        let header = first(&mut parts).await?.0;
        outcome.ignored.clone_from(&header.ignored);
        while let Some(lines) = next(&mut parts).await? {
            let decided = decide::decide(db, &header, lines).await?;
            outcome.count(&decided);
            decide::store(db, user, &decided).await?;
        }
        if let Some(max) = limit {
            let count = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM assets"#).fetch_one(&mut *db).await?;
            if count > i64::from(max) && outcome.new > 0 {
                return Err(Problem::LimitReached { limit: "assets", max, plan: plan.name.clone() });
            }
        }
        let document = serde_json::to_value(&outcome).map_err(|error| Problem::Internal(error.to_string()))?;
        sqlx::query!("UPDATE imports SET outcome = $2 WHERE id = $1", id, document).execute(&mut *db).await?;
        let summary = format!("{name}: {} new, {} changed", outcome.new, outcome.changed);
        sqlx::query!(
            "INSERT INTO activities (user_id, kind, subject_type, subject_id, summary) \
             VALUES ($1, 'asset.imported', 'user', $1, $2)",
            user.id,
            summary
        )
        .execute(db)
        .await?;
        Ok(outcome)
    };
    plant::change(tenant, applied).await
}

/// The refused rows as a table that can be mended and sent again, made while it is being downloaded.
///
/// # Errors
/// The file is no table, or storage is away.
pub async fn refused(
    tenant: TenantContext,
    content: Content,
) -> Result<BoxStream<'static, Result<Bytes, Problem>>, Problem> {
    let mut parts = read::read(content);
    let (header, headings) = first(&mut parts).await?;
    let head = super::export::line(headings.iter().chain(["Line", "What to change"]).map(str::to_owned));
    let rest = stream::unfold(Some((tenant, parts, header)), |state| async move {
        let (tenant, mut parts, header) = state?;
        let lines = match next(&mut parts).await {
            Ok(lines) => lines?,
            Err(problem) => return Some((Err(problem), None)),
        };
        let decide = async |db: &mut PgConnection| decide::decide(db, &header, lines).await;
        match tenant.database().run(decide).await {
            Ok(decided) => {
                let table: Vec<u8> = decided.iter().filter_map(report).flatten().collect();
                Some((Ok(Bytes::from(table)), Some((tenant, parts, header))))
            }
            Err(problem) => Some((Err(problem), None)),
        }
    });
    let mark = stream::iter([Ok(Bytes::from_static(b"\xef\xbb\xbf")), Ok(Bytes::from(head))]);
    Ok(mark.chain(rest).boxed())
}

fn report(one: &Decided) -> Option<Vec<u8>> {
    let Decision::Broken(faults) = &one.decision else { return None };
    let told = |fault: &Fault| match fault.column.as_str() {
        "" => fault.what.clone(),
        column => format!("{column}: {}", fault.what),
    };
    let what = faults.iter().map(told).collect::<Vec<_>>().join(" ");
    let cells = one.record.iter().map(str::to_owned).chain([one.number.to_string(), what]);
    Some(super::export::line(cells))
}

async fn first(parts: &mut mpsc::Receiver<Result<Part, Problem>>) -> Result<(Header, csv::StringRecord), Problem> {
    match parts.recv().await.transpose()? {
        Some(Part::Header { header, headings }) => Ok((header, headings)),
        _ => Err(Problem::Internal("reading a table: it ended before its header".into())),
    }
}

async fn next(parts: &mut mpsc::Receiver<Result<Part, Problem>>) -> Result<Option<Vec<Line>>, Problem> {
    match parts.recv().await.transpose()? {
        Some(Part::Lines(lines)) => Ok(Some(lines)),
        Some(Part::End) => Ok(None),
        Some(Part::Header { .. }) | None => Err(Problem::Internal("reading a table: it broke off".into())),
    }
}
