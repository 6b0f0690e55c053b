//! The operator's own certificate authority, and the poolers' certificates from it.

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::context::Context;
use crate::api::MANAGED_BY;
use crate::apply::{ApplyError, objects};

/// Secret of the authority, in the operator's namespace.
const AUTHORITY: &str = "maintenance-os-ca";
const AUTHORITY_DAYS: i64 = 3650;
/// A pooler's certificate is renewed when two thirds of this have passed.
const CERTIFICATE_DAYS: i64 = 90;
/// When a certificate is to be renewed, noted on its Secret.
const RENEW_AFTER: &str = "tenancy.maintenance-os.com/renew-after";
/// Which request to renew it was carried out, noted there too.
const DONE: &str = "tenancy.maintenance-os.com/done-rotate";

/// A certificate with its key and who vouches for it, all PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authority's certificate.
    pub authority: String,
}

/// The certificate of a pooler with these names; renewed when it is due, or when `asked` is another request than the one
/// that was carried out last.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn pooler(
    context: &Context,
    name: &str,
    hosts: &[String],
    asked: Option<&String>,
) -> anyhow::Result<Identity> {
    let (client, namespace) = (&context.client, &context.settings.namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let authority = authority(&secrets).await?;
    let (authority_pem, authority_key) = pair(&authority)?;
    let secret_name = format!("{name}-tls");
    let found = secrets
        .get_opt(&secret_name)
        .await
        .map_err(|source| ApplyError::kubernetes(format!("read Secret {secret_name}"), source))?;
    if let Some(found) =
        found.as_ref().filter(|found| !due(found) && (asked.is_none() || found.annotations().get(DONE) == asked))
    {
        let (certificate, key) = pair(found)?;
        return Ok(Identity { certificate, key, authority: authority_pem });
    }
    let issuer = Issuer::from_ca_cert_pem(
        &authority_pem,
        KeyPair::from_pem(&authority_key).context("reading the authority's key")?,
    )
    .context("reading the authority's certificate")?;
    let key = KeyPair::generate().context("making a key")?;
    let mut parameters = parameters(hosts.to_vec(), &hosts[0], CERTIFICATE_DAYS)?;
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = parameters.signed_by(&key, &issuer).context("signing a pooler's certificate")?;
    let renew = Timestamp::now() + SignedDuration::from_hours(24 * CERTIFICATE_DAYS * 2 / 3);
    let mut secret = secret(&secret_name, &certificate.pem(), &key.serialize_pem());
    secret.annotations_mut().insert(RENEW_AFTER.into(), renew.to_string());
    if let Some(asked) = asked {
        secret.annotations_mut().insert(DONE.into(), asked.clone());
    }
    secret.metadata.resource_version = found.and_then(|found| found.metadata.resource_version);
    let write = objects::put_secret(client, namespace, &secret);
    context.gate.pass(&format!("write Secret {secret_name}"), write).await?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem(), authority: authority_pem })
}

async fn authority(secrets: &Api<Secret>) -> anyhow::Result<Secret> {
    let read = |source| ApplyError::kubernetes(format!("read Secret {AUTHORITY}"), source);
    if let Some(found) = secrets.get_opt(AUTHORITY).await.map_err(read)? {
        return Ok(found);
    }
    let key = KeyPair::generate().context("making the authority's key")?;
    let mut parameters = parameters(Vec::new(), "maintenance-os", AUTHORITY_DAYS)?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = parameters.self_signed(&key).context("signing the authority's certificate")?;
    match secrets.create(&PostParams::default(), &secret(AUTHORITY, &certificate.pem(), &key.serialize_pem())).await {
        Ok(created) => Ok(created),
        // Another operator was first: its authority stands.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(secrets.get(AUTHORITY).await.map_err(read)?),
        Err(source) => Err(ApplyError::kubernetes(format!("write Secret {AUTHORITY}"), source).into()),
    }
}

fn parameters(hosts: Vec<String>, name: &str, days: i64) -> anyhow::Result<CertificateParams> {
    let mut parameters = CertificateParams::new(hosts).context("naming a certificate")?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    let now = std::time::SystemTime::now();
    // Clocks differ: valid from an hour ago.
    parameters.not_before = (now - std::time::Duration::from_secs(3600)).into();
    parameters.not_after =
        (now + std::time::Duration::from_secs(u64::try_from(days * 24 * 3600).unwrap_or_default())).into();
    Ok(parameters)
}

fn due(secret: &Secret) -> bool {
    let renew = secret.annotations().get(RENEW_AFTER).and_then(|text| text.parse::<Timestamp>().ok());
    renew.is_none_or(|renew| renew <= Timestamp::now())
}

fn secret(name: &str, certificate: &str, key: &str) -> Secret {
    let data = [("tls.crt", certificate), ("tls.key", key)]
        .map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())));
    let mut secret = Secret { type_: Some("kubernetes.io/tls".into()), data: Some(data.into()), ..Secret::default() };
    secret.metadata.name = Some(name.into());
    secret.labels_mut().insert("app.kubernetes.io/managed-by".into(), MANAGED_BY.into());
    secret
}

fn pair(secret: &Secret) -> anyhow::Result<(String, String)> {
    let text = |key: &str| {
        let value = secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .with_context(|| format!("Secret {} has no key {key}", secret.name_any()))?;
        String::from_utf8(value.0.clone())
            .with_context(|| format!("key {key} of Secret {} is not text", secret.name_any()))
    };
    Ok((text("tls.crt")?, text("tls.key")?))
}
