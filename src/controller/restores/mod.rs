//! Restores: one tenant's data, back as a backup has it.
//!
//! A step of one restore is see (`facts`), decide ([`desired::restore`]), do (`work`) and say (`say`), each restore in a task
//! of its own. How far it is stands in the marks of the databases, so that an operator which begins anew goes on where the last
//! one ended.

mod facts;
mod say;
mod work;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::Context;
use super::fleet::Wake;
use super::servers::Server;
use crate::api::TenantRestore;
use crate::api::tenant_restore::{RestorePhase, TenantRestoreStatus};
use crate::apply::{ApplyError, objects};
use crate::central::Replaced;
use crate::desired::restore::marks::ReplacedMark;
use crate::desired::restore::{self, statements};
use crate::desired::{self, names};
use crate::error::chain;

/// Between two looks at the restores while one is under way, and while there is none.
const PACE: Duration = Duration::from_millis(100);
const REST: Duration = Duration::from_secs(1);
/// Rounds of one step: more than any way from nothing to a Job has.
const MOST_ROUNDS: usize = 12;
/// How long the restores are waited for before the first Tenant is visited.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// What restores and everybody else have to agree on.
#[derive(Default)]
pub struct Restores {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Tenants that nobody may be served, and the restore that says so.
    held: HashMap<Uuid, Uuid>,
    /// Tenants whose live database is being migrated.
    migrating: HashSet<Uuid>,
    /// Restores whose replaced database the ledger lists.
    noted: HashSet<Uuid>,
}

impl Restores {
    /// Whether a restored database is taking the place of the tenant's.
    pub fn is_held(&self, tenant: Uuid) -> bool {
        self.lock().held.contains_key(&tenant)
    }

    /// Holds a tenant for a restore, or lets it go; whether that is news.
    fn hold(&self, tenant: Uuid, restore: Uuid, holds: bool) -> bool {
        let mut state = self.lock();
        match state.held.get(&tenant) {
            None if holds => state.held.insert(tenant, restore).is_none(),
            Some(holder) if !holds && *holder == restore => state.held.remove(&tenant).is_some(),
            _ => false,
        }
    }

    /// Lets go of what a restore holds that is not there any more.
    fn let_go(&self, restore: Uuid) -> Option<Uuid> {
        let mut state = self.lock();
        let tenant = state.held.iter().find(|(_, holder)| **holder == restore).map(|(tenant, _)| *tenant)?;
        state.held.remove(&tenant);
        Some(tenant)
    }

    /// The restores that hold a tenant.
    fn holders(&self) -> Vec<Uuid> {
        self.lock().held.values().copied().collect()
    }

    /// A turn to migrate a tenant's live database; None: a restore holds it.
    pub fn begin_migration(&self, tenant: Uuid) -> Option<Migrating<'_>> {
        let mut state = self.lock();
        let free = !state.held.contains_key(&tenant) && state.migrating.insert(tenant);
        free.then_some(Migrating { restores: self, tenant })
    }

    fn is_migrating(&self, tenant: Uuid) -> bool {
        self.lock().migrating.contains(&tenant)
    }

    /// Whether the ledger is known to list what a restore replaced.
    pub fn is_noted(&self, restore: Uuid) -> bool {
        self.lock().noted.contains(&restore)
    }

    /// The ledger lists what a restore replaced.
    pub fn note(&self, restore: Uuid) {
        self.lock().noted.insert(restore);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While this lives, no restore takes the database away.
pub struct Migrating<'a> {
    restores: &'a Restores,
    tenant: Uuid,
}

impl Drop for Migrating<'_> {
    fn drop(&mut self) {
        self.restores.lock().migrating.remove(&self.tenant);
    }
}

/// A replaced database as the ledger lists it.
pub fn row(server: &str, mark: &ReplacedMark) -> Replaced {
    Replaced {
        restore: mark.restore,
        tenant: mark.tenant,
        server: server.to_owned(),
        database: names::replaced(mark.restore),
        schema: mark.schema.clone(),
        drop_after: mark.drop_after,
    }
}

fn status_of(object: &TenantRestore) -> TenantRestoreStatus {
    object.status.clone().unwrap_or_default()
}

fn is_open(object: &TenantRestore) -> bool {
    !status_of(object).phase.is_over()
}

