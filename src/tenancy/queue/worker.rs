//! The loop: whose turn it is, what they have to do, doing it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::balance::share;
use super::job::Registry;
use super::leases::Leases;
use super::may::May;
use super::metrics::{JobMetrics, Outcome};
use super::ring::{Again, Ring, Served, Taken, Turn};
use super::run::{Ended, Runner};
use super::settings::WorkerSettings;
use super::store::{Fate, Leased, Store, Terms, Told};
use crate::api::routing::RoutingEntry;
use crate::tenancy::Tenancy;
use crate::tenancy::redis::{Purpose, Redis};

/// Tenants that are looked at in one turn.
const TURNS: usize = 64;
/// How long nothing is asked while nobody is woken.
pub(super) const QUIET: Duration = Duration::from_secs(10);
/// How often its memory is looked at.
const WEIGH: Duration = Duration::from_secs(1);
/// How long a free place may stay free for the sake of a larger round.
const GATHER: Duration = Duration::from_millis(1);
/// What failed is tried again after this time, and a tenant whose slice has not come yet is looked at again.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// How long the end of a job is told to a Redis that does not answer.
const TELLING: Duration = Duration::from_secs(300);

/// A worker for all tenants that `tenancy` routes, or for one of them.
pub struct Worker<S> {
    inner: Arc<Inner<S>>,
    /// Tenants with jobs that wait for one of theirs to end.
    left: mpsc::UnboundedReceiver<Uuid>,
}

pub(super) struct Inner<S> {
    pub(super) settings: WorkerSettings,
    pub(super) runner: Runner<S>,
    pub(super) redis: Redis,
    pub(super) ring: Ring,
    pub(super) metrics: JobMetrics,
    /// Whether it waits for something to do, with a place free.
    pub(super) idle: watch::Sender<bool>,
    /// Number of the next token.
    tokens: AtomicU64,
    leases: Leases,
    /// Tenants that have jobs and are not served.
    pub(super) parked: Mutex<HashSet<Uuid>>,
    /// Since when tenants that have jobs are routed nowhere.
    pub(super) missing: Mutex<HashMap<Uuid, Instant>>,
    /// Tenants that the other pool serves.
    pub(super) elsewhere: Mutex<HashSet<Uuid>>,
    /// To [`Worker::left`].
    left: mpsc::UnboundedSender<Uuid>,
}

/// What a round brought.
enum Round {
    /// It may go on at once; `left`: somebody waits for a place.
    Busy { left: bool },
    /// Nothing is to be done before that much time has passed, unless somebody is woken.
    Idle(Duration),
}

/// A job that was reserved, on its way to be run.
struct Begun {
    entry: Arc<RoutingEntry>,
    store: Store,
    leased: Leased,
    token: String,
    certain: Instant,
}

impl<S: Send + Sync + 'static> Worker<S> {
    /// Works on nothing yet. None: `tenancy` has no Redis.
    pub fn new(tenancy: &Tenancy, registry: Registry<S>, state: S, settings: WorkerSettings) -> Option<Self> {
        let redis = tenancy.redis()?.clone();
        let (ended, left) = mpsc::unbounded_channel();
        let runner = Runner {
            tenancy: tenancy.clone(),
            registry,
            state: Arc::new(state),
            tries: settings.tries,
            timeout: settings.timeout,
        };
        let inner = Inner {
            ring: Ring::of_pool(redis.clone(), settings.tenant),
            runner,
            redis,
            metrics: JobMetrics::default(),
            idle: watch::Sender::new(false),
            tokens: AtomicU64::new(0),
            leases: Leases::new(settings.lease),
            parked: Mutex::default(),
            missing: Mutex::default(),
            elsewhere: Mutex::default(),
            left: ended,
            settings,
        };
        Some(Self { inner: Arc::new(inner), left })
    }

    /// What it measures.
    pub fn metrics(&self) -> &JobMetrics {
        &self.inner.metrics
    }

    /// Works until `stop`, or until it has grown too large; then ends what it has begun, for as long as an attempt may take.
    pub async fn run(self, stop: CancellationToken) {
        let Self { inner, left } = self;
        let end = CancellationToken::new();
        let rung = Arc::new(Notify::new());
        let mut helpers = JoinSet::new();
        let bell = inner.redis.patient(Purpose::Default, QUIET * 2);
        helpers.spawn(end.clone().run_until_cancelled_owned(inner.clone().listen(bell, rung.clone())));
        helpers.spawn(end.clone().run_until_cancelled_owned({
            let inner = inner.clone();
            async move { inner.leases.renew().await }
        }));
        helpers.spawn(end.clone().run_until_cancelled_owned(inner.clone().wake_left(left)));
        helpers.spawn(end.clone().run_until_cancelled_owned(inner.clone().follow_routing()));
        helpers.spawn(end.clone().run_until_cancelled_owned(inner.clone().sweep()));
        let mut jobs = JoinSet::new();
        inner.work(&mut jobs, &rung, &stop).await;
        let longest = inner.settings.timeout + Duration::from_secs(10);
        let ended = tokio::time::timeout(longest, async { while jobs.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            tracing::error!(jobs = jobs.len(), "jobs did not end in time, other workers will have them");
        }
        end.cancel();
        helpers.join_all().await;
    }
}

