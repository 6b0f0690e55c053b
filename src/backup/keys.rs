//! Where a backup lies in the bucket: `backups/tenants/<uuid>/<UTC stamp>-<id>.dump`, its manifest beside it as `.json`; those
//! of the central database in `backups/central/`.
//!
//! The tenant's uuid is in the key, in the manifest and in the mark of the database that was read; all three are compared,
//! so that no tenant's backup is ever taken for another's.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use uuid::Uuid;

const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// Names one backup of a tenant: when it began, and an id, so that two that begin in the same second do not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    /// When it began, in whole seconds.
    pub began: Timestamp,
    /// Makes it unique.
    pub id: Uuid,
}

/// A text that names no backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no backup: they look like 20261231T235959Z-0123456789abcdef0123456789abcdef")]
pub struct BadId(String);

impl BackupId {
    /// A new one.
    pub fn new(now: Timestamp, id: Uuid) -> Self {
        // Whole seconds, so that it is read back as it was.
        Self { began: Timestamp::from_second(now.as_second()).unwrap_or(now), id }
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.began.to_zoned(TimeZone::UTC).strftime(STAMP), self.id.simple())
    }
}

impl FromStr for BackupId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId(text.chars().take(80).collect());
        let (stamp, id) = text.split_once('-').ok_or_else(bad)?;
        let began = jiff::civil::DateTime::strptime(STAMP, stamp).map_err(|_| bad())?;
        let began = began.to_zoned(TimeZone::UTC).map_err(|_| bad())?.timestamp();
        let named = Self { began, id: Uuid::try_parse(id).map_err(|_| bad())? };
        // Times and uuids have several spellings; one backup has one name.
        if named.to_string() == text { Ok(named) } else { Err(bad()) }
    }
}

/// What an object of a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What `pg_dump` wrote.
    Dump,
    /// What makes it a backup.
    Manifest,
}

impl Part {
    const fn ending(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::Manifest => "json",
        }
    }
}

/// Stands for the central database where a tenant's uuid is asked for: what makes, lists, keeps and proves backups is the
/// same. No tenant has it, uuids that are minted are random.
pub const CENTRAL: Uuid = Uuid::nil();

/// `backups/tenants/<uuid>`, or `backups/central`: everything of a tenant lies below it.
pub fn folder(tenant: Uuid) -> String {
    if tenant == CENTRAL { "backups/central".to_owned() } else { format!("backups/tenants/{tenant}") }
}

/// The key of one object.
pub fn key(tenant: Uuid, id: BackupId, part: Part) -> String {
    format!("{}/{id}.{}", folder(tenant), part.ending())
}

/// Reads a key back; None: it is no object of a backup of this tenant.
pub fn parse(tenant: Uuid, key: &str) -> Option<(BackupId, Part)> {
    let name = key.strip_prefix(&folder(tenant))?.strip_prefix('/')?;
    let (id, ending) = name.rsplit_once('.')?;
    let part = [Part::Dump, Part::Manifest].into_iter().find(|part| part.ending() == ending)?;
    Some((id.parse().ok()?, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> BackupId {
        BackupId::new("2026-11-26T23:05:09.5Z".parse().unwrap(), Uuid::from_u128(5))
    }

    #[test]
    fn a_key_is_read_back_as_it_was_written() {
        let tenant = Uuid::from_u128(7);
        for part in [Part::Dump, Part::Manifest] {
            assert_eq!(parse(tenant, &key(tenant, id(), part)), Some((id(), part)));
        }
        assert_eq!(
            key(tenant, id(), Part::Dump),
            "backups/tenants/00000000-0000-0000-0000-000000000007/20261126T230509Z-00000000000000000000000000000005.dump"
        );
    }

    #[test]
    fn another_tenants_key_is_not_this_ones() {
        assert_eq!(parse(Uuid::from_u128(8), &key(Uuid::from_u128(7), id(), Part::Dump)), None);
    }

    #[test]
    fn other_spellings_name_nothing() {
        let good = id().to_string();
        for text in [
            good.to_uppercase().replace('Z', "z"),
            good.replace("T23", "T24"),
            format!("{good} "),
            good.replace('-', ""),
            String::new(),
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
        assert_eq!(good.parse(), Ok(id()));
    }

    #[test]
    fn ids_sort_by_time() {
        let later = BackupId::new("2026-11-26T23:05:10Z".parse().unwrap(), Uuid::from_u128(1));
        assert!(later > id() && later.to_string() > id().to_string());
    }
}
