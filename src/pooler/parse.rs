//! Reads the rendered files as PgBouncer does and compares them with what was meant, before they are installed.
//!
//! The second look at what [`super::check`] let pass: whatever a document holds, PgBouncer may see no entry, login or option
//! that was not meant. This reads strictly; what it does not know is an error.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};

use super::guard::View;
use super::render::{self, Files, Place};
use crate::api::pooler::PoolerSettings;

type Pairs = BTreeMap<String, String>;

/// Whether the files say what the documents mean and nothing else.
///
/// # Errors
/// What differs. Contents of `userlist.txt` are not in the message.
pub fn verify(files: &Files, place: &Place, settings: &PoolerSettings, view: &View) -> anyhow::Result<()> {
    let text = |name: &str| files.get(name).map(String::as_str).with_context(|| format!("{name} was not rendered"));

    let (options, includes) = section(text("pgbouncer.ini")?, "pgbouncer").context("parsing pgbouncer.ini")?;
    let meant: Pairs =
        render::options(place, settings).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    ensure!(options == meant, "pgbouncer.ini says something else than was meant");
    ensure!(includes == [render::path(&place.directory, "databases.ini")], "pgbouncer.ini includes something else");

    let (databases, includes) = section(text("databases.ini")?, "databases").context("parsing databases.ini")?;
    ensure!(includes.is_empty(), "databases.ini includes a file");
    let databases = databases
        .into_iter()
        .map(|(name, value)| Ok((name, pairs(&value)?)))
        .collect::<anyhow::Result<BTreeMap<_, _>>>()
        .context("parsing databases.ini")?;
    let mut meant: BTreeMap<_, _> =
        view.entries().map(|entry| (entry.database.clone(), render::tenant(settings, entry))).collect();
    meant.insert(render::CENTRAL.to_owned(), render::central(settings));
    ensure!(databases == meant, "databases.ini has other entries than were meant");

    let users = userlist(text("userlist.txt")?).context("parsing userlist.txt")?;
    let meant: Pairs =
        view.users().into_iter().map(|(name, verifier)| (name.to_owned(), verifier.to_owned())).collect();
    ensure!(users == meant, "userlist.txt has other logins than were meant");

    let rules = hba(text("hba.conf")?).context("parsing hba.conf")?;
    let meant: BTreeSet<_> = view
        .entries()
        .flat_map(|entry| entry.users.iter().map(|user| (entry.database.clone(), user.name.clone())))
        .collect();
    ensure!(rules == meant, "hba.conf has other rules than were meant");
    Ok(())
}

/// The one section of an ini file, and the files it includes.
fn section(text: &str, name: &str) -> anyhow::Result<(Pairs, Vec<String>)> {
    let (mut values, mut includes, mut inside) = (Pairs::new(), Vec::new(), false);
    for (number, line) in lines(text, &[';', '#']) {
        if let Some(file) = line.strip_prefix("%include ") {
            includes.push(file.to_owned());
        } else if line.starts_with('[') {
            ensure!(line == format!("[{name}]") && !inside, "line {number}: another section");
            inside = true;
        } else {
            let (key, value) = line.split_once(" = ").with_context(|| format!("line {number} is no `name = value`"))?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            ensure!(inside && !key.is_empty() && key.bytes().all(plain), "line {number}: a name that must be quoted");
            let twice = values.insert(key.to_owned(), value.to_owned()).is_some();
            ensure!(!twice, "line {number}: the name was there before");
        }
    }
    Ok((values, includes))
}

/// `key=value key=value`; a quoted value is not ours.
fn pairs(text: &str) -> anyhow::Result<Pairs> {
    let mut pairs = Pairs::new();
    for word in text.split_whitespace() {
        let (key, value) = word.split_once('=').with_context(|| format!("{word:?} is no `name=value`"))?;
        ensure!(!value.contains(['=', '\'', '"', ';']), "the value of {key} must be quoted");
        ensure!(pairs.insert(key.to_owned(), value.to_owned()).is_none(), "{key} is there twice");
    }
    Ok(pairs)
}

/// `"login" "verifier"`, one a line.
fn userlist(text: &str) -> anyhow::Result<Pairs> {
    let mut users = Pairs::new();
    for (number, line) in lines(text, &[';']) {
        let parts: Vec<_> = line.split('"').collect();
        let ["", user, " ", verifier, ""] = parts[..] else { bail!("line {number} is no `\"login\" \"verifier\"`") };
        ensure!(
            users.insert(user.to_owned(), verifier.to_owned()).is_none(),
            "line {number}: a login that was there before"
        );
    }
    Ok(users)
}

/// `host "database" "login" all scram-sha-256`, one a line.
fn hba(text: &str) -> anyhow::Result<BTreeSet<(String, String)>> {
    let mut rules = BTreeSet::new();
    for (number, line) in lines(text, &['#']) {
        let parts: Vec<_> = line.split('"').collect();
        let ["host ", database, " ", user, " all scram-sha-256"] = parts[..] else {
            bail!("line {number} is another rule")
        };
        ensure!(rules.insert((database.to_owned(), user.to_owned())), "line {number} was there before");
    }
    Ok(rules)
}

