//! Rotation: from one of a tenant's two logins to the other, without a moment in which neither works.
//!
//! From      `spec.credentials.rotateEvery`, annotation `rotate`, the password that the routing entry publishes
//! Makes     the other login with a new password; then at the pooler; then in routing and binding; then the old one goes
//! Ready     does not show in `Ready`: the tenant is served all the time
//! Teardown  both logins go, see `teardown`
//!
//! What is published in the routing slice is the truth, and the step that publishes is the one that counts: before it the
//! new login can be made again with another password by whoever comes next, after it the old login is only kept for those
//! who still use it.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::api::pooler::PoolerUser;
use crate::api::routing::RoutingEntry;
use crate::api::tenant::{Tenant, TenantState};
use crate::api::{ANNOTATION_ROTATE, routing::DatabaseAccess};
use crate::settings::parse_duration;

use super::facts::{Facts, Seen};
use super::names::{self, Slot};
use super::scram::Credential;

/// The logins that a tenant is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// The one that everybody is to use.
    pub active: Slot,
    /// Its password.
    pub credential: Credential,
    /// The other one, as long as somebody may still use it on the server.
    pub kept: Option<Slot>,
    /// What the pooler keeps of it.
    pub kept_at_pooler: Option<PoolerUser>,
    /// When the active one was published, and what for: as in [`DatabaseAccess`].
    pub issued_at: Option<String>,
    /// See [`DatabaseAccess::rotation`].
    pub rotation: Option<String>,
    /// The active one is not published yet, the kept one is.
    pub switching: bool,
}

/// The logins, one step further on the way of a rotation where one is due.
pub fn logins(facts: &Facts) -> Logins {
    let steady = steady(facts);
    let Some(published) = &facts.routing.entry else { return steady };
    let Some(next) = facts.next.clone() else { return steady };
    let name = names::login(published.uuid, steady.active.other());
    let at_pooler = facts.pooler.entry.iter().flat_map(|entry| &entry.users).find(|user| user.name == name);
    // The login that is needed may still be the one of the rotation before; it has gone first. One that this process has
    // not made, because the one before ended on the way, goes like that too.
    let is_free = match at_pooler {
        Some(user) => user.verifier == next.verifier,
        None => steady.kept.is_none(),
    };
    // A tenant that is being resumed gets its login back first.
    let works = match &facts.catalogue {
        Seen::Known(catalogue) => {
            catalogue.roles.get(&names::login(published.uuid, steady.active)).is_some_and(|role| role.login)
        }
        Seen::Unreachable(_) => false,
    };
    let suspended = facts.tenant.spec.state == TenantState::Suspended;
    if suspended || !works || !is_free || !is_due(&facts.tenant, published, facts.now) {
        return steady;
    }
    let user =
        PoolerUser { name: names::login(published.uuid, steady.active), verifier: facts.credential.verifier.clone() };
    Logins {
        active: steady.active.other(),
        credential: next,
        kept: Some(steady.active),
        kept_at_pooler: Some(user),
        issued_at: Some(facts.now.to_string()),
        rotation: request(&facts.tenant),
        switching: true,
    }
}

/// The logins as they are published, with the one before for as long as it is kept.
pub fn steady(facts: &Facts) -> Logins {
    let published = facts.routing.entry.as_ref();
    let active = published.and_then(|entry| names::slot_of(&entry.database.username)).unwrap_or(Slot::A);
    let (issued_at, rotation) = match published {
        Some(entry) => (entry.database.issued_at.clone(), entry.database.rotation.clone()),
        None => (Some(facts.now.to_string()), request(&facts.tenant)),
    };
    let mut logins = Logins {
        active,
        credential: facts.credential.clone(),
        kept: None,
        kept_at_pooler: None,
        issued_at,
        rotation,
        switching: false,
    };
    // Suspended: nobody is served, and both go at once.
    if let Some(entry) = published.filter(|_| facts.tenant.spec.state != TenantState::Suspended) {
        let name = names::login(entry.uuid, active.other());
        let user = facts.pooler.entry.iter().flat_map(|entry| &entry.users).find(|user| user.name == name);
        let in_use = is_overlapping(facts, &entry.database) || facts.routing.reach.is_behind();
        logins.kept_at_pooler = user.filter(|_| in_use).cloned();
        // On the server until no pooler knows it any more: the reverse of how it came.
        logins.kept = (user.is_some() || facts.pooler.reach.is_behind()).then(|| active.other());
    }
    logins
}

/// Whether the published password is to be replaced.
pub fn is_due(tenant: &Tenant, published: &RoutingEntry, now: Timestamp) -> bool {
    let access = &published.database;
    let asked = request(tenant).is_some_and(|request| access.rotation.as_ref() != Some(&request));
    asked || due_at(tenant, access).is_some_and(|due| due <= now)
}

/// When something about the logins changes by the clock alone.
pub fn next_change(facts: &Facts) -> Option<Timestamp> {
    let access = &facts.routing.entry.as_ref()?.database;
    let overlap = issued_at(access).filter(|_| steady(facts).kept.is_some()).map(|issued| issued + facts.overlap);
    let times = [overlap, due_at(&facts.tenant, access)];
    times.into_iter().flatten().filter(|time| *time > facts.now).min()
}

/// By `rotateEvery`. A password of unknown age counts as old.
fn due_at(tenant: &Tenant, access: &DatabaseAccess) -> Option<Timestamp> {
    let every = tenant.spec.credentials.as_ref()?.rotate_every.as_deref()?;
    let every = SignedDuration::try_from(parse_duration(every).ok()?).ok()?;
    Some(issued_at(access).unwrap_or(Timestamp::UNIX_EPOCH).checked_add(every).unwrap_or(Timestamp::MAX))
}

fn request(tenant: &Tenant) -> Option<String> {
    tenant.annotations().get(ANNOTATION_ROTATE).cloned()
}

fn issued_at(access: &DatabaseAccess) -> Option<Timestamp> {
    access.issued_at.as_ref()?.parse().ok()
}

/// Whoever read the old password from the binding Secret has so long to read the new one.
fn is_overlapping(facts: &Facts, access: &DatabaseAccess) -> bool {
    issued_at(access).is_some_and(|issued| facts.now < issued + facts.overlap)
}
