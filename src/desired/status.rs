//! The status of a Tenant: what there is, said in conditions. Written only when it says something new.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use crate::api::NameRef;
use crate::api::condition::{ConditionType, Reason};
use crate::api::subscription::{Lapse, Standing, changes_at, standing};
use crate::api::tenant::{CredentialsStatus, DatabaseStatus, TenantState, TenantStatus};

use super::effect::Health;
use super::facts::{Facts, LedgerFact, Reach, Refusal, Seen};
use super::tenant::{ORDER, Outlook};
use super::{backup, drill, hosts, names, rotation, routing, workers};

/// The status that the Tenant is to have. `failure`: what went wrong with an effect just now.
pub fn status(facts: &Facts, outlook: &Outlook, failure: Option<Health>) -> TenantStatus {
    let mut status = facts.status();
    status.observed_generation = facts.tenant.metadata.generation;
    if let Some(row) = facts.row() {
        status.uuid = Some(row.uuid.to_string());
        status.primary_host = Some(hosts::served(facts).1.unwrap_or_else(|| facts.host(&row.slug)));
        status.database = Some(DatabaseStatus {
            name: row.server.as_ref().map(|_| names::database(row.uuid)),
            server: row.server.clone(),
            schema_version: row.schema.as_deref().map(|schema| names::schema_version(schema).to_owned()),
        });
        status.credentials = facts.routing.entry.as_ref().map(|entry| CredentialsStatus {
            username: entry.database.username.clone(),
            issued_at: entry.database.issued_at.clone(),
        });
        status.binding = Some(NameRef { name: names::binding(&facts.tenant.name_any()) });
    }
    status.backup = backup::status(facts);
    status.domains = hosts::status(facts);
    let trouble = failure.or_else(|| outlook.trouble().cloned());
    let complete =
        trouble.is_none() && outlook.effects.is_empty() && outlook.health.contains_key(&ConditionType::RouteReady);
    let mut writer = Writer { facts, before: std::mem::take(&mut status.conditions), conditions: Vec::new() };
    summary(&mut writer, trouble.as_ref(), complete);
    for &condition in ORDER {
        part(&mut writer, condition, outlook.health.get(&condition));
    }
    if let Some((value, reason, message)) = backup::fresh(facts) {
        writer.set(ConditionType::BackupFresh, value, reason, &message);
    }
    if let Some((value, reason, message)) = drill::verified(facts) {
        writer.set(ConditionType::RestoreVerified, value, reason, &message);
    }
    subscription(&mut writer);
    serving(&mut writer, complete, trouble.as_ref());
    status.conditions = writer.conditions;
    status
}

/// Ready, Reconciling and Stalled, as kstatus reads them.
fn summary(writer: &mut Writer<'_>, trouble: Option<&Health>, complete: bool) {
    let (reason, message) = match trouble {
        None if complete => state(writer.facts),
        None => (Reason::Provisioning, "work has begun; nothing to do but wait".to_owned()),
        Some(Health::Ready(message)) => (Reason::Provisioning, message.clone()),
        Some(Health::Progressing(reason, message) | Health::Blocked(reason, message)) => (*reason, message.clone()),
    };
    let stalled = matches!(trouble, Some(Health::Blocked(..)));
    writer.set(ConditionType::Ready, Some(complete), reason, &message);
    writer.set(
        ConditionType::Reconciling,
        Some(!complete && !stalled),
        reason,
        if complete || stalled { "" } else { &message },
    );
    writer.set(ConditionType::Stalled, Some(stalled), reason, if stalled { &message } else { "" });
}

fn part(writer: &mut Writer<'_>, condition: ConditionType, health: Option<&Health>) {
    match health {
        None => writer.set(condition, None, Reason::Provisioning, "not reached yet"),
        // Not part of `Ready`: the tenant is served under its own label meanwhile.
        Some(Health::Ready(_)) if condition == ConditionType::DomainsVerified => {
            let (verified, reason, message) = hosts::condition(writer.facts);
            writer.set(condition, Some(verified), reason, &message);
        }
        Some(Health::Ready(message)) if condition == ConditionType::WorkersReady => {
            let (value, reason) = workers::word(writer.facts);
            writer.set(condition, Some(value), reason, message);
        }
        Some(Health::Ready(message)) => writer.set(condition, Some(true), Reason::Active, message),
        Some(Health::Progressing(reason, message) | Health::Blocked(reason, message)) => {
            writer.set(condition, Some(false), *reason, message);
        }
    }
}