/// How long one that did not get on is left alone: long while it waits for somebody and said so, and not at all while
/// customers wait.
fn rest(object: &TenantRestore) -> Duration {
    let status = status_of(object);
    match status.phase {
        _ if status.observed_generation != object.metadata.generation => Duration::from_millis(500),
        RestorePhase::AwaitingApproval => Duration::from_secs(30),
        RestorePhase::Pending => Duration::from_secs(3),
        RestorePhase::Swapping => PACE,
        _ => Duration::from_millis(500),
    }
}

/// Holds the tenants again that an operator before this one had closed. Within bounds: where the definition of restores is
/// missing there are none.
pub async fn hold_first(context: &Context, store: &Store<TenantRestore>) {
    if tokio::time::timeout(FIRST_LOOK, store.wait_until_ready()).await.is_err() {
        tracing::warn!("the TenantRestores were not read in time, going on without");
        return;
    }
    for object in store.state() {
        let status = status_of(&object);
        let tenant = status.tenant.and_then(|tenant| tenant.parse().ok());
        if let Some(tenant) = tenant.filter(|_| status.phase == RestorePhase::Swapping && !object.spec.abort) {
            context.restores.hold(tenant, restore::uid(&object), true);
        }
    }
}

/// What one process remembers of restores; none of it is needed by the next one.
#[derive(Default)]
struct Worker {
    /// Which restore, and whether it got on.
    tasks: JoinSet<(Uuid, bool)>,
    running: HashSet<Uuid>,
    /// Whose step a task is, for one that ends without a word.
    tasks_of: HashMap<tokio::task::Id, Uuid>,
    /// When a restore was looked at last.
    looked: HashMap<Uuid, Instant>,
}

/// Works on restores until `stop`.
pub async fn run(context: Arc<Context>, store: Store<TenantRestore>, stop: CancellationToken) {
    let ready = tokio::select! {
        ready = store.wait_until_ready() => ready,
        () = stop.cancelled() => return,
    };
    if ready.is_err() {
        return;
    }
    let mut worker = Worker::default();
    loop {
        let pause = if worker.pass(&context, &store).await { PACE } else { REST };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Some(ended) = worker.tasks.join_next() => worker.ended(ended),
            () = stop.cancelled() => return,
        }
    }
}

