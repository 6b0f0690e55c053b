//! Looks for the proofs of customers' hosts, beside the visits: a visit must not wait for name servers.
//!
//! Visits say which hosts are asked for ([`Domains::follow`]); one task looks at each when its time has come, notes in the
//! ledger what it found, and wakes the Tenant when there is something new to say. Nothing here outlives the process: what
//! counts stands in the ledger, and the first visits say again what is asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::Context;
use super::fleet::Wake;
use crate::api::Tenant;
use crate::apply;
use crate::central::Proof;
use crate::desired::facts::{Claim, DomainFact, Look};
use crate::desired::hosts;
use crate::error::chain;
use crate::observe::dns::{Answer, Dns};

/// Looks at a time: name servers that are away take their time.
const AT_A_TIME: usize = 16;
/// What a look takes when its outcome could not be noted.
const AGAIN: Duration = Duration::from_secs(15);

/// Every host that is asked for, and when it is looked at.
#[derive(Default)]
pub struct Domains {
    tenants: Mutex<HashMap<Uuid, Followed>>,
    changed: Notify,
}

struct Followed {
    object: ObjectRef<Tenant>,
    /// Value of the annotation that asks for a look now.
    asked: Option<String>,
    hosts: HashMap<String, Turn>,
}

struct Turn {
    fact: DomainFact,
    /// None: it is being looked at.
    at: Option<Instant>,
    misses: u32,
}

/// One look that is due.
struct Due {
    uuid: Uuid,
    object: ObjectRef<Tenant>,
    host: String,
    fact: DomainFact,
}

impl Domains {
    /// Says which hosts a tenant asks for, in place of what was said before, and what was seen of them. `asked`: the value
    /// of the annotation that asks for a look now. `proved`: when the proof of a host was last seen.
    pub fn follow(
        &self,
        uuid: Uuid,
        object: ObjectRef<Tenant>,
        asked: Option<&String>,
        wanted: HashMap<String, (DomainFact, Option<Timestamp>)>,
        recheck: SignedDuration,
    ) -> HashMap<String, Look> {
        if wanted.is_empty() {
            self.give_up(uuid);
            return HashMap::new();
        }
        let mut tenants = self.lock();
        let known = tenants.contains_key(&uuid);
        let followed = tenants.entry(uuid).or_insert_with(|| Followed {
            object: object.clone(),
            asked: asked.cloned(),
            hosts: HashMap::new(),
        });
        followed.object = object;
        let nudged = known && followed.asked.as_ref() != asked;
        followed.asked = asked.cloned();
        followed.hosts.retain(|host, _| wanted.contains_key(host));
        let mut is_news = nudged;
        for (host, (fact, proved)) in wanted {
            let turn = followed.hosts.entry(host).or_insert_with(|| {
                is_news = true;
                Turn { at: Some(first_look(&fact, proved, recheck)), fact: fact.clone(), misses: 0 }
            });
            // Its claim became another without a look of ours: given up, taken, or adopted.
            let same = turn.fact.claim == fact.claim && turn.fact.values == fact.values;
            turn.fact = DomainFact { look: turn.fact.look.clone(), ..fact };
            if (nudged || !same) && turn.at.is_some() {
                is_news = true;
                turn.misses = 0;
                turn.at = Some(Instant::now());
            }
        }
        if is_news {
            self.changed.notify_one();
        }
        followed.hosts.iter().map(|(host, turn)| (host.clone(), turn.fact.look.clone())).collect()
    }

    /// A tenant asks for no hosts any more.
    pub fn give_up(&self, uuid: Uuid) {
        self.lock().remove(&uuid);
    }

    /// Takes what is due, and says when the next is.
    fn due(&self, most: usize) -> (Vec<Due>, Option<Instant>) {
        let now = Instant::now();
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        for (uuid, followed) in self.lock().iter_mut() {
            for (host, turn) in &mut followed.hosts {
                let Some(at) = turn.at else { continue };
                if at <= now && due.len() < most {
                    turn.at = None;
                    let (object, fact) = (followed.object.clone(), turn.fact.clone());
                    due.push(Due { uuid: *uuid, object, host: host.clone(), fact });
                } else if at > now {
                    next = Some(next.map_or(at, |next| next.min(at)));
                }
            }
        }
        (due, next)
    }

