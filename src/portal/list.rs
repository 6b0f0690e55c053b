//! The tenants, searched, filtered and sorted.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::look::{self, Level};
use super::problem::{Problem, html};
use super::rights::{Allowed, View};
use super::shell::Shell;
use super::state::Portal;
use crate::api::Tenant;

/// Tenants on one page.
pub const PAGE: usize = 50;

/// Which tenants, in which order.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Asked {
    /// Part of a name, slug, uuid or host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub q: String,
    /// A word of [`look::tenant`], or `attention`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Name of a Plan.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan: String,
    /// `name`, `status`, `plan`, `newest`, `oldest`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sort: String,
    /// From 1.
    #[serde(default, skip_serializing)]
    pub page: String,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// For people.
    pub display_name: String,
    /// Name of the Plan.
    pub plan: String,
    /// One word.
    pub status: String,
    /// The badge's class.
    pub class: &'static str,
    /// What is the matter, where something is.
    pub message: String,
    /// The host that links use.
    pub host: String,
    /// The DatabaseServer.
    pub server: String,
    /// When it was made.
    pub created: String,
}

/// One page of the list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Its lines.
    pub rows: Vec<Row>,
    /// How many fit the filters.
    pub total: usize,
    /// Which page, from 1.
    pub number: usize,
    /// Every status there is, with how many have it.
    pub statuses: BTreeMap<String, usize>,
    /// Every plan that somebody has.
    pub plans: BTreeMap<String, usize>,
    /// How many there are at all.
    pub all: usize,
    /// How many need somebody.
    pub attention: usize,
}

impl Page {
    /// The last page's number.
    pub fn last(&self) -> usize {
        self.total.div_ceil(PAGE).max(1)
    }

    /// Number of the first line.
    pub fn first_row(&self) -> usize {
        (self.number - 1) * PAGE + 1
    }

    /// Number of the last line.
    pub fn last_row(&self) -> usize {
        (self.number * PAGE).min(self.total)
    }
}

/// One page of these tenants.
pub fn page(tenants: &[Arc<Tenant>], asked: &Asked) -> Page {
    let words = asked.q.trim().to_lowercase();
    let mut page = Page { all: tenants.len(), ..Page::default() };
    let mut found = Vec::new();
    for tenant in tenants {
        let status = look::tenant(tenant);
        *count(&mut page.statuses, status.word) += 1;
        *count(&mut page.plans, &tenant.spec.plan_ref.name) += 1;
        let needs = status.level <= Level::Warn;
        page.attention += usize::from(needs);
        let fits_status = match asked.status.as_str() {
            "" => true,
            "attention" => needs,
            word => status.word == word,
        };
        let fits_plan = asked.plan.is_empty() || tenant.spec.plan_ref.name == asked.plan;
        if fits_status && fits_plan && (words.is_empty() || mentions(tenant, &words)) {
            found.push((tenant, status));
        }
    }
    let name = |tenant: &Tenant| (tenant.name_any(), tenant.namespace());
    let created = |tenant: &Tenant| tenant.creation_timestamp().map(|time| time.0);
    match asked.sort.as_str() {
        "status" => found.sort_by_cached_key(|(tenant, status)| (status.level, status.word.to_owned(), name(tenant))),
        "plan" => found.sort_by_cached_key(|(tenant, _)| (tenant.spec.plan_ref.name.clone(), name(tenant))),
        "newest" => found.sort_by_cached_key(|(tenant, _)| (Reverse(created(tenant)), name(tenant))),
        "oldest" => found.sort_by_cached_key(|(tenant, _)| (created(tenant), name(tenant))),
        _ => found.sort_by_cached_key(|(tenant, _)| name(tenant)),
    }
    page.total = found.len();
    page.number = asked.page.parse().unwrap_or(1).clamp(1, page.last());
    let lines = found.iter().skip((page.number - 1) * PAGE).take(PAGE);
    page.rows = lines.map(|(tenant, status)| row(tenant, status)).collect();
    page
}

/// The count of a word; the word is only copied when it is new.
fn count<'m>(counts: &'m mut BTreeMap<String, usize>, word: &str) -> &'m mut usize {
    if !counts.contains_key(word) {
        counts.insert(word.to_owned(), 0);
    }
    counts.get_mut(word).expect("it was put in above")
}

/// Whether a tenant has the words, in lower case, anywhere somebody would look for it.
fn mentions(tenant: &Tenant, words: &str) -> bool {
    let has = |text: &str| text.contains(words);
    let status = tenant.status.as_ref();
    tenant.metadata.name.as_deref().is_some_and(has)
        || tenant.metadata.namespace.as_deref().is_some_and(has)
        || tenant.spec.slug.as_deref().is_some_and(has)
        || tenant.spec.domains.iter().any(|domain| has(&domain.host))
        || status.and_then(|status| status.uuid.as_deref()).is_some_and(has)
        || status.and_then(|status| status.primary_host.as_deref()).is_some_and(has)
        || tenant.spec.display_name.to_lowercase().contains(words)
}

/// One line.
pub fn row(tenant: &Tenant, status: &look::Status<'_>) -> Row {
    let own = tenant.status.as_ref();
    let database = own.and_then(|status| status.database.as_ref());
    Row {
        namespace: tenant.namespace().unwrap_or_default(),
        name: tenant.name_any(),
        display_name: tenant.spec.display_name.clone(),
        plan: tenant.spec.plan_ref.name.clone(),
        status: status.word.to_owned(),
        class: status.level.class(),
        message: if status.level == Level::Good { String::new() } else { status.message.to_owned() },
        host: own.and_then(|status| status.primary_host.clone()).unwrap_or_default(),
        server: database.and_then(|database| database.server.clone()).unwrap_or_default(),
        created: tenant.creation_timestamp().map(|time| time.0.strftime("%Y-%m-%d").to_string()).unwrap_or_default(),
    }
}

