//! The maintenance itself, on a real PostgreSQL: who may do what, what happens when two people do it at once, and what
//! is on record afterwards.

#![allow(clippy::unwrap_used, reason = "a failed test may say so at once")]

mod lists;
mod people;
#[path = "../tenants/mod.rs"]
mod tenants;
mod work;

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Method, StatusCode};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use maintenance_os::api::routing::{RoutingEntry, Subscription};
use maintenance_os::api::tenant::TenantState;
use maintenance_os::tenancy::pool::PoolSettings;
use serde_json::{Value, json};
use tenants::{Answer, App, Client, Server, answer, eventually, with_tenants};

const ADMIN: i64 = 1;
const MANAGER: i64 = 2;
const TINA: i64 = 3;
const VIEWER: i64 = 4;
const TOM: i64 = 5;

/// Names and roles of the people, whose ids are the constants above.
const PEOPLE: [(&str, &str); 5] = [
    ("Ada Admin", "admin"),
    ("Max Manager", "manager"),
    ("Tina Technician", "technician"),
    ("Vera Viewer", "viewer"),
    ("Tom Technician", "technician"),
];

/// One tenant, the app that serves it, and the people who use it.
struct Site<'a> {
    server: &'a Server,
    app: App,
    tenant: RoutingEntry,
    clients: Vec<Client>,
}

async fn with_site(change: impl FnOnce(&mut RoutingEntry), test: impl AsyncFnOnce(&mut Site<'_>)) {
    with_tenants(1, async |server, mut tenants| {
        change(&mut tenants[0]);
        let tenant = tenants[0].clone();
        let app = App::serving(&tenants, PoolSettings::new(40)).await;
        let mut clients = vec![];
        for (index, (name, role)) in PEOPLE.iter().enumerate() {
            let (id, token) = (index + 1, format!("mos_{index}-{}", tenant.uuid.simple()));
            let person = format!(
                "INSERT INTO users (name, email, role, email_verified_at) VALUES ('{name}', '{id}@example.com', '{role}', now());
                 INSERT INTO api_tokens (user_id, name, prefix, token_sha256)
                 VALUES ({id}, 'test', 'mos_', sha256(convert_to('{token}', 'UTF8')))"
            );
            server.sql(&tenant.database.name, &person).await;
            clients.push(app.session(&tenant, i64::try_from(id).unwrap(), token).await);
        }
        test(&mut Site { server, app, tenant, clients }).await;
    })
    .await;
}

impl Site<'_> {
    fn client(&self, user: i64) -> &Client {
        self.clients.iter().find(|client| client.user == user).unwrap()
    }

    async fn send(&self, user: i64, method: Method, path: &str, kind: &str, body: String) -> Answer {
        let request = self.client(user).request(method, path).header("content-type", kind);
        answer(&self.app.router, request.body(Body::from(body)).unwrap()).await
    }

    async fn get(&self, user: i64, path: &str) -> Answer {
        self.send(user, Method::GET, path, "text/plain", String::new()).await
    }

    /// A page that must be there.
    async fn page(&self, user: i64, path: &str) -> String {
        let answer = self.get(user, path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
        answer.body
    }

    async fn post(&self, user: i64, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.app.post_as(self.client(user), path, fields).await
    }

    async fn api(&self, user: i64, method: Method, path: &str, document: &Value) -> (StatusCode, Value) {
        let body = if document.is_null() { String::new() } else { document.to_string() };
        let answer = self.send(user, method, path, "application/json", body).await;
        let document = serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{path}: {}", answer.body));
        (answer.status, document)
    }

    async fn read(&self, path: &str) -> Value {
        let (status, document) = self.api(VIEWER, Method::GET, path, &Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {document}");
        document
    }

    async fn asset(&self, name: &str) -> i64 {
        let (status, asset) = self.api(MANAGER, Method::POST, "/api/assets", &json!({ "name": name })).await;
        assert_eq!(status, StatusCode::CREATED, "{asset}");
        asset["id"].as_i64().unwrap()
    }

    async fn routine(&self, asset: i64, name: &str, every: i32, unit: &str, due: Date) -> i64 {
        let document = json!({ "asset_id": asset, "name": name, "interval_count": every, "interval_unit": unit, "next_due_on": due.to_string() });
        let (status, routine) = self.api(MANAGER, Method::POST, "/api/routines", &document).await;
        assert_eq!(status, StatusCode::CREATED, "{routine}");
        routine["id"].as_i64().unwrap()
    }

    /// The open execution of a routine.
    async fn open(&self, routine: i64) -> Option<Value> {
        let list = self.read(&format!("/api/executions?routine_id={routine}")).await;
        let is_open = |work: &&Value| ["pending", "in_progress"].contains(&work["status"].as_str().unwrap());
        list["items"].as_array().unwrap().iter().find(is_open).cloned()
    }

    async fn step(&self, user: i64, work: i64, step: &str, document: &Value) -> (StatusCode, Value) {
        self.api(user, Method::POST, &format!("/api/executions/{work}/{step}"), document).await
    }

    async fn number(&self, query: &str) -> i64 {
        self.server.number(&self.tenant.database.name, query).await
    }

    async fn sql(&self, statements: &str) {
        self.server.sql(&self.tenant.database.name, statements).await;
    }
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn id(document: &Value) -> i64 {
    document["id"].as_i64().unwrap_or_else(|| panic!("{document}"))
}
