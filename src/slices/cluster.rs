//! One watch per Secret, by its name: RBAC cannot filter by label, only by `resourceNames`.
//!
//! Not kube-runtime's `watcher`: it resumes a watch without a word, so a watch that failed and works again while nothing
//! changes could not be told from one that still fails, and a request on a connection that died half-open has no limit
//! there. Here every step has one, and every step that succeeds says so to [`Health`].

use std::time::Duration;

use anyhow::{Context, bail};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};

use super::{Change, Content, Health};
use crate::api::slices::SLICE_KEY;

/// The longest a list or the start of a watch may take.
const ANSWER: Duration = Duration::from_secs(15);
/// The server ends a watch after this time, in seconds …
const WATCH: u32 = 60;
/// … so one that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(WATCH as u64 + 5);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(super) fn changes(
    client: &kube::Client,
    namespace: &str,
    names: Vec<String>,
    health: &Health,
) -> impl Stream<Item = Change> + Send + use<> {
    let watches: Vec<_> = names
        .into_iter()
        .map(|name| {
            let watch = Watch {
                api: Api::namespaced(client.clone(), namespace),
                name,
                health: health.clone(),
                step: Step::List,
                last: None,
                pause: FIRST_PAUSE,
            };
            stream::unfold(watch, |mut watch| async { Some((watch.next().await, watch)) }).boxed()
        })
        .collect();
    stream::select_all(watches)
}

struct Watch {
    api: Api<Secret>,
    name: String,
    health: Health,
    step: Step,
    /// What was yielded last; `None`: nothing yet.
    last: Option<Content>,
    pause: Duration,
}

/// What comes next; the text is the resource version to go on from.
enum Step {
    List,
    Start(String),
    Follow(String, BoxStream<'static, kube::Result<WatchEvent<Secret>>>),
}

/// What a step has shown.
enum Seen {
    Nothing,
    Content(Content),
}

impl Watch {
    async fn next(&mut self) -> Change {
        loop {
            // Taken out: a step that fails leaves `List`, which is where every failure starts over (also "too old").
            let step = std::mem::replace(&mut self.step, Step::List);
            match self.take(step).await {
                Ok(Seen::Content(content)) if self.last.as_ref() != Some(&content) => {
                    self.last = Some(content.clone());
                    self.health.seen(&self.name);
                    return Change { slice: self.name.clone(), content };
                }
                Ok(_) => {}
                Err(error) => self.rest(&error).await,
            }
        }
    }

    async fn take(&mut self, step: Step) -> anyhow::Result<Seen> {
        match step {
            Step::List => self.list().await,
            Step::Start(version) => self.start(version).await,
            Step::Follow(version, events) => self.follow(version, events).await,
        }
    }

    async fn list(&mut self) -> anyhow::Result<Seen> {
        let parameters = ListParams::default().fields(&format!("metadata.name={}", self.name));
        let list = tokio::time::timeout(ANSWER, self.api.list(&parameters))
            .await
            .context("listing the Secret: no answer")?
            .context("listing the Secret")?;
        let version = list.metadata.resource_version.context("listing the Secret: the list has no resource version")?;
        self.step = Step::Start(version);
        // The server filters; a proxy that ignores the selector must not make another Secret ours.
        let secret = list.items.into_iter().find(|secret| secret.metadata.name.as_ref() == Some(&self.name));
        Ok(Seen::Content(secret.map(content)))
    }

    async fn start(&mut self, version: String) -> anyhow::Result<Seen> {
        let parameters = WatchParams::default().fields(&format!("metadata.name={}", self.name)).timeout(WATCH);
        let events = tokio::time::timeout(ANSWER, self.api.watch(&parameters, &version))
            .await
            .context("starting the watch: no answer")?
            .context("starting the watch")?;
        self.health.working(&self.name);
        self.pause = FIRST_PAUSE;
        self.step = Step::Follow(version, events.boxed());
        Ok(Seen::Nothing)
    }

    async fn follow(
        &mut self,
        version: String,
        mut events: BoxStream<'static, kube::Result<WatchEvent<Secret>>>,
    ) -> anyhow::Result<Seen> {
        let event = tokio::time::timeout(SILENCE, events.next()).await.context("the watch fell silent")?;
        let (version, seen) = match event {
            None => {
                self.step = Step::Start(version);
                return Ok(Seen::Nothing);
            }
            Some(Ok(WatchEvent::Added(secret) | WatchEvent::Modified(secret))) => {
                (secret.metadata.resource_version.clone(), Seen::Content(Some(content(secret))))
            }
            Some(Ok(WatchEvent::Deleted(secret))) => (secret.metadata.resource_version, Seen::Content(None)),
            Some(Ok(WatchEvent::Bookmark(bookmark))) => (Some(bookmark.metadata.resource_version), Seen::Nothing),
            Some(Ok(WatchEvent::Error(status))) => bail!("the watch ended: {}", status.message),
            Some(Err(error)) => return Err(error).context("following the watch"),
        };
        self.step = Step::Follow(version.context("the watch sent an object without a resource version")?, events);
        Ok(seen)
    }

