//! Visitors of many tenants, who keep coming while something is done to the fleet.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::cluster::Cluster;

/// Tenants that have a visitor.
pub const VISITED: usize = 50;
/// Between two requests of a visitor: well below what the plan allows in a minute.
const PAUSE: Duration = Duration::from_millis(150);

/// What visitors saw.
pub struct Seen {
    /// Requests that were answered from the tenant's database.
    pub served: usize,
    /// How many were not.
    pub failed: usize,
    /// What the first one of those was.
    pub example: String,
}

impl Seen {
    /// As a figure.
    pub fn text(&self) -> String {
        if self.failed == 0 {
            format!("0 of {}", self.served)
        } else {
            format!("{} of {}, as {}", self.failed, self.served + self.failed, self.example)
        }
    }
}

/// Does `work` while each tenant of `names` has a visitor.
pub async fn under_load<T>(cluster: &Cluster, names: &[String], work: impl Future<Output = T>) -> (T, Seen) {
    let (stop, served, failed) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let visitor = async |name: &String| {
        while !stop.load(Ordering::Relaxed) {
            match cluster.visit(name).await {
                Ok(()) => drop(served.fetch_add(1, Ordering::Relaxed)),
                Err(why) => failed.lock().expect("no visitor panics").push(format!("{name}: {why}")),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let work = async {
        let done = work.await;
        stop.store(true, Ordering::Relaxed);
        done
    };
    let (done, _) = tokio::join!(work, futures::future::join_all(names.iter().map(visitor)));
    let failed = failed.into_inner().expect("no visitor panics");
    let example = failed.first().cloned().unwrap_or_default();
    (done, Seen { served: served.into_inner(), failed: failed.len(), example })
}
