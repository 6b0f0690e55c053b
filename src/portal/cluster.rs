//! What the portal does through the Kubernetes API. Nothing is overwritten that somebody changed meanwhile.

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{Plan, Tenant};
use crate::error::chain;

/// Who the fields belong to that the portal writes.
pub const FIELD_MANAGER: &str = "maintenance-os-portal";
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The operator writes the status all the time, which is nobody's conflict: so often it is tried around such writes.
const TRIES: usize = 12;
/// Events that are shown of one object.
const EVENTS: u32 = 100;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no such object, or not any more, or another one of its name.
    #[error("it is not there any more")]
    Gone,
    /// Somebody changed it since it was shown.
    #[error("somebody else changed it meanwhile")]
    Conflict,
    /// One of that name is there.
    #[error("there is one of that name")]
    Exists,
    /// It breaks a rule, or the portal lacks a right. The text is for people.
    #[error("{0}")]
    Refused(String),
    /// No answer, or none that can be understood.
    #[error("the Kubernetes API does not answer: {0}")]
    Away(String),
}

/// What somebody saw of an object when they decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// metadata.uid: another object of the same name is another object.
    pub uid: String,
    /// metadata.generation: grows with each change of what is asked for.
    pub generation: i64,
}

impl Seen {
    /// Of this object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self { uid: meta.uid.clone().unwrap_or_default(), generation: meta.generation.unwrap_or_default() }
    }
}

/// The Kubernetes API.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    /// With this client.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// A Tenant as it is now, with its managed fields.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn tenant(&self, namespace: &str, name: &str) -> Result<Tenant, ClusterError> {
        are_names(&[namespace, name])?;
        in_time(self.tenants(namespace).get(name)).await
    }

    /// A Plan as it is now, with its managed fields.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn plan(&self, name: &str) -> Result<Plan, ClusterError> {
        are_names(&[name])?;
        in_time(Api::<Plan>::all(self.client.clone()).get(name)).await
    }

    /// Makes a Tenant.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn create_tenant(&self, namespace: &str, tenant: &Tenant) -> Result<Tenant, ClusterError> {
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        in_time(self.tenants(namespace).create(&parameters, tenant)).await
    }

    /// Merges `patch` into a Tenant, if what is asked for there is still what was seen.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn change_tenant(
        &self,
        namespace: &str,
        name: &str,
        seen: &Seen,
        patch: &Value,
    ) -> Result<Tenant, ClusterError> {
        are_names(&[namespace, name])?;
        change(&self.tenants(namespace), name, seen, patch).await
    }

    /// Merges `patch` into a Plan, if it is still what was seen.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn change_plan(&self, name: &str, seen: &Seen, patch: &Value) -> Result<Plan, ClusterError> {
        are_names(&[name])?;
        change(&Api::all(self.client.clone()), name, seen, patch).await
    }

    /// Deletes a Tenant, if it is still what was seen.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn delete_tenant(&self, namespace: &str, name: &str, seen: &Seen) -> Result<(), ClusterError> {
        are_names(&[namespace, name])?;
        let api = self.tenants(namespace);
        for _ in 0..TRIES {
            let now = in_time(api.get(name)).await?;
            unchanged(&now, seen)?;
            let preconditions = Preconditions { uid: Some(seen.uid.clone()), resource_version: now.resource_version() };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match in_time(api.delete(name, &parameters)).await {
                Err(ClusterError::Conflict) => {}
                done => return done.map(drop),
            }
        }
        Err(ClusterError::Conflict)
    }

    /// What was told about a Tenant lately, newest first.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn events(&self, namespace: &str, uid: &str) -> Result<Vec<Event>, ClusterError> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let parameters = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(EVENTS);
        let mut events = in_time(api.list(&parameters)).await?.items;
        events.sort_by_key(|event| std::cmp::Reverse(told_at(event)));
        Ok(events)
    }

    fn tenants(&self, namespace: &str) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// A name becomes a part of the path of a request that is made with the portal's own rights: `..` and `/` would lead
/// elsewhere. Nothing has such a name.
fn are_names(names: &[&str]) -> Result<(), ClusterError> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let is_name = |name: &&str| {
        name.len() <= 253
            && name.bytes().all(is_inner)
            && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && !name.contains("..")
    };
    if names.iter().all(is_name) { Ok(()) } else { Err(ClusterError::Gone) }
}

/// When an event was told last.
pub fn told_at(event: &Event) -> Option<jiff::Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    series.or(last).or(event.event_time.as_ref().map(|time| time.0))
}

async fn change<K>(api: &Api<K>, name: &str, seen: &Seen, patch: &Value) -> Result<K, ClusterError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    for _ in 0..TRIES {
        let now = in_time(api.get(name)).await?;
        unchanged(&now, seen)?;
        let mut patch = patch.clone();
        patch["metadata"] = json!({ "resourceVersion": now.resource_version(), "uid": seen.uid });
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match in_time(api.patch(name, &parameters, &Patch::Merge(&patch))).await {
            // Perhaps only the status; the next look tells.
            Err(ClusterError::Conflict) => {}
            done => return done,
        }
    }
    Err(ClusterError::Conflict)
}

fn unchanged<K: Resource>(now: &K, seen: &Seen) -> Result<(), ClusterError> {
    let now = Seen::of(now);
    match () {
        () if now.uid != seen.uid => Err(ClusterError::Gone),
        () if now.generation != seen.generation => Err(ClusterError::Conflict),
        () => Ok(()),
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(result) => result.map_err(classify),
        Err(_) => Err(ClusterError::Away(format!("not within {} seconds", PATIENCE.as_secs()))),
    }
}

fn classify(error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) => match status.code {
            404 => ClusterError::Gone,
            409 if status.is_already_exists() => ClusterError::Exists,
            409 => ClusterError::Conflict,
            400..=499 => ClusterError::Refused(status.message.clone()),
            _ => ClusterError::Away(status.message.clone()),
        },
        error => ClusterError::Away(chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_of_a_path_is_no_name() {
        for good in ["acme", "a-1", "pg.eu"] {
            assert!(are_names(&[good]).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "a%2fb", "A", "a b", "-a", "a..b", "\0", "a?b", "a#b", "ä"] {
            assert!(are_names(&["acme", bad]).is_err(), "{bad}");
        }
    }
}
