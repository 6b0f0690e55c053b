//! Makes the running PgBouncer be what its files say: RELOAD, then look, and end what should be gone.
//!
//! RELOAD alone is not enough. It may fail half-way and say so in the log only; it ends the sessions of an entry that was
//! removed, but not those of a login that was removed or got another password.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::admin::{Admin, CONSOLE, Client, Database};
use super::guard::View;
use super::render::{self, LOGIN_SECONDS, Place};

/// PgBouncer ends things between its events, so what should be gone may be seen a moment longer.
const PATIENCE: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(50);

/// Logins whose sessions from before a RELOAD must end.
#[derive(Clone, Debug, Default)]
pub struct Revoked(BTreeMap<String, Before>);

#[derive(Clone, Copy, Debug)]
struct Before {
    /// Clients with a lower number connected before that RELOAD.
    client: u64,
    /// After this time none of them can still be logging in.
    until: Instant,
}

impl Revoked {
    /// Adds what another RELOAD revoked.
    pub fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    fn includes(&self, client: &Client) -> bool {
        self.0.get(&client.user).is_some_and(|before| client.id < before.client)
    }
}

/// What is left to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Entries that are missing or are not as they should be.
    pub wrong: Vec<String>,
    /// Entries that should be gone.
    pub surplus: Vec<String>,
    /// Clients that should be gone.
    pub clients: Vec<u64>,
}

/// RELOADs and ends what should be gone; returns when nothing is left to do.
///
/// `changed`: logins whose verifier is not what it was. What is returned goes to [`check`], because such a login may have
/// begun before the RELOAD and end after it. `turned`: databases whose settings on the server are others than before.
pub async fn reload(
    place: &Place,
    wanted: &View,
    changed: BTreeSet<String>,
    turned: BTreeSet<String>,
) -> anyhow::Result<Revoked> {
    let mut admin = Admin::connect(place).await?;
    admin.reload().await?;
    admin.close().await;
    // This connection is made after the RELOAD, so every client with a lower number may have the old verifier.
    let mut admin = Admin::connect(place).await?;
    let own = admin.clients().await?.iter().filter(|client| client.database == CONSOLE).map(|client| client.id).max();
    let below = own.context("PgBouncer does not show the agent's own connection")?;
    let before = Before { client: below, until: Instant::now() + Duration::from_secs(2 * LOGIN_SECONDS) };
    let revoked = Revoked(changed.into_iter().map(|user| (user, before)).collect());

    for database in &turned {
        admin.reconnect(database).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = differences(wanted, &revoked, &admin.databases().await?, &admin.clients().await?);
        if left == Differences::default() {
            admin.close().await;
            return Ok(revoked);
        }
        if Instant::now() >= deadline {
            bail!("PgBouncer is not as its files say after RELOAD: {}", left.describe());
        }
        // Not before the RELOAD: new clients of an entry that is killed while it is in the file would hang.
        for database in &left.surplus {
            admin.kill(database).await?;
        }
        end(&mut admin, &left.clients).await?;
        tokio::time::sleep(GLANCE).await;
    }
}

/// Whether PgBouncer still is what its files say; ends clients that should be gone. False: a RELOAD is needed.
pub async fn check(place: &Place, wanted: &View, revoked: &mut Revoked) -> anyhow::Result<bool> {
    let now = Instant::now();
    revoked.0.retain(|_, before| before.until > now);
    let mut admin = Admin::connect(place).await?;
    let left = differences(wanted, revoked, &admin.databases().await?, &admin.clients().await?);
    end(&mut admin, &left.clients).await?;
    admin.close().await;
    Ok(left.wrong.is_empty() && left.surplus.is_empty())
}

async fn end(admin: &mut Admin, clients: &[u64]) -> anyhow::Result<()> {
    for id in clients {
        admin.kill_client(*id).await?;
    }
    Ok(())
}

/// Compares what runs with what should.
pub fn differences(wanted: &View, revoked: &Revoked, databases: &[Database], clients: &[Client]) -> Differences {
    let meant = meant(wanted);
    let there: BTreeMap<_, _> = databases.iter().map(|database| (&*database.name, database)).collect();
    let is_wrong = |name: &str, database: &Database| there.get(name).is_none_or(|there| *there != database);
    let logins: BTreeSet<_> =
        wanted.entries().flat_map(|entry| entry.users.iter().map(|user| (&*entry.database, &*user.name))).collect();
    let is_stale = |client: &Client| {
        client.database != CONSOLE
            && (!logins.contains(&(&*client.database, &*client.user)) || revoked.includes(client))
    };
    Differences {
        wrong: meant.iter().filter(|(name, database)| is_wrong(name, database)).map(|(name, _)| name.clone()).collect(),
        surplus: there.keys().filter(|name| !meant.contains_key(**name)).map(|name| (*name).to_owned()).collect(),
        clients: clients.iter().filter(|client| is_stale(client)).map(|client| client.id).collect(),
    }
}

