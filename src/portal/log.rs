//! The audit log: filtered, page by page from an entry on, and as CSV.

use askama::Template;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::{Deserialize, Serialize};

use super::problem::{Problem, html};
use super::rights::{Allowed, View};
use super::shell::Shell;
use super::show;
use super::state::Portal;
use crate::audit::{HEADER, line as csv_line};
use crate::central::{TrailFilter, TrailFrom, TrailRow};

/// Entries on one page.
const PAGE: i64 = 50;
/// Entries that a CSV file is read in.
const CHUNK: i64 = 1_000;
/// Most entries of a CSV file; `maintenance-os audit list` has no bound.
const MOST: usize = 100_000;

/// What is asked for. Texts as they were typed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Asked {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    tenant: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    actor: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    action: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    request: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    since: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    until: String,
    #[serde(default, skip_serializing)]
    before: String,
    #[serde(default, skip_serializing)]
    after: String,
}

impl Asked {
    /// The filter, or the name of the field that cannot be read.
    fn filter(&self) -> Result<TrailFilter, &'static str> {
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let day = |text: &str, name| match text.trim() {
            "" => Ok(None),
            text => show::day(text).map(Some).ok_or(name),
        };
        // One field for both: a uuid is no slug that anybody chooses.
        let uuid = self.tenant.trim().parse().ok();
        let correlation = match self.request.trim() {
            "" => None,
            text => Some(text.parse().map_err(|_| "request")?),
        };
        if [&self.tenant, &self.actor, &self.action, &self.resource].iter().any(|text| text.contains('\0')) {
            return Err("text");
        }
        Ok(TrailFilter {
            tenant: uuid,
            slug: text(&self.tenant).filter(|_| uuid.is_none()),
            actor: text(&self.actor),
            action: text(&self.action),
            resource: text(&self.resource),
            correlation,
            since: day(&self.since, "since")?,
            until: day(&self.until, "until")?,
        })
    }

    fn from(&self) -> TrailFrom {
        match (self.before.parse(), self.after.parse()) {
            (Ok(id), _) => TrailFrom::Before(id),
            (_, Ok(id)) => TrailFrom::After(id),
            _ => TrailFrom::Newest,
        }
    }
}

/// One entry for people.
#[derive(Clone, Debug)]
pub struct Line {
    /// When, to the second.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// The object.
    pub resource: String,
    /// The tenant, for a link to its entries.
    pub tenant: String,
    /// From where.
    pub ip: String,
    /// Before and after, and whatever else was noted.
    pub changes: Vec<(String, String)>,
    /// Number of the request.
    pub request: String,
}

/// An entry for people.
pub fn line(row: &TrailRow) -> Line {
    let mut changes: Vec<(String, String)> = match &row.changes {
        Some(serde_json::Value::Object(fields)) => {
            let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            fields.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), text(value))).collect()
        }
        Some(other) => vec![("changes".into(), other.to_string())],
        None => Vec::new(),
    };
    changes.sort_by_key(|(key, _)| key != "before");
    let uuid = |value: Option<uuid::Uuid>| value.map(|uuid| uuid.to_string()).unwrap_or_default();
    Line {
        at: show::second(row.at),
        actor: row.actor.clone(),
        action: row.action.clone(),
        resource: row.resource_id.clone().unwrap_or_default(),
        tenant: uuid(row.tenant),
        ip: row.ip_address.clone().unwrap_or_default(),
        changes,
        request: uuid(row.correlation_id),
    }
}

#[derive(Template)]
#[template(path = "portal/log.html")]
struct LogPage {
    shell: Shell,
    asked: Asked,
    lines: Vec<Line>,
    newer: Option<String>,
    older: Option<String>,
    csv: String,
    filtered: bool,
    wrong: Option<&'static str>,
}

/// The page.
pub async fn log(
    State(portal): State<Portal>,
    Allowed(..): Allowed<View>,
    Query(asked): Query<Asked>,
    shell: Shell,
) -> Result<Response, Problem> {
    let query = serde_urlencoded::to_string(&asked).unwrap_or_default();
    let link = |path: &str, more: &str| match (query.is_empty(), more.is_empty()) {
        (true, true) => path.to_owned(),
        (true, false) => format!("{path}?{more}"),
        (false, true) => format!("{path}?{query}"),
        (false, false) => format!("{path}?{query}&{more}"),
    };
    let from = asked.from();
    let (mut rows, wrong) = match asked.filter() {
        // One more than is shown, to know whether there is another page.
        Ok(filter) => (portal.patiently(portal.central().trail(&filter, from, PAGE + 1)).await?, None),
        Err(field) => (Vec::new(), Some(field)),
    };
    let more = rows.len() > usize::try_from(PAGE).unwrap_or_default();
    let upwards = matches!(from, TrailFrom::After(_));
    if more {
        // Newest first either way: on the way up, the one too many is the first.
        if upwards { drop(rows.remove(0)) } else { drop(rows.pop()) }
    }
    let has_newer = if upwards { more } else { from != TrailFrom::Newest };
    let has_older = if upwards { true } else { more };
    let newer = rows.first().filter(|_| has_newer).map(|row| link("/log", &format!("after={}", row.id)));
    let older = rows.last().filter(|_| has_older).map(|row| link("/log", &format!("before={}", row.id)));
    let csv = link("/log.csv", "");
    let filtered = !query.is_empty();
    html(&LogPage { shell, asked, lines: rows.iter().map(line).collect(), newer, older, csv, filtered, wrong })
}

/// The same as CSV, sent while it is read.
pub async fn csv(
    State(portal): State<Portal>,
    Allowed(..): Allowed<View>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let filter = asked.filter().map_err(|_| Problem::Malformed)?;
    // The first part is read before anything is sent: an answer that fails later can only break off.
    let first = portal.patiently(portal.central().trail(&filter, TrailFrom::Newest, CHUNK)).await?;
    let chunks = stream::try_unfold((portal, filter, Some(first), 0_usize), async |(portal, filter, rows, sent)| {
        let Some(rows) = rows.filter(|rows| !rows.is_empty()) else { return Ok::<_, std::io::Error>(None) };
        let text: String = rows.iter().map(csv_line).collect();
        let sent = sent + rows.len();
        let next = match rows.last() {
            Some(last) if rows.len() == usize::try_from(CHUNK).unwrap_or_default() && sent < MOST => {
                let from = TrailFrom::Before(last.id);
                let read = portal.central().trail(&filter, from, CHUNK).await;
                Some(read.map_err(std::io::Error::other)?)
            }
            _ => None,
        };
        Ok(Some((text, (portal, filter, next, sent))))
    });
    let body = stream::once(std::future::ready(Ok(HEADER.to_owned()))).chain(chunks);
    let headers =
        [(CONTENT_TYPE, "text/csv; charset=utf-8"), (CONTENT_DISPOSITION, "attachment; filename=\"audit-log.csv\"")];
    Ok((headers, Body::from_stream(body)).into_response())
}
