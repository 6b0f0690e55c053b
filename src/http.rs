//! The small servers beside each role: health, metrics, acknowledgements.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{StatusCode, header};
use axum::routing::get;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// How long a client may take to send the head of a request, and how long an idle HTTP/1 connection is kept.
const HEAD: Duration = Duration::from_secs(20);
/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 4096;
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// An HTTP/2 peer that is silent for so long is asked whether it is there.
const PING: Duration = Duration::from_secs(30);
/// After a failure to accept, as when there are no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `address` until `stop`, letting requests in flight end: HTTP/1.1, and HTTP/2 without an upgrade for
/// gateways that know that we speak it.
///
/// # Errors
/// The address cannot be bound.
pub async fn serve(address: SocketAddr, router: Router, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    accept(listener, router, HEAD, stop).await;
    Ok(())
}

/// Serves `router` on a listener, see [`serve`]. `head`: how long the head of a request may take.
pub async fn accept(listener: TcpListener, router: Router, head: Duration, stop: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(PING)).max_concurrent_streams(STREAMS);
    let (graceful, room) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Small answers are not held back for more.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().call(request)
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that goes away, or sends what is no HTTP, is its own affair.
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error, "a connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// `/healthz`, always 200, and `/readyz`, 200 or 503 with the reason.
pub fn health(ready: impl Fn() -> Result<(), String> + Clone + Send + Sync + 'static) -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).route(
        "/readyz",
        get(move || {
            let answer = match ready() {
                Ok(()) => (StatusCode::OK, "ok".to_owned()),
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
            };
            async move { answer }
        }),
    )
}

/// `/metrics` in the OpenMetrics text format.
pub fn metrics(registry: Arc<Mutex<Registry>>) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let mut text = String::new();
            let registry = registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a String cannot fail");
            async move { ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text) }
        }),
    )
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, Version};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn serving(head: Duration) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let slow = get(|| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            "slow"
        });
        let who = get(|ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request<axum::body::Body>| async move {
            let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            format!("{:?} {} {host}", request.version(), peer.ip())
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = Router::new().route("/slow", slow).route("/who", who);
        (address, stop.clone(), tokio::spawn(accept(listener, router, head, stop)))
    }

    async fn raw(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn both_versions_of_http_are_spoken_and_a_handler_knows_its_peer() {
        let (address, stop, _server) = serving(HEAD).await;
        let answer = raw(address, "GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(answer.ends_with("HTTP/1.1 127.0.0.1 "), "{answer}");
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://acme.example/who").version(Version::HTTP_2);
        let answer = sender.send_request(request.body(String::new()).unwrap()).await.unwrap();
        let body = axum::body::to_bytes(axum::body::Body::new(answer.into_body()), 1000).await.unwrap();
        assert_eq!(body, "HTTP/2.0 127.0.0.1 acme.example");
        stop.cancel();
    }

    #[tokio::test]
    async fn a_request_in_flight_ends_and_an_idle_connection_is_closed_when_it_stops() {
        let (address, stop, server) = serving(HEAD).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        let slow = tokio::spawn(raw(address, "GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
        assert!(slow.await.unwrap().ends_with("slow"), "it was cut off");
        tokio::time::timeout(Duration::from_secs(5), server)
            .await
            .expect("it ends although a connection is idle")
            .unwrap();
        assert_eq!(idle.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert!(TcpStream::connect(address).await.is_err(), "nobody new gets in");
    }

    #[tokio::test]
    async fn who_does_not_finish_the_head_of_a_request_is_let_go() {
        let (address, stop, _server) = serving(Duration::from_millis(200)).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /who HTTP/1.1\r\nHos").await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), slow.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "it is still held");
        stop.cancel();
    }
}
