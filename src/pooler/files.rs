//! Writes PgBouncer's files so that it never reads half of one: temporary file, fsync, rename, fsync of the directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::guard::View;
use super::render::Files;

/// What was served last, for the agent that comes after this one.
const SERVED: &str = "served.json";
/// Files that a change of the settings may make superfluous; the key is not left lying about.
const OPTIONAL: [&str; 3] = ["client.key", "client.crt", "server-ca.crt"];

/// Makes the directory hold `files`. `pgbouncer.ini` comes last: once it is there, the others are.
pub fn install(directory: &Path, files: &Files) -> anyhow::Result<()> {
    let last = |name: &str| name == "pgbouncer.ini";
    let (end, begin): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| last(name));
    for (name, content) in begin.into_iter().chain(end) {
        put(directory, name, content.as_bytes())?;
    }
    for name in OPTIONAL.into_iter().filter(|name| !files.contains_key(name)) {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {name} of {}", directory.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Notes what is served.
pub fn note(directory: &Path, served: &View) -> anyhow::Result<()> {
    put(directory, SERVED, &serde_json::to_vec(served).context("encoding what is served")?)
}

/// What an agent before this one served; nothing when there was none.
///
/// # Errors
/// It cannot be read.
pub fn noted(directory: &Path) -> anyhow::Result<View> {
    let path = directory.join(SERVED);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("decoding {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(View::default()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn put(directory: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let path = directory.join(name);
    if fs::read(&path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    write(directory, &path, content).with_context(|| format!("writing {}", path.display()))
}

fn write(directory: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("temporary");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    // PgBouncer skips a userlist whose inode, size and time in whole seconds are those it has read; an inode is used again
    // soon, and a changed verifier has the same size. So time always advances by a second.
    let before = fs::metadata(path).and_then(|old| old.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    file.set_modified(SystemTime::now().max(before + Duration::from_secs(1)))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_private_replaced_and_removed_when_they_are_superfluous() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let files = |key: Option<&str>| {
            let mut files = Files::from([("pgbouncer.ini", "[pgbouncer]\n".to_owned())]);
            files.extend(key.map(|key| ("client.key", key.to_owned())));
            files
        };
        install(directory.path(), &files(Some("one"))).unwrap();
        assert_eq!(fs::metadata(path("client.key")).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::metadata(path("client.key")).unwrap().modified().unwrap();
        install(directory.path(), &files(Some("two"))).unwrap();
        assert_eq!(fs::read_to_string(path("client.key")).unwrap(), "two");
        let second = fs::metadata(path("client.key")).unwrap().modified().unwrap();
        assert!(second >= first + Duration::from_secs(1), "PgBouncer compares whole seconds");
        install(directory.path(), &files(None)).unwrap();
        assert!(!path("client.key").exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_was_served_is_read_back_and_damage_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(noted(directory.path()).unwrap(), View::default());
        let view = View { settings: Some(super::super::sample::settings()), ..View::default() };
        note(directory.path(), &view).unwrap();
        assert_eq!(noted(directory.path()).unwrap(), view);
        fs::write(directory.path().join(SERVED), "{").unwrap();
        assert!(noted(directory.path()).is_err());
    }
}
