//! Who asks: from the cookie, through the central database.

use std::net::IpAddr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::HeaderMap;
use jiff::SignedDuration;
use rand::RngCore;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::problem::Problem;
use super::rights::Rights;
use super::state::Portal;
use crate::central::{AuditEntry, SessionRow};
use crate::web::cookie;

/// For so long after password and second factor were shown, what cannot be undone needs no second showing.
const FRESH: SignedDuration = SignedDuration::from_mins(5);

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The row.
    pub id: i32,
    /// Their address.
    pub email: String,
    /// What they may do.
    pub rights: Rights,
    /// Who they are was shown within the last minutes.
    pub is_fresh: bool,
    /// The central database does not answer; this is what it said a short while ago.
    pub remembered: bool,
    /// Hash of the session's token.
    pub session: Vec<u8>,
}

/// Who asks. In the extensions of every request.
#[derive(Clone, Debug)]
pub enum Visitor {
    /// Nobody that is known.
    Nobody,
    /// Somebody whose password was right.
    Half(Box<SessionRow>),
    /// Somebody who is signed in.
    Full(Admin),
    /// The central database does not answer, and the session is not remembered.
    Unknown,
}

/// From where a request comes, and what its traces are called. In the extensions of every request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The address, of trusted proxies' word only.
    pub address: Option<IpAddr>,
    /// The browser.
    pub user_agent: Option<String>,
    /// The same in the log and the audit trail.
    pub correlation: Uuid,
    /// The secret of the forms that this browser is shown.
    pub csrf: String,
}

impl Caller {
    /// An entry of the audit trail about what this caller does.
    pub fn entry(&self, admin: Option<&Admin>, actor: &str, action: &str) -> AuditEntry {
        AuditEntry {
            admin_id: admin.map(|admin| admin.id),
            actor: admin.map_or(actor, |admin| &admin.email).chars().take(255).collect(),
            action: action.to_owned(),
            ip_address: self.address,
            user_agent: self.user_agent.clone(),
            correlation_id: Some(self.correlation),
            ..AuditEntry::default()
        }
    }
}

/// The session's cookie. Over TLS its name begins with `__Host-`: no other host, not even one of a tenant under the same
/// domain, can set it.
pub const fn session_cookie(secure: bool) -> &'static str {
    if secure { "__Host-mo_admin" } else { "mo_admin" }
}

/// The cookie of a browser in which nobody has signed in yet, for the secret of the form that signs in.
pub const fn form_cookie(secure: bool) -> &'static str {
    if secure { "__Host-mo_admin_form" } else { "mo_admin_form" }
}

/// 32 random bytes as text.
pub fn token() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// What the database keeps of a token.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::new().chain_update("session\0").chain_update(token).finalize().into()
}

/// The secret of the forms that a browser with this cookie is shown. It follows from the cookie, so it changes with it, and
/// nothing leads back.
pub fn form_secret(cookie: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::new().chain_update("form\0").chain_update(cookie).finalize())
}

/// The only token in the cookie `name`.
pub fn token_of<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let is_token = |value: &&str| {
        value.len() == 43 && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    cookie::value(headers, name).filter(is_token)
}

/// Looks the session up.
pub async fn identify(portal: &Portal, headers: &HeaderMap) -> Visitor {
    let Some(token) = token_of(headers, session_cookie(portal.config().secure)) else { return Visitor::Nobody };
    let hash = hash(token);
    match portal.patiently(portal.central().session(&hash, portal.config().lifetimes)).await {
        Ok(session) => {
            portal.remember(&hash, session.as_ref());
            match session {
                Some(session) if session.full => Visitor::Full(admin(portal, &session, false)),
                Some(session) => Visitor::Half(Box::new(session)),
                None => Visitor::Nobody,
            }
        }
        Err(Problem::CentralAway) => {
            portal.note_away();
            portal.recall(&hash).map_or(Visitor::Unknown, |session| Visitor::Full(admin(portal, &session, true)))
        }
        Err(problem) => {
            tracing::error!(?problem, "a session could not be looked up");
            Visitor::Unknown
        }
    }
}

fn admin(portal: &Portal, session: &SessionRow, remembered: bool) -> Admin {
    Admin {
        id: session.admin.id,
        email: session.admin.email.clone(),
        rights: Rights::of(&session.admin.permissions),
        is_fresh: portal.now().duration_since(session.proved_at) < FRESH,
        remembered,
        session: session.hash.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_and_forms_secret_differ_and_neither_is_the_token() {
        let (one, two) = (token(), token());
        assert_ne!(one, two);
        assert_ne!(form_secret(&one), form_secret(&two));
        assert_ne!(hash(&one), hash(&two));
        assert_ne!(BASE64_URL_SAFE_NO_PAD.encode(hash(&one)), form_secret(&one));
    }

    #[test]
    fn a_cookie_that_is_no_token_of_ours_is_none() {
        let mut headers = HeaderMap::new();
        let value = token();
        headers.insert("cookie", format!("mo_admin={value}; mo_session=x.y").parse().unwrap());
        assert_eq!(token_of(&headers, "mo_admin"), Some(value.as_str()));
        for other in
            ["mo_admin=", "mo_admin=short", "mo_admin=7b0f3c525d0e4b9e9a550d1a2c7f1e11.AAAAAAAAAAAA", "mo_session=a"]
        {
            headers.insert("cookie", other.parse().unwrap());
            assert_eq!(token_of(&headers, "mo_admin"), None, "{other}");
        }
    }
}
