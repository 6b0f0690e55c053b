//! Short texts that only we can have written: welcome links, download links.
//!
//! A signed text is bound to a tenant, a purpose and a time. What is signed is not secret: whoever holds the link can read
//! it. The operator signs welcome links and the app checks them, with the same keys, which the operator makes and keeps in
//! the Secret `maintenance-os-keys`.
//!
//! Form: `base64url(payload) "." expiry "." base64url(mac)`, mac = HMAC-SHA256 over purpose, tenant, expiry and payload,
//! each with its length in front so that no two different inputs read the same.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use uuid::Uuid;

/// Length of a key in bytes.
const KEY: usize = 32;

/// The keys that signatures are made and checked with.
#[derive(Clone)]
pub struct SigningKeys {
    /// The first signs; all are accepted, so that a new one can be put in front without breaking links that are out.
    keys: Vec<[u8; KEY]>,
}

/// Why keys are not usable.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// None at all.
    #[error("reading the signing keys: there is none")]
    None,
    /// Not 32 bytes in hexadecimal.
    #[error("reading the signing keys: key {0} is not 64 hexadecimal digits")]
    Malformed(usize),
}

/// Why a signed text is not accepted. Visitors are told no more than this.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Somebody else wrote it, for another tenant or purpose, or it was changed.
    #[error("the link is not valid")]
    Forged,
    /// Its time is over.
    #[error("the link has expired")]
    Expired,
}

impl SigningKeys {
    /// From comma-separated keys of 64 hexadecimal digits, the one that signs first.
    ///
    /// # Errors
    /// No key, or one that is not of that form.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let keys: Vec<_> = text.split(',').map(str::trim).filter(|key| !key.is_empty()).collect();
        if keys.is_empty() {
            return Err(KeyError::None);
        }
        let keys = keys.iter().enumerate().map(|(index, key)| decode(key).ok_or(KeyError::Malformed(index + 1)));
        Ok(Self { keys: keys.collect::<Result<_, _>>()? })
    }

    /// Signs `payload` for one tenant and one purpose until `expires`.
    pub fn sign(&self, tenant: Uuid, purpose: &str, payload: &str, expires: Timestamp) -> String {
        let expires = expires.as_second();
        let mac = mac(&self.keys[0], tenant, purpose, payload, expires).finalize().into_bytes();
        format!("{}.{expires}.{}", BASE64_URL_SAFE_NO_PAD.encode(payload), BASE64_URL_SAFE_NO_PAD.encode(mac))
    }

    /// Texts that stand for `subject` of one tenant and one purpose, one for each key, and that nobody else can make. They
    /// are no secrets and have no end; which of them is out shows that its author was given it.
    pub fn tokens(&self, tenant: Uuid, purpose: &str, subject: &str) -> Vec<String> {
        let token = |key| BASE64_URL_SAFE_NO_PAD.encode(mac(key, tenant, purpose, subject, 0).finalize().into_bytes());
        self.keys.iter().map(token).collect()
    }

    /// The payload of a signed text.
    ///
    /// # Errors
    /// It was not signed for this tenant and purpose with one of the keys, or its time is over.
    pub fn verify(&self, tenant: Uuid, purpose: &str, signed: &str, now: Timestamp) -> Result<String, Rejected> {
        let mut parts = signed.split('.');
        let (Some(payload), Some(expires), Some(given), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Rejected::Forged);
        };
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| Rejected::Forged)?;
        let payload = String::from_utf8(payload).map_err(|_| Rejected::Forged)?;
        let given = BASE64_URL_SAFE_NO_PAD.decode(given).map_err(|_| Rejected::Forged)?;
        let expires: i64 = expires.parse().map_err(|_| Rejected::Forged)?;
        // `verify_slice` takes the same time wherever the first difference is.
        let is_ours = |key| mac(key, tenant, purpose, &payload, expires).verify_slice(&given).is_ok();
        if !self.keys.iter().any(is_ours) {
            return Err(Rejected::Forged);
        }
        if now.as_second() >= expires { Err(Rejected::Expired) } else { Ok(payload) }
    }
}

fn mac(key: &[u8; KEY], tenant: Uuid, purpose: &str, payload: &str, expires: i64) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in [purpose.as_bytes(), tenant.as_bytes(), &expires.to_be_bytes(), payload.as_bytes()] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac
}

fn decode(key: &str) -> Option<[u8; KEY]> {
    if key.len() != 2 * KEY || !key.is_ascii() {
        return None;
    }
    let mut bytes = [0; KEY];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(key.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "0000000000000000000000000000000000000000000000000000000000000001";
    const OLD: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_signed_text_is_accepted_for_its_tenant_and_purpose_until_its_time_is_over() {
        let keys = SigningKeys::parse(NEW).unwrap();
        let (acme, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let signed = keys.sign(acme, "download", "attachments/ä.pdf", at(1000));
        assert_eq!(keys.verify(acme, "download", &signed, at(999)).unwrap(), "attachments/ä.pdf");
        assert_eq!(keys.verify(acme, "download", &signed, at(1000)), Err(Rejected::Expired));
        assert_eq!(keys.verify(other, "download", &signed, at(999)), Err(Rejected::Forged));
        assert_eq!(keys.verify(acme, "welcome", &signed, at(999)), Err(Rejected::Forged));
        assert_eq!(keys.verify(acme, "download", &signed.replace(".1000.", ".2000."), at(999)), Err(Rejected::Forged));
        for index in 0..signed.len() {
            let mut bytes = signed.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(keys.verify(acme, "download", &changed, at(999)).is_err(), "{changed}");
        }
    }

    #[test]
    fn a_new_key_in_front_keeps_what_the_old_one_signed() {
        let old = SigningKeys::parse(OLD).unwrap();
        let both = SigningKeys::parse(&format!("{NEW}, {OLD}")).unwrap();
        let tenant = Uuid::from_u128(1);
        let signed = old.sign(tenant, "welcome", "x", at(10));
        assert!(both.verify(tenant, "welcome", &signed, at(1)).is_ok());
        assert!(old.verify(tenant, "welcome", &both.sign(tenant, "welcome", "x", at(10)), at(1)).is_err());
    }

    #[test]
    fn keys_that_are_missing_or_malformed_are_named() {
        assert_eq!(SigningKeys::parse(" ,").err(), Some(KeyError::None));
        assert_eq!(SigningKeys::parse(&format!("{NEW},abc")).err(), Some(KeyError::Malformed(2)));
        assert_eq!(SigningKeys::parse(&"g".repeat(64)).err(), Some(KeyError::Malformed(1)));
    }
}
