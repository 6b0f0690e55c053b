//! What an entry of the trail hashes to, and what is wrong with a chain of them. Pure.
//!
//! The trigger in `0004_portal.sql` computes the same when an entry is written. It is computed here once more, because
//! whoever can change entries can also change the database's function.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use sha2::{Digest, Sha256};

/// One entry as the database has it, each field as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Which chain.
    pub lane: i16,
    /// Place in it, from 1.
    pub seq: i64,
    /// The row.
    pub id: i64,
    /// Hash of the one before; empty for the first.
    pub previous: Vec<u8>,
    /// What the row says it hashes to.
    pub hash: Vec<u8>,
    /// The hashed columns from `tenant_uuid` on, in the order of `audit_hash`.
    pub fields: [Option<String>; FIELDS],
}

/// `tenant_uuid`, `tenant_slug`, `actor`, `action`, `resource_type`, `resource_id`, `changes`, `ip_address`, `user_agent`,
/// `correlation_id`, `created_at` in microseconds.
pub const FIELDS: usize = 11;

impl Link {
    /// What the row hashes to.
    pub fn computed(&self) -> [u8; 32] {
        let mut text = String::new();
        field(&mut text, Some("maintenance-os audit 1"));
        for own in [self.lane.to_string(), self.seq.to_string(), hex(&self.previous), self.id.to_string()] {
            field(&mut text, Some(&own));
        }
        for column in &self.fields {
            field(&mut text, column.as_deref());
        }
        Sha256::digest(text).into()
    }
}

fn field(text: &mut String, value: Option<&str>) {
    match value {
        Some(value) => write!(text, "{}:{value}", value.len()).expect("writing to a String cannot fail"),
        None => text.push('-'),
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// The end of one chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How many entries it has.
    pub seq: i64,
    /// Hash of the last one; empty without any.
    pub hash: Vec<u8>,
}

/// The ends of all chains, by lane.
pub type Heads = BTreeMap<i16, Head>;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The row does not hash to what it says.
    Changed {
        /// Which chain.
        lane: i16,
        /// Place in it.
        seq: i64,
        /// The row.
        id: i64,
    },
    /// The row is whole but does not follow the one before: either of them was replaced.
    Unlinked {
        /// Which chain.
        lane: i16,
        /// Place in it.
        seq: i64,
        /// The row.
        id: i64,
    },
    /// Rows were removed.
    Missing {
        /// Which chain.
        lane: i16,
        /// Place of the first.
        from: i64,
        /// Place of the last.
        to: i64,
    },
    /// A row lies beyond the head, or in a chain that is not there: it was put in past the trigger.
    Beyond {
        /// Which chain.
        lane: i16,
        /// Place in it.
        seq: i64,
        /// The row.
        id: i64,
    },
    /// A row is in no chain: it was put in past the trigger.
    Unchained {
        /// The row.
        id: i64,
    },
    /// The head is not the hash of the last row.
    Head {
        /// Which chain.
        lane: i16,
    },
    /// The head is gone, or a chain is shorter than it was when it was noted.
    Cut {
        /// Which chain.
        lane: i16,
        /// What was noted.
        noted: i64,
        /// What is there.
        found: i64,
    },
    /// The row in the place of the noted head is another one: everything up to there was written anew.
    Rewritten {
        /// Which chain.
        lane: i16,
        /// The place that was noted.
        seq: i64,
    },
}

impl Display for Finding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changed { lane, seq, id } => write!(out, "entry {id} (lane {lane}, {seq}) was changed"),
            Self::Unchained { id } => write!(out, "entry {id} is in no lane: it was inserted past the trigger"),
            Self::Unlinked { lane, seq, id } => {
                write!(
                    out,
                    "entry {id} (lane {lane}, {seq}) does not follow the one before: one of the two was replaced"
                )
            }
            Self::Missing { lane, from, to } if from == to => write!(out, "lane {lane}: entry {from} is missing"),
            Self::Missing { lane, from, to } => write!(out, "lane {lane}: entries {from} to {to} are missing"),
            Self::Beyond { lane, seq, id } => {
                write!(out, "entry {id} (lane {lane}, {seq}) was put in past the end of its lane")
            }
            Self::Head { lane } => write!(out, "lane {lane}: the head is not that of the last entry"),
            Self::Cut { lane, noted, found } => {
                write!(out, "lane {lane}: has {found} entries, and had {noted} when the head was noted")
            }
            Self::Rewritten { lane, seq } => {
                write!(out, "lane {lane}: entry {seq} is another one than when the head was noted")
            }
        }
    }
}

