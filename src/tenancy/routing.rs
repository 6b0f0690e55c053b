//! The map from host to tenant.
//!
//! The operator writes every tenant's entry into one of a fixed number of slices. [`RoutingTable`] takes them one by
//! one and publishes an immutable map; a request reads it without a lock and without allocating.
//!
//! Two rules stand above all others. *Last good state stays*: an app that cannot read news goes on serving what it
//! knows. *Never somebody else's data*: where it is not certain whose host this is, nobody is served there.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::Deserialize;
use uuid::Uuid;

use super::host;
use crate::api::routing::{RoutingEntry, RoutingSlice};
use crate::api::slices::{SCHEMA, routing_slice, slice_of};

/// Host to entry, as served right now.
type Hosts = HashMap<Arc<str>, Arc<RoutingEntry>>;

/// Why a slice's new content is not taken; what was served before is served on.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Not a slice.
    #[error("decoding it")]
    Decode(#[source] serde_json::Error),
    /// Written by a newer operator than this app understands.
    #[error("its schema {found} is newer than {SCHEMA}, the newest known here: update the app")]
    Schema {
        /// The schema it says.
        found: u32,
    },
    /// Written by an operator that has been replaced, or an old copy.
    #[error("its epoch {found_epoch}, generation {found} is older than epoch {epoch}, generation {generation}")]
    Older {
        /// Epoch of the refused content.
        found_epoch: u64,
        /// Generation of the refused content.
        found: u64,
        /// Epoch that is served.
        epoch: u64,
        /// Generation that is served.
        generation: u64,
    },
    /// The slice is not there any more. Nobody removes tenants that way, so it is a fault and not an order.
    #[error("it vanished")]
    Vanished,
}

/// What an update changed, for whoever keeps something per tenant.
#[derive(Debug, Default)]
pub struct Updated {
    /// Generation that is served from now on; to be acknowledged.
    pub generation: u64,
    /// Entries that are new or differ from before.
    pub changed: Vec<Arc<RoutingEntry>>,
    /// Tenants that no slice names any more.
    pub removed: Vec<Uuid>,
}

/// Host → tenant, updated slice by slice.
#[derive(Default)]
pub struct RoutingTable {
    /// What requests read. Replaced as a whole, so that a request sees one state and never half an update.
    published: ArcSwap<Published>,
    /// What the published map was made from. Only updates lock it, requests never do; it is a `std` mutex because
    /// nothing is awaited while it is held.
    slices: Mutex<Slices>,
}

/// One state of routing.
#[derive(Default)]
struct Published {
    hosts: Hosts,
    /// Each once, also those without a host.
    tenants: HashMap<Uuid, Arc<RoutingEntry>>,
}

/// Every slice's last good content.
#[derive(Default)]
struct Slices {
    by_name: BTreeMap<String, Slice>,
    /// True once every slice was heard of. Before that, "already served" is an accident of the order of arrival.
    settled: bool,
}

/// One slice's last good content.
struct Slice {
    epoch: u64,
    generation: u64,
    tenants: Vec<Routed>,
    dropped: Vec<Uuid>,
}

/// An entry with its hosts in the form that the map is keyed by, made once per change and shared by all later maps.
#[derive(Clone)]
struct Routed {
    entry: Arc<RoutingEntry>,
    hosts: Vec<Arc<str>>,
}

/// Read before the rest, because a newer schema may not decode as ours and deserves the better message.
#[derive(Deserialize)]
struct SchemaOnly {
    schema: u32,
}

impl RoutingTable {
    /// The tenant that is served at a canonical host. There is no wildcard and no default: an unknown host is nobody's.
    pub fn find(&self, canonical_host: &str) -> Option<Arc<RoutingEntry>> {
        self.published.load().hosts.get(canonical_host).cloned()
    }

    /// The same, with the host in the form that outlives the request, so that it is not copied for each of them.
    pub fn find_host(&self, canonical_host: &str) -> Option<(Arc<str>, Arc<RoutingEntry>)> {
        self.published.load().hosts.get_key_value(canonical_host).map(|(host, entry)| (host.clone(), entry.clone()))
    }

    /// The tenant of that uuid.
    pub fn tenant(&self, uuid: Uuid) -> Option<Arc<RoutingEntry>> {
        self.published.load().tenants.get(&uuid).cloned()
    }

    /// All of them.
    pub fn tenants(&self) -> Vec<Arc<RoutingEntry>> {
        self.published.load().tenants.values().cloned().collect()
    }

