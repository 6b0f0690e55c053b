//! How objects are shown and found, and what stands in them when nothing was said.

use kube::Client;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use super::rules::Kind;
use super::support::{administrator, namespace, refusal, until};
use super::{plan, server, tenant};

const GROUP: &str = "/apis/tenancy.maintenance-os.com/v1alpha1";

async fn get(client: &Client, path: &str, accept: &str) -> Value {
    let request = http::Request::get(path).header("Accept", accept).body(Vec::new()).unwrap();
    client.request(request).await.unwrap()
}

/// Columns that `kubectl get` shows, and those that `-o wide` adds.
async fn columns(client: &Client, plural: &str) -> (Vec<String>, Vec<String>) {
    let table = get(client, &format!("{GROUP}/{plural}"), "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let (shown, wide): (Vec<_>, Vec<_>) = columns.partition(|column| column["priority"] == 0);
    let names =
        |columns: Vec<&Value>| columns.iter().map(|column| column["name"].as_str().unwrap().to_uppercase()).collect();
    (names(shown), names(wide))
}

#[tokio::test]
async fn kubectl_get_shows_the_columns_of_the_readme_in_their_order() {
    let client = administrator().await;
    let expected = [
        ("tenants", "NAME PLAN READY STATUS HOST SCHEMA BACKUP AGE", "DATABASE SERVER MESSAGE"),
        ("plans", "NAME PRICE CURRENCY ACTIVE TENANTS AGE", ""),
        ("databaseservers", "NAME READY TENANTS CAPACITY WARM PROMISED BUDGET VERSION AGE", "MESSAGE"),
        ("tenantbackups", "NAME TENANT STATUS BACKUP SIZE AGE", "MESSAGE"),
        ("tenantrestores", "NAME TENANT STATUS BACKUP ROWS LIVE-ROWS AGE", "MESSAGE"),
        ("schemarollouts", "NAME TARGET PHASE WAVE DONE TOTAL FAILED PER-MINUTE LEFT AGE", "MESSAGE"),
    ];
    for (plural, shown, wide) in expected {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(columns(&client, plural).await, (words(shown), words(wide)), "{plural}");
    }
}

#[tokio::test]
async fn every_kind_has_its_short_name_the_common_category_and_a_status_of_its_own() {
    let client = administrator().await;
    for (plural, short, namespaced) in [
        ("tenants", "mten", true),
        ("plans", "mplan", false),
        ("databaseservers", "mdbs", false),
        ("schemarollouts", "mroll", false),
        ("tenantbackups", "mbackup", true),
        ("tenantrestores", "mrestore", true),
    ] {
        until(&format!("{plural} are in the discovery document"), async || {
            let resources = get(&client, GROUP, "application/json").await["resources"].clone();
            let find = |name: &str| {
                resources.as_array().into_iter().flatten().find(|resource| resource["name"] == name).cloned()
            };
            let resource = find(plural).ok_or("not there yet")?;
            assert_eq!(resource["shortNames"], json!([short]));
            assert_eq!(resource["categories"], json!(["maintenance-os"]));
            assert_eq!(resource["namespaced"], json!(namespaced));
            find(&format!("{plural}/status")).map(drop).ok_or_else(|| "no status".to_owned())
        })
        .await;
    }
}

async fn create(client: &Client, kind: &Kind, namespace: Option<&str>, name: &str, spec: Value) -> Value {
    let mut object = kind.smallest.clone();
    object["metadata"]["name"] = json!(name);
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let created =
        kind.api(client, namespace).create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await;
    serde_json::to_value(created.unwrap()).unwrap()["spec"].clone()
}

async fn names(client: &Client, kind: &Kind, namespace: Option<&str>, selector: &str) -> Result<Vec<String>, String> {
    let found = kind.api(client, namespace).list(&ListParams::default().fields(selector)).await.map_err(refusal)?;
    Ok(found.items.into_iter().filter_map(|object| object.metadata.name).collect())
}

#[tokio::test]
async fn tenants_are_found_by_their_plan_and_state_and_plans_by_whether_they_are_sold() {
    let client = administrator().await;
    let space = namespace(&client, "selected").await;
    let (tenants, plans) = (tenant::kind(), plan::kind());
    create(&client, &tenants, Some(&space), "acme", json!({"planRef": {"name": "basic"}})).await;
    create(&client, &tenants, Some(&space), "globex", json!({"state": "Suspended"})).await;
    let found = async |selector: &str| names(&client, &tenants, Some(&space), selector).await;
    assert_eq!(found("spec.planRef.name=basic").await.unwrap(), ["acme"]);
    assert_eq!(found("spec.planRef.name!=basic").await.unwrap(), ["globex"]);
    assert_eq!(found("spec.state=Suspended").await.unwrap(), ["globex"]);
    assert_eq!(found("spec.state=Active").await.unwrap(), ["acme"], "a default can be selected too");
    let refused = found("spec.displayName=Acme").await.unwrap_err();
    assert!(refused.contains("field label not supported"), "{refused}");

    let (sold, old) = (format!("sold-{space}")[..40].to_owned(), format!("gone-{space}")[..40].to_owned());
    create(&client, &plans, None, &sold, json!({})).await;
    create(&client, &plans, None, &old, json!({"active": false})).await;
    let inactive = names(&client, &plans, None, "spec.active=false").await.unwrap();
    assert!(inactive.contains(&old) && !inactive.contains(&sold), "{inactive:?}");
    for name in [&sold, &old] {
        plans.api(&client, None).delete(name, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn the_smallest_objects_are_given_the_documented_defaults() {
    let client = administrator().await;
    let space = namespace(&client, "defaults").await;
    let name = space[..40].to_owned();
    let spec = create(&client, &tenant::kind(), Some(&space), "acme", json!({})).await;
    let expected = json!({
        "displayName": "Acme GmbH", "planRef": {"name": "pro"}, "state": "Active", "deletionPolicy": "Retain",
        "deletionProtection": false
    });
    assert_eq!(spec, expected);

    let spec = create(&client, &plan::kind(), None, &name, json!({})).await;
    let expected = json!({
        "displayName": "Professional", "price": "49.00", "currency": "USD", "active": true, "limits": {},
        "database": {"poolSize": 10, "maxConnections": 25, "statementTimeout": "30s"},
        "workers": {"mode": "Shared", "weight": 1, "minProcesses": 1, "maxProcesses": 10}
    });
    assert_eq!(spec, expected);
    plan::kind().api(&client, None).delete(&name, &DeleteParams::default()).await.unwrap();

    let spec = create(&client, &server::kind(), None, &name, json!({"pooler": {"replicas": 3}})).await;
    let expected = json!({
        "connectionSecretRef": {"name": "pg-eu-1"}, "sslMode": "verify-full", "warmPool": {"size": 20},
        "capacity": {"maxTenants": 1000, "maxConnections": 400, "connectionOvercommit": 1},
        "pooler": {
            "replicas": 3, "poolMode": "transaction", "maxClientConn": 1000, "defaultPoolSize": 25, "reservePoolSize": 5,
            "reservePoolTimeout": 3, "serverLifetime": 3600
        }
    });
    assert_eq!(spec, expected, "what is left out beside a value that is given has its default too");
    server::kind().api(&client, None).delete(&name, &DeleteParams::default()).await.unwrap();
}
