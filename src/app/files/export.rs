//! Tables for people to fetch: assets, routines, executions, as CSV.

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use sqlx::postgres::PgConnection;

use super::name::content_disposition;
use crate::app::accounts::{CurrentUser, Role};
use crate::app::problem::Problem;
use crate::tenancy::TenantContext;

/// Rows that are read at a time.
const BATCH: i64 = 1000;

/// What can be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Assets,
    Routines,
    Executions,
}

impl Table {
    fn parse(file: &str) -> Option<Self> {
        match file {
            "assets.csv" => Some(Self::Assets),
            "routines.csv" => Some(Self::Routines),
            "executions.csv" => Some(Self::Executions),
            _ => None,
        }
    }

    /// The first line. That of assets is what an import understands.
    fn headings(self) -> &'static [&'static str] {
        match self {
            Self::Assets => &[
                "ID",
                "Name",
                "Tag",
                "Category",
                "Location",
                "Manufacturer",
                "Model",
                "Serial number",
                "Status",
                "Criticality",
                "Commissioned on",
                "Notes",
            ],
            Self::Routines => &[
                "ID",
                "Asset ID",
                "Asset",
                "Name",
                "Every",
                "Unit",
                "Estimated minutes",
                "Active",
                "Next due on",
                "Assigned to",
                "Instructions",
            ],
            Self::Executions => &[
                "ID",
                "Routine ID",
                "Routine",
                "Asset",
                "Status",
                "Due on",
                "Started at",
                "Completed at",
                "Performed by",
                "Skip reason",
                "Notes",
            ],
        }
    }

    /// The next rows after the id `after`, as cells; the first one is the id.
    async fn rows(self, db: &mut PgConnection, after: i64) -> Result<Vec<(i64, Vec<String>)>, sqlx::Error> {
        match self {
            Self::Assets => assets(db, after).await,
            Self::Routines => routines(db, after).await,
            Self::Executions => executions(db, after).await,
        }
    }
}

/// `GET /exports/{table}`
pub async fn download(tenant: TenantContext, user: CurrentUser, Path(file): Path<String>) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let table = Table::parse(&file).ok_or(Problem::NotFound)?;
    // The first rows before the head of the answer: a database that is away is a page and not a file that breaks off.
    let first = batch(&tenant, table, 0).await?;
    // The mark tells Excel that this is UTF-8.
    let mut head = b"\xef\xbb\xbf".to_vec();
    head.extend(line(table.headings().iter().map(|heading| (*heading).to_owned())));
    let head = stream::iter([Ok::<_, Problem>(Bytes::from(head)), Ok(first.0)]);
    // Page by page of the key: a cursor would hold a connection, and the pooler's with it, for as long as the slowest
    // reader takes. What changes meanwhile may be in it or not; no row is in it twice.
    let rest = stream::unfold(first.1.map(|after| (tenant, after)), move |state| async move {
        let (tenant, after) = state?;
        match batch(&tenant, table, after).await {
            Ok((bytes, after)) => Some((Ok(bytes), after.map(|after| (tenant, after)))),
            // The connection is cut off, so that nobody takes half a file for a whole one.
            Err(problem) => Some((Err(problem), None)),
        }
    });
    Ok(csv_response(&file, Body::from_stream(head.chain(rest))))
}

/// A table as an answer.
pub fn csv_response(file: &str, body: Body) -> Response {
    let disposition = HeaderValue::from_str(&content_disposition("attachment", file));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8")),
        (CONTENT_DISPOSITION, disposition.unwrap_or_else(|_| HeaderValue::from_static("attachment"))),
        (CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
    ];
    (headers, body).into_response()
}

/// Some rows as text, and the id to go on after, where there may be more.
async fn batch(tenant: &TenantContext, table: Table, after: i64) -> Result<(Bytes, Option<i64>), Problem> {
    let read = async |db: &mut PgConnection| Ok::<_, Problem>(table.rows(db, after).await?);
    let rows = tenant.database().run(read).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == BATCH);
    let last = rows.last().map(|(id, _)| *id).filter(|_| is_full);
    let bytes = rows.into_iter().flat_map(|(_, cells)| line(cells)).collect::<Vec<u8>>();
    Ok((bytes.into(), last))
}

/// One line of CSV as in RFC 4180.
pub fn line(cells: impl IntoIterator<Item = String>) -> Vec<u8> {
    let mut line = Vec::new();
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        let cell = guarded(cell);
        if cell.contains([',', '"', '\n', '\r', ';', '\t']) {
            line.push(b'"');
            line.extend(cell.replace('"', "\"\"").bytes());
            line.push(b'"');
        } else {
            line.extend(cell.bytes());
        }
    }
    line.extend(b"\r\n");
    line
}

