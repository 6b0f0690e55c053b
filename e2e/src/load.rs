//! Visitors that keep coming while something is done to their tenant.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::people::Person;
use crate::world::World;

/// At the same time.
const VISITORS: usize = 6;

/// What visitors saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests that were answered as they should be.
    pub served: usize,
    /// The others, the first few in words.
    pub failed: Vec<String>,
}

impl World {
    /// Does `work` while the tenant's program reads from its database without a pause.
    pub async fn under_load<T>(&self, person: &Person, work: impl Future<Output = T>) -> (T, Seen) {
        let (stop, served, failed) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let visitor = async || {
            while !stop.load(Ordering::Relaxed) {
                let failure = match person.try_api(self, "/api/tenant").await {
                    Ok(answer) if answer.status == 200 => {
                        served.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    Ok(answer) => format!("{}: {}", answer.status, answer.body),
                    Err(error) => error,
                };
                failed.lock().expect("no visitor panics").push(failure);
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let work = async {
            let done = work.await;
            stop.store(true, Ordering::Relaxed);
            done
        };
        let visitors = futures::future::join_all((0..VISITORS).map(|_| visitor()));
        let (done, _) = tokio::join!(work, visitors);
        let mut failed = failed.into_inner().expect("no visitor panics");
        failed.truncate(5);
        (done, Seen { served: served.into_inner(), failed })
    }
}
