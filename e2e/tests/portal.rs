//! The admin portal answers at its own host, through the edge, and the audit trail is as it was written.

use kube::api::{Api, Patch, PatchParams};
use maintenance_os::api::Tenant;
use maintenance_os_e2e::{OPERATOR, World, edge, promise, within};
use serde_json::json;
use tokio::process::Command;

/// The central database.
const CENTRAL: &str = "maintenance_os_central";

#[tokio::test]
async fn the_portal_answers_at_its_own_host_alone_and_tells_a_stranger_nothing() {
    promise(async |world| {
        edge::serves_page("admin.maintenance-os.com", "/sign-in", "Sign in").await;
        let address = world.address(OPERATOR, "maintenance-os-portal").await;
        let ask = async |host: &str, path: &str| {
            let request = world.http.get(format!("http://{address}{path}")).header("host", host);
            let answer = request.send().await.unwrap_or_else(|error| panic!("asking {host}{path}: {error}"));
            (answer.status().as_u16(), answer.text().await.unwrap_or_default())
        };
        for host in ["acme.maintenance-os.com", "maintenance-os.com", "admin.maintenance-os.com.evil.example"] {
            assert_eq!(ask(host, "/sign-in").await.0, 421, "{host}");
        }
        for path in ["/", "/tenants", "/tenants/customers/acme", "/log", "/admins"] {
            let (status, body) = ask("admin.maintenance-os.com", path).await;
            assert!(status != 200 || body.contains("Sign in"), "{path}: {status}");
            assert!(!body.contains("Acme") && !body.contains("acme"), "{path} tells of a tenant: {body}");
        }
        // A tenant's host does not lead there.
        let tenant = world.get("acme", "/sign-in").await;
        assert!(!tenant.body.contains("Admin portal"), "{}", tenant.body);
    })
    .await;
}

#[tokio::test]
async fn what_is_done_to_a_tenant_stands_in_the_trail_and_cannot_be_taken_out_unseen() {
    promise(async |world| {
        let name = World::name("trail");
        let uuid = world.ready(&name, json!({})).await;
        let tenants: Api<Tenant> = world.tenants();
        let suspended = Patch::Merge(json!({ "spec": { "state": "Suspended" } }));
        tenants.patch(&name, &PatchParams::default(), &suspended).await.expect("suspending it");
        let rows = format!("SELECT count(*) FROM audit_logs WHERE tenant_uuid = '{uuid}'");
        within(30, "the trail tells of it", async || {
            let count = world.psql(CENTRAL, &rows).await;
            if count[0].parse::<i64>().is_ok_and(|count| count >= 2) { Ok(()) } else { Err(format!("{count:?}")) }
        })
        .await;
        let before = verify().await.expect("the trail is whole");
        assert!(before.contains("as they were written"), "{before}");
        let forbidden = format!("DELETE FROM audit_logs WHERE tenant_uuid = '{uuid}'");
        world.try_psql(CENTRAL, &forbidden).await.expect_err("not even the superuser removes an entry by mistake");
        world.delete_wholly(&name).await;
        verify().await.expect("a delete keeps the trail");
        assert!(world.psql(CENTRAL, &rows).await[0].parse::<i64>().expect("a number") >= 2, "the trail stays");
    })
    .await;
}

/// What `maintenance-os audit verify` says in a pod.
async fn verify() -> Result<String, String> {
    let arguments =
        ["-n", OPERATOR, "exec", "deploy/maintenance-os-operator", "--", "maintenance-os", "audit", "verify"];
    let output = Command::new("kubectl").args(arguments).output().await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))) }
}
