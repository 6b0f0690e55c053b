//! Proof of the promises in the README, against the cluster that `make demo` makes (or any other, see [`World::open`]).
//!
//! One promise a file in `tests/`. Helpers panic with what they waited for and what they saw instead: that is a test's
//! way to fail. [`promise`] then dumps the state of the cluster.

mod administrator;
mod app;
mod browser;
mod cleanup;
mod dump;
pub mod edge;
mod hosts;
mod load;
mod logins;
mod operator;
mod outage;
mod people;
pub mod schema;
mod tenants;
mod wait;
mod world;

use std::panic::AssertUnwindSafe;

use futures::FutureExt;

pub use browser::{Browser, Screen};
pub use hosts::Answer;
pub use load::Seen;
pub use logins::{Binding, refusal};
pub use outage::Outage;
pub use people::Person;
pub use tenants::Ready;
pub use wait::{Missed, wait, within};
pub use world::{CUSTOMERS, LABEL, OPERATOR, SERVER, World};

/// Runs a test in a cluster in which nothing is left of earlier ones; when it fails, the state is dumped.
///
/// # Panics
/// When the test does.
pub async fn promise(test: impl AsyncFnOnce(&World)) {
    let world = World::open().await;
    cleanup::before(&world).await;
    let result = AssertUnwindSafe(test(&world)).catch_unwind().await;
    if let Err(panic) = result {
        dump::state(&world).await;
        cleanup::heal(&world).await;
        std::panic::resume_unwind(panic);
    }
    cleanup::after(&world).await;
}
