//! What a Tenant or a server looks like to people: its status in a word, a colour and a sentence. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::api::condition::ConditionType;
use crate::api::tenant::{DeletionPolicy, TenantState};
use crate::api::{DatabaseServer, Tenant};

/// How urgent it is; the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Somebody has to do something.
    Bad,
    /// Somebody should look.
    Warn,
    /// Work is under way.
    Info,
    /// As asked for, and not served.
    Soft,
    /// As it should be.
    Good,
}

impl Level {
    /// The badge's class.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Soft => "soft",
            Self::Good => "good",
        }
    }
}

/// A status in a word, a colour and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status<'a> {
    /// One word, as the API has it.
    pub word: &'a str,
    /// How urgent.
    pub level: Level,
    /// What is the matter and what to do; may be empty.
    pub message: &'a str,
}

/// A condition of these.
pub fn condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

fn is(conditions: &[Condition], kind: ConditionType, status: &str) -> bool {
    condition(conditions, kind).is_some_and(|condition| condition.status == status)
}

/// The status of a Tenant.
pub fn tenant(tenant: &Tenant) -> Status<'_> {
    let conditions = tenant.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let ready = condition(conditions, ConditionType::Ready);
    let message = ready.map_or("The operator has not seen it yet.", |ready| &ready.message);
    if tenant.metadata.deletion_timestamp.is_some() {
        let blocked = ready.is_some_and(|ready| ready.reason == "DeletionBlocked");
        let level = if blocked { Level::Bad } else { Level::Warn };
        return Status { word: if blocked { "DeletionBlocked" } else { "Deleting" }, level, message };
    }
    let Some(ready) = ready else { return Status { word: "New", level: Level::Info, message } };
    let level = match (ready.status.as_str(), ready.reason.as_str()) {
        ("True", "Active") => Level::Good,
        ("True", "Suspended" | "Hibernated" | "ReadOnly") => Level::Soft,
        ("True", _) => Level::Warn,
        _ if is(conditions, ConditionType::Stalled, "True") => Level::Bad,
        ("False", "Provisioning" | "Migrating" | "Restoring" | "Moving") | ("Unknown", _) => Level::Info,
        _ => Level::Bad,
    };
    let observed = tenant.status.as_ref().and_then(|status| status.observed_generation);
    if level >= Level::Soft && observed.is_some_and(|observed| Some(observed) < tenant.metadata.generation) {
        let message = "The operator has not carried out the last change yet.";
        return Status { word: "Changing", level: Level::Info, message };
    }
    Status { word: &ready.reason, level, message }
}

/// The status of a DatabaseServer.
pub fn server(server: &DatabaseServer) -> Status<'_> {
    let conditions = server.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let isolated = condition(conditions, ConditionType::Isolated).filter(|isolated| isolated.status == "False");
    match (condition(conditions, ConditionType::Ready), isolated) {
        (None, _) => Status { word: "New", level: Level::Info, message: "The operator has not seen it yet." },
        (Some(ready), None) if ready.status == "True" => {
            Status { word: "Ready", level: Level::Good, message: &ready.message }
        }
        (Some(ready), Some(isolated)) if ready.status == "True" => {
            Status { word: "NotIsolated", level: Level::Bad, message: &isolated.message }
        }
        (Some(ready), _) if ready.status == "Unknown" => {
            Status { word: &ready.reason, level: Level::Info, message: &ready.message }
        }
        (Some(ready), _) => Status { word: &ready.reason, level: Level::Bad, message: &ready.message },
    }
}

/// One condition as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The condition's type.
    pub kind: String,
    /// What it says, in words.
    pub text: &'static str,
    /// What the operator adds.
    pub message: String,
    /// Its reason.
    pub reason: String,
    /// How urgent.
    pub level: Level,
    /// Since when.
    pub since: jiff::Timestamp,
}

/// The conditions as sentences: what is not right first, then in the order of the operator. That nothing is stalled and no
/// work is under way goes without saying.
pub fn sentences(conditions: &[Condition]) -> Vec<Sentence> {
    let says = |condition: &&Condition| {
        condition.status != "False" || !matches!(condition.type_.as_str(), "Stalled" | "Reconciling")
    };
    let mut sentences: Vec<_> = conditions.iter().filter(says).map(sentence).collect();
    sentences.sort_by_key(|sentence| sentence.level >= Level::Info);
    sentences
}

fn sentence(condition: &Condition) -> Sentence {
    let [yes, no, unknown] = words(&condition.type_);
    // Of these two, True is what is not usual.
    let inverted = matches!(condition.type_.as_str(), "Stalled" | "Reconciling");
    let (text, level) = match condition.status.as_str() {
        "True" if condition.type_ == "Stalled" => (yes, Level::Bad),
        "True" if inverted => (yes, Level::Info),
        "True" => (yes, Level::Good),
        "False" if inverted => (no, Level::Good),
        "False" if is_chosen(&condition.reason) => (no, Level::Soft),
        "False" => (no, Level::Warn),
        _ => (unknown, Level::Info),
    };
    Sentence {
        kind: condition.type_.clone(),
        text,
        message: condition.message.clone(),
        reason: condition.reason.clone(),
        level,
        since: condition.last_transition_time.0,
    }
}

