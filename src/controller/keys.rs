//! What links are signed with: made once, kept in a Secret of the operator's namespace, which the app's pods mount.

use anyhow::Context as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, PostParams};
use rand::RngCore;

use crate::api::MANAGED_BY;
use crate::apply::ApplyError;
use crate::signing::SigningKeys;

/// The Secret.
const SECRET: &str = "maintenance-os-keys";
/// Its key: 64 hexadecimal digits, several separated by commas; the first signs, all are accepted.
const SIGNING: &str = "signing";

/// The keys; made when there are none yet.
///
/// # Errors
/// The API server refused it or did not answer, or what the Secret holds is no key.
pub async fn signing(client: &Client, namespace: &str) -> anyhow::Result<SigningKeys> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let read = |source| ApplyError::kubernetes(format!("read Secret {SECRET}"), source);
    let found = match secrets.get_opt(SECRET).await.map_err(read)? {
        Some(found) => found,
        None => match secrets.create(&PostParams::default(), &new()).await {
            Ok(created) => created,
            // Another operator was first: its keys stand.
            Err(kube::Error::Api(status)) if status.code == 409 => secrets.get(SECRET).await.map_err(read)?,
            Err(source) => return Err(ApplyError::kubernetes(format!("write Secret {SECRET}"), source).into()),
        },
    };
    let keys = found.data.as_ref().and_then(|data| data.get(SIGNING));
    let keys = keys.with_context(|| format!("Secret {SECRET} has no key {SIGNING}"))?;
    let text = std::str::from_utf8(&keys.0).with_context(|| format!("key {SIGNING} of Secret {SECRET} is not text"))?;
    SigningKeys::parse(text).with_context(|| format!("reading key {SIGNING} of Secret {SECRET}"))
}

fn new() -> Secret {
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut secret =
        Secret { data: Some([(SIGNING.to_owned(), ByteString(text.into_bytes()))].into()), ..Secret::default() };
    secret.metadata.name = Some(SECRET.into());
    secret.metadata.labels = Some([("app.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned())].into());
    secret
}
