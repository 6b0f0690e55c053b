//! Ends the sessions of tenants that routing suspends or no longer names.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use uuid::Uuid;

use super::{SessionError, Sessions};

/// How many are ended at the same time, as when an app starts and finds a thousand tenants suspended.
const AT_A_TIME: usize = 16;
/// How long to wait for a Redis that is away.
const AGAIN: Duration = Duration::from_secs(1);

/// The way to the task that ends sessions. Whoever follows routing holds it; the task ends when it is dropped.
pub struct Ending(UnboundedSender<Uuid>);

impl Ending {
    /// Starts the task.
    pub fn new(sessions: Sessions) -> Self {
        let (sender, receiver) = unbounded_channel();
        tokio::spawn(end(sessions, receiver));
        Self(sender)
    }

    /// All sessions of the tenant end, as soon as Redis is there.
    pub fn end_all(&self, tenant: Uuid) {
        // The task is gone only when the process ends.
        let _ = self.0.send(tenant);
    }
}

/// Every process that serves the tenant does this for itself, after its own requests have seen the change: so a
/// sign-in that was under way in one of them ends here or at its own last look at routing, and none slips through.
async fn end(sessions: Sessions, mut tenants: UnboundedReceiver<Uuid>) {
    let mut open = HashSet::new();
    while let Some(tenant) = tenants.recv().await {
        open.insert(tenant);
        while !open.is_empty() {
            while let Ok(tenant) = tenants.try_recv() {
                open.insert(tenant);
            }
            let outcomes = stream::iter(open.iter().copied())
                .map(|tenant| {
                    let sessions = &sessions;
                    async move { (tenant, sessions.end_all(tenant).await) }
                })
                .buffer_unordered(AT_A_TIME)
                .collect::<Vec<_>>()
                .await;
            for (tenant, outcome) in outcomes {
                match outcome {
                    // Without Redis there never was a session.
                    Ok(()) | Err(SessionError::NotConfigured) => {
                        open.remove(&tenant);
                    }
                    Err(error) => tracing::warn!(tenant_id = %tenant, %error, "sessions not ended yet, trying again"),
                }
            }
            if !open.is_empty() {
                sleep(AGAIN).await;
            }
        }
    }
}
