//! Queues and workers on real Redis servers: what is promised of a job, of the order, of workers that die and of a Redis
//! that does.

#![allow(clippy::unwrap_used, reason = "a failed test may say so at once")]

mod daily;
mod delivery;
mod fairness;
mod faults;
mod house;
mod pools;
#[path = "../redis/mod.rs"]
mod redis;
mod states;
