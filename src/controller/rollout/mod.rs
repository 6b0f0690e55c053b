//! Schema rollouts: the app's migrations, brought to every tenant's database, wave after wave.
//!
//! One pass is see (`members`), decide ([`desired::rollout`]), do (`work`) and say (`say`), twice a second while there is one
//! to work on. What is done shows in the marks of the databases and nowhere else, so that an operator which begins anew goes
//! on where the last one ended.

mod members;
mod say;
mod work;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::Context;
use super::server::pool;
use crate::api::rollout::{RolloutPhase, SchemaRollout};
use crate::apply::migrate::MigrateError;
use crate::desired;
use crate::desired::facts::Attempt;
use crate::desired::rollout::Progress;
use crate::desired::server::Migration;
use crate::error::chain;

/// Has failed tenants tried again, whenever its value is another than at the last time: `all`, or `namespace/name`, and after
/// a `#` whatever makes it another.
const ANNOTATION_RETRY: &str = "tenancy.maintenance-os.com/retry";
/// Between two passes while a rollout is under way, and while there is none.
const PACE: Duration = Duration::from_millis(500);
const REST: Duration = Duration::from_secs(2);
/// Between two words about the same wave.
const SAY: Duration = Duration::from_secs(1);
/// Attempts at a database whose server does not answer, before somebody has to look.
const ATTEMPTS: usize = 5;

/// What became of one database.
struct Outcome {
    uuid: Uuid,
    tenant: String,
    result: Result<(), MigrateError>,
}

/// What one process remembers of the rollout that it works on; none of it is needed by the next one.
#[derive(Default)]
struct Worker {
    tasks: JoinSet<Outcome>,
    running: HashSet<Uuid>,
    /// Attempts that ended with a server that did not answer, and when the next may begin.
    later: HashMap<Uuid, (usize, Instant)>,
    /// When databases were brought up, for the rate.
    finished: VecDeque<Instant>,
    /// Passwords of the migrator, by server.
    passwords: HashMap<String, String>,
    /// When the status was last written.
    said: Option<Instant>,
}

/// Works on rollouts until `stop`.
pub async fn run(context: Arc<Context>, rollouts: Store<SchemaRollout>, stop: CancellationToken) {
    let migrations = pool::migrations();
    let mut worker = Worker::default();
    loop {
        let pause = if worker.pass(&context, &rollouts, &migrations).await { PACE } else { REST };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(outcome) = worker.tasks.join_next() => {
                worker.finish(&context, outcome);
                while let Some(outcome) = worker.tasks.try_join_next() {
                    worker.finish(&context, outcome);
                }
            }
            () = stop.cancelled() => return,
        }
    }
}

