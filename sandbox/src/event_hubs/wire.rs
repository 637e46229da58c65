//! The stretch of wire between a client's socket and the protocol library: pads frames, adds latency, can be cut.
//!
//! Why latency at all: the protocol library inside the Rust SDK (0.16.2) forgets or misroutes frames that arrive before
//! its own bookkeeping is done. Clients of the real service, which is never that near, do not see it.
//! - A settlement that comes before the delivery is noted is dropped, and the call never returns
//!   (<https://github.com/minghuaw/fe2o3-amqp/issues/305>): so every byte leaves [`HubAccess::latency`] late, and
//!   settlements later still.
//! - It drops a session right after its links, and answers to those detaches that come in between end in "Session is
//!   not found" and a closed connection: so they wait a little longer, and the session's end makes them moot.
//!
//! [`HubAccess::latency`]: super::HubAccess::latency

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frames::{FrameKind, OpenLimiter, Padder};

/// Bytes that may wait between protocol library and wire, each way.
pub(super) const BUFFER: usize = 256 * 1024;

/// Bytes that the latency may hold back before no more are taken.
const HELD_BACK: usize = 4 * 1024 * 1024;

/// How much longer a settlement waits.
///
/// The latency alone is enough on an idle machine; with several busy test processes on two processors a management
/// call was seen to hang. No wait is long enough for every load, so clients must bound their calls anyway.
const SETTLE_HOLD: Duration = Duration::from_millis(12);

/// How much longer an answer to a detach waits for the client to end the session.
///
/// On a loaded machine the two were seen up to 6 ms apart; a client that closes a link by itself waits this long.
const DETACH_HOLD: Duration = Duration::from_millis(40);

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

async fn to_client<R, W>(mut server: R, mut client: W, latency: Duration) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut padder = Padder::default();
    let mut schedule = Schedule::new(latency);
    let mut buffer = BytesMut::with_capacity(BUFFER / 4);
    let mut open = true;
    while open || schedule.next_due().is_some() {
        let due = schedule.next_due();
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                while let Some(bytes) = schedule.pop_due(Instant::now()) {
                    client.write_all(&bytes).await?;
                }
            }
            read = server.read_buf(&mut buffer), if open && schedule.held < HELD_BACK => {
                open = read? > 0;
                let now = Instant::now();
                padder.push(&buffer.split(), |kind, frame| schedule.put(now, kind, frame));
            }
        }
    }
    client.shutdown().await
}

/// What is on its way to the client, by the time it leaves.
#[derive(Debug)]
struct Schedule {
    latency: Duration,
    queue: BTreeMap<(Instant, u64), Held>,
    /// Sessions with a detach on hold: whatever follows on the channel waits behind it.
    holds: BTreeMap<u16, Instant>,
    serial: u64,
    held: usize,
}

#[derive(Debug)]
struct Held {
    /// The channel of a single frame; none for a run of frames that nothing holds up.
    channel: Option<u16>,
    bytes: BytesMut,
}

impl Schedule {
    fn new(latency: Duration) -> Self {
        Self { latency, queue: BTreeMap::new(), holds: BTreeMap::new(), serial: 0, held: 0 }
    }

    fn next_due(&self) -> Option<Instant> {
        self.queue.keys().next().map(|(due, _)| *due)
    }

    fn put(&mut self, now: Instant, kind: FrameKind, frame: &[u8]) {
        let soon = now + self.latency;
        self.holds.retain(|_, until| *until > soon);
        let (channel, hold) = match kind {
            FrameKind::End(channel) => {
                if self.holds.remove(&channel).is_some() {
                    self.forget(channel);
                }
                (channel, Duration::ZERO)
            }
            FrameKind::DetachReply(channel) => (channel, DETACH_HOLD),
            FrameKind::Settlement(channel) => (channel, SETTLE_HOLD),
            FrameKind::Other(channel) => (channel, Duration::ZERO),
        };
        let hold = if self.latency.is_zero() { Duration::ZERO } else { hold };
        let due = self.holds.get(&channel).map_or(soon, |until| soon.max(*until)).max(soon + hold);
        if due > soon {
            self.holds.insert(channel, due);
            self.push(due, Some(channel), frame);
        } else {
            self.append(soon, frame);
        }
    }