/// Reasons that are somebody's wish.
fn is_chosen(reason: &str) -> bool {
    matches!(reason, "Suspended" | "Hibernated" | "ReadOnly")
}

/// What a condition says when it is True, False and Unknown.
fn words(kind: &str) -> [&'static str; 3] {
    match kind {
        "Ready" => [
            "Everything that is asked for is in place.",
            "Something that is asked for is not in place.",
            "Not judged yet.",
        ],
        "Reconciling" => ["Work is under way.", "No work is under way.", "Whether work is under way is not known."],
        "Stalled" => {
            ["Work cannot go on until somebody changes something.", "Nothing holds the work up.", "Not judged yet."]
        }
        "Registered" => {
            ["The ledger holds its identity.", "The ledger does not hold its identity.", "Not looked up yet."]
        }
        "DatabaseReady" => [
            "Its database and logins are there.",
            "Its database or logins are not there.",
            "The database was not looked at yet.",
        ],
        "SchemaCurrent" => {
            ["The app's migrations are applied.", "Its schema is not the newest.", "The schema was not looked at yet."]
        }
        "Seeded" => ["The first data is in place.", "The first data is missing.", "Not looked at yet."],
        "PoolReady" => {
            ["Every pooler serves its entry.", "Not every pooler serves its entry.", "The poolers were not asked yet."]
        }
        "RouteReady" => [
            "Every app endpoint routes its hosts.",
            "Not every app endpoint routes its hosts.",
            "The app was not asked yet.",
        ],
        "DomainsVerified" => [
            "The customer's own hosts are proved.",
            "A host of the customer's own is not proved.",
            "The hosts were not looked at yet.",
        ],
        "WorkersReady" => ["Somebody does its jobs.", "Nobody does its jobs.", "The workers were not looked at yet."],
        "BackupFresh" => [
            "Its newest backup is young enough.",
            "It has no backup that is young enough.",
            "Backups were not looked at yet.",
        ],
        "RestoreVerified" => [
            "Its newest backup was restored in a rehearsal.",
            "No backup was restored in a rehearsal.",
            "Restores were not looked at yet.",
        ],
        "SubscriptionActive" => [
            "Its subscription or trial runs.",
            "Its subscription or trial is over.",
            "The subscription was not looked at yet.",
        ],
        "Serving" => {
            ["Customers are served.", "Customers are not served.", "Whether customers are served is not known."]
        }
        "Isolated" => {
            ["No database lets everybody connect.", "A database lets everybody connect.", "Not looked at yet."]
        }
        _ => ["Yes.", "No.", "Not known."],
    }
}

/// What a delete of the Tenant does, in sentences.
pub fn fate(tenant: &Tenant) -> Vec<String> {
    let status = tenant.status.as_ref();
    let uuid = status.and_then(|status| status.uuid.as_deref());
    let has_database = status.is_some_and(|status| status.database.is_some());
    let mut said = Vec::new();
    if tenant.spec.deletion_protection {
        said.push("It is protected: the cluster refuses the delete until spec.deletionProtection is false.".to_owned());
    }
    said.push("Its customers lose access within a few seconds: their hosts answer as if there were nothing, and their sessions end.".to_owned());
    let back = uuid.map_or_else(|| "its uuid".to_owned(), |uuid| format!("spec.uuid: {uuid}"));
    match tenant.spec.deletion_policy {
        _ if !has_database => said.push("It has no database yet, so no data is lost.".to_owned()),
        DeletionPolicy::Retain => {
            said.push(format!(
                "Its database is kept, for as long as nobody removes it (deletionPolicy: Retain). A new Tenant with {back} has it back."
            ));
            said.push("Its slug and its own hosts stay reserved for that data.".to_owned());
        }
        policy @ (DeletionPolicy::Delete | DeletionPolicy::BackupThenDelete) => {
            let quarantine = tenant.spec.quarantine.as_deref().unwrap_or("168h");
            if policy == DeletionPolicy::BackupThenDelete {
                said.push("First a last backup is taken and restored in a rehearsal. Until that has gone well the data stays, and the tenant says why.".to_owned());
            }
            said.push(format!(
                "Its database is closed and DROPPED FOR GOOD after {quarantine} (deletionPolicy: {policy:?}). Until then a new Tenant \
                 with {back} has it back; afterwards only a backup does."
            ));
        }
    }
    said.push(
        "Backups that were taken stay in the bucket until their retention ends. The audit trail stays.".to_owned(),
    );
    said
}

/// What a state means to customers.
pub const fn means(state: TenantState) -> &'static str {
    match state {
        TenantState::Active => "Customers read and write.",
        TenantState::ReadOnly => "Customers read; writes are refused with a page that says so.",
        TenantState::Suspended => {
            "Customers see a neutral page, their sessions end, and the database's logins are shut. Data and backups stay."
        }
        TenantState::Hibernated => "Asleep: the first request wakes it. Nothing of the data changes.",
    }
}

