//! Writes slices that changed: what arrives within a short time goes into one write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::slice::Slice;
use super::{Fleet, Side};
use crate::api::slices::SLICE_KEY;
use crate::api::{LABEL_SERVER, LABEL_SLICE, MANAGED_BY};
use crate::apply::ApplyError;
use crate::error::chain;

/// A change that comes alone is written after this time, which nobody notices.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// After this many changes it is a burst, and its end is waited for: each write carries a whole slice, and a burst meets
/// every slice several times.
const FEW: usize = 2;
/// A burst has ended when nothing has changed for this time …
const QUIET: Duration = Duration::from_millis(50);
/// … and is written in pieces when it goes on for longer than this.
const LONGEST: Duration = Duration::from_millis(400);
/// Before a failed write is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// On each side. A Tenant waits for the last of them.
const WRITES_AT_A_TIME: usize = 16;

impl Fleet {
    /// Reads every slice; called before anything is changed. Returns the highest term that wrote one.
    ///
    /// # Errors
    /// The API server did not answer, or a slice cannot be read.
    pub async fn load(&self, client: &Client, namespace: &str) -> anyhow::Result<u64> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let found = secrets
            .list(&ListParams::default().labels(LABEL_SLICE))
            .await
            .map_err(|source| ApplyError::kubernetes("list the slices", source))?;
        let mut slices = std::collections::BTreeMap::new();
        for secret in found {
            slices.insert(secret.name_any(), Slice::read(&secret).map_err(anyhow::Error::msg)?);
        }
        let epoch = slices.values().map(|slice: &Slice| slice.epoch).max().unwrap_or_default();
        self.lock().slices = slices;
        Ok(epoch)
    }

    /// Writes what changed until `stop`. `epoch`: the term of leadership.
    pub async fn write(self: Arc<Self>, client: Client, namespace: String, epoch: u64, stop: CancellationToken) {
        let secrets: Api<Secret> = Api::namespaced(client, &namespace);
        let sides = Side::BOTH.map(|side| self.write_side(side, &secrets, epoch, &stop));
        futures::future::join_all(sides).await;
    }

    async fn write_side(&self, side: Side, secrets: &Api<Secret>, epoch: u64, stop: &CancellationToken) {
        let changed = &self.changed[side as usize];
        while !stop.is_cancelled() {
            tokio::select! {
                () = changed.notified() => {}
                () = stop.cancelled() => return,
            }
            self.gather(side).await;
            let is_due = |slice: &Slice| slice.dirty && Side::of(slice) == side;
            let dirty: Vec<_> =
                self.lock().slices.iter().filter(|(_, slice)| is_due(slice)).map(|(name, _)| name.clone()).collect();
            let writes = futures::stream::iter(dirty)
                .map(|name| self.write_one(secrets, name, epoch))
                .buffer_unordered(WRITES_AT_A_TIME);
            let failed = writes.filter(|done| std::future::ready(!done)).count().await;
            if failed > 0 {
                tokio::time::sleep(RETRY).await;
                changed.notify_one();
            }
        }
    }

    /// Waits until what belongs together has arrived.
    async fn gather(&self, side: Side) {
        let (begun, before) = (Instant::now(), self.changes(side));
        loop {
            let seen = self.changes(side);
            let pause = if seen - before < FEW { DEBOUNCE } else { QUIET };
            tokio::time::sleep(pause).await;
            if self.changes(side) == seen || begun.elapsed() >= LONGEST {
                return;
            }
        }
    }

    async fn write_one(&self, secrets: &Api<Secret>, name: String, epoch: u64) -> bool {
        let Some(secret) = self.snapshot(&name, epoch) else { return true };
        let write = async {
            match secret.metadata.resource_version {
                Some(_) => secrets.replace(&name, &PostParams::default(), &secret).await,
                None => secrets.create(&PostParams::default(), &secret).await,
            }
        };
        let result = self.gate.pass(&format!("write slice {name}"), write).await;
        match result {
            Ok(written) => {
                if let Some(slice) = self.lock().slices.get_mut(&name) {
                    slice.resource_version = written.metadata.resource_version;
                }
                true
            }
            Err(error) => {
                tracing::warn!(slice = name, error = chain(&error), "could not write a slice, trying again");
                self.recover(secrets, &name).await;
                false
            }
        }
    }

    /// The document that is to be written now, under the next number.
    fn snapshot(&self, name: &str, epoch: u64) -> Option<Secret> {
        let mut state = self.lock();
        let slice = state.slices.get_mut(name).filter(|slice| slice.dirty)?;
        slice.take_number();
        let mut secret = Secret {
            data: Some([(SLICE_KEY.to_owned(), ByteString(slice.document(epoch).into_bytes()))].into()),
            ..Secret::default()
        };
        secret.metadata.name = Some(name.to_owned());
        secret.metadata.resource_version.clone_from(&slice.resource_version);
        let labels = secret.labels_mut();
        labels.insert("app.kubernetes.io/managed-by".into(), MANAGED_BY.into());
        labels.insert(LABEL_SLICE.into(), slice.kind().into());
        if let Some(server) = &slice.server {
            labels.insert(LABEL_SERVER.into(), server.clone());
        }
        Some(secret)
    }

    /// After a failed write: sees which version is there, so that the next write can replace it with a higher number.
    /// Our entries are the truth; a slice that somebody changed or deleted is written as it should be.
    async fn recover(&self, secrets: &Api<Secret>, name: &str) {
        let found = secrets.get_opt(name).await;
        let mut state = self.lock();
        let Some(slice) = state.slices.get_mut(name) else { return };
        slice.dirty = true;
        match found {
            Ok(Some(secret)) => {
                let stored = Slice::read(&secret).map(|stored| stored.generation).unwrap_or_default();
                slice.resource_version = secret.metadata.resource_version;
                slice.generation = slice.generation.max(stored);
            }
            Ok(None) => slice.resource_version = None,
            // Unreadable is not absent.
            Err(_) => {}
        }
    }

    /// Compares what is stored with what was written last, and has what somebody changed or deleted written again.
    ///
    /// # Errors
    /// The API server did not answer.
    pub async fn verify(&self, client: &Client, namespace: &str) -> Result<(), ApplyError> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let versions: Vec<_> = self
            .lock()
            .slices
            .iter()
            .filter(|(_, slice)| !slice.dirty)
            .map(|(name, slice)| (name.clone(), slice.resource_version.clone()))
            .collect();
        let found = secrets
            .list_metadata(&ListParams::default().labels(LABEL_SLICE))
            .await
            .map_err(|source| ApplyError::kubernetes("list the slices", source))?;
        let stored: std::collections::HashMap<_, _> =
            found.into_iter().map(|secret| (secret.name_any(), secret.metadata.resource_version)).collect();
        for (name, before) in versions {
            // Written meanwhile: what was listed says nothing.
            let unchanged =
                self.lock().slices.get(&name).is_some_and(|slice| !slice.dirty && slice.resource_version == before);
            if unchanged && stored.get(&name) != Some(&before) {
                tracing::warn!(slice = name, "a slice was changed or deleted by somebody else and is written again");
                self.recover(&secrets, &name).await;
                self.changed.iter().for_each(Notify::notify_one);
            }
        }
        Ok(())
    }
}
