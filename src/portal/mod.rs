//! `maintenance-os portal`: pages for those who run the product.
//!
//! It reads the cluster through watches and the central database, changes Tenants and Plans through the Kubernetes API
//! alone, and writes to the audit trail before it does anything. It holds no credentials of any tenant or server.
//!
//! | to see … | read |
//! |---|---|
//! | what answers where | [`router`] |
//! | what every request passes: host, session, forms | `gate`, `visitor`, `form`, `next` |
//! | who may do what | `rights` |
//! | signing in, and its limits | `sign_in`, `first`, `attempts`, `second_factor`, `sealed` |
//! | what the cluster has, and how it is changed | [`directory`], [`cluster`], `gitops` |
//! | the pages | `overview`, `list`, `one`, `change`, `create`, `plans`, `servers`, `log`, `admins`, `templates/` |
//! | what people see when something is wrong | `problem` |

mod admins;
mod attempts;
mod change;
pub mod cluster;
mod create;
pub mod directory;
mod first;
mod form;
mod gate;
mod gitops;
mod list;
mod log;
mod look;
mod next;
mod one;
mod overview;
mod plans;
mod problem;
mod rights;
mod router;
mod sealed;
mod second_factor;
mod servers;
mod shell;
mod show;
mod sign_in;
mod state;
mod style;
mod visitor;

use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

pub use self::first::make_first_admin;
pub use self::rights::{Right, Rights};
pub use self::router::router;
pub use self::sealed::SealingKeys;
pub use self::state::{Clock, Config, Portal};

use self::cluster::Cluster;
use self::directory::Directory;
use crate::central::{Central, Lifetimes};
use crate::http;
use crate::settings::PortalSettings;
use crate::web::host::{HostResolver, canonical};

/// How long it goes on accepting connections after it was told to stop: until every proxy has heard that it does.
const LINGER: Duration = Duration::from_secs(5);

/// Serves the portal until `stop`.
///
/// # Errors
/// A setting makes no sense, the cluster cannot be found, or an address cannot be bound.
pub async fn run(settings: PortalSettings, stop: CancellationToken) -> anyhow::Result<()> {
    let client = kube::Client::try_default().await.context("finding the cluster")?;
    let central = Central::connect(&settings.central_url, settings.central_ca.as_deref()).await?;
    let keys = SealingKeys::parse(&settings.keys).context("reading MOS_PORTAL_KEYS")?;
    let (directory, filler) = Directory::new();
    let portal = Portal::new(
        config(&settings)?,
        central,
        Cluster::new(client.clone()),
        directory.clone(),
        keys,
        Clock::default(),
    );
    if let (Some(email), Some(password)) = (&settings.first_email, &settings.first_password) {
        tokio::spawn(make_first_admin(portal.clone(), email.clone(), password.clone()));
    }
    let filled = CancellationToken::new();
    tokio::spawn({
        let (directory, filled) = (directory, filled.clone());
        async move {
            directory.filled().await;
            filled.cancel();
        }
    });
    let stopping = stop.clone();
    let ready = move || match () {
        () if stopping.is_cancelled() => Err("stopping".to_owned()),
        // Not the central database: without it there is still something to see, and every pod would be taken out at once.
        () if !filled.is_cancelled() => Err("the objects of the cluster are not listed yet".to_owned()),
        () => Ok(()),
    };
    let lingered = CancellationToken::new();
    tokio::spawn({
        let lingered = lingered.clone();
        async move {
            stop.cancelled().await;
            tokio::time::sleep(LINGER).await;
            lingered.cancel();
        }
    });
    tracing::info!(listen = %settings.listen, host = settings.host(), "serving the portal");
    tokio::select! {
        () = filler.follow(client) => anyhow::bail!("following the cluster ended, which it never does"),
        served = async { tokio::try_join!(
            http::serve(settings.listen, router(portal), lingered.clone()),
            http::serve(settings.health_addr, http::health(ready), lingered.clone()),
        ) } => served.map(drop),
    }
}

fn config(settings: &PortalSettings) -> anyhow::Result<Config> {
    let host = settings.host();
    let host = canonical(&host).with_context(|| format!("reading the portal's host {host}"))?.into_owned();
    let hosts = HostResolver::new(&settings.trusted_proxies)
        .map_err(|text| anyhow::anyhow!("MOS_TRUSTED_PROXIES: `{text}` is neither an address nor a network"))?;
    Ok(Config {
        host,
        base_domain: settings.base_domain.clone(),
        namespaces: settings.tenant_namespaces.clone(),
        hosts,
        secure: !settings.plain_http,
        lifetimes: Lifetimes { idle: settings.session_idle, lifetime: settings.session_lifetime },
    })
}
