//! The stretch of wire between a client's socket and the protocol library: pads frames, adds latency, can be cut.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frames::{OpenLimiter, Padder};

/// Bytes that may wait inside the wire, each way.
pub(super) const BUFFER: usize = 256 * 1024;

/// Reads under way to the client; with [`BUFFER`] this bounds what the latency holds back.
const IN_FLIGHT: usize = 64;

/// How long the other direction may go on once one has ended.
const LINGER: Duration = Duration::from_secs(2);

/// Moves bytes both ways until one side is done or `cut` fires; a cut drops the socket without a word.
pub(super) async fn relay<S>(client: S, server: DuplexStream, latency: Duration, cut: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (client_reader, client_writer) = tokio::io::split(client);
    let (server_reader, server_writer) = tokio::io::split(server);
    let both = async {
        let mut inward = pin!(to_server(client_reader, server_writer));
        let mut outward = pin!(to_client(server_reader, client_writer, latency));
        let (ended, other) = tokio::select! {
            ended = &mut inward => (ended, tokio::time::timeout(LINGER, outward).await),
            ended = &mut outward => (ended, tokio::time::timeout(LINGER, inward).await),
        };
        for error in [ended.err(), other.ok().and_then(Result::err)].into_iter().flatten() {
            tracing::debug!(%error, "AMQP connection broke");
        }
    };
    cut.run_until_cancelled(both).await;
}

async fn to_server<R, W>(mut client: R, mut server: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut limiter = OpenLimiter::default();
    let mut buffer = BytesMut::with_capacity(BUFFER / 4);
    while client.read_buf(&mut buffer).await? > 0 {
        let bytes = limiter.push(&buffer.split());
        server.write_all(&bytes).await?;
    }
    server.shutdown().await
}

/// Every byte leaves `latency` after it was written: clients of the Rust SDK's protocol version mistake answers that
/// come faster than their own bookkeeping (<https://github.com/minghuaw/fe2o3-amqp/issues/305>).
async fn to_client<R, W>(mut server: R, mut client: W, latency: Duration) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (sender, mut receiver) = mpsc::channel::<(Instant, BytesMut)>(IN_FLIGHT);
    let read = async move {
        let mut padder = Padder::default();
        let mut buffer = BytesMut::with_capacity(BUFFER / 4);
        while server.read_buf(&mut buffer).await? > 0 {
            let bytes = padder.push(&buffer.split());
            if !bytes.is_empty() && sender.send((Instant::now() + latency, bytes)).await.is_err() {
                break;
            }
        }
        Ok::<_, io::Error>(())
    };
    let write = async {
        while let Some((due, bytes)) = receiver.recv().await {
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            client.write_all(&bytes).await?;
        }
        client.shutdown().await
    };
    tokio::try_join!(read, write).map(|((), ())| ())
}
