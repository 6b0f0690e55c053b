//! What the agent believes: the last good state of every slice, and which news may replace it.
//!
//! An entry leaves only because a **newer document without it** was read. Nothing else removes one: not a Secret that is
//! gone (a mistake, a restored cluster, a wrong Role), not one that cannot be read or decoded, not an older one, not a view
//! that is not complete. So there is no count here above which removals are held back: a document with a newer epoch or
//! generation is the operator's word, and the operator has the breaker (it knows why tenants go, and a human can release it;
//! the agent could only keep serving logins that were taken away, when a server is emptied by moves for example). What
//! remains is checked before every write, see [`unexplained`].

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::check;
use crate::api::pooler::{PoolerEntry, PoolerSettings, PoolerSlice};
use crate::api::slices::{self, SCHEMA};
use crate::slices::Change;

/// The documents that PgBouncer's files are made of.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// `None`: never seen.
    pub settings: Option<PoolerSettings>,
    /// By name; a slice that was never seen is not there.
    pub slices: BTreeMap<String, PoolerSlice>,
}

impl View {
    /// Every tenant's entry.
    pub fn entries(&self) -> impl Iterator<Item = &PoolerEntry> {
        self.slices.values().flat_map(|slice| &slice.entries)
    }

    /// Logins with their verifiers.
    pub fn users(&self) -> BTreeMap<&str, &str> {
        self.entries().flat_map(|entry| &entry.users).map(|user| (&*user.name, &*user.verifier)).collect()
    }
}

/// Turns changes of slices into a [`View`].
pub struct Reader {
    server: String,
    view: View,
    seen: BTreeSet<String>,
    absent: BTreeSet<String>,
    refused: BTreeMap<String, String>,
}

/// What became of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The view changed.
    Accepted,
    /// It says what is served already.
    Same,
    /// The slice does not exist; what it said last still holds.
    Absent,
    /// It is not believed; what it said last still holds.
    Refused(String),
}

impl Reader {
    /// Begins with what an agent before this one served.
    pub fn new(server: &str, view: View) -> Self {
        let (seen, absent, refused) = Default::default();
        Self { server: server.to_owned(), view, seen, absent, refused }
    }

    /// What is believed now.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The name of the slice with the settings.
    pub fn settings_name(&self) -> String {
        slices::pooler_settings(&self.server)
    }

    /// Whether every slice was seen once, present or not; a view before that is partial.
    ///
    /// # Errors
    /// How many are missing, or which document was never understood, so that its entries are missing.
    pub fn complete(&self) -> Result<(), String> {
        let all = slices::pooler_slices(&self.server);
        let missing = all.iter().filter(|name| !self.seen.contains(*name)).count();
        if missing > 0 {
            return Err(format!("{missing} of {} slices were not read yet", all.len()));
        }
        if self.view.settings.is_none() {
            let name = self.settings_name();
            return Err(self.refused.get(&name).cloned().unwrap_or_else(|| format!("{name} does not exist")));
        }
        Ok(())
    }

    /// A slice that is there and of which no good state is known: its tenants are not served here.
    pub fn blind(&self) -> Option<&str> {
        let known = |name: &str| self.view.slices.contains_key(name);
        self.refused
            .iter()
            .find(|(name, _)| !known(name) && **name != self.settings_name())
            .map(|(_, reason)| &**reason)
    }

    /// Judges a change.
    pub fn take(&mut self, change: &Change) -> Verdict {
        self.seen.insert(change.slice.clone());
        let Some(content) = &change.content else {
            self.absent.insert(change.slice.clone());
            return Verdict::Absent;
        };
        match self.judge(&change.slice, content) {
            Ok(accepted) => {
                self.absent.remove(&change.slice);
                self.refused.remove(&change.slice);
                if accepted { Verdict::Accepted } else { Verdict::Same }
            }
            Err(error) => {
                let reason = format!("{}: {error:#}", change.slice);
                self.refused.insert(change.slice.clone(), reason.clone());
                Verdict::Refused(reason)
            }
        }
    }

