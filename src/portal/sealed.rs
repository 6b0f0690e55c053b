//! Secrets that have to be read again, encrypted with keys from outside the database.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::RngCore;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// Length of a key in bytes.
const KEY: usize = 32;

/// Keys by id; the first encrypts, all decrypt. What they encrypt reads `<key id>:<nonce>:<ciphertext>`.
pub struct SealingKeys {
    keys: Vec<(String, LessSafeKey)>,
}

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// None is given.
    #[error("there is no key: give one as `<id>:<64 hexadecimal digits>`")]
    None,
    /// One is not of the form. Says which, not what.
    #[error("key {0} is not of the form `<id>:<64 hexadecimal digits>`")]
    Malformed(usize),
    /// Two have the same id.
    #[error("key {0} has the id of an earlier one")]
    Repeated(usize),
}

/// Why something cannot be decrypted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unreadable {
    /// Its key is not among ours.
    #[error("its key `{0}` is not among the keys")]
    UnknownKey(String),
    /// It was made for something else, changed, or is no such text at all.
    #[error("it was changed, or made for somebody else")]
    Forged,
}

impl SealingKeys {
    /// Reads keys, separated by commas.
    ///
    /// # Errors
    /// None, or one that is not of the form.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys: Vec<(String, LessSafeKey)> = Vec::new();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        for (index, part) in parts.enumerate() {
            let (id, key) = part
                .split_once(':')
                .and_then(|(id, key)| Some((id, decode(key)?)))
                .ok_or(KeyError::Malformed(index + 1))?;
            // As the column's CHECK has it.
            if id.is_empty()
                || id.len() > 64
                || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            {
                return Err(KeyError::Malformed(index + 1));
            }
            if keys.iter().any(|(other, _)| other == id) {
                return Err(KeyError::Repeated(index + 1));
            }
            let key = UnboundKey::new(&AES_256_GCM, &key).expect("the key has AES-256's length");
            keys.push((id.to_owned(), LessSafeKey::new(key)));
        }
        if keys.is_empty() { Err(KeyError::None) } else { Ok(Self { keys }) }
    }

    /// Encrypts `secret` of `owner`; only read back for the same owner.
    pub fn seal(&self, owner: &str, secret: &[u8]) -> String {
        let (id, key) = &self.keys[0];
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let mut bytes = secret.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut bytes)
            .expect("a secret is far shorter than AES-GCM's bound");
        format!("{id}:{}:{}", BASE64_URL_SAFE_NO_PAD.encode(nonce), BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Decrypts what was encrypted for `owner`.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn open(&self, owner: &str, sealed: &str) -> Result<Vec<u8>, Unreadable> {
        let mut parts = sealed.split(':');
        let (Some(id), Some(nonce), Some(bytes), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Unreadable::Forged);
        };
        let key = self.keys.iter().find(|(own, _)| own == id).map(|(_, key)| key);
        let key = key.ok_or_else(|| Unreadable::UnknownKey(id.to_owned()))?;
        let nonce: [u8; NONCE_LEN] = BASE64_URL_SAFE_NO_PAD
            .decode(nonce)
            .ok()
            .and_then(|nonce| nonce.try_into().ok())
            .ok_or(Unreadable::Forged)?;
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(bytes).map_err(|_| Unreadable::Forged)?;
        let plain = key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(owner), &mut bytes)
            .map_err(|_| Unreadable::Forged)?;
        Ok(plain.to_vec())
    }

    /// Whether it is encrypted with the key that encrypts today.
    pub fn is_current(&self, sealed: &str) -> bool {
        sealed.split(':').next() == Some(self.keys[0].0.as_str())
    }
}

fn decode(key: &str) -> Option<[u8; KEY]> {
    if key.len() != 2 * KEY || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
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

    fn key(id: &str, digit: &str) -> String {
        format!("{id}:{}", digit.repeat(64))
    }

    #[test]
    fn what_is_sealed_is_read_back_for_its_owner_alone_and_shows_every_change() {
        let keys = SealingKeys::parse(&key("k1", "a")).unwrap();
        let sealed = keys.seal("admin 1", b"twenty bytes of a se");
        assert_eq!(keys.open("admin 1", &sealed).unwrap(), b"twenty bytes of a se");
        assert_eq!(keys.open("admin 2", &sealed), Err(Unreadable::Forged));
        assert_ne!(keys.seal("admin 1", b"twenty bytes of a se"), sealed, "never the same nonce");
        for at in 3..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert!(keys.open("admin 1", &String::from_utf8(bytes).unwrap()).is_err(), "{at}");
        }
        let parts: Vec<_> = sealed.split(':').collect();
        assert!(parts[1].len() >= 16 && parts[2].len() >= 22, "the column's CHECK refuses it: {sealed}");
    }

    #[test]
    fn a_new_key_in_front_reads_what_the_old_one_sealed() {
        let old = SealingKeys::parse(&key("old", "1")).unwrap();
        let both = SealingKeys::parse(&format!("{}, {}", key("new", "2"), key("old", "1"))).unwrap();
        let sealed = old.seal("x", b"secret");
        assert_eq!(both.open("x", &sealed).unwrap(), b"secret");
        assert!(!both.is_current(&sealed));
        assert!(both.is_current(&both.seal("x", b"secret")));
        assert_eq!(old.open("x", &both.seal("x", b"y")), Err(Unreadable::UnknownKey("new".into())));
    }

    #[test]
    fn keys_that_cannot_be_used_are_named_by_place_and_not_shown() {
        let fault = |text: &str| SealingKeys::parse(text).err().unwrap();
        assert_eq!(fault(" , "), KeyError::None);
        assert_eq!(fault(&format!("{},k2:abc", key("k1", "1"))), KeyError::Malformed(2));
        assert_eq!(fault(&key("a:b", "1")), KeyError::Malformed(1));
        assert_eq!(fault(&key("ä", "1")), KeyError::Malformed(1));
        assert_eq!(fault(&format!("{},{}", key("k1", "1"), key("k1", "2"))), KeyError::Repeated(2));
        assert!(!fault("k1:abc").to_string().contains("abc"));
    }
}
