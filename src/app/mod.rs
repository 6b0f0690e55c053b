//! The reference maintenance product on top of [`crate::tenancy`].
//!
//! A handler takes a [`crate::tenancy::TenantContext`] and serves that tenant; nothing here knows how many there are.
//!
//! | to see … | read |
//! |---|---|
//! | what answers where | [`router`] |
//! | the maintenance itself: pages, JSON, statements | `plant`, `templates/` |
//! | what is done later | `jobs`, `worker` |
//! | the tables | `migrations/` |
//! | what people see when something is wrong | `problem`, `render` |

mod accounts;
mod files;
mod form;
mod jobs;
mod mail;
mod migrations;
mod plant;
mod problem;
mod product;
mod render;
mod router;
mod same_origin;
mod shell;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

pub use self::accounts::ALWAYS_SERVED;
pub use self::accounts::{CurrentUser, Role};
pub use self::files::FileSettings;
pub use self::jobs::registry as jobs;
pub use self::mail::{MailSettings, Mailer};
pub use self::migrations::{Migration, migrations};
pub use self::product::Product;
pub use self::router::router;
pub use self::shell::CsrfToken;
pub use self::worker::run as run_worker;

use crate::api::slices::routing_slices;
use crate::http;
use crate::settings::{AppSettings, StorageArguments, StorageKind};
use crate::signing::SigningKeys;
use crate::slices::{Health, Source, changes};
use crate::tenancy::clock::Clock;
use crate::tenancy::pool::PoolSettings;
use crate::tenancy::session::SessionSettings;
use crate::tenancy::storage::{S3Settings, StorageSettings};
use crate::tenancy::{Tenancy, TenancySettings};

/// How long the app goes on accepting connections after it has said that it is not ready: until every proxy and every
/// node has heard it, new requests still arrive here.
const LINGER: Duration = Duration::from_secs(5);
/// How long requests in flight get to end.
const DRAIN: Duration = Duration::from_secs(20);

/// Serves every tenant's hosts until `stop`.
///
/// # Errors
/// A setting makes no sense, the cluster is not reachable, or an address cannot be bound.
pub async fn run(settings: Box<AppSettings>, stop: CancellationToken) -> anyhow::Result<()> {
    let tenancy = Tenancy::new(&tenancy_settings(&settings)?)?;
    let product = product(&settings, &tenancy)?;
    let names = routing_slices();
    let health = Health::new(names.len());
    let (source, linger) = source(&settings).await?;
    let total = names.len();
    let follow = tenancy.follow(changes(source, names, health.clone()), total);
    let mut registry = Registry::default();
    tenancy.register_metrics(&mut registry);
    let stopping = Arc::new(AtomicBool::new(false));
    // The small servers outlive the product: /readyz must go on saying no while it drains.
    let drained = CancellationToken::new();
    let small = small_servers(&settings, &tenancy, health, stopping.clone(), registry, &drained);
    let product = async {
        let served = serve_product(&settings, &product, stop, &stopping, linger).await;
        drained.cancel();
        served
    };
    tracing::info!(listen = %settings.listen, base_domain = settings.base_domain, "serving tenants");
    tokio::select! {
        () = follow => anyhow::bail!("reading routing ended, which it never does"),
        // A poll for acknowledgements may be open for a while yet; nobody waits for it once the product has drained.
        served = async { tokio::try_join!(product, small) } => { served?; }
        () = async { drained.cancelled().await; tokio::time::sleep(Duration::from_secs(1)).await } => {}
    }
    tenancy.pools().close_all_idle();
    Ok(())
}

