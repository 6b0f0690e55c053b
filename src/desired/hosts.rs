//! The customer's own hosts: which of them are served.
//!
//! From      `Tenant.spec.domains`, the ledger's word on whose each host is, what name servers said
//! Makes     nothing by itself: the hosts of the routing entry, the records to add, condition `DomainsVerified`
//! Ready     always: the tenant is served under its own label meanwhile
//! Teardown  a proved host stays reserved with the data, see `central::hosts`

use jiff::{SignedDuration, Timestamp};

use crate::api::condition::Reason;
use crate::api::routing::RoutingEntry;
use crate::api::tenant::{Challenge, Domain, DomainStatus};

use super::facts::{Claim, DomainFact, EdgeTrouble, Facts, LedgerRow, Look};

/// How one host stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is served.
    Proved,
    /// It is proved, and the app serves it; but requests do not reach it, or not over TLS.
    Unreached(EdgeTrouble),
    /// It is served; its proof has been missing since then, and it is given up at `until`.
    Losing {
        /// Since when.
        since: Timestamp,
        /// Until when it is served.
        until: Timestamp,
    },
    /// Its proof is being waited for.
    Waiting(Look),
    /// Another tenant proved it.
    Taken,
    /// It can be nobody's own host; why, and what to do.
    Refused(String),
}

impl Standing {
    /// Whether the host is served.
    pub const fn is_served(&self) -> bool {
        matches!(self, Self::Proved | Self::Unreached(_) | Self::Losing { .. })
    }
}

/// The name of the record that proves a host.
pub fn record(host: &str) -> String {
    format!("_maintenance-os-challenge.{host}")
}

/// What the tokens in the values are for, see [`crate::signing::SigningKeys::tokens`].
pub const PURPOSE: &str = "domain";

/// Values of the record, from tokens that are bound to the tenant and the host.
pub fn values(tokens: &[String]) -> Vec<String> {
    tokens.iter().map(|token| format!("maintenance-os-verification={token}")).collect()
}

/// Why a host can be nobody's own, whatever is proved.
pub fn refusal(base: &str, admin_host: Option<&str>, host: &str) -> Option<String> {
    let under = |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    if under(base) {
        return Some(format!(
            "host {host} lies under the base domain {base}, whose labels are the tenants' slugs: remove it from spec.domains and set spec.slug instead"
        ));
    }
    if admin_host == Some(host) {
        return Some(format!("host {host} is the admin portal's: remove it from spec.domains"));
    }
    // A list that is compiled in; what stands on it is many people's.
    if psl::suffix(host.as_bytes()).is_some_and(|suffix| suffix.as_bytes() == host.as_bytes()) {
        return Some(format!(
            "{host} is a public suffix and nobody's own host: write the whole host into spec.domains"
        ));
    }
    // Only the form that browsers send: they would never ask for another one.
    if idna::domain_to_ascii_strict(host).ok().as_deref() != Some(host) {
        return Some(format!(
            "{host} is not an internationalised host in the form of the DNS: write it as its punycode in spec.domains"
        ));
    }
    None
}

/// How a host stands.
pub fn standing(facts: &Facts, host: &str) -> Standing {
    if let Some(why) = refusal(&facts.base_domain, facts.admin_host.as_deref(), host) {
        return Standing::Refused(why);
    }
    let Some(fact) = facts.domains.get(host) else { return Standing::Waiting(Look::NotYet) };
    match fact.claim {
        Claim::Ours { verified: true, lost_since: None } => {
            fact.edge.clone().map_or(Standing::Proved, Standing::Unreached)
        }
        Claim::Ours { verified: true, lost_since: Some(since) } => {
            Standing::Losing { since, until: since.saturating_add(facts.domain_grace).unwrap_or(Timestamp::MAX) }
        }
        Claim::Others { proved: true } => Standing::Taken,
        _ => Standing::Waiting(fact.look.clone()),
    }
}

/// The hosts of the tenant's own that are served, and the primary one among them.
pub fn served(facts: &Facts) -> (Vec<String>, Option<String>) {
    let domains = &facts.tenant.spec.domains;
    let served: Vec<&Domain> = domains.iter().filter(|domain| standing(facts, &domain.host).is_served()).collect();
    // Links lead to it: not before its certificate is there.
    let is_reached = |domain: &&&Domain| !matches!(standing(facts, &domain.host), Standing::Unreached(_));
    let primary = served.iter().filter(is_reached).find(|domain| domain.primary).map(|domain| domain.host.clone());
    (served.iter().map(|domain| domain.host.clone()).collect(), primary)
}

/// The published routing entry without the hosts that are the tenant's no more; None: it has none of those.
pub fn without_lost(facts: &Facts, row: &LedgerRow) -> Option<RoutingEntry> {
    let mut entry = facts.routing.entry.clone()?;
    let label = facts.host(&row.slug);
    let (own, _) = served(facts);
    let before = entry.hosts.len();
    entry.hosts.retain(|host| *host == label || own.contains(host));
    if !entry.hosts.contains(&entry.primary_host) {
        entry.primary_host = label;
    }
    (entry.hosts.len() < before).then_some(entry)
}

