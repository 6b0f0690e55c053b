//! The second factor: codes of an authenticator app (RFC 6238), and recovery codes for when it is lost.

use qrcode::QrCode;
use qrcode::render::svg;
use rand::Rng;
use sha2::{Digest, Sha256};
use totp_rs::{Algorithm, Builder, Secret, Totp};

/// Length of a secret in bytes, as RFC 4226 recommends.
const SECRET: usize = 20;
/// How many recovery codes somebody gets.
const CODES: usize = 10;
/// Letters and digits that are not mistaken for others.
const ALPHABET: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
/// Sixteen of them have 79 bits.
const CODE: usize = 16;

/// A new secret.
pub fn secret() -> [u8; SECRET] {
    let mut secret = [0; SECRET];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut secret);
    secret
}

/// An authenticator with this secret. None: the secret is no secret.
fn totp(secret: &[u8], issuer: &str, email: &str) -> Option<Totp> {
    // The label of the address that the app is given is divided by a colon.
    let plain = |text: &str| text.replace(':', " ");
    Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_skew(1)
        .with_step_duration(30)
        .with_secret(Secret::from(secret))
        .with_issuer(Some(plain(issuer)))
        .with_account_name(plain(email))
        .build()
        .ok()
}

/// The step of thirty seconds whose code this is, one before or after `second` at most. None: it is of none.
pub fn step_of(secret: &[u8], code: &str, second: i64) -> Option<i64> {
    let code: String = code.chars().filter(|character| !character.is_whitespace()).collect();
    let step = totp(secret, "", "")?.check(&code, u64::try_from(second).ok()?)?;
    i64::try_from(step).ok()
}

/// What somebody types, or takes a picture of, to add the secret to their app.
pub struct Enrolment {
    /// The secret in groups of four letters.
    pub typed: String,
    /// A picture of the same as an SVG element.
    pub picture: String,
}

/// How to add the secret to an app. None: the secret is no secret.
pub fn enrolment(secret: &[u8], issuer: &str, email: &str) -> Option<Enrolment> {
    let totp = totp(secret, issuer, email)?;
    let letters = totp.secret().to_base32();
    let groups: Vec<_> = letters.as_bytes().chunks(4).map(String::from_utf8_lossy).collect();
    let picture = QrCode::new(totp.to_url().ok()?).ok()?.render::<svg::Color<'_>>().min_dimensions(220, 220).build();
    // The element alone: the declaration before it has no place in a page.
    let picture = picture.find("<svg").map(|start| picture[start..].to_owned())?;
    Some(Enrolment { typed: groups.join(" "), picture })
}

/// New recovery codes, as they are shown once.
pub fn recovery_codes() -> Vec<String> {
    let mut random = rand::rng();
    let mut code = || -> String {
        let letters: Vec<u8> = (0..CODE).map(|_| ALPHABET[random.random_range(0..ALPHABET.len())]).collect();
        letters.chunks(4).map(String::from_utf8_lossy).collect::<Vec<_>>().join("-")
    };
    (0..CODES).map(|_| code()).collect()
}

/// What is kept of a recovery code. It is random, so that a plain hash protects it.
pub fn recovery_hash(code: &str) -> [u8; 32] {
    let plain: String = code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    Sha256::digest(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_that_of_rfc_6238_and_good_one_step_around_its_time() {
        let secret = b"12345678901234567890";
        // The RFC's table has eight digits; these are the last six of them.
        assert_eq!(step_of(secret, "287082", 59), Some(1));
        assert_eq!(step_of(secret, "287 082", 59), Some(1));
        assert_eq!(step_of(secret, "081804", 1_111_111_109), Some(1_111_111_109 / 30));
        assert_eq!(step_of(secret, "287082", 89), Some(1), "one step late");
        assert_eq!(step_of(secret, "287082", 29), Some(1), "one step early");
        assert_eq!(step_of(secret, "287082", 120), None);
        for wrong in ["", "28708", "2870822", "+87082", "28708a", "287083"] {
            assert_eq!(step_of(secret, wrong, 59), None, "{wrong}");
        }
        assert_eq!(step_of(b"short", "287082", 59), None);
    }

    #[test]
    fn somebody_is_shown_the_secret_and_a_picture_of_it() {
        let enrolment = enrolment(b"12345678901234567890", "admin.example.com", "a:b@example.com").unwrap();
        assert_eq!(enrolment.typed, "GEZD GNBV GY3T QOJQ GEZD GNBV GY3T QOJQ");
        assert!(enrolment.picture.starts_with("<svg"), "{}", &enrolment.picture[..80]);
        assert!(!enrolment.picture.contains("style="), "the page's policy forbids styles");
    }

    #[test]
    fn recovery_codes_differ_and_are_read_however_they_are_typed() {
        let codes = recovery_codes();
        assert_eq!(codes.len(), 10);
        assert_eq!(codes.iter().collect::<std::collections::HashSet<_>>().len(), 10);
        assert_eq!(codes[0].len(), 19);
        let typed = codes[0].to_uppercase().replace('-', " ");
        assert_eq!(recovery_hash(&typed), recovery_hash(&codes[0]));
        assert_ne!(recovery_hash(&codes[1]), recovery_hash(&codes[0]));
    }
}