/// Whether the subscription or the trial runs, which is another question again than whether what is asked for is in place.
fn subscription(writer: &mut Writer<'_>) {
    let Some(row) = writer.facts.row() else {
        return writer.set(ConditionType::SubscriptionActive, None, Reason::Provisioning, "not reached yet");
    };
    if let Some(message) = lapse_message(stands(writer.facts)) {
        return writer.set(ConditionType::SubscriptionActive, Some(false), Reason::TrialExpired, &message);
    }
    let subscription = routing::subscription(writer.facts, row);
    let message = match (&subscription.trial_ends_at, &subscription.ends_at, subscription.status.as_str()) {
        (Some(end), _, "" | "none" | "trialing" | "incomplete" | "incomplete_expired") => {
            format!("the trial runs until {end}")
        }
        (_, _, "" | "none") => "no subscription is asked for".to_owned(),
        (_, Some(end), status) => format!("the subscription is {status} and ends at {end}"),
        (_, _, status) => format!("the subscription is {status}"),
    };
    writer.set(ConditionType::SubscriptionActive, Some(true), Reason::Active, &message);
}

fn stands(facts: &Facts) -> Standing {
    facts.row().map_or(Standing::Valid, |row| standing(&routing::subscription(facts, row), facts.now))
}

/// The subscription has lapsed, and there is no grace or no more of it.
fn is_cut_off(facts: &Facts) -> bool {
    matches!(stands(facts), Standing::Lapsed(_))
}

/// What a Tenant says whose subscription has lapsed.
fn lapse_message(standing: Standing) -> Option<String> {
    let (lapse, until) = match standing {
        Standing::Valid => return None,
        Standing::Grace(lapse, until) => (lapse, Some(until)),
        Standing::Lapsed(lapse) => (lapse, None),
    };
    let (what, mend) = match lapse {
        Lapse::TrialEnded => (
            "the trial is over",
            ", and their data is kept. Set spec.trialEndsAt to a later time, or remove it, to serve them again",
        ),
        Lapse::Cancelled => ("the subscription was cancelled and its paid period is over", ""),
        Lapse::Ended => {
            ("the time that the subscription was made for is over", ". Prolong it: maintenance-os billing set")
        }
        Lapse::Unpaid => ("the subscription is not paid", ""),
        Lapse::Paused => ("the subscription is paused", ""),
    };
    Some(match until {
        Some(until) => format!(
            "{what}: customers are served as before until {until}, the end of the plan's grace period; then they reach sign-in, settings and billing only{mend}"
        ),
        None => format!("{what}: customers reach sign-in, settings and billing only{mend}"),
    })
}

/// Whether customers are served, which is another question than whether what is asked for is in place (decision D16).
fn serving(writer: &mut Writer<'_>, complete: bool, trouble: Option<&Health>) {
    let routed = writer.facts.routing.entry.is_some();
    let state = writer.facts.state();
    match state {
        _ if complete
            && (matches!(state, TenantState::Suspended | TenantState::Hibernated) || is_cut_off(writer.facts)) =>
        {
            let (reason, message) = self::state(writer.facts);
            writer.set(ConditionType::Serving, Some(false), reason, &message);
        }
        _ if routed && writer.facts.pooler.entry.is_some() && writer.facts.pooler.reach == Reach::NoReaders => {
            writer.set(
                ConditionType::Serving,
                Some(false),
                Reason::NoReaders,
                "no pooler is ready, so that customers get an error page: kubectl get pods -l app.kubernetes.io/name=pooler",
            );
        }
        _ if routed && writer.facts.routing.reach == Reach::NoReaders => {
            writer.set(
                ConditionType::Serving,
                Some(false),
                Reason::NoReaders,
                "no app endpoint is ready, so that no customer is served: kubectl get pods -l app=maintenance-os",
            );
        }
        _ if complete => {
            let reason = self::state(writer.facts).0;
            writer.set(ConditionType::Serving, Some(true), reason, "the hosts answer");
        }
        _ => {
            let reason = match trouble {
                Some(Health::Progressing(reason, _) | Health::Blocked(reason, _)) => *reason,
                _ => Reason::Provisioning,
            };
            // What was served before goes on being served while something else is put right, except where data is gone.
            let served = routed && !matches!(reason, Reason::DataMissing | Reason::Restoring);
            writer.set(
                ConditionType::Serving,
                Some(served),
                reason,
                if served { "the hosts answer as before" } else { "customers are not served yet" },
            );
        }
    }
}

