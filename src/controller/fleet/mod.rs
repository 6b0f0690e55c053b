//! The fleet's documents: routing and pooler entries of all tenants, kept in slices, and who serves them.
//!
//! Tenants put entries in and take entries out one by one; nothing else ever removes one, so that a list that is not
//! complete yet can take nobody off line (rule R7). [`writer`] writes what changed, [`readers`] hears from the poolers and
//! apps what they serve.

mod readers;
mod slice;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use crate::api::Tenant;
use crate::api::pooler::{PoolerEntry, PoolerSettings};
use crate::api::routing::RoutingEntry;
use crate::api::slices::{pooler_settings, pooler_slice, routing_slice, slice_of};
use crate::api::tenant::TenantState;
use crate::apply::gate::Gate;
use crate::desired::facts::{Published, Reach};
use crate::desired::names;

use slice::Slice;

/// Readers serve a change within this time, or something is the matter with them.
const FRESH: Duration = Duration::from_secs(5);

/// The fleet's documents.
pub struct Fleet {
    state: Mutex<State>,
    /// Rung for the writer of each side.
    changed: [Notify; 2],
    woken: mpsc::UnboundedSender<Wake>,
    /// Rung when a routing entry changed, for whoever keeps the edge.
    routed: Notify,
    /// Who reads all of routing: the app's Service, without whose endpoints nobody is served, and the workers'.
    routing_readers: [String; 2],
    gate: Gate,
}

/// Who has to be looked at again because readers said something.
#[derive(Clone, Debug)]
pub enum Wake {
    /// This Tenant: what it waited for is served.
    One(ObjectRef<Tenant>),
    /// Every Tenant: a Service got its first ready endpoint or lost its last.
    All,
}

#[derive(Default)]
struct State {
    slices: BTreeMap<String, Slice>,
    /// Service to its ready endpoints.
    readers: HashMap<String, BTreeMap<String, readers::Endpoint>>,
    /// Changes of this process that are not known to be served: (slice, tenant).
    pending: HashMap<(String, Uuid), Pending>,
    /// Number of changes of this process, by [`Side`].
    changes: [usize; 2],
    /// When tenants that sleep were last asked for.
    asked: HashMap<Uuid, Instant>,
}

/// Who reads a slice. Each side has a writer of its own: a Tenant passes the poolers before the apps, and its second write
/// must not wait for the first ones of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Poolers,
    Apps,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Poolers, Self::Apps];

    const fn of(slice: &Slice) -> Self {
        if slice.server.is_some() { Self::Poolers } else { Self::Apps }
    }
}

struct Pending {
    generation: u64,
    since: Instant,
    tenant: ObjectRef<Tenant>,
}

impl Fleet {
    /// An empty fleet; wakes go to `woken`.
    pub fn new(routing_readers: [String; 2], woken: mpsc::UnboundedSender<Wake>, gate: Gate) -> Self {
        Self {
            state: Mutex::default(),
            changed: Default::default(),
            routed: Notify::new(),
            woken,
            routing_readers,
            gate,
        }
    }

    /// The tenant's routing entry and who serves it.
    pub fn routing(&self, uuid: Uuid) -> Published<RoutingEntry> {
        let (state, name) = (self.lock(), routing_slice(slice_of(uuid)));
        let entry = state.slices.get(&name).and_then(|slice| slice.routing(uuid)).cloned();
        Published { entry, reach: state.reach(&name, uuid, &self.readers_of(uuid)) }
    }

    /// Services whose endpoints have to know a tenant's routing: also those of workers of its own, which know no other's.
    fn readers_of(&self, uuid: Uuid) -> [String; 3] {
        let [app, workers] = self.routing_readers.clone();
        [app, workers, names::workers(uuid)]
    }

    /// The tenant's pooler entry and who serves it.
    pub fn pooler(&self, server: &str, uuid: Uuid) -> Published<PoolerEntry> {
        let (state, name) = (self.lock(), pooler_slice(server, slice_of(uuid)));
        let entry = state.slices.get(&name).and_then(|slice| slice.pooler(uuid)).cloned();
        Published { entry, reach: state.reach(&name, uuid, &[names::pooler(server)]) }
    }

    /// Puts the tenant's routing entry in (Some) or takes it out (None).
    pub fn set_routing(&self, tenant: ObjectRef<Tenant>, uuid: Uuid, entry: Option<RoutingEntry>) {
        let name = routing_slice(slice_of(uuid));
        self.change(name, Slice::routing_slice, |slice| slice.entries.set_routing(uuid, entry), Some((uuid, tenant)));
        self.routed.notify_one();
    }

    /// The hosts in the routing entries that are the customers' own, with their Tenants.
    pub fn own_hosts(&self) -> BTreeMap<String, ObjectRef<Tenant>> {
        let state = self.lock();
        let entries = state.slices.values().flat_map(Slice::routings);
        // The first is the one under the base domain.
        let own = entries.flat_map(|entry| entry.hosts.iter().skip(1).map(move |host| (host, entry)));
        own.map(|(host, entry)| (host.clone(), ObjectRef::new(&entry.name).within(&entry.namespace))).collect()
    }

    /// Waits until a routing entry changed that was put in or taken out since the last time.
    pub async fn own_hosts_changed(&self) {
        self.routed.notified().await;
    }

    /// Puts the tenant's pooler entry in (Some) or takes it out (None).
    pub fn set_pooler(&self, tenant: ObjectRef<Tenant>, server: &str, uuid: Uuid, entry: Option<PoolerEntry>) {
        let name = pooler_slice(server, slice_of(uuid));
        self.change(
            name,
            || Slice::pooler_slice(server),
            |slice| slice.entries.set_pooler(uuid, entry),
            Some((uuid, tenant)),
        );
    }