/// Looks at entries one after the other, by lane and then by place.
#[derive(Debug)]
pub struct Check<'a> {
    heads: &'a Heads,
    noted: &'a Heads,
    /// The last entry of the lane that is being read.
    last: Option<(i16, i64, Vec<u8>)>,
    /// Lanes that were met.
    met: Vec<i16>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// How many entries were read.
    pub entries: u64,
}

impl<'a> Check<'a> {
    /// `heads`: as the database has them. `noted`: as somebody noted them before; empty where nobody did.
    pub fn new(heads: &'a Heads, noted: &'a Heads) -> Self {
        Self { heads, noted, last: None, met: Vec::new(), findings: Vec::new(), entries: 0 }
    }

    /// The next entry.
    pub fn see(&mut self, link: &Link) {
        self.entries += 1;
        let (lane, seq, id) = (link.lane, link.seq, link.id);
        if self.last.as_ref().is_none_or(|(last, ..)| *last != lane) {
            self.end_of_lane();
            self.met.push(lane);
            self.last = Some((lane, 0, Vec::new()));
        }
        let (_, before, hash) = self.last.as_ref().expect("it was set above");
        if seq > before + 1 {
            self.findings.push(Finding::Missing { lane, from: before + 1, to: seq - 1 });
        } else if link.previous != *hash {
            self.findings.push(Finding::Unlinked { lane, seq, id });
        }
        if link.computed()[..] != link.hash[..] {
            self.findings.push(Finding::Changed { lane, seq, id });
        }
        if self.heads.get(&lane).is_none_or(|head| seq > head.seq) {
            self.findings.push(Finding::Beyond { lane, seq, id });
        }
        if self.noted.get(&lane).is_some_and(|noted| noted.seq == seq && noted.hash != link.hash) {
            self.findings.push(Finding::Rewritten { lane, seq });
        }
        self.last = Some((lane, seq, link.hash.clone()));
    }

    /// There are no further entries.
    pub fn end(mut self) -> (u64, Vec<Finding>) {
        self.end_of_lane();
        for (lane, head) in self.heads.iter().filter(|(lane, _)| !self.met.contains(lane)) {
            if head.seq > 0 {
                self.findings.push(Finding::Missing { lane: *lane, from: 1, to: head.seq });
            }
        }
        for (lane, noted) in self.noted {
            let found = self.heads.get(lane).map_or(0, |head| head.seq);
            if found < noted.seq {
                self.findings.push(Finding::Cut { lane: *lane, noted: noted.seq, found });
            }
        }
        (self.entries, self.findings)
    }

    fn end_of_lane(&mut self) {
        let Some((lane, seq, hash)) = self.last.take() else { return };
        let Some(head) = self.heads.get(&lane) else { return };
        if seq < head.seq {
            self.findings.push(Finding::Missing { lane, from: seq + 1, to: head.seq });
        } else if seq == head.seq && hash != head.hash {
            self.findings.push(Finding::Head { lane });
        }
    }
}

/// The heads as lines to be noted elsewhere: `lane 3 seq 120 <hash>`.
pub fn note(heads: &Heads) -> String {
    let line = |(lane, head): (&i16, &Head)| format!("lane {lane} seq {} {}\n", head.seq, hex(&head.hash));
    heads.iter().filter(|(_, head)| head.seq > 0).map(line).collect()
}

