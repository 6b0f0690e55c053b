//! What exists: reads only. An unreachable source is a fact, not an early return.

pub mod dns;
pub mod inventory;
pub mod jobs;
pub mod ledger;
