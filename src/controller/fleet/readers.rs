//! Hears from every ready endpoint of the app's and the poolers' Services what it serves: a long poll held open to each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, ResourceExt};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::{Fleet, Wake};
use crate::api::slices::Acknowledgement;
use crate::desired::names;
use crate::error::chain;

/// Label of an EndpointSlice with the name of its Service.
const SERVICE: &str = "kubernetes.io/service-name";
/// Name of the port that answers `/acks`.
const PORT: &str = "ack";
/// Longer than a reader may hold a poll.
const TIMEOUT: Duration = Duration::from_secs(35);
const RETRY: Duration = Duration::from_millis(250);

/// A ready endpoint.
pub struct Endpoint {
    /// None until it has answered.
    acknowledged: Option<Acknowledgement>,
    poll: AbortHandle,
}

impl Endpoint {
    /// Whether it serves this generation of a slice, or a later one.
    pub fn serves(&self, slice: &str, generation: u64) -> bool {
        generation == 0
            || self
                .acknowledged
                .as_ref()
                .and_then(|acknowledged| acknowledged.slices.get(slice))
                .is_some_and(|served| *served >= generation)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.poll.abort();
    }
}

impl Fleet {
    /// Follows the endpoints until `stop`.
    pub async fn listen(self: Arc<Self>, client: Client, namespace: String, stop: CancellationToken) {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .expect("a client without TLS can always be made");
        let api: Api<EndpointSlice> = Api::namespaced(client, &namespace);
        let (store, writer) = reflector::store();
        let events = reflector(writer, watcher(api, watcher::Config::default())).default_backoff();
        let mut events = std::pin::pin!(events.take_until(stop.cancelled_owned()));
        while let Some(event) = events.next().await {
            match event {
                // The store shows a list when it is whole and not before: its last event counts, not its objects.
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                Ok(_) => self.follow(&http, &targets(&store.state())),
                Err(error) => tracing::warn!(error = chain(&error), "the watch of the endpoints broke, trying again"),
            }
        }
    }

    /// Whether every ready endpoint has answered once, and there is one.
    pub fn heard(&self) -> bool {
        let state = self.lock();
        let mut endpoints = state.readers.values().flat_map(BTreeMap::values).peekable();
        endpoints.peek().is_some() && endpoints.all(|endpoint| endpoint.acknowledged.is_some())
    }

    /// Begins to poll endpoints that came and ends the poll of those that went.
    fn follow(self: &Arc<Self>, http: &reqwest::Client, targets: &HashMap<String, BTreeMap<String, String>>) {
        let mut state = self.lock();
        let served = |state: &super::State| -> Vec<String> {
            state
                .readers
                .iter()
                // Without workers of its own a tenant is served all the same.
                .filter(|(service, endpoints)| !endpoints.is_empty() && !names::is_of_workers(service))
                .map(|(service, _)| service.clone())
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect()
        };
        let before = served(&state);
        for (service, endpoints) in &mut state.readers {
            endpoints.retain(|name, _| targets.get(service).is_some_and(|targets| targets.contains_key(name)));
        }
        for (service, endpoints) in targets {
            for (name, address) in endpoints {
                let known = state.readers.entry(service.clone()).or_default();
                if !known.contains_key(name) {
                    let poll = tokio::spawn(Arc::clone(self).poll(
                        http.clone(),
                        service.clone(),
                        name.clone(),
                        address.clone(),
                    ));
                    known.insert(name.clone(), Endpoint { acknowledged: None, poll: poll.abort_handle() });
                }
            }
        }
        let changed = before != served(&state);
        drop(state);
        if changed {
            let _ = self.woken.send(Wake::All);
        }
        self.wake_served();
    }

    async fn poll(self: Arc<Self>, http: reqwest::Client, service: String, name: String, address: String) {
        let mut version = None;
        loop {
            let query = version.map_or_else(String::new, |version: u64| format!("?version={version}"));
            let answer = async {
                http.get(format!("http://{address}/acks{query}"))
                    .send()
                    .await?
                    .error_for_status()?
                    .json::<Acknowledgement>()
                    .await
            };
            match answer.await {
                Ok(acknowledgement) => {
                    version = Some(acknowledgement.version);
                    self.wake_wanted(&acknowledgement.wanted);
                    self.acknowledge(&service, &name, Some(acknowledgement));
                }
                Err(error) => {
                    tracing::debug!(
                        endpoint = name,
                        error = chain(&error),
                        "an endpoint does not acknowledge, trying again"
                    );
                    version = None;
                    self.acknowledge(&service, &name, None);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn acknowledge(&self, service: &str, name: &str, acknowledgement: Option<Acknowledgement>) {
        let mut state = self.lock();
        if let Some(endpoint) = state.readers.get_mut(service).and_then(|endpoints| endpoints.get_mut(name)) {
            endpoint.acknowledged = acknowledgement;
        }
        drop(state);
        self.wake_served();
    }
}

/// Service to endpoint name to address of its acknowledgements, of every ready endpoint.
fn targets(slices: &[Arc<EndpointSlice>]) -> HashMap<String, BTreeMap<String, String>> {
    let mut targets: HashMap<String, BTreeMap<String, String>> = HashMap::new();
    for slice in slices {
        let Some(service) = slice.labels().get(SERVICE) else { continue };
        let port =
            slice.ports.iter().flatten().find(|port| port.name.as_deref() == Some(PORT)).and_then(|port| port.port);
        let Some(port) = port else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            let Some(address) = endpoint.addresses.first().filter(|_| ready) else { continue };
            let name =
                endpoint.target_ref.as_ref().and_then(|target| target.name.clone()).unwrap_or_else(|| address.clone());
            targets.entry(service.clone()).or_default().insert(name, format!("{address}:{port}"));
        }
    }
    targets
}
