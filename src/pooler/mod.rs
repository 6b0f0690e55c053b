//! pooler

use tokio_util::sync::CancellationToken;

use crate::settings::PoolerAgentSettings;

/// Runs until `stop`.
pub async fn run(settings: PoolerAgentSettings, stop: CancellationToken) -> anyhow::Result<()> {
    drop((settings, stop));
    anyhow::bail!("not there yet")
}
