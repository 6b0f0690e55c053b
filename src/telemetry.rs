//! Logs, the crypto provider and the stop signal.

use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Logs JSON lines to standard output; `RUST_LOG` chooses what, `info` by default.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
}

/// Chooses rustls's provider for the whole process; two are linked, so it cannot choose by itself.
pub fn install_crypto_provider() {
    // Err means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Cancelled by SIGTERM or SIGINT.
pub fn stop_signal() -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let mut term = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
        tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    token
}
