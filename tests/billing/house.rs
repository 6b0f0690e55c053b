//! A central database with a tenant, webhooks before it, and Stripe's side of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use maintenance_os::billing::metrics::Metrics;
use maintenance_os::billing::serve::{SecretSource, Webhook, router};
use maintenance_os::billing::signature::{Secrets, sign};
use maintenance_os::central::Central;
use maintenance_os::http;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{Database, Object, ca, options, url_of};

pub const SECRET: &str = "whsec_test";
/// 2026-11-27T00:00:00Z.
pub const NOW: i64 = 1_795_737_600;
pub const DAY: i64 = 86_400;

pub struct House {
    pub db: Database,
    pub tenant: Uuid,
}

impl House {
    pub async fn new() -> Self {
        maintenance_os::telemetry::install_crypto_provider();
        let db = Database::new().await;
        let tenant = db.provisioned(&Object::new("acme")).await;
        Self { db, tenant }
    }

    /// What the subscription's row says, without what counts up.
    pub async fn row(&self, subscription: &str) -> String {
        let rows = self
            .db
            .texts(&format!(
                "SELECT (to_jsonb(s) - 'id' - 'stripe_subscription_id')::text FROM subscriptions s
                 WHERE stripe_subscription_id = '{subscription}'"
            ))
            .await;
        rows.concat()
    }

    /// Status of the subscription that counts.
    pub async fn status(&self) -> Option<String> {
        self.db.row(self.tenant).await.subscription.map(|subscription| subscription.status)
    }

    pub async fn outcomes(&self) -> Vec<String> {
        self.db.texts("SELECT id || ' ' || outcome FROM billing_events ORDER BY received").await
    }

    pub async fn count(&self, table: &str) -> i64 {
        self.db.number(&format!("SELECT count(*) FROM {table}")).await
    }

    /// Takes an event as the webhook does once its signature is right.
    pub async fn take(&self, event: &Value) -> String {
        let body = event.to_string();
        let event = maintenance_os::billing::event::Event::parse(&body, Timestamp::now()).unwrap();
        maintenance_os::billing::record(&self.db.central, &event, &body, "stripe").await.unwrap().as_str().to_owned()
    }
}

/// A webhook that listens.
pub struct Served {
    pub address: SocketAddr,
    pub registry: Arc<Mutex<Registry>>,
    client: reqwest::Client,
    stop: CancellationToken,
}

impl Served {
    pub async fn new(central: Central) -> Self {
        Self::with(central, SecretSource::Here(Secrets::parse(SECRET).unwrap())).await
    }

    pub async fn with(central: Central, secrets: SecretSource) -> Self {
        let (metrics, registry) = Metrics::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = router(Webhook { central, secrets, metrics });
        tokio::spawn(http::accept(listener, router, Duration::from_secs(5), stop.clone()));
        Self { address, registry, client: reqwest::Client::new(), stop }
    }

    pub fn url(&self) -> String {
        format!("http://{}/stripe/webhook", self.address)
    }

    /// As Stripe sends it; status and body of the answer.
    pub async fn send(&self, event: &Value) -> (u16, String) {
        let body = event.to_string();
        let header = sign(SECRET, body.as_bytes(), Timestamp::now());
        self.post(body.into_bytes(), &[&header]).await
    }

    pub async fn post(&self, body: Vec<u8>, headers: &[&str]) -> (u16, String) {
        let mut request = self.client.post(self.url()).body(body);
        for header in headers {
            request = request.header("stripe-signature", *header);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The value of a series of the metrics.
    pub fn figure(&self, series: &str) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock().unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).to_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The way to the server, which can be cut, or carry nothing any more.
pub struct Line {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    cut: CancellationToken,
    silent: CancellationToken,
}

impl Line {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (server, now) = (format!("{}:{}", options().get_host(), options().get_port()), Arc::clone(&state));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, State { cut, silent }) = (server.clone(), now.lock().unwrap().clone());
                tokio::spawn(async move {
                    let forward = async {
                        let mut server = TcpStream::connect(server).await.unwrap();
                        let carried = tokio::io::copy_bidirectional(&mut client, &mut server);
                        if silent.run_until_cancelled(carried).await.is_none() {
                            std::future::pending::<()>().await;
                        }
                    };
                    let _ = cut.run_until_cancelled(forward).await;
                });
            }
        });
        Self { address, state }
    }

    pub fn cut(&self) {
        self.state.lock().unwrap().cut.cancel();
    }

    /// What is connected stays so, and nothing comes through.
    pub fn fall_silent(&self) {
        self.state.lock().unwrap().silent.cancel();
    }

    /// For connections that are made from now on.
    pub fn mend(&self) {
        *self.state.lock().unwrap() = State::default();
    }

    /// The central database by way of this.
    pub async fn central(&self, database: &Database) -> Central {
        let url = url_of(&database.name);
        let (before, after) = (options().get_port().to_string(), self.address.port().to_string());
        Central::connect(&url.replace(&format!(":{before}/"), &format!(":{after}/")), Some(&ca())).await.unwrap()
    }
}

/// An event about a subscription. `more`: fields of the object.
pub fn subscription(event: &str, kind: &str, created: i64, id: &str, status: &str, more: &Value) -> Value {
    let mut object = json!({ "id": id, "object": "subscription", "status": status, "customer": "cus_1", "start_date": NOW,
        "metadata": {}, "cancel_at_period_end": false, "items": { "object": "list", "data": [
            { "id": "si_1", "current_period_start": NOW, "current_period_end": NOW + 30 * DAY, "price": { "lookup_key": "pro" } }] } });
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
    json!({ "id": event, "object": "event", "api_version": "2026-10-29.clover", "type": format!("customer.subscription.{kind}"),
        "created": created, "data": { "object": object } })
}

/// An event about something else.
pub fn other(event: &str, kind: &str, created: i64, object: &Value) -> Value {
    json!({ "id": event, "object": "event", "type": kind, "created": created, "data": { "object": object } })
}

pub fn of(tenant: Uuid) -> Value {
    json!({ "metadata": { "tenant": tenant } })
}
