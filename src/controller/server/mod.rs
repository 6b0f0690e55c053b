//! The loop of a DatabaseServer: its roles, template, warm pool and pooler, and how it stands.

pub mod pool;
mod status;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use rand::RngCore;
use serde_json::json;

use super::context::Context;
use super::fleet::Wake;
use super::servers::{Connection, Server};
use super::tls;
use crate::api::condition::Reason;
use crate::api::pooler::PoolerSettings;
use crate::api::{DatabaseServer, MANAGED_BY};
use crate::apply::{ApplyError, objects};
use crate::desired::facts::PoolerAddress;
use crate::desired::{names, pooler_objects, scram, server as desired};
use crate::error::chain;

/// Before a server that does not answer is asked again.
const RETRY: Duration = Duration::from_secs(5);

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
    let (server, trouble) = match connection(&context, &object).await {
        Err(error) => (context.servers.get(&name), Some(Trouble::new(Reason::PermissionDenied, &error))),
        Ok(connection) => {
            let address = format!("{}:{}", connection.host, connection.port);
            match context.servers.put(&object, &name, connection, context.epoch(), &context.gate).await {
                Ok(server) => {
                    let trouble = visit(&context, &object, &server).await.err();
                    (Some(server), trouble)
                }
                Err(error) => (context.servers.get(&name), Some(unreachable(&address, &error))),
            }
        }
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
    // Tenants that wait for this server look again.
    let _ = context.wake.send(Wake::All);
    context.refill.notify_one();
    Ok(Action::requeue(if trouble.is_some() { RETRY } else { context.settings.resync }))
}

/// The connection Secret; always in the operator's namespace (a field for another one does not exist).
async fn connection(context: &Context, object: &DatabaseServer) -> anyhow::Result<Connection> {
    let (namespace, name) = (&context.settings.namespace, &object.spec.connection_secret_ref.name);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let secret = secrets.get(name).await.with_context(|| format!("reading the connection Secret {namespace}/{name}: create it with the keys host, port, username, password and ca.crt"))?;
    let value = |key: &str| -> anyhow::Result<String> {
        let value = secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .with_context(|| format!("connection Secret {namespace}/{name} has no key {key}"))?;
        String::from_utf8(value.0.clone())
            .with_context(|| format!("key {key} of connection Secret {namespace}/{name} is not text"))
    };
    let port = value("port")?;
    Ok(Connection {
        host: value("host")?,
        port: port
            .trim()
            .parse()
            .with_context(|| format!("key port of connection Secret {namespace}/{name} is not a port: {port}"))?,
        username: value("username")?,
        password: value("password")?,
        ca: value("ca.crt").unwrap_or_default(),
        ssl_mode: object.spec.ssl_mode,
    })
}

async fn visit(context: &Arc<Context>, object: &DatabaseServer, server: &Arc<Server>) -> Result<(), Trouble> {
    // The pooler needs no database server to be put up, and goes on serving while its server does not answer.
    let pooler =
        put_up_pooler(context, object, server).await.map_err(|error| Trouble::new(Reason::Provisioning, &error));
    let address = format!("{}:{}", server.connection.host, server.connection.port);
    let inventory = server.take_inventory().await.map_err(|error| unreachable(&address, &error))?;
    if let Some(known) = object
        .status
        .as_ref()
        .and_then(|status| status.system_identifier.as_ref())
        .filter(|known| **known != inventory.system_identifier)
    {
        let message = format!(
            "another PostgreSQL answers under {}: it is {}, and {known} was known. Nothing is read from or written to it. If the data was moved there, create another DatabaseServer for it",
            server.connection.host, inventory.system_identifier
        );
        server.set_problem(message.clone());
        return Err(Trouble { reason: Reason::Conflict, message });
    }
    if inventory.read_only {
        return Err(Trouble {
            reason: Reason::DatabaseUnreachable,
            message: format!("server {} refuses writes: it is read-only or a standby", server.connection.host),
        });
    }
    let open = inventory.catalogue.open_to_public();
    if !open.is_empty() {
        let open = open.join(", ");
        return Err(Trouble {
            reason: Reason::PermissionDenied,
            message: format!(
                "PUBLIC may connect to {open}, so that no tenant would be alone: as an administrator run REVOKE CONNECT ON DATABASE {open} FROM PUBLIC"
            ),
        });
    }
    let passwords =
        role_passwords(context, &server.name).await.map_err(|error| Trouble::new(Reason::Provisioning, &error))?;
    let (migrator, backup) = (scram::verifier(&passwords.migrator), scram::verifier(&passwords.backup));
    if let Some(batch) = desired::roles(&inventory.catalogue, &migrator, &backup) {
        server.run(&batch, None).await.map_err(|error| Trouble { reason: error.reason(), message: chain(&error) })?;
    }
    pool::build_template(server, &passwords.migrator)
        .await
        .map_err(|error| Trouble::new(Reason::MigrationFailed, &error))?;
    server.set_closed(None);
    for batch in desired::outdated(&inventory.catalogue, &desired::schema(&pool::migrations()), server.term) {
        server.run(&batch, None).await.map_err(|error| Trouble { reason: error.reason(), message: chain(&error) })?;
    }
    sweep::sweep(context, server).await;
    pooler
}

struct Passwords {
    migrator: String,
    backup: String,
}

/// Secret `<server>-roles`, made once by the operator.
async fn role_passwords(context: &Context, server: &str) -> anyhow::Result<Passwords> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let name = names::server_roles(server);
    let found =
        secrets.get_opt(&name).await.map_err(|source| ApplyError::kubernetes(format!("read Secret {name}"), source))?;
    let secret = if let Some(secret) = found {
        secret
    } else {
        let password = || {
            let mut random = [0; 32];
            rand::rng().fill_bytes(&mut random);
            ByteString(scram::password(random).into_bytes())
        };
        let mut secret = Secret {
            data: Some([("migrator".to_owned(), password()), ("backup".to_owned(), password())].into()),
            ..Secret::default()
        };
        secret.metadata.name = Some(name.clone());
        secret.labels_mut().insert("app.kubernetes.io/managed-by".into(), MANAGED_BY.into());
        secrets
            .create(&PostParams::default(), &secret)
            .await
            .map_err(|source| ApplyError::kubernetes(format!("create Secret {name}"), source))?
    };
    let value = |key: &str| -> anyhow::Result<String> {
        let value = secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .with_context(|| format!("Secret {name} has no key {key}: delete the Secret and it is made anew"))?;
        Ok(String::from_utf8_lossy(&value.0).into_owned())
    };
    Ok(Passwords { migrator: value("migrator")?, backup: value("backup")? })
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
    let identity = tls::pooler(client, namespace, &name, &hosts).await?;
    let pooler = &object.spec.pooler;
    context.fleet.set_settings(
        &server.name,
        PoolerSettings {
            schema: 0,
            generation: 0,
            epoch: 0,
            host: server.connection.host.clone(),
            port: server.connection.port,
            ssl_mode: object.spec.ssl_mode,
            ca: server.connection.ca.clone(),
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