/// What the status says of each host. The record is shown as long as the host is asked for, also once it is proved: it has
/// to stay.
pub fn status(facts: &Facts) -> Vec<DomainStatus> {
    let of = |domain: &Domain| {
        let standing = standing(facts, &domain.host);
        let challenge = facts.domains.get(&domain.host).and_then(|fact| fact.values.first()).cloned();
        DomainStatus {
            host: domain.host.clone(),
            verified: standing.is_served(),
            challenge: challenge.filter(|_| !matches!(standing, Standing::Refused(_))).map(|value| Challenge {
                record: record(&domain.host),
                type_: "TXT".into(),
                value,
            }),
            message: (standing != Standing::Proved).then(|| message(facts, &domain.host, &standing)),
        }
    };
    facts.tenant.spec.domains.iter().map(of).collect()
}

/// The condition `DomainsVerified`: what is worst comes first.
pub fn condition(facts: &Facts) -> (bool, Reason, String) {
    let domains = &facts.tenant.spec.domains;
    if domains.is_empty() {
        return (true, Reason::Active, "no hosts of the customer's own".into());
    }
    let standings: Vec<_> = domains.iter().map(|domain| (&domain.host, standing(facts, &domain.host))).collect();
    let rank = |standing: &Standing| match standing {
        Standing::Refused(_) => Some((0, Reason::InvalidSpec)),
        Standing::Taken => Some((1, Reason::DomainConflict)),
        Standing::Losing { .. } => Some((2, Reason::DomainUnverified)),
        Standing::Waiting(_) => Some((3, Reason::DomainUnverified)),
        Standing::Unreached(EdgeTrouble::NoCertificate { .. }) => Some((4, Reason::CertificatePending)),
        Standing::Unreached(EdgeTrouble::NoRoom { .. }) => Some((4, Reason::CapacityExceeded)),
        Standing::Unreached(EdgeTrouble::NotYet | EdgeTrouble::Failed(_)) => Some((4, Reason::Provisioning)),
        Standing::Proved => None,
    };
    let mut troubles: Vec<_> = standings
        .iter()
        .filter_map(|(host, standing)| {
            rank(standing).map(|(rank, reason)| (rank, reason, message(facts, host, standing)))
        })
        .collect();
    troubles.sort_by_key(|(rank, ..)| *rank);
    match troubles.first() {
        None => (true, Reason::Active, format!("{} proved and served", list(standings.iter().map(|(host, _)| *host)))),
        Some((_, reason, _)) => {
            let messages: Vec<_> = troubles.iter().map(|(.., message)| message.as_str()).collect();
            (false, *reason, messages.join("; "))
        }
    }
}

