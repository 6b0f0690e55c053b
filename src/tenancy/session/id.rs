//! What a session's cookie says, and what follows from it.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::RngCore;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Length of a secret in bytes.
const SECRET: usize = 32;

/// The id of a session: the tenant it belongs to, and a secret that only the browser keeps. Redis knows the secret's
/// hash alone, so whoever reads Redis cannot sign in as anybody.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId {
    tenant: Uuid,
    secret: [u8; SECRET],
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SessionId").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl SessionId {
    pub(super) fn random(tenant: Uuid) -> Self {
        let mut secret = [0; SECRET];
        rand::rng().fill_bytes(&mut secret);
        Self { tenant, secret }
    }

    /// From a cookie's value. The text names its tenant, so that another tenant's host knows at once that the session
    /// is not its own, and can end it.
    pub fn parse(text: &str) -> Option<Self> {
        let (tenant, secret) = text.split_once('.')?;
        // `Uuid` reads several forms; one session has one text.
        let tenant = Uuid::try_parse(tenant).ok().filter(|uuid| uuid.simple().to_string() == tenant)?;
        let secret = BASE64_URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?;
        Some(Self { tenant, secret })
    }

    /// As a cookie's value.
    pub fn text(&self) -> String {
        format!("{}.{}", self.tenant.simple(), BASE64_URL_SAFE_NO_PAD.encode(self.secret))
    }

    /// The tenant it belongs to.
    pub fn tenant(&self) -> Uuid {
        self.tenant
    }

    /// The secret of this session's forms. It follows from the id, so it changes with it, and nothing leads back.
    pub fn form_secret(&self) -> String {
        derived("form", self.tenant, &self.secret)
    }

    /// What Redis calls it, below its tenant.
    pub(super) fn name(&self) -> String {
        format!("session:{}", derived("session", self.tenant, &self.secret))
    }
}

/// Something that only whoever has `secret` can say, different for each purpose and each tenant.
pub fn derived(purpose: &str, tenant: Uuid, secret: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(purpose.as_bytes());
    // Purposes are words, so the end of one is unmistakable.
    hash.update([0]);
    hash.update(tenant.as_bytes());
    hash.update(secret);
    BASE64_URL_SAFE_NO_PAD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_from_its_cookie_and_from_no_other_form_of_it() {
        let id = SessionId::random(Uuid::from_u128(7));
        let text = id.text();
        assert_eq!(SessionId::parse(&text), Some(id.clone()));
        assert_ne!(SessionId::random(Uuid::from_u128(7)), id);
        let hyphenated = text.replace(&id.tenant.simple().to_string(), &id.tenant.to_string());
        let others =
            ["", ".", &text[1..], &text[..text.len() - 1], &format!("{text}A"), &hyphenated, &text.replace('.', "")];
        for other in others {
            assert_eq!(SessionId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn key_and_form_secret_differ_by_tenant_and_do_not_contain_the_secret() {
        let one = SessionId::random(Uuid::from_u128(1));
        let two = SessionId { tenant: Uuid::from_u128(2), ..one.clone() };
        assert_ne!(one.name(), two.name());
        assert_ne!(one.form_secret(), two.form_secret());
        let secret = BASE64_URL_SAFE_NO_PAD.encode(one.secret);
        assert!(!one.name().contains(&secret) && !one.form_secret().contains(&secret));
        assert!(!one.name().contains(&one.form_secret()), "a form's secret leads to no session");
        assert!(one.name().starts_with("session:"));
    }
}
