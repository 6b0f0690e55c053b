//! One database's way from the migrations that it has to those that it is to have.
//!
//! A file is one transaction together with its record, unless its first line is [`NO_TRANSACTION`]: then its statements, parted
//! by lines [`NEXT`], run one by one, and each has to be such that it may run again after it was done.

use super::server::{Migration, checksum};
use super::sql::literal;

/// First line of a file whose statements PostgreSQL refuses in a transaction, or that commit by themselves.
pub const NO_TRANSACTION: &str = "-- no transaction";
/// Line between two statements of such a file.
pub const NEXT: &str = "-- next";

/// A migration as a database has noted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Four digits.
    pub version: String,
    /// Of its file.
    pub checksum: String,
}

/// Why a database is not migrated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A file is another than the one that was applied.
    #[error(
        "migration {0} was applied here from another file than this operator has: nothing is changed. Find out which one is right; a released file is never edited"
    )]
    Drift(String),
    /// The database has more than we know.
    #[error(
        "the database has migration {0}, which this operator does not know: it is ahead, and nothing is undone. Use an operator and app of that version"
    )]
    Ahead(String),
    /// One in the middle is missing.
    #[error(
        "migration {missing} was never applied here although {later} was: nothing is changed. Find out what happened to this database"
    )]
    Gap {
        /// The one that is missing.
        missing: String,
        /// The one after it.
        later: String,
    },
}

/// The migrations that a database lacks, up to `target`.
///
/// # Errors
/// What it has is not the beginning of what we have.
pub fn pending<'a>(
    known: &'a [Migration<'a>],
    applied: &[Applied],
    target: &str,
) -> Result<&'a [Migration<'a>], Refused> {
    for (index, applied) in applied.iter().enumerate() {
        match known.get(index) {
            None => return Err(Refused::Ahead(applied.version.clone())),
            Some(known) if known.version != applied.version => {
                let later = applied.version.clone();
                return Err(if known.version < applied.version.as_str() {
                    Refused::Gap { missing: known.version.to_owned(), later }
                } else {
                    Refused::Ahead(later)
                });
            }
            Some(known) if checksum(known) != applied.checksum => return Err(Refused::Drift(applied.version.clone())),
            Some(_) => {}
        }
    }
    let wanted = known.iter().take_while(|migration| migration.version <= target).count();
    Ok(&known[applied.len().min(wanted)..wanted])
}

/// What is sent to the server at a time, with the line of the file that it begins at (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The text.
    pub text: String,
    /// The line.
    pub line: usize,
    /// An index that is made beside the traffic: it may be there already, or be a broken one from an attempt that failed.
    pub index: Option<String>,
}

/// The steps of a migration. Each is one transaction, or one statement outside of one.
pub fn steps(migration: &Migration<'_>) -> Vec<Step> {
    if !is_outside(migration) {
        let text = format!("{};\n{}", migration.sql.trim_end().trim_end_matches(';'), record(migration));
        return vec![Step { text, line: 1, index: None }];
    }
    let (mut steps, mut text, mut line) = (Vec::new(), String::new(), 2);
    for (number, part) in migration.sql.lines().enumerate().skip(1) {
        if part.trim() == NEXT {
            push(&mut steps, &text, line);
            (text, line) = (String::new(), number + 2);
        } else {
            text.push_str(part);
            text.push('\n');
        }
    }
    push(&mut steps, &text, line);
    steps.push(Step { text: record(migration), line: migration.sql.lines().count(), index: None });
    steps
}

/// Whether its statements run outside of a transaction.
pub fn is_outside(migration: &Migration<'_>) -> bool {
    migration.sql.lines().next().is_some_and(|line| line.trim() == NO_TRANSACTION)
}

fn push(steps: &mut Vec<Step>, text: &str, line: usize) {
    let is_empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with("--"));
    if !is_empty {
        steps.push(Step { text: text.trim_end().to_owned(), line, index: index(text) });
    }
}

/// The name in `CREATE [UNIQUE] INDEX CONCURRENTLY name ON …`.
fn index(text: &str) -> Option<String> {
    let words: Vec<_> =
        text.lines().filter(|line| !line.trim_start().starts_with("--")).flat_map(str::split_whitespace).collect();
    let at = words.iter().position(|word| word.eq_ignore_ascii_case("concurrently"))?;
    let makes = words[..at].iter().any(|word| word.eq_ignore_ascii_case("create"));
    words.get(at + 1).filter(|_| makes).map(|name| (*name).to_owned())
}

fn record(migration: &Migration<'_>) -> String {
    let values = [migration.version, migration.name, &checksum(migration)].map(literal).join(", ");
    format!("INSERT INTO public.maintenance_os_migrations (version, name, checksum) VALUES ({values})")
}

/// What a migrator asks a database first.
pub const APPLIED: &str = "SELECT version, checksum FROM public.maintenance_os_migrations ORDER BY version";

/// Whether an index is there ($1), and whether it is usable.
pub const INDEX: &str =
    "SELECT i.indisvalid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relname = $1";

/// One migration at a time in a database, whoever runs it; freed with the session.
pub const LOCK: &str = "SELECT pg_catalog.pg_try_advisory_lock(7308327787310281056)";

