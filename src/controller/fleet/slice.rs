//! One slice in memory and as a document.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use uuid::Uuid;

use crate::api::pooler::{PoolerEntry, PoolerSettings, PoolerSlice};
use crate::api::routing::{RoutingEntry, RoutingSlice};
use crate::api::slices::{SCHEMA, SLICE_KEY};
use crate::api::{LABEL_SERVER, LABEL_SLICE};

/// Label value of routing slices.
pub const ROUTING: &str = "routing";
/// Label value of pooler slices.
pub const POOLER: &str = "pooler";
/// Label value of a pooler's settings.
pub const SETTINGS: &str = "pooler-settings";

/// How long it is said of a tenant that its data was dropped: longer than any reader is away.
const KEPT_SECONDS: i64 = 30 * 24 * 3600;

/// One slice.
pub struct Slice {
    /// What it holds.
    pub entries: Entries,
    /// Of a routing slice: tenants whose data was dropped, and when (Unix seconds).
    pub dropped: BTreeMap<Uuid, i64>,
    /// The server, of a pooler's slice.
    pub server: Option<String>,
    /// Number of the newest snapshot that was taken to be written.
    pub generation: u64,
    /// The least that the next snapshot's number may be.
    next: u64,
    /// Number of the document when this process read it.
    pub loaded: u64,
    /// The term that wrote the document which this process read.
    pub epoch: u64,
    /// Of the Secret; None: it is not there yet.
    pub resource_version: Option<String>,
    /// Changed since the newest snapshot.
    pub dirty: bool,
}

/// What a slice holds.
pub enum Entries {
    /// Routing entries.
    Routing(BTreeMap<Uuid, RoutingEntry>),
    /// Pooler entries.
    Pooler(BTreeMap<Uuid, PoolerEntry>),
    /// A pooler's settings.
    Settings(Option<Box<PoolerSettings>>),
}

impl Slice {
    fn new(entries: Entries, server: Option<&str>) -> Self {
        Self {
            entries,
            dropped: BTreeMap::new(),
            server: server.map(str::to_owned),
            generation: 0,
            next: 0,
            loaded: 0,
            epoch: 0,
            resource_version: None,
            dirty: false,
        }
    }

    /// Its routing entries.
    pub fn routings(&self) -> impl Iterator<Item = &RoutingEntry> {
        let entries = match &self.entries {
            Entries::Routing(entries) => Some(entries),
            Entries::Pooler(_) | Entries::Settings(_) => None,
        };
        entries.into_iter().flat_map(BTreeMap::values)
    }

    /// An empty routing slice.
    pub fn routing_slice() -> Self {
        Self::new(Entries::Routing(BTreeMap::new()), None)
    }

    /// An empty pooler slice.
    pub fn pooler_slice(server: &str) -> Self {
        Self::new(Entries::Pooler(BTreeMap::new()), Some(server))
    }

    /// Empty settings.
    pub fn settings_slice(server: &str) -> Self {
        Self::new(Entries::Settings(None), Some(server))
    }

    /// The slice in a Secret of ours.
    ///
    /// # Errors
    /// A document that cannot be read; it must be put right before anything is written in its place.
    pub fn read(secret: &Secret) -> Result<Self, String> {
        let name = secret.name_any();
        let server = secret.labels().get(LABEL_SERVER).map(String::as_str);
        let content = secret
            .data
            .as_ref()
            .and_then(|data| data.get(SLICE_KEY))
            .ok_or_else(|| format!("Secret {name} has no key {SLICE_KEY}"))?;
        let decode = |error: serde_json::Error| format!("Secret {name} does not decode: {error}");
        let mut dropped = BTreeMap::new();
        let (entries, generation, epoch) = match secret.labels().get(LABEL_SLICE).map(String::as_str) {
            Some(ROUTING) => {
                let document: RoutingSlice = serde_json::from_slice(&content.0).map_err(decode)?;
                dropped = document.dropped;
                (
                    Entries::Routing(document.tenants.into_iter().map(|entry| (entry.uuid, entry)).collect()),
                    document.generation,
                    document.epoch,
                )
            }
            Some(POOLER) => {
                let document: PoolerSlice = serde_json::from_slice(&content.0).map_err(decode)?;
                (
                    Entries::Pooler(document.entries.into_iter().map(|entry| (entry.uuid, entry)).collect()),
                    document.generation,
                    document.epoch,
                )
            }
            Some(SETTINGS) => {
                let document: PoolerSettings = serde_json::from_slice(&content.0).map_err(decode)?;
                let (generation, epoch) = (document.generation, document.epoch);
                (Entries::Settings(Some(Box::new(document))), generation, epoch)
            }
            other => return Err(format!("Secret {name} is labelled as a slice of kind {other:?}")),
        };
        Ok(Self {
            dropped,
            generation,
            loaded: generation,
            epoch,
            resource_version: secret.metadata.resource_version.clone(),
            ..Self::new(entries, server)
        })
    }

