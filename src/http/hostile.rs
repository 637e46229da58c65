//! Servers that answer as none should, byte by byte, for the tests of everything that calls over HTTP.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What goes out for one request.
#[derive(Debug, Clone)]
pub(crate) enum Raw {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// The first bytes, then the others again and again for as long as the client reads.
    Endless(Vec<u8>, Vec<u8>),
}

/// A server on loopback; every answer is the script's.
#[derive(Debug, Clone)]
pub(crate) struct RawServer {
    /// `http://127.0.0.1:PORT`.
    pub(crate) base: String,
    requests: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicU64>,
}

impl RawServer {
    /// Starts it; the script is given the head of each request.
    pub(crate) async fn start(script: impl Fn(&str) -> Raw + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { base, requests: Arc::default(), sent: Arc::default() };
        let (running, script) = (server.clone(), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (running, script) = (running.clone(), Arc::clone(&script));
                tokio::spawn(async move { running.serve(stream, &*script).await });
            }
        });
        server
    }

    /// A server that nobody should call.
    pub(crate) async fn trap() -> Self {
        Self::start(|_| json(200, r#"{"access_token":"stolen"}"#)).await
    }

    /// Heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Bytes that clients took, as far as the kernel's buffers tell.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    async fn serve(&self, mut stream: TcpStream, script: &(dyn Fn(&str) -> Raw + Send + Sync)) {
        let mut request = Vec::new();
        let head = loop {
            let mut buffer = [0; 4096];
            let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
            request.extend_from_slice(&buffer[..read]);
            if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&request[..end]).into_owned();
                let length =
                    head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                let wanted = end + 4 + length.unwrap_or(0_usize);
                while request.len() < wanted {
                    let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
                    request.extend_from_slice(&buffer[..read]);
                }
                break head;
            }
        };
        self.requests.lock().unwrap().push(head.clone());
        let mut out = async |bytes: &[u8]| {
            self.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            stream.write_all(bytes).await
        };
        match script(&head) {
            // A client that had enough has gone; nothing is left to do for it.
            Raw::Bytes(bytes) => drop(out(&bytes).await),
            Raw::Endless(first, again) => {
                let mut sent = out(&first).await;
                while sent.is_ok() {
                    sent = out(&again).await;
                }
            }
        }
        let _closed = stream.shutdown().await;
    }
}

/// An answer with a body of any type.
pub(crate) fn answer(status: u16, headers: &str, body: &[u8]) -> Raw {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    Raw::Bytes([head.as_bytes(), body].concat())
}

/// An answer in JSON.
pub(crate) fn json(status: u16, body: &str) -> Raw {
    answer(status, "Content-Type: application/json\r\n", body.as_bytes())
}

/// An answer that sends the client to another address.
pub(crate) fn redirect(status: u16, to: &str) -> Raw {
    answer(status, &format!("Location: {to}\r\n"), b"")
}

/// An answer without end, in chunks of blanks, which JSON allows.
pub(crate) fn endless() -> Raw {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    Raw::Endless(head.into(), chunk.into_bytes())
}

/// A compressed answer that says it is small and is not: `size` letters by runs of 258.
pub(crate) fn bomb(size: usize) -> Raw {
    answer(200, "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", &gzip(size))
}

/// Writes a gzip stream of one letter, by hand: a literal, then repetitions of it (RFC 1951, section 3.2.6).
fn gzip(size: usize) -> Vec<u8> {
    let mut bytes = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (mut bits, mut filled) = (0_u8, 0);
    // Huffman codes go in with their highest bit first, everything else with its lowest.
    let mut put = |code: u16, length: u32| {
        for at in (0..length).rev() {
            bits |= u8::from(code >> at & 1 == 1) << filled;
            filled += 1;
            if filled == 8 {
                bytes.push(bits);
                (bits, filled) = (0, 0);
            }
        }
    };
    // A last block with the fixed codes: 1, then 01 from its lowest bit.
    put(0b110, 3);
    put(0x30 + u16::from(b'x'), 8);
    for _ in 0..size / 258 {
        // Length 258 is symbol 285, distance 1 is symbol 0.
        put(0b1100_0101, 8);
        put(0, 5);
    }
    put(0, 7);
    put(0, 8);
    bytes
}
