//! The ledger against a real PostgreSQL: `. ~/.cache/maintenance-os/postgres-local/env` after
//! `e2e/cluster/postgres-local.sh start`.
#![allow(clippy::unwrap_used)]

mod adopt;
mod connection;
mod hosts;
mod lifecycle;
mod placement;
mod register;
mod replaced;
mod schema;
mod support;
mod trail;
