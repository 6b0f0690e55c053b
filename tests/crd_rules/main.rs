//! The custom resource definitions and the chart's admission policies on a real API server: what it accepts, what it refuses
//! and with which words, and how objects are shown and found.
//!
//! Needs the environment that `e2e/cluster/apiserver-local.sh start` writes; `make test-code` sees to it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod admission;
mod appearance;
mod plan;
mod restore;
mod rollout;
mod rules;
mod server;
mod support;
mod tenant;
