//! What answers where, and what every request passes on its way.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};

use super::accounts::Users;
use super::problem::Problem;
use super::product::Product;
use super::{accounts, files, jobs, plant, render, same_origin};
use crate::tenancy::layers::auth::{self, Auth};
use crate::tenancy::layers::subscription::OpenPaths;
use crate::tenancy::layers::{self, verified};

/// Largest body that is read: forms and small JSON documents.
const MAX_BODY: usize = 64 * 1024;

/// The whole product.
pub fn router(product: &Product) -> Router {
    let auth = Auth { tenancy: product.tenancy().clone(), guard: Users { mailer: product.mailer().clone() } };
    let know_user = || from_fn_with_state(auth.clone(), auth::know_user::<Users>);
    let require_user = || from_fn_with_state(auth.clone(), auth::require_user::<Users>);
    let signed_in = accounts::signed_in().merge(plant::signed_in()).merge(files::signed_in(product.files()));
    let signed_in = signed_in.merge(jobs::signed_in());
    let signed_in = layers::within_plan(signed_in, OpenPaths::default())
        // The one that is added last sees the request first.
        .route_layer(from_fn_with_state(auth.clone(), verified::require_verified::<Users>))
        .route_layer(require_user());
    let public = accounts::public()
        .route_layer(from_fn_with_state(product.clone(), accounts::form_secret))
        .route_layer(know_user());
    let routes = Router::new()
        .merge(public)
        .merge(accounts::unverified().route_layer(require_user()))
        .merge(signed_in)
        .merge(files::public())
        // For whoever wants to know whether a tenant is served; asks its database.
        .merge(Router::new().route("/api/tenant", axum::routing::get(plant::settings::tenant)).route_layer(know_user()))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(same_origin::require_same_origin));
    layers::tenant(routes.with_state(product.clone()), product.tenancy())
        // Around everything, so that refusals of the layers get a page too.
        .layer(from_fn(render::render_problems))
        .layer(from_fn(render::set_security_headers))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::stream;
    use http::{Method, Request, StatusCode};
    use tower::ServiceExt;
    use uuid::Uuid;

    use super::*;
    use crate::api::routing::RoutingEntry;
    use crate::api::tenant::TenantState;
    use crate::slices::Change;
    use crate::tenancy::pool::PoolSettings;
    use crate::tenancy::testing::{entry, slice};
    use crate::tenancy::{Tenancy, TenancySettings};

    fn acme(state: TenantState) -> RoutingEntry {
        let hosts = ["acme.maintenance-os.com", "admin.acme.example", "admin.maintenance-os.com", "maintenance-os.com"];
        RoutingEntry { state, sleeps: state == TenantState::Hibernated, ..entry(Uuid::from_u128(1), &hosts) }
    }

    async fn app(tenants: &[RoutingEntry]) -> (Tenancy, Router) {
        let tenancy = Tenancy::new(&TenancySettings {
            always_served: accounts::ALWAYS_SERVED,
            admin_host: Some("admin.maintenance-os.com".into()),
            pool: PoolSettings::new(8),
            ..TenancySettings::new("maintenance-os.com")
        })
        .unwrap();
        let change = Change { slice: "routing-00".into(), content: Some(slice(1, 1, tenants)) };
        tenancy.follow(stream::iter([change]), 1).await;
        let router = router(&Product::new(&tenancy));
        (tenancy, router)
    }

    struct Answer {
        status: StatusCode,
        headers: http::HeaderMap,
        body: String,
    }

    async fn answer(router: &Router, request: http::request::Builder, body: impl Into<Body>) -> Answer {
        let response = router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    async fn get(router: &Router, host: &str, path: &str) -> Answer {
        answer(router, Request::get(path).header("host", host), "").await
    }

    #[tokio::test]
    async fn an_unknown_host_is_answered_404_tenant_not_found_and_names_nobody() {
        let (_, router) = app(&[acme(TenantState::Active)]).await;
        let hosts = ["other.maintenance-os.com", "acme.example", "x.acme.maintenance-os.com", "10.0.0.1", "[::1]:9000"];
        for host in hosts {
            for path in ["/", "/assets", "/api/tenant", "/healthz", "/style.css"] {
                let answer = get(&router, host, path).await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{host}{path}");
                assert!(answer.body.contains("Tenant not found"), "{host}{path}: {}", answer.body);
                assert!(!answer.body.to_lowercase().contains("acme"), "{host}{path}: {}", answer.body);
            }
        }
    }

    #[tokio::test]
    async fn tenants_pages_do_not_exist_at_central_hosts_even_when_routing_claims_them() {
        let (_, router) = app(&[acme(TenantState::Active)]).await;
        for host in
            ["maintenance-os.com", "WWW.maintenance-os.com:443", "admin.maintenance-os.com", "maintenance-os.com."]
        {
            for path in ["/", "/api/tenant"] {
                let answer = get(&router, host, path).await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{host}{path}");
                assert!(!answer.body.contains("Tenant not found"), "{host}{path}: {}", answer.body);
            }
        }
    }

    #[tokio::test]
    async fn a_customers_own_admin_host_is_a_tenants_host_like_any_other() {
        let (_, router) = app(&[acme(TenantState::Active)]).await;
        // 503 and not 404: it went all the way to the database, which in this test is not there.
        let answer = get(&router, "admin.acme.example", "/api/tenant").await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_host_that_is_not_one_host_is_answered_400() {
        let (_, router) = app(&[acme(TenantState::Active)]).await;
        let twice = Request::get("/").header("host", "acme.maintenance-os.com").header("host", "other.example");
        assert_eq!(answer(&router, twice, "").await.status, StatusCode::BAD_REQUEST);
        let absolute = Request::get("http://other.example/").header("host", "acme.maintenance-os.com");
        assert_eq!(answer(&router, absolute, "").await.status, StatusCode::BAD_REQUEST);
        let long = Request::get("/").header("host", "a".repeat(8192));
        let refused = answer(&router, long, "").await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains("longer than 253"), "{}", refused.body);
    }

    #[tokio::test]
    async fn a_tenant_whose_data_is_being_replaced_answers_with_a_page_that_asks_again_by_itself() {
        let closed = RoutingEntry { sleeps: false, ..acme(TenantState::Hibernated) };
        let (_tenancy, router) = app(&[closed]).await;
        for method in [Method::GET, Method::POST] {
            let request = Request::builder().method(&method).uri("/assets").header("host", "acme.maintenance-os.com");
            let answer = answer(&router, request, "").await;
            assert_eq!((answer.status.as_u16(), answer.headers["retry-after"].to_str().unwrap()), (503, "2"));
            assert!(answer.body.contains("Back in a moment"), "{}", answer.body);
        }
    }

    #[tokio::test]
    async fn each_state_is_answered_as_its_row_of_the_table_says() {
        // An active tenant's handlers answer 503 too, since there is no database here: the title tells them apart.
        let rows = [
            (TenantState::Active, Method::GET, "/api/tenant", 503, "cannot be reached"),
            (TenantState::Active, Method::POST, "/api/assets", 503, "cannot be reached"),
            (TenantState::ReadOnly, Method::GET, "/api/tenant", 503, "cannot be reached"),
            (TenantState::ReadOnly, Method::POST, "/assets", 503, "Read-only"),
            (TenantState::ReadOnly, Method::POST, "/profile/name", 503, "Read-only"),
            (TenantState::ReadOnly, Method::POST, "/sign-in", 403, "not valid any more"),
            (TenantState::ReadOnly, Method::from_bytes(b"PURGE").unwrap(), "/", 503, "Read-only"),
            (TenantState::Suspended, Method::GET, "/", 503, "not available"),
            (TenantState::Suspended, Method::GET, "/nowhere", 503, "not available"),
            (TenantState::Suspended, Method::POST, "/api/assets", 503, "not available"),
            (TenantState::Hibernated, Method::GET, "/", 503, "Waking up"),
        ];
        for (state, method, path, status, expected) in rows {
            let (tenancy, router) = app(&[acme(state)]).await;
            let request = Request::builder()
                .method(&method)
                .uri(path)
                .header("host", "acme.maintenance-os.com")
                .header("authorization", "Bearer mos_x")
                .header("content-type", "application/x-www-form-urlencoded");
            let answer = answer(&router, request, "name=Pump").await;
            assert_eq!(answer.status.as_u16(), status, "{state:?} {method} {path}");
            assert!(answer.body.contains(expected), "{state:?} {method} {path}: {}", answer.body);
            assert!(!answer.body.contains("Acme GmbH"), "a page that strangers see names nobody");
            assert_eq!(
                answer.headers.contains_key("retry-after"),
                matches!(expected, "cannot be reached" | "Waking up")
            );
            assert_eq!(tenancy.pools().open(), 0);
        }
    }

    #[tokio::test]
    async fn problems_have_a_page_for_people_and_a_document_for_programs() {
        let (_, router) = app(&[acme(TenantState::Active)]).await;
        let host = "acme.maintenance-os.com";
        let post = |path: &str, kind: &str| Request::post(path).header("host", host).header("content-type", kind);
        let form = "application/x-www-form-urlencoded";
        let large = format!("name={}", "a".repeat(70_000));
        let cross = post("/sign-in", form).header("origin", "https://other.example");
        let answers = [
            (404, get(&router, host, "/nowhere").await),
            (404, get(&router, host, "/api/nowhere").await),
            (405, get(&router, host, "/sign-out").await),
            (405, answer(&router, post("/api/me", "application/json"), "{}").await),
            (413, answer(&router, post("/sign-in", form), large).await),
            (415, answer(&router, post("/sign-in", "text/plain"), "{}").await),
            (403, answer(&router, cross, "name=Pump").await),
            (403, answer(&router, post("/sign-in", form), "email=x").await),
            (401, answer(&router, post("/api/assets", "application/json"), "{\"name\":\"Pump\"}").await),
            (503, get(&router, host, "/api/tenant").await),
        ];
        for (index, (status, answer)) in answers.iter().enumerate() {
            assert_eq!(answer.status.as_u16(), *status, "answer {index}: {}", answer.body);
            let kind = answer.headers["content-type"].to_str().unwrap();
            if kind == "application/problem+json" {
                let document: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
                assert_eq!(document["status"], *status);
                assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
            } else {
                assert_eq!(kind, "text/html; charset=utf-8", "answer {index}");
                assert!(answer.body.contains("<h1>"), "answer {index}: {}", answer.body);
            }
            assert_eq!(answer.headers["x-content-type-options"], "nosniff", "answer {index}");
            assert!(answer.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
        }
        assert_eq!(answers[2].1.headers["allow"], "POST");
    }

    #[tokio::test]
    async fn requests_are_counted_for_their_tenant_and_unknown_hosts_for_nobody() {
        let (tenancy, router) = app(&[acme(TenantState::Suspended)]).await;
        get(&router, "acme.maintenance-os.com", "/").await;
        get(&router, "other.example", "/").await;
        get(&router, "maintenance-os.com", "/").await;
        let mut registry = prometheus_client::registry::Registry::default();
        tenancy.metrics().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("tenant_requests_total")).collect();
        let uuid = Uuid::from_u128(1);
        assert_eq!(lines, [format!("tenant_requests_total{{tenant_id=\"{uuid}\",status=\"503\"}} 1")]);
    }
}
