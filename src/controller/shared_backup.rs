//! Backups that one Job takes for many tenants: its list, and what it tells in its log.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures::AsyncReadExt;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, LogParams};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;
use tokio::sync::mpsc;

use super::backup;
use super::context::Context;
use crate::api::backup::{BackupReport, REPORT_LINE};
use crate::api::{LABEL_SERVER, LABEL_TENANT};
use crate::apply::objects;
use crate::desired::backup::BucketSettings;
use crate::desired::shared_backup::{self, Group};
use crate::error::chain;

/// The longest log that is read: a few hundred bytes for each of ten thousand tenants.
const LONGEST_LOG: i64 = 16 << 20;
/// How often a log is tried to be read.
const MOST_ATTEMPTS: u32 = 10;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(15);

/// Writes the list and the CronJob of each group; returns the names of those that are as they should be.
pub async fn write(
    context: &Context,
    store: &Store<PartialObjectMeta<CronJob>>,
    groups: &BTreeMap<String, Group>,
    bucket: &BucketSettings,
) -> BTreeSet<String> {
    let (namespace, image) = (&context.settings.namespace, &context.settings.image);
    let mut standing = BTreeSet::new();
    for (name, group) in groups {
        let job = backup::with_source(context, &group.server, |source| {
            shared_backup::cron_job(name, group, source, bucket, namespace, image)
        });
        // A server that was not seen yet: its CronJob stays as it is.
        let Some(job) = job else { continue };
        let list = shared_backup::config_map(name, group, namespace);
        let list = objects::apply(&context.client, namespace, list);
        // The list first: a Job without one fails.
        if let Err(error) = context.gate.pass(&format!("write ConfigMap {name}"), list).await {
            tracing::warn!(name, error = chain(&error), "the list of a shared backup was not written");
            continue;
        }
        if backup::write(context, store, job).await {
            standing.insert(name.clone());
        }
    }
    standing
}

/// Whether this is the pod of a shared backup, and at its end.
pub fn is_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_shared = pod.labels().contains_key(LABEL_SERVER) && !pod.labels().contains_key(LABEL_TENANT);
    is_shared && matches!(phase, Some("Succeeded" | "Failed"))
}

/// Reads the log of each pod that ended, once; again after a while where that fails.
pub async fn read_logs(context: &Context, again: mpsc::UnboundedSender<Pod>, mut ended: mpsc::UnboundedReceiver<Pod>) {
    let mut attempts: HashMap<String, u32> = HashMap::new();
    while let Some(pod) = ended.recv().await {
        let Some(uid) = pod.metadata.uid.clone() else { continue };
        let attempt = attempts.entry(uid).or_default();
        if *attempt >= MOST_ATTEMPTS {
            continue;
        }
        match log(context, &pod).await {
            Ok(text) => {
                *attempt = MOST_ATTEMPTS;
                hear(context, &pod, &text);
            }
            Err(error) => {
                *attempt += 1;
                tracing::warn!(pod = pod.name_any(), error = chain(&error), "the log of a shared backup was not read");
                let again = again.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(PAUSE).await;
                    // A closed channel: the operator is stopping.
                    let _ = again.send(pod);
                });
            }
        }
    }
}

async fn log(context: &Context, pod: &Pod) -> Result<String, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let parameters = LogParams { limit_bytes: Some(LONGEST_LOG), ..LogParams::default() };
    let mut stream = pods.log_stream(&pod.name_any(), &parameters).await?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.map_err(kube::Error::ReadEvents)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn hear(context: &Context, pod: &Pod, text: &str) {
    let server = pod.labels().get(LABEL_SERVER);
    let lines = text.lines().filter_map(|line| line.strip_prefix(REPORT_LINE));
    for report in lines.filter_map(|line| serde_json::from_str::<BackupReport>(line).ok()) {
        // A pod speaks for tenants on its own server only.
        let is_its = context.ledger.server_of_tenant(report.tenant).as_ref() == server;
        if is_its {
            backup::take(context, report);
        }
    }
}