    fn judge(&mut self, name: &str, content: &[u8]) -> anyhow::Result<bool> {
        // A slice that was deleted and made again may count from one again; its epoch may still not fall.
        let again = self.absent.contains(name);
        if name == self.settings_name() {
            let new: PoolerSettings = decode(content)?;
            check::settings(&new)?;
            return replace(&mut self.view.settings, new, |settings| (settings.epoch, settings.generation), again);
        }
        let new: PoolerSlice = decode(content)?;
        self.check(name, &new)?;
        let mut old = self.view.slices.remove(name);
        let replaced = replace(&mut old, new, |slice| (slice.epoch, slice.generation), again);
        self.view.slices.extend(old.map(|slice| (name.to_owned(), slice)));
        replaced
    }

    /// One bad entry refuses its slice: served in part, it could not be acknowledged.
    fn check(&self, name: &str, slice: &PoolerSlice) -> anyhow::Result<()> {
        let mut uuids = BTreeSet::new();
        for entry in &slice.entries {
            check::entry(entry)?;
            ensure!(uuids.insert(entry.uuid), "{} stands in it twice", entry.database);
            // This makes an entry unique over all slices.
            let home = slices::pooler_slice(&self.server, slices::slice_of(entry.uuid));
            ensure!(name == home, "{} belongs in {home}", entry.database);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

/// The version is read first: a newer schema need not decode as this one.
fn decode<T: DeserializeOwned>(content: &[u8]) -> anyhow::Result<T> {
    let version: Version = serde_json::from_slice(content).context("decoding its schema")?;
    ensure!(version.schema <= SCHEMA, "schema {} is newer than this agent's {SCHEMA}", version.schema);
    serde_json::from_slice(content).context("decoding it")
}

/// Puts `new` in the place of an older document. The epoch goes first: a newer leader may count anew.
fn replace<T: PartialEq>(
    old: &mut Option<T>,
    new: T,
    stamp: impl Fn(&T) -> (u64, u64),
    again: bool,
) -> anyhow::Result<bool> {
    if let Some(old) = old {
        if *old == new {
            return Ok(false);
        }
        let ((epoch, generation), (new_epoch, new_generation)) = (stamp(old), stamp(&new));
        let served = format!("epoch {epoch} generation {generation} is served");
        if new_epoch < epoch || (!again && new_epoch == epoch && new_generation < generation) {
            bail!("epoch {new_epoch} generation {new_generation} is older, {served}");
        }
        ensure!(
            (new_epoch, new_generation) != (epoch, generation),
            "its content changed without its generation, {served}"
        );
    }
    *old = Some(new);
    Ok(true)
}

/// A slice whose entries differ from those served although nobody wrote it anew: a fault of ours, and then nothing is written.
pub fn unexplained<'a>(served: &'a View, wanted: &View) -> Option<&'a str> {
    let explained = |name: &str, old: &PoolerSlice| {
        wanted
            .slices
            .get(name)
            .is_some_and(|new| new == old || (new.epoch, new.generation) != (old.epoch, old.generation))
    };
    served.slices.iter().find(|(name, old)| !explained(name, old)).map(|(name, _)| &**name)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::api::pooler::PoolerUser;

    const SLICE: &str = "pooler-pg1-00";

    fn change(slice: &PoolerSlice) -> Change {
        Change { slice: SLICE.to_owned(), content: Some(serde_json::to_vec(slice).unwrap()) }
    }

    fn reader(slice: &PoolerSlice) -> Reader {
        let mut reader = Reader::new("pg1", View::default());
        assert_eq!(reader.take(&change(slice)), Verdict::Accepted);
        reader
    }

    fn refuses(reader: &mut Reader, change: &Change, why: &str) {
        let before = reader.view().clone();
        let verdict = reader.take(change);
        assert!(matches!(&verdict, Verdict::Refused(reason) if reason.contains(why)), "{verdict:?}");
        assert_eq!(*reader.view(), before);
    }

    #[test]
    fn a_newer_slice_replaces_an_older_one_and_may_remove_entries() {
        let mut reader = reader(&sample::slice(1, 1, vec![sample::entry(1), sample::entry(2)]));
        assert_eq!(reader.take(&change(&sample::slice(1, 2, vec![]))), Verdict::Accepted);
        assert_eq!(reader.view().entries().count(), 0);
        assert_eq!(
            reader.take(&change(&sample::slice(2, 1, vec![sample::entry(1)]))),
            Verdict::Accepted,
            "a newer epoch"
        );
        assert_eq!(reader.take(&change(&sample::slice(2, 1, vec![sample::entry(1)]))), Verdict::Same);
    }

    #[test]
    fn an_older_slice_is_refused() {
        let mut reader = reader(&sample::slice(2, 5, vec![sample::entry(1)]));
        refuses(&mut reader, &change(&sample::slice(2, 4, vec![])), "older");
        refuses(&mut reader, &change(&sample::slice(1, 9, vec![])), "older");
        refuses(&mut reader, &change(&sample::slice(2, 5, vec![])), "without its generation");
    }

    #[test]
    fn an_absent_slice_removes_nothing_and_may_count_anew_but_not_in_an_older_epoch() {
        let mut reader = reader(&sample::slice(2, 5, vec![sample::entry(1)]));
        assert_eq!(reader.take(&Change { slice: SLICE.to_owned(), content: None }), Verdict::Absent);
        assert_eq!(reader.view().entries().count(), 1);
        refuses(&mut reader, &change(&sample::slice(1, 9, vec![])), "older");
        assert_eq!(reader.take(&change(&sample::slice(2, 1, vec![]))), Verdict::Accepted);
    }

    #[test]
    fn what_does_not_decode_or_does_not_belong_is_refused_as_a_whole() {
        let mut reader = reader(&sample::slice(1, 1, vec![sample::entry(1)]));
        for content in ["", "{", "[]", "{\"schema\":1}"] {
            refuses(&mut reader, &Change { slice: SLICE.to_owned(), content: Some(content.into()) }, "decoding");
        }
        refuses(
            &mut reader,
            &change(&PoolerSlice { schema: 2, ..sample::slice(1, 2, vec![]) }),
            "newer than this agent's",
        );
        let twice = sample::slice(1, 2, vec![sample::entry(1), sample::entry(1)]);
        refuses(&mut reader, &change(&twice), "twice");
        let elsewhere =
            Change { slice: "pooler-pg1-07".to_owned(), ..change(&sample::slice(1, 2, vec![sample::entry(1)])) };
        refuses(&mut reader, &elsewhere, "belongs in pooler-pg1-00");
        assert!(reader.blind().is_some(), "no good state of slice 07 is known");
        let mut hostile = sample::entry(1);
        hostile.users.push(PoolerUser { name: "postgres".to_owned(), verifier: sample::verifier('A') });
        refuses(&mut reader, &change(&sample::slice(1, 2, vec![sample::entry(2), hostile])), "postgres");
    }

    #[test]
    fn a_view_is_complete_once_every_slice_was_seen_and_the_settings_are_known() {
        let mut reader = Reader::new("pg1", View::default());
        for name in slices::pooler_slices("pg1") {
            assert!(reader.complete().is_err_and(|reason| reason.ends_with("of 33 slices were not read yet")));
            assert_eq!(reader.take(&Change { slice: name, content: None }), Verdict::Absent);
        }
        assert_eq!(reader.complete(), Err("pooler-pg1-settings does not exist".to_owned()));
        let content = serde_json::to_vec(&sample::settings()).unwrap();
        reader.take(&Change { slice: "pooler-pg1-settings".to_owned(), content: Some(content) });
        assert_eq!(reader.complete(), Ok(()));
        assert_eq!(reader.blind(), None, "absent slices are no fault");
    }

    #[test]
    fn entries_that_go_without_a_newer_document_are_unexplained() {
        let served =
            View { settings: None, slices: [(SLICE.to_owned(), sample::slice(1, 1, vec![sample::entry(1)]))].into() };
        let wanted = |slice| View { settings: None, slices: [(SLICE.to_owned(), slice)].into() };
        assert_eq!(unexplained(&served, &served), None);
        assert_eq!(unexplained(&served, &wanted(sample::slice(1, 2, vec![]))), None);
        assert_eq!(unexplained(&served, &wanted(sample::slice(1, 1, vec![]))), Some(SLICE));
        assert_eq!(unexplained(&served, &View::default()), Some(SLICE));
    }
}