fn state(facts: &Facts) -> (Reason, String) {
    let host = facts.routing.entry.as_ref().map(|entry| entry.primary_host.clone()).unwrap_or_default();
    let state = facts.state();
    if is_cut_off(facts) && matches!(state, TenantState::Active | TenantState::ReadOnly) {
        return (Reason::TrialExpired, lapse_message(stands(facts)).unwrap_or_default());
    }
    match state {
        TenantState::Active if facts.tenant.spec.state == TenantState::Hibernated => (
            Reason::Active,
            format!("{host} is served because somebody asked for it, and sleeps again when nobody does"),
        ),
        TenantState::Active => match stands(facts) {
            Standing::Grace(_, until) => (
                Reason::Active,
                format!("{host} is served until {until}, the end of the plan's grace period: see SubscriptionActive"),
            ),
            _ => (Reason::Active, format!("{host} is served")),
        },
        TenantState::ReadOnly => {
            (Reason::ReadOnly, format!("{host} is served, writes are refused: set spec.state to Active to allow them"))
        }
        TenantState::Suspended => (
            Reason::Suspended,
            format!("{host} answers with a neutral page: set spec.state to Active to serve it again"),
        ),
        TenantState::Hibernated => (Reason::Hibernated, format!("{host} is asleep: the first request wakes it")),
    }
}

/// What a Tenant says whose migration failed.
pub fn schema_message(version: &str, why: &str) -> String {
    format!("{}{why}", schema_prefix(version))
}

fn schema_prefix(version: &str) -> String {
    format!("schema {version} as before, customers are served: ")
}

/// Why a migration failed, as the status says it of this version.
pub fn schema_failure<'a>(status: &'a TenantStatus, version: &str) -> Option<&'a str> {
    let kind = ConditionType::SchemaCurrent.as_str();
    let condition =
        status.conditions.iter().find(|condition| condition.type_ == kind && condition.status == "False")?;
    condition.message.strip_prefix(&schema_prefix(version))
}

/// When something changes by the clock alone, and the Tenant has to be looked at again.
pub fn next_change(facts: &Facts) -> Option<Timestamp> {
    let row = facts.row()?;
    let lapses = changes_at(&routing::subscription(facts, row), facts.now);
    let sleeps = facts.awake_until.filter(|until| *until > facts.now);
    let parts = [
        rotation::next_change(facts),
        workers::next_change(facts),
        backup::next_change(facts),
        drill::next_change(facts),
    ];
    [lapses, sleeps].into_iter().chain(parts).flatten().min()
}

/// The uuid that a Tenant claims to have, for a row that the ledger lost.
pub fn lost_uuid(facts: &Facts) -> Option<uuid::Uuid> {
    match &facts.ledger {
        Seen::Known(LedgerFact::Refused(Refusal::LedgerLost { uuid })) => Some(*uuid),
        _ => None,
    }
}

/// A condition of any of our objects. Its time of transition is that of the last change of its status: `before`, the
/// object's conditions as they stand. `value` None: unknown.
pub fn condition(
    before: &[Condition],
    kind: ConditionType,
    value: Option<bool>,
    (reason, message): (Reason, &str),
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = match value {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let same = before.iter().find(|before| before.type_ == kind.as_str() && before.status == status);
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.to_owned(),
        last_transition_time: same.map_or_else(|| Time(now), |same| same.last_transition_time.clone()),
        observed_generation: generation,
    }
}

struct Writer<'a> {
    facts: &'a Facts,
    before: Vec<Condition>,
    conditions: Vec<Condition>,
}

impl Writer<'_> {
    /// Adds a condition; its time of transition is that of the last change of its status.
    fn set(&mut self, kind: ConditionType, value: Option<bool>, reason: Reason, message: &str) {
        let generation = self.facts.tenant.metadata.generation;
        let condition = condition(&self.before, kind, value, (reason, message), generation, self.facts.now);
        self.conditions.push(condition);
    }
}
