//! Do: one database after the other, each in a task of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Outcome;
use crate::api::rollout::SchemaRolloutSpec;
use crate::apply::ApplyError;
use crate::apply::migrate::{self, MigrateError, Patience};
use crate::controller::context::Context;
use crate::controller::server::credentials;
use crate::controller::servers::Server;
use crate::desired::database::{self, Mark};
use crate::desired::names;
use crate::desired::server::{Migration, schema};
use crate::desired::sql::{Batch, Statement};
use crate::settings::parse_duration;

/// One database that is to be brought up.
pub struct Job {
    uuid: Uuid,
    tenant: String,
    server: Arc<Server>,
    password: String,
}

/// How careful a rollout is.
pub fn patience(spec: &SchemaRolloutSpec) -> Patience {
    // The API server has checked both by the pattern of the field.
    let duration = |text: &str, default| parse_duration(text).unwrap_or(Duration::from_secs(default));
    Patience { lock: duration(&spec.lock_timeout, 2), statement: duration(&spec.statement_timeout, 1800) }
}

/// What is needed to begin; None: not now.
pub async fn prepare(context: &Context, uuid: Uuid, passwords: &mut HashMap<String, String>) -> Option<Job> {
    let (namespace, name) = context.ledger.holder_of(uuid)?;
    if context.restores.is_held(uuid) {
        return None;
    }
    let object = context.tenants.get(&kube::runtime::reflector::ObjectRef::new(&name).within(&namespace))?;
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let server = context.servers.get(&context.ledger.server_of(crate::observe::ledger::uid(&object))?)?;
    if !passwords.contains_key(&server.name) {
        match credentials::migrator_password(context, &server.name).await {
            Ok(password) => drop(passwords.insert(server.name.clone(), password)),
            Err(error) => {
                tracing::warn!(
                    server = server.name,
                    error = format!("{error:#}"),
                    "no password of the migrator, trying again"
                );
                return None;
            }
        }
    }
    let password = passwords.get(&server.name)?.clone();
    Some(Job { uuid, tenant: format!("{namespace}/{name}"), server, password })
}

/// Brings a database up and notes on it what it has now. What was done before an operator ended is found done.
pub async fn bring_up(
    context: Arc<Context>,
    job: Job,
    target: String,
    known: Vec<Migration<'static>>,
    patience: Patience,
) -> Outcome {
    let Job { uuid, tenant, server, password } = job;
    // What is migrated and what its mark says must be the same database from the beginning to the end.
    let Some(_turn) = context.restores.begin_migration(uuid) else {
        return Outcome { uuid, tenant, result: Err(MigrateError::Busy) };
    };
    let options = server.connection().options(&names::database(uuid), names::MIGRATOR, &password);
    let work = migrate::bring_up(options, &known, &target, patience);
    let result = match context.gate.pass(&format!("migrate the database of {tenant}"), work).await {
        Ok(count) => note(&server, uuid, &schema(&known[..count.min(known.len())])).await,
        Err(error) => Err(error),
    };
    Outcome { uuid, tenant, result }
}

/// The mark says what the tables are. Whoever has the mark has the tables, not the other way round.
async fn note(server: &Server, uuid: Uuid, schema: &str) -> Result<(), MigrateError> {
    let name = names::database(uuid);
    let mark = server.look(|catalogue| catalogue.databases.get(&name).and_then(database::mark_of)).flatten();
    // Gone, or somebody else's by now: its next visit says so.
    let Some(mark) = mark.filter(|mark| mark.uuid == uuid && mark.schema != schema) else { return Ok(()) };
    let comment = Mark { schema: schema.to_owned(), ..mark }.text();
    let batch = Batch::transaction(vec![Statement::CommentDatabase { name, comment }]);
    server.run(&batch, Some(uuid)).await.map_err(|error| match error {
        ApplyError::Sql { source, .. } => MigrateError::Server(source),
        other => MigrateError::Server(sqlx::Error::Protocol(other.to_string())),
    })
}