impl<S: Send + Sync + 'static> Inner<S> {
    async fn work(self: &Arc<Self>, jobs: &mut JoinSet<()>, rung: &Notify, stop: &CancellationToken) {
        let balance = self.settings.balance;
        let (mut slots, mut changed) = (balance.min_processes, Instant::now());
        let (mut waiting, mut weighed) = (false, None::<Instant>);
        while !stop.is_cancelled() {
            if weighed.is_none_or(|weighed| weighed.elapsed() > WEIGH) {
                if self.is_too_large() {
                    return;
                }
                weighed = Some(Instant::now());
            }
            while let Some(ended) = jobs.try_join_next() {
                if let Err(error) = ended {
                    tracing::error!(%error, "a job's task ended by itself, another worker will have the job");
                }
            }
            if changed.elapsed() >= balance.cooldown {
                slots = balance.next(slots, jobs.len(), waiting);
                changed = Instant::now();
            }
            self.metrics.set_processes(slots, jobs.len());
            let Some(free) = slots.checked_sub(jobs.len()).filter(|&free| free > 0) else {
                tokio::select! {
                    _ = jobs.join_next() => gather(jobs, slots).await,
                    () = tokio::time::sleep(balance.cooldown) => {}
                    () = stop.cancelled() => {}
                }
                continue;
            };
            let pause = match self.round(free, jobs).await {
                Ok(Round::Busy { left }) => {
                    waiting = left;
                    continue;
                }
                Ok(Round::Idle(pause)) => pause,
                Err(error) => {
                    tracing::warn!(%error, "asking whose turn it is failed, trying again");
                    SOON
                }
            };
            waiting = false;
            self.idle.send_replace(true);
            tokio::select! {
                () = rung.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            self.idle.send_replace(false);
        }
    }

    async fn round(self: &Arc<Self>, free: usize, jobs: &mut JoinSet<()>) -> ::redis::RedisResult<Round> {
        let taken = self.ring.take(free.min(TURNS)).await?;
        self.metrics.set_waiting(taken.waiting);
        if taken.turns.is_empty() {
            return Ok(Round::Idle(taken.pause().min(QUIET)));
        }
        let mays = join_all(taken.turns.iter().map(|turn| self.may_serve(turn.tenant))).await;
        // Who is not served has no share.
        let weights = taken.turns.iter().zip(&mays).map(|(turn, may)| (turn.start, may.weight()));
        let (served, weights): (Vec<_>, Vec<_>) = weights.enumerate().filter(|(_, (_, weight))| *weight > 0.0).unzip();
        let mut shares = vec![0; taken.turns.len()];
        for (place, share) in served.into_iter().zip(share(free, &weights)) {
            shares[place] = share;
        }
        let turns = taken.turns.iter().zip(mays).zip(shares);
        let looked = join_all(turns.map(|((turn, may), share)| self.look(&taken, turn, may, share))).await;
        let (served, begun): (Vec<_>, Vec<_>) = looked.into_iter().unzip();
        for begun in begun.into_iter().flatten() {
            jobs.spawn(self.clone().carry_out(begun));
        }
        if let Err(error) = self.ring.give_back(&taken, &served).await {
            // They come back by themselves.
            tracing::warn!(%error, "tenants could not be given back");
        }
        let left = taken.waiting > 0 || served.iter().any(|served| served.again == Again::AtOnce);
        Ok(Round::Busy { left })
    }

    /// One tenant's turn: what it has for us, and when it is to be asked again.
    async fn look<'t>(&self, taken: &Taken, turn: &'t Turn, may: May, share: usize) -> (Served<'t>, Vec<Begun>) {
        let not_now = |again| (Served { turn, cost: 0.0, again }, vec![]);
        let entry = match may {
            // Others are behind it: the next round is soon.
            May::Serve(_) if share == 0 => return not_now(Again::AtOnce),
            May::Serve(entry) => entry,
            May::Later(pause) => return not_now(Again::At(taken.after(pause))),
            May::Never => return not_now(Again::Never),
        };
        let store = Store::new(self.redis.clone(), &entry.queue.name);
        let terms = Terms {
            most: share,
            cap: usize::try_from(entry.queue.max_processes).unwrap_or_default().max(1),
            lease: self.settings.lease,
            tries: self.settings.tries,
        };
        let token = format!("{}#{}", self.settings.name, self.tokens.fetch_add(1, Ordering::Relaxed));
        let certain = self.leases.certain();
        let reserved = match store.reserve(terms, &token).await {
            Ok(reserved) => reserved,
            Err(error) => {
                tracing::warn!(target: "tenant", tenant_id = %entry.uuid, %error, "taking jobs failed");
                return not_now(Again::At(taken.after(SOON)));
            }
        };
        if reserved.vanished > 0 {
            let vanished = reserved.vanished;
            tracing::error!(target: "tenant", tenant_id = %entry.uuid, vanished, "jobs that were queued are not in Redis any more: does it evict keys?");
        }
        self.metrics.looked(entry.uuid, reserved.left, reserved.lost, reserved.given_up);
        let weight = weight(&entry);
        #[allow(clippy::cast_precision_loss, reason = "a turn has a few jobs")]
        let cost = reserved.jobs.len() as f64 / weight;
        let begin =
            |leased| Begun { entry: entry.clone(), store: store.clone(), leased, token: token.clone(), certain };
        (Served { turn, cost, again: reserved.again }, reserved.jobs.into_iter().map(begin).collect())
    }

    async fn carry_out(self: Arc<Self>, begun: Begun) {
        let Begun { entry, store, leased, token, certain } = begun;
        let (_holding, certain) = self.leases.hold(&token, &leased.id, &store, certain);
        let began = Instant::now();
        let ended = self.runner.run(&entry, &leased, &store, certain).await;
        self.metrics.ended(ended.kind, ended.waited, began.elapsed());
        let kept = self.tell(&entry, &store, &leased.id, &token, &ended).await;
        self.metrics.count(ended.kind, kept, 1);
    }

    /// Tells Redis how a job ended, again and again until it knows.
    async fn tell(&self, entry: &RoutingEntry, store: &Store, id: &str, token: &str, ended: &Ended) -> Outcome {
        let Some(fate) = &ended.fate else { return Outcome::Lost };
        let begun = Instant::now();
        loop {
            match store.finish(token, id, ended.unique.as_deref(), fate).await {
                Ok((told, left)) => {
                    if left > 0 || matches!(fate, Fate::Again(..)) {
                        // The receiver lives as long as the worker.
                        let _ = self.left.send(entry.uuid);
                    }
                    if told != Told::SomebodyElses {
                        return Outcome::of(fate);
                    }
                    tracing::error!(target: "tenant", tenant_id = %entry.uuid, job = id, "a job ended after its lease was lost: it may be done twice");
                    return Outcome::Lost;
                }
                Err(error) if begun.elapsed() < TELLING => {
                    tracing::warn!(target: "tenant", tenant_id = %entry.uuid, job = id, %error, "the end of a job could not be told, trying again");
                    tokio::time::sleep(SOON).await;
                }
                Err(error) => {
                    tracing::error!(target: "tenant", tenant_id = %entry.uuid, job = id, %error, "the end of a job could not be told: it will be done again");
                    return Outcome::Lost;
                }
            }
        }
    }

    fn is_too_large(&self) -> bool {
        let Some(limit) = self.settings.memory else { return false };
        let resident = resident();
        let too_large = resident > limit;
        if too_large {
            tracing::warn!(resident, limit, "the worker has grown too large, ends its jobs and then itself");
        }
        too_large
    }
}

/// Of short jobs many end at the same time, and a round for all of them costs what one for a single job does: waits for
/// half of them, and not for long.
async fn gather(jobs: &mut JoinSet<()>, slots: usize) {
    let half = async { while jobs.len() * 2 > slots && jobs.join_next().await.is_some() {} };
    // In vain where they are long.
    let _ = tokio::time::timeout(GATHER, half).await;
}

pub(super) fn weight(entry: &RoutingEntry) -> f64 {
    f64::from(entry.queue.weight.max(1))
}

/// Resident memory of this process in bytes; 0 where it is not known.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
