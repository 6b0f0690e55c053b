//! Backups with the real PostgreSQL, its own programs and a real S3 server: that they restore, and what each fault does.
//!
//! Needs root (PostgreSQL runs by chroot) and the environment that `e2e/cluster/postgres-local.sh start` and
//! `e2e/cluster/s3-local.sh start` write; `make test-code` sees to both.

#![allow(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "of another test")]
#[path = "../hostile_matrix/fleet.rs"]
mod fleet;
#[allow(dead_code, reason = "of another test")]
#[path = "../hostile_matrix/instance.rs"]
mod instance;

mod beside;
mod central;
mod damage;
mod faults;
mod house;
mod rehearsing;
mod restoring;
#[path = "../s3/mod.rs"]
mod s3;
mod unsteady;
