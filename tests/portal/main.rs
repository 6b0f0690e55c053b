//! The admin portal against a real PostgreSQL and a real API server: `. ~/.cache/maintenance-os/postgres-local/env` and
//! `. ~/.cache/maintenance-os/apiserver-local/env`.
#![allow(clippy::unwrap_used)]

mod admins;
mod away;
mod browser;
#[allow(dead_code, reason = "not all of it is used here")]
#[path = "../crd_rules/support.rs"]
mod cluster;
mod hostile;
mod house;
#[allow(dead_code, reason = "not all of it is used here")]
#[path = "../central_ledger/support.rs"]
mod ledger;
mod look;
mod sign_in;
mod tenants;
