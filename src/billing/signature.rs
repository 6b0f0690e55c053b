//! `Stripe-Signature`: whether a body is what Stripe signed, and lately.
//!
//! Form: `t=<Unix seconds>,v1=<hex>[,v1=<hex>…]`. What is signed is `<t>.<body>`, by HMAC-SHA256 with the endpoint's secret
//! as it is written (`whsec_…`). While a secret is rolled, Stripe signs with both, and we may know both.

use hmac::{Hmac, Mac};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// How far the time of a signature may be from ours, before and after: what was recorded cannot be played again for long.
pub const TOLERANCE: SignedDuration = SignedDuration::from_secs(300);
/// More signatures than Stripe sends; a bound for the work that a stranger can ask for.
const MOST: usize = 16;

/// Why a signature is not accepted. For logs and figures only: whoever sent it is not told which.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no such header, or more than one.
    #[error("the header Stripe-Signature is missing or there are several")]
    Missing,
    /// It has no time, or no signature of the version that we know.
    #[error("the header Stripe-Signature is not of the form t=…,v1=…")]
    Malformed,
    /// Its time is too far from ours.
    #[error("the signature is older than five minutes, or of the future: compare this machine's clock")]
    Stale,
    /// None of the signatures is of one of our secrets.
    #[error("no signature is of one of our secrets over this body")]
    Forged,
}

impl Refused {
    /// For figures.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Stale => "stale",
            Self::Forged => "forged",
        }
    }
}

/// The endpoint's secrets; several while one is replaced by another.
#[derive(Debug, Clone)]
pub struct Secrets(Vec<SecretString>);

/// Why there are no secrets.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no webhook secret: Stripe shows it with the endpoint, it begins with whsec_")]
pub struct NoSecret;

impl Secrets {
    /// From secrets that are separated by commas or white space.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(text: &str) -> Result<Self, NoSecret> {
        let secrets = text.split(|character: char| character == ',' || character.is_whitespace());
        let secrets: Vec<_> = secrets.filter(|secret| !secret.is_empty()).map(SecretString::from).collect();
        if secrets.is_empty() { Err(NoSecret) } else { Ok(Self(secrets)) }
    }

    /// Whether one of the secrets signed this body at about `now`. The comparison takes as long for a signature that is
    /// nearly right as for any other.
    ///
    /// # Errors
    /// It did not.
    pub fn verify(&self, header: &str, body: &[u8], now: Timestamp) -> Result<(), Refused> {
        let header = Header::parse(header)?;
        let time = header.time.parse::<i64>().ok().and_then(|time| Timestamp::from_second(time).ok());
        let distance = now.duration_since(time.ok_or(Refused::Malformed)?);
        if distance.abs() > TOLERANCE {
            return Err(Refused::Stale);
        }
        let mut signed = false;
        for secret in &self.0 {
            let mac = mac(secret, header.time, body);
            for signature in &header.signatures {
                signed |= mac.clone().verify_slice(signature).is_ok();
            }
        }
        if signed { Ok(()) } else { Err(Refused::Forged) }
    }
}

fn mac(secret: &SecretString, time: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("any length is a key");
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac
}

struct Header<'a> {
    /// As it was written: that is what was signed.
    time: &'a str,
    signatures: Vec<[u8; 32]>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Result<Self, Refused> {
        let (mut time, mut signatures) = (None, Vec::new());
        for part in text.split(',') {
            match part.trim().split_once('=') {
                Some(("t", value)) if time.is_none() => time = Some(value),
                Some(("t", _)) => return Err(Refused::Malformed),
                // Other versions do not count: v0 is a fake signature that Stripe adds to test events.
                Some(("v1", value)) if signatures.len() < MOST => signatures.extend(decode(value)),
                _ => {}
            }
        }
        match time {
            Some(time) if !signatures.is_empty() => Ok(Self { time, signatures }),
            _ => Err(Refused::Malformed),
        }
    }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(bytes)
}

