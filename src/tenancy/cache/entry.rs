//! What stands in Redis: 16 bytes that name the entry, 16 bytes of the generation that it belongs to, then JSON.
//!
//! The name is what makes forgetting sound. Somebody looks (and sees entry 1, or none), makes the value from the database,
//! and keeps it; meanwhile somebody else changes the database and forgets the key. Forgetting leaves a *grave*, an entry
//! with a name and no value; whoever looked before finds another name than the one it saw and keeps nothing.

use std::ops::Deref;

use rand::Rng;
use uuid::Uuid;

const LENGTH: usize = 16;

/// Names one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id([u8; LENGTH]);

impl Id {
    pub(super) fn random() -> Self {
        Self(rand::rng().random())
    }
}

impl Deref for Id {
    type Target = [u8; LENGTH];

    fn deref(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

/// What a flush replaces. A tenant that never was flushed has zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Generation([u8; LENGTH]);

impl Generation {
    /// As it stands in Redis. Something else than ours counts as none at all.
    pub(super) fn read(text: Option<&[u8]>) -> Self {
        text.and_then(|text| text.try_into().ok()).map(Self).unwrap_or_default()
    }

    /// The same of another incarnation of the tenant's data: an entry of an earlier one has another generation, without
    /// anybody having flushed anything.
    pub(super) fn of(self, incarnation: Option<Uuid>) -> Self {
        let other = incarnation.unwrap_or_default().into_bytes();
        Self(std::array::from_fn(|place| self.0[place] ^ other[place]))
    }
}

/// An entry as read.
pub(super) struct Kept<'k> {
    pub(super) id: Id,
    pub(super) generation: Generation,
    pub(super) value: &'k [u8],
}

impl<'k> Kept<'k> {
    /// None: it is not an entry of ours.
    pub(super) fn read(text: &'k [u8]) -> Option<Self> {
        let (id, rest) = text.split_first_chunk::<LENGTH>()?;
        let (generation, value) = rest.split_first_chunk::<LENGTH>()?;
        Some(Self { id: Id(*id), generation: Generation(*generation), value })
    }

    /// No JSON is empty.
    pub(super) fn is_grave(&self) -> bool {
        self.value.is_empty()
    }
}

/// A new entry.
pub(super) fn write(generation: Generation, value: &[u8]) -> Vec<u8> {
    [&Id::random()[..], &generation.0, value].concat()
}

/// A new grave.
pub(super) fn grave() -> Vec<u8> {
    write(Generation::default(), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_not_ours_is_not() {
        let generation = Generation([7; LENGTH]);
        let text = write(generation, b"{}");
        let kept = Kept::read(&text).unwrap();
        assert_eq!((kept.generation, kept.value, kept.is_grave()), (generation, &b"{}"[..], false));
        assert!(Kept::read(&grave()).unwrap().is_grave());
        assert!(Kept::read(b"shorter than two names").is_none());
        assert_ne!(write(generation, b"{}"), text, "each has a name of its own");
        assert_eq!(Generation::read(Some(b"12")), Generation::default());
    }
}
