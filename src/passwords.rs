//! Passwords: what is accepted as one, and how they are kept.
//!
//! Argon2id with OWASP's parameters: 19 MiB, two passes. That is a third of a pod's memory with five at a time, and tens
//! of milliseconds of a core each: so few run at the same time, on threads of their own, and others wait.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Shortest and longest password, in characters. Without a second factor, length is what protects; the upper bound keeps
/// hashing from being given a book.
const LENGTH: std::ops::RangeInclusive<usize> = 12..=200;
/// How many are hashed at the same time.
const AT_A_TIME: usize = 4;
/// Longest wait for one's turn.
const TURN: Duration = Duration::from_secs(10);

/// What stands in for the hash of an account that is not there. Nobody knows a password for it.
static NOBODYS: LazyLock<String> = LazyLock::new(|| hash(&uuid::Uuid::new_v4().to_string()));

/// Why a password was neither hashed nor compared.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// More people sign in than there is memory for.
    #[error("hashing a password: too many wait for their turn")]
    Busy,
    /// The thread ended.
    #[error("hashing a password: the thread that did it ended")]
    Lost(#[from] tokio::task::JoinError),
}

/// What comparing a password found.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is another one, or there is none to compare with.
    Wrong,
    /// It is the one.
    Right,
    /// It is the one, but kept as one would not keep it today: here is how to keep it instead.
    Rehash(String),
}

/// Hashes and compares. Clones share the bound.
#[derive(Clone)]
pub struct Passwords(Arc<Semaphore>);

impl Default for Passwords {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl Passwords {
    /// The text that is kept of a password.
    ///
    /// # Errors
    /// Too many wait.
    pub async fn hash(&self, password: &str) -> Result<String, PasswordError> {
        let password = password.to_owned();
        self.in_turn(move || hash(&password)).await
    }

    /// Compares a password with what is kept. With nothing to compare with it takes just as long, so that the time does
    /// not tell whether there is such an account.
    ///
    /// # Errors
    /// Too many wait.
    pub async fn verify(&self, password: &str, kept: Option<String>) -> Result<Verdict, PasswordError> {
        let password = password.to_owned();
        self.in_turn(move || verify(&password, kept.as_deref())).await
    }

    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let permit = timeout(TURN, self.0.clone().acquire_owned()).await.map_err(|_| PasswordError::Busy)?;
        let permit = permit.expect("the semaphore is never closed");
        // The permit moves along: a request that is given up does not make room while its thread still has the memory.
        Ok(spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await?)
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(19 * 1024, 2, 1, None).expect("OWASP's parameters are valid");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash(password: &str) -> String {
    let hash: PasswordHash =
        argon2().hash_password(password.as_bytes()).expect("hashing has valid parameters and a salt");
    hash.to_string()
}

fn verify(password: &str, kept: Option<&str>) -> Verdict {
    let parsed = PasswordHash::new(kept.unwrap_or(&NOBODYS));
    let is_right = parsed.as_ref().is_ok_and(|parsed| argon2().verify_password(password.as_bytes(), parsed).is_ok());
    match kept {
        Some(kept) if is_right && is_current(kept) => Verdict::Right,
        Some(_) if is_right => Verdict::Rehash(hash(password)),
        _ => Verdict::Wrong,
    }
}

fn is_current(kept: &str) -> bool {
    kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$")
}

/// Whether somebody may have this password.
///
/// # Errors
/// What to change, for the person who typed it.
pub fn check(password: &str, email: &str, name: &str) -> Result<(), String> {
    let length = password.chars().count();
    if length < *LENGTH.start() {
        return Err(format!("Use at least {} characters. A few words in a row are easy to remember.", LENGTH.start()));
    }
    if length > *LENGTH.end() {
        return Err(format!("Use at most {} characters.", LENGTH.end()));
    }
    let lower = password.to_lowercase();
    let distinct = lower.chars().collect::<std::collections::HashSet<_>>().len();
    let own = [email, name, email.split('@').next().unwrap_or_default()];
    let is_own =
        own.iter().any(|own| !own.is_empty() && lower.trim_matches(|c: char| c.is_ascii_digit()) == own.to_lowercase());
    if distinct < 5 || is_own {
        return Err("That is too easy to guess. Use something that has nothing to do with you.".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_long_enough_and_not_ones_own_name() {
        let rows = [
            ("short", false),
            ("elevenchars", false),
            ("twelve chars", true),
            ("äöüäöüäöüäöü", false),
            ("aaaaaaaaaaaaaaaa", false),
            ("jo@acme.example1", false),
            ("Jo Miller Smith", false),
            ("correct horse battery staple", true),
            (&"ab cd ef".repeat(26), false),
        ];
        for (password, expected) in rows {
            let checked = check(password, "jo@acme.example", "jo miller smith");
            assert_eq!(checked.is_ok(), expected, "{password}: {checked:?}");
        }
    }

    #[test]
    fn what_is_kept_is_argon2id_with_its_own_salt_and_yields_only_to_the_password() {
        let (one, two) = (hash("twelve chars"), hash("twelve chars"));
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(one, two);
        assert_eq!(verify("twelve chars", Some(&one)), Verdict::Right);
        assert_eq!(verify("twelve charS", Some(&one)), Verdict::Wrong);
        assert_eq!(verify("twelve chars", None), Verdict::Wrong);
        assert_eq!(verify("twelve chars", Some("not a hash")), Verdict::Wrong);
    }

    #[test]
    fn a_password_that_is_kept_with_other_parameters_is_hashed_anew() {
        let params = Params::new(8 * 1024, 1, 1, None).unwrap();
        let weak: PasswordHash =
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password(b"twelve chars").unwrap();
        let Verdict::Rehash(stronger) = verify("twelve chars", Some(&weak.to_string())) else {
            panic!("kept as it was")
        };
        assert_eq!(verify("twelve chars", Some(&stronger)), Verdict::Right);
    }
}
