//! An operator that can be stopped dead.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use maintenance_os::apply::gate::Gate;
use maintenance_os::controller;
use maintenance_os::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use crate::world::World;

/// An operator in a thread and a runtime of its own.
pub struct Operator {
    killed: CancellationToken,
    thread: JoinHandle<()>,
}

impl Operator {
    /// Starts one. The Lease of one that was stopped is taken away first, which is quicker than waiting for its end.
    pub async fn start(world: &World, gate: Gate) -> Self {
        world.delete_lease().await;
        let killed = CancellationToken::new();
        let (settings, config, kill) = (world.settings(), world.config.clone(), killed.clone());
        let thread = std::thread::spawn(move || {
            let builder = &mut tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime can be made");
            runtime.block_on(async {
                let client = kube::Client::try_from(config).expect("a client can be made");
                let ready = Arc::new(AtomicBool::new(false));
                let operate =
                    controller::operate(settings, client, ready, gate, Metrics::new().0, CancellationToken::new());
                tokio::select! {
                    result = operate => panic!("the operator ended by itself: {result:?}"),
                    () = kill.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { killed, thread }
    }

    /// Stops it in the middle of whatever it does: no task of it runs any more, its connections are closed.
    pub fn kill(self) {
        self.killed.cancel();
        self.thread.join().expect("the operator does not panic");
    }
}
