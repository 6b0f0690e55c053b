//! Slices: the fixed number of Secrets that carry routing and pooler entries from the operator to their readers.
//!
//! A slice's Secret has one key, [`SLICE_KEY`], whose value is a JSON document with a `generation` that grows
//! with every write. A reader acknowledges a slice by that number, see [`Acknowledgement`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many slices each fleet document is spread over.
pub const SLICE_COUNT: u32 = 32;
/// The one key of a slice's Secret, and the file name's ending in a directory (`<slice>.json`).
pub const SLICE_KEY: &str = "slice.json";
/// Version of the documents' schema; a reader refuses a higher one.
pub const SCHEMA: u32 = 1;

/// The slice that a tenant's entry lies in: the first four bytes of its uuid, big-endian, modulo [`SLICE_COUNT`].
/// A random uuid is as good as a hash of it.
pub fn slice_of(uuid: Uuid) -> u32 {
    let bytes = uuid.as_bytes();
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) % SLICE_COUNT
}

/// Name of a routing slice's Secret: `routing-07`.
pub fn routing_slice(index: u32) -> String {
    format!("routing-{index:02}")
}

/// Name of a pooler slice's Secret: `pooler-<server>-07`.
pub fn pooler_slice(server: &str, index: u32) -> String {
    format!("pooler-{server}-{index:02}")
}

/// Name of the Secret with a pooler's settings, in the form of a slice: `pooler-<server>-settings`.
pub fn pooler_settings(server: &str) -> String {
    format!("pooler-{server}-settings")
}

/// Every routing slice's name.
pub fn routing_slices() -> Vec<String> {
    (0..SLICE_COUNT).map(routing_slice).collect()
}

/// Every name that a pooler's agent watches: its settings and its slices.
pub fn pooler_slices(server: &str) -> Vec<String> {
    std::iter::once(pooler_settings(server)).chain((0..SLICE_COUNT).map(|index| pooler_slice(server, index))).collect()
}

/// What a reader answers to `GET /acks`: the generation of every slice that it serves right now.
///
/// Long poll: `GET /acks?version=<version>` answers at once when `version` differs from the reader's and after at most
/// 25 seconds otherwise. The version changes whenever a generation does, and when a tenant is wanted that was not before; it
/// means nothing over a restart of the reader.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Changes with every change of `slices`.
    pub version: u64,
    /// Slice name to the generation that is served.
    pub slices: BTreeMap<String, u64>,
    /// Tenants that sleep, or would, and that somebody asked for within the last 35 seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<Uuid>,
}
