//! Proof of the promises in the README, against a real cluster.