    /// Those whose data was dropped for good, as far as any slice says so and none routes them.
    pub fn dropped(&self) -> Vec<Uuid> {
        let published = self.published.load();
        let slices = self.lock();
        let all = slices.by_name.values().flat_map(|slice| &slice.dropped);
        all.filter(|uuid| !published.tenants.contains_key(uuid)).copied().collect()
    }

    /// Number of hosts that are served.
    pub fn hosts(&self) -> usize {
        self.published.load().hosts.len()
    }

    /// Says that every slice has been heard of once. From here on, a tenant that is served at a host keeps it when
    /// another one claims it too.
    pub fn settle(&self) {
        self.lock().settled = true;
    }

    /// Whether every slice has been heard of once, so that an unknown host is really unknown.
    pub fn is_settled(&self) -> bool {
        self.lock().settled
    }

    /// Takes a slice's new content. When this returns `Ok`, requests already see it.
    ///
    /// # Errors
    /// The content is refused, and what was served before is served on.
    pub fn update(&self, name: &str, content: Option<&[u8]>) -> Result<Updated, Refused> {
        let mut slices = self.lock();
        let served = slices.by_name.get(name);
        let Some(content) = content else {
            // A slice that never had content is one that the operator has not needed yet.
            return if served.is_some() { Err(Refused::Vanished) } else { Ok(Updated::default()) };
        };
        let document = decode(content)?;
        if let Some(served) = served {
            refuse_older(served, &document)?;
        }
        let generation = document.generation;
        let (slice, mut changed) = take(document, served);
        let before = slices.by_name.insert(name.to_owned(), slice);
        let current = one_per_tenant(&slices);
        let hosts = published(&current, slices.settled, &self.published.load().hosts);
        let tenants = current.iter().map(|(uuid, routed)| (*uuid, routed.entry.clone())).collect();
        self.published.store(Arc::new(Published { hosts, tenants }));
        changed.retain(|entry| current.get(&entry.uuid).is_some_and(|routed| Arc::ptr_eq(&routed.entry, entry)));
        let gone = before.into_iter().flat_map(|slice| slice.tenants).map(|routed| routed.entry.uuid);
        let removed = gone.filter(|uuid| !current.contains_key(uuid)).collect();
        Ok(Updated { generation, changed, removed })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slices> {
        // A panic while it was held leaves complete slices behind: they are only ever replaced as a whole.
        self.slices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn decode(content: &[u8]) -> Result<RoutingSlice, Refused> {
    let SchemaOnly { schema } = serde_json::from_slice(content).map_err(Refused::Decode)?;
    if schema > SCHEMA {
        return Err(Refused::Schema { found: schema });
    }
    serde_json::from_slice(content).map_err(Refused::Decode)
}

/// An operator that lost its leadership may still have a write in flight: its epoch gives it away. Within an epoch the
/// generation only grows. A new epoch may begin its generations anew, as after the loss of the slices.
fn refuse_older(served: &Slice, found: &RoutingSlice) -> Result<(), Refused> {
    if (found.epoch, found.generation) < (served.epoch, served.generation) {
        return Err(Refused::Older {
            found_epoch: found.epoch,
            found: found.generation,
            epoch: served.epoch,
            generation: served.generation,
        });
    }
    Ok(())
}

/// The slice as kept, and what in it is new. Entries that did not change keep their allocation, so that whoever holds
/// one (a pool, a running request) sees at the cost of comparing two pointers that nothing changed.
fn take(document: RoutingSlice, served: Option<&Slice>) -> (Slice, Vec<Arc<RoutingEntry>>) {
    let known: HashMap<Uuid, &Routed> =
        served.into_iter().flat_map(|slice| &slice.tenants).map(|routed| (routed.entry.uuid, routed)).collect();
    let mut changed = Vec::new();
    let keep_or_make = |entry: RoutingEntry| match known.get(&entry.uuid) {
        Some(routed) if *routed.entry == entry => (*routed).clone(),
        _ => {
            let routed = Routed { hosts: servable_hosts(&entry), entry: Arc::new(entry) };
            changed.push(routed.entry.clone());
            routed
        }
    };
    let tenants = document.tenants.into_iter().map(keep_or_make).collect();
    let dropped = document.dropped.into_keys().collect();
    (Slice { epoch: document.epoch, generation: document.generation, tenants, dropped }, changed)
}

/// A host that is not canonical could never be asked for, so it is left out, and said once.
fn servable_hosts(entry: &RoutingEntry) -> Vec<Arc<str>> {
    let is_canonical = |host: &&String| {
        let good = host::canonical(host).is_ok_and(|canonical| canonical == host.as_str());
        if !good {
            tracing::warn!(tenant_id = %entry.uuid, host, "host in routing is not in canonical form and not served");
        }
        good
    };
    entry.hosts.iter().filter(is_canonical).map(|host| Arc::from(host.as_str())).collect()
}

/// The map that follows from all slices. Where two tenants claim one host, `before` decides, once it means something.
fn published(tenants: &HashMap<Uuid, &Routed>, settled: bool, before: &Hosts) -> Hosts {
    let mut hosts = Hosts::with_capacity(before.len() + 8);
    let mut claimed_twice: HashMap<Arc<str>, HashMap<Uuid, Arc<RoutingEntry>>> = HashMap::new();
    for routed in tenants.values() {
        for host in &routed.hosts {
            if let Some(other) = hosts.insert(host.clone(), routed.entry.clone())
                && other.uuid != routed.entry.uuid
            {
                let claims = claimed_twice.entry(host.clone()).or_default();
                claims.insert(other.uuid, other);
                claims.insert(routed.entry.uuid, routed.entry.clone());
            }
        }
    }
    for (host, mut claims) in claimed_twice {
        // The tenant that people already meet at this host keeps it, the newcomer is refused. Where nobody was served
        // before, nobody is: to choose one would show its data to the other one's people.
        let keeper = before.get(&host).filter(|_| settled).and_then(|served| claims.remove(&served.uuid));
        let tenant_id = keeper.as_ref().map_or_else(|| "nobody".to_owned(), |entry| entry.uuid.to_string());
        tracing::error!(%host, tenant_id, "more than one tenant claims a host, only the one named here is served");
        match keeper {
            Some(entry) => hosts.insert(host, entry),
            None => hosts.remove(&host),
        };
    }
    hosts
}

/// Every tenant once. A tenant stands in two slices only while slices are rearranged; then the slice that its uuid
/// belongs to is the one that the operator writes.
fn one_per_tenant(slices: &Slices) -> HashMap<Uuid, &Routed> {
    let mut tenants = HashMap::new();
    for (name, slice) in &slices.by_name {
        for routed in &slice.tenants {
            let uuid = routed.entry.uuid;
            if !tenants.contains_key(&uuid) || *name == routing_slice(slice_of(uuid)) {
                tenants.insert(uuid, routed);
            }
        }
    }
    tenants
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::testing::{entry, slice};

    fn uuid(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn served(table: &RoutingTable, host: &str) -> Option<Uuid> {
        table.find(host).map(|entry| entry.uuid)
    }

    #[test]
    fn hosts_are_found_exactly_and_never_by_default() {
        let table = RoutingTable::default();
        table.update("routing-00", Some(&slice(1, 1, &[entry(uuid(1), &["acme.example"])]))).unwrap();
        assert_eq!(served(&table, "acme.example"), Some(uuid(1)));
        for other in ["example", "www.acme.example", "acme.example.", "ACME.example", "", "*"] {
            assert_eq!(served(&table, other), None, "{other}");
        }
    }

    #[test]
    fn an_update_replaces_the_slice_and_names_what_changed_and_what_is_gone() {
        let table = RoutingTable::default();
        let (one, two) = (entry(uuid(1), &["one.example"]), entry(uuid(2), &["two.example"]));
        let first = table.update("routing-00", Some(&slice(1, 1, &[one.clone(), two]))).unwrap();
        assert_eq!((first.generation, first.changed.len(), first.removed.len()), (1, 2, 0));
        let held = table.find("one.example").unwrap();
        let three = entry(uuid(3), &["three.example"]);
        let second = table.update("routing-00", Some(&slice(1, 2, &[one, three]))).unwrap();
        assert_eq!(second.changed.iter().map(|entry| entry.uuid).collect::<Vec<_>>(), [uuid(3)]);
        assert_eq!(second.removed, [uuid(2)]);
        assert_eq!(served(&table, "two.example"), None);
        assert!(Arc::ptr_eq(&held, &table.find("one.example").unwrap()), "an unchanged entry keeps its allocation");
    }

    type Expected = fn(&Refused) -> bool;

    #[test]
    fn what_is_broken_newer_older_or_gone_leaves_the_last_good_state() {
        let table = RoutingTable::default();
        let acme = entry(uuid(1), &["acme.example"]);
        table.update("routing-00", Some(&slice(5, 7, &[acme]))).unwrap();
        let newer = String::from_utf8(slice(9, 9, &[])).unwrap().replace("\"schema\":1", "\"schema\":2,\"more\":[]");
        let rows: [(Option<Vec<u8>>, Expected); 6] = [
            (Some(b"{".to_vec()), |refused| matches!(refused, Refused::Decode(_))),
            (Some(b"{\"schema\":1}".to_vec()), |refused| matches!(refused, Refused::Decode(_))),
            (Some(newer.into_bytes()), |refused| matches!(refused, Refused::Schema { found: 2 })),
            (Some(slice(4, 8, &[])), |refused| matches!(refused, Refused::Older { .. })),
            (Some(slice(5, 6, &[])), |refused| matches!(refused, Refused::Older { .. })),
            (None, |refused| matches!(refused, Refused::Vanished)),
        ];
        for (content, expected) in rows {
            let refused = table.update("routing-00", content.as_deref()).unwrap_err();
            assert!(expected(&refused), "{refused}");
            assert_eq!(served(&table, "acme.example"), Some(uuid(1)), "after: {refused}");
        }
    }

    #[test]
    fn a_new_epoch_is_believed_even_when_its_generations_begin_anew() {
        let table = RoutingTable::default();
        table.update("routing-00", Some(&slice(5, 7, &[]))).unwrap();
        let updated = table.update("routing-00", Some(&slice(6, 1, &[entry(uuid(1), &["acme.example"])]))).unwrap();
        assert_eq!(updated.generation, 1);
        assert_eq!(served(&table, "acme.example"), Some(uuid(1)));
    }

    #[test]
    fn a_host_that_is_served_stays_with_its_tenant_when_another_claims_it() {
        let table = RoutingTable::default();
        table.settle();
        table.update("routing-01", Some(&slice(1, 1, &[entry(uuid(1), &["acme.example"])]))).unwrap();
        let thief = entry(uuid(2), &["acme.example", "thief.example"]);
        table.update("routing-00", Some(&slice(1, 1, std::slice::from_ref(&thief)))).unwrap();
        assert_eq!(served(&table, "acme.example"), Some(uuid(1)));
        assert_eq!(served(&table, "thief.example"), Some(uuid(2)), "its other hosts are served");
        // Another tenant's change rebuilds the map; the decision stands.
        table.update("routing-02", Some(&slice(1, 1, &[entry(uuid(3), &["third.example"])]))).unwrap();
        assert_eq!(served(&table, "acme.example"), Some(uuid(1)));
        // The first gives the host up: only now does it go over.
        table.update("routing-01", Some(&slice(1, 2, &[entry(uuid(1), &[])]))).unwrap();
        assert_eq!(served(&table, "acme.example"), Some(uuid(2)));
    }

    #[test]
    fn a_host_that_two_tenants_claim_from_the_start_is_served_for_neither() {
        let table = RoutingTable::default();
        table.update("routing-00", Some(&slice(1, 1, &[entry(uuid(1), &["acme.example"])]))).unwrap();
        table.update("routing-01", Some(&slice(1, 1, &[entry(uuid(2), &["acme.example"])]))).unwrap();
        table.settle();
        assert_eq!(served(&table, "acme.example"), None, "whichever slice arrived first");
        table.update("routing-02", Some(&slice(1, 1, &[]))).unwrap();
        assert_eq!(served(&table, "acme.example"), None);
    }

    #[test]
    fn a_tenant_in_two_slices_is_served_from_the_one_its_uuid_belongs_to() {
        let table = RoutingTable::default();
        let id = uuid(5 << 96);
        let mut stale = entry(id, &["acme.example"]);
        stale.display_name = "stale".into();
        table.update("routing-05", Some(&slice(1, 1, &[entry(id, &["acme.example"])]))).unwrap();
        table.update("routing-06", Some(&slice(1, 1, std::slice::from_ref(&stale)))).unwrap();
        table.update("routing-04", Some(&slice(1, 1, &[stale]))).unwrap();
        assert_ne!(table.find("acme.example").unwrap().display_name, "stale");
        let moved = table.update("routing-04", Some(&slice(1, 2, &[]))).unwrap();
        assert!(moved.removed.is_empty(), "it still stands in another slice");
    }

    #[test]
    fn a_host_in_another_form_than_the_canonical_one_is_left_out() {
        let table = RoutingTable::default();
        let odd = entry(uuid(1), &["ACME.example", "acme.example:443", "good.example"]);
        table.update("routing-00", Some(&slice(1, 1, &[odd]))).unwrap();
        assert_eq!(table.hosts(), 1);
        assert_eq!(served(&table, "good.example"), Some(uuid(1)));
    }
}
