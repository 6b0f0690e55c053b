//! The operator's own credentials on a server: how they are read, made, and renewed when the object asks for it.
//!
//! Annotation `rotate` renews the passwords of migrator and backup, and the pooler's certificate (see `tls`);
//! `rotate-provisioner` renews the provisioner's. Sessions that are open stay open: a password is asked for when one begins.
//!
//! Secret `<server>-roles` keeps what the operator made. The provisioner's new password is kept there before it is given to
//! the server and until the connection Secret has it, so that it is found again wherever an operator ends:
//!
//! ```text
//!   provisioner-next kept ──▶ ALTER ROLE ──▶ connection Secret ──▶ kept as provisioner, and said to be done
//! ```

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::Api;

use crate::api::server::RotatedStatus;
use crate::api::{ANNOTATION_ROTATE, ANNOTATION_ROTATE_PROVISIONER, DatabaseServer, GROUP, MANAGED_BY};
use crate::apply::{ApplyError, objects};
use crate::controller::context::{Context, new_password};
use crate::controller::servers::{Connection, Server};
use crate::desired::sql::{Batch, Statement};
use crate::desired::{names, scram};

const MIGRATOR: &str = "migrator";
const BACKUP: &str = "backup";
/// What the operator gave the provisioner last.
const PROVISIONER: &str = "provisioner";
/// What it is about to give the provisioner.
const PROVISIONER_NEXT: &str = "provisioner-next";

/// Annotations of the Secret: which requests were carried out.
fn done(which: &str) -> String {
    format!("{GROUP}/done-{which}")
}

