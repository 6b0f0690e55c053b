//! A customer's own host is served once it is proved, over TLS, through the edge; and by nobody else.

use maintenance_os::desired::edge;
use maintenance_os_e2e::{OPERATOR, World, edge as front, promise, within};
use serde_json::json;

/// Waits for `DomainsVerified` of a Tenant; its message.
async fn verified(world: &World, name: &str, status: &str, reason: &str) -> String {
    within(40, &format!("DomainsVerified of {name} is {status} {reason}"), async || {
        let found = world.condition(name, "DomainsVerified").await.ok_or("no such condition")?;
        let is_so = found.status == status && found.reason == reason;
        if is_so { Ok(found.message) } else { Err(format!("{} {}: {}", found.status, found.reason, found.message)) }
    })
    .await
}

#[tokio::test]
async fn a_customers_own_host_is_served_once_it_is_proved_and_goes_with_its_tenant() {
    promise(async |world| {
        let name = World::name("host");
        let host = format!("{name}.kunde.test");
        world.ready(&name, json!({ "domains": [{ "host": host, "primary": true }] })).await;
        let message = verified(world, &name, "False", "DomainUnverified").await;
        assert!(message.contains(&format!("_maintenance-os-challenge.{host} TXT")), "{message}");
        assert_eq!(front::app(world, &host).await.0, 404, "nobody is served at a host that is not proved");

        let status = world.tenants().get(&name).await.expect("the Tenant is there").status.expect("a status");
        let challenge = status.domains[0].challenge.clone().expect("the record is shown");
        front::dns(&["txt", &challenge.record, &challenge.value]).await;
        let check = json!({ "metadata": { "annotations": { "tenancy.maintenance-os.com/check-domains": "now" } } });
        world.merge(&world.tenants(), &name, &check).await;
        // The app serves it at once; its certificate is for somebody else to bring.
        let message = verified(world, &name, "False", "CertificatePending").await;
        assert!(message.contains(&edge::certificate(&host)), "{message}");
        assert!(front::app(world, &host).await.1.contains(&format!("Tenant {name}")));

        front::certificate(world, &host).await;
        verified(world, &name, "True", "Active").await;
        let primary =
            world.tenants().get(&name).await.expect("the Tenant is there").status.expect("a status").primary_host;
        assert_eq!(primary.as_deref(), Some(host.as_str()));
        front::serves(&host, &format!("Tenant {name}")).await;
        // The whole fleet's hosts pass the same edge by one wildcard.
        front::serves("acme.maintenance-os.com", "Acme").await;

        // Another mode serves the same hosts, and nothing of the one before is left.
        world.set_edge_mode("ingress").await;
        within(60, "an Ingress has taken the place of the route", async || {
            let left = front::objects(world, &host).await;
            if left == ["Ingress"] { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        front::serves(&host, &format!("Tenant {name}")).await;
        world.set_edge_mode("gateway").await;
        within(60, "a route and a listener have taken the place of the Ingress", async || {
            let left = front::objects(world, &host).await;
            if left == ["HTTPRoute", "listener"] { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        front::serves(&host, &format!("Tenant {name}")).await;

        world.delete_wholly(&name).await;
        within(40, "nothing of the host is left at the edge", async || {
            let left = front::objects(world, &host).await;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        assert_eq!(front::app(world, &host).await.0, 404);
        front::dns(&["forget", &challenge.record]).await;
        world.kill(&world.secrets(OPERATOR), &edge::certificate(&host)).await;
    })
    .await;
}
