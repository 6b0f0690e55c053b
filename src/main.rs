//! Parses arguments and starts one role.

use clap::Parser;
use maintenance_os::settings::{Cli, Role};
use maintenance_os::{app, controller, generate, pooler, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    telemetry::install_crypto_provider();
    if let Role::Crds(settings) = &cli.role {
        return generate::crds(&settings.directory);
    }
    telemetry::init();
    let stop = telemetry::stop_signal();
    match cli.role {
        Role::Operator(settings) => controller::run(settings, stop).await,
        Role::App(settings) => app::run(settings, stop).await,
        Role::PoolerAgent(settings) => pooler::run(settings, stop).await,
        Role::Crds(_) => Ok(()),
    }
}
