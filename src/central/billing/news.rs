//! Which tenants' subscriptions changed, as it happens: a trigger notifies, and whoever leads listens.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sqlx::postgres::{PgListener, PgPoolOptions};
use uuid::Uuid;

use crate::central::{Central, CentralError, bounded};

const CHANNEL: &str = "maintenance_os_subscriptions";
/// What the server shows of the connection.
const APPLICATION: &str = "maintenance-os-listens";
/// A connection that is silent for so long is asked whether it is there: a dead one says nothing by itself.
const SILENCE: Duration = Duration::from_secs(20);
/// So long it has for that.
const ANSWER: Duration = Duration::from_secs(5);
/// What comes within so long of one another is answered together, and for so long at most.
const PAUSE: Duration = Duration::from_millis(5);
const TOGETHER: Duration = Duration::from_millis(200);

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The subscriptions of these tenants changed.
    Changed(BTreeSet<Uuid>),
    /// Something may have been missed: everything has to be compared.
    Missed,
}

/// A connection of its own that listens.
pub struct SubscriptionNews {
    listener: PgListener,
}

impl Central {
    /// Listens from now on. What changed before has to be read.
    pub async fn subscription_news(&self) -> Result<SubscriptionNews, CentralError> {
        let options = (*self.pool.connect_options()).clone().application_name(APPLICATION);
        // Of its own, so that listening takes no connection from those that write.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        let work = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            Ok(SubscriptionNews { listener })
        };
        bounded("listen for changed subscriptions", work).await
    }
}

impl SubscriptionNews {
    /// Waits for what is heard next.
    ///
    /// # Errors
    /// The connection is gone: listen anew, and compare everything.
    pub async fn next(&mut self) -> Result<News, CentralError> {
        loop {
            let Ok(mut heard) = tokio::time::timeout(SILENCE, self.listener.try_recv()).await else {
                let doing = "go on listening for changed subscriptions";
                let alive = async { sqlx::query("SELECT 1").execute(&mut self.listener).await.map(drop) };
                let alive = tokio::time::timeout(ANSWER, bounded(doing, alive)).await;
                alive.unwrap_or_else(|_| Err(CentralError::timeout(doing)))?;
                continue;
            };
            let (mut tenants, begun) = (BTreeSet::new(), Instant::now());
            loop {
                let now = bounded("listen for changed subscriptions", std::future::ready(heard)).await?;
                // Listening again already; what was said in between is lost.
                let Some(notification) = now else { return Ok(News::Missed) };
                tenants.extend(notification.payload().parse::<Uuid>());
                if begun.elapsed() >= TOGETHER {
                    break;
                }
                match tokio::time::timeout(PAUSE, self.listener.try_recv()).await {
                    Ok(more) => heard = more,
                    Err(_) => break,
                }
            }
            if !tenants.is_empty() {
                return Ok(News::Changed(tenants));
            }
        }
    }
}
