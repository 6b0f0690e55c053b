//! The loop of a DatabaseServer: its roles, template, warm pool and pooler, and how it stands.

pub mod credentials;
pub mod pool;
pub mod status;
mod sweep;

use std::sync::Arc;

use anyhow::Context as _;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::context::Context;
use super::fleet::Wake;
use super::servers::{Connection, Server, TakeError};
use super::tls;
use crate::api::condition::Reason;
use crate::api::pooler::PoolerSettings;
use crate::api::{ANNOTATION_ROTATE, DatabaseServer};
use crate::apply::{ApplyError, objects};
use crate::desired::facts::PoolerAddress;
use crate::desired::{names, pooler_objects, scram, server as desired};
use crate::error::chain;
use crate::observe::ledger::uid;

/// What is the matter with a server.
#[derive(Debug)]
pub struct Trouble {
    reason: Reason,
    message: String,
}

impl Trouble {
    fn new(reason: Reason, error: &anyhow::Error) -> Self {
        Self { reason, message: format!("{error:#}") }
    }
}

/// A server that does not answer, or not to us.
fn unreachable(server: &str, error: &sqlx::Error) -> Trouble {
    if crate::apply::sql::is_denied(error) {
        let message = format!(
            "server {server} refuses the provisioner; tenants that are served are not affected. Put username and password of its connection Secret right: {}",
            chain(error)
        );
        return Trouble { reason: Reason::PermissionDenied, message };
    }
    Trouble {
        reason: Reason::DatabaseUnreachable,
        message: format!("server {server} does not answer; it is asked again every few seconds: {}", chain(error)),
    }
}

/// One visit. Never fails: what went wrong is in the status, and the server is visited again.
///
/// # Errors
/// None.
pub async fn reconcile(object: Arc<DatabaseServer>, context: Arc<Context>) -> Result<Action, std::convert::Infallible> {
    let name = object.name_any();
    let (server, trouble) = match credentials::connection(&context, &object).await {
        Err(error) => (context.servers.get(&name), Some(Trouble::new(Reason::PermissionDenied, &error))),
        Ok(connection) => match take_with_any(&context, &object, connection).await {
            Ok(server) => {
                let trouble = visit(&context, &object, &server).await.err();
                (Some(server), trouble)
            }
            Err(trouble) => (context.servers.get(&name), Some(trouble)),
        },
    };
    if let Some(trouble) = &trouble {
        tracing::warn!(
            server = name,
            reason = trouble.reason.as_str(),
            message = trouble.message,
            "a database server is not as it should be, trying again"
        );
        match &server {
            Some(server) => server.set_closed(Some(trouble.message.clone())),
            None => context.servers.note_unreached(&name, &object.spec, &trouble.message),
        }
    }
    if let Err(error) = status::write(&context, &object, server.as_deref(), trouble.as_ref()).await {
        tracing::warn!(server = name, error = chain(&error), "could not write the status of a DatabaseServer");
    }
    wake(&context, &name, server.as_deref());
    context.refill.notify_one();
    if trouble.is_some() {
        return Ok(Action::requeue(context.server_failures.failed(name)));
    }
    context.server_failures.succeeded(&name);
    Ok(Action::requeue(context.settings.resync))
}

/// The server of an object, with the password of its connection Secret or, where the server refuses that, with the one that
/// it was about to be given.
async fn take_with_any(
    context: &Arc<Context>,
    object: &DatabaseServer,
    connection: Connection,
) -> Result<Arc<Server>, Trouble> {
    let mut refused = match take(context, object, connection.clone()).await {
        Err(trouble) if matches!(trouble.reason, Reason::PermissionDenied) => trouble,
        taken => return taken,
    };
    let instead = credentials::instead(context, object, &connection).await;
    if let Some(next) = instead.next
        && let Ok(server) = take(context, object, next).await
    {
        return Ok(server);
    }
    if let Some(hint) = instead.hint {
        refused.message.push_str("; ");
        refused.message.push_str(&hint);
    }
    Err(refused)
}

