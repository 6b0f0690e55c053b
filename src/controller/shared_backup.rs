//! Backups that one Job takes for many tenants: its list, and what it tells in its log.

use std::collections::HashSet;

use futures::AsyncReadExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, LogParams};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;
use tokio::sync::mpsc;

use super::backup;
use super::context::Context;
use crate::api::backup::{BackupReport, ListedTenant, REPORT_LINE};
use crate::api::{LABEL_SERVER, LABEL_TENANT};
use crate::apply::objects;
use crate::desired::backup::{BucketSettings, is_ahead};
use crate::desired::shared_backup;
use crate::error::chain;

/// The longest log that is read: a few hundred bytes for each of ten thousand tenants.
const LONGEST_LOG: i64 = 16 << 20;

/// Writes the list and the CronJob of each group, and removes those of groups without tenants.
pub async fn write(
    context: &Context,
    store: &Store<PartialObjectMeta<CronJob>>,
    tenants: &[(String, String, ListedTenant)],
    bucket: &BucketSettings,
) {
    let (namespace, image) = (&context.settings.namespace, &context.settings.image);
    let groups = shared_backup::groups(tenants.iter().cloned());
    for (name, group) in &groups {
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
        backup::write(context, store, job).await;
    }
    let known: Vec<_> = store.state().iter().map(|job| job.name_any()).collect();
    for name in shared_backup::surplus(known.iter().map(String::as_str), &groups) {
        let remove = async {
            let how = DeleteParams::background();
            objects::remove::<CronJob>(&context.client, namespace, &name, &how).await?;
            objects::remove::<ConfigMap>(&context.client, namespace, &name, &how).await
        };
        if let Err(error) = context.gate.pass(&format!("remove CronJob {name}"), remove).await {
            tracing::warn!(name, error = chain(&error), "a shared backup without tenants was not removed");
        }
    }
}

/// Whether this is the pod of a shared backup, and at its end.
pub fn is_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let is_shared = pod.labels().contains_key(LABEL_SERVER) && !pod.labels().contains_key(LABEL_TENANT);
    is_shared && matches!(phase, Some("Succeeded" | "Failed"))
}

/// Reads the log of each pod that ended, once.
pub async fn read_logs(context: &Context, mut ended: mpsc::UnboundedReceiver<Pod>) {
    let mut read = HashSet::new();
    while let Some(pod) = ended.recv().await {
        let Some(uid) = pod.metadata.uid.clone() else { continue };
        if read.contains(&uid) {
            continue;
        }
        match log(context, &pod).await {
            Ok(text) => {
                read.insert(uid);
                hear(context, &pod, &text);
            }
            Err(error) => {
                tracing::warn!(pod = pod.name_any(), error = chain(&error), "the log of a shared backup was not read");
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
        if is_its && !is_ahead(report.ended_at, Timestamp::now()) {
            backup::take(context, report);
        }
    }
}
