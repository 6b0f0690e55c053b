//! The request side of multi-tenancy, for any axum app.
//!
//! ```text
//! request ─ host ─▶ routing ─▶ layers ─▶ TenantContext ─▶ handler
//!                     ▲                       └─▶ pool ─▶ PgBouncer ─▶ the tenant's own database
//!   slices ───────────┘
//! ```
//!
//! An app makes one [`Tenancy`], feeds it what [`crate::slices`] reads ([`Tenancy::follow`]), and wraps its routes in
//! [`layers::tenant`]. Its handlers then take a [`TenantContext`] and need to know nothing else:
//!
//! ```ignore
//! async fn count(tenant: TenantContext) -> Result<String, Problem> {
//!     let count = tenant.database().run(async |db: &mut PgConnection| assets::count(db).await).await?;
//!     Ok(format!("{} has {count} assets", tenant.entry().display_name))
//! }
//! ```
//!
//! | to see … | read |
//! |---|---|
//! | whose host a request asks for | [`host`] |
//! | who is served where | [`routing`] |
//! | what a request passes, in order | [`layers`] |
//! | what a handler gets | [`context`] |
//! | how connections are kept apart | [`pool`] |
//! | where files are kept | [`storage`] |
//! | who is signed in | [`session`], [`layers::auth`] |
//! | how rows are found and made | [`repository`] |
//! | what pages need not make again | [`cache`] |
//! | how often something may happen | [`limits`] |
//! | what is done later | [`queue`] |
//! | how Redis is reached, and what happens without it | [`redis`] |
//! | what is measured | [`metrics`] |

pub mod cache;
pub mod clock;
pub mod context;
pub mod layers;
pub mod limits;
pub mod metrics;
pub mod pool;
pub mod queue;
pub mod redis;
mod refusal;
pub mod repository;
pub mod routing;
pub mod session;
pub mod storage;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt};
use prometheus_client::registry::Registry;
use tokio::sync::broadcast;
use uuid::Uuid;

pub use self::context::TenantContext;
pub use self::refusal::Refusal;

use self::cache::Cache;
use self::clock::Clock;
pub use crate::web::{client, host};

use self::host::HostResolver;
use self::layers::identify::CentralHosts;
use self::limits::Limits;
use self::metrics::TenantMetrics;
use self::pool::{PoolSettings, TenantPools};
use self::redis::{Redis, RedisSettings};
use self::routing::RoutingTable;
use self::session::{Ending, Holder, SessionError, SessionId, SessionSettings, Sessions};
use self::storage::{Storage, StorageSettings, StorageSettingsError};
use crate::api::routing::RoutingEntry;
use crate::api::tenant::TenantState;
use crate::signing::SigningKeys;
use crate::slices::{Acknowledgements, Change};

/// What an app must say to be multi-tenant.
#[derive(Clone)]
pub struct TenancySettings {
    /// The domain that tenants' hosts lie under; itself never a tenant's.
    pub base_domain: String,
    /// The admin portal's host; never a tenant's.
    pub admin_host: Option<String>,
    /// Addresses or networks whose `X-Forwarded-Host` is believed.
    pub trusted_proxies: Vec<String>,
    /// Connections.
    pub pool: PoolSettings,
    /// Tenants with metrics of their own.
    pub metrics_max_tenants: usize,
    /// Cache and sessions; without it nothing is cached and nobody can sign in.
    pub redis: Option<RedisSettings>,
    /// What links are signed with; without them there are no welcome and no download links.
    pub signing: Option<SigningKeys>,
    /// Where files are kept; without it there are none.
    pub storage: Option<StorageSettings>,
    /// How long sessions live.
    pub sessions: SessionSettings,
    /// Paths whose requests write nothing of the tenant's, as signing in and out: served while the tenant is read-only,
    /// whatever their method.
    pub always_served: &'static [&'static str],
    /// The oldest version of its schema that the app can work with; tenants with an older one are shown that they are being
    /// updated. Later versions than the app knows are served: a migration leaves the app before it working.
    pub oldest_schema: Option<&'static str>,
    /// What time it is.
    pub clock: Clock,
}

impl TenancySettings {
    /// Tenants below `base_domain`, and the defaults for the rest.
    pub fn new(base_domain: &str) -> Self {
        Self {
            base_domain: base_domain.to_owned(),
            admin_host: None,
            trusted_proxies: vec![],
            pool: PoolSettings::new(200),
            metrics_max_tenants: 2000,
            redis: None,
            signing: None,
            storage: None,
            sessions: SessionSettings::default(),
            always_served: &[],
            oldest_schema: None,
            clock: Clock::system(),
        }
    }
}

