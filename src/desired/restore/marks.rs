//! What stands on the databases of a restore: everything that an operator which begins anew has to know of them.

use jiff::Timestamp;
use uuid::Uuid;

use crate::desired::catalogue::Catalogue;
use crate::desired::names;

const PREFIX: &str = "maintenance-os/1 ";

/// The mark on a database beside the live one. None of a tenant's reads like it, so that nothing takes it for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BesideMark {
    /// The TenantRestore.
    pub restore: Uuid,
    /// The tenant whose database it is to replace.
    pub tenant: Uuid,
    /// Schema of the tables in it, once a backup was restored into it and compared. None: it is being filled.
    pub schema: Option<String>,
}

impl BesideMark {
    /// Its text on the server.
    pub fn text(&self) -> String {
        let state = match &self.schema {
            Some(schema) => format!("state=restored schema={schema}"),
            None => "state=filling".to_owned(),
        };
        format!("{PREFIX}beside restore={} tenant={} {state}", self.restore, self.tenant)
    }

    /// The mark in a comment; None: not one of these.
    pub fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.strip_prefix(PREFIX)?.split(' ');
        (words.next()? == "beside").then_some(())?;
        let restore = value(words.next()?, "restore")?.parse().ok()?;
        let tenant = value(words.next()?, "tenant")?.parse().ok()?;
        let schema = match value(words.next()?, "state")? {
            "filling" => None,
            "restored" => Some(value(words.next()?, "schema")?.to_owned()),
            _ => return None,
        };
        words.next().is_none().then_some(Self { restore, tenant, schema })
    }
}

/// The mark on a database whose place another one has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacedMark {
    /// The TenantRestore.
    pub restore: Uuid,
    /// The tenant whose database it was.
    pub tenant: Uuid,
    /// Schema of the tables in it.
    pub schema: String,
    /// When it may be dropped.
    pub drop_after: Timestamp,
}

impl ReplacedMark {
    /// Its text on the server.
    pub fn text(&self) -> String {
        format!(
            "{PREFIX}replaced restore={} tenant={} schema={} drop-after={}",
            self.restore, self.tenant, self.schema, self.drop_after
        )
    }

    /// The mark in a comment; None: not one of these.
    pub fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.strip_prefix(PREFIX)?.split(' ');
        (words.next()? == "replaced").then_some(())?;
        let mark = Self {
            restore: value(words.next()?, "restore")?.parse().ok()?,
            tenant: value(words.next()?, "tenant")?.parse().ok()?,
            schema: value(words.next()?, "schema")?.to_owned(),
            drop_after: value(words.next()?, "drop-after")?.parse().ok()?,
        };
        words.next().is_none().then_some(mark)
    }
}

/// The marks of the databases on a server whose place another one has taken.
pub fn replaced(catalogue: &Catalogue) -> Vec<ReplacedMark> {
    let marks = catalogue.databases.iter().filter_map(|(name, database)| {
        let mark = ReplacedMark::parse(database.comment.as_deref()?)?;
        (names::restore_replaced(name) == Some(mark.restore)).then_some(mark)
    });
    marks.collect()
}

fn value<'a>(word: &'a str, key: &str) -> Option<&'a str> {
    word.strip_prefix(key)?.strip_prefix('=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::database::Mark;

    #[test]
    fn a_mark_is_read_back_as_it_was_written_and_as_no_other_kind() {
        let (restore, tenant) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for schema in [None, Some("0004_ab".to_owned())] {
            let mark = BesideMark { restore, tenant, schema };
            assert_eq!(BesideMark::parse(&mark.text()), Some(mark.clone()));
            assert_eq!(Mark::parse(&mark.text()), None);
            assert_eq!(ReplacedMark::parse(&mark.text()), None);
        }
        let drop_after = "2026-12-04T17:00:00Z".parse().unwrap();
        let mark = ReplacedMark { restore, tenant, schema: "0004_ab".into(), drop_after };
        assert_eq!(ReplacedMark::parse(&mark.text()), Some(mark.clone()));
        assert_eq!(Mark::parse(&mark.text()), None);
        assert_eq!(BesideMark::parse(&mark.text()), None);
        let live =
            Mark { uuid: tenant, object_uid: restore, epoch: 3, schema: "0004_ab".into(), restore: Some(restore) };
        assert_eq!(Mark::parse(&live.text()), Some(live.clone()));
        assert_eq!(Mark::parse(&format!("{} more=1", live.text())), None);
    }
}
