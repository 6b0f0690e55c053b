//! Every log line of a request names the tenant and the host. Alone in its file, because what is logged is decided once
//! per process: tests beside it would decide it too.

#![allow(clippy::unwrap_used, reason = "a failed test may say so at once")]

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::{Request, StatusCode};
use maintenance_os::app;
use maintenance_os::slices::Change;
use maintenance_os::tenancy::{Tenancy, TenancySettings};
use serde_json::{Value, json};
use tower::ServiceExt;

const UUID: &str = "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A slice with one tenant, whose database is on a port where nothing listens.
fn slice() -> Value {
    json!({ "schema": 1, "generation": 1, "epoch": 1, "tenants": [{
        "uuid": UUID, "namespace": "customers", "name": "acme", "slug": "acme", "displayName": "Acme GmbH",
        "state": "Active", "hosts": ["acme.example"], "primaryHost": "acme.example",
        "plan": { "name": "pro", "features": [], "limits": {} }, "subscription": { "status": "none" },
        "database": {
            "host": "127.0.0.1", "port": 1, "name": format!("tenant_{UUID}"), "username": format!("tenant_{UUID}_a"),
            "password": "hunter2", "sslmode": "disable",
        },
        "queue": { "name": "q", "weight": 1, "maxProcesses": 1 }, "storagePrefix": "tenants/",
    }] })
}

#[tokio::test]
async fn every_line_of_a_request_names_the_tenant_and_the_host_and_no_secret() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let tenancy = Tenancy::new(&TenancySettings::new("maintenance-os.com")).unwrap();
    let change = Change { slice: "routing-00".into(), content: Some(slice().to_string().into_bytes()) };
    tenancy.follow(futures::stream::iter([change]), 1).await;

    let request =
        Request::get("/api/tenant?token=hunter2").header("host", "ACME.example:443").body(Body::empty()).unwrap();
    let response = app::router(&app::Product::new(&tenancy)).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);

    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let of_the_request: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["target"] == "tenant")
        .collect();
    let messages: Vec<&str> = of_the_request.iter().filter_map(|line| line["message"].as_str()).collect();
    assert_eq!(messages, ["request failed", "answered"], "{text}");
    for line in &of_the_request {
        assert_eq!(line["span"]["tenant_id"], UUID);
        assert_eq!(line["span"]["tenant_domain"], "acme.example");
    }
    assert!(!text.contains("hunter2"), "{text}");
}
