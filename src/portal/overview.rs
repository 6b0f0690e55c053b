//! The first page: what is not right now, before anything else.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use kube::ResourceExt;

use super::list::{Row, row};
use super::look::{self, Level, condition};
use super::problem::{Problem, html};
use super::rights::{Allowed, SignedIn};
use super::shell::Shell;
use super::state::Portal;
use crate::api::condition::ConditionType;
use crate::api::rollout::RolloutPhase;

/// Tenants that are named; the list has the others.
const NAMED: usize = 15;

struct Trouble {
    what: String,
    href: &'static str,
    class: &'static str,
    word: String,
    message: String,
}

struct Rollout {
    name: String,
    phase: String,
    class: &'static str,
    target: String,
    wave: String,
    progress: String,
    failed: i32,
}

#[derive(Template)]
#[template(path = "portal/overview.html")]
struct OverviewPage {
    shell: Shell,
    tenants: usize,
    attention: usize,
    working: usize,
    unserved: usize,
    overdue: usize,
    servers: usize,
    troubles: Vec<Trouble>,
    rows: Vec<Row>,
    rollouts: Vec<Rollout>,
    whom: Option<&'static str>,
}

/// The page. Who has no right is told whom to ask.
pub async fn overview(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<SignedIn>,
    shell: Shell,
) -> Result<Response, Problem> {
    let mut page = OverviewPage {
        shell,
        tenants: 0,
        attention: 0,
        working: 0,
        unserved: 0,
        overdue: 0,
        servers: 0,
        troubles: Vec::new(),
        rows: Vec::new(),
        rollouts: Vec::new(),
        whom: None,
    };
    if admin.rights.is_empty() {
        page.whom = Some(super::rights::Right::ManageAdmins.title());
        return html(&page);
    }
    count_tenants(&portal, &mut page);
    find_troubles(&portal, &mut page).await;
    page.rollouts = portal.directory().rollouts().iter().filter_map(|found| rollout(found)).take(5).collect();
    html(&page)
}

fn count_tenants(portal: &Portal, page: &mut OverviewPage) {
    let tenants = portal.directory().tenants();
    page.tenants = tenants.len();
    let mut urgent = Vec::new();
    for tenant in &tenants {
        let status = look::tenant(tenant);
        let conditions = tenant.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let is_false = |kind| condition(conditions, kind).filter(|condition| condition.status == "False");
        page.working += usize::from(status.level == Level::Info);
        page.overdue += usize::from(is_false(ConditionType::BackupFresh).is_some());
        // Who is suspended is not served by wish.
        let wished = |reason: &str| matches!(reason, "Suspended" | "Hibernated");
        page.unserved +=
            usize::from(is_false(ConditionType::Serving).is_some_and(|condition| !wished(&condition.reason)));
        if status.level <= Level::Warn {
            urgent.push((status, tenant));
        }
    }
    page.attention = urgent.len();
    urgent.sort_by_cached_key(|(status, tenant)| (status.level, tenant.name_any()));
    page.rows = urgent.iter().take(NAMED).map(|(status, tenant)| row(tenant, status)).collect();
}

async fn find_troubles(portal: &Portal, page: &mut OverviewPage) {
    let trouble = |what: &str, href, word: &str, message: &str| Trouble {
        what: what.to_owned(),
        href,
        class: "bad",
        word: word.to_owned(),
        message: message.to_owned(),
    };
    if let Some(since) = portal.directory().broken_since() {
        let message = format!("The Kubernetes API has not answered since {}.", super::show::time(since));
        page.troubles.push(trouble("Kubernetes API", "/", "Away", &message));
    }
    if portal.patiently(portal.central().ping()).await.is_err() {
        let message = "Nothing can be changed until it answers. Tenants are served as before.";
        page.troubles.push(trouble("Central database", "/", "Away", message));
    }
    let servers = portal.directory().servers();
    page.servers = servers.len();
    if servers.is_empty() {
        let message = "Tenants have no place: create a DatabaseServer.";
        page.troubles.push(trouble("Database servers", "/servers", "None", message));
    }
    for server in &servers {
        let status = look::server(server);
        if status.level == Level::Bad {
            page.troubles.push(trouble(
                &format!("Server {}", server.name_any()),
                "/servers",
                status.word,
                status.message,
            ));
        }
    }
}

fn rollout(found: &crate::api::SchemaRollout) -> Option<Rollout> {
    let status = found.status.clone().unwrap_or_default();
    let class = match status.phase {
        RolloutPhase::Complete | RolloutPhase::Aborted => return None,
        RolloutPhase::Held | RolloutPhase::Failed => "bad",
        RolloutPhase::Paused => "warn",
        RolloutPhase::Pending | RolloutPhase::Running | RolloutPhase::Soaking => "info",
    };
    Some(Rollout {
        name: found.name_any(),
        phase: format!("{:?}", status.phase),
        class,
        target: status.target_version.unwrap_or_default(),
        wave: status.wave.unwrap_or_default(),
        progress: format!("{} of {}", status.done, status.total),
        failed: status.failed,
    })
}