/// A header as Stripe makes it, for tests and for trying an endpoint out.
pub fn sign(secret: &str, body: &[u8], at: Timestamp) -> String {
    let time = at.as_second().to_string();
    let digest = mac(&SecretString::from(secret), &time, body).finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={time},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1","object":"event"}"#;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn verify(secrets: &str, header: &str, body: &[u8], now: i64) -> Result<(), Refused> {
        Secrets::parse(secrets).unwrap().verify(header, body, at(now))
    }

    #[test]
    fn the_scheme_is_stripes() {
        // HMAC-SHA256 over "1700000000.{…}" with the key "whsec_test", as `openssl dgst -sha256 -hmac` has it.
        let expected = "t=1700000000,v1=4c15fb2a43f93ef61eaa3e0893866d57cad9cad4223242cfb96f362480cb4021";
        assert_eq!(sign("whsec_test", BODY, at(1_700_000_000)), expected);
        assert_eq!(verify("whsec_test", expected, BODY, 1_700_000_000), Ok(()));
    }

    #[test]
    fn a_body_a_time_or_a_secret_that_is_another_is_refused() {
        let header = sign("whsec_a", BODY, at(1000));
        assert_eq!(verify("whsec_a", &header, BODY, 1000), Ok(()));
        let mut tampered = BODY.to_vec();
        tampered[9] ^= 1;
        assert_eq!(verify("whsec_a", &header, &tampered, 1000), Err(Refused::Forged));
        assert_eq!(verify("whsec_a", &header, b"", 1000), Err(Refused::Forged));
        assert_eq!(verify("whsec_b", &header, BODY, 1000), Err(Refused::Forged));
        let later = header.replace("t=1000", "t=1001");
        assert_eq!(verify("whsec_a", &later, BODY, 1000), Err(Refused::Forged), "the time is signed too");
    }

    #[test]
    fn five_minutes_on_either_side_are_the_most() {
        let header = sign("whsec_a", BODY, at(10_000));
        for (now, expected) in
            [(10_300, Ok(())), (9_700, Ok(())), (10_301, Err(Refused::Stale)), (9_699, Err(Refused::Stale))]
        {
            assert_eq!(verify("whsec_a", &header, BODY, now), expected, "{now}");
        }
    }

    #[test]
    fn while_a_secret_is_replaced_either_of_ours_and_either_of_stripes_counts() {
        let (old, new) = (sign("whsec_old", BODY, at(1000)), sign("whsec_new", BODY, at(1000)));
        for secrets in ["whsec_old,whsec_new", "whsec_new\nwhsec_old\n"] {
            assert_eq!(verify(secrets, &old, BODY, 1000), Ok(()));
            assert_eq!(verify(secrets, &new, BODY, 1000), Ok(()));
        }
        let both = format!("{old},{}", new.replace("t=1000,", ""));
        assert_eq!(verify("whsec_old", &both, BODY, 1000), Ok(()));
        assert_eq!(verify("whsec_new", &both, BODY, 1000), Ok(()));
        assert_eq!(verify("whsec_other", &both, BODY, 1000), Err(Refused::Forged));
    }

    #[test]
    fn what_is_no_header_of_stripes_is_malformed() {
        let good = sign("whsec_a", BODY, at(1000));
        let signature = good.split_once(',').unwrap().1;
        for header in [
            String::new(),
            "nonsense".into(),
            "t=1000".into(),
            signature.into(),
            format!("t=x,{signature}"),
            format!("t=99999999999999999999,{signature}"),
            format!("t=1000,t=1000,{signature}"),
            "t=1000,v1=".into(),
            "t=1000,v1=zz".into(),
            signature.replace("v1=", "t=1000,v0="),
        ] {
            assert_eq!(verify("whsec_a", &header, BODY, 1000), Err(Refused::Malformed), "{header}");
        }
        let many = format!("{},{good}", vec![format!("v1={}", "0".repeat(64)); 20].join(","));
        assert_eq!(verify("whsec_a", &many, BODY, 1000), Err(Refused::Forged), "no end of work for a stranger");
    }

    #[test]
    fn secrets_are_not_shown_and_none_is_an_error() {
        assert!(!format!("{:?}", Secrets::parse("whsec_a").unwrap()).contains("whsec_a"));
        assert_eq!(Secrets::parse(" ,\n").unwrap_err(), NoSecret);
    }
}
