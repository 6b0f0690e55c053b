//! What visitors notice of rotations and changes of plan: nothing.

use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::cluster::Cluster;
use crate::load::{VISITED, under_load};
use crate::{Outcome, row};

/// Of each tenant: a thousand in all.
const ROTATIONS: usize = 20;
/// Between two changes of the Plan that all of them have.
const PLAN_CHANGES: Duration = Duration::from_secs(15);

/// Measures.
pub async fn life(cluster: &Cluster) -> Outcome<()> {
    let names = cluster.tenants_of_a_plan(VISITED).await?;
    let begun = Instant::now();
    let rotate_all = try_join_all(names.iter().map(|name| rotate(cluster, name)));
    let work = async {
        tokio::select! {
            done = rotate_all => done.map(drop),
            failed = change_plan(cluster) => failed,
        }
    };
    let (done, seen) = under_load(cluster, &names, work).await;
    cluster.set_plan_size(25).await?;
    done?;
    row(
        &format!(
            "failed requests during {} rotations and a change of Plan every {} s, {VISITED} tenants with a visitor each, {:.0} s",
            names.len() * ROTATIONS,
            PLAN_CHANGES.as_secs(),
            begun.elapsed().as_secs_f64()
        ),
        &seen.text(),
        "",
        "",
    );
    Ok(())
}

async fn rotate(cluster: &Cluster, name: &str) -> Outcome<()> {
    for round in 0..ROTATIONS {
        cluster.rotate(name, &format!("bench-{round}")).await?;
    }
    Ok(())
}

/// Until it fails.
async fn change_plan(cluster: &Cluster) -> Outcome<()> {
    for size in [20, 30].into_iter().cycle() {
        tokio::time::sleep(PLAN_CHANGES).await;
        cluster.set_plan_size(size).await?;
    }
    Ok(())
}