/// The connection Secret; always in the operator's namespace (a field for another one does not exist).
///
/// # Errors
/// It cannot be read, or lacks a key.
pub async fn connection(context: &Context, object: &DatabaseServer) -> anyhow::Result<Connection> {
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

/// What else may help where the server refuses the password of the connection Secret.
#[derive(Default)]
pub struct Instead {
    /// The password that the provisioner is just being given: an operator ended before the connection Secret had it.
    pub next: Option<Connection>,
    /// Where the password is that the operator gave the provisioner last; somebody wrote the connection Secret back.
    pub hint: Option<String>,
}

/// See [`Instead`].
pub async fn instead(context: &Context, object: &DatabaseServer, refused: &Connection) -> Instead {
    let name = object.name_any();
    let Ok(Some(secret)) = read(context, &name).await else { return Instead::default() };
    let next = text(&secret, PROVISIONER_NEXT).map(|password| Connection { password, ..refused.clone() });
    let given = text(&secret, PROVISIONER).is_some_and(|given| given != refused.password);
    let hint =
        format!("the one that the operator gave it last is key {PROVISIONER} of Secret {}", names::server_roles(&name));
    Instead { next, hint: given.then_some(hint) }
}

/// Passwords of the roles that are the operator's own.
pub struct Passwords {
    /// Of the role that migrates.
    pub migrator: String,
    /// Of the role that reads for backups.
    pub backup: String,
}

/// The passwords as they are to be: made when there are none, renewed when the object asks for it.
///
/// # Errors
/// The Secret cannot be read or written.
pub async fn passwords(context: &Context, object: &DatabaseServer) -> anyhow::Result<Passwords> {
    let name = object.name_any();
    let asked = object.annotations().get(ANNOTATION_ROTATE);
    let found = read(context, &name).await?;
    let is_current =
        |secret: &Secret| asked.is_none_or(|asked| secret.annotations().get(&done("rotate")) == Some(asked));
    let secret = match found {
        Some(found) if is_current(&found) => found,
        found => {
            let mut secret = found.unwrap_or_default();
            for key in [MIGRATOR, BACKUP] {
                set(&mut secret, key, new_password());
            }
            if let Some(asked) = asked {
                secret.annotations_mut().insert(done("rotate"), asked.clone());
            }
            write(context, &name, secret, "renew the passwords of migrator and backup").await?
        }
    };
    parse(&secret, &name)
}

/// The migrator's password on a server.
///
/// # Errors
/// The Secret cannot be read.
pub async fn migrator_password(context: &Context, server: &str) -> anyhow::Result<String> {
    let secret =
        read(context, server).await?.with_context(|| format!("there is no Secret {}", names::server_roles(server)))?;
    Ok(parse(&secret, server)?.migrator)
}

fn parse(secret: &Secret, server: &str) -> anyhow::Result<Passwords> {
    let value = |key: &str| {
        text(secret, key).with_context(|| {
            format!("Secret {} has no key {key}: delete the Secret and it is made anew", names::server_roles(server))
        })
    };
    Ok(Passwords { migrator: value(MIGRATOR)?, backup: value(BACKUP)? })
}

/// Gives the provisioner a new password when the object asks for it, or goes on where an operator before this one ended.
///
/// # Errors
/// A Secret cannot be read or written, or the server refuses.
pub async fn renew_provisioner(context: &Context, object: &DatabaseServer, server: &Server) -> anyhow::Result<()> {
    let name = object.name_any();
    let Some(asked) = object.annotations().get(ANNOTATION_ROTATE_PROVISIONER) else { return Ok(()) };
    let mut secret = read(context, &name).await?.unwrap_or_default();
    if secret.annotations().get(&done("rotate-provisioner")) == Some(asked) {
        return Ok(());
    }
    if text(&secret, PROVISIONER_NEXT).is_none() {
        set(&mut secret, PROVISIONER_NEXT, new_password());
        secret = write(context, &name, secret, "keep the provisioner's next password").await?;
    }
    let next = text(&secret, PROVISIONER_NEXT).context("the provisioner's next password was not kept")?;
    let provisioner = server.connection().username;
    let alter = Statement::RolePassword { name: provisioner, verifier: scram::verifier(&next) };
    server.run(&Batch::transaction(vec![alter]), None).await?;
    server.set_password(&next);
    write_connection(context, object, &next).await?;
    if let Some(data) = &mut secret.data {
        data.remove(PROVISIONER_NEXT);
    }
    set(&mut secret, PROVISIONER, next);
    secret.annotations_mut().insert(done("rotate-provisioner"), asked.clone());
    write(context, &name, secret, "note that the provisioner has a new password").await?;
    tracing::info!(server = name, "the provisioner has a new password");
    Ok(())
}

/// What of the object's requests has been carried out, as far as the Secret knows.
///
/// # Errors
/// It cannot be read.
pub async fn rotated(context: &Context, server: &str) -> anyhow::Result<Option<RotatedStatus>> {
    let secret = read(context, server).await?.unwrap_or_default();
    let done = |which: &str| secret.annotations().get(&done(which)).cloned();
    let rotated = RotatedStatus { credentials: done("rotate"), provisioner: done("rotate-provisioner") };
    Ok((rotated != RotatedStatus::default()).then_some(rotated))
}

async fn write_connection(context: &Context, object: &DatabaseServer, password: &str) -> Result<(), ApplyError> {
    let (namespace, name) = (&context.settings.namespace, &object.spec.connection_secret_ref.name);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let read = |source| ApplyError::kubernetes(format!("read Secret {namespace}/{name}"), source);
    let mut secret = secrets.get(name).await.map_err(read)?;
    if text(&secret, "password").as_deref() == Some(password) {
        return Ok(());
    }
    set(&mut secret, "password", password.to_owned());
    let write = objects::put_secret(&context.client, namespace, &secret);
    context.gate.pass("write the provisioner's password into the connection Secret", write).await.map(drop)
}

async fn read(context: &Context, server: &str) -> Result<Option<Secret>, ApplyError> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let name = names::server_roles(server);
    secrets.get_opt(&name).await.map_err(|source| ApplyError::kubernetes(format!("read Secret {name}"), source))
}

async fn write(context: &Context, server: &str, mut secret: Secret, what: &str) -> Result<Secret, ApplyError> {
    secret.metadata.name = Some(names::server_roles(server));
    secret.labels_mut().insert("app.kubernetes.io/managed-by".into(), MANAGED_BY.into());
    let write = objects::put_secret(&context.client, &context.settings.namespace, &secret);
    context.gate.pass(what, write).await
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    secret.data.as_ref()?.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned())
}

fn set(secret: &mut Secret, key: &str, value: String) {
    secret.data.get_or_insert_with(BTreeMap::new).insert(key.to_owned(), ByteString(value.into_bytes()));
}
