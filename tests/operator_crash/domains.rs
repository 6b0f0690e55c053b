//! Customers' own hosts: claimed, proved at a real name server, lost, taken over.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::api::{Patch, PatchParams, PostParams};
use maintenance_os::api::tenant::{Tenant, TenantStatus};
use maintenance_os::apply::gate::Gate;
use serde_json::json;

use crate::operator::Operator;
use crate::world::{World, until};

/// A host's customer's name server: CoreDNS with a zone that the test writes.
struct NameServer {
    directory: tempfile::TempDir,
    address: SocketAddr,
    serial: u32,
    process: Option<Child>,
}

impl NameServer {
    fn new() -> Self {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut server = Self {
            directory: tempfile::tempdir().unwrap(),
            address: free.local_addr().unwrap(),
            serial: 0,
            process: None,
        };
        drop(free);
        let zone = server.directory.path().join("zone");
        let corefile = format!(
            "acme.test:{} {{\n bind 127.0.0.1\n file {} acme.test {{\n reload 100ms\n }}\n}}\n",
            server.address.port(),
            zone.display()
        );
        std::fs::write(server.directory.path().join("Corefile"), corefile).unwrap();
        server.say(&[]);
        server.start();
        server
    }

    fn start(&mut self) {
        let corefile = self.directory.path().join("Corefile");
        let mut command = Command::new("coredns");
        command.arg("-conf").arg(corefile).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("coredns is in PATH: run `make test-code`"));
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// From now on these are the TXT records of the zone.
    fn say(&mut self, records: &[(&str, &str)]) {
        self.serial += 1;
        let mut zone =
            format!("$TTL 1\n@ IN SOA ns hostmaster {} 1 1 1 1\n@ IN NS ns\nns IN A 127.0.0.1\n", self.serial);
        for (name, value) in records {
            zone.push_str(&format!("{name}. IN TXT \"{value}\"\n"));
        }
        let next = self.directory.path().join("next");
        std::fs::write(&next, zone).unwrap();
        std::fs::rename(next, self.directory.path().join("zone")).unwrap();
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn create(world: &World, name: &str, hosts: &[&str]) {
    let domains: Vec<_> = hosts.iter().map(|host| json!({ "host": host, "primary": true })).collect();
    let tenant = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant", "metadata": { "name": name },
        "spec": { "displayName": format!("{name} GmbH"), "planRef": { "name": "pro" }, "domains": domains } });
    world.tenants().create(&PostParams::default(), &serde_json::from_value(tenant).unwrap()).await.unwrap();
}

async fn status(world: &World, name: &str) -> TenantStatus {
    world.tenants().get(name).await.unwrap().status.unwrap_or_default()
}

/// Status, reason and message of `DomainsVerified`.
async fn verified(world: &World, name: &str) -> (String, String, String) {
    let conditions = status(world, name).await.conditions;
    let found = conditions.into_iter().find(|condition| condition.type_ == "DomainsVerified");
    found.map_or_else(Default::default, |condition| (condition.status, condition.reason, condition.message))
}

async fn wait_for(world: &World, name: &str, expected: (&str, &str), words: &str) {
    until(&format!("{name} says {expected:?} {words:?}"), async || {
        let (status, reason, message) = verified(world, name).await;
        let found = (status.as_str(), reason.as_str()) == expected && message.contains(words);
        found.then_some(()).ok_or_else(|| format!("{status} {reason} {message}"))
    })
    .await;
}

async fn wait_for_host(world: &World, host: &str, slug: Option<&str>) {
    until(&format!("{host} is routed to {slug:?}"), async || {
        let hosts = world.hosts().await;
        let said = verified(world, slug.unwrap_or("acme")).await;
        (hosts.get(host).map(String::as_str) == slug).then_some(()).ok_or_else(|| format!("{hosts:?}, {said:?}"))
    })
    .await;
}

/// The record that the status asks for.
async fn record(world: &World, name: &str) -> (String, String) {
    let challenge = status(world, name).await.domains[0].challenge.clone().expect("the record is shown");
    assert_eq!(challenge.type_, "TXT");
    (challenge.record, challenge.value)
}

/// Has the proof looked for now, as a person does who has just added the record.
async fn ask(world: &World, name: &str) {
    let asked = json!({ "metadata": { "annotations": { "tenancy.maintenance-os.com/check-domains": uuid::Uuid::new_v4().to_string() } } });
    let _: Tenant = world.tenants().patch(name, &PatchParams::default(), &Patch::Merge(asked)).await.unwrap();
}