/// Health, metrics and acknowledgements, until `end`.
async fn small_servers(
    settings: &AppSettings,
    tenancy: &Tenancy,
    health: Health,
    stopping: Arc<AtomicBool>,
    registry: Registry,
    end: &CancellationToken,
) -> anyhow::Result<()> {
    let routing = tenancy.clone();
    let ready = move || match health.ready() {
        _ if stopping.load(Ordering::Relaxed) => Err("stopping".to_owned()),
        Ok(()) if !routing.routing().is_settled() => Err("routing is not complete yet".to_owned()),
        answer => answer,
    };
    tokio::try_join!(
        http::serve(settings.health_addr, http::health(ready), end.clone()),
        http::serve(settings.metrics_addr, http::metrics(Arc::new(Mutex::new(registry))), end.clone()),
        http::serve(settings.ack_addr, tenancy.acknowledgements().router(), end.clone()),
    )?;
    Ok(())
}

fn tenancy_settings(settings: &AppSettings) -> anyhow::Result<TenancySettings> {
    Ok(TenancySettings {
        base_domain: settings.base_domain.clone(),
        admin_host: settings.admin_host.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
        pool: PoolSettings::new(settings.max_connections),
        metrics_max_tenants: settings.metrics_max_tenants,
        redis: settings.redis.settings()?,
        signing: settings.signing_keys.as_deref().map(SigningKeys::parse).transpose()?,
        storage: storage_settings(&settings.storage),
        sessions: SessionSettings {
            idle: settings.accounts.session_idle,
            lifetime: settings.accounts.session_lifetime,
            secure: !settings.accounts.plain_http,
        },
        always_served: ALWAYS_SERVED,
        oldest_schema: Some(migrations::OLDEST),
        clock: Clock::system(),
    })
}

/// What serves requests, or does jobs.
fn product(settings: &AppSettings, tenancy: &Tenancy) -> anyhow::Result<Product> {
    let files =
        FileSettings { max_upload: u64::from(settings.storage.max_upload_mib) << 20, ..FileSettings::default() };
    let product = Product::new(tenancy).with_mailer(mailer(settings)?).with_files(files);
    Ok(if settings.workers { product.with_workers() } else { product })
}

fn mailer(settings: &AppSettings) -> anyhow::Result<Mailer> {
    let accounts = &settings.accounts;
    Ok(Mailer::new(&MailSettings {
        smtp_url: accounts.smtp_url.clone().filter(|url| !url.is_empty()),
        directory: accounts.mail_directory.clone(),
        from: accounts.mail_from.clone(),
        public_url: settings.public_url.clone(),
    })?)
}

fn storage_settings(storage: &StorageArguments) -> Option<StorageSettings> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Some(match storage.kind? {
        StorageKind::Local => StorageSettings::Local { directory: storage.directory.clone().unwrap_or_default() },
        StorageKind::S3 => StorageSettings::S3(S3Settings {
            access_key_id: text(&storage.access_key_id),
            secret_access_key: text(&storage.secret_access_key),
            region: storage.region.clone(),
            bucket: text(&storage.bucket),
            url: storage.url.clone().filter(|url| !url.is_empty()),
            custom_endpoint: storage.custom_endpoint,
            allow_http: storage.allow_http,
        }),
    })
}

/// Where routing comes from, and how long to linger at the end: outside a cluster no proxy has to hear of it.
async fn source(settings: &AppSettings) -> anyhow::Result<(Source, Duration)> {
    if let Some(directory) = &settings.routing_directory {
        return Ok((Source::Directory(directory.clone()), Duration::ZERO));
    }
    let client = kube::Client::try_default().await.context("finding the cluster that routing is read from")?;
    Ok((Source::Cluster { client, namespace: settings.namespace.clone() }, LINGER))
}

async fn serve_product(
    settings: &AppSettings,
    product: &Product,
    stop: CancellationToken,
    stopping: &AtomicBool,
    linger: Duration,
) -> anyhow::Result<()> {
    let close = CancellationToken::new();
    let serve = http::serve(settings.listen, router(product), close.clone());
    let end = async {
        stop.cancelled().await;
        stopping.store(true, Ordering::Relaxed);
        tokio::time::sleep(linger).await;
        close.cancel();
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = serve => served,
        () = end => {
            tracing::warn!("some requests did not end in time and are cut off");
            Ok(())
        }
    }
}
