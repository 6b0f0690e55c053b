//! Passwords and their SCRAM verifiers (RFC 5802, RFC 7677), in the form PostgreSQL and PgBouncer store them.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// Rounds of PBKDF2: RFC 7677's minimum and PostgreSQL's default.
const ITERATIONS: u32 = 4096;

/// A password with its verifier, which takes milliseconds to make and is therefore kept with it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credential {
    /// In clear.
    pub password: String,
    /// Its SCRAM verifier.
    pub verifier: String,
}

impl Credential {
    /// The credential of a password.
    pub fn new(password: String) -> Self {
        let verifier = verifier(&password);
        Self { password, verifier }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credential(…)")
    }
}

/// A password from 32 random bytes: base64 without padding, so that it needs no quoting in a URI.
pub fn password(random: [u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

/// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>` of a password of ours.
///
/// The salt derives from the password, so that the same password always has the same verifier and nothing but the
/// password need be kept. A salt protects guessable passwords that are equal; ours are 256 random bits.
pub fn verifier(password: &str) -> String {
    let salt = &hmac(password.as_bytes(), b"maintenance-os scram salt")[..16];
    let mut salted = [0_u8; 32];
    pbkdf2::pbkdf2::<Hmac<Sha256>>(password.as_bytes(), salt, ITERATIONS, &mut salted)
        .expect("32 bytes are a length that PBKDF2 can make");
    let stored_key = Sha256::digest(hmac(&salted, b"Client Key"));
    let server_key = hmac(&salted, b"Server Key");
    format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key),
        STANDARD.encode(server_key)
    )
}

/// What is noted on the server beside a role to know which verifier it was given: 16 hex digits that reveal nothing
/// of a verifier that itself derives from 256 random bits.
pub fn fingerprint(verifier: &str) -> String {
    Sha256::digest(verifier.as_bytes())[..8].iter().fold(String::new(), |mut text, byte| {
        use std::fmt::Write;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_password_has_the_same_verifier_and_another_one_another() {
        let (one, other) = (password([1; 32]), password([2; 32]));
        assert_eq!(verifier(&one), verifier(&one));
        assert_ne!(verifier(&one), verifier(&other));
        assert_ne!(fingerprint(&verifier(&one)), fingerprint(&verifier(&other)));
    }

    #[test]
    fn the_keys_are_those_of_rfc_7677() {
        // RFC 7677 section 3: user "user", password "pencil", salt W22ZaJ0SNY7soEsUEjb6gQ==, 4096 rounds.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("the RFC's salt is base64");
        let mut salted = [0_u8; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(b"pencil", &salt, ITERATIONS, &mut salted).expect("a valid length");
        let auth = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        assert_eq!(
            STANDARD.encode(hmac(&hmac(&salted, b"Server Key"), auth.as_bytes())),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }
}
