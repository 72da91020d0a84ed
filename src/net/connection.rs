//! One TLS connection: rustls driven by hand over a socket of this core.
//!
//! Received and sent bytes pass through one pair of buffers per core, so an idle connection holds only what rustls itself needs.

use crate::rt;
use crate::rt::buffers::{BUFFER_BYTES, Buffers};
use crate::rt::deadline::{Deadline, Deadlines};
use crate::rt::socket::{Accepted, Stream};
use crate::ws::Transport;
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, BufRead, IoSlice, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The longest TLS record (RFC 8446, 5.2): what is read at a time of which it is not yet known what it is.
pub const RECORD_BYTES_MAX: usize = 5 + (16 << 10) + 256;

/// An open connection.
pub struct Connection {
    // Fields drop in order: the deadline must go before its socket is closed.
    deadline: Deadline,
    stream: Stream,
    tls: Box<ServerConnection>,
    buffers: Rc<Buffers>,
    peer: SocketAddr,
    /// What came right behind the handshake.
    early: Vec<u8>,
}

impl Connection {
    /// Takes over `accepted` and shakes hands within `limit`.
    pub async fn open(
        accepted: Accepted,
        config: Arc<ServerConfig>,
        buffers: Rc<Buffers>,
        deadlines: &Deadlines,
        limit: Duration,
    ) -> io::Result<Self> {
        let peer = accepted.peer;
        let stream = accepted.open();
        let deadline = deadlines.watch(stream.as_raw_fd());
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        // What is queued is bounded by those who queue it: they flush before they queue more.
        tls.set_buffer_limit(None);
        let mut connection = Self { deadline, stream, tls: Box::new(tls), buffers, peer, early: Vec::new() };
        connection.deadline.limit(limit);
        let shaken = connection.shake_hands().await;
        connection.deadline.lift();
        shaken.map(|()| connection)
    }

    async fn shake_hands(&mut self) -> io::Result<()> {
        // A client sends its first request together with the last flight of its handshake.
        let mut early = Vec::new();
        while self.tls.is_handshaking() {
            let received =
                poll_fn(|cx| self.poll_decrypt(cx, BUFFER_BYTES, |plain| early.extend_from_slice(plain)))
                    .await;
            poll_fn(|cx| self.poll_flush(cx)).await?;
            if received? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.early = early;
        self.flush().await
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The deadline that shuts this connection down.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// The certificates of the client, its own first; empty when it sent none.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.tls.peer_certificates().unwrap_or_default()
    }

    /// What ALPN settled on, if anything.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.tls.alpn_protocol()
    }

    /// Waits for bytes of the client and gives them to `take`, piece by piece, having read up to `encrypted_max` bytes. Tells how many there
    /// were; 0 means that the client sends no more.
    pub fn poll_receive_to(
        &mut self,
        cx: &mut Context<'_>,
        encrypted_max: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let early = std::mem::take(&mut self.early);
        let mut count = early.len();
        if count > 0 {
            take(&early);
        }
        while count == 0 {
            let counted = |plain: &[u8]| {
                count += plain.len();
                take(plain);
            };
            if ready!(self.poll_decrypt(cx, encrypted_max, counted))? == 0 {
                break;
            }
        }
        Poll::Ready(Ok(count))
    }

    /// Reads once from the socket, up to `encrypted_max` bytes, and decrypts; gives the number of *encrypted* bytes, 0 at the end.
    fn poll_decrypt(
        &mut self,
        cx: &mut Context<'_>,
        encrypted_max: usize,
        take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let mut buffer = self.buffers.receive.borrow_mut();
        let received = ready!(self.stream.poll_read(cx, &mut buffer[..encrypted_max.min(BUFFER_BYTES)]))?;
        let open = decrypt(&mut self.tls, &buffer[..received], take)?;
        Poll::Ready(Ok(if open { received } else { 0 }))
    }

    /// Encrypts all of `pieces` one after the other and queues them.
    pub fn queue_all(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.tls.writer().write_vectored(pieces)
    }

    /// For a client that sends no more: whether it did so by itself, and had received everything by then.
    pub fn has_received_all(&self) -> bool {
        let handle = self.deadline.handle();
        !self.deadline.passed() && handle.sent().is_some_and(|bytes| handle.has_delivered(bytes))
    }

    /// Says goodbye and waits until the client has closed too, so that the last bytes sent are not lost to a reset when the
    /// client still has unread data under way. Tells whether it did, in good order and in time; not of use when the client has
    /// closed before.
    pub async fn end(mut self, limit: Duration) -> bool {
        self.deadline.limit(limit);
        self.tls.send_close_notify();
        let said = match self.flush().await {
            Ok(()) => poll_fn(|cx| self.stream.poll_shut_write(cx)).await,
            error => error,
        };
        if said.is_err() {
            return false;
        }
        loop {
            match poll_fn(|cx| self.poll_decrypt(cx, BUFFER_BYTES, |_ignored| {})).await {
                Ok(0) => return !self.deadline.passed(),
                Ok(_) => {}
                Err(_) => return false,
            }
            // A client that sends faster than this reads must not keep the core from everybody else.
            rt::breathe().await;
        }
    }

    /// Waits until everything queued has been handed to the kernel.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }
}

impl Transport for Connection {
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        self.poll_receive_to(cx, BUFFER_BYTES, |plain| into.extend_from_slice(plain))
    }

    /// Encrypts `plain` and queues it.
    fn queue(&mut self, plain: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(plain)
    }

    fn has_queued(&self) -> bool {
        self.tls.wants_write()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut socket = Gather { stream: &mut self.stream, cx, buffer: &self.buffers.send };
            match self.tls.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => self.deadline.count_sent(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn limit(&self, after: Duration) {
        self.deadline.limit(after);
    }

    fn lift(&self) {
        self.deadline.lift();
    }

    async fn close(self, limit: Duration) {
        self.end(limit).await;
    }
}

/// Decrypts what came from the client and gives it to `take`, record by record; false when the client has closed its side.
pub fn decrypt(
    tls: &mut ServerConnection,
    mut encrypted: &[u8],
    mut take: impl FnMut(&[u8]),
) -> io::Result<bool> {
    while !encrypted.is_empty() {
        tls.read_tls(&mut encrypted)?;
        let state = tls.process_new_packets().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let (mut left, closed) = (state.plaintext_bytes_to_read(), state.peer_has_closed());
        let mut plain = tls.reader();
        while left > 0 {
            let record = plain.fill_buf()?;
            take(record);
            let taken = record.len();
            plain.consume(taken);
            left -= taken;
        }
        if closed {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sends several TLS records with one system call.
struct Gather<'a, 'b> {
    stream: &'a mut Stream,
    cx: &'a mut Context<'b>,
    buffer: &'a RefCell<Vec<u8>>,
}

impl Gather<'_, '_> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.poll_write(self.cx, bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Gather<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes)
    }

    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [only] = records {
            return self.send(only);
        }
        let shared = self.buffer;
        let mut buffer = shared.borrow_mut();
        buffer.clear();
        for record in records {
            let room = BUFFER_BYTES - buffer.len();
            buffer.extend_from_slice(&record[..record.len().min(room)]);
        }
        self.send(&buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