/// Lines that say something, with their numbers. PgBouncer ends a line at a line feed only, but takes any space around it.
fn lines<'a>(text: &'a str, comments: &'a [char]) -> impl Iterator<Item = (usize, &'a str)> {
    let says = move |line: &str| !line.is_empty() && !line.starts_with(comments);
    text.split('\n')
        .map(str::trim)
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(move |(_, line)| says(line))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::api::pooler::PoolerEntry;

    fn place() -> Place {
        Place { directory: "/run/pooler".into(), listen: "0.0.0.0:6432".parse().unwrap() }
    }

    fn view(entries: Vec<PoolerEntry>) -> View {
        let slices = [("pooler-pg1-00".to_owned(), sample::slice(1, 1, entries))].into();
        View { settings: Some(sample::settings()), slices }
    }

    fn rendered() -> (Files, View) {
        let view = view(vec![sample::entry(1), sample::entry(2)]);
        (render::render(&place(), &sample::settings(), &view).unwrap(), view)
    }

    #[test]
    fn what_is_rendered_reads_back_as_it_was_meant() {
        let (files, view) = rendered();
        verify(&files, &place(), &sample::settings(), &view).unwrap();
        assert_eq!(render::render(&place(), &sample::settings(), &view).unwrap(), files, "the same each time");
        let ini = &files["pgbouncer.ini"];
        for seed in
            ["pool_mode = transaction", "max_client_conn = 1000", "default_pool_size = 25", "reserve_pool_size = 5"]
        {
            assert!(ini.contains(&format!("\n{seed}\n")), "{seed} in {ini}");
        }
        assert!(ini.contains("\nreserve_pool_timeout = 3\n") && ini.contains("\nserver_lifetime = 3600\n"));
        assert!(!ini.contains("admin_users") && !ini.contains("stats_users") && !ini.contains("auth_query"));
        let entry = &sample::entry(1).database;
        let line = format!(
            "\n{entry} = dbname={entry} host=pg1.example.com max_db_connections=7 pool_size=5 port=5432 reserve_pool=2\n"
        );
        assert!(files["databases.ini"].contains(&line), "{}", files["databases.ini"]);
    }

    #[test]
    fn hostile_documents_are_not_rendered() {
        let mut hostile = sample::entry(1);
        hostile.database += "\nevil = host=evil user=postgres";
        assert!(render::render(&place(), &sample::settings(), &view(vec![hostile])).is_err());
    }

    #[test]
    fn a_line_more_or_less_in_any_file_is_noticed() {
        let (good, view) = rendered();
        let key = sample::verifier('B');
        for (file, line) in [
            ("databases.ini", "evil = host=evil user=postgres\n"),
            ("databases.ini", "* = host=evil\n"),
            ("databases.ini", "[pgbouncer]\nadmin_users = evil\n"),
            ("databases.ini", "%include /tmp/evil\n"),
            ("pgbouncer.ini", "admin_users = evil\n"),
            ("pgbouncer.ini", "%include /tmp/evil\n"),
            ("pgbouncer.ini", "[databases]\nevil = host=evil\n"),
            ("userlist.txt", &format!("\"evil\" \"{key}\"\n")),
            ("userlist.txt", "\"evil\" \"\" \"\"\n"),
            ("hba.conf", "host all all all trust\n"),
            ("hba.conf", "host \"central\" \"evil\" all scram-sha-256\n"),
            ("hba.conf", "local all all trust\n"),
        ] {
            let mut files = good.clone();
            files.get_mut(file).unwrap().push_str(line);
            assert!(verify(&files, &place(), &sample::settings(), &view).is_err(), "{line:?} at the end of {file}");
        }
        for file in ["databases.ini", "pgbouncer.ini", "userlist.txt", "hba.conf"] {
            let mut files = good.clone();
            let text = files.get_mut(file).unwrap();
            text.truncate(text.trim_end().rfind('\n').unwrap());
            assert!(verify(&files, &place(), &sample::settings(), &view).is_err(), "{file} without its last line");
        }
    }

    #[test]
    fn a_parameter_or_verifier_that_changed_is_noticed() {
        let (good, view) = rendered();
        for (file, from, to) in [
            ("databases.ini", "pool_size=5", "pool_size=5 user=postgres"),
            ("databases.ini", "pool_size=5", "pool_size=50"),
            ("databases.ini", "port=5432", "port='5432'"),
            ("userlist.txt", "AAAA", "BBBB"),
            ("hba.conf", "scram-sha-256", "trust"),
        ] {
            let mut files = good.clone();
            let text = files.get_mut(file).unwrap();
            *text = text.replacen(from, to, 1);
            assert!(verify(&files, &place(), &sample::settings(), &view).is_err(), "{to} in {file}");
        }
    }
}
