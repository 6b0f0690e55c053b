//! Files on real PostgreSQL, a real disk and a real S3 server: what is stored, who may have it, and what is left when
//! something goes wrong, which is nothing.

#![allow(clippy::unwrap_used, reason = "a failed test may say so at once")]

#[path = "../s3/mod.rs"]
mod s3;
#[path = "../tenants/mod.rs"]
mod tenants;

mod attaching;
mod away;
mod hostile;
mod later;
mod quota;
mod site;
mod tables;
