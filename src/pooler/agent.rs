//! The loop: changes of slices → files → RELOAD → acknowledge.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::{Stream, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::enforce::{self, Revoked};
use super::guard::{self, Reader, Verdict, View};
use super::metrics::{Metrics, Outcome};
use super::render::Place;
use super::{files, parse, render};
use crate::slices::{Acknowledgements, Change};

/// Changes that arrive together are served with one RELOAD: it is due when none has come for this time …
const BATCH: Duration = Duration::from_millis(20);
/// … and in pieces when they go on coming for longer than this.
const LONGEST_BATCH: Duration = Duration::from_millis(200);
/// How often PgBouncer is compared with its files.
const CHECK: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// What the probes ask for. Clones share it.
#[derive(Clone)]
pub struct Status(Arc<Mutex<State>>);

struct State {
    installed: bool,
    served: Result<(), String>,
}

impl Status {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State { installed: false, served: Err("the slices were not read yet".to_owned()) })))
    }

    /// PgBouncer may start: its files are there.
    pub fn installed(&self) -> bool {
        self.with(|state| state.installed)
    }

    /// Whether PgBouncer serves what the slices say.
    pub fn served(&self) -> Result<(), String> {
        self.with(|state| state.served.clone())
    }

    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The agent's state.
pub struct Agent {
    place: Place,
    reader: Reader,
    /// What PgBouncer served last.
    served: View,
    /// The files may not be what the view says, or PgBouncer not what the files say.
    dirty: bool,
    retry: Duration,
    revoked: Revoked,
    status: Status,
    acknowledgements: Acknowledgements,
    metrics: Metrics,
}

impl Agent {
    /// Takes up what an agent before this one served in the same directory.
    pub fn new(database_server: &str, place: Place, acknowledgements: Acknowledgements, metrics: Metrics) -> Self {
        let served = files::noted(&place.directory).unwrap_or_else(|error| {
            tracing::error!(
                error = format!("{error:#}"),
                "what was served before is not known, beginning with nothing"
            );
            View::default()
        });
        Self {
            place,
            reader: Reader::new(database_server, served.clone()),
            served,
            dirty: true,
            retry: FIRST_RETRY,
            revoked: Revoked::default(),
            status: Status::new(),
            acknowledgements,
            metrics,
        }
    }

    /// What the probes ask for.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// Runs until `stop`.
    pub async fn run(mut self, changes: impl Stream<Item = Change> + Send, stop: CancellationToken) {
        let mut changes = pin!(changes);
        let mut check = Instant::now() + CHECK;
        // When the last change came, and the latest that it is waited for others.
        let mut batch: Option<(Instant, Instant)> = None;
        loop {
            let next = batch.map_or(check, |(last, latest)| check.min(latest).min(last + BATCH));
            tokio::select! {
                () = stop.cancelled() => return,
                Some(change) = changes.next() => {
                    self.take(&change);
                    // Also a change without effect: it may be the one that completes the view, or changes the status.
                    let now = Instant::now();
                    batch = Some((now, batch.map_or(now + LONGEST_BATCH, |(_, latest)| latest)));
                }
                () = tokio::time::sleep_until(next) => {
                    batch = None;
                    check = Instant::now() + self.turn().await;
                }
            }
        }
    }

    fn take(&mut self, change: &Change) {
        match self.reader.take(change) {
            Verdict::Accepted => self.dirty = true,
            Verdict::Same => {}
            Verdict::Absent => {
                if self.reader.view().slices.contains_key(&change.slice) {
                    tracing::warn!(slice = change.slice, "the slice is gone; what it said last is still served");
                }
            }
            Verdict::Refused(reason) => {
                self.metrics.refused_slices.inc();
                tracing::error!(
                    slice = change.slice,
                    reason,
                    "the slice is refused; what it said last is still served"
                );
            }
        }
    }

    /// One pass; returns when the next is due.
    async fn turn(&mut self) -> Duration {
        if let Err(missing) = self.reader.complete() {
            self.status.with(|state| state.served = Err(missing));
            return CHECK;
        }
        let result = self.pass().await;
        let pause = if let Err(error) = &result {
            tracing::warn!(error = format!("{error:#}"), "PgBouncer does not serve the slices yet, trying again");
            let pause = self.retry;
            self.retry = LONGEST_RETRY.min(self.retry * 2);
            pause
        } else {
            self.retry = FIRST_RETRY;
            CHECK
        };
        let blind = self.reader.blind().map(|reason| format!("no good state is known of {reason}"));
        let served = result.map_err(|error| format!("{error:#}"));
        self.status.with(|state| state.served = served.and(blind.map_or(Ok(()), Err)));
        pause
    }

    async fn pass(&mut self) -> anyhow::Result<()> {
        if !self.dirty {
            let same = enforce::check(&self.place, &self.served, &mut self.revoked).await?;
            if same {
                return Ok(());
            }
            tracing::warn!("PgBouncer is not what its files say, reloading it");
            self.dirty = true;
        }
        self.install()?;
        self.status.with(|state| state.installed = true);
        self.reload().await?;
        self.dirty = false;
        Ok(())
    }

    /// Renders, reads back what was rendered, and only then writes.
    fn install(&self) -> anyhow::Result<()> {
        let wanted = self.reader.view();
        let settings = wanted.settings.as_ref().context("the pooler's settings are not known")?;
        if let Some(slice) = guard::unexplained(&self.served, wanted) {
            bail!("entries of {slice} went without a newer document, nothing is written");
        }
        let rendered = render::render(&self.place, settings, wanted).context("rendering PgBouncer's files")?;
        parse::verify(&rendered, &self.place, settings, wanted).context("reading PgBouncer's rendered files back")?;
        files::install(&self.place.directory, &rendered)
    }

    /// Acknowledges only after everything is as the view says.
    async fn reload(&mut self) -> anyhow::Result<()> {
        let wanted = self.reader.view();
        let start = Instant::now();
        let result = enforce::reload(
            &self.place,
            wanted,
            enforce::changed(&self.served, wanted),
            enforce::turned(&self.served, wanted),
        )
        .await;
        let outcome = Outcome { result: if result.is_ok() { "ok" } else { "error" } };
        self.metrics.reloads.get_or_create(&outcome).inc();
        self.metrics.reload_duration.observe(start.elapsed().as_secs_f64());
        self.revoked.extend(result?);
        files::note(&self.place.directory, wanted)?;
        self.served = wanted.clone();
        self.metrics.entries.set(i64::try_from(self.served.entries().count()).unwrap_or(i64::MAX));
        let settings = self.served.settings.iter().map(|settings| (self.reader.settings_name(), settings.generation));
        let slices = self.served.slices.iter().map(|(name, slice)| (name.clone(), slice.generation));
        for (name, generation) in settings.chain(slices) {
            self.acknowledgements.serve(&name, generation);
        }
        tracing::info!(entries = self.served.entries().count(), seconds = start.elapsed().as_secs_f64(), "served");
        Ok(())
    }
}
