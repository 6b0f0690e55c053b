//! What one looks at when something is wrong.

use tokio::process::Command;

use crate::administrator::CENTRAL;
use crate::world::World;

const LOOKS: [&str; 5] = [
    "get pods -A -o wide",
    "get databaseservers,plans,tenants -A -o wide",
    "get events -n customers --sort-by=.lastTimestamp",
    "-n maintenance-os get lease maintenance-os-operator -o jsonpath={.spec}",
    "-n maintenance-os logs -l app.kubernetes.io/component=operator --tail=60 --prefix",
];

/// Prints the state of the cluster.
pub async fn state(world: &World) {
    for look in LOOKS {
        let output = Command::new("kubectl").args(look.split(' ')).output().await;
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.unwrap_or_else(|error| format!("kubectl does not run: {error}"));
        let lines: Vec<_> = text.lines().collect();
        eprintln!("--- kubectl {look}\n{}", lines[lines.len().saturating_sub(80)..].join("\n"));
    }
    let rows = world
        .try_psql(
            CENTRAL,
            "SELECT slug, ledger_state, id, server, object_uid FROM tenants ORDER BY created_at DESC LIMIT 40",
        )
        .await;
    eprintln!("--- ledger\n{}", rows.map_or_else(|error| error, |rows| rows.join("\n")));
}
