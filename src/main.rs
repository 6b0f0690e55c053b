//! Parses arguments and starts one role.

use clap::Parser;
use maintenance_os::settings::{Cli, Role};
use maintenance_os::{app, audit, backup, billing, controller, generate, pooler, portal, telemetry};

// Gives memory back after a peak (a list that is read at once, an inventory), which the one of libc keeps.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        Role::Worker(settings) => app::run_worker(settings, stop).await,
        Role::Backup(settings) => backup::run(*settings, stop).await,
        Role::Billing(settings) => billing::run(*settings, stop).await,
        Role::Portal(settings) => portal::run(*settings, stop).await,
        Role::Audit(settings) => audit::run(*settings).await,
        Role::PoolerAgent(settings) => pooler::run(settings, stop).await,
        Role::Crds(_) => Ok(()),
    }
}