/// The server of an object, taken over for this term.
async fn take(context: &Arc<Context>, object: &DatabaseServer, connection: Connection) -> Result<Arc<Server>, Trouble> {
    let name = object.name_any();
    if let Some(known) = context.servers.known(&name, &connection, &object.spec) {
        return Ok(known);
    }
    let address = format!("{}:{}", connection.host, connection.port);
    let others =
        Api::<DeserializeGuard<DatabaseServer>>::all(context.client.clone()).list(&ListParams::default()).await;
    let others = others.map_err(|source| {
        let error = ApplyError::kubernetes("list the DatabaseServers", source);
        Trouble { reason: error.reason(), message: chain(&error) }
    })?;
    // One that does not decode must not keep every other from being taken over.
    let others: Vec<_> = others.items.into_iter().filter_map(|guard| guard.0.ok()).collect();
    let is_free = |identifier: &str| match desired::holder(object, identifier, &others) {
        Some(holder) => Err(holder.to_owned()),
        None => Ok(()),
    };
    let taken = context.servers.put(object, connection, context.epoch(), &context.gate, is_free).await;
    taken.map_err(|error| match error {
        TakeError::Server(error) => unreachable(&address, &error),
        TakeError::Held(holder) => {
            let message = format!(
                "{address} is the PostgreSQL that DatabaseServer {holder} stands for already: two objects for one server would end each other's work. Nothing is read from or written to it for this one; delete it, or give it a server of its own"
            );
            Trouble { reason: Reason::Conflict, message }
        }
    })
}

/// Wakes the Tenants that a visit of their server has news for: a server at rest has none for anybody.
fn wake(context: &Context, name: &str, server: Option<&Server>) {
    // A closed channel: the operator is stopping.
    let look_again = |reference| drop(context.wake.send(Wake::One(reference)));
    for uuid in server.map(Server::take_drifted).unwrap_or_default() {
        if let Some((namespace, tenant)) = context.ledger.holder_of(uuid) {
            look_again(ObjectRef::new(&tenant).within(&namespace));
        }
    }
    if context.servers.has_news(name) {
        // Those that are nowhere yet may find their place on it.
        let concerned = |on: Option<String>| on.is_none_or(|on| on == name);
        let tenants = context.tenants.state();
        let tenants = tenants.iter().filter(|tenant| concerned(context.ledger.server_of(uid(tenant))));
        tenants.for_each(|tenant| look_again(ObjectRef::from_obj(tenant.as_ref())));
    }
}