/// Heads that were noted; other lines are passed over.
///
/// # Errors
/// A line that begins as one of ours and goes on otherwise.
pub fn read_note(text: &str) -> Result<Heads, String> {
    let lines = text.lines().filter(|line| line.starts_with("lane "));
    let parse = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, lane, "seq", seq, hash] = words[..] else { return None };
        let hash = (0..hash.len()).step_by(2).map(|at| u8::from_str_radix(hash.get(at..at + 2)?, 16).ok());
        Some((lane.parse().ok()?, Head { seq: seq.parse().ok()?, hash: hash.collect::<Option<_>>()? }))
    };
    lines.map(|line| parse(line).ok_or_else(|| format!("`{line}` is no line of a noted head"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(lane: i16, count: i64) -> Vec<Link> {
        let mut links: Vec<Link> = Vec::new();
        for seq in 1..=count {
            let previous = links.last().map(|link| link.hash.clone()).unwrap_or_default();
            let mut link = Link { lane, seq, id: seq * 10, previous, ..Link::default() };
            link.fields[3] = Some(format!("tenant.did-{seq}"));
            link.hash = link.computed().to_vec();
            links.push(link);
        }
        links
    }

    fn heads(links: &[Link]) -> Heads {
        links.iter().map(|link| (link.lane, Head { seq: link.seq, hash: link.hash.clone() })).collect()
    }

    fn found(links: &[Link], heads: &Heads, noted: &Heads) -> Vec<Finding> {
        let mut check = Check::new(heads, noted);
        for link in links {
            check.see(link);
        }
        check.end().1
    }

    #[test]
    fn a_chain_that_was_left_alone_has_nothing_wrong() {
        let links = [chain(0, 4), chain(3, 2)].concat();
        let noted = heads(&[chain(0, 2), chain(3, 1)].concat());
        assert_eq!(found(&links, &heads(&links), &noted), []);
        assert_eq!(found(&[], &Heads::new(), &Heads::new()), []);
    }

    #[test]
    fn whatever_is_done_to_a_row_shows() {
        let (links, lane) = (chain(1, 5), 1);
        let heads = heads(&links);
        let none = Heads::new();
        let mut changed = links.clone();
        changed[2].fields[2] = Some("somebody else".into());
        assert_eq!(found(&changed, &heads, &none), [Finding::Changed { lane, seq: 3, id: 30 }]);
        changed[2].hash = changed[2].computed().to_vec();
        assert_eq!(found(&changed, &heads, &none), [Finding::Unlinked { lane, seq: 4, id: 40 }]);
        let without = [&links[..1], &links[3..]].concat();
        assert_eq!(found(&without, &heads, &none), [Finding::Missing { lane, from: 2, to: 3 }]);
        assert_eq!(found(&links[..3], &heads, &none), [Finding::Missing { lane, from: 4, to: 5 }]);
        assert_eq!(found(&links[1..], &heads, &none), [Finding::Missing { lane, from: 1, to: 1 }]);
        assert_eq!(found(&[], &heads, &none), [Finding::Missing { lane, from: 1, to: 5 }]);
        let longer = chain(1, 6);
        assert_eq!(found(&longer, &heads, &none), [Finding::Beyond { lane, seq: 6, id: 60 }]);
    }

    #[test]
    fn a_chain_that_was_written_anew_with_its_head_shows_beside_the_noted_one() {
        let (links, lane) = (chain(2, 5), 2);
        let noted = heads(&links);
        let mut anew = links.clone();
        anew[0].fields[3] = Some("nothing.happened".into());
        for at in 0..5 {
            anew[at].previous = if at == 0 { Vec::new() } else { anew[at - 1].hash.clone() };
            anew[at].hash = anew[at].computed().to_vec();
        }
        assert_eq!(found(&anew, &heads(&anew), &Heads::new()), [], "without a note nothing tells");
        assert_eq!(found(&anew, &heads(&anew), &noted), [Finding::Rewritten { lane, seq: 5 }]);
        let cut = &links[..3];
        assert_eq!(found(cut, &heads(cut), &noted), [Finding::Cut { lane, noted: 5, found: 3 }]);
    }

    #[test]
    fn two_entries_whose_texts_join_to_the_same_differ() {
        let mut one = Link { lane: 0, seq: 1, id: 1, ..Link::default() };
        let mut two = one.clone();
        one.fields[4] = Some("ab".into());
        one.fields[5] = Some("c".into());
        two.fields[4] = Some("a".into());
        two.fields[5] = Some("bc".into());
        assert_ne!(one.computed(), two.computed());
        two.fields = one.fields.clone();
        two.fields[6] = Some(String::new());
        assert_ne!(one.computed(), two.computed(), "nothing and an empty text differ");
    }

    #[test]
    fn a_noted_head_is_read_back_from_among_other_lines() {
        let heads = heads(&[chain(0, 3), chain(9, 1)].concat());
        let text = format!("4 entries, nothing wrong\n{}", note(&heads));
        assert_eq!(read_note(&text).unwrap(), heads);
        assert!(read_note("lane 1 seq x 00").is_err());
    }
}