fn list<'a>(hosts: impl Iterator<Item = &'a String>) -> String {
    hosts.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn message(facts: &Facts, host: &str, standing: &Standing) -> String {
    let value = facts.domains.get(host).and_then(|fact| fact.values.first()).map_or("", String::as_str);
    let add = format!("the DNS record {} TXT \"{value}\"", record(host));
    match standing {
        Standing::Proved => format!("{host} is proved and served"),
        Standing::Losing { since, until } => {
            format!("{host} is served until {until}, but its proof has been missing since {since}: put back {add}")
        }
        Standing::Waiting(look) => format!("{host} is not served yet: add {add} ({})", seen(look)),
        Standing::Unreached(EdgeTrouble::NotYet) => {
            format!("{host} is proved; its objects at the edge are being written")
        }
        Standing::Unreached(EdgeTrouble::NoCertificate { secret }) => format!(
            "{host} is proved; its certificate is awaited in Secret {secret}, until then browsers warn: kubectl describe certificate {secret}"
        ),
        Standing::Unreached(EdgeTrouble::NoRoom { most }) => format!(
            "{host} is proved, but the Gateway takes {most} listeners and has them: use a class with ListenerSets, or edge.mode ingress"
        ),
        Standing::Unreached(EdgeTrouble::Failed(why)) => {
            format!("{host} is proved, but its objects at the edge could not be written; it is tried again: {why}")
        }
        Standing::Taken => format!(
            "{host} belongs to another Tenant, or to the kept data of a deleted one, that proved it; its customers are not affected: remove it from spec.domains, or from there first"
        ),
        Standing::Refused(why) => why.clone(),
    }
}

fn seen(look: &Look) -> String {
    match look {
        Look::NotYet => "it is being looked for".into(),
        Look::Absent => "no such record is seen yet".into(),
        Look::Other => "a record of that name is there with another value".into(),
        Look::Silent(why) => format!("the name servers do not answer: {why}"),
    }
}

/// When a host is looked at again, counted from the last look. `misses`: looks in a row that found no proof.
pub fn next_look(fact: Option<&DomainFact>, misses: u32, recheck: SignedDuration) -> SignedDuration {
    match fact.map(|fact| &fact.claim) {
        Some(Claim::Ours { verified: true, lost_since: None }) => recheck,
        // Its end must be found in time, and its return soon.
        Some(Claim::Ours { verified: true, lost_since: Some(_) }) => {
            (recheck / 24).clamp(SignedDuration::from_secs(1), SignedDuration::from_mins(10))
        }
        _ => SignedDuration::from_secs(5 << misses.min(7)).min(recheck),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::convergence::facts_of;

    fn facts(domains: &[(&str, Claim, Look)]) -> Facts {
        let mut facts = facts_of("acme");
        facts.admin_host = Some("portal.example.net".into());
        for (host, claim, look) in domains {
            facts.tenant.spec.domains.push(Domain { host: (*host).into(), primary: false });
            let fact = DomainFact {
                values: vec![format!("token-{host}")],
                claim: claim.clone(),
                look: look.clone(),
                edge: None,
            };
            facts.domains.insert((*host).into(), fact);
        }
        facts
    }

    const OURS: Claim = Claim::Ours { verified: false, lost_since: None };
    const PROVED: Claim = Claim::Ours { verified: true, lost_since: None };

    #[test]
    fn only_proved_hosts_are_served_and_only_a_proved_one_is_primary() {
        let mut facts = facts(&[
            ("proved.acme.test", PROVED, Look::NotYet),
            ("claimed.acme.test", OURS, Look::Absent),
            ("taken.acme.test", Claim::Others { proved: true }, Look::Absent),
            ("squatted.acme.test", Claim::Others { proved: false }, Look::Absent),
            ("unclaimed.acme.test", Claim::Nobody, Look::NotYet),
        ]);
        facts.tenant.spec.domains[1].primary = true;
        assert_eq!(served(&facts), (vec!["proved.acme.test".to_owned()], None));
        facts.domains.get_mut("claimed.acme.test").expect("there").claim = PROVED;
        let both = vec!["proved.acme.test".to_owned(), "claimed.acme.test".to_owned()];
        assert_eq!(served(&facts), (both.clone(), Some("claimed.acme.test".to_owned())));
        let secret = "host-1-tls".to_owned();
        facts.domains.get_mut("claimed.acme.test").expect("there").edge = Some(EdgeTrouble::NoCertificate { secret });
        assert_eq!(served(&facts), (both, None), "links do not lead to a host whose certificate is awaited");
        assert_eq!(condition(&facts).1, Reason::DomainConflict, "the worst is said first");
    }

    #[test]
    fn hosts_that_nobody_can_own_are_refused_even_when_the_ledger_says_they_are_proved() {
        for host in [
            "example.com",
            "globex.example.com",
            "a.b.example.com",
            "portal.example.net",
            "co.uk",
            "com",
            "xn--zzzz99999.de",
        ] {
            let facts = facts(&[(host, PROVED, Look::NotYet)]);
            assert!(matches!(standing(&facts, host), Standing::Refused(_)), "{host}");
            let (verified, reason, message) = condition(&facts);
            assert_eq!((verified, reason), (false, Reason::InvalidSpec), "{message}");
            assert_eq!(status(&facts)[0].challenge, None, "a record for {host} would prove nothing");
        }
        for host in ["notexample.com", "xn--mnchen-3ya.de", "acme.co.uk", "admin.acme.test"] {
            assert_eq!(refusal("example.com", Some("portal.example.net"), host), None, "{host}");
        }
    }

    #[test]
    fn a_missing_proof_warns_until_its_time_is_over_and_says_what_to_put_back() {
        let since: Timestamp = "2026-11-20T12:00:00Z".parse().expect("a time");
        let losing = Claim::Ours { verified: true, lost_since: Some(since) };
        let mut facts = facts(&[("host.acme.test", losing, Look::Absent)]);
        facts.domain_grace = SignedDuration::from_hours(168);
        assert_eq!(served(&facts).0, ["host.acme.test"]);
        let (verified, reason, message) = condition(&facts);
        assert_eq!((verified, reason), (false, Reason::DomainUnverified));
        assert!(message.contains("served until 2026-11-27T12:00:00Z"), "{message}");
        assert!(message.contains("_maintenance-os-challenge.host.acme.test TXT \"token-host.acme.test\""), "{message}");
    }

    #[test]
    fn the_worst_of_several_hosts_gives_the_reason() {
        let facts = facts(&[
            ("waiting.acme.test", OURS, Look::Other),
            ("taken.acme.test", Claim::Others { proved: true }, Look::Absent),
        ]);
        let (verified, reason, message) = condition(&facts);
        assert_eq!((verified, reason), (false, Reason::DomainConflict));
        assert!(message.starts_with("taken.acme.test belongs to another Tenant"), "{message}");
        assert!(message.contains("waiting.acme.test is not served yet"), "{message}");
    }

    #[test]
    fn a_host_is_looked_for_soon_and_then_less_often() {
        let waits: Vec<_> =
            (0..10).map(|misses| next_look(None, misses, SignedDuration::from_hours(24)).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 640, 640]);
    }
}
