//! The loop.

use tokio_util::sync::CancellationToken;

use crate::settings::OperatorSettings;

/// Runs the operator until `stop`.
pub async fn run(settings: Box<OperatorSettings>, stop: CancellationToken) -> anyhow::Result<()> {
    drop((settings, stop));
    anyhow::bail!("not there yet")
}
