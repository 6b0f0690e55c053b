//! The welcome Secret beside the Tenant: the one-time link with which its first user is made.
//!
//! From      the primary host
//! Makes     Secret `<tenant>-welcome`, key `link`, signed anew each time it is written
//! Ready     when it is there with the hash of what it is for
//! Teardown  by its owner reference, with the Tenant

use std::collections::BTreeMap;

use kube::ResourceExt;

use crate::api::condition::Reason;

use super::credentials::hash;
use super::effect::{Effect, PartPlan};
use super::facts::{Facts, Seen};
use super::names;

/// The welcome Secret. `host` is the one that the link leads to.
pub fn plan(facts: &Facts, host: &str) -> PartPlan {
    let name = names::welcome(&facts.tenant.name_any());
    let hash = hash_of(host);
    match &facts.welcome {
        Seen::Unreachable(why) => PartPlan::wait(
            Reason::PermissionDenied,
            format!("Secret {name} cannot be read; customers are served as before: {why}"),
        ),
        Seen::Known(Some(secret)) if !secret.ours => PartPlan::blocked(
            Reason::Conflict,
            format!(
                "Secret {name} exists and was not made for this Tenant: delete or rename it; it is never overwritten"
            ),
        ),
        Seen::Known(Some(secret)) if secret.hash.as_ref() == Some(&hash) => {
            PartPlan::ready(format!("the first user's link is in Secret {name}"))
        }
        Seen::Known(_) => PartPlan::act(
            vec![Effect::WriteWelcome { host: host.to_owned(), hash }],
            format!("Secret {name} is being written"),
        ),
    }
}

/// What the link is for, and not what it says: that is another each time it is signed.
fn hash_of(host: &str) -> String {
    hash(&BTreeMap::from([("host".to_owned(), host.to_owned())]))
}