/// The lines that `SHOW DATABASES` should have.
fn meant(wanted: &View) -> BTreeMap<String, Database> {
    let Some(settings) = &wanted.settings else { return BTreeMap::new() };
    let database = |name: &str, mut parameters: BTreeMap<String, String>| {
        let mut take = |key: &str| parameters.remove(key).unwrap_or_default();
        let database = Database {
            name: name.to_owned(),
            host: take("host"),
            port: take("port"),
            dbname: take("dbname"),
            force_user: String::new(),
            pool_size: take("pool_size"),
            reserve_pool: take("reserve_pool"),
            max_connections: take("max_db_connections"),
            paused: false,
        };
        (name.to_owned(), database)
    };
    let tenants = wanted.entries().map(|entry| database(&entry.database, render::tenant(settings, entry)));
    tenants.chain([database(render::CENTRAL, render::central(settings))]).collect()
}

/// Logins that are in both views with different verifiers.
pub fn changed(served: &View, wanted: &View) -> BTreeSet<String> {
    let before = served.users();
    let differs = |name: &str, verifier: &str| before.get(name).is_some_and(|before| *before != verifier);
    wanted
        .users()
        .into_iter()
        .filter(|(name, verifier)| differs(name, verifier))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Databases of entries that are in both views and became read-only or writable. The server applies that to new sessions.
pub fn turned(served: &View, wanted: &View) -> BTreeSet<String> {
    let before: BTreeMap<_, _> = served.entries().map(|entry| (&entry.database, entry.read_only)).collect();
    let turned =
        wanted.entries().filter(|entry| before.get(&entry.database).is_some_and(|was| *was != entry.read_only));
    turned.map(|entry| entry.database.clone()).collect()
}

impl Differences {
    fn describe(&self) -> String {
        let some = |names: &[String]| names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        format!(
            "{} entries are missing or differ ({}), {} should be gone ({}), {} clients should be gone",
            self.wrong.len(),
            some(&self.wrong),
            self.surplus.len(),
            some(&self.surplus),
            self.clients.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn view(entries: Vec<crate::api::pooler::PoolerEntry>) -> View {
        View {
            settings: Some(sample::settings()),
            slices: [("pooler-pg1-00".to_owned(), sample::slice(1, 1, entries))].into(),
        }
    }

    fn client(id: u64, user: &str, database: &str) -> Client {
        Client { id, user: user.to_owned(), database: database.to_owned() }
    }

    #[test]
    fn entries_that_are_missing_changed_or_surplus_are_found() {
        let wanted = view(vec![sample::entry(1), sample::entry(2)]);
        let mut there: Vec<_> = meant(&wanted).into_values().collect();
        let find = |there: &[Database]| differences(&wanted, &Revoked::default(), there, &[]);
        assert_eq!(find(&there), Differences::default());
        let name = sample::entry(1).database;
        let index = there.iter().position(|database| database.name == name).unwrap();
        for change in [
            |database: &mut Database| database.force_user = "postgres".to_owned(),
            |database: &mut Database| database.pool_size = "6".to_owned(),
            |database: &mut Database| database.paused = true,
        ] {
            let mut there = there.clone();
            change(&mut there[index]);
            assert_eq!(find(&there).wrong, std::slice::from_ref(&name));
        }
        there.remove(index);
        there.push(Database { name: "evil".to_owned(), ..Database::default() });
        let found = find(&there);
        assert_eq!((found.wrong, found.surplus), (vec![name], vec!["evil".to_owned()]));
    }

    #[test]
    fn clients_of_removed_entries_and_removed_or_changed_logins_are_found() {
        let entry = sample::entry(1);
        let (a, b) = (entry.users[0].name.clone(), entry.users[1].name.clone());
        let mut wanted = view(vec![entry.clone()]);
        let clients = [
            client(1, &a, &entry.database),
            client(2, &b, &entry.database),
            client(3, "pgbouncer", CONSOLE),
            client(4, &a, &entry.database),
            client(5, &a, &sample::entry(2).database),
        ];
        let find = |wanted: &View, revoked: &Revoked| differences(wanted, revoked, &[], &clients).clients;
        assert_eq!(find(&wanted, &Revoked::default()), [5]);
        let mut served = wanted.clone();
        served.slices.get_mut("pooler-pg1-00").unwrap().entries[0].users[0].verifier = sample::verifier('B');
        let users = changed(&served, &wanted);
        assert_eq!(users, [a].into());
        let before = Before { client: 3, until: Instant::now() };
        let revoked = Revoked(users.into_iter().map(|user| (user, before)).collect());
        assert_eq!(find(&wanted, &revoked), [1, 5], "4 logged in after the RELOAD");
        wanted.slices.get_mut("pooler-pg1-00").unwrap().entries[0].users.pop();
        assert_eq!(find(&wanted, &Revoked::default()), [2, 5]);
    }
}