    /// Drops what still waits on a channel.
    fn forget(&mut self, channel: u16) {
        let held = &mut self.held;
        self.queue.retain(|_, waiting| {
            let keep = waiting.channel != Some(channel);
            *held -= if keep { 0 } else { waiting.bytes.len() };
            keep
        });
    }

    /// Puts a frame behind those that leave at the same time, in one run with them where it can.
    fn append(&mut self, due: Instant, frame: &[u8]) {
        if let Some(mut last) = self.queue.last_entry()
            && last.key().0 == due
            && last.get().channel.is_none()
        {
            last.get_mut().bytes.extend_from_slice(frame);
            self.held += frame.len();
        } else {
            self.push(due, None, frame);
        }
    }

    fn push(&mut self, due: Instant, channel: Option<u16>, frame: &[u8]) {
        let bytes = BytesMut::from(frame);
        self.serial += 1;
        self.held += bytes.len();
        self.queue.insert((due, self.serial), Held { channel, bytes });
    }

    fn pop_due(&mut self, now: Instant) -> Option<BytesMut> {
        if self.next_due()? > now {
            return None;
        }
        let (_, first) = self.queue.pop_first()?;
        self.held -= first.bytes.len();
        Some(first.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(3);

    fn drain(schedule: &mut Schedule, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| schedule.pop_due(now)).flatten().collect()
    }

    #[test]
    fn nothing_leaves_before_its_time_and_order_is_kept() {
        let mut schedule = Schedule::new(LATENCY);
        let now = Instant::now();
        schedule.put(now, FrameKind::Other(1), b"a");
        schedule.put(now, FrameKind::Other(2), b"b");
        schedule.put(now + LATENCY, FrameKind::Other(1), b"c");
        assert_eq!(schedule.next_due(), Some(now + LATENCY));
        assert!(drain(&mut schedule, now).is_empty());
        assert_eq!(drain(&mut schedule, now + LATENCY), b"ab");
        assert_eq!(drain(&mut schedule, now + 2 * LATENCY), b"c");
        assert_eq!(schedule.held, 0);
    }

    #[test]
    fn the_end_of_a_session_makes_held_detaches_moot() {
        let mut schedule = Schedule::new(LATENCY);
        let now = Instant::now();
        schedule.put(now, FrameKind::DetachReply(1), b"d");
        schedule.put(now, FrameKind::Other(1), b"x");
        schedule.put(now, FrameKind::Other(2), b"y");
        schedule.put(now, FrameKind::End(1), b"e");
        assert_eq!(drain(&mut schedule, now + LATENCY), b"ye");
        assert!(drain(&mut schedule, now + 2 * DETACH_HOLD).is_empty());
        assert_eq!(schedule.held, 0);
    }

    #[test]
    fn a_held_detach_leaves_in_the_end_with_what_waits_behind_it() {
        let mut schedule = Schedule::new(LATENCY);
        let now = Instant::now();
        schedule.put(now, FrameKind::DetachReply(1), b"d");
        schedule.put(now, FrameKind::Other(1), b"x");
        schedule.put(now, FrameKind::Other(2), b"y");
        assert_eq!(drain(&mut schedule, now + LATENCY), b"y");
        assert_eq!(drain(&mut schedule, now + LATENCY + DETACH_HOLD), b"dx");
        schedule.put(now + DETACH_HOLD + LATENCY, FrameKind::Other(1), b"z");
        assert_eq!(schedule.next_due(), Some(now + DETACH_HOLD + 2 * LATENCY));
    }

    #[test]
    fn settlements_wait_longer_and_keep_their_order() {
        let mut schedule = Schedule::new(LATENCY);
        let now = Instant::now();
        schedule.put(now, FrameKind::Settlement(1), b"s");
        schedule.put(now, FrameKind::Settlement(1), b"t");
        schedule.put(now, FrameKind::Other(1), b"x");
        schedule.put(now, FrameKind::Other(2), b"y");
        assert_eq!(drain(&mut schedule, now + LATENCY), b"y");
        assert_eq!(drain(&mut schedule, now + LATENCY + SETTLE_HOLD), b"stx");
    }

    #[test]
    fn without_latency_nothing_is_held() {
        let mut schedule = Schedule::new(Duration::ZERO);
        let now = Instant::now();
        schedule.put(now, FrameKind::DetachReply(1), b"d");
        assert_eq!(drain(&mut schedule, now), b"d");
    }
}
