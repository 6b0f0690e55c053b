//! The raw driver: the claim's statements and the Secret, and nothing that could be left out.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use maintenance_os::desired::catalogue::Catalogue;
use maintenance_os::desired::database::{self, Wanted};
use maintenance_os::desired::names::Slot;
use maintenance_os::desired::scram::Credential;
use maintenance_os::desired::sql::{Batch, Statement};
use sqlx::{AssertSqlSafe, Executor};
use uuid::Uuid;

use crate::Outcome;
use crate::cluster::Cluster;

/// More is not faster: there are eight connections to the server.
const AT_A_TIME: usize = 32;

fn random() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    now ^ (u128::from(std::process::id()) << 96)
}

/// Claims one database and writes one Secret.
pub async fn provision(cluster: &Cluster, database: &str, secret: &str) -> Outcome<()> {
    let credential = Credential::new(format!("raw-{}", random()));
    let wanted = Wanted {
        uuid: Uuid::from_u128(random()),
        object_uid: Uuid::from_u128(1),
        epoch: 0,
        connection_limit: 25,
        statement_timeout: Duration::from_secs(30),
        login: true,
        read_only: false,
        slot: Slot::A,
        verifier: credential.verifier.clone(),
        kept: None,
    };
    let mut catalogue = Catalogue::default();
    catalogue.execute(&Statement::CreateDatabase { name: database.into(), template: String::new() });
    let batch = database::claim(&wanted, &catalogue, database, "raw");
    run(cluster, &batch).await?;
    let mut object = Secret {
        data: Some([("password".to_owned(), ByteString(credential.password.into_bytes()))].into()),
        ..Secret::default()
    };
    object.metadata.name = Some(secret.into());
    object.metadata.labels = Some([("bench".to_owned(), "raw".to_owned())].into());
    cluster.secrets().create(&PostParams::default(), &object).await?;
    Ok(())
}

/// Runs a batch as one message.
pub async fn run(cluster: &Cluster, batch: &Batch) -> Outcome<()> {
    cluster.pool.acquire().await?.execute(sqlx::raw_sql(AssertSqlSafe(batch.text()))).await?;
    Ok(())
}

/// Provisions many at once; how long it took.
pub async fn provision_all(cluster: &Cluster, databases: &[(String, String)]) -> Outcome<Duration> {
    let begun = Instant::now();
    let work = futures::stream::iter(databases).map(|(database, secret)| provision(cluster, database, secret));
    work.buffer_unordered(AT_A_TIME).try_collect::<Vec<_>>().await?;
    Ok(begun.elapsed())
}

/// Clones the template many times, two at a time; how long it took.
pub async fn clone_all(cluster: &Cluster, count: usize) -> Outcome<Duration> {
    let template = cluster.template().await?;
    let begun = Instant::now();
    let clones = futures::stream::iter(0..count).map(|number| {
        let batch = Batch::alone(Statement::CreateDatabase {
            name: format!("bench_raw_c{number}"),
            template: template.clone(),
        });
        async move { run(cluster, &batch).await }
    });
    clones.buffer_unordered(2).try_collect::<Vec<_>>().await?;
    Ok(begun.elapsed())
}