/// A setting that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Neither address nor network.
    #[error("reading the trusted proxies: `{0}` is neither an address nor a network")]
    TrustedProxy(String),
    /// The base domain or the admin host is no host name.
    #[error("reading the central hosts: {0}")]
    CentralHost(String),
    /// Storage cannot be set up.
    #[error(transparent)]
    Storage(#[from] StorageSettingsError),
}

/// Everything the layers need. Clones share it.
#[derive(Clone)]
pub struct Tenancy(Arc<Inner>);

struct Inner {
    hosts: HostResolver,
    central: CentralHosts,
    routing: RoutingTable,
    acknowledgements: Acknowledgements,
    pools: TenantPools,
    metrics: TenantMetrics,
    redis: Option<Redis>,
    cache: Cache,
    limits: Limits,
    signing: Option<SigningKeys>,
    storage: Option<Storage>,
    sessions: Sessions,
    ending: Ending,
    changes: broadcast::Sender<Uuid>,
    /// Slices whose newest content was refused.
    refused: Mutex<HashSet<String>>,
    always_served: &'static [&'static str],
    oldest_schema: Option<&'static str>,
    clock: Clock,
}

impl Tenancy {
    /// Serves nobody until routing arrives.
    ///
    /// # Errors
    /// A setting makes no sense.
    pub fn new(settings: &TenancySettings) -> Result<Self, SettingsError> {
        let redis = settings.redis.clone().map(Redis::new);
        let sessions = Sessions::new(redis.clone(), settings.sessions);
        Ok(Self(Arc::new(Inner {
            hosts: HostResolver::new(&settings.trusted_proxies).map_err(SettingsError::TrustedProxy)?,
            central: CentralHosts::new(&settings.base_domain, settings.admin_host.as_deref())
                .map_err(SettingsError::CentralHost)?,
            routing: RoutingTable::default(),
            acknowledgements: Acknowledgements::new(),
            pools: TenantPools::new(settings.pool),
            metrics: TenantMetrics::new(settings.metrics_max_tenants),
            cache: Cache::new(redis.clone()),
            limits: Limits::new(redis.clone()),
            redis,
            signing: settings.signing.clone(),
            storage: settings.storage.as_ref().map(Storage::new).transpose()?,
            ending: Ending::new(sessions.clone()),
            changes: broadcast::Sender::new(1024),
            refused: Mutex::default(),
            sessions,
            always_served: settings.always_served,
            oldest_schema: settings.oldest_schema,
            clock: settings.clock.clone(),
        })))
    }

    /// What is served, and who is wanted: for the operator, which holds a poll open to it.
    pub fn acknowledgements(&self) -> &Acknowledgements {
        &self.0.acknowledgements
    }

    /// Finds a request's host.
    pub fn hosts(&self) -> &HostResolver {
        &self.0.hosts
    }

    /// Who is served where.
    pub fn routing(&self) -> &RoutingTable {
        &self.0.routing
    }

    /// Tenants whose routing has just changed. Whoever lags behind is told so and not who they were.
    pub fn changes(&self) -> broadcast::Receiver<Uuid> {
        self.0.changes.subscribe()
    }

    /// Whether every slice that was heard of could be read, so that who is not routed is really not there.
    pub fn routing_is_whole(&self) -> bool {
        self.refused().is_empty()
    }

    fn refused(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All tenants' connections.
    pub fn pools(&self) -> &TenantPools {
        &self.0.pools
    }

    /// The metrics.
    pub fn metrics(&self) -> &TenantMetrics {
        &self.0.metrics
    }

    /// Redis, where there is one.
    pub fn redis(&self) -> Option<&Redis> {
        self.0.redis.as_ref()
    }

    /// All tenants' caches.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// All tenants' counters.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// What time it is.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Makes all figures of the request side part of what `/metrics` answers.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics().register(registry);
        if let Some(redis) = self.redis() {
            redis.register(registry);
        }
    }

    /// What links are signed with, where it is known.
    pub fn signing(&self) -> Option<&SigningKeys> {
        self.0.signing.as_ref()
    }

    /// Where files are kept, where there is such a place.
    pub fn storage(&self) -> Option<&Storage> {
        self.0.storage.as_ref()
    }

