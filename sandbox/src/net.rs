//! Loopback listeners, and HTTP over them: HTTP/1.1 and HTTP/2, plain or TLS, with a graceful stop.
//!
//! Owns sockets and connections. Routes belong to the protocol folders; AMQP has its own server in `event_hubs/`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Largest TCP segment of accepted connections, in bytes.
///
/// Python's pyamqp sets `TCP_MAXSEG` to the value it reads; loopback reports 32768, Linux refuses more than 32767, and
/// the client fails with "Invalid argument". A listening socket hands its value down to what it accepts.
const SEGMENT_BYTES: u32 = 16_384;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long requests in flight may go on after a stop, before their connections are dropped.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Pause after a failed accept (out of descriptors, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens on 127.0.0.1 only; port 0 takes a free one.
#[expect(clippy::unused_async, reason = "needs a running reactor, which an async signature makes visible")]
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_mss(SEGMENT_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves a router until `stop`; returns when the last connection has ended, at most a few seconds later.
///
/// With TLS, HTTP/2 is chosen by ALPN (give `h2` to `TlsAuthority::server_config`) or by its preface.
pub async fn serve_router(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stop: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let connections = TaskTracker::new();
    while let Some(stream) = accept(&listener, &stop).await {
        let acceptor = acceptor.clone();
        let router = router.clone();
        let stop = stop.clone();
        connections.spawn(async move {
            match acceptor {
                None => serve_connection(stream, router, stop).await,
                Some(acceptor) => {
                    let Some(stream) = handshake(&acceptor, stream, &stop).await else {
                        return;
                    };
                    serve_connection(stream, router, stop).await;
                }
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// Waits for the next connection; none means stop.
pub(crate) async fn accept(listener: &TcpListener, stop: &CancellationToken) -> Option<TcpStream> {
    loop {
        let accepted = stop.run_until_cancelled(listener.accept()).await?;
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "connection without TCP_NODELAY");
                }
                return Some(stream);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                stop.run_until_cancelled(tokio::time::sleep(ACCEPT_PAUSE)).await?;
            }
        }
    }
}

/// Speaks TLS to a fresh connection; none when the client does not, or on stop.
pub(crate) async fn handshake<S>(
    acceptor: &TlsAcceptor,
    stream: S,
    stop: &CancellationToken,
) -> Option<tokio_rustls::server::TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limited = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream));
    match stop.run_until_cancelled(limited).await? {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("TLS handshake took too long");
            None
        }
    }
}

async fn serve_connection<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_LIMIT, connection.as_mut()).await.ok()
        }
    };
    match ended {
        Some(Err(error)) => tracing::debug!(%error, "HTTP connection ended"),
        Some(Ok(())) => {}
        None => tracing::debug!("HTTP connection dropped after the drain limit"),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;
    use crate::tls::TlsAuthority;

    fn client(ca: Option<&std::path::Path>, only_h2: bool) -> reqwest::Client {
        let mut builder = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy();
        if let Some(path) = ca {
            let pem = std::fs::read(path).unwrap();
            builder = builder.tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]);
        }
        if only_h2 {
            builder = builder.http2_prior_knowledge();
        }
        builder.build().unwrap()
    }

    fn router() -> Router {
        Router::new().route("/", get(|version: axum::http::Version| async move { format!("{version:?}") }))
    }

    #[tokio::test]
    async fn a_plain_listener_speaks_both_versions_and_stops() {
        crate::tls::install_crypto_provider();
        let listener = bind(0).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve_router(listener, None, router(), stop.clone()));
        let http1 = client(None, false);
        assert_eq!(http1.get(&url).send().await.unwrap().text().await.unwrap(), "HTTP/1.1");
        let http2 = client(None, true);
        assert_eq!(http2.get(&url).send().await.unwrap().text().await.unwrap(), "HTTP/2.0");
        stop.cancel();
        server.await.unwrap();
        assert!(http1.get(&url).send().await.is_err());
    }

    #[tokio::test]
    async fn a_tls_listener_is_trusted_by_name_and_address_and_chooses_by_alpn() {
        let dir = tempfile::tempdir().unwrap();
        let authority = TlsAuthority::create(dir.path()).unwrap();
        let listener = bind(0).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = CancellationToken::new();
        let config = authority.server_config(&[b"h2", b"http/1.1"]);
        let server = tokio::spawn(serve_router(listener, Some(config), router(), stop.clone()));
        let client = client(Some(authority.ca_path()), false);
        for host in ["localhost", "127.0.0.1"] {
            let answer = client.get(format!("https://{host}:{port}/")).send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), "HTTP/2.0");
        }
        stop.cancel();
        server.await.unwrap();
    }
}