impl Worker {
    /// Whether there is a rollout to work on.
    async fn pass(
        &mut self,
        context: &Arc<Context>,
        rollouts: &Store<SchemaRollout>,
        known: &[Migration<'static>],
    ) -> bool {
        let mut open: Vec<_> = rollouts.state().into_iter().filter(|rollout| is_open(rollout)).collect();
        open.sort_by_key(|rollout| (rollout.creation_timestamp().map(|time| time.0), rollout.name_any()));
        let mut open = open.into_iter();
        let Some(first) = open.next() else { return false };
        if let Err(error) = self.work_on(context, &first, known).await {
            tracing::warn!(rollout = first.name_any(), error = chain(&error), "could not write how far a rollout is");
        }
        for waiting in open {
            let status = say::waiting(&waiting, &first.name_any());
            if let Err(error) = say::write(context, &waiting, status).await {
                tracing::warn!(
                    rollout = waiting.name_any(),
                    error = chain(&error),
                    "could not write that a rollout waits"
                );
            }
        }
        true
    }

    async fn work_on(
        &mut self,
        context: &Arc<Context>,
        rollout: &SchemaRollout,
        known: &[Migration<'static>],
    ) -> Result<(), crate::apply::ApplyError> {
        let newest = known.last().map_or("0000", |migration| migration.version);
        let target = rollout.spec.target_version.clone().unwrap_or_else(|| newest.to_owned());
        if !known.iter().any(|migration| migration.version == target) {
            return say::write(context, rollout, say::unknown(rollout, &target, newest)).await;
        }
        let before = rollout.status.clone().unwrap_or_default();
        self.forgive(context, rollout, before.started_at.is_none());
        let members = members::members(context, &self.running, &self.later, &target);
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let ended: BTreeMap<_, _> = before.waves.iter().map(|wave| (wave.name.clone(), wave.at.0)).collect();
        let progress = desired::rollout::decide(&rollout.spec, &target, &members, &ended, now);
        self.begin(context, rollout, &progress, &target, known).await;
        // Each database that is done is news, and nobody reads more than a word a second.
        let is_turn =
            (before.phase, before.wave) != (progress.phase, say::wave(&progress)) || !progress.ended.is_empty();
        if !is_turn && self.said.is_some_and(|said| said.elapsed() < SAY) {
            return Ok(());
        }
        self.said = Some(Instant::now());
        let status = say::status(context, rollout, &target, &progress, self.rate(), now);
        say::announce(context, rollout, &status, &progress).await;
        say::write(context, rollout, status).await
    }

    /// Failures of an earlier rollout, and those that somebody asks to try again, are forgotten.
    fn forgive(&mut self, context: &Context, rollout: &SchemaRollout, is_new: bool) {
        let asked = rollout.annotations().get(ANNOTATION_RETRY);
        let answered = rollout.status.as_ref().and_then(|status| status.retried.as_ref());
        let whom =
            asked.filter(|asked| Some(*asked) != answered).map(|asked| asked.split('#').next().unwrap_or_default());
        if !is_new && whom.is_none() {
            return;
        }
        for row in context.ledger.rows() {
            let is_asked = whom.is_some_and(|whom| whom == "all" || *whom == format!("{}/{}", row.namespace, row.name));
            if is_new || is_asked {
                self.later.remove(&row.uuid);
                context.memory.set_attempt(row.uuid, Attempt::Clean);
            }
        }
    }

    async fn begin(
        &mut self,
        context: &Arc<Context>,
        rollout: &SchemaRollout,
        progress: &Progress,
        target: &str,
        known: &[Migration<'static>],
    ) {
        let patience = work::patience(&rollout.spec);
        for &uuid in &progress.begin {
            let Some(job) = work::prepare(context, uuid, &mut self.passwords).await else { continue };
            self.running.insert(uuid);
            let (context, target, known) = (Arc::clone(context), target.to_owned(), known.to_vec());
            self.tasks.spawn(work::bring_up(context, job, target, known, patience));
        }
    }

    fn finish(&mut self, context: &Context, outcome: Result<Outcome, tokio::task::JoinError>) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            // Nothing is known of whom; everybody is looked at again.
            Err(error) => {
                tracing::error!(%error, "a migration ended without a word");
                self.running.clear();
                return;
            }
        };
        let Outcome { uuid, tenant, result } = outcome;
        self.running.remove(&uuid);
        match result {
            Ok(()) => {
                self.later.remove(&uuid);
                self.finished.push_back(Instant::now());
                context.memory.set_attempt(uuid, Attempt::Clean);
            }
            Err(error) if error.is_transient() && self.put_off(uuid) => {
                // A password that somebody changed is read again.
                self.passwords.clear();
                tracing::warn!(tenant, error = chain(&error), "a database could not be migrated, trying again");
            }
            Err(error) => {
                self.later.remove(&uuid);
                tracing::warn!(tenant, error = chain(&error), "a database could not be migrated");
                context.memory.set_attempt(uuid, Attempt::Failed(chain(&error)));
            }
        }
        members::wake(context, uuid);
    }

    /// Whether it may be tried again.
    fn put_off(&mut self, uuid: Uuid) -> bool {
        let (attempts, next) = self.later.entry(uuid).or_insert((0, Instant::now()));
        *attempts += 1;
        *next = Instant::now() + Duration::from_secs(1 << (*attempts).min(5));
        *attempts < ATTEMPTS
    }

    /// Databases that were brought up within the last minute.
    fn rate(&mut self) -> usize {
        while self.finished.front().is_some_and(|at| at.elapsed() > Duration::from_secs(60)) {
            self.finished.pop_front();
        }
        self.finished.len()
    }
}

/// A rollout that has something to do, or is asked to try again.
fn is_open(rollout: &SchemaRollout) -> bool {
    let Some(status) = &rollout.status else { return true };
    let has_ended = matches!(status.phase, RolloutPhase::Complete | RolloutPhase::Failed | RolloutPhase::Aborted);
    let asked = rollout.annotations().get(ANNOTATION_RETRY);
    let retries = status.phase == RolloutPhase::Failed && asked.is_some() && asked != status.retried.as_ref();
    !has_ended || retries || status.observed_generation != rollout.metadata.generation
}
