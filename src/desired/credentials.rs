//! The binding Secret beside the Tenant: a projection of the routing entry, as servicebinding.io has it.
//!
//! From      the routing entry
//! Makes     Secret `<tenant>-db`, type `servicebinding.io/postgresql`
//! Ready     when it is there with the hash of what it should hold
//! Teardown  by its owner reference, with the Tenant

use std::collections::BTreeMap;

use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::api::condition::Reason;
use crate::api::routing::DatabaseAccess;

use super::effect::{Effect, PartPlan};
use super::facts::{Facts, Seen};
use super::names;

/// The binding Secret.
pub fn plan(facts: &Facts, access: &DatabaseAccess) -> PartPlan {
    let name = names::binding(&facts.tenant.name_any());
    let data = data(access);
    let hash = hash(&data);
    match &facts.binding {
        Seen::Unreachable(why) => PartPlan::wait(
            Reason::PermissionDenied,
            format!("Secret {name} cannot be read; customers are served as before: {why}"),
        ),
        Seen::Known(Some(binding)) if !binding.ours => PartPlan::blocked(
            Reason::Conflict,
            format!(
                "Secret {name} exists and was not made for this Tenant: delete or rename it; it is never overwritten"
            ),
        ),
        Seen::Known(Some(binding)) if binding.hash.as_ref() == Some(&hash) => {
            PartPlan::ready(format!("in Secret {name}"))
        }
        Seen::Known(_) => {
            PartPlan::act(vec![Effect::WriteBinding { data, hash }], format!("Secret {name} is being written"))
        }
    }
}

/// The Secret's keys.
pub fn data(access: &DatabaseAccess) -> BTreeMap<String, String> {
    let DatabaseAccess { host, port, name, username, password, sslmode, ca, issued_at: _, rotation: _ } = access;
    let mut data: BTreeMap<String, String> = [
        ("type", "postgresql".to_owned()),
        ("provider", "maintenance-os".to_owned()),
        ("host", host.clone()),
        ("port", port.to_string()),
        ("username", username.clone()),
        ("password", password.clone()),
        ("database", name.clone()),
        ("sslmode", sslmode.clone()),
        ("uri", format!("postgresql://{username}:{password}@{host}:{port}/{name}?sslmode={sslmode}")),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    if !ca.is_empty() {
        data.insert("ca.crt".into(), ca.clone());
    }
    data
}

/// Hash of a Secret's keys, noted on it.
pub fn hash(data: &BTreeMap<String, String>) -> String {
    let mut digest = Sha256::new();
    for (key, value) in data {
        // Lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update((key.len() as u64).to_be_bytes());
        digest.update(key);
        digest.update((value.len() as u64).to_be_bytes());
        digest.update(value);
    }
    digest.finalize()[..12].iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
        text
    })
}