async fn visit(context: &Arc<Context>, object: &DatabaseServer, server: &Arc<Server>) -> Result<(), Trouble> {
    // The pooler needs no database server to be put up, and goes on serving while its server does not answer.
    let pooler =
        put_up_pooler(context, object, server).await.map_err(|error| Trouble::new(Reason::Provisioning, &error));
    let connection = server.connection();
    let address = format!("{}:{}", connection.host, connection.port);
    let identity = server.take_inventory().await.map_err(|error| unreachable(&address, &error))?;
    if let Some(known) = object
        .status
        .as_ref()
        .and_then(|status| status.system_identifier.as_ref())
        .filter(|known| **known != identity.system_identifier)
    {
        let message = format!(
            "another PostgreSQL answers under {}: it is {}, and {known} was known. Nothing is read from or written to it. If the data was moved there, create another DatabaseServer for it",
            connection.host, identity.system_identifier
        );
        server.set_problem(message.clone());
        return Err(Trouble { reason: Reason::Conflict, message });
    }
    if identity.read_only {
        return Err(Trouble {
            reason: Reason::DatabaseUnreachable,
            message: format!("server {} refuses writes: it is read-only or a standby", connection.host),
        });
    }
    let open = server.look(|catalogue| catalogue.open_to_public().join(", ")).unwrap_or_default();
    if !open.is_empty() {
        return Err(Trouble {
            reason: Reason::PermissionDenied,
            message: format!(
                "PUBLIC may connect to {open}, so that no tenant would be alone: as an administrator run REVOKE CONNECT ON DATABASE {open} FROM PUBLIC"
            ),
        });
    }
    let passwords =
        credentials::passwords(context, object).await.map_err(|error| Trouble::new(Reason::Provisioning, &error))?;
    let (migrator, backup) = (scram::verifier(&passwords.migrator), scram::verifier(&passwords.backup));
    if let Some(batch) = server.look(|catalogue| desired::roles(catalogue, &migrator, &backup)).flatten() {
        server.run(&batch, None).await.map_err(|error| Trouble { reason: error.reason(), message: chain(&error) })?;
    }
    credentials::renew_provisioner(context, object, server)
        .await
        .map_err(|error| Trouble::new(Reason::Provisioning, &error))?;
    pool::build_template(server, &passwords.migrator)
        .await
        .map_err(|error| Trouble::new(Reason::MigrationFailed, &error))?;
    if context.settings.backup.wanted().is_some()
        && let Err(error) = pool::build_bare(server, &passwords.migrator).await
    {
        // Nobody but restores waits for it.
        tracing::warn!(
            server = server.name,
            error = format!("{error:#}"),
            "the template that backups are restored into was not built, trying again"
        );
    }
    server.set_closed(None);
    let schema = desired::schema(&pool::migrations());
    for batch in server.look(|catalogue| desired::outdated(catalogue, &schema, server.term)).unwrap_or_default() {
        server.run(&batch, None).await.map_err(|error| Trouble { reason: error.reason(), message: chain(&error) })?;
    }
    sweep::sweep(context, server).await;
    pooler?;
    let rotated = credentials::rotated(context, &server.name).await;
    server.set_rotated(rotated.map_err(|error| Trouble::new(Reason::Provisioning, &error))?);
    Ok(())
}

async fn put_up_pooler(context: &Arc<Context>, object: &DatabaseServer, server: &Arc<Server>) -> anyhow::Result<()> {
    let (client, namespace) = (&context.client, &context.settings.namespace);
    let name = names::pooler(&server.name);
    let hosts = [
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
        format!("{name}.{namespace}"),
        name.clone(),
    ];
    let asked = object.annotations().get(ANNOTATION_ROTATE);
    let identity = tls::pooler(context, &name, &hosts, asked).await?;
    let connection = server.connection();
    let pooler = &object.spec.pooler;
    context.fleet.set_settings(
        &server.name,
        PoolerSettings {
            schema: 0,
            generation: 0,
            epoch: 0,
            host: connection.host,
            port: connection.port,
            ssl_mode: object.spec.ssl_mode,
            ca: connection.ca,
            pool_mode: pooler.pool_mode,
            max_client_conn: pooler.max_client_conn,
            default_pool_size: pooler.default_pool_size,
            reserve_pool_size: pooler.reserve_pool_size,
            reserve_pool_timeout: pooler.reserve_pool_timeout,
            server_lifetime: pooler.server_lifetime,
            client_certificate: identity.certificate,
            client_key: identity.key,
        },
    );
    server.set_pooler(PoolerAddress {
        host: hosts[0].clone(),
        port: pooler_objects::PORT,
        sslmode: "verify-full".into(),
        ca: identity.authority,
    });
    let owner = json!(object.controller_owner_ref(&()).context("a DatabaseServer without a uid")?);
    let wanted = pooler_objects::objects(&server.name, &object.spec, namespace, &context.settings.image, &owner);
    objects::apply(client, namespace, wanted.account).await?;
    objects::apply(client, namespace, wanted.role).await?;
    objects::apply(client, namespace, wanted.binding).await?;
    objects::apply(client, namespace, wanted.service).await?;
    objects::apply(client, namespace, wanted.deployment).await?;
    if let Some(budget) = wanted.budget {
        objects::apply(client, namespace, budget).await?;
    }
    Ok(())
}
