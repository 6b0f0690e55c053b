//! `POST /stripe/webhook`. Stripe sends an event again, for three days, until it is answered with 2xx: so that is said once
//! the event is kept, and never before.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::event::Event;
use super::metrics::{Metrics, Outcome, Reason};
use super::record;
use super::signature::{Refused, Secrets};
use crate::central::Central;
use crate::error::chain;
use crate::http;
use crate::settings::BillingServeSettings;

/// Largest event that is read. Stripe's largest known, of an invoice with many lines, has a quarter of that.
const MOST: usize = 1 << 20;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(10);
/// Bodies that are read or kept at a time.
static BODIES: Semaphore = Semaphore::const_new(32);
/// How often the events that need somebody are counted.
const COUNT: Duration = Duration::from_secs(60);
/// Whose doing it is, in the audit trail.
const ACTOR: &str = "stripe";

/// Where the endpoint's secrets are.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// In a file, which may change.
    File(PathBuf),
    /// Here.
    Here(Secrets),
}

impl SecretSource {
    async fn read(&self) -> anyhow::Result<Secrets> {
        match self {
            Self::Here(secrets) => Ok(secrets.clone()),
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                let text = text.with_context(|| format!("reading the webhook's secrets, {}", path.display()))?;
                Secrets::parse(&text).with_context(|| format!("reading the webhook's secrets, {}", path.display()))
            }
        }
    }
}

/// The webhook.
#[derive(Clone)]
pub struct Webhook {
    /// Where events are kept.
    pub central: Central,
    /// What they are signed with.
    pub secrets: SecretSource,
    /// What is counted.
    pub metrics: Metrics,
}

/// Serves the webhook until `stop`.
///
/// # Errors
/// Settings that cannot work, an address that cannot be bound.
pub async fn run(settings: BillingServeSettings, stop: CancellationToken) -> anyhow::Result<()> {
    let secrets = match (settings.secret_file, settings.secret) {
        (Some(path), _) => SecretSource::File(path),
        (None, secret) => SecretSource::Here(Secrets::parse(&secret.unwrap_or_default())?),
    };
    secrets.read().await?;
    let central = Central::connect(&settings.central.central_url, settings.central.central_ca.as_deref())
        .await
        .context("reading the central database's settings")?;
    let (metrics, registry) = Metrics::new();
    let webhook = Webhook { central, secrets, metrics };
    // Ready also while the central database is away: then Stripe is told so, which is more than a refused connection says.
    let health = http::health(|| Ok(()));
    tokio::select! {
        served = async {
            tokio::try_join!(
                http::serve(settings.listen, router(webhook.clone()), stop.clone()),
                http::serve(settings.health_addr, health, stop.clone()),
                http::serve(settings.metrics_addr, http::metrics(registry), stop.clone()),
            )
        } => served.map(drop),
        () = count(&webhook) => Ok(()),
    }
}

/// What answers where.
pub fn router(webhook: Webhook) -> Router {
    Router::new().route("/stripe/webhook", post(answer)).with_state(webhook)
}

/// Counts what needs somebody, for ever.
async fn count(webhook: &Webhook) {
    loop {
        match webhook.central.unmatched_events().await {
            Ok(count) => drop(webhook.metrics.unmatched.set(count)),
            Err(error) => tracing::warn!(error = chain(&error), "could not count the events that need somebody"),
        }
        tokio::time::sleep(COUNT).await;
    }
}

async fn answer(State(webhook): State<Webhook>, headers: HeaderMap, body: Body) -> Response {
    let mut response = match take(&webhook, &headers, body).await {
        Ok(()) => (StatusCode::OK, "kept\n").into_response(),
        Err(status) => (status, format!("{}\n", status.canonical_reason().unwrap_or_default())).into_response(),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

/// Takes one event.
///
/// # Errors
/// What is answered instead; who sent it is not told what is wrong with a signature.
async fn take(webhook: &Webhook, headers: &HeaderMap, body: Body) -> Result<(), StatusCode> {
    let refuse = |reason: &'static str| {
        webhook.metrics.refused.get_or_create(&Reason { reason }).inc();
        StatusCode::BAD_REQUEST
    };
    let fail = || {
        webhook.metrics.failures.inc();
        StatusCode::SERVICE_UNAVAILABLE
    };
    let signature = one(headers).ok_or_else(|| refuse(Refused::Missing.label()))?;
    // Nobody is known yet who sends: what is held of strangers' bodies at a time is bounded. Stripe sends again.
    let _room = BODIES.try_acquire().map_err(|_| fail())?;
    let body = read(body).await.inspect_err(|_| {
        refuse("body");
    })?;
    let secrets = webhook.secrets.read().await.map_err(|error| {
        tracing::error!(error = format!("{error:#}"), "an event cannot be checked");
        fail()
    })?;
    let now = Timestamp::now();
    secrets.verify(signature, &body, now).map_err(|refused| {
        tracing::warn!(reason = %refused, "refused a request");
        refuse(refused.label())
    })?;
    let text = std::str::from_utf8(&body).ok();
    let event = text.map(|text| Event::parse(text, now)).transpose().map_err(|error| {
        tracing::error!(%error, "a body with a good signature is no event");
        refuse("body")
    })?;
    let (Some(text), Some(event)) = (text, event) else {
        tracing::error!("a body with a good signature is not UTF-8");
        return Err(refuse("body"));
    };
    match record(&webhook.central, &event, text, ACTOR).await {
        Ok(outcome) => {
            tracing::info!(
                event = event.id,
                kind = event.kind,
                subscription = event.subscription,
                outcome = outcome.as_str(),
                "an event of Stripe"
            );
            webhook.metrics.events.get_or_create(&Outcome { outcome: outcome.as_str() }).inc();
            webhook.metrics.last.set(now.as_second());
            Ok(())
        }
        Err(error) => {
            tracing::error!(
                event = event.id,
                error = chain(&error),
                "an event could not be kept, Stripe sends it again"
            );
            Err(fail())
        }
    }
}

/// The one header with the signature.
fn one(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all("stripe-signature").iter();
    let first = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(first)
}

async fn read(body: Body) -> Result<axum::body::Bytes, StatusCode> {
    match tokio::time::timeout(BODY, axum::body::to_bytes(body, MOST)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}