    /// Says to whoever reads routing that a tenant's data was dropped for good.
    pub fn set_dropped(&self, uuid: Uuid) {
        let now = Timestamp::now().as_second();
        let name = routing_slice(slice_of(uuid));
        self.change(name, Slice::routing_slice, |slice| slice.note_dropped(uuid, now), None);
    }

    /// Of a tenant that hibernates: how long it is still awake, if it is. `published`: its routing entry, which tells that it
    /// was awake before this process began. `rest`: how long after the last request.
    pub fn awake(&self, uuid: Uuid, published: Option<&RoutingEntry>, rest: Duration) -> Option<Duration> {
        let mut state = self.lock();
        let was_awake = published.is_some_and(|entry| entry.sleeps && entry.state == TenantState::Active);
        let asked = match state.asked.get(&uuid) {
            Some(asked) => *asked,
            None if was_awake => *state.asked.entry(uuid).or_insert_with(Instant::now),
            None => return None,
        };
        let left = rest.checked_sub(asked.elapsed()).filter(|left| !left.is_zero());
        if left.is_none() {
            state.asked.remove(&uuid);
        }
        left
    }

    /// Tenants that sleep, or would, are asked for; those for whom that is news are looked at.
    fn wake_wanted(&self, wanted: &[Uuid]) {
        let mut state = self.lock();
        for &uuid in wanted {
            let entry = state.slices.get(&routing_slice(slice_of(uuid))).and_then(|slice| slice.routing(uuid));
            let Some(entry) = entry.filter(|entry| entry.sleeps) else { continue };
            let tenant = ObjectRef::new(&entry.name).within(&entry.namespace);
            if state.asked.insert(uuid, Instant::now()).is_none() {
                // A closed channel: the operator is stopping.
                let _ = self.woken.send(Wake::One(tenant));
            }
        }
    }

    /// Publishes the settings of a server's pooler; nothing happens when they are the same.
    pub fn set_settings(&self, server: &str, settings: PoolerSettings) {
        self.change(
            pooler_settings(server),
            || Slice::settings_slice(server),
            |slice| slice.entries.set_settings(settings),
            None,
        );
    }

    /// Whether a change was made a moment ago that readers do not serve yet.
    pub fn is_awaited(&self) -> bool {
        self.lock().pending.values().any(|pending| pending.since.elapsed() < FRESH)
    }

    /// The uuids that have an entry anywhere.
    pub fn uuids(&self) -> Vec<Uuid> {
        let mut uuids: Vec<_> = self.lock().slices.values().flat_map(Slice::uuids).collect();
        uuids.sort_unstable();
        uuids.dedup();
        uuids
    }

    fn change(
        &self,
        name: String,
        new: impl FnOnce() -> Slice,
        change: impl FnOnce(&mut Slice) -> bool,
        who: Option<(Uuid, ObjectRef<Tenant>)>,
    ) {
        let mut state = self.lock();
        let slice = state.slices.entry(name.clone()).or_insert_with(new);
        if !change(slice) {
            return;
        }
        let side = Side::of(slice);
        let generation = slice.change(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default());
        if let Some((uuid, tenant)) = who {
            state.pending.insert((name, uuid), Pending { generation, since: Instant::now(), tenant });
        }
        state.changes[side as usize] += 1;
        drop(state);
        self.changed[side as usize].notify_one();
    }

    fn changes(&self, side: Side) -> usize {
        self.lock().changes[side as usize]
    }

    /// Wakes the tenants whose changes are served everywhere now.
    fn wake_served(&self) {
        let mut state = self.lock();
        let served: Vec<_> = state
            .pending
            .iter()
            .filter(|((slice, uuid), pending)| state.is_served(slice, pending.generation, &self.readers_of(*uuid)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in served {
            if let Some(pending) = state.pending.remove(&key) {
                // A closed channel: the operator is stopping.
                let _ = self.woken.send(Wake::One(pending.tenant));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// `readers`: Services whose endpoints read the slice; without endpoints of the first one nobody is served.
    fn reach(&self, slice: &str, uuid: Uuid, readers: &[String]) -> Reach {
        let pending = self.pending.get(&(slice.to_owned(), uuid));
        let (generation, waited) = match (pending, self.slices.get(slice)) {
            (Some(pending), _) => (pending.generation, pending.since.elapsed()),
            // Unchanged since this process began: whoever is behind was behind before, and nobody waits for it.
            (None, Some(slice)) => (slice.loaded, Duration::MAX),
            // Never written: there is nothing that a reader could serve.
            (None, None) => return Reach::All,
        };
        if readers.first().and_then(|first| self.readers.get(first)).is_none_or(BTreeMap::is_empty) {
            return Reach::NoReaders;
        }
        let mut behind: Vec<_> = readers
            .iter()
            .filter_map(|service| self.readers.get(service))
            .flatten()
            .filter(|(_, endpoint)| !endpoint.serves(slice, generation))
            .map(|(name, _)| name.clone())
            .collect();
        behind.truncate(3);
        if behind.is_empty() { Reach::All } else { Reach::Behind { readers: behind, waited } }
    }

    fn is_served(&self, slice: &str, generation: u64, routing_readers: &[String]) -> bool {
        let pooler =
            self.slices.get(slice).and_then(|slice| slice.server.as_deref()).map(|server| [names::pooler(server)]);
        let readers = pooler.as_ref().map_or(routing_readers, |pooler| pooler);
        let endpoints = |service: &String| self.readers.get(service).into_iter().flat_map(BTreeMap::values);
        readers.first().is_some_and(|first| endpoints(first).next().is_some())
            && readers.iter().flat_map(endpoints).all(|endpoint| endpoint.serves(slice, generation))
    }
}
