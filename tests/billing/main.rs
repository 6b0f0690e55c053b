//! Billing against a real PostgreSQL and over real HTTP: `. ~/.cache/maintenance-os/postgres-local/env` after
//! `e2e/cluster/postgres-local.sh start`.
#![allow(clippy::unwrap_used)]

mod house;
mod manual;
mod news;
mod order;
#[allow(dead_code, reason = "what the tests of the ledger need besides")]
#[path = "../central_ledger/support.rs"]
mod support;
mod webhook;
