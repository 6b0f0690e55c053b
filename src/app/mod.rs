//! app

use tokio_util::sync::CancellationToken;

use crate::settings::AppSettings;

/// Runs until `stop`.
pub async fn run(settings: Box<AppSettings>, stop: CancellationToken) -> anyhow::Result<()> {
    drop((settings, stop));
    anyhow::bail!("not there yet")
}