impl Worker {
    fn ended(&mut self, ended: Result<(Uuid, bool), tokio::task::JoinError>) {
        match ended {
            Ok((uid, got_on)) => {
                self.running.remove(&uid);
                if got_on {
                    self.looked.remove(&uid);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a step of a restore ended without a word");
                if let Some(uid) = self.tasks_of.remove(&error.id()) {
                    self.running.remove(&uid);
                }
            }
        }
    }

    /// Whether there is a restore to work on.
    async fn pass(&mut self, context: &Arc<Context>, store: &Store<TenantRestore>) -> bool {
        let all = store.state();
        let mut open: Vec<_> = all.iter().filter(|object| is_open(object)).cloned().collect();
        open.sort_by_key(|object| (object.creation_timestamp().map(|time| time.0), object.name_any()));
        self.sweep(context, &open).await;
        self.looked.retain(|uid, _| open.iter().any(|object| restore::uid(object) == *uid));
        let mut first: HashMap<(String, String), String> = HashMap::new();
        let mut busy = false;
        for object in open {
            let whose = (object.namespace().unwrap_or_default(), object.spec.tenant_ref.name.clone());
            let before = first.get(&whose).cloned();
            first.entry(whose).or_insert_with(|| object.name_any());
            let uid = restore::uid(&object);
            let rest = rest(&object);
            busy |= rest < REST;
            let waits = self.looked.get(&uid).is_some_and(|looked| looked.elapsed() < rest);
            if self.running.contains(&uid) || waits {
                continue;
            }
            self.looked.insert(uid, Instant::now());
            self.running.insert(uid);
            let context = Arc::clone(context);
            let task = self.tasks.spawn(async move {
                let got_on = match step(&context, &object, before).await {
                    Ok(got_on) => got_on,
                    Err(error) => {
                        let why = chain(&error);
                        tracing::warn!(
                            restore = object.name_any(),
                            error = why,
                            "a restore did not get on, trying again"
                        );
                        say::trouble(&context, &object, &why).await;
                        false
                    }
                };
                (uid, got_on)
            });
            self.tasks_of.retain(|_, uid| self.running.contains(uid));
            self.tasks_of.insert(task.id(), uid);
        }
        busy
    }

    /// Removes what is beside a live database for restores that are over or not there any more, and lets their tenants go.
    async fn sweep(&self, context: &Context, open: &[Arc<TenantRestore>]) {
        let is_open = |uid: &Uuid| open.iter().any(|object| restore::uid(object) == *uid) || self.running.contains(uid);
        for uid in context.restores.holders().into_iter().filter(|uid| !is_open(uid)) {
            if let Some(tenant) = context.restores.let_go(uid) {
                wake(context, tenant);
            }
        }
        for server in context.servers.all().into_iter().filter(|server| server.is_usable()) {
            let there = server.look(|catalogue| {
                let names = catalogue.databases.keys().chain(catalogue.roles.keys());
                names.filter_map(|name| names::restore_beside(name)).collect::<HashSet<_>>()
            });
            for uid in there.unwrap_or_default().into_iter().filter(|uid| !is_open(uid)) {
                if let Err(error) = remove(context, &server, uid).await {
                    tracing::warn!(server = server.name, restore = %uid, error = chain(&error), "could not remove what a restore left, trying again later");
                }
            }
        }
    }
}

/// Removes the Job, the Secret, the database and the login of a restore; the login last, by which the rest is found.
async fn remove(context: &Context, server: &Server, uid: Uuid) -> Result<(), ApplyError> {
    work::remove_objects(context, uid).await?;
    let asked = server.of_restore(uid, Uuid::nil()).await;
    let catalogue = asked.map_err(|source| ApplyError::Sql {
        doing: format!("look on server {} for what restore {uid} left", server.name),
        source,
    })?;
    for batch in statements::remove(uid, &catalogue) {
        server.run(&batch, None).await?;
    }
    tracing::info!(server = server.name, restore = %uid, "removed what a restore had made beside the live database");
    Ok(())
}

fn wake(context: &Context, tenant: Uuid) {
    if let Some((namespace, name)) = context.ledger.holder_of(tenant) {
        // A closed channel: the operator is stopping.
        let _ = context.wake.send(Wake::One(ObjectRef::new(&name).within(&namespace)));
    }
}

/// Rounds of see, decide and do until nothing is planned, then the status. Whether anything was done.
async fn step(context: &Context, seen: &TenantRestore, first: Option<String>) -> Result<bool, ApplyError> {
    let Some(object) = fresh(context, seen).await? else { return Ok(false) };
    if !is_open(&object) || object.metadata.deletion_timestamp.is_some() {
        return Ok(false);
    }
    let mut object = object;
    let mut failure = None;
    for round in 0..MOST_ROUNDS {
        let facts = facts::facts(context, &object, first.clone(), failure.take()).await;
        let outlook = desired::restore::plan(&facts);
        if let restore::Whose::Known(target) = &facts.whose
            && context.restores.hold(target.uuid, restore::uid(&object), outlook.holds)
        {
            wake(context, target.uuid);
        }
        if outlook.effects.is_empty() {
            let said = say::write(context, &object, &facts, &outlook).await?;
            return Ok(said || round > 0);
        }
        failure = work::execute(context, &facts, &outlook.effects).await?;
        if outlook.phase.is_over() {
            return say::write(context, &object, &facts, &outlook).await;
        }
        // How far it is stands in the status before the next step: what a Job has told is kept nowhere else.
        if outlook.restored.is_some() || object.status.as_ref().map(|status| status.phase) != Some(outlook.phase) {
            say::write(context, &object, &facts, &outlook).await?;
            let Some(again) = fresh(context, &object).await? else { return Ok(false) };
            object = again;
        }
    }
    Ok(true)
}

/// Reads it from the API server itself; None: it is gone.
async fn fresh(context: &Context, object: &TenantRestore) -> Result<Option<TenantRestore>, ApplyError> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<TenantRestore> = Api::namespaced(context.client.clone(), &namespace);
    let name = object.name_any();
    let found = api.get_opt(&name).await;
    let found =
        found.map_err(|source| ApplyError::kubernetes(format!("read TenantRestore {namespace}/{name}"), source))?;
    Ok(found.filter(|found| found.metadata.uid == object.metadata.uid))
}

async fn delete<K>(context: &Context, name: &str) -> Result<(), ApplyError>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let how = DeleteParams::background();
    let remove = objects::remove::<K>(&context.client, &context.settings.namespace, name, &how);
    context.gate.pass(&format!("remove {} {name}", K::kind(&())), remove).await
}