#[derive(Template)]
#[template(path = "portal/tenants.html")]
struct TenantsPage {
    shell: Shell,
    asked: Asked,
    page: Page,
    /// The address of the page, up to the number.
    base: String,
    filtered: bool,
}

/// The list.
pub async fn tenants(
    State(portal): State<Portal>,
    Allowed(..): Allowed<View>,
    Query(asked): Query<Asked>,
    shell: Shell,
) -> Result<Response, Problem> {
    let page = page(&portal.directory().tenants(), &asked);
    let query = serde_urlencoded::to_string(&asked).unwrap_or_default();
    let base = if query.is_empty() { "/tenants?page=".to_owned() } else { format!("/tenants?{query}&page=") };
    let filtered = !(asked.q.is_empty() && asked.status.is_empty() && asked.plan.is_empty());
    html(&TenantsPage { shell, asked, page, base, filtered })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn fleet(count: usize) -> Vec<Arc<Tenant>> {
        let reasons =
            ["Active", "Active", "Active", "Active", "Suspended", "Provisioning", "SlugConflict", "BackupOverdue"];
        let make = |n: usize| {
            let reason = reasons[n % reasons.len()];
            let ready = if matches!(reason, "Active" | "Suspended") { "True" } else { "False" };
            let conditions: Vec<_> = ["Ready", "Reconciling", "Stalled", "Registered", "DatabaseReady", "PoolReady", "RouteReady", "Serving"]
                .iter()
                .map(|kind| json!({"type": kind, "status": if *kind == "Ready" { ready } else { "False" }, "reason": reason,
                    "message": "a sentence that says what is the matter and what to type next", "lastTransitionTime": "2026-01-01T00:00:00Z"}))
                .collect();
            let tenant = json!({"apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant",
                "metadata": {"name": format!("t{n:05}"), "namespace": "customers", "creationTimestamp": format!("2026-01-{:02}T00:00:00Z", 1 + n % 28)},
                "spec": {"displayName": format!("Müller {n} GmbH"), "planRef": {"name": if n.is_multiple_of(3) { "pro" } else { "free" }},
                         "domains": [{"host": format!("wartung.mueller-{n}.example")}]},
                "status": {"uuid": uuid::Uuid::from_u128(n as u128).to_string(), "primaryHost": format!("t{n:05}.example.com"),
                           "conditions": conditions}});
            Arc::new(serde_json::from_value(tenant).unwrap())
        };
        (0..count).rev().map(make).collect()
    }

    fn names(page: &Page) -> Vec<&str> {
        page.rows.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn a_list_is_searched_filtered_sorted_and_cut_into_pages() {
        let tenants = fleet(200);
        let of = |asked: Asked| page(&tenants, &asked);
        let all = of(Asked::default());
        assert_eq!((all.total, all.number, all.last(), all.rows.len()), (200, 1, 4, 50));
        assert_eq!(names(&all)[..2], ["t00000", "t00001"]);
        assert_eq!((all.first_row(), all.last_row()), (1, 50));
        let last = of(Asked { page: "99".into(), ..Asked::default() });
        assert_eq!((last.number, last.rows.len()), (4, 50));
        for nonsense in ["0", "-1", "x", "99999999999999999999", ""] {
            assert_eq!(of(Asked { page: nonsense.into(), ..Asked::default() }).number, 1, "{nonsense}");
        }
        for q in ["MÜLLER 7 gmbh", "t00007", "mueller-7.example", "00000000-0000-0000-0000-000000000007", " t00007 "] {
            assert_eq!(names(&of(Asked { q: q.into(), ..Asked::default() })), ["t00007"], "{q}");
        }
        let suspended = of(Asked { status: "Suspended".into(), plan: "pro".into(), ..Asked::default() });
        assert!(suspended.total > 0 && suspended.rows.iter().all(|row| row.status == "Suspended" && row.plan == "pro"));
        let attention = of(Asked { status: "attention".into(), ..Asked::default() });
        assert_eq!(attention.total, attention.attention);
        assert_eq!(attention.total, 50, "conflicts and overdue backups");
        assert_eq!(of(Asked { sort: "status".into(), ..Asked::default() }).rows[0].class, "bad");
        assert_eq!(names(&of(Asked { sort: "oldest".into(), ..Asked::default() }))[0], "t00000");
        assert_eq!(of(Asked { sort: "'; DROP".into(), q: "' OR true --".into(), ..Asked::default() }).total, 0);
        assert_eq!(page(&[], &Asked::default()).last(), 1);
    }

    #[test]
    fn ten_thousand_tenants_are_listed_within_a_tenth_of_a_second() {
        let tenants = fleet(10_000);
        let asked = [
            Asked::default(),
            Asked { q: "gmbh".into(), sort: "newest".into(), page: "100".into(), ..Asked::default() },
            Asked { q: "nobody has this".into(), ..Asked::default() },
            Asked { sort: "status".into(), ..Asked::default() },
        ];
        for asked in asked {
            // The best of three: other tests run beside this one.
            let best = (0..3).map(|_| {
                let begin = Instant::now();
                std::hint::black_box(page(&tenants, &asked));
                begin.elapsed()
            });
            let best = best.min().unwrap();
            // Not optimised, it is several times as slow.
            let most = if cfg!(debug_assertions) { Duration::from_millis(400) } else { Duration::from_millis(100) };
            assert!(best < most, "{asked:?} took {best:?}");
        }
    }
}