    /// Notes what a look has shown. Says whether that is news, or None when the host is not asked for any more.
    fn looked(&self, due: &Due, seen: Seen, recheck: SignedDuration) -> Option<bool> {
        let mut tenants = self.lock();
        let turn = tenants.get_mut(&due.uuid)?.hosts.get_mut(&due.host)?;
        let wait = match &seen {
            Seen::Noted(claim, look) => {
                turn.misses = if *look == Look::NotYet { 0 } else { turn.misses.saturating_add(1) };
                let fact = DomainFact { claim: claim.clone(), ..DomainFact::default() };
                let wait = hosts::next_look(Some(&fact), turn.misses.saturating_sub(1), recheck);
                Duration::try_from(wait).unwrap_or(AGAIN)
            }
            Seen::NotNoted => AGAIN,
        };
        turn.at = Some(Instant::now() + wait);
        let Seen::Noted(claim, look) = seen else { return Some(false) };
        let is_news = turn.fact.claim != claim || turn.fact.look != look;
        (turn.fact.claim, turn.fact.look) = (claim, look);
        Some(is_news)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Followed>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proved host is looked at when its time has come, counted from its last proof; every other one at once.
fn first_look(fact: &DomainFact, proved: Option<Timestamp>, recheck: SignedDuration) -> Instant {
    let now = Instant::now();
    if !matches!(fact.claim, Claim::Ours { verified: true, lost_since: None }) {
        return now;
    }
    let due = proved.map(|proved| proved.saturating_add(recheck).unwrap_or(Timestamp::MAX));
    let left = due.map(|due| due.duration_since(Timestamp::now()));
    now + left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
}

enum Seen {
    Noted(Claim, Look),
    /// The ledger did not take it.
    NotNoted,
}

/// Looks at hosts when their time has come, until `stop`.
pub async fn run(context: Arc<Context>, dns: Dns, stop: CancellationToken) {
    let dns = Arc::new(dns);
    let mut looks = JoinSet::new();
    loop {
        let (due, next) = context.domains.due(AT_A_TIME - looks.len());
        for due in due {
            let (context, dns) = (Arc::clone(&context), Arc::clone(&dns));
            looks.spawn(async move { look(&context, &dns, due).await });
        }
        let wait = next.map_or(Duration::from_secs(3600), |next| next.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = looks.join_next(), if !looks.is_empty() => {}
            () = context.domains.changed.notified() => {}
            () = tokio::time::sleep(wait), if looks.len() < AT_A_TIME => {}
        }
    }
    looks.shutdown().await;
}

async fn look(context: &Context, dns: &Dns, due: Due) {
    let recheck = SignedDuration::try_from(context.settings.domain_recheck).unwrap_or(SignedDuration::MAX);
    let answer = dns.txt(&hosts::record(&due.host)).await;
    tracing::debug!(tenant_id = %due.uuid, host = due.host, ?answer, "looked for the proof of a host");
    let seen = match note(context, &due, answer).await {
        Ok((claim, look)) => Seen::Noted(claim, look),
        Err(error) => {
            tracing::warn!(
                host = due.host,
                error = chain(&error),
                "could not note what name servers say, trying again"
            );
            Seen::NotNoted
        }
    };
    match context.domains.looked(&due, seen, recheck) {
        // A closed channel: the operator is stopping.
        Some(true) => drop(context.wake.send(Wake::One(due.object))),
        Some(false) => {}
        None => give_back(context, &due).await,
    }
}

/// A host that was proved although its Tenant asked for it no more by then must not stay reserved. One whose Tenant is
/// being deleted does.
async fn give_back(context: &Context, due: &Due) {
    let gone = |tenant: &Tenant| {
        tenant.metadata.deletion_timestamp.is_none() && tenant.spec.domains.iter().all(|domain| domain.host != due.host)
    };
    if !context.tenants.get(&due.object).is_some_and(|tenant| gone(&tenant)) {
        return;
    }
    let dropped = apply::ledger::drop_host(&context.central, &context.ledger, due.uuid, &due.host);
    if let Err(error) = context.gate.pass(&format!("give up {}", due.host), dropped).await {
        tracing::warn!(host = due.host, error = chain(&error), "could not give up a host that is not asked for");
    }
}

/// Whether one of the values, which may stand among others of that name, is the tenant's.
fn is_proved(fact: &DomainFact, values: &[String]) -> bool {
    values.iter().any(|value| fact.values.iter().any(|ours| ours == value.trim()))
}

/// Notes in the ledger what follows from an answer, and says how the host stands then.
async fn note(context: &Context, due: &Due, answer: Answer) -> Result<(Claim, Look), apply::ApplyError> {
    let found = match answer {
        Answer::Silent(why) => return Ok((due.fact.claim.clone(), Look::Silent(why))),
        Answer::Absent => Look::Absent,
        Answer::Values(values) if is_proved(&due.fact, &values) => Look::NotYet,
        Answer::Values(_) => Look::Other,
    };
    let (central, ledger) = (&context.central, &context.ledger);
    let grace = SignedDuration::try_from(context.settings.domain_grace).unwrap_or(SignedDuration::MAX);
    let is_verified = matches!(due.fact.claim, Claim::Ours { verified: true, .. });
    if found == Look::NotYet {
        let proved = apply::ledger::prove_host(central, ledger, due.uuid, &due.host, grace);
        match context.gate.pass(&format!("note the proof of {}", due.host), proved).await? {
            Proof::Taken { from } => {
                // Whoever had only claimed it says so from now on.
                if let Some((namespace, name)) = from.and_then(|from| ledger.holder_of(from)) {
                    let _ = context.wake.send(Wake::One(ObjectRef::new(&name).within(&namespace)));
                }
            }
            Proof::Held { .. } | Proof::NotLive => {
                return Ok((ledger.claim(due.uuid, &due.host), Look::Absent));
            }
        }
    } else if is_verified {
        let missed = apply::ledger::miss_host(central, ledger, due.uuid, &due.host, grace);
        context.gate.pass(&format!("note the missing proof of {}", due.host), missed).await?;
    }
    Ok((ledger.claim(due.uuid, &due.host), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn wanted(claim: &Claim, proved: Option<Timestamp>) -> HashMap<String, (DomainFact, Option<Timestamp>)> {
        let fact = DomainFact { values: vec!["token".into()], claim: claim.clone(), ..DomainFact::default() };
        HashMap::from([("host.acme.test".to_owned(), (fact, proved))])
    }

    fn follow(domains: &Domains, asked: Option<&str>, claim: &Claim, proved: Option<Timestamp>) {
        let asked = asked.map(str::to_owned);
        domains.follow(Uuid::from_u128(1), ObjectRef::new("acme"), asked.as_ref(), wanted(claim, proved), DAY);
    }

    #[test]
    fn a_new_host_is_looked_at_at_once_and_a_proved_one_a_day_after_its_proof() {
        let domains = Domains::default();
        follow(&domains, None, &Claim::Nobody, None);
        assert_eq!(domains.due(9).0.len(), 1);
        assert_eq!(domains.due(9).0.len(), 0, "it is being looked at");
        let domains = Domains::default();
        let proved = Claim::Ours { verified: true, lost_since: None };
        follow(&domains, None, &proved, Some(Timestamp::now()));
        let (due, next) = domains.due(9);
        let left = next.expect("one is to come").duration_since(Instant::now());
        assert!(due.is_empty() && left > Duration::from_secs(86_000), "{left:?}");
        let domains = Domains::default();
        follow(&domains, None, &proved, Some(Timestamp::now() - DAY));
        assert_eq!(domains.due(9).0.len(), 1);
    }

    #[test]
    fn whoever_asks_by_the_annotation_gets_a_look_now_and_a_host_that_is_given_up_gets_none() {
        let domains = Domains::default();
        let proved = Claim::Ours { verified: true, lost_since: None };
        follow(&domains, Some("1"), &proved, Some(Timestamp::now()));
        assert!(domains.due(9).0.is_empty(), "what was asked before this process began is answered");
        follow(&domains, Some("2"), &proved, Some(Timestamp::now()));
        let due = domains.due(9).0.pop().expect("asked for");
        assert_eq!(domains.looked(&due, Seen::Noted(proved.clone(), Look::NotYet), DAY), Some(false));
        domains.follow(Uuid::from_u128(1), ObjectRef::new("acme"), None, HashMap::new(), DAY);
        assert_eq!(domains.looked(&due, Seen::Noted(proved, Look::NotYet), DAY), None);
        assert_eq!(domains.due(9).1, None);
    }

    #[test]
    fn the_same_answer_again_is_no_news_and_is_asked_for_less_often() {
        let domains = Domains::default();
        follow(&domains, None, &Claim::Nobody, None);
        let due = domains.due(9).0.pop().expect("new");
        let absent = || Seen::Noted(Claim::Nobody, Look::Absent);
        assert_eq!(domains.looked(&due, absent(), DAY), Some(true));
        let first = domains.due(9).1.expect("to come");
        assert_eq!(domains.looked(&due, absent(), DAY), Some(false));
        assert!(domains.due(9).1.expect("to come") > first);
    }
}
