//! The small servers beside each role: health, metrics, acknowledgements.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

/// Serves `router` on `address` until `stop`, letting requests in flight end.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .with_context(|| format!("serving {address}"))
}

/// `/healthz`, always 200, and `/readyz`, 200 or 503 with the reason.
pub fn health(ready: impl Fn() -> Result<(), String> + Clone + Send + Sync + 'static) -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).route(
        "/readyz",
        get(move || {
            let answer = match ready() {
                Ok(()) => (StatusCode::OK, "ok".to_owned()),
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
            };
            async move { answer }
        }),
    )
}

/// `/metrics` in the OpenMetrics text format.
pub fn metrics(registry: Arc<Mutex<Registry>>) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let mut text = String::new();
            let registry = registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a String cannot fail");
            async move { ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text) }
        }),
    )
}
