//! What somebody deletes or changes is put right; what is missing is never replaced by something empty.

use maintenance_os_e2e::{World, promise, within};
use serde_json::json;

/// Longest until something that no watch shows is put right: one resync, and the work.
fn one_resync(world: &World) -> u64 {
    world.resync + 10
}

#[tokio::test]
async fn a_binding_secret_that_was_deleted_or_changed_is_put_right() {
    promise(async |world| {
        let name = World::name("secret");
        world.ready(&name, json!({})).await;
        let secret = format!("{name}-db");
        let wanted = world.secret("customers", &secret).await.expect("the binding Secret");
        world.kill(&world.secrets("customers"), &secret).await;
        let is_right = async || {
            let now = world.secret("customers", &secret).await;
            if now.as_ref() == Some(&wanted) {
                Ok(())
            } else {
                Err(format!("keys {:?}", now.map(|now| now.into_keys().collect::<Vec<_>>())))
            }
        };
        within(10, "the deleted Secret is back", is_right).await;
        world.change_secret("customers", &secret, &[("password", "changed"), ("host", "evil.example")]).await;
        within(10, "the changed Secret is put right", is_right).await;
        world.others_are_served().await;
    })
    .await;
}

#[tokio::test]
async fn slices_that_were_deleted_or_changed_are_written_again_within_a_resync() {
    promise(async |world| {
        let name = World::name("slice");
        let uuid = world.ready(&name, json!({})).await;
        let slices = world.secrets("maintenance-os");
        let number = maintenance_os::api::slices::slice_of(uuid.parse().expect("a uuid"));
        let pooler = maintenance_os::api::slices::pooler_slice("pg-demo-1", number);
        let routing = maintenance_os::api::slices::routing_slice(number);
        for slice in [pooler, routing] {
            for damage in ["deleted", "emptied"] {
                if damage == "deleted" {
                    world.kill(&slices, &slice).await;
                } else {
                    let empty =
                        json!({ "schema": 1, "generation": 1, "epoch": 1, "entries": [], "tenants": [] }).to_string();
                    world.change_secret("maintenance-os", &slice, &[("slice.json", &empty)]).await;
                }
                within(one_resync(world), &format!("{slice}, {damage}, names the tenant again"), async || {
                    let keys = world.secret("maintenance-os", &slice).await.ok_or("there is no such Secret")?;
                    let names = keys.values().any(|document| document.contains(&uuid));
                    if names { Ok(()) } else { Err(format!("it does not name {uuid}")) }
                })
                .await;
                world.answers(15, &name, 200).await;
            }
        }
        let binding = world.binding(&name).await;
        binding.pooled(&format!("tenant_{uuid}")).await.expect("the pooler serves it");
    })
    .await;
}

#[tokio::test]
async fn logins_roles_and_grants_are_put_right_within_a_resync() {
    promise(async |world| {
        let name = World::name("drift");
        let uuid = world.ready(&name, json!({})).await;
        let (database, login) = (format!("tenant_{uuid}"), format!("tenant_{uuid}_a"));
        let acme = world.binding("acme").await.key("database").to_owned();
        // (what, damage, a query that answers t once it is right)
        let has = |right: &str| format!("SELECT NOT {right}");
        let damages = [
            (
                "the login may create databases and roles, without limit or end",
                format!("ALTER ROLE \"{login}\" CREATEDB CREATEROLE CONNECTION LIMIT 3"),
                format!("SELECT NOT (rolcreatedb OR rolcreaterole) AND rolconnlimit = -1 FROM pg_roles WHERE rolname = '{login}'"),
            ),
            (
                "PUBLIC may connect",
                format!("GRANT CONNECT ON DATABASE \"{database}\" TO PUBLIC"),
                format!("SELECT NOT EXISTS (SELECT FROM pg_database, aclexplode(datacl) WHERE datname = '{database}' AND grantee = 0)"),
            ),
            (
                "a member of another tenant",
                format!("GRANT \"{acme}\" TO \"{login}\""),
                has(&format!("pg_has_role('{login}', '{acme}', 'MEMBER')")),
            ),
            (
                "a password of its own",
                format!("ALTER ROLE \"{login}\" PASSWORD 'mine'; COMMENT ON ROLE \"{login}\" IS 'mine'"),
                format!("SELECT shobj_description(oid, 'pg_authid') <> 'mine' FROM pg_roles WHERE rolname = '{login}'"),
            ),
            (
                "a setting of its own",
                format!("ALTER ROLE \"{login}\" SET search_path = evil"),
                format!("SELECT NOT EXISTS (SELECT FROM pg_db_role_setting WHERE setrole = '\"{login}\"'::regrole)"),
            ),
            (
                "may not log in",
                format!("ALTER ROLE \"{login}\" NOLOGIN"),
                format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{login}'"),
            ),
            (
                "the limit lifted",
                format!("ALTER DATABASE \"{database}\" CONNECTION LIMIT -1"),
                format!("SELECT datconnlimit = 25 FROM pg_database WHERE datname = '{database}'"),
            ),
        ];
        let together: Vec<_> = damages.iter().map(|(_, damage, _)| format!("{damage};")).collect();
        world.psql("template1", &together.join("\n")).await;
        for (what, _, right) in &damages {
            within(one_resync(world), &format!("{what}: put right"), async || {
                let seen = world.psql("template1", right).await;
                if seen == ["t"] { Ok(()) } else { Err(format!("{seen:?}")) }
            })
            .await;
        }
        within(10, "the tenant can log in again with its binding", async || {
            world.binding(&name).await.direct(&database).await.map_err(|error| error.to_string())
        })
        .await;
        world.psql("template1", &format!("DROP ROLE \"{login}\"")).await;
        within(one_resync(world), "the dropped login is back and the host answers", async || {
            world.binding(&name).await.direct(&database).await.map_err(|error| error.to_string())
        })
        .await;
        world.answers(15, &name, 200).await;
        world.others_are_served().await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_missing_is_said_and_held_and_never_replaced() {
    promise(async |world| {
        let name = World::name("missing");
        let uuid = world.ready(&name, json!({})).await;
        world.add_asset(&name, "Pump 7").await;
        let database = format!("tenant_{uuid}");
        let away = |from: &str, to: &str| {
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{from}'; ALTER DATABASE \"{from}\" RENAME TO \"{to}\";")
        };
        world.psql("template1", &away(&database, "e2e_renamed_away")).await;
        let held = world.becomes(one_resync(world), &name, "False", "DataMissing").await;
        assert!(held.message.contains(&database), "{}", held.message);
        let serving = world.condition(&name, "Serving").await.expect("a condition Serving");
        assert_eq!(serving.status, "False");
        // Held over a whole resync and a new operator.
        world.restart_operator().await;
        let seen = maintenance_os_e2e::wait(world.resync + 5, async || {
            let databases = world.databases("tenant_%").await;
            let made = databases.iter().any(|(name, _)| *name == database);
            if made { Ok(()) } else { Err("nothing was made in its place".to_owned()) }
        });
        assert!(seen.await.is_err(), "an empty database was made in its place");
        world.becomes(5, &name, "False", "DataMissing").await;
        world.others_are_served().await;
        world.psql("template1", &away("e2e_renamed_away", &database)).await;
        world.becomes_ready(one_resync(world), &name).await;
        world.answers(15, &name, 200).await;
        assert_eq!(world.assets(&name).await, 1, "its data is back");
    })
    .await;
}