/// The line (from 1) of a file at a character of a step (from 1, as PostgreSQL counts).
pub fn line_at(step: &Step, position: usize) -> usize {
    let before = step.text.chars().take(position.saturating_sub(1));
    step.line + before.filter(|character| *character == '\n').count()
}

/// The line (from 1) of a file at which a statement of a step begins, by its number (from 0): PostgreSQL gives no position
/// for what fails when it is executed. Only for people: what is run is never cut by this.
pub fn line_of(step: &Step, statement: usize) -> usize {
    let text = step.text.as_str();
    let mut at = 0;
    for _ in 0..statement {
        at += end_of_statement(&text[at..]);
    }
    let mut line = step.line + text[..at].matches('\n').count();
    for part in text[at..].lines() {
        let part = part.trim();
        if !part.is_empty() && !part.starts_with("--") {
            break;
        }
        line += 1;
    }
    line
}

/// Bytes up to and with the semicolon that ends the first statement.
fn end_of_statement(text: &str) -> usize {
    let mut at = 0;
    while let Some(character) = text[at..].chars().next() {
        let rest = &text[at..];
        let skip = |opening: usize, closing: &str| {
            rest[opening..].find(closing).map_or(rest.len(), |found| opening + found + closing.len())
        };
        at += match character {
            ';' => return at + 1,
            '\'' => skip(1, "'"),
            '"' => skip(1, "\""),
            '-' if rest.starts_with("--") => skip(2, "\n"),
            '/' if rest.starts_with("/*") => skip(2, "*/"),
            '$' => dollar_tag(rest).map_or(1, |tag| skip(tag.len(), tag)),
            other => other.len_utf8(),
        };
    }
    text.len()
}

/// `$tag$` at the beginning of a text.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 1;
    text[1..end].chars().all(|character| character.is_alphanumeric() || character == '_').then(|| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Migration<'static>; 3] = [
        Migration { version: "0001", name: "one", sql: "CREATE TABLE a (id int);\n" },
        Migration { version: "0002", name: "two", sql: "CREATE TABLE b (id int);\n" },
        Migration {
            version: "0003",
            name: "three",
            sql: "-- no transaction\n-- why\nDO $$ BEGIN COMMIT; END $$;\n-- next\n\nCREATE INDEX CONCURRENTLY a_idx\n  ON a (id);\n",
        },
    ];

    fn applied(migration: &Migration<'_>) -> Applied {
        Applied { version: migration.version.into(), checksum: checksum(migration) }
    }

    #[test]
    fn what_is_missing_is_what_comes_after_what_is_there() {
        let versions = |applied: &[Applied], target| {
            pending(&ALL, applied, target).map(|pending| pending.iter().map(|one| one.version).collect::<Vec<_>>())
        };
        let [one, two, three] = [applied(&ALL[0]), applied(&ALL[1]), applied(&ALL[2])];
        assert_eq!(versions(&[], "0003"), Ok(vec!["0001", "0002", "0003"]));
        assert_eq!(versions(std::slice::from_ref(&one), "0002"), Ok(vec!["0002"]));
        assert_eq!(versions(&[one.clone(), two.clone(), three.clone()], "0003"), Ok(vec![]));
        assert_eq!(
            versions(&[one.clone(), two.clone(), three], "0002"),
            Ok(vec![]),
            "later than asked for: never undone"
        );
        let changed = Applied { checksum: "another".into(), ..two.clone() };
        assert_eq!(versions(&[one.clone(), changed], "0003"), Err(Refused::Drift("0002".into())));
        assert_eq!(versions(&[two], "0003"), Err(Refused::Gap { missing: "0001".into(), later: "0002".into() }));
        let later = Applied { version: "0004".into(), checksum: String::new() };
        let all: Vec<_> = ALL.iter().map(applied).chain([later]).collect();
        assert_eq!(versions(&all, "0003"), Err(Refused::Ahead("0004".into())));
    }

    #[test]
    fn a_file_is_one_transaction_with_its_record_or_its_statements_one_by_one() {
        let [whole] = &steps(&ALL[0])[..] else { panic!("one step") };
        assert!(whole.text.starts_with("CREATE TABLE a (id int);\nINSERT INTO"), "{}", whole.text);
        let parts = steps(&ALL[2]);
        assert_eq!(parts.iter().map(|step| step.line).collect::<Vec<_>>(), [2, 5, 7]);
        assert_eq!(parts[0].text, "-- why\nDO $$ BEGIN COMMIT; END $$;");
        assert_eq!(parts[1].index.as_deref(), Some("a_idx"));
        assert!(parts[2].text.starts_with("INSERT INTO"));
    }

    #[test]
    fn the_line_of_a_statement_is_found_past_quotes_comments_and_bodies() {
        let sql = "-- a; b\nSELECT ';', \";\";\n\n-- c\nDO $x$ BEGIN; END $x$; /* ; */\nSELECT $1;\n  SELECT 4";
        let step = Step { text: sql.into(), line: 10, index: None };
        assert_eq!([0, 1, 2, 3, 4].map(|number| line_of(&step, number)), [11, 14, 14, 16, 16]);
    }

    #[test]
    fn the_line_of_an_error_is_that_of_the_file() {
        let step = &steps(&ALL[2])[1];
        let position = step.text.chars().take_while(|character| *character != '(').count() + 1;
        assert_eq!(line_at(step, position), 7);
        assert_eq!(line_at(step, 1), 5);
    }
}