/// A spreadsheet computes what begins like a formula, and a formula can send the sheet elsewhere. An apostrophe makes it
/// text; an import takes it away again.
fn guarded(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{cell}") } else { cell }
}

type Rows = Result<Vec<(i64, Vec<String>)>, sqlx::Error>;

async fn assets(db: &mut PgConnection, after: i64) -> Rows {
    let rows = sqlx::query!(
        r#"SELECT id, name, tag, category, location, manufacturer, model, serial_number, status, criticality,
                  commissioned_on::text AS commissioned_on, notes
           FROM assets WHERE id > $1 ORDER BY id LIMIT $2"#,
        after,
        BATCH
    );
    let rows = rows.fetch_all(db).await?.into_iter().map(|row| {
        let optional = [row.tag, row.category, row.location, row.manufacturer, row.model, row.serial_number];
        let last = [Some(row.status), Some(row.criticality), row.commissioned_on, row.notes];
        let cells = [Some(row.id.to_string()), Some(row.name)].into_iter().chain(optional).chain(last);
        (row.id, cells.map(Option::unwrap_or_default).collect())
    });
    Ok(rows.collect())
}

async fn routines(db: &mut PgConnection, after: i64) -> Rows {
    let rows = sqlx::query!(
        r#"SELECT r.id, r.asset_id, a.name AS asset, r.name, r.interval_count, r.interval_unit, r.estimated_minutes,
                  r.active, r.next_due_on::text AS next_due_on, u.name AS "assigned_to?", r.instructions
           FROM routines r JOIN assets a ON a.id = r.asset_id LEFT JOIN users u ON u.id = r.assigned_to
           WHERE r.id > $1 ORDER BY r.id LIMIT $2"#,
        after,
        BATCH
    );
    let rows = rows.fetch_all(db).await?.into_iter().map(|row| {
        let cells = [
            Some(row.id.to_string()),
            Some(row.asset_id.to_string()),
            Some(row.asset),
            Some(row.name),
            Some(row.interval_count.to_string()),
            Some(row.interval_unit),
            row.estimated_minutes.map(|minutes| minutes.to_string()),
            Some(if row.active { "yes" } else { "no" }.to_owned()),
            row.next_due_on,
            row.assigned_to,
            row.instructions,
        ];
        (row.id, cells.into_iter().map(Option::unwrap_or_default).collect())
    });
    Ok(rows.collect())
}

async fn executions(db: &mut PgConnection, after: i64) -> Rows {
    let rows = sqlx::query!(
        r#"SELECT e.id, e.routine_id, r.name AS routine, a.name AS asset, e.status, e.due_on::text AS "due_on!",
                  to_char(e.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS started_at,
                  to_char(e.completed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS completed_at,
                  u.name AS "performed_by?", e.skip_reason, e.notes
           FROM routine_executions e JOIN routines r ON r.id = e.routine_id JOIN assets a ON a.id = r.asset_id
                LEFT JOIN users u ON u.id = e.performed_by
           WHERE e.id > $1 ORDER BY e.id LIMIT $2"#,
        after,
        BATCH
    );
    let rows = rows.fetch_all(db).await?.into_iter().map(|row| {
        let first = [row.id.to_string(), row.routine_id.to_string(), row.routine, row.asset, row.status, row.due_on];
        let last = [row.started_at, row.completed_at, row.performed_by, row.skip_reason, row.notes];
        let cells = first.into_iter().map(Some).chain(last);
        (row.id, cells.map(Option::unwrap_or_default).collect())
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cells: &[&str]) -> String {
        String::from_utf8(line(cells.iter().map(|cell| (*cell).to_owned()))).unwrap()
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(text(&["7", "a, \"b\"", "one\ntwo", ""]), "7,\"a, \"\"b\"\"\",\"one\ntwo\",\r\n");
    }

    #[test]
    fn what_a_spreadsheet_would_compute_is_text() {
        for (cell, expected) in [
            ("=HYPERLINK(1)", "'=HYPERLINK(1)\r\n"),
            ("+1", "'+1\r\n"),
            ("-1", "'-1\r\n"),
            ("@SUM(1)", "'@SUM(1)\r\n"),
            ("a=1", "a=1\r\n"),
        ] {
            assert_eq!(text(&[cell]), expected);
        }
        assert_eq!(text(&["=1,2"]), "\"'=1,2\"\r\n", "the apostrophe is inside the quotes");
    }
}