/// The name of a state in the API.
pub const fn state(state: TenantState) -> &'static str {
    match state {
        TenantState::Active => "Active",
        TenantState::ReadOnly => "ReadOnly",
        TenantState::Suspended => "Suspended",
        TenantState::Hibernated => "Hibernated",
    }
}

/// First label of the host.
pub fn slug(tenant: &Tenant) -> String {
    tenant.spec.slug.clone().unwrap_or_else(|| tenant.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made(metadata: &Value, spec: &Value, conditions: &[(&str, &str, &str)]) -> Tenant {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status, reason)| {
                json!({"type": kind, "status": status, "reason": reason, "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"})
            })
            .collect();
        let mut whole = json!({"apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant", "metadata": metadata,
            "spec": {"displayName": "Acme", "planRef": {"name": "pro"}}, "status": {"conditions": conditions}});
        for (key, value) in spec.as_object().unwrap() {
            whole["spec"][key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn what_needs_somebody_is_bad_and_what_was_wished_for_is_not() {
        let plain = json!({"name": "acme"});
        let of = |conditions: &[(&str, &str, &str)]| {
            let tenant = made(&plain, &json!({}), conditions);
            let status = super::tenant(&tenant);
            (status.word.to_owned(), status.level)
        };
        assert_eq!(of(&[]), ("New".into(), Level::Info));
        assert_eq!(of(&[("Ready", "True", "Active")]), ("Active".into(), Level::Good));
        assert_eq!(of(&[("Ready", "True", "Suspended")]), ("Suspended".into(), Level::Soft));
        assert_eq!(of(&[("Ready", "True", "TrialExpired")]), ("TrialExpired".into(), Level::Warn));
        assert_eq!(of(&[("Ready", "False", "Provisioning")]), ("Provisioning".into(), Level::Info));
        assert_eq!(
            of(&[("Ready", "False", "SlugConflict"), ("Stalled", "True", "SlugConflict")]),
            ("SlugConflict".into(), Level::Bad)
        );
        assert_eq!(of(&[("Ready", "False", "DatabaseUnreachable")]), ("DatabaseUnreachable".into(), Level::Bad));
        let mut changed = made(&json!({"name": "acme", "generation": 3}), &json!({}), &[("Ready", "True", "Active")]);
        changed.status.as_mut().unwrap().observed_generation = Some(2);
        assert_eq!(super::tenant(&changed).word, "Changing");
        changed.status.as_mut().unwrap().observed_generation = Some(3);
        assert_eq!(super::tenant(&changed).word, "Active");
        let going = made(
            &json!({"name": "acme", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
            &json!({}),
            &[("Ready", "True", "Active")],
        );
        assert_eq!(super::tenant(&going).word, "Deleting");
    }

    #[test]
    fn a_delete_says_what_becomes_of_the_data_by_the_policy() {
        let status = |tenant: &mut Tenant| {
            let status = tenant.status.as_mut().unwrap();
            status.uuid = Some("7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11".into());
            status.database = Some(Default::default());
        };
        let mut kept = made(&json!({"name": "acme"}), &json!({}), &[]);
        assert!(fate(&kept).join(" ").contains("no data is lost"));
        status(&mut kept);
        let said = fate(&kept).join(" ");
        assert!(
            said.contains("is kept") && said.contains("spec.uuid: 7b0f3c52") && !said.contains("DROPPED"),
            "{said}"
        );
        let mut gone = made(
            &json!({"name": "acme"}),
            &json!({"deletionPolicy": "Delete", "quarantine": "24h", "deletionProtection": true}),
            &[],
        );
        status(&mut gone);
        let said = fate(&gone).join(" ");
        assert!(said.contains("DROPPED FOR GOOD after 24h") && said.contains("protected"), "{said}");
    }

    #[test]
    fn a_last_backup_comes_before_the_drop_where_the_policy_says_so() {
        let mut asked = made(&json!({"name": "acme"}), &json!({"deletionPolicy": "BackupThenDelete"}), &[]);
        asked.status.as_mut().unwrap().database = Some(Default::default());
        let said = fate(&asked).join(" ");
        assert!(said.contains("First a last backup") && said.contains("DROPPED FOR GOOD after 168h"), "{said}");
        assert!(said.contains("deletionPolicy: BackupThenDelete"), "{said}");
    }

    #[test]
    fn sentences_begin_with_what_is_not_right() {
        let tenant = made(
            &json!({"name": "a"}),
            &json!({}),
            &[
                ("Ready", "True", "Active"),
                ("Stalled", "False", "Active"),
                ("BackupFresh", "False", "BackupOverdue"),
                ("Odd", "True", "X"),
            ],
        );
        let said = sentences(&tenant.status.unwrap().conditions);
        assert_eq!(said[0].kind, "BackupFresh");
        assert_eq!(said[0].text, "It has no backup that is young enough.");
        assert_eq!(said[1].kind, "Ready");
    }
}
