//! What lies in the bucket of a tenant: which of it are backups, and what need not be kept.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::bucket::Bucket;
use super::keys::{self, BackupId, Part};
use super::manifest::Manifest;
use super::retention::{self, Keep};
use crate::desired::backup as desired;

/// A dump without a manifest may be one that is being taken; from this age on it is what a killed one left.
const ABANDONED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is under one name.
#[derive(Debug)]
pub enum Entry {
    /// A backup, as far as can be seen without reading the dump: its manifest is sound and the dump has the size it says.
    Good(Box<Manifest>),
    /// Not a backup, and why.
    Bad(String),
}

/// What lies in the bucket of a tenant, oldest first.
#[derive(Debug, Default)]
pub struct Shelf {
    /// By name.
    pub entries: BTreeMap<BackupId, Entry>,
    /// When dumps without a manifest were written, by the bucket's clock.
    unsealed: BTreeMap<BackupId, Timestamp>,
}

impl Shelf {
    /// Looks at everything of `tenant`.
    ///
    /// # Errors
    /// The bucket refuses or does not answer.
    pub async fn read(bucket: &Bucket, tenant: Uuid) -> anyhow::Result<Self> {
        let listed = bucket.list(tenant).await?;
        let of = |part| listed.iter().filter(move |object| object.part == part);
        let dumps: BTreeMap<_, _> = of(Part::Dump).map(|dump| (dump.id, dump)).collect();
        let mut shelf = Self::default();
        for sealed in of(Part::Manifest) {
            let key = keys::key(tenant, sealed.id, Part::Manifest);
            let entry = match Manifest::decode(&bucket.get(&key).await?, tenant, sealed.id) {
                Err(defect) => Entry::Bad(format!("its manifest is not sound: {}", crate::error::chain(&defect))),
                Ok(manifest) => match dumps.get(&sealed.id) {
                    None => Entry::Bad("its dump is gone".into()),
                    Some(dump) if dump.size != manifest.dump.size => Entry::Bad(format!(
                        "its dump has {} bytes and its manifest says {}",
                        dump.size, manifest.dump.size
                    )),
                    Some(_) => Entry::Good(Box::new(manifest)),
                },
            };
            shelf.entries.insert(sealed.id, entry);
        }
        for (id, dump) in dumps {
            shelf.entries.entry(id).or_insert_with(|| {
                shelf.unsealed.insert(id, dump.modified);
                Entry::Bad("it has no manifest: it is being taken, or was given up".into())
            });
        }
        Ok(shelf)
    }

    /// The newest backup; one of a clock that ran ahead only where there is no other.
    pub fn newest(&self, now: Timestamp) -> Option<(BackupId, &Manifest)> {
        self.good().rfind(|(id, _)| !desired::is_ahead(id.began, now)).or_else(|| self.good().next_back())
    }

    /// Whether it is the last one before a delete.
    fn is_last(&self, id: BackupId) -> bool {
        matches!(self.entries.get(&id), Some(Entry::Good(manifest)) if manifest.kept)
    }

    /// Backups, oldest first.
    pub fn good(&self) -> impl DoubleEndedIterator<Item = (BackupId, &Manifest)> {
        self.entries.iter().filter_map(|(id, entry)| match entry {
            Entry::Good(manifest) => Some((*id, &**manifest)),
            Entry::Bad(_) => None,
        })
    }

    /// What may go: backups that need not be kept, and what killed ones left. Damaged backups stay, for people to look at.
    pub fn surplus(&self, keep: Keep, now: Timestamp, taken: BackupId) -> BTreeSet<BackupId> {
        let good: BTreeSet<_> = self.good().map(|(id, _)| id).filter(|id| !desired::is_ahead(id.began, now)).collect();
        let Some(newest) = good.last() else { return BTreeSet::new() };
        let abandoned =
            self.unsealed.iter().filter(|(id, modified)| *id < newest && now.duration_since(**modified) > ABANDONED);
        let surplus = retention::surplus(&good, keep).into_iter().chain(abandoned.map(|(id, _)| *id));
        surplus.filter(|id| *id != taken && !self.is_last(*id)).collect()
    }
}

/// Removes what need not be kept, but never `taken`; says how many.
///
/// # Errors
/// The bucket refuses or does not answer.
pub async fn prune(bucket: &Bucket, tenant: Uuid, keep: Keep, taken: BackupId) -> anyhow::Result<usize> {
    let shelf = Shelf::read(bucket, tenant).await?;
    for (id, entry) in &shelf.entries {
        if let Entry::Bad(why) = entry {
            tracing::warn!(%tenant, backup = %id, why, "this is not a backup");
        }
    }
    let surplus = shelf.surplus(keep, Timestamp::now(), taken);
    bucket.remove(tenant, &surplus).await.with_context(|| format!("removing old backups of tenant {tenant}"))?;
    Ok(surplus.len())
}