    /// Notes the failure and waits, each time longer, not in step with the other watches.
    async fn rest(&mut self, error: &anyhow::Error) {
        tracing::warn!(slice = self.name, error = format!("{error:#}"), "slice cannot be watched, trying again");
        self.health.failing(&self.name, format!("{error:#}"));
        tokio::time::sleep(self.pause.mul_f64(0.5 + rand::random::<f64>())).await;
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
    }
}

/// The document; empty where the key is missing, because such a Secret is there, but says nothing.
fn content(secret: Secret) -> Vec<u8> {
    secret.data.and_then(|mut data| data.remove(SLICE_KEY)).map(|bytes| bytes.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that gives the answers in their order (`list` or `watch`, status, body) and then answers no more.
    fn client(answers: &[(&'static str, u16, String)]) -> kube::Client {
        let answers = Arc::new(Mutex::new(answers.iter().cloned().collect::<VecDeque<_>>()));
        let service = tower::service_fn(move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let answer = answers.lock().unwrap().pop_front();
            async move {
                assert!(query.contains("fieldSelector=metadata.name%3Dpooler-x-00"), "{query}");
                let Some((kind, status, body)) = answer else { return std::future::pending().await };
                assert_eq!(kind, if query.contains("watch=true") { "watch" } else { "list" }, "{query}");
                let response = Response::builder().status(status).body(Body::from(body.into_bytes())).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        kube::Client::new(service, "default")
    }

    fn secret(version: &str, data: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pooler-x-00", "resourceVersion": version}, "data": data})
    }

    fn list(items: &[Value]) -> (&'static str, u16, String) {
        let list =
            json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {"resourceVersion": "1"}, "items": items});
        ("list", 200, list.to_string())
    }

    fn watch(events: &[Value]) -> (&'static str, u16, String) {
        ("watch", 200, events.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n") + "\n")
    }

    async fn take(answers: &[(&'static str, u16, String)], count: usize) -> (Vec<Option<Vec<u8>>>, Health) {
        let health = Health::new(1);
        let stream = changes(&client(answers), "mos", vec!["pooler-x-00".to_owned()], &health).take(count);
        let all = tokio::time::timeout(Duration::from_secs(20), stream.collect::<Vec<_>>()).await.unwrap();
        (all.into_iter().map(|change| change.content).collect(), health)
    }

    #[tokio::test]
    async fn an_absent_slice_is_yielded_once_and_then_what_the_watch_says() {
        let one = secret("2", &json!({"slice.json": "MQ=="}));
        let two = secret("3", &json!({"slice.json": "Mg=="}));
        let answers = [
            list(&[]),
            watch(&[json!({"type": "ADDED", "object": one}), json!({"type": "MODIFIED", "object": one})]),
            watch(&[json!({"type": "MODIFIED", "object": two}), json!({"type": "DELETED", "object": two})]),
        ];
        let (contents, health) = take(&answers, 4).await;
        assert_eq!(contents, [None, Some(b"1".to_vec()), Some(b"2".to_vec()), None]);
        assert_eq!(health.ready(), Ok(()));
    }

    #[tokio::test]
    async fn a_slice_that_cannot_be_read_is_not_absent_and_the_watch_heals_by_itself() {
        let gone = json!({"type": "ERROR", "object": {"status": "Failure", "code": 410, "message": "too old", "reason": "Expired"}});
        let one = secret("2", &json!({"slice.json": "MQ=="}));
        let answers = [
            ("list", 500, "{}".to_owned()),
            list(std::slice::from_ref(&one)),
            watch(&[gone]),
            list(&[one]),
            watch(&[json!({"type": "MODIFIED", "object": secret("3", &json!({}))})]),
        ];
        let (contents, health) = take(&answers, 2).await;
        assert_eq!(contents, [Some(b"1".to_vec()), Some(Vec::new())], "the key is missing: there, but empty");
        assert_eq!(health.broken_for(), None);
    }

    #[tokio::test]
    async fn a_failing_watch_shows_in_health() {
        let health = Health::new(1);
        let mut stream = std::pin::pin!(changes(
            &client(&[("list", 403, "{}".to_owned())]),
            "mos",
            vec!["pooler-x-00".to_owned()],
            &health
        ));
        tokio::select! {
            change = stream.next() => panic!("{change:?} of a slice that cannot be read"),
            () = async { while health.broken_for().is_none() { tokio::task::yield_now().await } } => {}
        }
        assert!(health.ready().unwrap_err().contains("listing the Secret"));
    }
}