    /// Every tenant's sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Begins a session at a tenant that is served.
    ///
    /// # Errors
    /// Redis is away, or the tenant has been suspended or removed since the request came in.
    pub async fn begin_session(&self, tenant: &TenantContext, holder: Holder) -> Result<SessionId, SessionError> {
        let session = self.sessions().begin(tenant.entry().uuid, holder).await?;
        // Looked at after it was written: a suspension is first published and then ends what it finds, so either it
        // finds this session or this session finds it.
        let served = self
            .routing()
            .find(tenant.host())
            .filter(|entry| entry.uuid == tenant.entry().uuid && entry.state != TenantState::Suspended);
        if served.is_none() {
            self.sessions().end(&session).await?;
            return Err(SessionError::NotServed);
        }
        Ok(session)
    }

    /// Whether requests for a path are served although the tenant is read-only.
    fn is_always_served(&self, path: &str) -> bool {
        self.0.always_served.contains(&path)
    }

    /// Whether the app can work with a tenant's tables; what is not known is tried.
    fn knows_schema(&self, entry: &RoutingEntry) -> bool {
        self.0.oldest_schema.zip(entry.schema_version.as_deref()).is_none_or(|(oldest, version)| version >= oldest)
    }

    fn central(&self) -> &CentralHosts {
        &self.0.central
    }

    /// Follows routing for as long as `changes` does. `slices` is how many there are; once each of them was heard of,
    /// present or absent, routing counts as settled and the app may call itself ready.
    pub async fn follow(&self, changes: impl Stream<Item = Change>, slices: usize) {
        let mut changes = std::pin::pin!(changes);
        let mut heard = HashSet::new();
        while let Some(change) = changes.next().await {
            if let Some(generation) = self.apply(&change) {
                // Only now, after requests see it: whoever hears the acknowledgement may rely on being served.
                self.acknowledgements().serve(&change.slice, generation);
            }
            // Counted here and not where slices are read: what was read is not served before this loop took it.
            if heard.len() < slices && heard.insert(change.slice) && heard.len() == slices {
                self.routing().settle();
                tracing::info!(hosts = self.routing().hosts(), "routing is complete");
            }
        }
    }

    /// Takes one change; returns the generation that is served from now on, if it is a new one.
    fn apply(&self, change: &Change) -> Option<u64> {
        let slice = &change.slice;
        match self.routing().update(slice, change.content.as_deref()) {
            Ok(updated) => {
                self.refused().remove(slice);
                for entry in &updated.changed {
                    self.pools().route(entry);
                    self.metrics().admit(entry.uuid);
                    // Nobody may be listening.
                    let _ = self.0.changes.send(entry.uuid);
                    if entry.state == TenantState::Suspended {
                        self.0.ending.end_all(entry.uuid);
                    }
                }
                for tenant in &updated.removed {
                    self.pools().forget(*tenant);
                    self.metrics().forget(*tenant);
                    self.0.ending.end_all(*tenant);
                }
                let (changed, removed) = (updated.changed.len(), updated.removed.len());
                if changed + removed > 0 {
                    let generation = updated.generation;
                    tracing::info!(slice, generation, changed, removed, "routing updated");
                }
                change.content.is_some().then_some(updated.generation)
            }
            Err(refused) => {
                self.refused().insert(slice.clone());
                let cause = std::error::Error::source(&refused).map(ToString::to_string);
                tracing::error!(slice, %refused, cause, "routing slice refused, what was served before is served on");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use uuid::Uuid;

    use super::*;
    use crate::tenancy::testing::{entry, slice};

    /// Whether routing is complete after these slices, of three.
    async fn is_complete_after(slices: &[(&str, Option<Vec<u8>>)]) -> bool {
        let settings = TenancySettings { pool: PoolSettings::new(1), ..TenancySettings::new("maintenance-os.com") };
        let tenancy = Tenancy::new(&settings).unwrap();
        let change = |(slice, content): &(&str, Option<Vec<u8>>)| Change {
            slice: (*slice).to_owned(),
            content: content.clone(),
        };
        tenancy.follow(stream::iter(slices.iter().map(change)), 3).await;
        tenancy.routing().is_settled()
    }

    #[tokio::test]
    async fn routing_is_complete_once_every_slice_was_heard_of_present_absent_or_broken() {
        let present = ("routing-00", Some(slice(1, 1, &[entry(Uuid::from_u128(1), &["acme.example"])])));
        let (absent, broken) = (("routing-01", None), ("routing-02", Some(b"{".to_vec())));
        let again = present.clone();
        assert!(!is_complete_after(&[present.clone(), again, absent.clone()]).await);
        assert!(is_complete_after(&[present, absent, broken]).await);
    }
}
