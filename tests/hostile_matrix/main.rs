//! What a tenant can do with its own login: the hostile matrix, judged by its effects, on a PostgreSQL of the test's own that
//! the project's own statements have set up.
//!
//! Needs root (PostgreSQL and PgBouncer run by chroot) and the environment that `e2e/cluster/postgres-local.sh start` writes;
//! `make test-code` sees to both.

#![allow(clippy::unwrap_used, reason = "tests")]

mod attacks;
mod damage;
mod fleet;
mod instance;
mod judge;
mod matrix;
mod pooled;
mod pooler;
mod release;
