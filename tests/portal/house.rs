//! A portal with a central database of its own, on the API server that all tests share.

use std::time::Duration;

use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt};
use maintenance_os::api::{Plan, Tenant};
use maintenance_os::central::{Central, Lifetimes, TrailFilter, TrailFrom, TrailRow};
use maintenance_os::passwords::Passwords;
use maintenance_os::portal::cluster::Cluster;
use maintenance_os::portal::directory::Directory;
use maintenance_os::portal::{Clock, Config, Portal, Right, Rights, SealingKeys, router};
use maintenance_os::web::host::HostResolver;
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::browser::{Browser, HOST};
use crate::cluster;
use crate::ledger::Database;

pub const PASSWORD: &str = "correct horse battery staple";
pub const SECRET: &[u8; 20] = b"12345678901234567890";
pub const KEYS: &str = "k1:00000000000000000000000000000000000000000000000000000000000000aa";

pub struct House {
    pub db: Database,
    pub client: Client,
    pub namespace: String,
    pub portal: Portal,
    pub clock: Clock,
    pub browser: Browser,
    pub directory: Directory,
}

/// All rights.
pub fn all() -> Rights {
    Rights::all()
}

/// These rights.
pub fn only(rights: &[Right]) -> Rights {
    rights.iter().copied().collect()
}

impl House {
    pub async fn new() -> Self {
        let db = Database::new().await;
        let central = db.central.clone();
        Self::with(db, central, KEYS).await
    }

    /// With another way to the central database than the test's own, or other keys.
    pub async fn with(db: Database, central: Central, keys: &str) -> Self {
        let client = cluster::administrator().await;
        let namespace = cluster::namespace(&client, "portal").await;
        for (name, price) in [("pro", "49.00"), ("free", "0")] {
            plan(&client, name, price).await;
        }
        let (directory, filler) = Directory::new();
        tokio::spawn(filler.follow(client.clone()));
        tokio::time::timeout(Duration::from_secs(30), directory.filled()).await.expect("the cluster is not listed");
        let config = Config {
            host: HOST.into(),
            base_domain: "example.com".into(),
            namespaces: vec![namespace.clone()],
            hosts: HostResolver::new(&["10.0.0.0/8".into()]).unwrap(),
            secure: true,
            lifetimes: Lifetimes { idle: Duration::from_mins(30), lifetime: Duration::from_hours(12) },
        };
        let clock = Clock::default();
        let keys = SealingKeys::parse(keys).unwrap();
        let cluster = Cluster::new(client.clone());
        let portal = Portal::new(config, central, cluster, directory.clone(), keys, clock.clone());
        let browser = Browser::new(router(portal.clone()));
        Self { db, client, namespace, portal, clock, browser, directory }
    }

    /// An administrator who has set everything up. Their number.
    pub async fn add(&self, email: &str, rights: Rights) -> i32 {
        let hash = Passwords::default().hash(PASSWORD).await.unwrap();
        let id: i32 = sqlx::query_scalar(
            "INSERT INTO system_admins (email, password, permissions) VALUES ($1, $2, $3) RETURNING id",
        )
        .bind(email)
        .bind(hash)
        .bind(rights.permissions())
        .fetch_one(&self.db.pool)
        .await
        .unwrap();
        let sealed = SealingKeys::parse(KEYS).unwrap().seal(&format!("admin {id}"), SECRET);
        sqlx::query("UPDATE system_admins SET two_factor_secret = $2 WHERE id = $1")
            .bind(id)
            .bind(sealed)
            .execute(&self.db.pool)
            .await
            .unwrap();
        id
    }

    /// The code of this moment.
    pub fn code(&self) -> String {
        code(SECRET, self.portal.now().as_second())
    }

    /// A browser in which somebody with these rights is signed in.
    pub async fn signed_in(&self, email: &str, rights: Rights) -> Browser {
        self.add(email, rights).await;
        let mut browser = self.browser.clone();
        self.sign_in(&mut browser, email).await;
        browser
    }

    pub async fn sign_in(&self, browser: &mut Browser, email: &str) {
        browser.fill("/sign-in", &[("email", email), ("password", PASSWORD)]).await.is(303);
        browser.fill("/sign-in/code", &[("code", &self.code())]).await.is(303);
        // The next code is another one.
        self.clock.advance(30);
    }

    /// A Tenant, as somebody made it with kubectl.
    pub async fn tenant(&self, name: &str, more: Value) -> Tenant {
        let mut tenant = json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"displayName": format!("{name} GmbH"), "planRef": {"name": "pro"}}
        });
        merge(&mut tenant, more);
        let made: Tenant = serde_json::from_value(tenant).unwrap();
        let made = self.tenants().create(&PostParams::default(), &made).await.unwrap();
        self.seen(name).await;
        made
    }

    /// Waits until the portal's memory has it.
    pub async fn seen(&self, name: &str) {
        cluster::until("the portal knows the tenant", async || {
            self.directory.tenant(&self.namespace, name).map(drop).ok_or_else(|| "not yet".to_owned())
        })
        .await;
    }

    pub fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn now(&self, name: &str) -> Tenant {
        self.tenants().get(name).await.unwrap()
    }

    /// Writes a status, as the operator does.
    pub async fn status(&self, name: &str, status: Value) {
        let patch = json!({"status": status});
        self.tenants().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub fn path(&self, name: &str) -> String {
        format!("/tenants/{}/{name}", self.namespace)
    }

    /// The audit trail, newest first.
    pub async fn trail(&self) -> Vec<TrailRow> {
        self.db.central.trail(&TrailFilter::default(), TrailFrom::Newest, 500).await.unwrap()
    }

    pub async fn actions(&self) -> Vec<String> {
        self.trail().await.into_iter().map(|row| row.action).collect()
    }

    pub async fn last(&self, action: &str) -> TrailRow {
        let trail = self.trail().await;
        let all: Vec<_> = trail.iter().map(|row| row.action.clone()).collect();
        trail.into_iter().find(|row| row.action == action).unwrap_or_else(|| panic!("no {action} among {all:?}"))
    }
}

/// Others who share the API server see every Tenant there is.
impl Drop for House {
    fn drop(&mut self) {
        let namespace = self.namespace.clone();
        // A thread with a runtime of its own: the test's may be unwinding.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let kubeconfig = Kubeconfig::read_from(cluster::variable("MOS_TEST_KUBECONFIG")).unwrap();
                let config =
                    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
                let tenants: Api<Tenant> = Api::namespaced(Client::try_from(config).unwrap(), &namespace);
                tenants.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
            });
        });
        if cleaner.join().is_err() {
            eprintln!("could not remove the Tenants in {}", self.namespace);
        }
    }
}

pub fn code(secret: &[u8], second: i64) -> String {
    let totp = Builder::new().with_secret(Secret::from(secret)).build().unwrap();
    totp.generate(u64::try_from(second).unwrap()).to_string()
}

pub async fn plan(client: &Client, name: &str, price: &str) -> Plan {
    let plan: Plan = serde_json::from_value(json!({
        "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Plan", "metadata": {"name": name},
        "spec": {"displayName": name.to_uppercase(), "price": price}
    }))
    .unwrap();
    let apply = PatchParams::apply("portal-tests").force();
    Api::<Plan>::all(client.clone()).patch(&plan.name_any(), &apply, &Patch::Apply(&plan)).await.unwrap()
}

fn merge(target: &mut Value, more: Value) {
    match (target, more) {
        (Value::Object(target), Value::Object(more)) => {
            for (key, value) in more {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, more) => *target = more,
    }
}
