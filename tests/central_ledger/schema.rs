//! The seed's tables, and its traps.

use crate::support::{Database, Object, execute, options, url_of};
use maintenance_os::central::{AuditEntry, Central};
use sqlx::{ConnectOptions, Connection};

const TENANT: &str = "INSERT INTO tenants (name, namespace, object_name, object_uid, slug, status)
    VALUES ('x', 'customers', 'x', gen_random_uuid(), ";

#[tokio::test]
async fn every_column_and_index_of_the_seed_is_there() {
    let db = Database::new().await;
    let columns = db
        .texts("SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public'")
        .await;
    for (table, wanted) in [
        ("tenants", "id name slug status plan_id trial_ends_at metadata created_at updated_at"),
        ("domains", "id tenant_id domain is_primary is_verified created_at proved_at lost_since"),
        (
            "subscriptions",
            "id tenant_id plan_id status current_period_start current_period_end canceled_at stripe_subscription_id metadata last_event_at status_since ends_at",
        ),
        ("billing_events", "id type created received subscription_id tenant_id outcome payload"),
        ("plans", "id name slug price currency features limits is_active"),
        (
            "system_admins",
            "id email password permissions two_factor_secret last_login_at created_at must_change_password two_factor_step",
        ),
        (
            "audit_logs",
            "id tenant_id admin_id action resource_type resource_id changes ip_address user_agent created_at",
        ),
    ] {
        for column in wanted.split(' ') {
            assert!(columns.contains(&format!("{table}.{column}")), "{table}.{column} is missing");
        }
    }
    let indexes = db.texts("SELECT indexname::text FROM pg_indexes WHERE schemaname = 'public'").await;
    for index in [
        "tenants_slug",
        "tenants_status",
        "domains_tenant",
        "subscriptions_tenant",
        "audit_logs_tenant",
        "audit_logs_created",
    ] {
        assert!(indexes.contains(&format!("idx_{index}")), "idx_{index} is missing");
    }
}

#[tokio::test]
async fn migrating_again_or_from_two_operators_at_once_changes_nothing() {
    let db = Database::empty().await;
    let (one, two) = tokio::join!(db.central.migrate(), db.central.migrate());
    one.unwrap();
    two.unwrap();
    db.central.migrate().await.unwrap();
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/central/migrations")).unwrap().count();
    assert_eq!(db.number("SELECT count(*) FROM _sqlx_migrations").await, i64::try_from(files).unwrap());
}

#[tokio::test]
async fn the_migrations_need_no_superuser() {
    let db = Database::empty().await;
    let role = format!("{}_owner", db.name);
    let mut connection = options().connect().await.unwrap();
    execute(&mut connection, format!("CREATE ROLE {role} NOLOGIN; ALTER DATABASE {} OWNER TO {role}", db.name)).await;
    let url = format!("{}?options[role]={role}", url_of(&db.name));
    let central = Central::connect(&url, Some(&crate::support::ca())).await.unwrap();
    let migrated = central.migrate().await;
    let owners = db.texts("SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'").await;
    execute(&mut connection, format!("DROP DATABASE {} WITH (FORCE)", db.name)).await;
    execute(&mut connection, format!("DROP ROLE {role}")).await;
    connection.close().await.unwrap();
    migrated.unwrap();
    assert_eq!(owners, [role]);
}

#[tokio::test]
async fn t3_an_audited_tenant_can_be_deleted_and_its_entries_still_name_it() {
    let db = Database::new().await;
    let uuid = db.provisioned(&Object::new("acme")).await;
    db.central
        .audit(&AuditEntry { tenant: Some(uuid), action: "tenant.looked-at".into(), ..Default::default() })
        .await
        .unwrap();
    db.execute("DELETE FROM tenants").await;
    let entries = db
        .number(
            "SELECT count(*) FROM audit_logs WHERE tenant_id IS NULL AND tenant_slug = 'acme' AND actor = 'operator'",
        )
        .await;
    assert_eq!(entries, 3, "registered, provisioned and looked-at");
}

#[tokio::test]
async fn t6_a_nonsense_status_and_bad_slugs_are_refused() {
    let db = Database::new().await;
    assert_eq!(db.refusal(&format!("{TENANT} 'x', 'nonsense')")).await, "tenants_status_known");
    for slug in ["ADMIN", "-a", "a-", "a.b", "a_b", "", "ä", "a\n"] {
        assert_eq!(db.refusal(&format!("{TENANT} '{slug}', 'active')")).await, "tenants_slug_is_a_label", "{slug:?}");
    }
    assert_eq!(db.refusal(&format!("{TENANT} repeat('a', 64), 'active')")).await, "tenants_slug_is_a_label");
    for slug in ["admin", "www", "api"] {
        assert_eq!(db.refusal(&format!("{TENANT} '{slug}', 'active')")).await, "tenants_slug_not_reserved");
    }
    db.execute(&format!("{TENANT} repeat('a', 63), 'active')")).await;
}

#[tokio::test]
async fn t7_a_tenant_has_at_most_one_primary_host_and_hosts_are_lower_case() {
    let db = Database::new().await;
    db.register(&Object::new("acme").host("a.example", true)).await.unwrap();
    let host = |host: &str, primary: bool| {
        format!("INSERT INTO domains (tenant_id, domain, is_primary) SELECT id, '{host}', {primary} FROM tenants")
    };
    assert_eq!(db.refusal(&host("b.example", true)).await, "domains_one_primary");
    assert_eq!(db.refusal(&host("A.example", false)).await, "domains_is_a_host");
    assert_eq!(db.refusal(&host("*.example", false)).await, "domains_is_a_host");
    assert_eq!(db.refusal(&host("a.example", false)).await, "domains_domain_key");
    db.execute(&host("b.example", false)).await;
}

#[tokio::test]
async fn t22_a_second_factor_or_a_password_in_clear_is_refused_and_e_mail_knows_no_case() {
    let db = Database::new().await;
    let admin = |email: &str, password: &str, secret: &str| {
        format!(
            "INSERT INTO system_admins (email, password, two_factor_secret) VALUES ('{email}', '{password}', {secret})"
        )
    };
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA";
    assert_eq!(
        db.refusal(&admin("a@x", hash, "'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP'")).await,
        "system_admins_two_factor_secret_check"
    );
    assert_eq!(db.refusal(&admin("a@x", "secret", "NULL")).await, "system_admins_password_check");
    db.execute(&admin("a@x", hash, "'k1:AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'")).await;
    assert_eq!(db.refusal(&admin("A@X", hash, "NULL")).await, "system_admins_email_lower");
    assert_eq!(db.texts("SELECT permissions::text FROM system_admins").await, ["{}"]);
}

#[tokio::test]
async fn t23_every_time_has_a_zone() {
    let db = Database::new().await;
    let without = db.texts("SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public' AND data_type LIKE 'timestamp without%'").await;
    assert!(without.is_empty(), "{without:?}");
}

#[tokio::test]
async fn t24_a_subscription_has_one_of_stripes_statuses_and_the_newest_is_read() {
    let db = Database::new().await;
    let uuid = db.provisioned(&Object::new("acme")).await;
    assert_eq!(db.row(uuid).await.subscription, None);
    let subscription = |status: &str, start: &str, end: &str, canceled: &str| {
        format!(
            "INSERT INTO subscriptions (tenant_id, status, current_period_start, current_period_end, canceled_at)
             VALUES ('{uuid}', '{status}', '{start}', '{end}', {canceled})"
        )
    };
    assert_eq!(
        db.refusal(&subscription("paid", "2026-01-01", "2026-02-01", "NULL")).await,
        "subscriptions_status_known"
    );
    db.execute(&subscription("active", "2026-02-01Z", "2026-03-01Z", "now()")).await;
    db.execute(&subscription("past_due", "2026-01-01Z", "2026-02-01Z", "NULL")).await;
    let rows = db.central.rows().await.unwrap();
    let newest = rows[0].subscription.clone().unwrap();
    assert_eq!(newest.status, "active");
    assert_eq!(newest.current_period_end, "2026-03-01T00:00:00Z".parse().unwrap());
    assert!(newest.canceled);
}

#[tokio::test]
async fn t25_updated_at_follows_changes_and_only_changes() {
    let db = Database::new().await;
    db.provisioned(&Object::new("acme")).await;
    let updated_at = "SELECT updated_at::text FROM tenants";
    let before = db.texts(updated_at).await;
    db.execute("UPDATE tenants SET name = name").await;
    assert_eq!(db.texts(updated_at).await, before);
    db.execute("UPDATE tenants SET name = 'other'").await;
    assert_ne!(db.texts(updated_at).await, before);
}

#[tokio::test]
async fn a_plan_is_written_only_when_it_changed() {
    let db = Database::new().await;
    let id = db.central.upsert_plan(&crate::support::plan("pro", "49")).await.unwrap();
    let before = db.versions().await;
    assert_eq!(db.central.upsert_plan(&crate::support::plan("pro", "49.0")).await.unwrap(), id);
    assert_eq!(db.versions().await, before);
    assert_eq!(db.central.upsert_plan(&crate::support::plan("pro", "50.00")).await.unwrap(), id);
    assert_eq!(db.texts("SELECT price::text FROM plans WHERE slug = 'pro'").await, ["50.00"]);
    let numbers = db.number("SELECT last_value FROM plans_id_seq").await;
    assert_eq!(numbers, 3, "pro, free, and one number lost to ON CONFLICT at the change of price");
}
