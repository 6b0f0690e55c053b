//! maintenance-os: one `Tenant` object becomes a database, logins, a pooler entry, hosts, workers and backups.
//!
//! The map. Dependencies point one way: `main → roles → {observe, apply} → desired → api`; `app → tenancy → api`.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | what users write: CRD types, conditions and reasons, the documents in the slices |
//! | [`lease`] | one operator at a time |
//! | [`settings`] | every flag and variable, parsed once |
//! | [`metrics`] | the operator's own figures |
//! | [`telemetry`], [`http`] | logs, signals; the small servers for health, metrics and acknowledgements |
//! | [`slices`] | reads slices from the cluster or a directory, and acknowledges them |
//! | [`desired`] | what should exist: pure |
//! | [`observe`] | what exists: reads only |
//! | [`apply`] | what we do: every write of the operator |
//! | [`controller`] | the loop |
//! | [`error`] | how errors are told |
//! | [`central`] | the central database: migrations and the ledger |
//! | [`pooler`] | the agent beside PgBouncer: slices → files → RELOAD → acknowledge |
//! | [`tenancy`] | the request side, a library any axum app can use |
//! | [`app`] | the reference app on top of it |
//! | [`generate`] | writes the CRDs |

pub mod api;
pub mod app;
pub mod apply;
pub mod central;
pub mod controller;
pub mod desired;
pub mod error;
pub mod generate;
pub mod http;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod pooler;
pub mod settings;
pub mod slices;
pub mod telemetry;
pub mod tenancy;