fn settings(world: &mut World, dns: SocketAddr, grace: &str) {
    let settings = ["--dns-servers", &dns.to_string(), "--domain-recheck", "1s", "--domain-grace", grace];
    world.arguments = settings.map(str::to_owned).into();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_proves_a_host_is_served_at_it_and_whoever_asked_first_is_told() {
    let (mut dns, mut world) = (NameServer::new(), World::new("domains").await);
    settings(&mut world, dns.address, "1h");
    let operator = Operator::start(&world, Gate::default()).await;
    world.wait_for_server().await;
    create(&world, "squatter", &["shop.acme.test"]).await;
    wait_for(&world, "squatter", ("False", "DomainUnverified"), "no such record is seen yet").await;
    create(&world, "acme", &["shop.acme.test"]).await;
    world.wait_until_ready().await;
    wait_for(&world, "acme", ("False", "DomainUnverified"), "no such record is seen yet").await;
    assert_eq!(status(&world, "acme").await.primary_host.as_deref(), Some("acme.maintenance-os.com"));
    let (name, value) = record(&world, "acme").await;
    assert_eq!(name, "_maintenance-os-challenge.shop.acme.test");
    assert_ne!(value, record(&world, "squatter").await.1, "the record is bound to the tenant");
    // Another's record, and one of another host, prove nothing.
    let elsewhere = status(&world, "squatter").await.uuid.unwrap();
    dns.say(&[(&name, &elsewhere)]);
    ask(&world, "acme").await;
    wait_for(&world, "acme", ("False", "DomainUnverified"), "with another value").await;
    assert!(!world.hosts().await.contains_key("shop.acme.test"));

    dns.say(&[(&name, "v=somebody else's"), (&name, &value)]);
    ask(&world, "acme").await;
    wait_for_host(&world, "shop.acme.test", Some("acme")).await;
    wait_for(&world, "acme", ("True", "Active"), "shop.acme.test").await;
    assert_eq!(status(&world, "acme").await.primary_host.as_deref(), Some("shop.acme.test"));
    wait_for(&world, "squatter", ("False", "DomainConflict"), "belongs to another Tenant").await;
    // Also with a proof of its own: the host is taken.
    let theirs = record(&world, "squatter").await.1;
    dns.say(&[(&name, &value), (&name, &theirs)]);
    ask(&world, "squatter").await;
    tokio::time::timeout(Duration::from_secs(3), wait_for_host(&world, "shop.acme.test", Some("squatter")))
        .await
        .unwrap_err();

    // The new operator knows what was proved, also where no name server answers.
    dns.stop();
    operator.kill();
    let operator = Operator::start(&world, Gate::default()).await;
    world.wait_until_ready().await;
    wait_for(&world, "acme", ("True", "Active"), "shop.acme.test").await;
    assert_eq!(world.hosts().await.get("shop.acme.test").map(String::as_str), Some("acme"));

    // Its owner gives it up, and the other one's proof counts.
    dns.start();
    let none = json!({ "spec": { "domains": [] } });
    world.tenants().patch("acme", &PatchParams::default(), &Patch::Merge(none)).await.unwrap();
    ask(&world, "squatter").await;
    wait_for_host(&world, "shop.acme.test", Some("squatter")).await;
    operator.kill();
    world.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_that_goes_away_warns_and_ends_the_host_and_name_servers_that_are_away_do_not() {
    let (mut dns, mut world) = (NameServer::new(), World::new("proof").await);
    settings(&mut world, dns.address, "6s");
    let operator = Operator::start(&world, Gate::default()).await;
    world.wait_for_server().await;
    create(&world, "acme", &["desk.acme.test"]).await;
    wait_for(&world, "acme", ("False", "DomainUnverified"), "TXT").await;
    let (name, value) = record(&world, "acme").await;
    dns.say(&[(&name, &value)]);
    ask(&world, "acme").await;
    wait_for_host(&world, "desk.acme.test", Some("acme")).await;

    dns.stop();
    let lost = wait_for_host(&world, "desk.acme.test", None);
    tokio::time::timeout(Duration::from_secs(9), lost).await.expect_err("unreachable is not absent");
    wait_for(&world, "acme", ("True", "Active"), "desk.acme.test").await;

    dns.say(&[]);
    dns.start();
    wait_for(&world, "acme", ("False", "DomainUnverified"), "is served until").await;
    assert_eq!(world.hosts().await.get("desk.acme.test").map(String::as_str), Some("acme"), "there is time to mend it");
    dns.say(&[(&name, &value)]);
    wait_for(&world, "acme", ("True", "Active"), "desk.acme.test").await;
    dns.say(&[]);
    wait_for(&world, "acme", ("False", "DomainUnverified"), "is not served yet").await;
    wait_for_host(&world, "desk.acme.test", None).await;
    assert_eq!(status(&world, "acme").await.primary_host.as_deref(), Some("acme.maintenance-os.com"));
    operator.kill();
    world.remove().await;
}