    /// Notes that a tenant's data was dropped, and forgets those of long ago. Whether that is news.
    pub fn note_dropped(&mut self, uuid: Uuid, now_seconds: i64) -> bool {
        if self.dropped.contains_key(&uuid) {
            return false;
        }
        self.dropped.retain(|_, at| now_seconds - *at < KEPT_SECONDS);
        self.dropped.insert(uuid, now_seconds);
        true
    }

    /// Notes a change at this time; the number that the first snapshot with it has at least.
    ///
    /// Numbers grow with the clock, so that a slice which was deleted and is written anew has higher ones than readers
    /// have ever acknowledged.
    pub fn change(&mut self, now_milliseconds: u64) -> u64 {
        self.dirty = true;
        self.next = self.next.max(self.generation + 1).max(now_milliseconds);
        self.next
    }

    /// Gives the next snapshot its number.
    pub fn take_number(&mut self) {
        self.dirty = false;
        self.generation = self.next.max(self.generation + 1);
    }

    /// The document.
    pub fn document(&self, epoch: u64) -> String {
        let generation = self.generation;
        let text = match &self.entries {
            Entries::Routing(entries) => serde_json::to_string(&RoutingSlice {
                schema: SCHEMA,
                generation,
                epoch,
                tenants: entries.values().cloned().collect(),
                dropped: self.dropped.clone(),
            }),
            Entries::Pooler(entries) => serde_json::to_string(&PoolerSlice {
                schema: SCHEMA,
                generation,
                epoch,
                entries: entries.values().cloned().collect(),
            }),
            Entries::Settings(settings) => serde_json::to_string(&settings.as_ref().map(|settings| PoolerSettings {
                schema: SCHEMA,
                generation,
                epoch,
                ..(**settings).clone()
            })),
        };
        text.expect("slices hold only what JSON can say")
    }

    /// Label value of its kind.
    pub const fn kind(&self) -> &'static str {
        match self.entries {
            Entries::Routing(_) => ROUTING,
            Entries::Pooler(_) => POOLER,
            Entries::Settings(_) => SETTINGS,
        }
    }

    /// The tenant's routing entry.
    pub fn routing(&self, uuid: Uuid) -> Option<&RoutingEntry> {
        if let Entries::Routing(entries) = &self.entries { entries.get(&uuid) } else { None }
    }

    /// The tenant's pooler entry.
    pub fn pooler(&self, uuid: Uuid) -> Option<&PoolerEntry> {
        if let Entries::Pooler(entries) = &self.entries { entries.get(&uuid) } else { None }
    }

    /// Tenants that have an entry.
    pub fn uuids(&self) -> Vec<Uuid> {
        match &self.entries {
            Entries::Routing(entries) => entries.keys().copied().collect(),
            Entries::Pooler(entries) => entries.keys().copied().collect(),
            Entries::Settings(_) => Vec::new(),
        }
    }
}

impl Entries {
    /// Whether this changed anything.
    pub fn set_routing(&mut self, uuid: Uuid, entry: Option<RoutingEntry>) -> bool {
        let Self::Routing(entries) = self else { return false };
        set(entries, uuid, entry)
    }

    /// Whether this changed anything.
    pub fn set_pooler(&mut self, uuid: Uuid, entry: Option<PoolerEntry>) -> bool {
        let Self::Pooler(entries) = self else { return false };
        set(entries, uuid, entry)
    }

    /// Whether this changed anything; numbers of writes do not count.
    pub fn set_settings(&mut self, settings: PoolerSettings) -> bool {
        let Self::Settings(before) = self else { return false };
        let same = before.as_ref().is_some_and(|before| {
            **before
                == PoolerSettings {
                    schema: before.schema,
                    generation: before.generation,
                    epoch: before.epoch,
                    ..settings.clone()
                }
        });
        if !same {
            *before = Some(Box::new(settings));
        }
        !same
    }
}

fn set<T: PartialEq>(entries: &mut BTreeMap<Uuid, T>, uuid: Uuid, entry: Option<T>) -> bool {
    if entries.get(&uuid) == entry.as_ref() {
        return false;
    }
    match entry {
        Some(entry) => drop(entries.insert(uuid, entry)),
        None => drop(entries.remove(&uuid)),
    }
    true
}
